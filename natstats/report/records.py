"""The frozen records that figures and pages are drawn from; anyone can fill them.

:mod:`natstats.runs` fills them from runs, series, comparisons and controls (their method
``report``), so that this package need not know how these are measured or stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from natstats.brief import Brief
from natstats.fits.form_comparison import Forms
from natstats.fits.options import FitOptions
from natstats.fits.records import Fits
from natstats.law.differences import Estimate
from natstats.law.law import Law
from natstats.law.verdict import Verdict
from natstats.spectra.records import LayerSpectrum

__all__ = [
    "ALL", "CONTROL", "DIFFERENCE", "AccountReport", "ComparisonReport", "ControlReport",
    "DifferenceReport", "NetworksReport", "RunReport", "SeriesReport",
]  # fmt: skip


ALL = "all networks"
"""Name of the row of all networks in the tables of means."""

CONTROL = "control: "
"""How the names of rows of networks with a control begin in the tables of means."""

DIFFERENCE = "trained \N{MINUS SIGN} random"
"""What follows :data:`CONTROL` in the name of the row of what training changed."""


@dataclass(frozen=True, eq=False, repr=False)
class DifferenceReport(Brief):
    """Two runs compared.

    Attributes:
        names: names of the first and the second run.
        layers: a row per layer of both: layer, kind, depth, exponent_a, low_a, high_a,
            exponent_b, low_b, high_b, difference, low, high, p, p_corrected.
        sentence: the result in words.
        notes: how they were compared, in sentences.
        headline: the result in a few words; empty where it was not said.
    """

    names: tuple[str, str]
    layers: pd.DataFrame
    sentence: str
    notes: Sequence[str] = ()
    headline: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class ControlReport(Brief):
    """A trained network compared with random weights.

    Attributes:
        layers: a row per layer: layer, kind, depth, exponent, exponent_low, exponent_high,
            difference, low, high, p_corrected, and a column ``seed_N`` for every seed.
        seeds: seeds of the random weights.
        sentence: the result in words.
    """

    layers: pd.DataFrame
    seeds: Sequence[int]
    sentence: str


@dataclass(frozen=True, eq=False, repr=False)
class AccountReport(Brief):
    """Where the exponents of a network come from.

    Attributes:
        frame: a row per share, the columns of :attr:`natstats.theory.account.Account.frame`.
        totals: what each cause adds along the trunk: cause, share, low, high, p, n_steps.
        change: change of the exponent along the trunk.
        ends: exponents of the images and of the last layer of the trunk.
        sentence: the result in words.
        note: what a reader must know; empty where there is nothing.
        slopes: the slope of the law by cause, the first row is ``all``: cause, slope, low, high, p,
            share (of the whole slope).
        slopes_sentence: which operations carry the slope, in words.
        counterfactuals: a row per layer: layer, depth, exponent, and a column of exponents for
            each counterfactual.
        counterfactual_slopes: name, slope, low, high, difference (from the measured slope),
            difference_low, difference_high, p (of the difference); ``measured`` comes first.
        counterfactuals_sentence: the counterfactual slopes in words.
        difference: totals of the trained network and of random weights: cause, trained, random,
            difference, low, high, p (of the difference); ``all`` is the whole change.
        difference_sentence: what training did, in words.
    """

    frame: pd.DataFrame
    totals: pd.DataFrame
    change: Estimate
    ends: tuple[float, float]
    sentence: str
    note: str = ""
    slopes: pd.DataFrame | None = None
    slopes_sentence: str = ""
    counterfactuals: pd.DataFrame | None = None
    counterfactual_slopes: pd.DataFrame | None = None
    counterfactuals_sentence: str = ""
    difference: pd.DataFrame | None = None
    difference_sentence: str = ""

    @property
    def trunk(self) -> pd.DataFrame:
        """The rows of the trunk, from the images to its last layer."""
        return self.frame[self.frame.trunk.astype(bool)]


@dataclass(frozen=True, eq=False, repr=False)
class RunReport(Brief):
    """One measurement, fitted.

    Attributes:
        name: name of the network, or where the images come from.
        info: facts on the measurement, as in ``run.json``.
        options: options of the fit.
        unit: what frequencies are counted in, cycles per ``pixel`` or per ``frame``.
        spectra: spectrum of every layer, (L,).
        fits: fits of the same layers.
        layers: a row per layer, the columns of ``layers.csv``.
        verdict: exponent against depth: the law, its specifications, what it depends on.
        forms: comparison of forms for the same layers.
        forms_sentence: sentence on how many layers another form fits better.
        sensitivity: exponents in narrower bands, the columns of ``sensitivity.csv``.
        image_exponents: spread of single images, the columns of ``image_exponents.csv``.
        skipped: a row per layer that was not measured: layer, kind, reason.
        control: the same network with random weights, where it was measured.
        account: where the exponents come from, where that was measured.
    """

    name: str
    info: Mapping[str, Any]
    options: FitOptions
    unit: str
    spectra: Sequence[LayerSpectrum]
    fits: Fits
    layers: pd.DataFrame
    verdict: Verdict
    forms: Sequence[Forms]
    forms_sentence: str
    sensitivity: pd.DataFrame
    image_exponents: pd.DataFrame
    skipped: pd.DataFrame
    control: ControlReport | None = None
    account: AccountReport | None = None

    @property
    def law(self) -> Law:
        """Exponent against depth, with the verdict of all specifications."""
        return self.verdict.law


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonReport(Brief):
    """Two runs compared, with what each of them is.

    Attributes:
        difference: what differs.
        headline: the result in a few words.
        runs: A and B.
        paths: their folders; None for a run that is not in a folder.
        only: names of the layers that only A has, and of those that only B has.
        mean: difference in the mean over the layers that count.
        slope: difference of the slopes of the two laws.
        n_layers: number of layers that count.
        n_differ: how many of them differ after correction for their number.
        is_paired: both runs saw the same images.
    """

    difference: DifferenceReport
    headline: str
    runs: tuple[RunReport, RunReport]
    paths: tuple[Path | None, Path | None]
    only: tuple[Sequence[str], Sequence[str]]
    mean: Estimate
    slope: Estimate
    n_layers: int
    n_differ: int
    is_paired: bool


@dataclass(frozen=True, eq=False, repr=False)
class SeriesReport(Brief):
    """Checkpoints of one training.

    Attributes:
        name: name of the network.
        info: facts that all checkpoints share.
        options: options of the fits.
        step_name: what the steps count, such as ``epoch``.
        sentence: what the checkpoints show, in words.
        frame: a row per checkpoint, the columns of ``series.csv``.
        exponents: a row per checkpoint and layer, the columns of ``exponents.csv``.
        change: the last checkpoint compared with the first.
    """

    name: str
    info: Mapping[str, Any]
    options: FitOptions
    step_name: str
    sentence: str
    frame: pd.DataFrame
    exponents: pd.DataFrame
    change: DifferenceReport


@dataclass(frozen=True, eq=False, repr=False)
class NetworksReport(Brief):
    """The laws of many networks, taken together.

    Attributes:
        networks: a row per network, the columns of ``networks.csv``, and those that are drawn:
            value, low, high, share (of the weight in the mean).
        means: a row per group in the slope that is drawn: subgroup, n, mean, low, high, p,
            next_low, next_high, tau, i2, q, q_p; all networks come first.
        subgroups: a row per group and slope, the columns of ``subgroups.csv``.
        by: what the networks are grouped by; None without subgroups.
        per: unit of the slopes that are drawn, in words, such as ``per weight layer``.
        per_unit: the same for a slope per unit of depth.
        per_whole: the same for a slope over the whole depth.
        verdict: the result in a few words.
        sentences: the result in words: mean, next network, differences.
        shape_sentence: whether the networks have one shape; empty where that could not be tested.
        notes: what to know, in sentences.
        options: how all were fitted.
    """

    networks: pd.DataFrame
    means: pd.DataFrame
    subgroups: pd.DataFrame
    by: str | None
    per: str
    per_unit: str
    per_whole: str
    verdict: str
    sentences: Sequence[str]
    shape_sentence: str
    notes: Sequence[str]
    options: FitOptions
