"""How the outputs of one call of a module are read, or why they cannot be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from natstats.activations.layouts import Layout
from natstats.checks import MINIMUM_SIDE
from natstats.numbers import counted
from natstats.spectra.layer_sums import SizeSums
from natstats.spectra.transforms import RingTransform

__all__ = ["LayerReading", "why_unfit"]


@dataclass(frozen=True)
class LayerReading:
    """How the outputs of one call of a module are read, as long as they look as they did.

    Attributes:
        shape: of the output.
        dtype: of the output.
        of: state of the layout rules in the pass for which it was found, see
            :attr:`natstats.activations.layout_rules.LayoutRules.state`.
        layout: of the output.
        sums: where the spectra go.
        transform: maps to spectra.
    """

    shape: torch.Size
    dtype: torch.dtype
    of: tuple[Any, ...]
    layout: Layout
    sums: SizeSums
    transform: RingTransform

    def fits(self, output: Tensor, of: tuple[Any, ...]) -> bool:
        """Whether an output of a pass looks like those that it was found for."""
        return (self.shape, self.dtype, self.of) == (output.shape, output.dtype, of)


def why_unfit(layout: Layout, temporal: bool) -> str | None:
    """Why maps of a layout cannot be measured; None when they can.

    Args:
        layout: of the output.
        temporal: the spectrum along time is wanted.
    """
    height, width = layout.grid[-2:]
    if temporal:
        if len(layout.grid) < 3:
            return "no time axis"
        n_frames = layout.grid[0]
        return (
            None
            if n_frames >= MINIMUM_SIDE
            else f"{counted(n_frames, 'frame')}; at least {MINIMUM_SIDE}"
        )
    if min(height, width) < MINIMUM_SIDE:
        return f"maps of {height} x {width} pixels; at least {MINIMUM_SIDE} x {MINIMUM_SIDE}"
    return None
