"""Runs and accounts of small networks, made once for all that draw them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from natstats.activations.trace import trace_calls
from natstats.fits.options import FitOptions
from natstats.measurement.one_run import measure, measure_images
from natstats.report import AccountReport
from natstats.runs.accounts import account_report
from natstats.runs.run import Run
from natstats.theory.account import Account
from natstats.theory.account_pass import AccountPass
from tests.report.account_reports import EVIL
from tests.report.small_networks import Small, images, network


@pytest.fixture(scope="session")
def figure_images() -> np.ndarray:
    return images(18)


@pytest.fixture(scope="session")
def figure_run(figure_images: np.ndarray) -> Run:
    """With layers of three kinds and three sizes, one of them without an exponent."""
    return measure(network(), figure_images)


@pytest.fixture(scope="session")
def figure_images_run(figure_images: np.ndarray) -> Run:
    return measure_images(figure_images)


@pytest.fixture(scope="session")
def small_account() -> Account:
    torch.manual_seed(0)
    model, batch = Small().eval(), torch.from_numpy(images(16))
    trace = trace_calls(model, (batch[:1],))
    with AccountPass(model, (batch[:1],), trace, n_groups=16) as opened:
        model(batch)
    return Account(opened.compute(), FitOptions())


@pytest.fixture(scope="session")
def shown_account(small_account: Account) -> AccountReport:
    return account_report(small_account)


@pytest.fixture(scope="session")
def account_run() -> Run:
    torch.manual_seed(0)
    return measure(Small().eval(), images(16))


@pytest.fixture(scope="session")
def whole_account(shown_account: AccountReport) -> AccountReport:
    """The same with everything that may be found beside an account."""
    difference = shown_account.totals.rename(columns={"share": "trained"}).drop(columns="n_steps")
    difference = difference.assign(random=0.25, difference=difference.trained - 0.25)
    slopes = shown_account.totals.rename(columns={"share": "slope"}).drop(columns="n_steps")
    first = {"cause": "all", "slope": slopes.slope.sum(), "low": -1.0, "high": 1.0, "p": 0.5}
    slopes = pd.concat([pd.DataFrame([first]), slopes], ignore_index=True)
    names = ("shuffle-kernels", "same-rectifiers")
    return replace(
        shown_account,
        note=EVIL,
        slopes=slopes.assign(share=slopes.slope / slopes.slope[0]),
        slopes_sentence="These carry the slope.",
        counterfactuals=pd.DataFrame(
            {"layer": ["a", "b"], "depth": [1, 2], "exponent": [1.0, np.nan],
             names[0]: [0.5, 0.25], names[1]: [2.0, 3.0]}
        ),
        counterfactual_slopes=pd.DataFrame(
            {"name": ["measured", *names], "slope": [0.3, 0.1, 0.2], "low": [0.2, 0.0, 0.1],
             "high": [0.4, 0.2, 0.3], "difference": [np.nan, -0.2, -0.1],
             "difference_low": [np.nan, -0.3, -0.2], "difference_high": [np.nan, -0.1, 0.0],
             "p": [np.nan, 0.01, 0.04]}
        ),
        difference=difference,
        difference_sentence="This is what training did.",
    )  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium without a window."""
    from tests.report.chromium import CHROMIUM, playwright

    with playwright.sync_playwright() as started:
        own = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield own
        own.close()
