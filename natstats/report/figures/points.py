"""Exponents as points with intervals, and the lines of a legend that belong to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from natstats.fits.forms import flag_meanings
from natstats.report.figures.style import GREY

__all__ = ["draw_points", "flag_names", "hollow_mark", "missing_entry"]


def draw_points(
    ax: Axes, rows: pd.DataFrame, depth: np.ndarray, colour: str, marker: str, size: float = 4.5
) -> Artist:
    """Points with intervals, hollow where in doubt; rows without an exponent are left out."""
    doubted = [bool(flag_names(rows.iloc[[i]], doubts=True)) for i in range(len(rows))]
    flagged = np.array(doubted, dtype=bool)
    exponent = rows.exponent.to_numpy(dtype=float)
    below, above = exponent - rows.exponent_low, rows.exponent_high - exponent
    reach = np.stack([below, above]).astype(float)
    drawn = np.isfinite(exponent)
    bounded = drawn & np.isfinite(reach).all(axis=0)
    if bounded.any():
        ax.errorbar(
            depth[bounded],
            exponent[bounded],
            yerr=np.clip(reach[:, bounded], 0.0, None),
            fmt="none",
            ecolor=colour,
            elinewidth=0.8,
            zorder=3,
        )
    for hollow in (False, True):
        some = drawn & (flagged == hollow)
        if some.any():
            ax.plot(
                depth[some],
                exponent[some],
                linestyle="none",
                marker=marker,
                markersize=size,
                color=colour,
                markerfacecolor="white" if hollow else colour,
                markeredgewidth=1.0,
                zorder=4,
            )
    return Line2D([], [], linestyle="none", marker=marker, markersize=size, color=colour)


def hollow_mark() -> Line2D:
    """The mark that stands for flagged layers in a legend."""
    mark = Line2D([], [], linestyle="none", marker="o", markersize=4.5, color=GREY)
    mark.set_markerfacecolor("white")
    return mark


def flag_names(layers: pd.DataFrame, *, doubts: bool = False) -> list[str]:
    """The different flags of these layers, without the numbers in brackets.

    With `doubts`, only those that make points hollow: a flag that names a better form than the
    power law does not put the number in doubt.
    """
    flags = [flag for cell in layers["flags"].fillna("") for flag in str(cell).split("; ") if flag]
    names = dict.fromkeys(flag.partition(" (")[0] for flag in flags)
    return [name for name in names if not (doubts and name in flag_meanings())]


def missing_entry(layers: pd.DataFrame) -> list[tuple[Artist, str]]:
    """Lines for the legend that count the rows without an exponent or a depth, if there are any."""
    placed = np.isfinite(layers.depth.to_numpy(dtype=float))
    reasons = {
        "an\nexponent": ~np.isfinite(layers.exponent.to_numpy(dtype=float)) & placed,
        "a\nknown depth": ~placed,
    }
    return [
        (
            Line2D([], [], linestyle="none"),
            f"{n} {'row' if n == 1 else 'rows'} without {what} not drawn",
        )
        for what, rows in reasons.items()
        if (n := int(rows.sum()))
    ]
