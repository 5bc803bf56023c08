"""Exponent against depth, with the law."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.transforms import ScaledTranslation

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.law import Law
from natstats.law.law_layers import NOT_ASKED_FOR
from natstats.law.verdict import headline
from natstats.numbers import change
from natstats.report.figures.law_curves import best_shape, line_of
from natstats.report.figures.points import draw_points, flag_names, hollow_mark, missing_entry
from natstats.report.figures.style import (
    FAINT,
    GREY,
    INK,
    depth_axis,
    is_narrow,
    kind_marks,
    legend,
    look,
    new_axes,
    places_of_layers,
)

__all__ = ["EXPONENT_LABEL", "INPUT_NAMES", "plot_law", "with_reasons"]

EXPONENT_LABEL = r"exponent $\alpha$ of the power spectrum"

SOLID, DASHED, DOTTED = "-", (0, (5, 3)), (0, (1, 1.2))
"""Line styles of what was found, of a line not found to be a law, and of a shape beside a law."""

PALE = "#98a2ab"
"""Colour of a line that gives way to a better shape."""

CHARACTER = 0.62 / 72
"""Mean width of a character of a title, inches per point of its size."""

SHAPE_COLOUR = "#6a3d9a"
"""Colour of the best shape; no kind of layer has it."""

ABOVE = 1.03
"""Where sizes of maps stand, as a share of the height: clear of a tick at the upper end."""

NOT_IN_LAW = "not in the law"
"""Flag that the figure gives to layers that were not asked for."""

INPUT_NAMES = {"input": "input", "input.grey": "input, grey", "input.colour": "input, colour"}


def plot_law(layers: pd.DataFrame, law: Law, ax: Axes | None = None) -> Axes:
    """Draw the exponent of every layer against its depth, and the line that was fitted.

    Depth is measured as in the law.

    The line is that of the law, with the interval that counts the layers as a sample, too. It is
    solid only when the verdict is ``linear law``. Where another shape describes this network
    better, that is drawn solid and the line pale, or dotted beside a linear law. Layers with a flag
    are hollow, and so are those that were not asked for in the law. Along the top stands the side
    of the maps.

    Args:
        layers: one row per layer, see :func:`natstats.runs.tables.layers_frame`.
        law: the law that was fitted to these layers.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> plot_law(run.layers, run.law).get_xlabel()
    'depth (weight layers from the input)'
    """
    measure = DEPTH_AXES[law.depth]
    layers = layers.assign(depth=measure.values(layers))
    with look():
        ax = new_axes(ax, 4.4)
        inputs, inner = layers[layers.kind == "input"], layers[layers.kind != "input"]
        inner = with_reasons(inner[np.isfinite(inner.depth)])
        deepest = max([1.0, *inner.depth])
        ax.set_xlim(-0.03 * deepest, 1.02 * deepest)
        ax.grid(axis="y")
        entries = _draw_inputs(ax, inputs, 0.006 * deepest)
        entries += _draw_layers(ax, inner, measure.is_count)
        entries += [*_draw_line(ax, inner, law), *_draw_shape(ax, law), *missing_entry(layers)]
        _limit_band(ax, layers)
        _mark_map_sizes(ax, inner)
        depth_axis(ax, measure)
        narrow = is_narrow(ax)
        ax.set_ylabel(r"exponent $\alpha$" if narrow else EXPONENT_LABEL)
        title, size = _title(law, ax, narrow)
        ax.set_title(title, pad=20, loc="left", fontsize=size)
        _draw_legend(ax, entries, narrow)
    return ax


def _title(law: Law, ax: Axes, narrow: bool) -> tuple[str, float]:
    """The verdict and the slope, on one line where there is room, and the size of the letters."""
    verdict, measure = headline(law), DEPTH_AXES[law.depth]
    figure = ax.get_figure(root=True)
    assert figure is not None
    # A label of the axis stands to the left of the axes, and the legend to the right of wide ones.
    room = ax.get_position(original=True).width / 0.775 * figure.get_figwidth() - 0.6
    least, most = (7.5, 7.5) if narrow else (8.0, 9.5)
    size = float(np.clip(room / (CHARACTER * len(verdict)), least, most))
    n_fitting = int(room / (CHARACTER * size) + 1e-9)
    if not np.isfinite(law.slope):
        number = f"too few layers for a law ({law.n_layers})"
    else:
        slope = change(law.slope, law.slope_low, law.slope_high)
        number = f"{slope} {measure.briefly if narrow else measure.per}"
    title = f"{verdict}: {number}"
    if len(title) <= n_fitting:
        return title, size
    parts = [*textwrap.wrap(verdict, n_fitting), *textwrap.wrap(number, n_fitting)]
    return "\n".join(parts), size


def with_reasons(inner: pd.DataFrame) -> pd.DataFrame:
    """The layers, with the flag :data:`NOT_IN_LAW` for those that were not asked for."""
    if "law" not in inner:
        return inner
    asked = (inner["law"] != NOT_ASKED_FOR).to_numpy()
    flags = inner["flags"].fillna("").astype(str)
    more = np.where(flags == "", NOT_IN_LAW, flags + f"; {NOT_IN_LAW}")
    return inner.assign(flags=np.where(asked, flags, more))


def _draw_legend(ax: Axes, entries: Sequence[tuple[Artist, str]], narrow: bool) -> None:
    """Draw the legend to the right of the axes, or below narrow ones."""
    if not entries:
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    handles, labels = zip(*entries, strict=True)
    if narrow:
        below = ax.transAxes + ScaledTranslation(0, -0.45, figure.dpi_scale_trans)
        place = {"bbox_to_anchor": (0.0, 0.0), "bbox_transform": below, "ncols": 2, "fontsize": 7}
    else:
        place = {"bbox_to_anchor": (1.0, 1.0)}
    legend(ax, handles, labels, loc="upper left", borderaxespad=0.0, **place)


def _draw_line(ax: Axes, inner: pd.DataFrame, law: Law) -> list[tuple[Artist, str]]:
    """The line over the depths that it was fitted to, with its band."""
    found = line_of(law, inner)
    if found is None:
        return []
    gives_way = not found.is_law and best_shape(law) is not None
    shade: dict[str, Any] = {"color": GREY, "alpha": 0.1 if gives_way else 0.16, "linewidth": 0}
    ax.fill_between(found.depth, found.low, found.high, zorder=1, **shade)
    (line,) = ax.plot(
        found.depth, found.exponent, color=PALE if gives_way else INK,
        linewidth=1.1 if gives_way else 1.3, linestyle=SOLID if found.is_law else DASHED, zorder=2,
    )  # fmt: skip
    band = Patch(**shade)
    label = found.label.replace("shown to", "shown\nto")
    return [(line, label), (band, f"its {100 * law.level:g} % interval")]


def _limit_band(ax: Axes, layers: pd.DataFrame) -> None:
    """Keep a wide band from pressing the points together: cut it one range beyond them."""
    drawn = layers[["exponent", "exponent_low", "exponent_high"]].to_numpy(dtype=float)
    drawn = drawn[np.isfinite(drawn)]
    if len(drawn) and np.ptp(drawn) > 0:
        low, high = ax.get_ylim()
        spare = np.ptp(drawn)
        ax.set_ylim(max(low, drawn.min() - spare), min(high, drawn.max() + spare))


def _draw_shape(ax: Axes, law: Law) -> list[tuple[Artist, str]]:
    """The shape that describes this network best, where it is not the line."""
    found = best_shape(law)
    if found is None:
        return []
    style: dict[str, Any] = {
        "color": SHAPE_COLOUR,
        "linewidth": 1.6,
        "linestyle": DOTTED if law.verdict == "linear law" else SOLID,
    }
    ax.plot(found.depth, found.exponent, zorder=2, **style)
    label = found.label.replace("here: ", "here:\n").replace(" (", "\n(")
    return [(Line2D([], [], **style), label)]


def _draw_layers(ax: Axes, inner: pd.DataFrame, is_count: bool) -> list[tuple[Artist, str]]:
    entries: list[tuple[Artist, str]] = []
    places = places_of_layers(list(inner.depth), is_count)
    for kind, (colour, marker) in kind_marks(list(inner.kind)).items():
        own = (inner.kind == kind).to_numpy()
        rows = inner[own]
        if not np.isfinite(rows.exponent).any():
            continue
        handle = draw_points(ax, rows, places[own], colour, marker)
        entries.append((handle, kind))
    flags = flag_names(inner[np.isfinite(inner.exponent)], doubts=True)
    if flags:
        entries.append((hollow_mark(), "hollow: " + ",\n".join(flags)))
    return entries


def _draw_inputs(ax: Axes, inputs: pd.DataFrame, step: float) -> list[tuple[Artist, str]]:
    """The images, side by side where they are measured in more than one way."""
    rows = inputs[np.isfinite(inputs.exponent) & np.isfinite(inputs.depth)]
    entries: list[tuple[Artist, str]] = []
    for place, (marker, colour) in enumerate(zip("Dd", (GREY, INK), strict=True)):
        row = rows.iloc[place : place + 1]
        if row.empty:
            break
        depth = float(row.depth.iloc[0]) + np.array([step * (2 * place - (len(rows) - 1))])
        name = str(row.layer.iloc[0])
        plain = row.assign(flags="all")  # always hollow: an image is not a layer
        handle = draw_points(ax, plain, depth, colour, marker, 5.5)
        assert isinstance(handle, Line2D)
        handle.set_markerfacecolor("white")
        entries.append((handle, INPUT_NAMES.get(name, name)))
    return entries


def _mark_map_sizes(ax: Axes, inner: pd.DataFrame) -> None:
    """Thin lines where the maps become smaller, their side in pixels above, where it has room."""
    sizes: dict[float, str] = {}
    for row in inner.sort_values("depth", kind="stable").to_dict("records"):
        height, width = row["height"], row["width"]
        text = f"{height}" if height == width or width == 1 else f"{height}×{width}"
        sizes.setdefault(float(row["depth"]), text)
    if not sizes:
        return
    is_series = bool((inner.width == 1).all())
    depths = list(sizes)
    margin = 0.5 * min([right - left for left, right in itertools.pairwise(depths)], default=1.0)
    starts = [depths[0] - margin]
    labels = [sizes[depths[0]]]
    for left, right in itertools.pairwise(depths):
        if sizes[right] != sizes[left]:
            starts.append((left + right) / 2)
            labels.append(sizes[right])
    ends = [*starts[1:], depths[-1] + margin]
    low, high = ax.get_xlim()
    points = ax.get_position().width * ax.get_figure(root=True).get_figwidth() * 72 * 0.8  # type: ignore[union-attr]
    above = ax.get_xaxis_transform()
    style = {"fontsize": 7, "color": GREY, "va": "bottom"}
    for start in starts[1:]:
        ax.axvline(start, color=FAINT, linewidth=0.8, zorder=0)
    for start, end, label in zip(starts, ends, labels, strict=True):
        room = (end - start) / (high - low) * points
        if room > 7 * 0.66 * len(label) + 3:
            ax.text((start + end) / 2, ABOVE, label, transform=above, ha="center", **style)  # type: ignore[arg-type]
    ax.annotate(
        "frames" if is_series else "map, px",
        (0.0, ABOVE),
        xycoords="axes fraction",
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        **style,  # type: ignore[arg-type]
    )
