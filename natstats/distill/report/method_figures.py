"""Figures of methods of distillation compared: accuracy, curves, gap and accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from natstats.distill.report.named_rows import height_of, row_names
from natstats.distill.report.records import MethodTable
from natstats.report.figures.overlay import short_name
from natstats.report.figures.style import (
    GREY,
    INK,
    MARKERS,
    PALETTE,
    is_for_phones,
    is_narrow,
    legend,
    look,
    new_axes,
    new_figure,
)  # fmt: skip

__all__ = [
    "has_gaps", "plot_accuracy", "plot_curves_of", "plot_gap_accuracy", "plot_method_curves",
]  # fmt: skip

LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1, 2)))
"""Line styles that tell methods of one colour apart, such as those with one term more."""

INTERVAL_STYLES: dict[str, Any] = {"seeds": "-", "images": (0, (2, 1.2))}
"""Line styles by what an interval is over: one over images must not look like one over seeds."""

MOST_BANDS = 4
"""Most methods for which bands are drawn; those of more would overlap."""

MOST_CURVES = 12
"""Most curves in a figure: more cannot be told apart, and their legend leaves no room."""

SEED: dict[str, Any] = {
    "linestyle": "none", "marker": "o", "markersize": 3.2, "color": GREY, "markeredgewidth": 0,
    "alpha": 0.75,
}  # fmt: skip
"""Dot of a training."""

FAILED: dict[str, Any] = SEED | {"markerfacecolor": "white", "markeredgewidth": 0.8, "alpha": 1.0}
"""Dot of a training whose student predicts only one class."""


def plot_accuracy(found: MethodTable, task: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the accuracy of every method: a dot for each seed, a diamond and a bar for the mean.

    Lines stand at the means of the student alone and of the teacher, where they are known.

    Args:
        found: what to draw.
        task: number of the task.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.
    """
    rows, seeds = _of(found.methods, task), _of(found.seeds, task)
    with look():
        names = row_names([short_name(str(label)) for label in rows.label])
        ax = new_axes(ax, 1.5 + height_of(names))
        ax.grid(axis="x")
        low, high = _span(rows, seeds)
        entries = _draw_references(ax, rows, (low, high))
        ax.set_xlim(low, high)
        for place, row in enumerate(rows.to_dict("records")):
            _draw_method(ax, place, row, seeds[seeds.label == row["label"]])
        ax.set_yticks(range(len(rows)))
        ax.set_yticklabels(names, parse_math=False)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.set_xlabel("accuracy after the last epoch, %")
        _legend_above(ax, [*_accuracy_marks(rows, seeds, found.level), *entries])
    return ax


def _draw_references(
    ax: Axes, rows: pd.DataFrame, span: tuple[float, float]
) -> list[tuple[Artist, str]]:
    """Lines at the student alone and at the teachers, and their entries in the legend."""
    entries: list[tuple[Artist, str]] = []
    for name, value, style, colour in _lines(rows):
        look_of: dict[str, Any] = {"color": colour, "linewidth": 1.0, "linestyle": style}
        if span[0] <= 100 * value <= span[1]:
            entries.append((ax.axvline(100 * value, zorder=1, **look_of), name))
        else:
            # A teacher far above would squeeze the methods into a corner of the figure.
            nothing = Line2D([], [], linestyle="none")
            entries.append((nothing, f"{name}: {100 * value:.1f} %, beyond the axis"))
    return entries


def _draw_method(ax: Axes, place: int, row: Mapping[Any, Any], seeds: pd.DataFrame) -> None:
    """A dot for each seed, hollow where one class is predicted, the interval, and the mean."""
    beside = 0.22 * np.linspace(-1, 1, len(seeds)) * (len(seeds) > 1)
    failed = _of_one_class(seeds)
    for own, style in ((~failed, SEED), (failed, FAILED)):
        ax.plot(100 * seeds.accuracy[own], (place + beside)[own], zorder=3, **style)
    ends = 100 * np.array([row["low"], row["high"]])
    if np.isfinite(ends).all():
        style = INTERVAL_STYLES[row["interval_of"]]
        ax.plot(ends, [place] * 2, color=PALETTE[0], linewidth=2, linestyle=style, zorder=4)
    ax.plot(
        100 * row["accuracy"], place, marker="D", markersize=4.6, color=PALETTE[0],
        markeredgecolor="white", markeredgewidth=0.6, zorder=5,
    )  # fmt: skip


