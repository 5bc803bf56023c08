"""The spectra of all layers with their fits."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from natstats.fits.band_choice import ImageBand, band_text
from natstats.fits.records import Fits, LayerFit
from natstats.numbers import evenly_spaced, map_size, short
from natstats.report.figures.style import (
    FAINT,
    GREY,
    INK,
    depth_colours,
    is_narrow,
    legend,
    look,
    new_axes,
)
from natstats.spectra.records import LayerSpectrum

__all__ = ["has_power", "plot_spectra"]

STEP = 0.3
"""Decades between one layer and the next."""

MOST = 60
"""Curves that can be told apart; of more layers, evenly spaced ones are drawn."""


def has_power(measured: LayerSpectrum) -> bool:
    """True when two rings or more can be drawn on a logarithmic axis and are not all rounding."""
    power = measured.spectrum.mean_power
    n_rings = int((np.isfinite(power) & (power > 0)).sum())
    return n_rings > 1 and not measured.spectrum.is_constant


def plot_spectra(spectra: Sequence[LayerSpectrum], fits: Fits, ax: Axes | None = None) -> Axes:
    """Draw the mean power of every layer against frequency, one above the other.

    Frequency is in cycles per image, so that layers of different stride share the axis. Absolute
    power says nothing here (it follows the scale of the weights): every curve begins at 1 and is
    moved up from the one before it by the same factor, so only slopes and shapes are to be read.
    A band in cycles per image is shaded.

    Args:
        spectra: spectrum of every layer, in the order of drawing from below.
        fits: fits of the same layers.
        ax: where to draw; by default a new figure, higher for more layers.

    Returns:
        The axes drawn into.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> plot_spectra(run.spectra, run.fits).get_xscale()
    'log'
    """
    drawable = [pair for pair in zip(spectra, fits.layers, strict=True) if has_power(pair[0])]
    pairs = _evenly(drawable)
    with look():
        ax = new_axes(ax, float(np.clip(2.8 + 0.08 * len(pairs), 3.6, 7.2)))
        depths = [measured.layer.depth for measured, _ in pairs]
        norm = Normalize(min([1, *depths]), max([2, *depths]))
        colours = depth_colours()
        ax.set_xscale("log")
        ax.set_yscale("log")
        band = fits.options.band
        if isinstance(band, ImageBand):
            ax.axvspan(band.low, band.high, color=FAINT, linewidth=0, zorder=0)
        for place, (measured, fit) in enumerate(pairs):
            is_input = measured.layer.kind == "input"
            _draw_one(
                ax, measured, fit, place, INK if is_input else colours(norm(measured.layer.depth))
            )
        along_time = bool(pairs) and all(m.spectrum.width == 1 for m, _ in pairs)
        unit = "frame" if along_time else "pixel"
        ax.set_xlabel(f"frequency (cycles per {'clip' if along_time else 'image'})")
        ax.set_ylabel(
            "mean power (relative to the lowest ring;\n"
            f"each layer {10**STEP:.1f} × above the one before)"
        )
        _dress_axes(ax)
        if any(measured.layer.kind != "input" for measured, _ in pairs):
            figure = ax.get_figure(root=True)
            assert figure is not None
            bar = figure.colorbar(
                ScalarMappable(norm, colours), ax=ax, pad=0.015, aspect=40, shrink=0.7,
                ticks=MaxNLocator(integer=True),
            )  # fmt: skip
            bar.set_label("depth (weight layers)")
            bar.outline.set_visible(False)
        in_band = f" ({band_text(band, unit)})" if isinstance(band, ImageBand) else ""
        _draw_legend(ax, pairs, len(drawable), f"fitted power law{in_band}")
        _name_map_sizes(ax, [measured for measured, _ in pairs])
    return ax


def _evenly(
    pairs: Sequence[tuple[LayerSpectrum, LayerFit]],
) -> list[tuple[LayerSpectrum, LayerFit]]:
    """The input images and evenly spaced layers, at most `MOST` together."""
    inputs = [pair for pair in pairs if pair[0].layer.kind == "input"]
    layers = [pair for pair in pairs if pair[0].layer.kind != "input"]
    chosen = evenly_spaced(len(layers), MOST - len(inputs))
    return [*inputs, *(layers[place] for place in chosen)]


def _draw_one(ax: Axes, measured: LayerSpectrum, fit: LayerFit, place: int, colour: object) -> None:
    spectrum = measured.spectrum
    power: NDArray[np.float64] = spectrum.mean_power
    good = np.isfinite(power) & (power > 0)
    frequency = measured.cycles_per_image
    scale = 10.0 ** (STEP * place) / power[good][0]
    is_input = measured.layer.kind == "input"
    ax.plot(
        frequency[good],
        power[good] * scale,
        color=colour,
        linewidth=1.8,
        linestyle=(0, (4, 1.5)) if is_input else "-",
        alpha=0.9,
        solid_capstyle="round",
        zorder=2,
    )
    fitted = np.isfinite(fit.fitted_power)
    if fitted.any():
        ax.plot(
            frequency[fitted], fit.fitted_power[fitted] * scale, color=INK, linewidth=0.6, zorder=3
        )


def _name_map_sizes(ax: Axes, drawn: Sequence[LayerSpectrum]) -> None:
    """The size of the maps beside the ends of their curves, once for neighbours of one size."""
    low, high = np.log10(ax.get_ylim())
    previous = -np.inf
    places = itertools.groupby(
        enumerate(drawn), key=lambda item: (item[1].spectrum.height, item[1].spectrum.width)
    )
    for (height, width), members in places:
        ends = [_end(measured, STEP * place) for place, measured in members]
        frequency, level = np.mean(ends, axis=0)
        if abs(level - previous) < 0.03 * (high - low):
            continue  # no room beside the last one
        previous = level
        ax.annotate(
            map_size(height, width, " px"),
            (frequency, 10.0**level),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            color=GREY,
            bbox={"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 0.5},
            zorder=4,
        )


def _end(measured: LayerSpectrum, start: float) -> tuple[float, float]:
    """Frequency and decade where a curve ends that begins at the decade `start`."""
    power = measured.spectrum.mean_power
    good = np.isfinite(power) & (power > 0)
    drop = np.log10(power[good][-1] / power[good][0])
    return float(measured.cycles_per_image[good][-1]), float(start + drop)


def _dress_axes(ax: Axes) -> None:
    ax.grid(axis="x")
    ax.yaxis.set_minor_locator(NullLocator())
    low, high = np.log10(ax.get_ylim())
    ax.yaxis.set_major_locator(
        LogLocator(10, subs=(1, 2, 5) if high - low < 2 else (1,), numticks=7)
    )
    if high - low < 2:
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _draw_legend(
    ax: Axes, pairs: Sequence[tuple[LayerSpectrum, LayerFit]], n_drawable: int, fitted: str
) -> None:
    has_input = any(measured.layer.kind == "input" for measured, _ in pairs)
    has_layers = any(measured.layer.kind != "input" for measured, _ in pairs)
    entries = []
    if has_layers:
        shown = "layer"
        if len(pairs) < n_drawable:
            shown += f" ({len(pairs)} of {n_drawable} rows, evenly spaced)"
        entries.append((Line2D([], [], color=GREY, linewidth=1.8), shown))
    if has_input:
        entries.append(
            (Line2D([], [], color=INK, linewidth=1.8, linestyle=(0, (4, 1.5))), "input images")
        )
    entries.append((Line2D([], [], color=INK, linewidth=0.6), fitted))
    legend(
        ax,
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=1 if is_narrow(ax) else 3,
        borderaxespad=0.2,
    )
