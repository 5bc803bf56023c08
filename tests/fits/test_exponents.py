"""Exponents: recovered where they are known, with intervals that cover, and flags that warn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

import natstats
from natstats.fits.bands import band_of
from natstats.fits.exponents import fit_layers, fit_spectrum
from natstats.fits.options import ESTIMATORS, FitOptions
from natstats.spectra import simulate
from natstats.spectra.expected import expected_power
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Layer, LayerSpectrum, Spectrum


def spectrum_of(power: np.ndarray, side: int, edges: str = "sine") -> Spectrum:
    """A spectrum with one image per group, whose ring power is given, (n_images, n_rings)."""
    return simulate.spectrum_of(power, side, side, edges)


def measured(alpha: float, side: int, n: int, seed: int = 0, edges: str = "sine") -> Spectrum:
    fields = natstats.power_law_fields(n, side, side, alpha, seed=seed)
    accumulator = natstats.SpectrumAccumulator(side, side, edges)
    accumulator.update(torch.from_numpy(fields[:, None]))
    return accumulator.compute()


@pytest.mark.parametrize("estimator", ["octave", "whittle"])
@pytest.mark.parametrize("edges", ["sine", "hann", "none", "periodic"])
@pytest.mark.parametrize("alpha", [-1.0, 0.0, 1.3, 2.0, 2.8])
def test_the_expected_spectrum_gives_its_own_exponent(alpha, edges, estimator):
    """Without noise there is no error: the estimators invert the expectation."""
    power = 7.0 * expected_power(alpha, 28, 28, edges)
    fit = fit_spectrum(
        spectrum_of(np.tile(power, (4, 1)), 28, edges), FitOptions(estimator=estimator)
    )
    assert fit.exponent == pytest.approx(alpha, abs=2e-3)
    assert np.exp(fit.log_amplitude) == pytest.approx(7.0, rel=0.02)
    assert fit.curvature == pytest.approx(0.0, abs=2e-3)
    if alpha:
        assert fit.r2 > 0.999


def test_ols_is_the_straight_line():
    power = 3.0 * rings(20, 20).frequency ** -1.7
    fit = fit_spectrum(spectrum_of(np.tile(power, (3, 1)), 20), FitOptions(estimator="ols"))
    line = stats.linregress(np.log(rings(20, 20).frequency), np.log(power))
    assert fit.exponent == pytest.approx(-line.slope) == pytest.approx(1.7)
    assert fit.r2 == pytest.approx(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("side", [7, 14, 28])
@pytest.mark.parametrize("alpha", [0.0, 2.0, 4.0])
def test_known_exponents_are_recovered_from_crops(alpha, side):
    fit = fit_spectrum(measured(alpha, side, 400, seed=3))
    assert fit.by_estimator["octave"] == pytest.approx(alpha, abs=4 * fit.standard_error)
    assert fit.standard_error < 0.06
    assert fit.by_estimator["whittle"] == pytest.approx(alpha, abs=0.12)


@pytest.mark.slow
def test_without_a_taper_a_line_cannot_see_beyond_three():
    """The reason for the taper and the debiasing, from the table in the documentation."""
    spectrum = measured(4.5, 28, 200, edges="none")
    assert fit_spectrum(spectrum, FitOptions(estimator="ols")).exponent < 3.4
    assert fit_spectrum(measured(4.5, 28, 200)).exponent == pytest.approx(4.5, abs=0.1)


@pytest.mark.slow
def test_the_interval_covers_by_simulation():
    """At 95 % the hits in 200 repeats are binomial; 0.95 +- 4 sd bounds them below at 0.888."""
    generator = np.random.default_rng(0)
    truth = expected_power(2.0, 12, 12)
    hits = 0
    for _ in range(200):
        # Each image: ring power scattered about the truth, in a shape of its own.
        noise = generator.gamma(6.0, 1 / 6.0, size=(64, len(truth)))
        fit = fit_spectrum(spectrum_of(truth * noise, 12))
        hits += fit.low < 2.0 < fit.high
    assert stats.binomtest(hits, 200, 0.95).pvalue > 1e-4
    assert hits > 178


def test_the_jackknife_of_equal_groups_is_the_textbook_one():
    power = measured(1.5, 14, 40).power[:40]
    fit = fit_spectrum(spectrum_of(power, 14))
    left_out = [
        fit_spectrum(spectrum_of(np.delete(power, i, axis=0), 14)).exponent for i in range(40)
    ]
    variance = 39 / 40 * np.sum((left_out - np.mean(left_out)) ** 2)
    assert fit.standard_error**2 == pytest.approx(variance, rel=1e-9)
    reach = stats.t.ppf(0.975, fit.dof) * np.sqrt(variance)
    assert (fit.low, fit.high) == pytest.approx((fit.exponent - reach, fit.exponent + reach))


def test_unequal_groups_give_nearly_the_interval_of_equal_ones():
    spectrum = measured(1.5, 14, 200)  # groups of two and of one
    assert set(spectrum.count) == {1, 2}
    single = fit_spectrum(spectrum_of(spectrum.image_power.astype(np.float64), 14))
    assert fit_spectrum(spectrum).standard_error == pytest.approx(single.standard_error, rel=0.25)


def test_layers_share_their_resampling():
    """A layer and its copy vary together; a layer of other images does not."""
    layer = Layer("a", 0, "conv", 1, 1, 14, 14, 1.0)
    one, other = measured(2.0, 14, 64), measured(2.0, 14, 64, seed=9)
    covariance = fit_layers([LayerSpectrum(layer, s) for s in (one, one, other)]).covariance
    variance = covariance[0, 0]
    assert covariance[0, 1] == pytest.approx(variance)
    assert abs(covariance[0, 2]) < 0.5 * variance


@pytest.mark.slow
def test_a_band_leaves_out_what_lies_outside():
    fit = fit_spectrum(measured(2.0, 28, 64), FitOptions(band=(0.1, 0.3)))
    frequency = rings(28, 28).frequency
    inside = (frequency >= 0.1) & (frequency <= 0.3)
    assert fit.n_rings == inside.sum()
    assert np.array_equal(np.isfinite(fit.fitted_power), inside)
    assert fit.exponent == pytest.approx(2.0, abs=0.2)


def test_curvature_is_seen():
    frequency = rings(28, 28).frequency
    bent = expected_power(2.0, 28, 28) * np.exp(-0.4 * np.log(frequency / 0.1) ** 2)
    noise = np.random.default_rng(0).gamma(20, 1 / 20, size=(64, len(frequency)))
    fit = fit_spectrum(spectrum_of(bent * noise, 28))
    assert fit.curvature == pytest.approx(-0.4, abs=0.08)
    assert fit.curvature_p < 1e-4


@pytest.mark.slow
def test_image_exponents_differ_from_the_exponent_of_the_mean():
    """Images of different exponents: the steepest rule the mean spectrum at low frequency."""
    generator = np.random.default_rng(1)
    alphas = 2.0 + 0.5 * generator.standard_normal(300)
    power = np.stack([expected_power(a, 14, 14) for a in alphas])
    fit = fit_spectrum(spectrum_of(power, 14))
    np.testing.assert_allclose(fit.image_exponents, alphas, atol=5e-3)
    assert fit.image_mean == pytest.approx(alphas.mean(), abs=5e-3)
    assert fit.image_sd == pytest.approx(alphas.std(ddof=1), abs=5e-3)
    assert fit.exponent > fit.image_mean + 0.1


FLAT = np.tile(expected_power(1.0, 14, 14), (20, 1))


@pytest.mark.parametrize(
    ("spectrum", "options", "flag"),
    [
        (spectrum_of(np.tile(expected_power(1.0, 7, 7), (20, 1)), 7), FitOptions(), "few rings"),
        (spectrum_of(FLAT[:8], 14), FitOptions(), "few images"),
        (spectrum_of(0 * FLAT, 14), FitOptions(), "constant"),
        (spectrum_of(FLAT[:0], 14), FitOptions(), "no images"),
        (spectrum_of(FLAT, 14), FitOptions(band=(0.21, 0.22)), "too few rings in band"),
        (spectrum_of(FLAT * [1, 1, 0, 1, 1, 1, 1], 14), FitOptions(), "no power in a ring"),
        (
            spectrum_of(np.tile(rings(14, 14).frequency ** -9.0, (20, 1)), 14),
            FitOptions(),
            "beyond range",
        ),
    ],
)
def test_flags(spectrum, options, flag):
    fit = fit_spectrum(spectrum, options)
    assert flag in fit.flags
    if flag not in ("few rings", "few images", "beyond range"):
        assert np.isnan(fit.exponent)
        assert np.isnan(fit.low)


def test_a_clean_spectrum_has_no_flag():
    assert fit_spectrum(measured(1.0, 14, 40)).flags == ()


def test_one_image_many_times_over_is_told():
    assert fit_spectrum(spectrum_of(FLAT, 14)).flags == ("images do not differ",)


def test_a_few_images_that_decide_are_told():
    power = measured(2.0, 14, 64).image_power.astype(float)
    power[0] *= 1e4
    fit = fit_spectrum(spectrum_of(power, 14))
    assert fit.flags == ("few images decide",)
    assert fit.dof < 4


def test_few_groups_are_told():
    power = measured(2.0, 14, 64).image_power.astype(float)
    fit = fit_spectrum(simulate.spectrum_of(power, 14, 14, n_groups=8))
    assert fit.flags == ("few groups",)


def test_the_bootstrap_is_refused_without_spread():
    """Three groups: one resample in nine draws a single group, and cannot be studentised."""
    power = measured(2.0, 14, 63).image_power.astype(float)
    spectrum = simulate.spectrum_of(power, 14, 14, n_groups=3)
    fit = fit_spectrum(spectrum, FitOptions(interval="bootstrap"))
    assert "too few groups for the bootstrap" in fit.flags
    assert np.isnan([fit.exponent, fit.low, fit.high]).all()
    assert np.isfinite(fit_spectrum(spectrum).exponent)
    power[2:] *= 1e-30  # as good as blank
    fit = fit_spectrum(spectrum_of(power, 14), FitOptions(interval="bootstrap"))
    assert np.isnan(fit.exponent) or fit.high - fit.low < 100


@pytest.mark.parametrize(
    ("edges", "side", "alpha"), [("periodic", 14, 5.5), ("periodic", 28, 6.0), ("none", 14, 5.5)]
)
def test_an_exponent_that_folds_back_is_beyond_range(edges, side, alpha):
    """Leakage turns the slope round: the spectrum of 5.5 has the slope of another exponent too."""
    power = np.tile(expected_power(min(alpha, 5.99), side, side, edges), (40, 1))
    assert "beyond range" in fit_spectrum(spectrum_of(power, side, edges)).flags


def test_whittle_has_a_range_of_its_own():
    """Without a taper the slope stops at 3, the shape of the spectrum does not at once."""
    band = band_of(14, 14, "none", 0.0, 0.5)
    assert not band.is_resolvable(3.5)
    assert band.is_resolvable(2.0, "whittle")
    assert band.estimate(expected_power(3.2, 14, 14, "none")[None], "whittle")[0] == pytest.approx(
        3.2, abs=0.02
    )


def test_exponents_at_the_limits_or_of_constant_maps_are_none():
    power = np.tile(expected_power(2.0, 14, 14), (30, 1))
    power[:4] = rings(14, 14).frequency ** -9.0
    fit = fit_spectrum(spectrum_of(power, 14))
    assert len(fit.image_exponents) == 26
    assert np.isnan(fit_spectrum(spectrum_of(FLAT[:2], 14)).image_mean)


@pytest.mark.parametrize("estimator", ["octave", "whittle"])
@pytest.mark.parametrize("slope", [-9.0, 5.0])
def test_an_exponent_at_the_limit_is_not_a_measurement(slope, estimator):
    beyond = np.tile(rings(14, 14).frequency ** slope, (20, 1))
    fit = fit_spectrum(spectrum_of(beyond, 14), FitOptions(estimator=estimator))
    assert np.isnan(fit.exponent)
    assert np.isnan(fit.low)
    assert "beyond range" in fit.flags


@pytest.mark.parametrize(
    ("count", "flag"),
    [
        ([1], "too few images"),
        ([1, 1], "too few images"),
        ([0, 5, 5], "too few groups"),
        ([40], "too few groups"),
    ],
)
def test_without_an_interval_there_is_no_exponent(count, flag):
    power = np.array(count)[:, None] * FLAT[: len(count)]
    spectrum = replace(spectrum_of(power, 14), count=np.array(count))
    fit = fit_spectrum(spectrum)
    assert flag in fit.flags
    assert np.isnan([fit.exponent, fit.low, fit.high, *fit.by_estimator.values()]).all()


def test_power_from_a_single_group_is_not_resampled():
    fit = fit_spectrum(spectrum_of(np.diag([1.0] + [0.0] * 19) @ FLAT, 14))
    assert "power from one group only" in fit.flags
    assert np.isnan(fit.exponent)


def test_waves_beyond_the_map_are_flagged_where_they_matter():
    """At alpha 4.3 a field with longer waves has another spectrum in the crop; at 3 hardly."""
    steep = spectrum_of(np.tile(expected_power(4.3, 14, 14), (20, 1)), 14)
    assert "outer scale" in fit_spectrum(steep).flags
    longer = np.tile(expected_power(4.3, 14, 14, outer_scale=36), (20, 1))
    assert fit_spectrum(spectrum_of(longer, 14)).exponent > 4.4
    shallow = np.tile(expected_power(3.0, 14, 14, outer_scale=36), (20, 1))
    fit = fit_spectrum(spectrum_of(shallow, 14))
    assert "outer scale" not in fit.flags
    assert fit.exponent == pytest.approx(3.0, abs=0.03)


def test_images_of_equal_power_weigh_the_same_when_normalized():
    """One image a thousand times as strong decides the mean, unless every image is normalised."""
    shallow, steep = expected_power(1.0, 14, 14), 1000 * expected_power(3.0, 14, 14)
    spectrum = spectrum_of(np.stack([shallow] * 39 + [steep]), 14)
    assert fit_spectrum(spectrum).exponent > 2.5
    fit = fit_spectrum(spectrum, FitOptions(normalize=True))
    assert fit.exponent == pytest.approx(1.0, abs=0.2)
    assert np.array_equal(fit.image_exponents, fit_spectrum(spectrum).image_exponents)


def test_normalized_power_that_was_not_measured_is_named():
    old = spectrum_of(FLAT, 14)
    old = replace(old, normalized=np.full_like(old.normalized, np.nan))
    with pytest.raises(natstats.UsageError, match="normalize: expected spectra measured by"):
        fit_spectrum(old, FitOptions(normalize=True))


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("contrast", [0.0, 0.7])
def test_the_bootstrap_agrees_with_the_jackknife(estimator, contrast):
    """Two routes to one interval: nearly equal for images alike, the bootstrap wider otherwise."""
    spectrum = measured(2.0, 14, 100, seed=2)
    amplitude = np.exp(contrast * np.random.default_rng(0).standard_normal((100, 1)))
    power = spectrum.image_power.astype(float) * amplitude**2
    widths = []
    for interval in ("jackknife", "bootstrap"):
        fit = fit_spectrum(
            spectrum_of(power, 14), FitOptions(estimator=estimator, interval=interval)
        )
        widths.append(fit.high - fit.low)
    assert widths[1] / widths[0] == pytest.approx(1.0, abs=0.15 if not contrast else 0.5)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"band": (0.4, 0.02)}, "band: expected two rising numbers"),
        ({"band": (0.1, 0.9)}, r"band: .*between 0 and 0.5; got \(0.1, 0.9\)"),
        ({"estimator": "octav"}, "estimator: .*did you mean octave"),
        ({"level": 95}, "level: expected a number between 0 and 1; got 95"),
    ],
)
def test_bad_options_are_named(arguments, words):
    with pytest.raises(natstats.UsageError, match=words):
        FitOptions(**arguments)


def test_every_estimator_is_in_every_fit():
    assert tuple(fit_spectrum(spectrum_of(FLAT, 14)).by_estimator) == ESTIMATORS
