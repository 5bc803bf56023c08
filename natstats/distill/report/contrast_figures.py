"""Differences of pairs of methods with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from natstats.distill.report.named_rows import height_of, row_names
from natstats.report.figures.overlay import short_name
from natstats.report.figures.style import GREY, INK, PALETTE, legend, look, new_axes

__all__ = ["plot_contrasts"]

COLOURS: Mapping[str, str] = {"better": PALETTE[2], "worse": PALETTE[1]}
"""Colours by verdict; contrasts with any other verdict are grey."""


def plot_contrasts(rows: pd.DataFrame, level: float = 0.95, ax: Axes | None = None) -> Axes:
    """Draw a mark and an interval for every contrast; hollow marks are positive controls.

    Args:
        rows: rows of :func:`natstats.distill.comparison.contrasts.contrast_frame` of one task;
            thin lines are the intervals for other images too, where they are known.
        level: level of the intervals.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.
    """
    known = rows[np.isfinite(rows.difference)].reset_index(drop=True)
    with look():
        pairs = row_names(
            [
                f"{short_name(str(row.label))} over {short_name(str(row.reference_label))}"
                for row in known.itertuples()
            ]
        )
        ax = new_axes(ax, 1.3 + height_of(pairs))
        ax.grid(axis="x")
        ax.axvline(0.0, color=INK, linewidth=0.8, zorder=1)
        for place, row in enumerate(known.to_dict("records")):
            _draw(ax, place, row)
        ax.set_yticks(range(len(known)))
        ax.set_yticklabels(pairs, parse_math=False)
        ax.set_ylim(len(known) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("difference of accuracies, percentage points")
        entries = _entries(known, level)
        legend(
            ax, [mark for mark, _ in entries], [text for _, text in entries], loc="lower left",
            bbox_to_anchor=(0.0, 1.0), ncols=2, borderaxespad=0.2, columnspacing=1.2,
        )  # fmt: skip
    return ax


def _draw(ax: Axes, place: int, row: Mapping[Any, Any]) -> None:
    colour = COLOURS.get(row["verdict"], GREY)
    wide = 100 * np.array([row["low_images"], row["high_images"]])
    if np.isfinite(wide).all():
        ax.plot(wide, [place] * 2, color=colour, linewidth=0.8, zorder=2)
    ends = 100 * np.array([row["low"], row["high"]])
    if np.isfinite(ends).all():
        ax.plot(ends, [place] * 2, color=colour, linewidth=2.2, zorder=3)
    ax.plot(
        100 * row["difference"], place, marker="D", markersize=5, color=colour, zorder=4,
        markerfacecolor="white" if row["control"] else colour,
    )  # fmt: skip


def _entries(rows: pd.DataFrame, level: float) -> list[tuple[Artist, str]]:
    entries: list[tuple[Artist, str]] = [
        (Line2D([], [], color=GREY, linewidth=2.2), f"{100 * level:g} % interval, other seeds")
    ]
    if np.isfinite(rows.low_images).any():
        entries.append((Line2D([], [], color=GREY, linewidth=0.8), "other seeds and images"))
    shown: dict[str, Any] = {"linestyle": "none", "marker": "D", "markersize": 5}
    for verdict, colour in COLOURS.items():
        if (rows.verdict == verdict).any():
            entries.append((Line2D([], [], color=colour, **shown), f"{verdict}, p (Holm) < 0.05"))
    if rows.control.any():
        hollow = Line2D([], [], color=GREY, markerfacecolor="white", **shown)
        entries.append((hollow, "positive control"))
    return entries
