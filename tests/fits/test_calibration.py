"""A fast part of the calibration study: what is promised of exponents, intervals and the law.

The bounds are binomial: a true rate of 95 % gives fewer than 91 or more than 98.5 % of 300 repeats
with a probability of less than 0.003. The whole study is analyses/calibration.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import natstats
from natstats.fits.bands import band_of
from natstats.fits.exponents import fit_layers, fit_spectrum
from natstats.fits.intervals import effective_dof, jackknife_deviations, leave_one_out
from natstats.fits.options import FitOptions
from natstats.law.law import fit_law
from natstats.spectra.expected import expected_power, expected_spectrum, independent_modes
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Layer, LayerSpectrum
from natstats.spectra.simulate import spectrum_of

SIDE = 14
MODES = independent_modes(SIDE, SIDE)


def draw(alpha, contrast, generator):
    """Ring power of images of these exponents, brought to unit power, (n, n_rings)."""
    expected = np.exp(expected_spectrum(SIDE, SIDE).log_power(alpha))
    expected /= np.average(expected, axis=1, weights=rings(SIDE, SIDE).n_members)[:, None]
    noise = generator.gamma(MODES / 2, 2 / MODES, size=expected.shape)
    amplitude = np.exp(contrast * generator.standard_normal((len(alpha), 1)))
    return expected * noise * amplitude**2


def true_exponent(alpha_sd, estimator):
    """Of the mean spectrum of all images with exponents N(2, sd^2), by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    expected = np.exp(expected_spectrum(SIDE, SIDE).log_power(2 + alpha_sd * nodes))
    expected /= np.average(expected, axis=1, weights=rings(SIDE, SIDE).n_members)[:, None]
    return band_of(SIDE, SIDE, "sine", 0.0, 0.5).estimate((weights @ expected)[None], estimator)[0]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["octave", "whittle"])
@pytest.mark.parametrize(
    ("alpha_sd", "contrast"),
    [
        pytest.param(0.0, 0.0, marks=pytest.mark.slow),
        pytest.param(0.3, 0.0, marks=pytest.mark.slow),
        (0.3, 0.7),
    ],
)
def test_intervals_cover_also_when_images_differ(alpha_sd, contrast, estimator):
    generator = np.random.default_rng(int(10 * alpha_sd + 100 * contrast))
    truth = true_exponent(alpha_sd, estimator)
    options = FitOptions(estimator=estimator)
    hits = plain = 0
    for _ in range(300):
        alpha = 2 + alpha_sd * generator.standard_normal(64)
        fit = fit_spectrum(spectrum_of(draw(alpha, contrast, generator), SIDE, SIDE), options)
        hits += fit.low < truth < fit.high
        plain += abs(fit.exponent - truth) < stats.t.ppf(0.975, 63) * fit.standard_error
    assert 0.91 * 300 <= hits <= 0.985 * 300
    # What the effective degrees of freedom are for: without them the intervals are too short.
    assert hits >= plain
    if contrast:
        assert hits > plain


@pytest.mark.slow
def test_the_bootstrap_covers_too():
    generator = np.random.default_rng(3)
    truth = true_exponent(0.3, "octave")
    hits = 0
    for _ in range(300):
        power = draw(2 + 0.3 * generator.standard_normal(64), 0.7, generator)
        options = FitOptions(interval="bootstrap", resamples=400)
        fit = fit_spectrum(spectrum_of(power, SIDE, SIDE), options)
        hits += fit.low < truth < fit.high
    assert 0.91 * 300 <= hits <= 0.985 * 300


@pytest.mark.slow
@pytest.mark.parametrize(
    ("height", "width"),
    [(7, 7), *(pytest.param(*size, marks=pytest.mark.slow) for size in [(14, 14), (8, 20)])],
)
def test_exponents_are_not_biased(height, width):
    """Mean of 40 exponents of 30 crops each, against four of its standard errors."""
    for alpha in (0.0, 2.0, 4.0):
        fields = natstats.power_law_fields(1200, height, width, alpha, seed=1)
        power = natstats.power_spectrum(
            natstats.spectra.accumulator.torch.from_numpy(fields[:, None])
        )
        mean = power.double().numpy().reshape(40, 30, -1).mean(1)
        band = band_of(height, width, "sine", 0.0, 0.5)
        for estimator in ("octave", "whittle"):
            found = band.estimate(mean, estimator)
            error = found.std(ddof=1) / np.sqrt(40)
            assert abs(found.mean() - alpha) < 4 * error
            assert error < 0.04