def _of_one_class(seeds: pd.DataFrame) -> NDArray[np.bool_]:
    """Seeds whose student predicts one class."""
    if "is_of_one_class" not in seeds:
        return np.zeros(len(seeds), dtype=bool)
    return seeds.is_of_one_class.to_numpy(dtype=bool)


def _accuracy_marks(
    rows: pd.DataFrame, seeds: pd.DataFrame, level: float
) -> list[tuple[Artist, str]]:
    """Entries of the legend for the dots and for the intervals that are drawn."""
    marks: list[tuple[Artist, str]] = [(Line2D([], [], **SEED), "one seed")]
    if _of_one_class(seeds).any():
        marks.append((Line2D([], [], **FAILED), "predicts one class"))
    kinds = rows.interval_of[np.isfinite(rows.low)]
    for kind, style in INTERVAL_STYLES.items():
        if (kinds == kind).any():
            bar = Line2D([], [], color=PALETTE[0], linewidth=2, linestyle=style)
            marks.append((bar, f"{100 * level:g} % interval over {kind}"))
    return marks


def plot_method_curves(found: MethodTable, task: int = 0, ax: Axes | None = None) -> Axes:
    """Draw the accuracy on the evaluation images over the main stage, in the mean over seeds.

    Bands span the seeds; there are none with more than :data:`MOST_BANDS` methods.

    Args:
        found: what to draw.
        task: number of the task.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.
    """
    return plot_curves_of(_of(found.curves, task), _labels(found, task), ax)


