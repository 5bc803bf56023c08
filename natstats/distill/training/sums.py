"""Sums over the steps of an epoch: values of losses, and images classified correctly."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["EpochSums"]


class EpochSums:
    """Sums of values over images, on the device, and where one was first not finite.

    While values are added, nothing waits for an accelerator; :meth:`culprits` does. Values on a CPU
    are added as Python numbers, with the same bits, in a tenth of the time that tensors take.

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
        self._sums = torch.zeros(len(names), dtype=torch.float64, device=device)
        self._right = torch.zeros(2, dtype=torch.float64, device=device)
        self._first_bad = torch.full((len(names),), -1, dtype=torch.int64, device=device)
        self._at_hand = _Numbers(len(names)) if device.type == "cpu" else None

    @property
    def sums(self) -> Tensor:
        """Sums of the values times the images, (len(names),), float64."""
        return self._sums if self._at_hand is None else self._at_hand.tensors()[0]

    @property
    def right(self) -> Tensor:
        """Images classified correctly, and all images, (2,), float64."""
        return self._right if self._at_hand is None else self._at_hand.tensors()[1]

    def add(self, values: Tensor, n_right: Tensor | None, n_images: int, step: int) -> None:
        """Add the values of a step, (len(names),), times its images, and how many were correct.

        A batch that is smaller than the others counts for less.
        """
        if self._at_hand is not None:
            n = 0 if n_right is None else int(n_right)
            self._at_hand.add(values.tolist(), n, n_images, step)
            return
        self._sums += values.double() * n_images
        bad = ~torch.isfinite(values) & (self._first_bad < 0)
        self._first_bad = torch.where(bad, step, self._first_bad)
        self._right[1] += n_images
        if n_right is not None:
            self._right[0] += n_right

    def culprits(self) -> tuple[int, list[str]]:
        """The first step with a value that is not finite, and the names of these; -1 for none."""
        first = self._first_bad.tolist() if self._at_hand is None else self._at_hand.first_bad
        steps = [step for step in first if step >= 0]
        if not steps:
            return -1, []
        return min(steps), [n for n, s in zip(self.names, first, strict=True) if s == min(steps)]

    def state(self) -> dict[str, Tensor]:
        """A copy, for :meth:`load`."""
        return {"sums_of_images": self.sums.clone(), "right": self.right.clone()}

    def load(self, state: Mapping[str, Tensor], n_steps: int, n_images: int) -> None:
        """Resume from what :meth:`state` gave after some steps and images.

        States written until 0.8.0 hold sums over steps, which all had equally many images.
        """
        self._right.copy_(state["right"])
        self._right[1] = n_images
        if "sums_of_images" in state:
            self._sums.copy_(state["sums_of_images"])
        else:
            self._sums.copy_(state["sums"] * (n_images / n_steps))
        if self._at_hand is not None:
            self._at_hand.sums = self._sums.tolist()
            self._at_hand.right = self._right.tolist()


class _Numbers:
    """The same sums as Python numbers."""

    def __init__(self, n: int) -> None:
        self.sums, self.right, self.first_bad = [0.0] * n, [0.0, 0.0], [-1] * n

    def add(self, values: list[float], n_right: int, n_images: int, step: int) -> None:
        for place, value in enumerate(values):
            self.sums[place] += value * n_images
            if self.first_bad[place] < 0 and not math.isfinite(value):
                self.first_bad[place] = step
        self.right[0] += n_right
        self.right[1] += n_images

    def tensors(self) -> tuple[Tensor, Tensor]:
        return (
            torch.tensor(self.sums, dtype=torch.float64),
            torch.tensor(self.right, dtype=torch.float64),
        )
