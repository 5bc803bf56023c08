"""Figures of spectra, of the spread over images, and of the band."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from natstats import power_law_fields
from natstats.measurement.one_run import measure_images
from natstats.report.figures.band_sensitivity import MOST as MOST_PANELS
from natstats.report.figures.band_sensitivity import plot_sensitivity
from natstats.report.figures.image_spread import plot_spread
from natstats.report.figures.spectra import MOST, plot_spectra
from natstats.report.figures.spectra import MOST_PANELS as MOST_SIZES
from natstats.report.figures.style import WIDTH
from natstats.runs.run import Run
from tests.report.drawn import outside, overlapping


def panels_of(ax: Axes) -> tuple[list[Axes], list[Axes]]:
    """Panels of spectra, and those of what their fits leave."""
    axes = [one for one in ax.figure.axes if one.get_label() != "<colorbar>"]
    return [one for one in axes if one.get_title("left")], [
        one for one in axes if not one.get_title("left")
    ]


def curves_of(ax: Axes) -> list[Line2D]:
    """Curves of layers; those of the images are dashed."""
    return [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]


def test_every_map_size_has_a_panel_in_which_spectra_begin_at_one(figure_run: Run) -> None:
    upper, lower = panels_of(plot_spectra(figure_run.spectra, figure_run.fits))
    drawn = [
        (measured, fit)
        for measured, fit in zip(figure_run.spectra, figure_run.fits.layers, strict=True)
        if measured.layer.kind != "input" and not measured.spectrum.is_constant
    ]
    sizes = sorted({m.spectrum.height for m, _ in drawn}, reverse=True)
    assert len(upper) == len(lower) == len(sizes) > 1
    for size, above, below in zip(sizes, upper, lower, strict=True):
        own = [pair for pair in drawn if pair[0].spectrum.height == size]
        counted = f"{size} × {size} px · {len(own)} layer{'' if len(own) == 1 else 's'}"
        assert above.get_title("left") == counted
        assert len(above.lines) == len(curves_of(above)) + 2  # the images, in grey and colour
        for line, (measured, _) in zip(curves_of(above), own, strict=True):
            power = measured.spectrum.mean_power
            np.testing.assert_allclose(line.get_ydata(), power / power[0])
            np.testing.assert_allclose(line.get_xdata(), measured.cycles_per_image)
        for line, (measured, fit) in zip(curves_of(below), own, strict=True):
            rest = measured.spectrum.mean_power / fit.fitted_power
            np.testing.assert_allclose(line.get_ydata(), rest[np.isfinite(rest)])
            low, high = below.get_ylim()
            assert low < np.nanmin(rest)
            assert high > np.nanmax(rest)


def of_sizes(run: Run, sizes: list[int]) -> Run:
    """Layers of these sizes, with spectra of noise."""
    layer = run.spectra[2].layer
    spectra = []
    for place, size in enumerate(sizes):
        fields = power_law_fields(8, size, size, alpha=1.5, seed=place)[:, None]
        own = measure_images(np.float32(fields)).spectra[0].spectrum
        named = {**vars(layer), "name": f"layer{place}", "depth": place + 1}
        spectra.append(type(run.spectra[2])(type(layer)(**named), own))
    return Run(spectra)


@pytest.mark.slow
def test_many_map_sizes_share_panels_with_those_nearest(figure_run: Run) -> None:
    many = of_sizes(figure_run, [64, 62, 48, 40, 32, 24, 20, 16, 12, 10, 8])
    upper, _ = panels_of(plot_spectra(many.spectra, many.fits))
    titles = [ax.get_title("left") for ax in upper]
    assert len(titles) == MOST_SIZES
    assert titles[0] == "64 × 64 to 62 × 62 px\n2 layers"
    assert sum(len(curves_of(ax)) for ax in upper) == 11
    for ax in (plot_spectra(many.spectra, many.fits),):
        assert overlapping(ax) == []
        assert outside(ax) == []


@pytest.mark.slow
def test_of_very_many_layers_some_of_every_size_are_drawn_and_it_is_said(figure_run: Run) -> None:
    few = of_sizes(figure_run, [32, 16])
    spectra = [few.spectra[0], *few.spectra[1:] * (MOST + 20)]
    many = Run(spectra)
    ax = plot_spectra(many.spectra, many.fits)
    upper, _ = panels_of(ax)
    n_drawn = [len(curves_of(one)) for one in upper]
    assert n_drawn[0] == 1
    assert MOST - 2 <= sum(n_drawn) <= MOST
    said = ax.figure.legends[0].get_texts()[0].get_text()
    assert said == f"layer ({sum(n_drawn)} of {MOST + 21}, evenly spaced)"
    assert upper[1].get_title("left").endswith(f"{MOST + 20} layers")


def test_one_axes_holds_all_sizes(figure_run: Run) -> None:
    ax = Figure().add_subplot()
    assert plot_spectra(figure_run.spectra, figure_run.fits, ax=ax) is ax
    starts = [line.get_ydata()[0] for line in ax.lines]
    assert len(starts) == len(figure_run.spectra) - 1  # one is constant
    np.testing.assert_allclose(starts, 1.0)


def test_spread_shows_the_quantiles_of_the_images(figure_run: Run) -> None:
    ax = plot_spread(figure_run.spectra, figure_run.fits)
    bars = [one.get_segments()[0][:, 1] for one in ax.collections]
    fits = [fit for fit in figure_run.fits.layers if len(fit.image_exponents)]
    expected = [
        np.quantile(fit.image_exponents, q) for fit in fits for q in ([0.05, 0.95], [0.25, 0.75])
    ]
    np.testing.assert_allclose(bars, expected)
    dashes = next(line for line in ax.lines if line.get_marker() == "_")
    exponents = figure_run.fits.exponents
    np.testing.assert_allclose(dashes.get_ydata(), exponents[np.isfinite(exponents)])


@pytest.mark.slow
def test_sensitivity_draws_what_was_fitted_layer_by_layer(figure_run: Run) -> None:
    frame = figure_run.sensitivity
    figure = plot_sensitivity(frame)
    inner = frame[~frame.layer.str.startswith("input") & frame.duplicated(["layer", "side"])]
    names = ["input.grey", *inner.layer.unique()]
    assert 5 < len(figure.axes) == len(names) <= MOST_PANELS
    for ax, name in zip(figure.axes, names, strict=True):
        rows = frame[frame.layer == name]
        for side, marker in (("low", "o"), ("high", "s")):
            own = rows[rows.side == side]
            line = next(line for line in ax.lines if line.get_marker() == marker)
            np.testing.assert_allclose(line.get_xdata(), own[f"band_{side}"])
            np.testing.assert_allclose(line.get_ydata(), own.exponent)
    assert "cycles per pixel" in figure.get_supxlabel()
    assert overlapping(figure.axes[0]) == outside(figure.axes[0]) == []


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", [1, 3, 30])
@pytest.mark.parametrize("width", WIDTH.values())
def test_sensitivity_fits_any_number_of_layers(
    figure_run: Run, n_layers: int, width: float
) -> None:
    one = figure_run.sensitivity[figure_run.sensitivity.layer == "0"]
    frame = pd.concat(one.assign(layer=f"$stage_{i}$." + i * "long.") for i in range(n_layers))
    given = Figure(figsize=(width, 6.5), layout="constrained")
    figure = plot_sensitivity(frame, given)
    assert figure is given
    assert len(figure.axes) == min(n_layers, MOST_PANELS)
    assert overlapping(figure.axes[0]) == outside(figure.axes[0]) == []
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(f"{MOST_PANELS} of {n_layers} rows" in text for text in texts) == (n_layers > 8)
