"""What the kernels alone would do to the exponent: against what was measured, and by depth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from natstats.numbers import number
from natstats.report.figures.style import (
    GREY,
    INK,
    PALETTE,
    depth_axis,
    is_for_phones,
    is_narrow,
    legend,
    look,
    new_axes,
    new_figure,
    side_by_side,
)
from natstats.report.records import AccountReport

__all__ = ["convolutions", "median_difference", "plot_kernel_exponents", "plot_kernels"]

Pair = tuple[Axes, Axes]

MARKS = {
    "k × k": ("o", PALETTE[0], True),
    "k × k, depthwise": ("^", PALETTE[2], True),
    "1 × 1": ("s", PALETTE[1], False),
}
"""Marker and colour of each sort of convolution, and whether it is filled."""


def convolutions(frame: pd.DataFrame) -> pd.DataFrame:
    """The convolutions of an account whose change was split into causes.

    Args:
        frame: a row per share, see :attr:`natstats.theory.account.Account.frame`.

    Returns:
        A row per convolution: layer, depth, sort, measured (change of the exponent), independent
        (what kernels and strides alone would do), linear (with correlations between channels; NaN
        where no border takes part, since it would equal `measured`), kernel_exponent,
        shuffled_exponent.
    """
    rows = []
    for own in _steps(frame):
        share = own.groupby("cause").share.sum()
        if "kernels" not in share:
            continue
        first = own.iloc[0]
        measured = first.after - first.before
        rows.append(
            {
                "layer": first.step,
                "depth": first.depth,
                "sort": _sort(str(first.operation)),
                "measured": measured,
                "independent": share["kernels"] + share.get("strides", 0.0),
                "linear": measured - share["borders"] if "borders" in share else np.nan,
                "kernel_exponent": first.kernel_exponent,
                "shuffled_exponent": first.shuffled_exponent,
            }
        )
    names = [
        "layer", "depth", "sort", "measured", "independent", "linear", "kernel_exponent",
        "shuffled_exponent",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _steps(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each step, which are next to each other."""
    key = frame[["step", "before", "after"]]
    starts = (key != key.shift()).any(axis=1).cumsum()
    return [own for _, own in frame.groupby(starts.to_numpy(), sort=False)]


def _sort(operation: str) -> str:
    """The sort of a convolution, from its description in words."""
    words = operation.split()
    sides = next((word for word in words if "x" in word and word[0].isdigit()), "1x1")
    if set(sides.split("x")) == {"1"}:
        return "1 × 1"
    return "k × k, depthwise" if "depthwise" in words else "k × k"


def median_difference(found: pd.DataFrame, predicted: str) -> tuple[float, int]:
    """Median absolute difference of a prediction from the measurement, and of how many."""
    apart = (found[predicted] - found.measured).abs().dropna()
    return float(apart.median()) if len(apart) else np.nan, len(apart)


def plot_kernels(account: AccountReport, axes: Pair | None = None) -> Pair:
    """Draw what convolutions do to the exponent against what their kernels should do.

    On the left, channels are taken as independent; on the right, with their correlations. The right
    shows only convolutions with a border: for others that prediction equals the measurement.

    Args:
        account: what to draw.
        axes: left and right; by default those of a new figure.

    Returns:
        The axes drawn into.
    """
    found = convolutions(account.frame)
    sorts = [sort for sort in MARKS if (found["sort"] == sort).any()]
    with look():
        left, right = _two(axes, 4.3, columns=2)
        values = found[["measured", "independent", "linear"]].to_numpy(dtype=np.float64)
        values = values[np.isfinite(values)]
        low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
        spare = 0.05 * ((high - low) or 1.0)
        ends = (low - spare, high + spare)
        for ax, name, text in (
            (left, "independent", "kernels alone, channels independent"),
            (right, "linear", "with correlations of channels"),
        ):
            ax.plot(ends, ends, color=GREY, linewidth=0.9, zorder=1)
            ax.axhline(0.0, color=GREY, linewidth=0.5, linestyle=(0, (1, 3)), zorder=1)
            ax.axvline(0.0, color=GREY, linewidth=0.5, linestyle=(0, (1, 3)), zorder=1)
            for sort in sorts:
                own = found[(found["sort"] == sort) & np.isfinite(found[name])]
                ax.plot(own[name], own.measured, zorder=3, **_mark(sort))
            ax.set_xlim(ends)
            ax.set_ylim(ends)
            ax.grid()
            median, n = median_difference(found, name)
            told = f"median difference {number(median)} (n = {n})" if n else "nothing to compare"
            ax.set_title(f"{text}\n{told}", fontsize=7.5 if is_narrow(ax) else 8.5)
            ax.set_xlabel("predicted change of the exponent", fontsize=8)
        left.set_ylabel("measured change", fontsize=8)
        n_of = found["sort"].value_counts()
        handles: list[Artist] = [Line2D([], [], **_mark(sort)) for sort in sorts]
        labels = [f"{sort} ({n_of[sort]})" for sort in sorts]
        handles.append(Line2D([], [], color=GREY, linewidth=0.9))
        _legend_above(left, handles, [*labels, "as predicted"], above=0.4, columns=2)
    return left, right


