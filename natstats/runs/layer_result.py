"""Everything that a run knows of one layer, in one record."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from natstats.fits.options import FitOptions
from natstats.fits.records import LayerFit
from natstats.html_blocks import html_block, html_table
from natstats.numbers import counted, estimate, map_size, number
from natstats.spectra.records import Layer, LayerSpectrum, Spectrum
from natstats.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["LayerResult"]


@dataclass(frozen=True, eq=False, repr=False)
class LayerResult:
    """One layer of a run.

    Attributes:
        measured: the layer and its spectrum.
        fit: its exponent with the interval, and what the fit leaves.
        form: other forms than the power law: its row of :attr:`natstats.Run.forms`.
        flags: what to know before using its numbers: flags of the fit, the form and the layout.
        law: ``yes`` where it is in the law, else why it is not.
        images: the spread of single images: its row of :attr:`natstats.Run.image_exponents`; empty
            where there is none.
        sensitivity: exponents in narrower bands: its rows of :attr:`natstats.Run.sensitivity`.
        control: comparison with random weights: its row of ``run.control.layers``; else empty.
        unit: what frequencies are counted in, cycles per ``pixel`` of the map or per ``frame``.
        options: of the fit.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(32, 16, 16, alpha=2.0)[:, None])
    >>> one = run.layer("input")
    >>> one.name, one.fit.low < one.exponent < one.fit.high, one.spectrum.n_rings
    ('input', True, 8)
    """

    measured: LayerSpectrum
    fit: LayerFit
    form: dict[str, Any]
    flags: tuple[str, ...]
    law: str
    images: dict[str, Any]
    sensitivity: pd.DataFrame
    control: dict[str, Any]
    unit: str = "pixel"
    options: FitOptions = FitOptions()  # noqa: RUF009 (it is frozen)

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.layer.name

    @property
    def layer(self) -> Layer:
        """What and where it is."""
        return self.measured.layer

    @property
    def spectrum(self) -> Spectrum:
        """What was measured."""
        return self.measured.spectrum

    @property
    def exponent(self) -> float:
        """Alpha; NaN where there is none."""
        return self.fit.exponent

    @property
    def interval(self) -> tuple[float, float]:
        """Ends of the interval of the exponent."""
        return self.fit.low, self.fit.high

    def sentence(self) -> str:
        """What it is and what was found, in words."""
        layer = self.layer
        found = (
            f"exponent {estimate(self.exponent, *self.interval)}"
            if np.isfinite(self.exponent)
            else "no exponent"
        )
        said = f"; {', '.join(self.flags)}" if self.flags else ""
        size = map_size(layer.height, layer.width, " px")
        return (
            f"{printable(layer.name)} ({layer.kind}, depth {layer.depth}, "
            f"{counted(layer.channels, 'map')} of "
            f"{size}): {found}{said}"
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw its spectrum: :mod:`natstats.report.figures.layer_spectrum`."""
        from natstats.report.figures.layer_spectrum import plot_layer_spectrum

        return plot_layer_spectrum(self.measured, self.fit, self.unit, ax, self.options)

    def __repr__(self) -> str:
        return f"<{self.sentence()}>"

    def _repr_html_(self) -> str:
        from natstats.report.figures.spectra import has_power
        from natstats.report.notebook import figure_html

        layer, fit, form = self.layer, self.fit, self.form
        rows = [
            ("exponent α", estimate(fit.exponent, fit.low, fit.high)),
            ("kind, depth", f"{layer.kind}, {layer.depth}"),
            ("maps", f"{layer.channels} of {map_size(layer.height, layer.width, ' px')}"),
            ("best form", str(form.get("best_form") or "–")),
            ("images", f"{fit.n_images}"),
            ("their own exponents", f"{number(fit.image_mean)} ± {number(fit.image_sd)}"),
            ("in the law", self.law),
            ("flags", "; ".join(self.flags) or "none"),
        ]
        figure = [figure_html(self.plot())] if has_power(self.measured) else []
        return html_block(layer.name, [], html_table([], rows), *figure)