def plot_curves_of(curves: pd.DataFrame, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """Draw learning curves: a line for each label, in their order, with bands where they are few.

    Args:
        curves: label, epoch, accuracy, low and high.
        labels: labels of the lines; one without a curve is left out, and so are those after the
            first :data:`MOST_CURVES`.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.
    """
    looks = _looks(labels[:MOST_CURVES])
    with look():
        ax = new_axes(ax, 4.4)
        ax.grid(axis="y")
        entries: list[tuple[Artist, str]] = []
        for label, (colour, style, mark) in looks.items():
            own = curves[curves.label == label]
            if not len(own):
                continue
            if len(looks) <= MOST_BANDS:
                ax.fill_between(
                    own.epoch, 100 * own.low, 100 * own.high, color=colour, alpha=0.12, linewidth=0
                )
            (line,) = ax.plot(
                own.epoch, 100 * own.accuracy, color=colour, linestyle=style,
                marker=mark if len(own) == 1 else "",  # a line of one point is not seen
            )  # fmt: skip
            entries.append((line, short_name(label)))
        if len(labels) > len(looks):
            nothing = Line2D([], [], linestyle="none")
            entries.append((nothing, f"{len(labels) - len(looks)} more are not drawn"))
        ax.xaxis.set_major_locator(
            MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
        )
        ax.set_xlabel("epoch of the main stage")
        ax.set_ylabel("accuracy on the evaluation images, %")
        _legend_above(ax, entries, columns=4)
    return ax


def has_gaps(found: MethodTable, task: int = 0) -> bool:
    """Whether the spectral gap of a method of this task is known."""
    rows = _of(found.methods, task)
    return bool(np.isfinite(rows[["closed_exponent", "closed_distance"]].to_numpy(float)).any())


def plot_gap_accuracy(found: MethodTable, task: int = 0, figure: Figure | None = None) -> Figure:
    """Draw accuracy against how much of the spectral gap was closed, for exponents and spectra.

    A large mark is the mean of a method, a small one a seed.

    Args:
        found: what to draw.
        task: number of the task.
        figure: where to draw; by default a new one.

    Returns:
        The figure drawn into.
    """
    rows, seeds = _of(found.methods, task), _of(found.seeds, task)
    looks = _looks(_labels(found, task))
    panels = (
        ("closed_exponent", "gap of the exponents closed by"),
        ("closed_distance", "gap of the log spectra closed by"),
    )
    with look():
        if figure is None:
            figure = new_figure(6.4 if is_for_phones() else 4.4)
        is_stacked = is_for_phones()
        axes = figure.subplots(1 + is_stacked, 2 - is_stacked, sharey=True)
        entries: list[tuple[Artist, str]] = []
        for ax, (column, title) in zip(axes, panels, strict=True):
            ax = new_axes(ax, 0)
            ax.grid()
            ax.axvline(0.0, color=INK, linewidth=0.7, zorder=1)
            for label, (colour, _, marker) in looks.items():
                own, mean = seeds[seeds.label == label], rows[rows.label == label]
                if not np.isfinite(mean[column]).any():
                    continue
                shape: dict[str, Any] = {"linestyle": "none", "marker": marker, "color": colour}
                ax.plot(
                    own[column], 100 * own.accuracy, markersize=2.8, alpha=0.5, markeredgewidth=0,
                    zorder=2, **shape,
                )  # fmt: skip
                ax.plot(
                    mean[column], 100 * mean.accuracy, markersize=6.5, markeredgecolor="white",
                    markeredgewidth=0.6, zorder=3, **shape,
                )  # fmt: skip
                if column == panels[0][0] or label not in [name for _, name in entries]:
                    entries.append((Line2D([], [], markersize=6, **shape), label))
            ax.xaxis.set_major_locator(MaxNLocator(5, prune="upper"))
            ax.set_xlabel(title)
        for ax in axes if is_stacked else axes[:1]:
            ax.set_ylabel("accuracy after the last epoch, %")
        _legend_above(axes[0], [(mark, short_name(name)) for mark, name in entries], columns=5)
    return figure


def _of(frame: pd.DataFrame, task: int) -> pd.DataFrame:
    return frame[frame.task == task]


def _span(rows: pd.DataFrame, seeds: pd.DataFrame) -> tuple[float, float]:
    """Ends of the axis: they hold seeds, intervals, and lines of reference that are not far off."""
    values = 100 * np.concatenate([rows.low, rows.high, rows.accuracy, seeds.accuracy])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    width = max(high - low, 1.0)
    near = [
        100 * value for _, value, _, _ in _lines(rows)
        if low - 0.6 * width <= 100 * value <= high + 0.6 * width
    ]  # fmt: skip
    return min([low, *near]) - 0.04 * width, max([high, *near]) + 0.04 * width


def _lines(rows: pd.DataFrame) -> list[tuple[str, float, Any, str]]:
    """Name, place, style and colour of the lines of reference."""
    found: list[tuple[str, float, Any, str]] = []
    alone = rows[rows.method == "ce"]
    if len(alone) == 1:
        found.append(("student alone", float(alone.accuracy.iloc[0]), (0, (5, 3)), INK))
    taught = rows[(rows.teacher != "") & np.isfinite(rows.teacher_accuracy)]
    for name in dict.fromkeys(taught.teacher):
        accuracies = taught.teacher_accuracy[taught.teacher == name]
        found += [
            (f"teacher {short_name(name)}", float(value), (0, (1, 1.5)), PALETTE[1])
            for value in dict.fromkeys(accuracies.round(6))
        ]
    return found


def _labels(found: MethodTable, task: int) -> list[str]:
    return [str(label) for label in _of(found.methods, task).label]


def _looks(labels: Sequence[str]) -> dict[str, tuple[str, Any, str]]:
    """Colour, line and marker of every method, in the order of the table.

    A method with one term more has the colour of the one without, and another line style.
    """
    base = {label: label.rpartition("+")[0] for label in labels}
    families: dict[str, list[str]] = {}
    for label in labels:
        families.setdefault(base[label] if base[label] in base else label, []).append(label)
    n = len(PALETTE)
    if len(families) <= n and max(map(len, families.values()), default=0) <= len(LINES):
        places = {
            label: (colour, line)
            for colour, members in enumerate(families.values())
            for line, label in enumerate(members)
        }
    else:
        places = {label: (place % n, place // n % len(LINES)) for place, label in enumerate(labels)}
    return {
        label: (
            PALETTE[places[label][0]], LINES[places[label][1]],
            MARKERS[(place + place // n) % len(MARKERS)],
        )
        for place, label in enumerate(labels)
    }  # fmt: skip


def _legend_above(ax: Axes, entries: list[tuple[Artist, str]], columns: int = 5) -> None:
    longest = max((len(label) for _, label in entries), default=1)
    fitting = max(1, min(columns, 110 // (longest + 8)))
    legend(
        ax,
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2 if is_narrow(ax) and columns < 5 else fitting,
        borderaxespad=0.2,
        columnspacing=1.2,
        handletextpad=0.5,
    )
