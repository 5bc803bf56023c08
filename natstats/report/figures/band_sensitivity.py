"""How the exponent depends on the band, for a few layers side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from natstats.fits.band_choice import FittedBand, ImageBand
from natstats.numbers import evenly_spaced, short
from natstats.report.figures.law import INPUT_NAMES
from natstats.report.figures.style import FAINT, GREY, INK, NARROW, PALETTE, look, new_figure
from natstats.spectra.frequencies import extent
from natstats.spectra.records import LayerSpectrum

__all__ = ["MOST", "has_bands", "per_image", "plot_run_sensitivity", "plot_sensitivity"]

MOST = 8
"""Most layers that are drawn; of more, the input images and evenly spaced layers."""

LONGEST_NAME = 22
"""Most characters of a name above its panel; of a longer one the end is shown."""

_SIDES = {
    "low": (PALETTE[0], "o", "fitted from this frequency up"),
    "high": (PALETTE[1], "s", "fitted up to this frequency"),
}


def has_bands(sensitivity: pd.DataFrame) -> bool:
    """True when some layer was fitted in more than one band."""
    return bool(sensitivity.duplicated(["layer", "side"]).any())


def per_image(sensitivity: pd.DataFrame, spectra: Sequence[LayerSpectrum]) -> pd.DataFrame:
    """The table with its frequencies in cycles/image, in place of cycles/pixel of the maps.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> frame = per_image(run.sensitivity, run.spectra)
    >>> bool((frame.band_low == 16 * run.sensitivity.band_low).all())
    True
    """
    pixels = {m.layer.name: extent(m.spectrum.height, m.spectrum.width) / m.span for m in spectra}
    factor = sensitivity.layer.map(pixels)
    ends = {name: sensitivity[name] * factor for name in ("band_low", "band_high")}
    return sensitivity.assign(**ends)


def plot_sensitivity(
    sensitivity: pd.DataFrame, figure: Figure | None = None, unit: str = "pixel"
) -> Figure:
    """Draw the exponent of some layers against the end of the band that is moved.

    Each panel is a layer. The horizontal grey bar is the exponent of the whole band with its
    interval; where the curves leave it, the spectrum is not one power law.

    Args:
        sensitivity: see :func:`natstats.fits.band_sensitivity.sensitivity_frame`, and for cycles
            per image :func:`per_image`.
        figure: where to draw; by default a new one.
        unit: what the frequencies count cycles per: ``pixel``, ``frame``, ``image`` or ``clip``.

    Returns:
        The figure drawn into, with one axes per layer.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> len(plot_sensitivity(run.sensitivity).axes)
    1
    """
    names = _chosen(sensitivity)
    with look():
        wide = (new_figure(1.0) if figure is None else figure).get_figwidth()
        n_columns = min(4 if wide > NARROW else 2, len(names))
        n_rows = -(-len(names) // n_columns)
        if figure is None:
            figure = new_figure(0.9 + 1.75 * n_rows)
        panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).ravel()
        for ax in panels[len(names) :]:
            ax.remove()
        for ax, name in zip(panels, names, strict=False):
            _draw_one(ax, sensitivity[sensitivity.layer == name], name)
        shown = sensitivity[sensitivity.layer.isin(names)]
        _dress(figure, list(panels[: len(names)]), shown, n_columns, unit)
        _draw_legend(figure, len(names), sensitivity.layer.nunique(), wide > NARROW)
    return figure


def plot_run_sensitivity(
    sensitivity: pd.DataFrame,
    spectra: Sequence[LayerSpectrum],
    band: FittedBand,
    unit: str,
    figure: Figure | None = None,
) -> Figure:
    """Draw :func:`plot_sensitivity` in the unit in which the band of a run was asked for.

    Args:
        sensitivity: see :func:`natstats.fits.band_sensitivity.sensitivity_frame`.
        spectra: of the layers in it.
        band: that was asked for, see :class:`natstats.fits.options.FitOptions`.
        unit: what frequencies of the maps count cycles per, ``pixel`` or ``frame``.
        figure: where to draw; by default a new one.
    """
    if not isinstance(band, ImageBand):
        return plot_sensitivity(sensitivity, figure, unit)
    whole = "clip" if unit == "frame" else "image"
    return plot_sensitivity(per_image(sensitivity, spectra), figure, whole)


def _chosen(sensitivity: pd.DataFrame) -> list[str]:
    """The input images, once, and evenly spaced layers, at most `MOST` together."""
    moved = sensitivity[sensitivity.duplicated(["layer", "side"], keep=False)]
    names = list(dict.fromkeys(moved.layer))
    inputs = [name for name in names if name in INPUT_NAMES][:1]
    layers = [name for name in names if name not in INPUT_NAMES]
    chosen = evenly_spaced(len(layers), MOST - len(inputs))
    return [*inputs, *(layers[place] for place in chosen)]


def _draw_one(ax: Axes, rows: pd.DataFrame, name: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y")
    whole = rows.iloc[0]
    ax.axhspan(whole.exponent_low, whole.exponent_high, color=FAINT, linewidth=0, zorder=0)
    ax.axhline(whole.exponent, color=GREY, linewidth=0.8, zorder=1)
    for side, (colour, marker, _) in _SIDES.items():
        own = rows[(rows.side == side) & np.isfinite(rows.exponent)]
        end = own[f"band_{side}"]
        ax.fill_between(
            end, own.exponent_low, own.exponent_high, color=colour, alpha=0.18, linewidth=0
        )
        ax.plot(end, own.exponent, color=colour, marker=marker, markersize=2.4, linewidth=1.0)
    title = INPUT_NAMES.get(name, name)
    short = title if len(title) <= LONGEST_NAME else f"…{title[1 - LONGEST_NAME :]}"
    ax.set_title(short, fontsize=8, fontweight="normal", color=INK, parse_math=False)


def _dress(
    figure: Figure, panels: Sequence[Axes], rows: pd.DataFrame, n_columns: int, unit: str
) -> None:
    first = panels[0]
    first.set_xscale("log")
    is_whole = unit in ("image", "clip")
    steps = (1, 2, 5, 10, 20, 50, 100, 200, 500) if is_whole else (0.01, 0.1, 0.5)
    least, most = rows.band_low.min(), 1.2 * rows.band_high.max() if is_whole else 0.62
    ticks = [tick for tick in steps if 0.7 * least <= tick <= most]
    first.xaxis.set_major_locator(FixedLocator(ticks))
    first.xaxis.set_minor_locator(NullLocator())
    first.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    first.set_xlim(0.85 * least, most)
    # The narrowest bands have wide intervals, which must not press everything else flat.
    seen = rows.exponent[np.isfinite(rows.exponent)]
    first.set_ylim(seen.min() - 0.15 * np.ptp(seen) - 0.1, seen.max() + 0.15 * np.ptp(seen) + 0.1)
    first.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for place, ax in enumerate(panels):
        if place % n_columns == 0:
            ax.set_ylabel(r"exponent $\alpha$")
        if place + n_columns >= len(panels):
            ax.tick_params(labelbottom=True)  # also above a place that stays empty
    label = f"moved end of the band (cycles per {unit})"
    figure.supxlabel(label, fontsize=9 if n_columns > 2 else 8)


def _draw_legend(figure: Figure, n_drawn: int, n_layers: int, is_wide: bool) -> None:
    handles: list[Artist] = [
        Line2D([], [], color=colour, marker=marker, markersize=3.5, linewidth=1.0)
        for colour, marker, _ in _SIDES.values()
    ]
    labels = [words for *_, words in _SIDES.values()]
    handles.append(Patch(facecolor=FAINT, edgecolor=GREY, linewidth=0.6))
    labels.append("whole band")
    if n_drawn < n_layers:
        labels[-1] += f" ({n_drawn} of {n_layers} rows drawn)"
    figure.legend(
        handles,
        labels,
        loc="outside upper left",
        ncols=3 if is_wide else 1,
        fontsize=7.5 if is_wide else 7,
        columnspacing=1.2,
    )
