"""The spectra of all layers, a panel for each map size, and what their fits leave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from natstats.fits.band_choice import ImageBand, band_text
from natstats.fits.records import Fits, LayerFit
from natstats.numbers import evenly_spaced, map_size, short
from natstats.report.figures.style import (
    FAINT,
    GREY,
    INK,
    NARROW,
    depth_colours,
    is_narrow,
    legend,
    look,
    new_figure,
)
from natstats.spectra.records import LayerSpectrum

__all__ = ["has_power", "plot_spectra"]

MOST = 60
"""Most layers that are drawn; of more, evenly spaced ones of every panel."""

MOST_PANELS = 9
"""Most panels that are drawn; of more map sizes, those nearest to each other share one."""

LINE, DASHES = 1.2, (0, (4, 1.5))
"""Width of the curves, points, and dash pattern of the curves of the images."""

RELATIVE = "mean power\n(relative to the lowest ring)"

FACTORS = (1000.0, 100.0, 10.0, 5.0, 2.0, 1.5, 1.2, 1.1)
"""Candidates for the ticks above and below 1; the largest that fits is used."""

Pair: TypeAlias = "tuple[LayerSpectrum, LayerFit]"
"""A layer and its fit."""


def has_power(measured: LayerSpectrum) -> bool:
    """True when a logarithmic axis can show two rings or more, and they are not rounding error."""
    power = measured.spectrum.mean_power
    n_rings = int((np.isfinite(power) & (power > 0)).sum())
    return n_rings > 1 and not measured.spectrum.is_constant


def plot_spectra(spectra: Sequence[LayerSpectrum], fits: Fits, ax: Axes | None = None) -> Axes:
    """Draw the mean power of every layer against frequency, a panel for each map size.

    Frequency is in cycles per image, so that layers of different stride share the axis. Absolute
    power says nothing here (it follows the scale of the weights): every curve begins at 1, so only
    slopes and shapes are to be read. Below each panel is power over the fitted power law, which
    lies at 1. The input images are in every panel, dashed. A band in cycles per image is shaded.

    Args:
        spectra: spectrum of every layer.
        fits: fits of the same layers.
        ax: where to draw the spectra of all sizes together, without what the fits leave; by
            default panels in a new figure, higher for more of them.

    Returns:
        The axes drawn into: of the panels, those of the first.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> plot_spectra(run.spectra, run.fits).get_xscale()
    'log'
    """
    drawable = [pair for pair in zip(spectra, fits.layers, strict=True) if has_power(pair[0])]
    inputs = [pair for pair in drawable if pair[0].layer.kind == "input"]
    layers = [pair for pair in drawable if pair[0].layer.kind != "input"]
    panels = _panels(layers or inputs)
    shown = [_evenly(own, len(layers)) for _, own in panels]
    beside = inputs if layers else []
    depths = [measured.layer.depth for measured, _ in layers]
    norm = Normalize(min([1, *depths]), max([2, *depths]))
    with look():
        if ax is None:
            first, everywhere = _draw_panels(panels, shown, beside, norm, fits)
        else:
            ax.spines[["top", "right"]].set_visible(False)
            first, everywhere = ax, [ax]
            _draw_power(ax, [pair for own in shown for pair in own], beside, norm)
            _dress(ax, fits)
            _name_axes(ax, drawable)
        if layers:
            figure = first.get_figure(root=True)
            assert figure is not None
            bar = figure.colorbar(
                ScalarMappable(norm, depth_colours()), ax=everywhere, pad=0.015, aspect=40,
                shrink=0.7, ticks=MaxNLocator(integer=True),
            )  # fmt: skip
            bar.set_label("depth (weight layers)")
            bar.outline.set_visible(False)
        entries = _entries(inputs, layers, sum(map(len, shown)), fits, drawable)
        _draw_legend(first, entries, is_given=ax is not None)
    return first


def _panels(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """Name and layers of every panel: one for each map size, the largest first.

    Of more than :data:`MOST_PANELS` sizes, those that are nearest to each other are put together.
    """
    sizes: dict[tuple[int, int], list[Pair]] = {}
    for pair in pairs:
        sizes.setdefault((pair[0].spectrum.height, pair[0].spectrum.width), []).append(pair)
    groups = [[size] for size in sorted(sizes, key=lambda size: (-size[0] * size[1], size))]

    def reach(place: int) -> float:
        largest, smallest = groups[place][0], groups[place + 1][-1]
        return largest[0] * largest[1] / (smallest[0] * smallest[1])

    while len(groups) > MOST_PANELS:
        place = min(range(len(groups) - 1), key=reach)
        groups[place : place + 2] = [groups[place] + groups[place + 1]]
    found = []
    for group in groups:
        ends = [map_size(*size) for size in (group[0], group[-1])]
        name = " to ".join(dict.fromkeys(ends))
        is_clip = all(width == 1 for _, width in group)
        own = [pair for size in group for pair in sizes[size]]
        found.append((name if is_clip else f"{name} px", own))
    return found


def _evenly(pairs: Sequence[Pair], n_layers: int) -> list[Pair]:
    """Evenly spaced layers of a panel, its part of :data:`MOST`; one at least."""
    most = len(pairs) if n_layers <= MOST else max(1, MOST * len(pairs) // n_layers)
    return [pairs[place] for place in evenly_spaced(len(pairs), most)]


def _draw_panels(
    panels: Sequence[tuple[str, Sequence[Pair]]],
    shown: Sequence[Sequence[Pair]],
    inputs: Sequence[Pair],
    norm: Normalize,
    fits: Fits,
) -> tuple[Axes, list[Axes]]:
    """Draw a panel for each map size above what its fits leave; the first axes, and all axes."""
    wide = new_figure(1.0).get_figwidth() > NARROW
    n_columns = min(3 if wide and len(panels) != 4 else 2, len(panels))
    n_rows = -(-len(panels) // n_columns)
    figure = new_figure(0.7 + (2.35 if n_columns > 1 else 3.2) * n_rows)
    grid = figure.add_gridspec(2 * n_rows, n_columns, height_ratios=[2.6, 1] * n_rows)
    upper: list[Axes] = []
    lower: list[Axes] = []
    for place, ((name, every), own) in enumerate(zip(panels, shown, strict=True)):
        row, column = divmod(place, n_columns)
        first, second = (upper[0], lower[0]) if upper else (None, None)
        above = figure.add_subplot(grid[2 * row, column], sharex=first, sharey=first)
        below = figure.add_subplot(grid[2 * row + 1, column], sharex=above, sharey=second)
        upper.append(above)
        lower.append(below)
        _draw_power(above, own, inputs, norm)
        _draw_left(below, own, norm)
        _name_panel(above, name, every, is_wide=wide)
        above.tick_params(labelbottom=False)
        if column:
            for one in (above, below):
                one.tick_params(labelleft=False)
        else:
            above.set_ylabel("relative power" if n_columns > 1 else RELATIVE)
            below.set_ylabel("over fit")
        if place + n_columns < len(panels):
            below.tick_params(labelbottom=False)
    for one in upper:
        _dress(one, fits)
    for one in lower:
        _dress_left(one, fits)
    _name_frequency(figure, [pair for own in shown for pair in own])
    return upper[0], [*upper, *lower]


def _name_panel(ax: Axes, name: str, pairs: Sequence[Pair], *, is_wide: bool) -> None:
    n = sum(measured.layer.kind != "input" for measured, _ in pairs)
    between = "\n" if " to " in name else " · "
    counted = f"{between}{n} layer{'' if n == 1 else 's'}" if n else ""
    ax.set_title(f"{name}{counted}", fontsize=8 if is_wide else 7, fontweight="normal", color=INK)


def _name_frequency(figure: Figure, pairs: Sequence[Pair]) -> None:
    figure.supxlabel(f"frequency (cycles per {_whole(pairs)})", fontsize=9)


def _name_axes(ax: Axes, pairs: Sequence[Pair]) -> None:
    ax.set_xlabel(f"frequency (cycles per {_whole(pairs)})")
    ax.set_ylabel(RELATIVE)


def _whole(pairs: Sequence[Pair]) -> str:
    """What cycles are counted per: the clip where all maps are along time, else the image."""
    along_time = bool(pairs) and all(measured.spectrum.width == 1 for measured, _ in pairs)
    return "clip" if along_time else "image"


def _good(measured: LayerSpectrum) -> NDArray[np.bool_]:
    power = measured.spectrum.mean_power
    return np.asarray(np.isfinite(power) & (power > 0))


def _draw_power(ax: Axes, pairs: Sequence[Pair], inputs: Sequence[Pair], norm: Normalize) -> None:
    """Curves that all begin at 1, the input images dashed and above them."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    for measured, _ in [*pairs, *inputs]:
        power, good = measured.spectrum.mean_power, _good(measured)
        is_input = measured.layer.kind == "input"
        ax.plot(
            measured.cycles_per_image[good], power[good] / power[good][0],
            color=_colour(measured, norm), linewidth=LINE, solid_capstyle="round",
            linestyle=DASHES if is_input else "-", alpha=0.9, zorder=3 if is_input else 2,
        )  # fmt: skip


