"""How the trend depends on single layers: it is refitted without each layer, map size and kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from natstats.law.regression import LayerErrors
from natstats.law.trend import (
    FEWEST_DEPTHS,
    FEWEST_LAYERS,
    UsableLayers,
    line_of,
    outcome_of,
    rank_p,
)

__all__ = ["LeftOut", "leave_out"]

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class LeftOut:
    """The trend without some layers.

    Attributes:
        what: ``layer``, ``stage`` (maps of one size), ``kind`` or ``few rings``.
        name: of what is left out.
        n_layers: layers that remain.
        slope: per unit of depth.
        p: p-value of the test that it is zero.
        rank_p: the same by ranks.
        outcome: ``rises``, ``falls`` or ``no trend``.
        is_changed: whether the outcome is another than with all layers.
    """

    what: str
    name: str
    n_layers: int
    slope: float
    p: float
    rank_p: float
    outcome: str
    is_changed: bool


def leave_out(
    layers: UsableLayers, groups: Mapping[tuple[str, str], Mask], outcome: str
) -> list[LeftOut]:
    """Fit the trend without each group of layers; groups that leave too few layers are passed over.

    Args:
        layers: the layers of the law.
        groups: which layers are left out, (L,), by what they are and their name.
        outcome: what is found with all layers.
    """
    found = []
    for (what, name), mask in groups.items():
        rest = _without(layers, mask)
        if len(rest.depth) < FEWEST_LAYERS or len(set(rest.depth)) < FEWEST_DEPTHS:
            continue
        line = line_of(rest)
        errors = LayerErrors(rest.exponent, rest.deviations)
        slope = errors.regress(line).coefficient(1)
        p, by_rank = slope.p(), rank_p(errors, line)
        now = outcome_of(slope.mean, p, by_rank)
        n = len(rest.depth)
        found.append(LeftOut(what, name, n, slope.mean, p, by_rank, now, now != outcome))
    return found


def _without(layers: UsableLayers, mask: Mask) -> UsableLayers:
    keep = ~mask
    return replace(
        layers,
        depth=layers.depth[keep],
        exponent=layers.exponent[keep],
        deviations=layers.deviations[:, keep],
        resolution=_kept(layers.resolution, keep),
        names=_kept(layers.names, keep),
    )


def _kept(values: Sequence[str], keep: Mask) -> list[str]:
    return [value for value, use in zip(values, keep, strict=True) if use]
