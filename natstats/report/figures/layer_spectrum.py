"""The spectrum of one layer with its fit, what the fit leaves, and the intervals of both."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from natstats.fits.options import FitOptions
from natstats.fits.records import LayerFit
from natstats.fits.shape_intervals import ShapeIntervals, intervals_of_shape
from natstats.numbers import estimate, map_size
from natstats.report.figures.style import GREY, INK, PALETTE, legend, look, new_figure
from natstats.spectra.records import LayerSpectrum
from natstats.text import printable

__all__ = ["plot_layer_spectrum"]

_MEAN: dict[str, Any] = {
    "color": PALETTE[0], "marker": "o", "markersize": 3.5, "linewidth": 1.0, "linestyle": "-",
}  # fmt: skip

_BAND: dict[str, Any] = {"color": PALETTE[0], "alpha": 0.2, "linewidth": 0, "zorder": 1}


def plot_layer_spectrum(
    measured: LayerSpectrum,
    fit: LayerFit,
    unit: str = "pixel",
    ax: Axes | None = None,
    options: FitOptions | None = None,
) -> Axes:
    """Draw mean power against frequency, and below it how far it is from the fit.

    Power is relative to the lowest ring. Shaded are the intervals of
    :func:`natstats.fits.shape_intervals.intervals_of_shape`, as on the page of a run: how the shape
    of the spectrum, and what the fit leaves, would move with other images. There are none with
    fewer than three groups of images, or without a fit.

    Args:
        measured: the layer.
        fit: its fit.
        unit: what frequencies are counted in, cycles per ``pixel`` or per ``frame``.
        ax: where to draw the spectrum alone; by default a new figure, whose second axes show what
            the fit leaves.
        options: of the fit; by default the usual ones.

    Returns:
        The axes of the spectrum.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> ax = plot_layer_spectrum(run.spectra[0], run.fits.layers[0])
    >>> ax.get_yscale(), len(ax.figure.axes)
    ('log', 2)
    """
    chosen = options or FitOptions()
    found, level = intervals_of_shape(measured, fit, chosen), f"{100 * chosen.level:g} %"
    with look():
        if ax is not None:
            ax.spines[["top", "right"]].set_visible(False)
            lowest = ax
            _draw_power(ax, measured, fit, found, level)
        else:
            figure = new_figure(4.2)
            grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
            ax = figure.add_subplot(grid[0])
            lowest = figure.add_subplot(grid[1], sharex=ax)
            for one in (ax, lowest):
                one.spines[["top", "right"]].set_visible(False)
            _draw_power(ax, measured, fit, found, level)
            _draw_rest(lowest, measured, fit, found)
            ax.tick_params(labelbottom=False)
        where = f"{unit} of the map" if unit == "pixel" else unit
        lowest.set_xlabel(f"frequency (cycles per {where})")
        _name(ax, measured, fit)
    return ax


def _draw_power(
    ax: Axes, measured: LayerSpectrum, fit: LayerFit, found: ShapeIntervals, level: str
) -> None:
    """Power with the interval of its shape, and the fit."""
    frequency, good = measured.spectrum.frequency, _good(found)
    first = found.power[good][0] if good.any() else 1.0
    ax.set_xscale("log")
    ax.set_yscale("log")
    entries: list[tuple[Artist, str]] = [(Line2D([], [], **_MEAN), "mean of the images")]
    known = good & np.isfinite(found.shape)
    if known.any():
        power, reach = found.power[known] / first, np.exp(found.shape[known])
        ax.fill_between(frequency[known], power / reach, power * reach, **_BAND)
        entries.append((Patch(**_BAND), f"{level} interval of the shape"))
    ax.plot(frequency[good], found.power[good] / first, **_MEAN, zorder=3)
    fitted = np.isfinite(fit.fitted_power)
    if fitted.any() and good.any():
        ax.plot(frequency[fitted], fit.fitted_power[fitted] / first, color=INK, zorder=4)
        entries.append((Line2D([], [], color=INK), "fitted power law"))
    ax.set_ylabel("mean power\n(relative to the lowest ring)")
    ax.yaxis.set_minor_locator(NullLocator())
    _dress(ax)
    legend(
        ax,
        [handle for handle, _ in entries],
        [label for _, label in entries],
        loc="lower left",
        fontsize="small",
    )


def _draw_rest(ax: Axes, measured: LayerSpectrum, fit: LayerFit, found: ShapeIntervals) -> None:
    """What the fit leaves with its interval, in decades."""
    fitted, frequency = fit.fitted_power, measured.spectrum.frequency
    both = np.isfinite(fitted) & _good(found)
    ax.set_xscale("log")
    if both.any():
        rest = np.log10(found.power[both] / fitted[both])
        reach = np.nan_to_num(found.left[both] / np.log(10))
        if reach.any():
            ax.fill_between(frequency[both], rest - reach, rest + reach, **_BAND)
        ax.plot(frequency[both], rest, **_MEAN)
        most = 1.2 * max(0.05, float((np.abs(rest) + reach).max()))
        ax.set_ylim(-most, most)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set_ylabel("power over\nthe fit (log$_{10}$)")
    _dress(ax)


def _good(found: ShapeIntervals) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(found.power) & (found.power > 0))


def _dress(ax: Axes) -> None:
    ax.grid(axis="x")
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _name(ax: Axes, measured: LayerSpectrum, fit: LayerFit) -> None:
    """Title the axes with the layer and what was found."""
    layer = measured.layer
    ax.set_title(printable(layer.name), parse_math=False, loc="left")
    said = f"α = {estimate(fit.exponent, fit.low, fit.high)}"
    if not np.isfinite(fit.exponent):
        said = "; ".join(fit.flags) or "no exponent"
    ax.set_title(
        f"{said}\n{layer.kind}, depth {layer.depth}, {map_size(layer.height, layer.width, ' px')}",
        loc="right", fontsize="small", fontweight="normal", color=GREY, parse_math=False,
    )  # fmt: skip
