"""Figures of one distillation run: curves, gradients of the terms, gap of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter, MaxNLocator

from natstats.numbers import short
from natstats.report.figures.overlay import short_name
from natstats.report.figures.style import (
    GREY,
    INK,
    MARKERS,
    PALETTE,
    legend,
    look,
    new_axes,
    new_figure,
)

if TYPE_CHECKING:
    from natstats.distill.results import DistillationRun

__all__ = ["plot_curves", "plot_gaps", "plot_gradients"]

MOST_NAMED = 24
"""Most pairs of layers for which each is named on the axis."""


def plot_curves(run: DistillationRun, figure: Figure | None = None) -> Figure:
    """Draw accuracy and the mean value of every term over the epochs of all stages.

    Args:
        run: what to draw.
        figure: where to draw; by default a new one.

    Returns:
        The figure drawn into.
    """
    rows = run.history
    step = np.arange(1, len(rows) + 1)
    with look():
        if figure is None:
            figure = new_figure(5.6)
        upper, lower = figure.subplots(2, 1, sharex=True)
        new_axes(upper, 0).grid(axis="y")
        entries: list[tuple[Artist, str]] = []
        for column, name, colour in (
            ("accuracy", "training images", GREY),
            ("eval_accuracy", f"{run.data.get('split') or 'evaluation'} images", PALETTE[0]),
        ):
            if np.isfinite(rows[column]).any():
                (line,) = upper.plot(step, 100 * rows[column], color=colour, **_marks(len(rows)))
                entries.append((line, name))
        if np.isfinite(run.teacher_accuracy):
            line = upper.axhline(
                100 * run.teacher_accuracy, color=PALETTE[1], linewidth=1, linestyle=(0, (1, 1.5))
            )
            entries.append((line, "teacher"))
        upper.set_ylabel("accuracy, %")
        _legend(upper, entries)
        new_axes(lower, 0).grid(axis="y")
        entries = []
        for place, term in enumerate(run.terms):
            values = rows[term].to_numpy(dtype=float)
            values = np.where(values > 0, values, np.nan)
            if np.isfinite(values).any():
                look_of = {"color": PALETTE[place % len(PALETTE)], **_marks(len(rows), place)}
                (line,) = lower.plot(step, values, **look_of)
                entries.append((line, short_name(term)))
        if entries:
            _logarithmic(lower)
        lower.set_xlim(0.5, len(rows) + 0.5)
        lower.set_ylabel("mean value, unweighted")
        _legend(lower, entries)
        for ax in (upper, lower):
            _stages(ax, rows, named=ax is upper)
        _epochs(lower)
    return figure


def plot_gradients(run: DistillationRun, ax: Axes | None = None) -> Axes:
    """Draw the norm of each weighted term's gradient over that of the cross-entropy.

    Args:
        run: what to draw.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.
    """
    rows = run.gradient_ratios()
    places = {
        (stage, epoch): place + 1
        for place, (stage, epoch) in enumerate(
            zip(run.history.stage, run.history.epoch, strict=True)
        )
    }
    with look():
        ax = new_axes(ax, 3.2)
        ax.grid(axis="y")
        ax.axhline(1.0, color=INK, linewidth=0.8, zorder=1)
        entries: list[tuple[Artist, str]] = []
        # In the colours of the curves.
        for place, term in enumerate(dict.fromkeys([*run.terms, *rows.term])):
            own = rows[(rows.term == term) & (rows.ratio > 0)]
            step = [places.get(pair, np.nan) for pair in zip(own.stage, own.epoch, strict=True)]
            if len(own):
                look_of = {"color": PALETTE[place % len(PALETTE)], **_marks(len(own), place)}
                (line,) = ax.plot(step, own.ratio, **look_of)
                entries.append((line, short_name(str(term))))
        if entries:
            _logarithmic(ax)
        ax.set_xlim(0.5, len(run.history) + 0.5)
        ax.set_ylabel("gradient norm over\nthat of cross-entropy")
        _stages(ax, run.history, named=False)
        _epochs(ax)
        _legend(ax, entries)
    return ax


def plot_gaps(run: DistillationRun, figure: Figure | None = None) -> Figure:
    """Draw exponents of teacher and student, and the distance of their spectra, layer by layer.

    Args:
        run: what to draw.
        figure: where to draw; by default a new one.

    Returns:
        The figure drawn into.
    """
    rows = run.gap
    place = np.arange(len(rows))
    before: dict[str, Any] = {"marker": "o", "markerfacecolor": "white", "color": GREY}
    after: dict[str, Any] = {"marker": "o", "color": PALETTE[0]}
    taught: dict[str, Any] = {"marker": "_", "markersize": 11, "color": PALETTE[1]}
    taught |= {"markeredgewidth": 1.8}
    with look():
        if figure is None:
            figure = new_figure(5.2)
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for ax in (upper, lower):
            new_axes(ax, 0).grid(axis="y")
        points: dict[str, Any] = {"linestyle": "none", "markersize": 5}
        for ax, ends in (
            (upper, ("exponent_before", "exponent_after")),
            (lower, ("distance_before", "distance_after")),
        ):
            ax.vlines(place, rows[ends[0]], rows[ends[1]], color=GREY, linewidth=0.8, zorder=2)
            for column, style in zip(ends, (before, after), strict=True):
                ax.plot(place, rows[column], zorder=3, **{**points, **style})
        upper.plot(place, rows.exponent_teacher, zorder=4, **{**points, **taught})
        upper.set_ylabel(r"exponent $\alpha$")
        lower.set_ylabel("distance of spectra,\n" + r"$\log_{10}$ power")
        lower.set_ylim(bottom=0)
        if len(rows) <= MOST_NAMED:
            names = [short_name(name) for name in rows.student_layer]
            lower.set_xticks(place)
            lower.set_xticklabels(
                names, rotation=35, ha="right", rotation_mode="anchor", parse_math=False
            )
        lower.set_xlabel("layer of the student")
        entries: list[tuple[Artist, str]] = [
            (Line2D([], [], **{**points, **style}), name)
            for style, name in (
                (taught, "teacher"), (before, "student before"), (after, "student after"),
            )
        ]  # fmt: skip
        _legend(upper, entries)
    return figure


def _marks(n: int, place: int = 0) -> dict[str, Any]:
    """Style of the marks, which are drawn where epochs are few enough to show each."""
    return {"marker": MARKERS[place % len(MARKERS)] if n <= 40 else "", "markersize": 2.6}


def _stages(ax: Axes, rows: pd.DataFrame, named: bool) -> None:
    """A line where a stage begins, with its name where there are several."""
    stages = list(rows.stage)
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    if len(starts) < 2:
        return
    if named:  # names stand below all that is drawn
        low, high = ax.get_ylim()
        ax.set_ylim(low - 0.12 * (high - low), high)
    for start in starts:
        if start:
            ax.axvline(start + 0.5, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)), zorder=1)
        if named:
            ax.text(
                start + 0.6, 0.02, short_name(str(stages[start])), fontsize=7, color=GREY,
                transform=ax.get_xaxis_transform(), parse_math=False,
            )  # fmt: skip


def _logarithmic(ax: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    ax.set_yscale("log")
    for set_formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        set_formatter(_Plain(labelOnlyBase=False, minor_thresholds=(1.5, 0.5)))


class _Plain(LogFormatter):
    """Labels the ticks that matplotlib would label, without powers of ten."""

    def __call__(self, value: float, position: int | None = None) -> str:
        return short(value) if super().__call__(value, position) else ""


def _epochs(ax: Axes) -> None:
    ticks = MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
    ax.xaxis.set_major_locator(ticks)
    ax.set_xlabel("epoch, over all stages")


def _legend(ax: Axes, entries: Sequence[tuple[Artist, str]]) -> None:
    if entries:
        longest = max(len(label) for _, label in entries)
        legend(
            ax, [handle for handle, _ in entries], [label for _, label in entries],
            loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, columnspacing=1.2,
            handletextpad=0.5, ncols=max(1, min(len(entries), 6, 110 // (longest + 8))),
        )  # fmt: skip
