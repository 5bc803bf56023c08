"""The specification curve: the trend under every combination of reasonable choices, sorted."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.specifications import CHOICES, Specification, Specifications
from natstats.numbers import counted
from natstats.report.figures.style import (
    FAINT,
    GREY,
    INK,
    NARROW,
    PALETTE,
    legend,
    look,
    new_figure,
)
from natstats.text import printable

__all__ = ["CHOICE_NAMES", "OUTCOME_MARKS", "choice_value", "plot_specifications"]

Pair = tuple[Axes, Axes]
Array = NDArray[np.float64]

CHOICE_NAMES = {name: name.replace("_", " ") for name in CHOICES}
"""What the choices are called in figures and tables."""

OUTCOME_MARKS = {
    "rises": ("^", PALETTE[2]),
    "no trend": ("o", "#98a2ab"),
    "falls": ("v", PALETTE[1]),
}
"""Marker and colour for each of :data:`natstats.law.trend.OUTCOMES`."""

LONGEST_VALUE = 30
"""Most characters of a value beside its row; of a longer one the end is left out."""

ROW = 0.135
"""Height of a row of choices, inches."""

REACH = 0.05
"""Share of the ends of intervals, at either side, that may lie beyond the axes."""


def plot_specifications(specifications: Specifications, axes: Pair | None = None) -> Pair:
    """Draw the change of the exponent under each specification above the choices that make it.

    A column is a specification. They are sorted by the change over the whole depth, and coloured by
    what the tests find; thin lines are the intervals. Below, a mark stands in the row of each
    choice. A line through both marks the specification that was asked for. A few intervals may end
    beyond the axes; changes that lie there have a mark at the edge, and the axis
    says how many these are.

    Args:
        specifications: what to draw; those without a number are left out.
        axes: for the changes and for the choices; by default those of a new figure.

    Returns:
        The axes drawn into.

    >>> words = ("octave", "whole", "all", "layers", "left alone")
    >>> row = Specification(*words, 9, *[0.1] * 6, "rises")
    >>> plot_specifications(Specifications([row, row]))[1].get_xlabel()
    '2 specifications, sorted by the change of the exponent'
    """
    found = [row for row in specifications.rows if np.isfinite(row.change)]
    rows = sorted(found, key=lambda row: row.change)
    shown = list(_groups(found))
    with look():
        above, below = _two(axes, len(shown))
        figure = above.get_figure(root=True)
        assert figure is not None
        is_wide = figure.get_figwidth() > NARROW
        asked = (x for x, row in enumerate(rows, 1) if row is specifications.rows[0])
        place = next(asked, None)
        column = _column_width(above, len(rows), is_wide)
        entries, n_beyond = _draw_changes(above, rows, column)
        _draw_choices(below, rows, shown, column)
        _name_rows(below, shown, is_wide)
        if place is not None:
            below.axvline(place, color=INK, linewidth=0.7, zorder=1.5)
            name = "the one asked for" if is_wide else "asked for"
            entries.append((_mark_asked(above, place, rows[place - 1]), name))
        _dress(above, below, specifications.sentence(), len(rows), is_wide)
        if n_beyond:
            told = f"{n_beyond} at the edge {'lies' if n_beyond == 1 else 'lie'} beyond it"
            below.set_xlabel(f"{below.get_xlabel()}\n{told}")
        legend(
            above,
            [handle for handle, _ in entries],
            [label for _, label in entries],
            loc="lower left",
            bbox_to_anchor=(0.0, 1.0),
            ncols=len(entries) if is_wide else 2,
            borderaxespad=0.2,
            columnspacing=1.2,
            handletextpad=0.5,
            fontsize=7.5 if is_wide else 7,
        )
    return above, below


def choice_value(choice: str, value: str) -> str:
    """A value of a choice as figures and tables show it.

    >>> choice_value("depth", "layers"), choice_value("band", "whole")
    ('depth', 'whole')
    """
    return DEPTH_AXES[value].name if choice == "depth" else value


def _groups(rows: Sequence[Specification]) -> Iterator[tuple[str, str | None]]:
    """A row for each choice, with no value, and one for each of its values."""
    for choice in CHOICES:
        yield choice, None
        for value in dict.fromkeys(getattr(row, choice) for row in rows):
            yield choice, value


def _two(axes: Pair | None, n_rows: int) -> Pair:
    """The axes given, or those of a new figure that is high enough for the rows."""
    if axes is None:
        upper, lower = 2.3, ROW * n_rows
        figure = new_figure(upper + lower + 0.75)
        axes = figure.subplots(2, 1, sharex=True, height_ratios=(upper, lower))
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    return axes[0], axes[1]


def _column_width(ax: Axes, n: int, is_wide: bool) -> float:
    """Points that a column of marks may be wide; names stand beside the axes."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    room = 72 * (figure.get_figwidth() - (2.1 if is_wide else 1.7))
    return float(min(0.75 * room / max(n, 1), 4.0))


def _upright(ax: Axes, x: Array, low: Array, high: Array, **style: Any) -> None:
    """Upright strokes as one path, which keeps the file small."""
    gap = np.full(len(x), np.nan)
    places = np.stack([x, x, gap], axis=1).ravel()
    ax.plot(places, np.stack([low, high, gap], axis=1).ravel(), solid_capstyle="butt", **style)


