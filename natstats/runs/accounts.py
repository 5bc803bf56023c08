"""What follows from the account of a run, and how figures, pages and files take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from natstats.files.csv_files import write_csv
from natstats.files.json_files import to_json
from natstats.report.records import AccountReport
from natstats.runs.counterfactual import MeasuredCounterfactual, ShuffledWeights
from natstats.runs.random_weights import RandomWeights
from natstats.theory.account import Account, fit_account
from natstats.theory.account_difference import AccountDifference
from natstats.theory.account_law import AccountLaw
from natstats.theory.counterfactuals import Counterfactuals

__all__ = ["Explanation", "account_dict", "account_report"]


class Explanation:
    """What follows from the account of a run: the law's slope, counterfactuals, the control.

    Args:
        account: of the network.
        layers: depth of each layer of the law, by name.
        random: the same network with random weights; used where all seeds have an account.
        shuffled: the same network with shuffled kernels; None where it was not measured.

    Attributes:
        account: as given.
        law: the slope of the exponents by cause.
        counterfactuals: slopes and exponents that are predicted if something were otherwise.
        difference: trained less random weights; None without accounts of both.
        measured: a counterfactual that was measured; None where none was.
    """

    def __init__(
        self,
        account: Account,
        layers: Mapping[str, float],
        random: Sequence[RandomWeights] = (),
        shuffled: ShuffledWeights | None = None,
    ) -> None:
        options = account.options
        self.account = account
        self.law = AccountLaw(account, layers, options.depth)
        self.counterfactuals = Counterfactuals(self.law)
        others = [fit_account(one.account, options) for one in random]
        known = [one for one in others if one is not None]
        self.difference: AccountDifference | None = None
        if others and len(known) == len(others):
            self.difference = AccountDifference(account, known, layers, options.depth)
        self.measured: MeasuredCounterfactual | None = None
        if shuffled is not None:
            self.measured = MeasuredCounterfactual(shuffled, self.counterfactuals, options)

    def sentences(self) -> list[str]:
        """What the terminal says of it."""
        found = [self.account.sentence(), self.law.sentence()]
        if self.difference is not None:
            found.append(self.difference.sentence())
        if self.measured is not None:
            found.append(self.measured.sentence())
        return found

    def report(self) -> AccountReport:
        """Everything that the figures and the page show, put together once."""
        return self._report

    @cached_property
    def _report(self) -> AccountReport:
        counterfactuals, sentence = self.counterfactuals, self.counterfactuals.sentence()
        exponents = counterfactuals.exponents
        if self.measured is not None:
            measured = self.measured.frame.measured
            exponents = exponents.assign(**{f"{self.measured.shuffled.name}, measured": measured})
            sentence = f"{sentence} {self.measured.sentence()}"
        more: dict[str, Any] = {}
        if self.difference is not None:
            more["difference"] = self.difference.totals
            more["difference_sentence"] = self.difference.sentence()
        return account_report(
            self.account,
            slopes=self.law.slopes,
            slopes_sentence=self.law.sentence(),
            counterfactuals=exponents,
            counterfactual_slopes=counterfactuals.slopes,
            counterfactuals_sentence=sentence,
            **more,
        )

    def save(self, folder: Path) -> None:
        """Write ``account.csv`` and ``account.json``."""
        write_csv(self.account.frame, folder / "account.csv")
        text = to_json(account_dict(self.report()))
        (folder / "account.json").write_text(text, encoding="utf-8")


def account_report(account: Account, **more: Any) -> AccountReport:
    """Everything that the figures and the page show of an account.

    Args:
        account: the account.
        **more: what was found beside it: other fields of
            :class:`natstats.report.records.AccountReport`, such as `slopes` or `difference`.

    >>> from natstats.fits.options import FitOptions
    >>> from natstats.theory.account_spectra import AccountSpectra
    >>> account_report(Account(AccountSpectra((), ()), FitOptions())).sentence
    'Account: no way from the images to a layer has exponents all along.'
    """
    return AccountReport(
        frame=account.frame,
        totals=account.totals,
        change=account.change,
        ends=account.ends,
        sentence=account.sentence(),
        note=account.spectra.note,
        **more,
    )


def account_dict(report: AccountReport) -> dict[str, Any]:
    """The results of an account as ``account.json`` keeps them: totals, slopes and sentences.

    The single shares are not among them: they are the rows of ``account.csv``.

    Args:
        report: the account.

    Returns:
        Plain values; tables are lists of records, None where they were not found.

    >>> import numpy as np
    >>> from natstats.law.differences import Estimate
    >>> nothing = pd.DataFrame(columns=["cause", "share"])
    >>> account_dict(AccountReport(nothing, nothing, Estimate(), (np.nan,) * 2, "None."))["totals"]
    []
    """
    change = report.change
    return {
        "sentence": report.sentence,
        "note": report.note,
        "exponent_of_images": report.ends[0],
        "exponent_of_last_layer": report.ends[1],
        "change": {"value": change.value, "low": change.low, "high": change.high, "p": change.p},
        "totals": _records(report.totals),
        "slopes": _records(report.slopes),
        "slopes_sentence": report.slopes_sentence,
        "counterfactuals": _records(report.counterfactuals),
        "counterfactual_slopes": _records(report.counterfactual_slopes),
        "counterfactuals_sentence": report.counterfactuals_sentence,
        "difference": _records(report.difference),
        "difference_sentence": report.difference_sentence,
    }


def _records(table: pd.DataFrame | None) -> list[dict[Any, Any]] | None:
    return None if table is None else table.to_dict("records")
