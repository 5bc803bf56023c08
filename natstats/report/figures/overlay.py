"""The exponents and laws of several runs in one figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.law import Law
from natstats.numbers import change
from natstats.report.figures.law import EXPONENT_LABEL, with_reasons
from natstats.report.figures.law_curves import depths_of_law
from natstats.report.figures.points import draw_points, flag_names, hollow_mark, missing_entry
from natstats.report.figures.style import (
    GREY,
    MARKERS,
    PALETTE,
    depth_axis,
    is_narrow,
    legend,
    look,
    new_axes,
)
from natstats.text import printable

__all__ = ["plot_overlay", "short_name"]

LONGEST_NAME = 40
"""Most characters of a name in the legend; of a longer one the middle is left out."""


def plot_overlay(runs: Sequence[tuple[str, pd.DataFrame, Law]], ax: Axes | None = None) -> Axes:
    """Draw exponent against depth for several runs, each with its line.

    A line is solid where the verdict of its run is ``linear law``, else dashed; it ends where the
    layers of its law end. Runs at one depth stand side by side so that their intervals can be told
    apart. At depth 0 stand the input images (in grey, where they have colours), which no line takes
    into account.

    Args:
        runs: name to show, rows of the layers, and law; at most eight.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.

    Raises:
        UsageError: there are no runs, more than eight, or they measure depth differently.

    >>> plot_overlay([])
    Traceback (most recent call last):
    natstats.errors.UsageError: runs: expected 1 to 8 runs, as many as can be told apart; got 0
    """
    if not 1 <= len(runs) <= len(PALETTE):
        raise UsageError(
            f"runs: expected 1 to {len(PALETTE)} runs, as many as can be told apart; "
            f"got {len(runs)}"
        )
    measures = {law.depth for _, _, law in runs}
    if len(measures) > 1:
        raise UsageError(
            "runs: expected the same measure of depth in all, for one axis; got "
            f"{', '.join(sorted(measures))} (natstats fit RUN --depth changes it)"
        )
    measure = DEPTH_AXES[measures.pop()]
    runs = [(name, rows.assign(depth=measure.values(rows)), law) for name, rows, law in runs]
    with look():
        ax = new_axes(ax, 4.4 + 0.17 * len(runs))
        ax.grid(axis="y")
        entries: list[tuple[Artist, str]] = []
        narrow = is_narrow(ax)
        gap = "\n" if narrow else " "
        inner = [layers[layers.kind != "input"] for _, layers, _ in runs]
        deepest = max([1.0, *(depth for rows in inner for depth in rows.depth.dropna())])
        apart = 1.0 if measure.is_count else 0.01 * deepest
        for place, ((name, layers, law), rows) in enumerate(zip(runs, inner, strict=True)):
            colour, marker = PALETTE[place], MARKERS[place]
            shift = 0.5 * apart * (place - (len(runs) - 1) / 2) / len(runs)
            shown = pd.concat([layers[layers.kind == "input"].head(1), rows])
            shown = with_reasons(shown[np.isfinite(shown.depth)])
            depth = shown.depth.to_numpy(dtype=float)
            handle = draw_points(ax, shown, depth + shift, colour, marker, 3.6)
            _draw_line(ax, rows, law, colour)
            entries.append((handle, f"{short_name(name)}: {_summary(law, gap)}"))
        flat = [(handle, label.replace("\n", " ")) for handle, label in _reading(runs, inner)]
        entries += flat
        ax.set_xlim(-0.02 * deepest - 0.5 * apart, 1.02 * deepest + 0.5 * apart)
        depth_axis(ax, measure)
        ax.set_ylabel(r"exponent $\alpha$" if narrow else EXPONENT_LABEL)
        legend(
            ax,
            [handle for handle, _ in entries],
            [label for _, label in entries],
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            borderaxespad=0.2,
            fontsize=7 if narrow else 8,
        )
    return ax


def _reading(
    runs: Sequence[tuple[str, pd.DataFrame, Law]], inner: Sequence[pd.DataFrame]
) -> list[tuple[Artist, str]]:
    """Legend entries on dashed lines, hollow points and rows that are not drawn, if any."""
    rows = pd.concat(inner)
    entries: list[tuple[Artist, str]] = []
    if any(np.isfinite(law.slope) and law.verdict != "linear law" for _, _, law in runs):
        dashed = Line2D([], [], color=GREY, linewidth=1.1, linestyle=(0, (5, 3)))
        entries.append((dashed, "dashed: not shown to be a law"))
    flags = flag_names(with_reasons(rows[np.isfinite(rows.exponent)]), doubts=True)
    if flags:
        entries.append((hollow_mark(), "hollow: " + ", ".join(flags)))
    return [*entries, *missing_entry(rows)]


def _draw_line(ax: Axes, rows: pd.DataFrame, law: Law, colour: str) -> None:
    depths = depths_of_law(rows)
    if not np.isfinite(law.slope) or depths.empty:
        return
    ends = np.array([depths.min(), depths.max()], dtype=float)
    style = "-" if law.verdict == "linear law" else (0, (5, 3))
    ax.plot(ends, law.predict(ends)[0], color=colour, linewidth=1.1, linestyle=style, zorder=2)


def _summary(law: Law, gap: str) -> str:
    if not np.isfinite(law.slope):
        return "too few layers for a law"
    per = DEPTH_AXES[law.depth].briefly
    return f"{law.verdict},{gap}{change(law.slope, law.slope_low, law.slope_high)} {per}"


def short_name(name: str) -> str:
    """A name as a legend shows it: of a long one the middle is left out."""
    name = printable(name)
    if len(name) <= LONGEST_NAME:
        return name
    half = (LONGEST_NAME - 1) // 2
    return f"{name[:half]}…{name[-half:]}"
