"""Exponents and the slope of the law over the checkpoints of a training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.law import OLDER_VERDICTS, VERDICTS
from natstats.numbers import short
from natstats.report.figures.end_labels import EndLabel, label_ends
from natstats.report.figures.law import EXPONENT_LABEL, INPUT_NAMES
from natstats.report.figures.style import (
    GREY,
    INK,
    PALETTE,
    depth_colours,
    is_narrow,
    legend,
    look,
    new_axes,
    new_figure,
)
from natstats.report.records import SeriesReport

__all__ = ["plot_exponents", "plot_slopes", "plot_training"]

MOST_NAMED = 6
"""Most layers whose lines have a name and an interval."""

MOST_MARKED = 24
"""Most checkpoints with which every exponent still has a mark of its own."""

VERDICT_MARKS = {
    "linear law": ("o", PALETTE[0], True),
    "rises": ("^", PALETTE[2], True),
    "falls": ("v", PALETTE[1], True),
    "no trend": ("o", GREY, False),
    "depends on the specification": ("D", GREY, False),
    "too little to tell": ("X", GREY, True),
}
"""Marker, colour and whether it is filled, for each of :data:`natstats.law.law.VERDICTS`."""

assert tuple(VERDICT_MARKS) == VERDICTS

_OLDER_MARKS = {
    older: VERDICT_MARKS[verdict]
    for older, verdict in zip(
        OLDER_VERDICTS, ("linear law", "rises", "too little to tell"), strict=True
    )
}
"""Marks of the verdicts that only series of earlier versions have."""

Array = NDArray[np.float64]


def plot_training(series: SeriesReport, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
    """Draw the exponents of all layers above the slopes of their laws, over the same steps.

    Args:
        series: what to draw.
        axes: for the exponents and for the slopes; by default a new figure.

    Returns:
        The axes drawn into.

    >>> import natstats
    >>> from pathlib import Path
    >>> from natstats.networks.checkpoint_files import number_checkpoints
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> both = number_checkpoints([Path("epoch_1.pth"), Path("epoch_5.pth")])
    >>> plot_training(natstats.Series.of([run, run], both).report())[1].get_xlabel()
    'epoch'
    """
    if axes is None:
        with look():
            figure = new_figure(7.4)
            upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        axes = upper, lower
    drawn = plot_exponents(series, axes[0]), plot_slopes(series, axes[1])
    if len(drawn[0].get_shared_x_axes().get_siblings(drawn[0])) > 1:
        drawn[0].set_xlabel("")
    return drawn


def plot_exponents(series: SeriesReport, ax: Axes | None = None) -> Axes:
    """Draw the exponent of every layer over the steps, a line per layer in the colour of its depth.

    Up to :data:`MOST_NAMED` layers have their name at the end of the line, and their interval as a
    band: all where they are few, else the first and the last, those that change most, and the
    highest and the lowest at the end. The dashed line is the exponent of the images, in grey where
    they have colours. Where a layer has no exponent its line is broken; the legend counts the
    missing exponents.

    Args:
        series: what to draw.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.
    """
    measure = DEPTH_AXES[series.options.depth]
    rows = series.exponents
    steps = series.frame.step.to_numpy(dtype=float)
    inner, inputs = rows[rows.kind != "input"], rows[rows.kind == "input"]
    with look():
        ax = new_axes(ax, 4.2)
        ax.grid(axis="y")
        depths = inner.depth[np.isfinite(inner.depth)]
        norm = Normalize(min([1.0, *depths]), max([1.0, *depths]) + (len(set(depths)) < 2))
        colours = depth_colours()
        marker = "o" if len(steps) <= MOST_MARKED else ""
        named, ends = _named(inner), []
        for name, own in inner.groupby("layer", sort=False):
            depth = own.depth.iloc[0]
            colour = colours(norm(depth)) if np.isfinite(depth) else GREY
            is_named = name in named
            ax.plot(
                own.step, own.exponent, color=colour, linewidth=1.5 if is_named else 0.9,
                alpha=1.0 if is_named else 0.45, marker=marker, markersize=2.6 if is_named else 1.8,
                markeredgewidth=0, zorder=3.5 if is_named else 3,
            )  # fmt: skip
            if is_named:
                ax.fill_between(
                    own.step, own.low, own.high, color=colour, alpha=0.18, linewidth=0, zorder=2
                )
                last = own.exponent.to_numpy(dtype=float)[np.isfinite(own.exponent)][-1]
                ends.append(EndLabel(str(name), float(last), colour))
        level = f"{100 * series.options.level:g} % interval"
        entries: list[tuple[Artist, str]] = [(Patch(color=GREY, alpha=0.25, linewidth=0), level)]
        if len(named) < inner.layer.nunique():
            entries.insert(
                0, (Line2D([], [], color=GREY, linewidth=0.9, alpha=0.6), "other layers")
            )
        if len(inputs):
            name = str(inputs.layer.iloc[0])
            own = inputs[inputs.layer == name]
            (line,) = ax.plot(
                own.step, own.exponent, color=INK, linewidth=1.3, linestyle=(0, (4, 2)), zorder=4
            )
            entries.append((line, f"images ({INPUT_NAMES.get(name, name)})"))
        entries += _missing(inner)
        _step_axis(ax, series)
        label_ends(ax, float(steps[-1]), ends)
        figure = ax.get_figure(root=True)
        assert figure is not None
        bar = figure.colorbar(
            ScalarMappable(norm, colours), ax=ax, pad=0.02, aspect=60, location="bottom",
            ticks=MaxNLocator("auto", integer=measure.is_count, steps=[1, 2, 5, 10]),
        )  # fmt: skip
        bar.set_label(measure.axis)
        bar.outline.set_visible(False)
        ax.set_ylabel(r"exponent $\alpha$" if is_narrow(ax) else EXPONENT_LABEL)
        _legend_above(ax, entries)
    return ax


def _named(inner: pd.DataFrame) -> list[str]:
    """The layers that are named: all if they are few, else the first, the last and the extremes."""
    table = inner.pivot_table(index="layer", columns="step", values="exponent", sort=False)
    table = table.dropna(how="all")
    if len(table) <= MOST_NAMED:
        return list(table.index)
    last = table.ffill(axis=1).iloc[:, -1]
    change = last - table.bfill(axis=1).iloc[:, 0]
    chosen = [
        table.index[0], table.index[-1], change.idxmax(), change.idxmin(), last.idxmax(),
        last.idxmin(),
    ]  # fmt: skip
    return list(dict.fromkeys(chosen))


def plot_slopes(series: SeriesReport, ax: Axes | None = None) -> Axes:
    """Draw the slope of the law over the steps, with its interval and a mark for the verdict.

    A checkpoint without a law has a mark at the lower edge.

    Args:
        series: what to draw.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.
    """
    frame = series.frame
    step = frame.step.to_numpy(dtype=float)
    slope, low, high = (
        frame[name].to_numpy(dtype=float) for name in ("slope", "slope_low", "slope_high")
    )
    with look():
        ax = new_axes(ax, 3.4)
        ax.grid(axis="y")
        ax.axhline(0.0, color=INK, linewidth=0.8, zorder=1)
        band: dict[str, Any] = {"color": GREY, "alpha": 0.16, "linewidth": 0}
        ax.fill_between(step, low, high, where=np.isfinite(low), zorder=1, **band)
        ax.plot(step, slope, color=GREY, linewidth=1.0, zorder=2)
        entries: list[tuple[Artist, str]] = []
        has_law = np.isfinite(slope)
        for verdict, (marker, colour, is_filled) in {**VERDICT_MARKS, **_OLDER_MARKS}.items():
            own = (frame.verdict == verdict).to_numpy() & has_law
            if not own.any():
                continue
            bars = np.stack([slope - low, high - slope])[:, own]
            ax.errorbar(
                step[own], slope[own], yerr=bars, fmt="none", ecolor=colour, elinewidth=0.8,
                zorder=3,
            )  # fmt: skip
            face = colour if is_filled else "white"
            style: dict[str, Any] = {
                "marker": marker,
                "color": colour,
                "markerfacecolor": face,
                "markersize": 5,
            }
            ax.plot(step[own], slope[own], linestyle="none", zorder=4, **style)
            entries.append((Line2D([], [], linestyle="none", **style), verdict))
        if not has_law.all():
            cross: dict[str, Any] = {"marker": "x", "color": INK, "markersize": 5, "clip_on": False}
            at = np.zeros(int((~has_law).sum()))
            ax.plot(
                step[~has_law], at, linestyle="none", transform=ax.get_xaxis_transform(),
                zorder=5, **cross,
            )  # fmt: skip
            entries.append((Line2D([], [], linestyle="none", **cross), "no law (too few layers)"))
        entries.append((Patch(**band), f"{100 * series.options.level:g} % interval"))
        _step_axis(ax, series)
        ax.set_ylabel(f"slope of the law\n({DEPTH_AXES[series.options.depth].per})")
        _legend_above(ax, entries)
    return ax


def _missing(inner: pd.DataFrame) -> list[tuple[Artist, str]]:
    n = int((~np.isfinite(inner.exponent.to_numpy(dtype=float))).sum())
    nothing = Line2D([], [], linestyle="none")
    return [(nothing, f"{n} without an exponent not drawn")] if n else []


def _legend_above(ax: Axes, entries: Sequence[tuple[Artist, str]]) -> None:
    legend(
        ax,
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2 if is_narrow(ax) else len(entries),
        borderaxespad=0.2,
        columnspacing=1.2,
        handletextpad=0.5,
    )


def is_logarithmic(steps: Array) -> bool:
    """Whether steps in rising order lie more evenly on the logarithmic axis.

    >>> is_logarithmic(np.array([0.0, 1, 2, 4, 8, 16])), is_logarithmic(np.arange(60.0))
    (True, False)
    """
    return bool(_largest_gap(_Logarithm(steps)(steps)) < _largest_gap(steps))


def _largest_gap(places: Array) -> float:
    """The largest distance of neighbours, as a share of the whole range."""
    return float(np.diff(places).max() / np.ptp(places))


class _Logarithm:
    """log(1 + step / smallest positive step), which has a place for step 0; and back."""

    def __init__(self, steps: Array) -> None:
        self.unit = float(min(steps[steps > 0], default=1.0))

    def __call__(self, values: Array) -> Array:
        return np.log1p(np.clip(values, -0.9 * self.unit, None) / self.unit)

    def back(self, values: Array) -> Array:
        return np.expm1(values) * self.unit


def _step_axis(ax: Axes, series: SeriesReport) -> None:
    """The axis of steps: logarithmic where the steps lie more evenly there, and says so."""
    steps = series.frame.step.to_numpy(dtype=float)
    label = (
        f"{series.step_name}s, in order" if series.step_name == "checkpoint" else series.step_name
    )
    if is_logarithmic(steps):
        scale = _Logarithm(steps)
        ax.set_xscale("function", functions=(scale, scale.back))
        ax.xaxis.set_major_locator(
            FixedLocator(_apart(steps, scale(steps), 0.1 if is_narrow(ax) else 0.055))
        )
        label += " (logarithmic axis)"
        margin = 0.02 * np.ptp(scale(steps))
        ends = scale.back(np.array([scale(steps).min() - margin, scale(steps).max() + margin]))
    else:
        ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        margin = 0.02 * np.ptp(steps)
        ends = np.array([steps[0] - margin, steps[-1] + margin])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value, 6)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(*ends)
    ax.set_xlabel(label)


def _apart(steps: Array, places: Array, share: float) -> list[float]:
    """Steps far enough apart to have a label each, chosen from the last one backwards."""
    kept: list[int] = []
    for i in range(len(steps) - 1, -1, -1):
        if not kept or places[kept[-1]] - places[i] >= share * np.ptp(places):
            kept.append(i)
    return [float(steps[i]) for i in reversed(kept)]
