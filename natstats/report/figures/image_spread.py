"""How the exponents of single images spread, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from natstats.fits.records import Fits
from natstats.report.figures.law import EXPONENT_LABEL, INPUT_NAMES
from natstats.report.figures.style import (
    INK,
    PALETTE,
    depth_axis,
    is_narrow,
    legend,
    look,
    new_axes,
    side_by_side,
)
from natstats.spectra.records import LayerSpectrum

__all__ = ["plot_spread"]

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def plot_spread(spectra: Sequence[LayerSpectrum], fits: Fits, ax: Axes | None = None) -> Axes:
    r"""Draw the exponents of single images against depth, and that of their mean spectrum.

    Two different numbers are shown. The bars are the distribution of the exponents fitted to each
    image by itself (median, quartiles, 5 to 95 %). The orange dash is the exponent fitted to the
    mean spectrum of all images, which is the one in the tables and in the law. They differ: the
    mean spectrum is dominated by the images with most power.

    Args:
        spectra: spectrum of every layer.
        fits: fits of the same layers.
        ax: where to draw; by default a new figure.

    Returns:
        The axes drawn into.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> plot_spread(run.spectra, run.fits).get_ylabel()
    'exponent $\\alpha$ of the power spectrum'
    """
    depths = [measured.layer.depth for measured in spectra]
    places = side_by_side(depths, 0.3)
    dots = [len(fit.image_exponents) for fit in fits.layers]
    with look():
        ax = new_axes(ax, 3.6)
        ax.grid(axis="y")
        # Thinner where there are many layers: less than half of the room of each on the axis.
        length = 200 if is_narrow(ax) else 430
        thick = float(np.clip(0.46 * length / max(len(spectra), 1), 1.2, 3.0))
        shown = [n > 0 for n in dots]
        alone = [fit.image_exponents for fit in fits.layers if len(fit.image_exponents)]
        spread = [np.quantile(values, _QUANTILES) for values in alone]
        # Not by vlines, which updates the limits of the axes after every bar.
        across = places[shown]
        for place, row in zip(across, spread, strict=True):
            for ends, width, level in ((row[[0, -1]], 0.8, 2), (row[[1, -2]], thick, 3)):
                segment = [(place, ends[0]), (place, ends[1])]
                bar = LineCollection([segment], colors=PALETTE[0], linewidths=width, zorder=level)
                ax.add_collection(bar, autolim=False)
        ax.update_datalim([(x, y) for x, row in zip(across, spread, strict=True) for y in row])
        ax.plot(across, [row[2] for row in spread], "o", color="white", markersize=0.9 * thick,
                zorder=6, markeredgecolor=INK, markeredgewidth=0.7)  # fmt: skip
        exponents = np.array([fit.exponent for fit in fits.layers])
        drawn = np.isfinite(exponents)
        ax.plot(
            places[drawn], exponents[drawn], linestyle="none", marker="_", markersize=3 * thick,
            color=PALETTE[1], markeredgewidth=2.0, zorder=5,
        )  # fmt: skip
        ax.set_xlim(-0.02 * max(depths) - 0.4, 1.02 * max(depths) + 0.4)
        if any(depths):
            depth_axis(ax)
        else:  # images alone: names say more than a depth of zero
            names = [measured.layer.name for measured in spectra]
            ax.set_xticks(places, [INPUT_NAMES.get(name, name) for name in names])
            ax.set_xlabel("images")
        ax.set_ylabel(r"exponent $\alpha$" if is_narrow(ax) else EXPONENT_LABEL)
        _draw_legend(ax, max(dots, default=0))
    return ax


def _draw_legend(ax: Axes, n_images: int) -> None:
    blue, orange = PALETTE[:2]
    images = "1 image" if n_images == 1 else f"{n_images} images"
    handles = [
        Line2D([], [], color=orange, marker="_", markersize=9, markeredgewidth=2.0, linewidth=0),
        Line2D([], [], color="white", marker="o", markersize=2.6, markeredgecolor=INK, linewidth=0),
        Line2D([], [], color=blue, linewidth=3.0),
        Line2D([], [], color=blue, linewidth=0.8),
    ]
    labels = [
        "of the mean spectrum",
        f"of {images}, each alone: median",
        "their quartiles",
        "5 to 95 %",
    ]
    legend(
        ax,
        handles,
        labels,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=1 if is_narrow(ax) else 4,
        borderaxespad=0.2,
        columnspacing=1.2,
        handletextpad=0.5,
    )
