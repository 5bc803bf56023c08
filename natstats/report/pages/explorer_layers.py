"""One layer for the panel of a run's page: its spectrum, bands, forms, images, account, control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.band_sensitivity import SIDES
from natstats.fits.bands import band_of
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.form_comparison import FormFit
from natstats.fits.held_bands import NOWHERE, held_band
from natstats.fits.shape_intervals import intervals_of_shape
from natstats.law.law import format_p
from natstats.numbers import change, counted, estimate, number, share
from natstats.report.figures.causes import cause_name, share_text
from natstats.report.figures.spectra import has_power
from natstats.report.records import RunReport
from natstats.text import printable

__all__ = ["layer_facts", "spectrum_of"]

MOST_RINGS = 64
"""Most rings of a spectrum that are drawn: all low ones, high ones evenly in log frequency."""

MOST_BINS = 24
"""Most bars of a histogram of image exponents."""

Array = NDArray[np.float64]
Facts = list[tuple[str, str]]


def drawn_rings(n_rings: int) -> NDArray[np.int64]:
    """Which rings are drawn, from 0.

    >>> drawn_rings(3).tolist(), len(drawn_rings(2000)), int(drawn_rings(2000)[-1])
    ([0, 1, 2], 62, 1999)
    """
    if n_rings <= MOST_RINGS:
        return np.arange(n_rings)
    low, high = 1.0, float(n_rings)
    chosen = np.empty(0, dtype=np.int64)
    # The largest number of log-spaced places that gives at most MOST_RINGS different rings.
    for n in range(MOST_RINGS, 40 * MOST_RINGS, 4):
        tried = np.unique(np.geomspace(low, high, n).round().astype(np.int64)) - 1
        if len(tried) > MOST_RINGS:
            break
        chosen = tried
    return chosen


def spectrum_of(run: RunReport, place: int) -> dict[str, Any] | None:
    """Spectrum, fit and best other form, relative to the lowest ring; None without power."""
    measured, fit = run.spectra[place], run.fits.layers[place]
    if not has_power(measured):
        return None
    found = intervals_of_shape(measured, fit, run.options)
    spectrum = measured.spectrum
    rings = drawn_rings(spectrum.n_rings)
    positive = np.isfinite(found.power) & (found.power > 0)
    scale = 1 / found.power[positive][0]
    power = np.where(positive, found.power, np.nan) * scale
    data: dict[str, Any] = {
        "f": measured.cycles_per_image[rings],
        "power": power[rings],
        "shape": found.shape[rings],
        "left": found.left[rings],
        "fit": (fit.fitted_power * scale)[rings],
    }
    forms = run.forms[place]
    if forms.best and forms.best != "power law":
        held = held_band(run.options.band, spectrum, measured.span) or NOWHERE
        band = band_of(spectrum.height, spectrum.width, spectrum.edges, *held)
        whole = np.full(spectrum.n_rings, np.nan)
        whole[band.inside] = forms.fits[forms.best].power * scale
        data["form"] = whole[rings]
    return data


def layer_facts(run: RunReport, place: int, row: Mapping[str, Any]) -> dict[str, Any]:
    """Everything else that the panel of a layer shows, as texts and plain values."""
    name = row["layer"]
    return {
        "summary": _summary(row),
        "facts": _facts(row),
        "bands": _bands(run.sensitivity[run.sensitivity.layer == name]),
        "forms": _forms(run, place),
        "best": printable(row["best_form"] or ""),
        "spread": _spread(run, place),
        "account": _account(run, name),
        "control": _control(run, name),
    }  # fmt: skip


def _bands(frame: pd.DataFrame) -> dict[str, dict[str, Array]]:
    """Exponents with their intervals as either end of the band is moved, by the side."""
    found = {}
    for side in SIDES:
        own = frame[frame.side == side]
        if len(own) > 1:
            found[side] = {
                "f": own.band_low if side == "low" else own.band_high,
                "y": own.exponent, "low": own.exponent_low, "high": own.exponent_high,
            }  # fmt: skip
    return {
        side: {key: column.to_numpy(dtype=float) for key, column in columns.items()}
        for side, columns in found.items()
    }


def _summary(row: Mapping[str, Any]) -> str:
    if not np.isfinite(row["exponent"]):
        return "no exponent"
    return f"α = {estimate(row['exponent'], row['exponent_low'], row['exponent_high'])}"


def _facts(row: Mapping[str, Any]) -> Facts:
    """Name and value of what else is known of the layer."""
    others = ", ".join(f"{one.name} {number(row[one.column])}" for one in ESTIMATORS.values())
    facts = [
        ("depth", f"{row['depth']:d}"),
        ("maps", f"{row['channels']:d}"),
        ("stride", f"{row['stride']:.4g} px"),
        ("rings in the fit", f"{row['n_rings']:d}"),
        ("images", f"{row['n_images']:d}"),
        ("in the law", printable(row["law"])),
        ("by estimator", others),
        ("variance explained (R²)", share(row["r2"])),
        ("curvature", f"{number(row['curvature'], sign=True)}, p {format_p(row['curvature_p'])}"),
    ]
    if np.isfinite(row["receptive_field"]):
        facts.insert(3, ("receptive field", f"{row['receptive_field']:.4g} px"))
    return facts


def _forms(run: RunReport, place: int) -> list[list[str]]:
    """Name, exponent, other parameters and AICc above the best of every form."""
    found = run.forms[place]
    if not found.fits:
        return []
    least = found.fits[found.best].aicc
    rows = []
    for name, fit in found.fits.items():
        gap = number(fit.aicc - least, 1) if np.isfinite(fit.aicc) else "too few bins"
        rows.append([name, number(fit.exponent), _parameters(fit, run.unit), gap])
    return rows


def _parameters(fit: FormFit, unit: str) -> str:
    """What a form has beside its exponent, in words."""
    told = []
    for key, value in fit.parameters.items():
        if key == "share":
            told.append(f"floor: {share(value)} of the power at the highest frequency")
        elif key == "above":
            told.append(f"{number(value)} above")
        else:
            is_there = np.isfinite(value)
            told.append(f"at {number(value, 3)} cycles/{unit}" if is_there else "no cut-off")
    return ", ".join(told)


def _spread(run: RunReport, place: int) -> dict[str, Any] | None:
    """Histogram of the exponents of single images; None with fewer than five."""
    fit = run.fits.layers[place]
    values = fit.image_exponents[np.isfinite(fit.image_exponents)]
    if len(values) < 5:
        return None
    n_bins = int(np.clip(2 * np.sqrt(len(values)), 6, MOST_BINS))
    counts, edges = np.histogram(values, n_bins)
    row = run.image_exponents.iloc[place]
    told = [
        f"{label} {estimate(row[key], row[f'{key}_low'], row[f'{key}_high'])}"
        for key, label in (("mean", "mean"), ("sd", "standard deviation"))
        if np.isfinite(row[key])
    ]
    return {
        "start": edges[0], "step": edges[1] - edges[0], "counts": counts,
        "text": ": ".join(filter(None, [counted(len(values), "image"), ", ".join(told)])),
    }  # fmt: skip


def _account(run: RunReport, name: str) -> list[list[Any]]:
    """Operation, cause, share as text and share as number, of every step that leads to a layer.

    The steps begin at the layer before; there are none without an account.
    """
    if run.account is None:
        return []
    frame = run.account.frame
    rows = []
    for one in frame[frame.layer == name].to_dict("records"):
        part = f" ({one['part']})" if one["part"] else ""
        told = share_text(one["share"], one["low"], one["high"])
        cause = f"{cause_name(one['cause'])}{part}"
        rows.append([printable(str(one["step"])), cause, told, float(one["share"])])
    return rows


def _control(run: RunReport, name: str) -> str:
    """What training did at a layer, in words; empty where no random weights were measured."""
    if run.control is None:
        return ""
    found = run.control.layers
    found = found[found.layer == name]
    if found.empty:
        return ""
    row = found.iloc[0]
    told = f"trained − random {change(row.difference, row.low, row.high, 2)}"
    if np.isfinite(row.p_corrected):
        told += f", p {format_p(row.p_corrected)} after correction"
    return told
