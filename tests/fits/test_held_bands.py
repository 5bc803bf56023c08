"""The same waves in maps of any size: which rings they are, and who holds them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from natstats.errors import UsageError
from natstats.fits.band_choice import ImageBand
from natstats.fits.band_sensitivity import sensitivity_frame
from natstats.fits.exponents import fit_layers, fit_spectrum
from natstats.fits.form_comparison import compare_forms, forms_frame
from natstats.fits.held_bands import band_sentence, common_band, held_band, holds
from natstats.fits.image_spread import image_exponents_frame
from natstats.fits.options import FitOptions
from natstats.spectra.expected import expected_power, independent_modes
from natstats.spectra.frequencies import extent, rings
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of


def layer_of(
    height: int, width: int | None = None, span: float = math.nan, *, power=None, kind="conv"
) -> LayerSpectrum:
    """A layer of power-law maps, or with this power in its rings, over 24 images."""
    width = height if width is None else width
    modes = independent_modes(height, width)
    power = expected_power(2.0, height, width) if power is None else power
    scatter = np.random.default_rng(0).gamma(modes / 2, 2 / modes, size=(24, len(modes)))
    name = f"{kind}{height}x{width}"
    layer = Layer(name, 0, kind, 1, 1, height, width, 1.0, span=span)
    return LayerSpectrum(layer, spectrum_of(power * scatter, height, width))


def rings_of(measured: LayerSpectrum, band: ImageBand) -> list[int] | None:
    """Numbers, from 1, of the first and the last ring that a band is in a map."""
    held = held_band(band, measured.spectrum, measured.span)
    if held is None:
        return None
    return [measured.spectrum.frequency.tolist().index(end) + 1 for end in held]


@pytest.mark.parametrize(
    ("side", "span", "ends", "expected"),
    [
        (14, 1.0, (2, 7), [2, 7]),
        (14, 1.0, (2, 12), None),
        (14, 1.0, (1, 7), [1, 7]),
        (14, 1.0, (0, 7), [1, 7]),
        (14, 1.0, (1, 7.1), None),
        (14, math.nan, (2, 7), [2, 7]),  # of an older run
        (28, 1.0, (2, 7), [2, 7]),
        (224, 1.0, (2, 7), [2, 7]),
        (224, 1.0, (2, 112), [2, 112]),
        (224, 1.0, (2, 400), None),
        (7, 1.0, (1, 3), [1, 3]),
        (7, 1.0, (1, 3.5), [1, 3]),  # its Nyquist frequency, between two rings
        (7, 1.0, (1, 4), None),
        (28, 1.0, (2.4, 6.6), [2, 7]),  # the rings that the ends lie in
        (28, 1.0, (2.6, 6.4), [3, 6]),
        (28, 1.0, (2.5, 6.5), [3, 6]),
        (28, 1.0, (2.2, 2.3), [2, 2]),
        (13, 13 * 16 / 224, (1, 7), [1, 6]),  # without padding: the same stride, the same Nyquist
        (13, 13 * 16 / 224, (2, 7), [2, 6]),
        (13, 1.0, (1, 7), None),
        (388, 388 / 572, (2, 100), [1, 68]),
        (388, 388 / 572, (2, 286), [1, 194]),
        (388, 388 / 572, (2, 287), None),
        (40, 0.4, (1, 20), None),  # hardly half of a wave of the image's length
        (40, 0.4, (1.25, 20), [1, 8]),
        (9, 9 * 32 / 260, (1, 4), [1, 4]),  # with more padding than the image takes
    ],
)
def test_a_band_of_the_image_is_these_rings_of_a_map(side, span, ends, expected):
    measured, band = layer_of(side, span=span), ImageBand(*ends)
    assert rings_of(measured, band) == expected
    assert holds(measured, band) == (expected is not None)


@pytest.mark.slow
@given(
    st.integers(5, 90),
    st.integers(5, 90),
    st.floats(0.3, 1.4),
    st.floats(1, 40),
    st.floats(1.01, 20),
)
def test_waves_are_within_half_a_ring_of_what_was_asked_for(height, width, span, low, factor):
    measured = layer_of(height, width, span)
    band = ImageBand(low, low * factor)
    side = extent(height, width)
    nyquist, between = 0.5 * side / span, 1 / span
    found = rings_of(measured, band)
    if found is None:
        assert band.high > nyquist - 1e-3 or band.low < 0.5 * between + 1e-3
        return
    assert 1 <= found[0] <= found[1] <= side // 2
    assert band.high <= nyquist + 1e-3
    # A ring of number k is k waves along the map, k / span along the image.
    assert abs(found[0] * between - band.low) <= 0.51 * between
    assert abs(found[1] * between - band.high) <= 0.51 * between


def test_maps_of_the_whole_image_have_the_same_rings_at_the_same_waves():
    band, found = ImageBand(2, 12), []
    for side in (24, 28, 56, 112, 224):
        measured = layer_of(side, span=1.0)
        low, high = held_band(band, measured.spectrum)
        inside = (measured.spectrum.frequency >= low) & (measured.spectrum.frequency <= high)
        found.append(measured.cycles_per_image[inside])
    for own in found[1:]:
        # The last ring of 24 pixels is cut at the Nyquist frequency.
        np.testing.assert_allclose(own[:-1], found[0][:-1])
        assert own[-1] == pytest.approx(found[0][-1], rel=0.03)


def test_a_column_of_time_counts_waves_of_the_clip():
    assert rings_of(layer_of(16, 1, 1.0), ImageBand(2, 8)) == [2, 8]
    assert rings_of(layer_of(16, 1, 1.0), ImageBand(2, 9)) is None


@pytest.mark.slow
def test_the_exponent_is_that_of_these_waves_whatever_the_map():
    """Broken at 8 cycles/image: steep above, and both sides are found in maps of all sizes."""
    layers = []
    for side, span in ((112, 1.0), (48, 1.0), (78, 0.7)):
        cycles = rings(side, side).frequency * side / span
        truth = expected_power(1.0, side, side) * np.maximum(1.0, cycles / 8) ** -2.0
        layers.append(layer_of(side, span=span, power=truth))
    for band, alpha in (("1:8/image", 1.0), ("10:24/image", 3.0)):
        fits = fit_layers(layers, FitOptions(band=band))
        assert fits.exponents == pytest.approx(alpha, abs=0.25), band
    whole = fit_layers(layers).exponents
    assert np.ptp(whole) > 0.25  # the band of each map has a share of its own on either side


@pytest.mark.parametrize("estimator", ["octave", "whittle", "ols"])
@pytest.mark.parametrize("interval", ["jackknife", "bootstrap"])
def test_a_band_of_the_image_fits_as_its_rings_do_in_cycles_per_pixel(estimator, interval):
    measured = layer_of(28, span=0.8)
    options = FitOptions(band="2:12/image", estimator=estimator, interval=interval, resamples=100)
    ends = held_band(options.band, measured.spectrum, 0.8)
    (own,) = fit_layers([measured], options).layers
    other = fit_spectrum(measured.spectrum, replace(options, band=ends))
    for name in ("exponent", "low", "high", "r2", "n_rings", "curvature", "flags"):
        assert getattr(own, name) == getattr(other, name), name
    np.testing.assert_array_equal(own.image_exponents, other.image_exponents)
    np.testing.assert_array_equal(own.fitted_power, other.fitted_power)
    forms = compare_forms(measured.spectrum, options, 0.8)
    assert forms == compare_forms(measured.spectrum, replace(options, band=ends))
    assert forms.fits


def test_a_layer_that_does_not_hold_the_band_has_no_exponent_and_says_why():
    layers = [layer_of(28), layer_of(14)]
    options = FitOptions(band="2:12/image")
    fits = fit_layers(layers, options)
    held, other = fits.layers
    assert held.n_rings == 11
    assert np.isfinite(held.exponent)
    assert other.flags == ("band not in this map",)
    assert np.isnan([other.exponent, other.low, other.high]).all()
    assert (other.n_rings, len(other.image_exponents)) == (0, 0)
    assert np.isnan(other.fitted_power).all()
    assert forms_frame(layers, options).n_bins.tolist() == [10, 0]
    assert image_exponents_frame(layers, fits).n.tolist() == [24, 0]
    assert set(sensitivity_frame(layers, fits).layer) == {"conv28x28"}


def test_too_few_rings_are_another_reason_than_a_band_that_is_not_there():
    options = FitOptions(band="2:3/image", min_rings=3)
    assert fit_layers([layer_of(28)], options).layers[0].flags == ("too few rings in band",)


def test_exponent_against_band_begins_with_the_band_of_the_fit_in_maps_of_either_span():
    layers = [layer_of(28, span=1.0), layer_of(28, span=0.7)]
    layers[1] = replace(layers[1], layer=replace(layers[1].layer, name="cut"))
    fits = fit_layers(layers, FitOptions(band="2:12/image"))
    frame = sensitivity_frame(layers, fits)
    for measured, fit in zip(layers, fits.layers, strict=True):
        rows = frame[(frame.layer == measured.layer.name) & (frame.side == "low")]
        assert rows.n_rings.iloc[0] == fit.n_rings
        assert rows.exponent.iloc[0] == pytest.approx(fit.exponent)


# The widest band that layers have in common


@pytest.mark.parametrize(
    ("layers", "min_rings", "expected"),
    [
        ([(112, 1.0), (28, 1.0), (14, 1.0)], 4, (1, 7)),
        ([(112, 1.0), (28, 1.0), (14, 1.0), (7, 1.0)], 4, (1, 7)),  # three rings are too few
        ([(112, 1.0), (28, 1.0), (14, 1.0), (7, 1.0)], 3, (1, 3.5)),
        ([(8, 1.0), (32, 1.0)], 4, (1, 4)),
        ([(7, 1.0)] * 40 + [(28, 1.0)], 4, (1, 14)),
        ([(7, 1.0)], 4, None),
        ([], 4, None),
        ([(13, 13 / 14), (14, 1.0)], 4, (1, 7)),  # one stride, with and without padding
        ([(13, 1.0), (14, 1.0)], 4, (1, 6.5)),
        ([(100, 0.25), (100, 1.0)], 4, (2, 50)),
        ([(30, 1.0)], 16, None),
        ([(30, 1.0)], 15, (1, 15)),
    ],
)
def test_the_widest_common_band(layers, min_rings, expected):
    measured = [layer_of(side, span=span) for side, span in layers]
    found = common_band(measured, min_rings)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(5, 60), st.floats(0.5, 1.2)), min_size=1, max_size=5),
    st.integers(2, 6),
)
def test_no_band_that_is_found_leaves_a_holder_with_too_few_rings(sizes, min_rings):
    layers = [layer_of(side, span=span) for side, span in sizes]
    found = common_band(layers, min_rings)
    if found is None:
        assert all(side // 2 < min_rings for side, _ in sizes)
        return
    numbers = [rings_of(measured, ImageBand(*found)) for measured in layers]
    counts = [n[1] - n[0] + 1 for n in numbers if n is not None]
    assert max(counts) >= min_rings


@pytest.mark.parametrize("min_rings", [1, 2.5, "4", None])
def test_a_common_band_takes_a_number_of_rings(min_rings):
    with pytest.raises(UsageError, match="^min_rings: "):
        common_band([layer_of(14)], min_rings)


# In words


def test_how_many_layers_hold_a_band_is_said_where_not_all_do():
    layers = [layer_of(224, kind="input"), layer_of(28), layer_of(14), layer_of(14)]
    assert band_sentence(layers, (0.1, 0.4)) == ""
    assert band_sentence(layers, ImageBand(2, 7)) == ""
    assert band_sentence(layers, ImageBand(2, 12)).startswith(
        "1 of 3 layers holds the band of 2 to 12 cycles per image; "
    )
    assert band_sentence(layers, ImageBand(2, 400)) == (
        "no layer holds the band of 2 to 400 cycles per image; the finest maps hold 1 to 14"
    )
    assert band_sentence([layer_of(16, 1, kind="input")], ImageBand(2, 9), "frame") == (
        "the images do not hold the band of 2 to 9 cycles per clip; they hold 1 to 8"
    )
