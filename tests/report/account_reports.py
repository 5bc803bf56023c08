"""Accounts that are drawn and stand on pages."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from natstats.law.differences import Estimate
from natstats.report import AccountReport
from natstats.report.records import RunReport
from natstats.runs.run import Run

FIGURES = ("account", "account_totals", "kernels", "kernel_exponents")
EVIL = "<script>alert('x')</script>&\"'"


def deep(n_layers: int) -> AccountReport:
    """An account of many layers, each with three operations, of known shares."""
    rng = np.random.default_rng(0)
    at, rows = 2.0, []
    for depth in range(1, n_layers + 1):
        for cause, kind in (("norms", "normalization"), ("rectifiers", "rectifier"),
                            ("kernels", "convolution")):  # fmt: skip
            share = float(rng.normal(0.1 if cause == "kernels" else -0.05, 0.2))
            rows.append(
                {"step": f"block.{depth}.{kind}", "layer": f"block.{depth}.convolution",
                 "operation": "convolution 3x3", "kind": kind, "module": "", "depth": depth,
                 "trunk": True, "before": at, "after": at + share, "cause": cause, "part": "",
                 "share": share, "low": share - 0.1, "high": share + 0.1, "p": 0.5,
                 "kernel_exponent": 0.5, "shuffled_exponent": 0.4}
            )  # fmt: skip
            at += share
    frame = pd.DataFrame(rows)
    totals = frame.groupby("cause").share.sum().reset_index()
    totals = totals.assign(low=totals.share - 1, high=totals.share + 1, p=0.5, n_steps=n_layers)
    return AccountReport(frame, totals, Estimate(at - 2, at - 3, at - 1, 0.5), (2.0, at), "Known.")


def with_account(run: Run, account: AccountReport | None) -> RunReport:
    return replace(run.report(), account=account)