def test_effective_degrees_of_freedom_are_those_of_the_variance():
    """nu = 2 E[v]^2 / Var[v] for the variance v of a mean, Gaussian and with few large parts."""
    generator = np.random.default_rng(0)
    for contrast in (0.0, 0.7):
        amplitude = np.exp(2 * contrast * generator.standard_normal((20000, 40)))
        sample = amplitude * generator.standard_normal((20000, 40))
        variance = sample.var(axis=1, ddof=1) / 40
        truth = 2 * variance.mean() ** 2 / variance.var()
        deviations = (sample - sample.mean(axis=1, keepdims=True)).T / 40
        estimates = effective_dof(deviations)
        if not contrast:
            assert truth == pytest.approx(39, rel=0.05)
            assert np.median(estimates) == pytest.approx(39, rel=0.1)
        else:  # one sample cannot know the largest part that it lacks, but it gives warning
            assert truth < np.median(estimates) < 20


def test_the_jackknife_of_a_mean_is_its_standard_error():
    power = np.random.default_rng(1).gamma(2.0, size=(30, 1))
    deviations = jackknife_deviations(
        power.mean(), leave_one_out(power, np.ones(30))[:, 0], np.ones(30)
    )
    assert np.sqrt(np.sum(deviations**2)) == pytest.approx(stats.sem(power[:, 0]))


@pytest.mark.slow
@pytest.mark.parametrize("edges", ["sine", "none", "hann"])
def test_independent_modes_give_the_variance_of_ring_power(edges):
    """Of white noise: 2 E[S]^2 / Var[S], by 20000 maps, within 4 of its standard errors."""
    maps = np.random.default_rng(2).standard_normal((20000, 1, 12, 16)).astype(np.float32)
    power = (
        natstats.power_spectrum(natstats.spectra.accumulator.torch.from_numpy(maps), edges)
        .double()
        .numpy()
    )
    measured = 2 * power.mean(0) ** 2 / power.var(0)
    modes = independent_modes(12, 16, edges)
    # The removed mean takes a little of the first ring.
    assert measured[1:] / modes[1:] == pytest.approx(1.0, abs=4 * np.sqrt(2 / 20000) + 0.02)
    assert measured[0] / modes[0] == pytest.approx(1.0, abs=0.2)


@pytest.mark.slow
def test_layers_that_share_images_are_seldom_called_a_trend():
    """Twelve layers of one exponent see the same images, of different exponent and contrast."""
    generator = np.random.default_rng(8)
    depth = np.arange(1.0, 13)
    found = []
    for _ in range(100):
        shift = 0.3 * generator.standard_normal(64)
        amplitude = np.exp(1.4 * generator.standard_normal((64, 1)))
        layers = [
            LayerSpectrum(
                Layer(str(i), 0, "conv", i + 1, 1, SIDE, SIDE, 1.0),
                spectrum_of(draw(2 + shift, 0.0, generator) * amplitude, SIDE, SIDE),
            )
            for i in range(12)
        ]
        fits = fit_layers(layers)
        found.append(fit_law(depth, fits.exponents, fits.deviations, ["14"] * 12))
    # At 5 %, more than 11 of 100 have a probability of 0.005.
    assert sum(law.trend_p < 0.05 for law in found) <= 11
    assert sum(law.slope_low < 0 < law.slope_high for law in found) >= 89
    assert sum(law.lack_of_fit_p < 0.05 for law in found) <= 11


def test_sixty_layers_are_one_thing_to_the_bootstrap():
    """Same draws for all layers: equal spectra have equal intervals, wherever they stand."""
    power = np.tile(expected_power(2.0, SIDE, SIDE), (30, 1))
    power = power * np.random.default_rng(0).gamma(3.0, size=power.shape)
    layer = Layer("a", 0, "conv", 1, 1, SIDE, SIDE, 1.0)
    fits = fit_layers(
        [LayerSpectrum(layer, spectrum_of(power, SIDE, SIDE)) for _ in range(3)],
        FitOptions(interval="bootstrap"),
    )
    assert len({fit.low for fit in fits.layers}) == 1
