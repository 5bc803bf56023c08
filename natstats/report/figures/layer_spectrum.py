"""The spectrum of one layer with its fit, the spread of its images, and what the fit leaves."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator
from numpy.typing import NDArray

from natstats.fits.records import LayerFit
from natstats.numbers import interval, map_size, number
from natstats.report.figures.style import FAINT, GREY, INK, PALETTE, legend, look, new_figure
from natstats.spectra.records import LayerSpectrum
from natstats.text import printable

__all__ = ["plot_layer_spectrum"]

SPREAD = (10, 90)
"""Percentiles of the images that are shaded."""

FEWEST = 10
"""Images that a spread takes."""

_MEAN: dict[str, Any] = {
    "color": PALETTE[0], "marker": "o", "markersize": 3.5, "linewidth": 1.0, "linestyle": "-",
}  # fmt: skip


def plot_layer_spectrum(
    measured: LayerSpectrum, fit: LayerFit, unit: str = "pixel", ax: Axes | None = None
) -> Axes:
    """Draw mean power against frequency, and below it how far it is from the fit.

    Power is relative to the lowest ring; the band between the 10th and the 90th percentile of
    single images is shaded, each image relative to its own lowest ring.

    Args:
        measured: the layer.
        fit: its fit.
        unit: what frequencies are counted in, cycles per ``pixel`` or per ``frame``.
        ax: where to draw the spectrum, then without what the fit leaves; by default in a new
            figure, whose second axes are those below.

    Returns:
        The axes of the spectrum.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> ax = plot_layer_spectrum(run.spectra[0], run.fits.layers[0])
    >>> ax.get_yscale(), len(ax.figure.axes)
    ('log', 2)
    """
    with look():
        if ax is not None:
            ax.spines[["top", "right"]].set_visible(False)
            lowest = ax
            _draw_power(ax, measured, fit)
        else:
            figure = new_figure(4.2)
            grid = figure.add_gridspec(2, 1, height_ratios=[3, 1])
            ax = figure.add_subplot(grid[0])
            lowest = figure.add_subplot(grid[1], sharex=ax)
            for one in (ax, lowest):
                one.spines[["top", "right"]].set_visible(False)
            _draw_power(ax, measured, fit)
            _draw_rest(lowest, measured, fit)
            ax.tick_params(labelbottom=False)
        where = f"{unit} of the map" if unit == "pixel" else unit
        lowest.set_xlabel(f"frequency (cycles per {where})")
        _name(ax, measured, fit)
    return ax


def _draw_power(ax: Axes, measured: LayerSpectrum, fit: LayerFit) -> None:
    """Power, the spread of images and the fit."""
    spectrum = measured.spectrum
    power, frequency, good = spectrum.mean_power, spectrum.frequency, _good(measured)
    first = power[good][0] if good.any() else 1.0
    ax.set_xscale("log")
    ax.set_yscale("log")
    entries: list[tuple[Artist, str]] = [(Line2D([], [], **_MEAN), "mean of the images")]
    entries += _shade_images(ax, measured, good)
    ax.plot(frequency[good], power[good] / first, **_MEAN, zorder=3)
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


def _draw_rest(ax: Axes, measured: LayerSpectrum, fit: LayerFit) -> None:
    """What the fit leaves, in decades."""
    power, fitted = measured.spectrum.mean_power, fit.fitted_power
    both = np.isfinite(fitted) & _good(measured)
    ax.set_xscale("log")
    if both.any():
        rest = np.log10(power[both] / fitted[both])
        ax.plot(measured.spectrum.frequency[both], rest, **_MEAN)
        reach = 1.2 * max(0.05, float(np.abs(rest).max()))
        ax.set_ylim(-reach, reach)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    ax.set_ylabel("power over\nthe fit (log$_{10}$)")
    _dress(ax)


def _good(measured: LayerSpectrum) -> NDArray[np.bool_]:
    power = measured.spectrum.mean_power
    return np.asarray(np.isfinite(power) & (power > 0))


def _shade_images(
    ax: Axes, measured: LayerSpectrum, good: NDArray[np.bool_]
) -> list[tuple[Artist, str]]:
    """The spread of single images; nothing where they are few."""
    rows = measured.spectrum.image_power.astype(np.float64)
    rows = rows[np.isfinite(rows).all(axis=1) & (rows > 0).all(axis=1)]
    if len(rows) < FEWEST or not good.any():
        return []
    low, high = np.percentile(rows[:, good] / rows[:, good][:, :1], SPREAD, axis=0)
    ax.fill_between(
        measured.spectrum.frequency[good], low, high, color=FAINT, linewidth=0, zorder=1
    )
    return [(Patch(color=FAINT), f"{SPREAD[0]} to {SPREAD[1]} % of {len(rows)} images")]


def _dress(ax: Axes) -> None:
    ax.grid(axis="x")
    ax.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _name(ax: Axes, measured: LayerSpectrum, fit: LayerFit) -> None:
    """What layer it is, and what was found."""
    layer = measured.layer
    ax.set_title(printable(layer.name), parse_math=False, loc="left")
    said = f"α = {number(fit.exponent)} {interval(fit.low, fit.high)}"
    if not np.isfinite(fit.exponent):
        said = "; ".join(fit.flags) or "no exponent"
    ax.set_title(
        f"{said}\n{layer.kind}, depth {layer.depth}, {map_size(layer.height, layer.width, ' px')}",
        loc="right", fontsize="small", fontweight="normal", color=GREY, parse_math=False,
    )  # fmt: skip
