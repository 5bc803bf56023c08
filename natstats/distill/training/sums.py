"""What is added up over the steps of an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["EpochSums"]


class EpochSums:
    """Sums of values over images, on the device, and where one was first not finite.

    Nothing here waits for an accelerator but :meth:`culprits`.

    Args:
        names: names of the values.
        device: where the values are.

    >>> sums = EpochSums(["ce", "loss"], torch.device("cpu"))
    >>> sums.add(torch.tensor([1.0, 2.0]), None, 8, step=0)
    >>> sums.add(torch.tensor([1.0, float("nan")]), None, 8, step=1)
    >>> sums.culprits()
    (1, ['loss'])
    >>> sums.right.tolist()
    [0.0, 16.0]
    """

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names = names
        self.sums = torch.zeros(len(names), dtype=torch.float64, device=device)
        self.right = torch.zeros(2, dtype=torch.float64, device=device)
        self.first_bad = torch.full((len(names),), -1, dtype=torch.int64, device=device)

    def add(self, values: Tensor, n_right: Tensor | None, n_images: int, step: int) -> None:
        """Add the values of a step, (len(names),), times its images, and how many were right.

        A batch that is smaller than the others counts for less.
        """
        self.sums += values.double() * n_images
        bad = ~torch.isfinite(values) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)
        self.right[1] += n_images
        if n_right is not None:
            self.right[0] += n_right

    def culprits(self) -> tuple[int, list[str]]:
        """The first step with a value that is not finite, and which were; -1 for none."""
        first = self.first_bad.tolist()
        steps = [step for step in first if step >= 0]
        if not steps:
            return -1, []
        return min(steps), [n for n, s in zip(self.names, first, strict=True) if s == min(steps)]

    def state(self) -> dict[str, Tensor]:
        """A copy, for :meth:`load`."""
        return {"sums_of_images": self.sums.clone(), "right": self.right.clone()}

    def load(self, state: Mapping[str, Tensor], n_steps: int, n_images: int) -> None:
        """Go on from what :meth:`state` gave after some steps and images.

        Until 0.8.0 every step counted the same, and had as many images as the others.
        """
        self.right.copy_(state["right"])
        self.right[1] = n_images
        if "sums_of_images" in state:
            self.sums.copy_(state["sums_of_images"])
        else:
            self.sums.copy_(state["sums"] * (n_images / n_steps))
