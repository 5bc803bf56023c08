"""A band in cycles/image where it is drawn, for images, clips, networks and their controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.report.figures.spectra import plot_spectra
from natstats.report.pages.provenance import measured
from natstats.runs.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run() -> Run:
    """Two maps of the image, one of its middle, one at half its resolution; and a control."""
    torch.manual_seed(0)
    steps = (nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 9), nn.Conv2d(3, 3, 2, 2))
    images = natstats.power_law_fields(12, 40, 40, alpha=2.0, seed=0)[:, None].repeat(3, axis=1)
    return natstats.measure(
        nn.Sequential(*steps).eval(),
        np.float32(images),
        fit=natstats.FitOptions(band="2:12/image"),
        control="random-weights",
        control_seeds=2,
    )


@pytest.mark.draws
def test_spectra_stand_at_waves_of_the_image_with_the_band_behind(run):
    figure = plot_spectra(run.spectra, run.fits).figure
    upper = [ax for ax in figure.axes if ax.get_title("left")]
    assert len(upper) == 3
    drawn = [line.get_xdata() for ax in upper for line in ax.lines if line.get_linestyle() == "-"]
    for one, frequency in zip(run.spectra[2:], drawn, strict=True):
        np.testing.assert_allclose(frequency, one.cycles_per_image)
    for ax in upper:
        (shade,) = ax.patches
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == (2, 12)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "band of the fit, 2 to 12 cycles per image" in labels
    other = plot_spectra(run.spectra, run.refit(band=(0.1, 0.4)).fits).figure
    assert not [patch for ax in other.axes if ax.get_title("left") for patch in ax.patches]


@pytest.mark.draws
def test_exponent_against_band_counts_waves_of_the_image(run):
    figure = run.plot_sensitivity()
    assert "cycles per image" in figure.get_supxlabel()
    ax = figure.axes[0]
    line = next(line for line in ax.lines if line.get_marker() == "o")
    rows = run.sensitivity[run.sensitivity.layer == "input.grey"]
    low = rows[rows.side == "low"].band_low
    np.testing.assert_allclose(line.get_xdata(), 40 * low)
    assert "cycles per pixel" in run.refit(band=(0.1, 0.4)).plot_sensitivity().get_supxlabel()


def test_the_control_is_fitted_to_the_same_waves(run):
    layers = run.control.layers.set_index("layer")
    assert np.isfinite(layers.difference[["0", "1"]]).all()
    for one in run.random_weights:
        assert [m.layer.span for m in one.spectra] == [m.span for m in run.spectra[2:]]


def test_of_clips_along_time_it_is_waves_of_the_clip():
    clips = np.random.default_rng(0).standard_normal((8, 1, 24, 8, 8)).astype(np.float32)
    run = natstats.measure_images(clips, temporal=True, fit=natstats.FitOptions(band="2:12/image"))
    assert run.layers.n_rings.tolist() == [11]
    facts = dict(measured(run.info, run.options))
    assert facts["band"] == "2 to 12 cycles per clip"
    assert "cycles per clip" in run.plot_sensitivity().get_supxlabel()
    short = run.refit(band="2:13/image")
    assert short.layers["flags"].str.contains("band not in this map").all()
    assert "cycles per clip" in short.band_sentence()