def _mark(sort: str) -> dict[str, Any]:
    marker, colour, is_filled = MARKS[sort]
    return {
        "linestyle": "none", "marker": marker, "markersize": 4.5, "color": colour, "alpha": 0.85,
        "markerfacecolor": colour if is_filled else "white", "markeredgewidth": 0.9,
    }  # fmt: skip


def plot_kernel_exponents(account: AccountReport, axes: Pair | None = None) -> Pair:
    """Draw the exponent of the kernels by depth, and below what the rectifiers do.

    The exponent of the kernels is that of white noise after the convolution; beside it stands the
    same with the taps of each kernel shuffled. Kernels of 1 x 1 leave white noise white and are not
    drawn. Of the rectifiers the measured share is drawn, and that of Gaussian theory.

    Args:
        account: what to draw.
        axes: above and below; by default those of a new figure.

    Returns:
        The axes drawn into.
    """
    found = convolutions(account.frame)
    own = found[(found["sort"] != "1 × 1") & np.isfinite(found.kernel_exponent)]
    with look():
        above, below = _two(axes, 5.4)
        for ax in (above, below):
            ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
            ax.grid(axis="y")
        handles: list[Artist] = []
        labels: list[str] = []
        place = side_by_side(list(own.depth), 0.3)
        for sort in [sort for sort in MARKS if (own["sort"] == sort).any()]:
            some = (own["sort"] == sort).to_numpy()
            above.plot(place[some], own.kernel_exponent[some], zorder=4, **_mark(sort))
            handles.append(Line2D([], [], **_mark(sort)))
            labels.append(f"kernels, {sort}")
        if np.isfinite(own.shuffled_exponent).any():
            style: dict[str, Any] = {
                "linestyle": "none", "marker": "_", "markersize": 7, "markeredgewidth": 1.2,
                "color": INK,
            }  # fmt: skip
            above.plot(place, own.shuffled_exponent, zorder=3, **style)
            handles.append(Line2D([], [], **style))
            labels.append("with the taps of each kernel shuffled")
        entries = _draw_rectifiers(below, account.frame)
        above.tick_params(labelbottom=False)
        depth_axis(below)
        above.set_ylabel("exponent of the kernels" if is_narrow(above) else
                         r"exponent $\alpha$ of the kernels")  # fmt: skip
        below.set_ylabel("share of rectifiers")
        _legend_above(above, handles, labels)
        _legend_above(below, [handle for handle, _ in entries], [text for _, text in entries])
    return above, below


def _draw_rectifiers(ax: Axes, frame: pd.DataFrame) -> list[tuple[Artist, str]]:
    """Measured shares, and those of Gaussian theory, joined where there are both."""
    steps = [own for own in _steps(frame) if (own.cause == "rectifiers").any()]
    if not steps:
        return []
    place = side_by_side([own.depth.iloc[0] for own in steps], 0.3)
    measured = np.array([own.share.sum() for own in steps])
    told = [own.share[own.part == "Gaussian"] for own in steps]
    gaussian = np.array([part.iloc[0] if len(part) else np.nan for part in told])
    ax.vlines(place, measured, gaussian, color=GREY, linewidth=0.7, zorder=2)
    style: dict[str, Any] = {"linestyle": "none", "color": PALETTE[1], "markersize": 4.5}
    hollow: dict[str, Any] = {"marker": "D", "markerfacecolor": "white", "markeredgewidth": 1.0}
    ax.plot(place, gaussian, zorder=3, **style, **hollow)
    ax.plot(place, measured, zorder=4, marker="v", **style)
    entries: list[tuple[Artist, str]] = [(Line2D([], [], marker="v", **style), "measured")]
    if np.isfinite(gaussian).any():
        entries.append((Line2D([], [], **style, **hollow), "as for Gaussian maps"))
    return entries


def _two(axes: Pair | None, height: float, columns: int = 1) -> Pair:
    """The axes given, or new ones: above each other, or side by side where there is room."""
    shares_depth = columns == 1
    if axes is None:
        if is_for_phones() and columns == 2:
            height, columns = 1.6 * height, 1
        figure = new_figure(height)
        layout: dict[str, Any] = {"sharey": True} if columns == 2 else {"sharex": shares_depth}
        one, other = figure.subplots(3 - columns, columns, **layout)
        axes = one, other
    return new_axes(axes[0], 0.0), new_axes(axes[1], 0.0)


def _legend_above(
    ax: Axes, handles: list[Artist], labels: list[str], above: float = 0.0, columns: int = 0
) -> None:
    """A legend `above` inches over the axes, in `columns` columns.

    By default it is one row, or on narrow axes one column if it has more than two entries.
    """
    if not handles:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    narrow = is_narrow(ax)
    legend(
        ax, handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0),
        bbox_transform=ax.transAxes + ScaledTranslation(0, above, figure.dpi_scale_trans),
        borderaxespad=0.2, ncols=columns or (1 if narrow and len(labels) > 2 else len(labels)),
        fontsize=7 if narrow else 8, columnspacing=1.4, handletextpad=0.4,
    )  # fmt: skip
