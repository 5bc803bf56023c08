"""An account as figures and pages show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from natstats.report.records import AccountReport

if TYPE_CHECKING:
    from natstats.theory.account import Account

__all__ = ["account_dict", "account_report"]


def account_report(account: Account, **more: Any) -> AccountReport:
    """Everything that the figures and the page show of an account.

    Args:
        account: the account.
        **more: what was found beside it: other fields of
            :class:`natstats.report.records.AccountReport`, such as `slopes` or `difference`.

    >>> from natstats.fits.options import FitOptions
    >>> from natstats.theory.account import Account
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

    Every share is a row of ``account.csv`` and stands there only.

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
