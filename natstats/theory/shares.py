"""Shares of a change of the exponent, and sums of them with their errors.

A share depends on the images. So it has deviations: how it changes as each group of images is left
out, scaled so that their squares add up to its variance (:mod:`natstats.fits.intervals`). The
deviations of a sum are the sums of the deviations. The Gaussian part of activation functions is
known by blocks of groups only, and has deviations of blocks. In a sum of both kinds, the deviations
of groups are added to those of their block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natstats.fits.intervals import effective_dof
from natstats.law.differences import Estimate

__all__ = ["Share", "Shares"]

Array = NDArray[np.float64]

_ROUNDING = 1e-12
"""Weights below this count as zero, and so do sums below this part of what is summed."""


@dataclass(frozen=True, eq=False)
class Share:
    """A part of the change of an exponent over one step.

    Attributes:
        step: place of the step in the account.
        cause: what it is put down to, one of :data:`natstats.theory.account.CAUSES`.
        part: which part of the cause, in a word; empty where it is all of it.
        value: the share; NaN where it is not known.
        groups: its deviations as groups of images are left out, (G,).
        blocks: its deviations as blocks are left out, (B,); zeros where it has none.
    """

    step: int
    cause: str
    part: str
    value: float
    groups: Array
    blocks: Array


class Shares:
    """The shares of an account, of which sums can be taken.

    Args:
        shares: the shares, K of them.
        block_of: block of each group, (G,); -1 for none.
        level: level of intervals.
    """

    def __init__(self, shares: Sequence[Share], block_of: NDArray[np.int64], level: float) -> None:
        self.list = list(shares)
        self.level = level
        n, n_blocks = len(self.list), len(self.list[0].blocks) if self.list else 0
        self.value = np.array([one.value for one in self.list])
        self._groups = np.array([one.groups for one in self.list]).reshape(n, len(block_of))
        self._blocks = np.array([one.blocks for one in self.list]).reshape(n, n_blocks)
        self.block_of = block_of

    def __len__(self) -> int:
        return len(self.list)

    def where(self, cause: str) -> NDArray[np.bool_]:
        """Which shares are put down to a cause, (K,)."""
        return np.array([one.cause == cause for one in self.list], dtype=bool)

    def deviations(self, weights: Array) -> Array:
        """Deviations of a weighted sum, (g,).

        They are those of groups; or, where a share in the sum is known by blocks only, those of
        blocks, and after them of groups in no block.
        """
        weights = _plain(weights)
        used = weights != 0
        groups = weights[used] @ self._groups[used]
        blocks = weights[used] @ self._blocks[used]
        # The Gaussian part and the rest of a rectifier cancel here, but for rounding.
        least = _ROUNDING * (np.abs(weights[used]) @ np.abs(self._blocks[used]))
        if not np.any(np.abs(blocks) > least):
            return np.asarray(groups)
        inside = self.block_of >= 0
        joined = blocks + np.bincount(self.block_of[inside], groups[inside], minlength=len(blocks))
        return np.concatenate([joined, groups[~inside]])

    def sum(self, weights: Array) -> Estimate:
        """A weighted sum with its interval, for other images of the same sort.

        Args:
            weights: of the shares, (K,).
        """
        weights = _plain(weights)
        used = weights != 0
        value = float(weights[used] @ self.value[used])
        deviations = self.deviations(weights)
        return estimate(value, deviations, self.level)

    def each(self) -> list[Estimate]:
        """Every share with its interval."""
        return [self.sum(row) for row in np.eye(len(self))]


def _plain(weights: Array) -> Array:
    """Weights, with 0 for those that are zero but for rounding."""
    return np.where(np.abs(weights) > _ROUNDING, weights, 0.0)


def estimate(value: float, deviations: Array, level: float) -> Estimate:
    """A number with the interval that its deviations give."""
    moved = deviations[deviations != 0]
    dof = float(effective_dof(moved)) if len(moved) > 1 else 1.0
    return Estimate.of(value, [float(deviations @ deviations)], [dof], level)
