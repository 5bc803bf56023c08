"""Is it a power law? Known forms are found, power laws are left in peace, and nothing raises."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

import natstats
from natstats.fits.form_comparison import (
    DISCREPANCY,
    LEAST_RMS,
    compare_forms,
    forms_frame,
)
from natstats.fits.forms import FORMS
from natstats.fits.options import FitOptions
from natstats.spectra import simulate
from natstats.spectra.expected import expected_power, independent_modes
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Layer, LayerSpectrum, Spectrum


def spectrum_of(power: np.ndarray, side: int) -> Spectrum:
    """A spectrum with one image per group, whose ring power is given, (n_images, n_rings)."""
    return simulate.spectrum_of(power, side, side)


def floor(alpha: float, share: float, side: int) -> np.ndarray:
    law, white = expected_power(alpha, side, side), expected_power(0.0, side, side)
    return (1 - share) * law / law[-1] + share * white / white[-1]


def cut_off(alpha: float, frequency: float, side: int) -> np.ndarray:
    return expected_power(alpha, side, side) * np.exp(-rings(side, side).frequency / frequency)


def broken(alpha: float, above: float, frequency: float, side: int) -> np.ndarray:
    ratio = np.maximum(1.0, rings(side, side).frequency / frequency)
    return expected_power(alpha, side, side) * ratio ** (alpha - above)


def drawn(
    truth: np.ndarray,
    side: int,
    n: int,
    generator: np.random.Generator,
    channels: int = 16,
    contrast: float = 0.0,
) -> Spectrum:
    """Images of a Gaussian field of this mean spectrum; log contrast of a given spread."""
    modes = channels * independent_modes(side, side)
    power = truth * generator.gamma(modes / 2, 2 / modes, size=(n, len(truth)))
    power *= np.exp(contrast * generator.standard_normal((n, 1)))
    return spectrum_of(power, side)


@pytest.mark.parametrize("alpha", [1.0, 2.0, 3.2])
@pytest.mark.parametrize(
    ("name", "make", "known"),
    [
        ("power law", lambda a: expected_power(a, 28, 28), {}),
        ("floor", lambda a: floor(a, 0.8, 28), {"share": 0.8}),
        ("cut-off", lambda a: cut_off(a, 0.11, 28), {"frequency": 0.11}),
        ("broken", lambda a: broken(a, a + 2, 0.17, 28), {"frequency": 0.17, "above": 2.0}),
        ("broken", lambda a: broken(a, a - 1.5, 0.17, 28), {"frequency": 0.17, "above": -1.5}),
    ],
)
def test_a_form_without_noise_is_recovered(alpha, name, make, known):
    forms = compare_forms(spectrum_of(np.tile(make(alpha), (64, 1)), 28))
    assert forms.best == name
    # At alpha 1 even a large floor bends the spectrum by less than is flagged.
    assert forms.flag == ("" if forms.least_rms < LEAST_RMS else FORMS[name].flag)
    fit = forms.fits[name]
    assert fit.exponent == pytest.approx(alpha, abs=2e-3)
    assert fit.rms < 2e-3
    for parameter, value in known.items():
        expected = alpha + value if parameter == "above" else value
        assert fit.parameters[parameter] == pytest.approx(expected, rel=0.01)


def test_the_power_law_nests_in_every_form():
    """So no form can fit worse, and a plain law has no floor and no cut-off."""
    spectrum = drawn(expected_power(2.0, 28, 28), 28, 64, np.random.default_rng(0))
    forms = compare_forms(spectrum)
    assert tuple(forms.fits) == tuple(FORMS)
    charge = {p: 2 * p + 2 * p * (p + 1) / (forms.n_bins - p - 1) for p in (2, 3, 4)}
    n_parameters = dict(zip(FORMS, (2, 3, 3, 4), strict=True))
    deviance = {name: fit.aicc - charge[n_parameters[name]] for name, fit in forms.fits.items()}
    assert all(deviance[name] <= deviance["power law"] + 1e-3 for name in FORMS)


@pytest.mark.slow
def test_aicc_agrees_with_a_computation_of_its_own():
    """The marginal likelihood is a multivariate t (Sellentin and Heavens 2016, equation 12).

    Seven rings are seven bins; t with nu = g - k degrees of freedom and shape S (g - 1) / nu has
    log density -g/2 log(1 + chi^2 / (g - 1)) up to a constant, and scipy has that density.
    """
    side, g = 14, 40
    spectrum = drawn(floor(2.0, 0.6, side), side, g, np.random.default_rng(3))
    logs = np.log(spectrum.power.mean(0))
    left_out = np.stack([np.log(np.delete(spectrum.power, i, 0).mean(0)) for i in range(g)])
    covariance = (g - 1) / g * (left_out - left_out.mean(0)).T @ (left_out - left_out.mean(0))
    kurtosis = stats.kurtosis(left_out, fisher=False) / g
    n_groups = 1 + np.median(np.clip(2 / (kurtosis - 1 / g), 1, g - 1))
    covariance += DISCREPANCY**2 * np.eye(7)
    density = stats.multivariate_t(
        np.zeros(7), covariance * (n_groups - 1) / (n_groups - 7), df=n_groups - 7
    )

    def law(x):
        return x[0] + np.log(expected_power(x[1], side, side))

    def with_floor(x):
        ring = expected_power(x[1], side, side)
        return np.log(np.exp(x[0]) * ring + np.exp(x[2]) * expected_power(0.0, side, side))

    values = {}
    for name, model, start in (
        ("power law", law, [0.0, 1.5]),
        ("floor", with_floor, [0.0, 2.0, 0.0]),
    ):
        found = optimize.minimize(
            lambda x, model=model: -density.logpdf(logs - model(x)), start, method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000},
        )  # fmt: skip
        p = len(start)
        values[name] = 2 * found.fun + 2 * p + 2 * p * (p + 1) / (7 - p - 1)
    fits = compare_forms(spectrum).fits
    gain = fits["power law"].aicc - fits["floor"].aicc
    assert gain == pytest.approx(values["power law"] - values["floor"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("side", "n", "channels", "contrast"),
    [(14, 24, 1, 0.0), (28, 24, 1, 0.0), (28, 64, 16, 0.0), (28, 128, 16, 1.0), (56, 24, 4, 1.0)],
)
def test_power_laws_are_left_in_peace(side, n, channels, contrast):
    """Flags and gains of more than 4 in fewer than 2 of 100 power laws: bounds for 60 repeats.

    The chance of more than 4 hits in 60 is 0.01 at a rate of 2 %.
    """
    generator = np.random.default_rng(7)
    truth = expected_power(2.0, side, side)
    forms = [compare_forms(drawn(truth, side, n, generator, channels, contrast)) for _ in range(60)]
    assert sum(bool(one.flag) for one in forms) <= 4
    assert sum(one.gain > 4 for one in forms) <= 4
    assert sum(bool(one.fits) for one in forms) > 30


@pytest.mark.slow
@pytest.mark.parametrize("n", [24, 128])
@pytest.mark.parametrize(
    ("truth", "flags"),
    [
        (floor(2.0, 0.7, 28), {"better with a floor"}),
        (cut_off(2.0, 0.2, 28), {"better with a cut-off"}),
        (broken(2.0, 4.0, 0.15, 28), {"better with a break"}),
        # A break by 1 and a cut-off are hard to tell apart, but a power law it is not.
        (broken(2.0, 3.0, 0.15, 28), {"better with a break", "better with a cut-off"}),
    ],
)
def test_another_form_of_visible_size_is_found(truth, flags, n):
    """In 90 of 100 at least: fewer than 15 of 20 would have a chance of 0.01 at that rate."""
    generator = np.random.default_rng(11)
    found = [compare_forms(drawn(truth, 28, n, generator)).flag for _ in range(20)]
    assert sum(flag in flags for flag in found) >= 15


def test_a_small_deviation_is_no_flag_however_many_images():
    """A floor of 10 % at the highest ring changes power by 2 % (rms): true, and of no concern."""
    spectrum = drawn(floor(2.0, 0.1, 28), 28, 1000, np.random.default_rng(0))
    forms = compare_forms(spectrum)
    assert forms.flag == ""
    assert forms.least_rms < 0.03


GOOD = np.tile(expected_power(2.0, 28, 28), (20, 1))


@pytest.mark.parametrize(
    "spectrum",
    [
        spectrum_of(np.tile(expected_power(2.0, 7, 7), (20, 1)), 7),
        spectrum_of(np.tile(expected_power(2.0, 5, 5), (20, 1)), 5),
        spectrum_of(GOOD[:3], 28),
        spectrum_of(GOOD[:1], 28),
        spectrum_of(GOOD[:0], 28),
        spectrum_of(0 * GOOD, 28),
        spectrum_of(np.nan * GOOD, 28),
        spectrum_of(np.inf * GOOD, 28),
        spectrum_of(GOOD * (np.arange(14) != 3), 28),
        spectrum_of(np.diag([1.0] + [0.0] * 19) @ GOOD, 28),
        replace(spectrum_of(GOOD, 28), offset=np.full(20, 1e30)),
        replace(spectrum_of(GOOD, 28), count=np.array([20] + [0] * 19)),
    ],
)
def test_what_cannot_be_judged_is_not(spectrum):
    forms = compare_forms(spectrum)
    assert (forms.best, forms.flag, forms.fits, forms.n_bins) == ("", "", {}, 0)
    assert np.isnan(forms.gain)


@pytest.mark.parametrize("slope", [-12.0, 9.0])
def test_absurd_slopes_do_no_harm(slope):
    forms = compare_forms(spectrum_of(np.tile(rings(28, 28).frequency ** slope, (20, 1)), 28))
    assert forms.best in FORMS
    assert np.isfinite(forms.fits["power law"].aicc)


def test_with_five_bins_a_break_is_beyond_judgement():
    """AICc has no value for four parameters in five bins."""
    forms = compare_forms(
        spectrum_of(np.tile(broken(2.0, 5.0, 0.25, 28), (20, 1)), 28), FitOptions(band=(0.3, 0.5))
    )
    assert forms.n_bins == 6
    narrower = compare_forms(spectrum_of(GOOD, 28), FitOptions(band=(0.33, 0.5)))
    assert narrower.n_bins == 5
    assert narrower.fits["broken"].aicc == np.inf
    assert compare_forms(spectrum_of(GOOD, 28), FitOptions(band=(0.37, 0.5))).fits == {}


def test_the_band_and_the_smallest_number_of_rings_are_obeyed():
    spectrum = drawn(broken(2.0, 4.0, 0.2, 28), 28, 64, np.random.default_rng(0))
    assert compare_forms(spectrum).flag == "better with a break"
    assert compare_forms(spectrum, FitOptions(band=(0.0, 0.2))).flag == ""
    assert compare_forms(spectrum, FitOptions(min_rings=15)).best == ""


def test_normalized_power_that_was_not_measured_is_named():
    old = replace(spectrum_of(GOOD, 28), normalized=np.full_like(GOOD, np.nan))
    with pytest.raises(natstats.UsageError, match="normalize: expected spectra measured by"):
        compare_forms(old, FitOptions(normalize=True))


def test_the_table_has_a_row_for_every_layer():
    layer = Layer("a", 0, "conv", 1, 1, 28, 28, 1.0)
    spectra = [
        LayerSpectrum(layer, spectrum_of(power, 28))
        for power in (np.tile(cut_off(2.0, 0.1, 28), (20, 1)), GOOD, 0 * GOOD)
    ]
    frame = forms_frame(spectra)
    assert list(frame.best_form) == ["cut-off", "power law", ""]
    assert list(frame.flag) == ["better with a cut-off", "", ""]
    assert frame.cut_off_frequency[0] == pytest.approx(0.1, rel=1e-3)
    assert frame.cut_off_frequency[1] == np.inf
    assert frame.aicc_gain[0] == pytest.approx(frame.aicc_power_law[0])
    assert frame.aicc_gain[1] == 0
    assert frame.loc[2, "best_form":].drop(["best_form", "flag"]).isna().all()


def test_a_flag_of_form_takes_no_layer_from_the_law():
    layers = [Layer(f"l{i}", 0, "conv", i + 1, 1, 28, 28, 1.0) for i in range(6)]
    generator = np.random.default_rng(0)
    run = natstats.Run(
        [LayerSpectrum(one, drawn(broken(2.0, 4.0, 0.15, 28), 28, 64, generator)) for one in layers]
    )
    assert set(run.layers["flags"]) == {"better with a break"}
    assert run.law.n_layers == 6