def _draw_changes(
    ax: Axes, rows: Sequence[Specification], column: float
) -> tuple[list[tuple[Artist, str]], int]:
    """Draw the changes; entries of the legend, and how many changes lie beyond the edges."""
    change, low, high = (
        np.array([getattr(row, name) for row in rows], dtype=np.float64)
        for name in ("change", "change_low", "change_high")
    )
    ax.axhline(0.0, color=INK, linewidth=0.8, zorder=2)
    ends = _ends(change, low, high)
    entries: list[tuple[Artist, str]] = []
    size = float(np.clip(1.6 * column, 1.8, 4.5))
    for outcome, (marker, colour) in OUTCOME_MARKS.items():
        own = np.array([row.outcome == outcome for row in rows], dtype=bool)
        if not own.any():
            continue
        x = np.flatnonzero(own).astype(np.float64) + 1
        bounded = np.isfinite(low[own]) & np.isfinite(high[own])
        width = min(0.7 * column, 1.0)
        _upright(
            ax, x[bounded], low[own][bounded], high[own][bounded],
            color=colour, alpha=0.5 if outcome == "no trend" else 0.65, linewidth=width, zorder=3,
        )  # fmt: skip
        style: dict[str, Any] = {"linestyle": "none", "marker": marker, "color": colour}
        inside = np.clip(change[own], *ends)
        ax.plot(x, inside, markersize=size, markeredgewidth=0, clip_on=False, zorder=4, **style)
        label = f"{outcome}: {own.sum()}"
        entries.append((Line2D([], [], markersize=4.5, **style), label))
    ax.set_ylim(*ends)
    return entries, int(np.sum((change < ends[0]) | (change > ends[1])))


def _ends(change: Array, low: Array, high: Array) -> tuple[float, float]:
    """Ends of an axis that holds nearly all of the intervals, and zero."""
    lows, highs = low[np.isfinite(low)], high[np.isfinite(high)]
    lows, highs = (ends if len(ends) else change for ends in (lows, highs))
    least = min(0.0, float(np.quantile(lows, REACH, method="lower")))
    most = max(0.0, float(np.quantile(highs, 1 - REACH, method="higher")))
    spare = 0.05 * (most - least) or 0.1
    return least - spare, most + spare


def _draw_choices(
    ax: Axes,
    rows: Sequence[Specification],
    shown: Sequence[tuple[str, str | None]],
    column: float,
) -> None:
    colours = np.array([OUTCOME_MARKS[row.outcome][1] for row in rows])
    for line, (choice, value) in enumerate(shown):
        if value is None:
            continue
        ax.axhline(line, color=FAINT, linewidth=0.6, zorder=0)
        chosen = np.array([getattr(row, choice) == value for row in rows], dtype=bool)
        for _, colour in OUTCOME_MARKS.values():
            x = np.flatnonzero(chosen & (colours == colour)).astype(np.float64) + 1
            if len(x):
                at = np.full(len(x), float(line))
                _upright(ax, x, at - 0.36, at + 0.36, color=colour, linewidth=column, zorder=2)
    ax.set_ylim(len(shown) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0, pad=2)
    ax.spines["left"].set_visible(False)


def _name_rows(ax: Axes, shown: Sequence[tuple[str, str | None]], is_wide: bool) -> None:
    """The choices in bold, their values below them."""
    names = [
        CHOICE_NAMES[choice] if value is None else _short(choice_value(choice, value))
        for choice, value in shown
    ]
    ax.set_yticks(range(len(shown)), names, parse_math=False, fontsize=6.5 if is_wide else 6)
    for label, (_, value) in zip(ax.get_yticklabels(), shown, strict=True):
        if value is None:
            label.set_fontweight("bold")


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= LONGEST_VALUE else f"{name[: LONGEST_VALUE - 1]}…"


def _mark_asked(ax: Axes, place: int, row: Specification) -> Artist:
    """A diamond and a strong interval for the specification that was asked for."""
    ax.axvline(place, color=GREY, linewidth=0.4, zorder=1)
    _upright(
        ax, np.array([float(place)]), np.array([row.change_low]), np.array([row.change_high]),
        color=INK, linewidth=1.4, zorder=5,
    )  # fmt: skip
    ax.plot(
        [place], [row.change], linestyle="none", marker="D", markersize=6,
        markerfacecolor=OUTCOME_MARKS[row.outcome][1], markeredgecolor=INK, markeredgewidth=1.1,
        zorder=6,
    )  # fmt: skip
    return Line2D(
        [], [], linestyle="none", marker="D", markersize=5, color=INK, markerfacecolor="white"
    )


def _dress(above: Axes, below: Axes, sentence: str, n: int, is_wide: bool) -> None:
    above.set_xlim(0.5 - 0.01 * n, n + 0.5 + 0.01 * n)
    below.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    above.tick_params(labelbottom=False)
    label = f"{counted(n, 'specification')}, sorted by the change of the exponent"
    below.set_xlabel(label if is_wide else f"{counted(n, 'specification')}, by the change")
    above.set_ylabel("change of the exponent\nover the whole depth", fontsize=9 if is_wide else 8)
    above.grid(axis="y")
    told = f"The exponent {sentence}"
    size = 9.5 if is_wide else 7.5
    title = told if is_wide else "\n".join(textwrap.wrap(told, 40))
    above.set_title(title, loc="left", pad=20 if is_wide else 30, fontsize=size)
