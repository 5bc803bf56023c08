"""Is it a power law? Each mean spectrum, compared with the other forms that it could have.

The forms are those of :mod:`natstats.fits.forms`. What is compared is the mean log power in bins of
rings, evenly spaced in log frequency, with the covariance S of those means from leaving out one
group of images at a time. To its diagonal a small variance is added, :data:`DISCREPANCY` squared:
no form is exact in a real network. Without it, with many images, the differences between
neighbouring bins, which are known best, would rule the fit and pull it off the points. S is itself
estimated, from g groups (an effective number where few images rule the power,
:func:`natstats.fits.intervals.effective_dof`), so the likelihood is the one with the unknown
covariance integrated out (Sellentin and Heavens 2016, MNRAS Letters 456):

    -2 log L = g log(1 + chi^2 / (g - 1)) + constant,    chi^2 = r' S^-1 r, r the residuals.

Forms are ranked by AICc (Hurvich and Tsai 1989, Biometrika 76) with the number of bins as n. Its
correction was derived for regression with independent points; here it says that a form with nearly
as many parameters as there are bins has explained nothing. A *flag* needs an effect of visible size
too, see :data:`CLEAR_GAIN`, :data:`LEAST_RMS` and :data:`LEAST_CUT`; tests/fits/test_forms.py has
the rates, for power laws and for other forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.fits.aicc import aicc_charge
from natstats.fits.bands import band_of
from natstats.fits.form_fits import fitters_of
from natstats.fits.forms import FORMS, PLAIN
from natstats.fits.held_bands import NOWHERE, held_band
from natstats.fits.intervals import (
    FEWEST_GROUPS,
    effective_dof,
    jackknife_deviations,
    leave_one_out,
)
from natstats.fits.options import FitOptions
from natstats.fits.sample import group_power
from natstats.spectra.records import LayerSpectrum, Spectrum

__all__ = ["FormFit", "Forms", "compare_forms", "forms_frame", "forms_sentence"]

CLEAR_GAIN = 4.0
"""A flag needs a form whose AICc is lower than that of the power law by more than this."""

LEAST_RMS = 0.08
"""... and a power law that misses log power by more than this (rms over bins; 8 % of power)."""

LEAST_CUT = 0.5
"""... and a form that leaves less than this share of what the power law misses."""

MOST_BINS = 10
"""Most bins: more tell the forms apart no better, and their covariance is estimated worse."""

FEWEST_BINS = 5
"""With fewer bins than this nothing is judged."""

DISCREPANCY = 0.05
"""Every bin may lie this far (5 % of power) from any form, for reasons of its own."""

Array = NDArray[np.float64]


@dataclass(frozen=True, repr=False)
class FormFit(Brief):
    """One form fitted to one layer.

    Attributes:
        exponent: alpha of the form; below the break for ``broken``.
        parameters: what else the form has: ``share`` of the floor in the power of the highest ring
            in the band; ``frequency`` of the cut-off (infinite where there is none) or of the
            break, cycles/pixel; the exponent ``above`` the break.
        aicc: its AICc, up to a constant that the forms of one layer share; infinite with too few
            bins.
        rms: root mean square of what the form leaves of log power, over bins.
        power: what it expects in the rings of the band, at the level that was measured, (n,).
    """

    exponent: float
    parameters: dict[str, float]
    aicc: float
    rms: float
    power: Array = field(default_factory=lambda: np.empty(0), compare=False, repr=False)


@dataclass(frozen=True, repr=False)
class Forms(Brief):
    """The comparison for one layer; without any form where it cannot be judged.

    Attributes:
        fits: fits by name of the form, in the order of :data:`natstats.fits.forms.FORMS`.
        n_bins: number of bins of rings that were compared, 0 where nothing was.
        n_groups: effective number of groups of images behind their covariance.
        least_rms: root mean square of what a power law leaves of log power at best, by unweighted
            least squares.
    """

    fits: dict[str, FormFit] = field(default_factory=dict)
    n_bins: int = 0
    n_groups: float = float("nan")
    least_rms: float = float("nan")

    @property
    def best(self) -> str:
        """The form with the smallest AICc, empty where none could be judged."""
        return min(self.fits, key=lambda name: self.fits[name].aicc, default="")

    @property
    def gain(self) -> float:
        """AICc of the power law less that of the best form; NaN where none could be judged."""
        if not self.fits:
            return float("nan")
        return self.fits[PLAIN.name].aicc - self.fits[self.best].aicc

    @property
    def flag(self) -> str:
        """What to flag the layer with, empty where no form is clearly better."""
        is_clear = (
            self.gain > CLEAR_GAIN
            and self.least_rms > LEAST_RMS
            and self.fits[self.best].rms < LEAST_CUT * self.least_rms
        )
        return FORMS[self.best].flag if is_clear else ""


def compare_forms(
    spectrum: Spectrum, options: FitOptions | None = None, span: float = 1.0
) -> Forms:
    """Compare the forms for one layer.

    Args:
        spectrum: what was measured.
        options: the band, the smallest number of rings, and whether power is normalised.
        span: share of the image that the maps stand for, as in
            :func:`natstats.fits.exponents.fit_spectrum`.

    Returns:
        The comparison; an empty one where there are fewer than five bins, too few groups of images
        for the covariance of five, or no power to compare.

    Raises:
        UsageError: normalised power is asked for and was not measured.

    >>> import natstats, torch
    >>> fields = natstats.power_law_fields(64, 32, 32, alpha=2.5, seed=0)
    >>> fields += 4.0 * np.random.default_rng(0).standard_normal(fields.shape)
    >>> accumulator = natstats.SpectrumAccumulator(32, 32)
    >>> accumulator.update(torch.from_numpy(fields[:, None]))
    >>> forms = compare_forms(accumulator.compute())
    >>> forms.best, forms.flag, round(forms.fits["floor"].exponent, 1)
    ('floor', 'better with a floor', 2.5)
    """
    options = options or FitOptions()
    held = held_band(options.band, spectrum, span) or NOWHERE
    sample = _sample(spectrum, options, held)
    if sample is None:
        return Forms()
    whole, rings, n_groups = sample
    size = spectrum.height, spectrum.width, spectrum.edges
    most = min(MOST_BINS, int(n_groups - 1))
    fitters = fitters_of(*size, held, most)
    average, n_bins = fitters.rings.average, fitters.rings.n_bins
    log_power = average @ np.log(whole)
    whiten = _whitening(rings @ average.T)
    fits = {}
    for name, fitter in fitters.by_name.items():
        parameters, chi_square = fitter.fit(log_power, whiten)
        deviance = n_groups * np.log1p(chi_square / (n_groups - 1))
        n_parameters = len(parameters) + 1
        fits[name] = FormFit(
            float(parameters[0]),
            FORMS[name].parameters(parameters),
            deviance + aicc_charge(n_parameters, n_bins),
            float(np.sqrt(np.mean(fitter.residual(log_power, parameters) ** 2))),
            fitter.power(log_power, parameters),
        )
    centre = np.eye(n_bins) - 1 / n_bins
    _, least = fitters.by_name[PLAIN.name].fit(log_power, centre)
    return Forms(fits, n_bins, n_groups, float(np.sqrt(least / n_bins)))


def _sample(
    spectrum: Spectrum, options: FitOptions, held: tuple[float, float]
) -> tuple[Array, Array, float] | None:
    """What the comparison in a band of the map rests on; None where nothing can be compared.

    Returns:
        Mean power in the rings of the band (n,), the deviations of its logarithm as each group of
        images is left out (g, n), and the effective number of groups.
    """
    band = band_of(spectrum.height, spectrum.width, spectrum.edges, *held)
    filled = spectrum.count > 0
    count = spectrum.count[filled].astype(np.float64)
    if len(count) < FEWEST_GROUPS or band.n_rings < max(FEWEST_BINS, options.min_rings):
        return None
    power = group_power(spectrum, options.normalize)[filled][:, band.inside]
    if spectrum.is_constant or not np.isfinite(power).all():
        return None
    whole, left = power.sum(0) / count.sum(), leave_one_out(power, count)
    if not np.all(left > 0):
        return None
    rings = jackknife_deviations(np.log(whole), np.log(left), count)
    n_groups = 1 + float(np.median(effective_dof(rings)))
    if min(MOST_BINS, int(n_groups - 1)) < FEWEST_BINS:
        return None
    return whole, rings, n_groups


def _whitening(deviations: Array) -> Array:
    """A matrix (k, k) that gives residuals in the bins unit variance and takes their level away."""
    n_bins = deviations.shape[1]
    covariance = deviations.T @ deviations + DISCREPANCY**2 * np.eye(n_bins)
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    level = whiten.sum(axis=1) / np.linalg.norm(whiten.sum(axis=1))
    whiten -= np.outer(level, level @ whiten)
    return np.asarray(whiten)


def forms_frame(
    spectra: Sequence[LayerSpectrum],
    options: FitOptions | None = None,
    found: Sequence[Forms] | None = None,
) -> pd.DataFrame:
    """Compare the forms for every layer, one row each; NaN and empty text where not judged.

    `found` holds the comparisons of these layers where they were made already.

    Columns: layer, call, depth, n_bins, n_groups, best_form, aicc_gain, flag; then for every form
    its AICc above the best, the rms of what it leaves of log power, its exponent (two for
    ``broken``) and its parameters, see :class:`FormFit`.

    Raises:
        UsageError: normalised power is asked for and was not measured.
    """
    if found is None:
        found = [compare_forms(one.spectrum, options, one.span) for one in spectra]
    rows = []
    for measured, one in zip(spectra, found, strict=True):
        row: dict[str, object] = {
            "layer": measured.layer.name,
            "call": measured.layer.call,
            "depth": measured.layer.depth,
            "n_bins": one.n_bins,
            "n_groups": one.n_groups,
            "best_form": one.best,
            "aicc_gain": one.gain,
            "flag": one.flag,
        }
        for name, form in FORMS.items():
            fit, none = one.fits.get(name), [np.nan] * len(form.columns)
            row[f"aicc_{form.tail}"] = fit.aicc - one.fits[one.best].aicc if fit else np.nan
            row[f"rms_{form.tail}"] = fit.rms if fit else np.nan
            values = [fit.exponent, *fit.parameters.values()] if fit else none
            row.update(zip(form.columns, values, strict=True))
        rows.append(row)
    return pd.DataFrame(rows)


def forms_sentence(forms: pd.DataFrame) -> str:
    """In how many rows of :func:`forms_frame` another form is clearly better, in words.

    >>> found = pd.DataFrame({"n_bins": [9, 9, 0], "flag": ["better with a floor", "", ""]})
    >>> print(forms_sentence(found))
    Another form is clearly better than a power law in 1 of 2 layers (1 better with a floor).
    """
    judged = forms[forms.n_bins >= FEWEST_BINS]
    if judged.empty:
        return "Whether another form is better than a power law could not be judged."
    counts = judged.flag[judged.flag != ""].value_counts()
    of = f"{len(judged)} {'layer' if len(judged) == 1 else 'layers'}"
    if counts.empty:
        return f"No other form is clearly better than a power law in any of {of}."
    listed = ", ".join(f"{n} {flag}" for flag, n in counts.items())
    return f"Another form is clearly better than a power law in {counts.sum()} of {of} ({listed})."
