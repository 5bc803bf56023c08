"""What is added up over the steps of an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["EpochSums"]


class EpochSums:
    """Sums of values over steps, on the device, and where one was first not finite.

    Nothing here waits for an accelerator but :meth:`culprits`.

    Args:
        names: names of the values.
        device: where the values are.

    >>> sums = EpochSums(["ce", "loss"], torch.device("cpu"))
    >>> sums.add(torch.tensor([1.0, 2.0]), None, 8, step=0)
    >>> sums.add(torch.tensor([1.0, float("nan")]), None, 8, step=1)
    >>> sums.culprits()
    (1, ['loss'])
    """

    def __init__(self, names: list[str], device: torch.device) -> None:
        self.names = names
        self.sums = torch.zeros(len(names), dtype=torch.float64, device=device)
        self.right = torch.zeros(2, dtype=torch.float64, device=device)
        self.first_bad = torch.full((len(names),), -1, dtype=torch.int64, device=device)

    def add(self, values: Tensor, n_right: Tensor | None, n_images: int, step: int) -> None:
        """Add the values of a step, (len(names),), and how many of its images were right."""
        self.sums += values.double()
        bad = ~torch.isfinite(values) & (self.first_bad < 0)
        self.first_bad = torch.where(bad, step, self.first_bad)
        if n_right is not None:
            self.right += torch.stack([n_right.double(), n_right.new_tensor(n_images).double()])

    def culprits(self) -> tuple[int, list[str]]:
        """The first step with a value that is not finite, and which were; -1 for none."""
        first = self.first_bad.tolist()
        steps = [step for step in first if step >= 0]
        if not steps:
            return -1, []
        return min(steps), [n for n, s in zip(self.names, first, strict=True) if s == min(steps)]

    def state(self) -> dict[str, Tensor]:
        """A copy, for :meth:`load`."""
        return {"sums": self.sums.clone(), "right": self.right.clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave."""
        self.sums.copy_(state["sums"])
        self.right.copy_(state["right"])
