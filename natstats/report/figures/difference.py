"""Differences of exponents against depth: of two runs, or of trained and random weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from natstats.law.trend import SIGNIFICANCE
from natstats.report.figures.overlay import short_name
from natstats.report.figures.points import draw_points, hollow_mark
from natstats.report.figures.style import (
    GREY,
    INK,
    MARKERS,
    PALETTE,
    depth_axis,
    is_narrow,
    legend,
    look,
    new_axes,
    new_figure,
    side_by_side,
)
from natstats.report.records import ControlReport, DifferenceReport

__all__ = ["plot_control", "plot_difference"]

Pair = tuple[Axes, Axes]


def plot_difference(comparison: DifferenceReport, axes: Pair | None = None) -> Pair:
    """Draw the exponents of two runs against depth, and their difference below.

    Layers that differ after correction for their number are filled, the others hollow.

    Args:
        comparison: what to draw.
        axes: above and below; by default those of a new figure.

    Returns:
        The axes drawn into.
    """
    rows = comparison.layers[np.isfinite(comparison.layers.difference)]
    with look():
        above, below = _two(axes)
        places = side_by_side(list(rows.depth), 0.3)
        entries: list[tuple[Artist, str]] = []
        for number, (key, name) in enumerate(zip("ab", comparison.names, strict=True)):
            own = _as_exponents(rows, f"exponent_{key}", f"low_{key}", f"high_{key}")
            shift = 0.12 * (2 * number - 1)
            handle = draw_points(above, own, places + shift, PALETTE[number], MARKERS[number], 3.6)
            entries.append((handle, f"{'AB'[number]}: {short_name(name)}"))
        draw_changes(below, rows, places)
        _finish(above, below, entries, "B − A")
    return above, below


def plot_control(control: ControlReport, axes: Pair | None = None) -> Pair:
    """Draw the trained layers and those with random weights, and what training did below.

    Every seed of the random weights is a thin dash.

    Args:
        control: what to draw.
        axes: above and below; by default those of a new figure.

    Returns:
        The axes drawn into.
    """
    seeds = [f"seed_{seed}" for seed in control.seeds]
    values = control.layers[["exponent", *seeds]].to_numpy()
    rows = control.layers.loc[np.isfinite(values).any(axis=1)]
    with look():
        above, below = _two(axes)
        places = side_by_side(list(rows.depth), 0.3)
        own = _as_exponents(rows, "exponent", "exponent_low", "exponent_high")
        trained = draw_points(above, own, places, PALETTE[0], MARKERS[0], 3.6)
        style: dict[str, Any] = {
            "linestyle": "none", "marker": "_", "markersize": 7, "markeredgewidth": 0.9,
            "color": PALETTE[1],
        }  # fmt: skip
        for seed in seeds:
            drawn = np.isfinite(rows[seed].to_numpy())
            above.plot(places[drawn], rows[seed][drawn], zorder=3, **style)
        draw_changes(below, rows, places)
        random = (Line2D([], [], **style), f"random weights, each of {len(seeds)} seeds")
        _finish(above, below, [(trained, "trained"), random], "trained − random")
    return above, below


def draw_changes(ax: Axes, rows: pd.DataFrame, places: np.ndarray) -> None:
    """The differences with their intervals about a line at zero."""
    own = _as_exponents(rows, "difference", "low", "high")
    # This flag makes a point hollow.
    own["flags"] = np.where(rows.p_corrected < SIGNIFICANCE, "", "alike")
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    draw_points(ax, own, places, INK, "o", 3.6)


def _as_exponents(rows: pd.DataFrame, value: str, low: str, high: str) -> pd.DataFrame:
    """The columns under the names that points are drawn from."""
    names = {value: "exponent", low: "exponent_low", high: "exponent_high"}
    return rows[list(names)].rename(columns=names).assign(flags="")


def _two(axes: Pair | None) -> Pair:
    if axes is None:
        figure = new_figure(5.2)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.15, 1.0))
        axes = above, below
    return new_axes(axes[0], 0.0), new_axes(axes[1], 0.0)


def _finish(above: Axes, below: Axes, entries: Sequence[tuple[Artist, str]], label: str) -> None:
    """Labels, and the legend above."""
    narrow = is_narrow(above)
    filled = Line2D([], [], linestyle="none", marker="o", markersize=4.5, color=INK)
    shown = [
        *entries,
        (filled, "below: differs after Holm's correction"),
        (hollow_mark(), "below: not found to differ"),
    ]
    for ax in (above, below):
        ax.grid(axis="y")
    above.tick_params(labelbottom=False)
    depth_axis(below)
    above.set_ylabel(r"exponent $\alpha$")
    below.set_ylabel(rf"difference, {label}" if not narrow else label)
    legend(
        above,
        [handle for handle, _ in shown],
        [text for _, text in shown],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
        ncols=1 if narrow else 2,
        fontsize=7 if narrow else 8,
    )