def _draw_left(ax: Axes, pairs: Sequence[Pair], norm: Normalize) -> None:
    """Power over the fitted power law."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.axhline(1.0, color=INK, linewidth=0.6, zorder=1)
    for measured, fit in pairs:
        both = _good(measured) & np.isfinite(fit.fitted_power)
        if both.any():
            ax.plot(
                measured.cycles_per_image[both],
                measured.spectrum.mean_power[both] / fit.fitted_power[both],
                color=_colour(measured, norm), linewidth=0.9, alpha=0.9, zorder=2,
                linestyle=DASHES if measured.layer.kind == "input" else "-",
            )  # fmt: skip


def _colour(measured: LayerSpectrum, norm: Normalize) -> Any:
    return INK if measured.layer.kind == "input" else depth_colours()(norm(measured.layer.depth))


def _dress(ax: Axes, fits: Fits) -> None:
    _dress_frequency(ax, fits)
    low, high = np.log10(ax.get_ylim())
    is_short = high - low < 2
    ax.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if is_short else (1,), numticks=7))
    if is_short:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _dress_left(ax: Axes, fits: Fits) -> None:
    """Set the axis of what the fits leave: factors about 1, as far up as down."""
    _dress_frequency(ax, fits)
    curves = [line.get_ydata() for line in ax.lines[1:]]
    shared = [one for axes in ax.get_shared_y_axes().get_siblings(ax) for one in axes.lines[1:]]
    values = np.concatenate([[1.0], *curves, *(line.get_ydata() for line in shared)]).astype(float)
    reach = max(1.15 * float(np.abs(np.log10(values)).max()), 0.05)
    ax.set_ylim(10**-reach, 10**reach)
    factor = next((one for one in FACTORS if np.log10(one) <= reach), FACTORS[-1])
    ax.yaxis.set_major_locator(FixedLocator([1 / factor, 1.0, factor]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value, 2)))


def _dress_frequency(ax: Axes, fits: Fits) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="x")
    band = fits.options.band
    if isinstance(band, ImageBand):
        ax.axvspan(band.low, band.high, color=FAINT, linewidth=0, zorder=0)
    low, high = ax.get_xlim()
    steps = (1, 2, 5) if high < 30 * low else (1, 3)
    ax.xaxis.set_major_locator(LogLocator(10, subs=steps))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _entries(
    inputs: Sequence[Pair],
    layers: Sequence[Pair],
    n_shown: int,
    fits: Fits,
    drawable: Sequence[Pair],
) -> list[tuple[Artist, str]]:
    """What the legend says."""
    entries: list[tuple[Artist, str]] = []
    if layers:
        shown = "layer"
        if n_shown < len(layers):
            shown += f" ({n_shown} of {len(layers)}, evenly spaced)"
        entries.append((Line2D([], [], color=GREY, linewidth=LINE), shown))
    if inputs:
        dashed = Line2D([], [], color=INK, linewidth=LINE, linestyle=DASHES)
        entries.append((dashed, "input images"))
    band = fits.options.band
    if isinstance(band, ImageBand):
        unit = "frame" if _whole(drawable) == "clip" else "pixel"
        entries.append((Patch(color=FAINT), f"band of the fit, {band_text(band, unit)}"))
    return entries


def _draw_legend(ax: Axes, entries: Sequence[tuple[Artist, str]], *, is_given: bool) -> None:
    handles, labels = [one for one, _ in entries], [label for _, label in entries]
    if is_given:
        legend(
            ax, handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0),
            ncols=1 if is_narrow(ax) else 3, borderaxespad=0.2,
        )  # fmt: skip
        return
    figure = ax.get_figure(root=True)
    assert figure is not None
    is_wide = figure.get_figwidth() > NARROW
    figure.legend(
        handles, labels, loc="outside upper left", ncols=3 if is_wide else 1,
        fontsize=7.5 if is_wide else 7, columnspacing=1.2,
    )  # fmt: skip
