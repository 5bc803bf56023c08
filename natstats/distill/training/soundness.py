"""Errors of a training whose losses or weights are no longer finite."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from natstats.distill.training.sums import EpochSums
from natstats.errors import NatstatsError

__all__ = ["NotFiniteError", "refuse_broken_weights", "refuse_non_finite"]


class NotFiniteError(NatstatsError):
    """A loss or a weight of a training is no longer finite: the training broke down."""


def refuse_non_finite(sums: EpochSums, stage: str, epoch: int, ending: str = "") -> None:
    """Raise where a loss was not finite.

    Args:
        sums: what was added up in the epoch.
        stage: name of the stage, for the error.
        epoch: number of the epoch, from 0.
        ending: text that ends the error.

    Raises:
        NotFiniteError: one was not; it is named.
    """
    step, names = sums.culprits()
    if not names:
        return
    named = [name for name in names if name != "loss"] or names
    were = "was" if len(named) == 1 else "were"
    raise NotFiniteError(
        f"training: expected finite losses; {' and '.join(named)} {were} not finite in stage "
        f"{stage}, epoch {epoch + 1}, step {step + 1}{ending}"
    )


def refuse_broken_weights(
    weights: Iterable[Tensor], stage: str, epoch: int, ending: str = ""
) -> None:
    """Raise where a step from a finite loss led to weights that are not finite.

    Args:
        weights: all weights that are trained.
        stage: name of the stage, for the error.
        epoch: number of the epoch, from 0.
        ending: text that ends the error.

    Raises:
        NotFiniteError: one is not finite.
    """
    if not bool(torch.stack([one.isfinite().all() for one in weights]).all()):
        raise NotFiniteError(
            f"training: expected finite weights; a step in stage {stage}, epoch {epoch + 1} led to "
            f"others{ending}"
        )
