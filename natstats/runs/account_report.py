"""An account as figures and pages show it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from natstats.report.records import AccountReport

if TYPE_CHECKING:
    from natstats.theory.account import Account

__all__ = ["account_report"]


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
