"""The record of an account, and the tables and sentences that are made of it."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest

from natstats.files.json_files import to_json
from natstats.fits.options import FitOptions
from natstats.numbers import number
from natstats.report import AccountReport
from natstats.report.figures.account import layers_of_trunk
from natstats.report.figures.kernels import (
    convolutions,
    median_difference,
)
from natstats.report.pages.account import (
    account_contents,
    kernels_sentence,
    step_table,
    total_rows,
)
from natstats.runs.accounts import account_dict, account_report
from natstats.theory.account import CAUSES, Account


def test_the_account_has_every_sort_of_share(shown_account: AccountReport) -> None:
    assert {
        "kernels",
        "correlations",
        "borders",
        "strides",
        "rectifiers",
        "norms",
        "additions",
    } == {*shown_account.totals.cause}
    assert {*convolutions(shown_account.frame)["sort"]} == {"k × k", "k × k, depthwise", "1 × 1"}


def test_a_record_holds_what_the_account_has(
    small_account: Account, shown_account: AccountReport
) -> None:
    assert shown_account.sentence == small_account.sentence()
    assert shown_account.ends == small_account.ends
    pd.testing.assert_frame_equal(shown_account.frame, small_account.frame)
    assert shown_account.trunk.step.iloc[-1] == small_account.steps[small_account.trunk[-1]].name
    assert account_report(small_account, slopes_sentence="More.").slopes_sentence == "More."


def test_the_json_has_every_table_but_the_shares(
    shown_account: AccountReport, whole_account: AccountReport
) -> None:
    assert account_dict(shown_account)["slopes"] is None
    kept = json.loads(to_json(account_dict(whole_account)))
    assert kept["sentence"] == whole_account.sentence
    assert kept["change"]["value"] == whole_account.change.value
    assert [row["share"] for row in kept["totals"]] == [*whole_account.totals.share]
    assert len(kept["counterfactuals"]) == 2
    assert kept["counterfactuals"][1]["exponent"] is None  # NaN, which JSON lacks
    assert {"slopes", "difference", "counterfactual_slopes"} <= {*kept}


def test_layers_of_the_trunk_add_up_and_join(
    small_account: Account, shown_account: AccountReport
) -> None:
    layers = layers_of_trunk(shown_account.frame)
    assert [*layers.layer] == ["first.0", "deep", "wide", "down"]  # the last is the output
    assert [*layers.depth] == [1, 2, 3, 4]
    causes = [cause for cause in CAUSES if cause in layers]
    np.testing.assert_allclose(layers[causes].sum(axis=1), layers.after - layers.before)
    np.testing.assert_allclose(layers.before[1:], layers.after[:-1])
    assert (layers.before.iloc[0], layers.after.iloc[-1]) == shown_account.ends
    totals = shown_account.totals.set_index("cause").share
    np.testing.assert_allclose(layers[causes].sum()[totals.index], totals)


def test_predictions_of_convolutions_are_those_that_were_fitted(
    small_account: Account, shown_account: AccountReport
) -> None:
    found = convolutions(shown_account.frame).set_index("layer")
    steps = {step.name: step for step in small_account.steps if step.kind == "convolution"}
    assert [*found.index] == [*steps]
    for name, step in steps.items():
        before = small_account.exponent(step.before)
        row, states = found.loc[name], step.predictions
        last = states.get("strided", states["independent"])
        assert row.measured == pytest.approx(small_account.exponent(step.after) - before)
        assert row.independent == pytest.approx(small_account.exponent(last) - before)
        if "linear" in states:
            assert row.linear == pytest.approx(small_account.exponent(states["linear"]) - before)
        else:
            assert np.isnan(row.linear)
    assert np.isnan(found.linear["wide"])


def test_the_median_difference_is_over_what_was_predicted() -> None:
    found = pd.DataFrame({"measured": [1.0, 2.0, 3.0], "linear": [1.5, np.nan, 2.9]})
    assert median_difference(found, "linear") == (pytest.approx(0.3), 2)
    value, n = median_difference(found[1:2], "linear")
    assert np.isnan(value)
    assert n == 0


def test_totals_name_their_parts_which_add_up(shown_account: AccountReport) -> None:
    rows = {row[0]: row for row in total_rows(shown_account)}
    gaussian, rest = re.fullmatch(r"Gaussian (\S+), rest (\S+)", rows["rectifiers"][3]).groups()  # type: ignore[union-attr]
    whole = shown_account.totals.set_index("cause").share["rectifiers"]
    added = sum(float(text.replace("−", "-")) for text in (gaussian, rest))
    assert added == pytest.approx(whole, abs=0.011)
    assert rows["kernels"][3] == ""
    assert [*rows][-1] == "whole change"
    n_steps = len(shown_account.trunk.drop_duplicates("step"))
    assert rows["whole change"][4] == str(n_steps)


def test_what_is_zero_but_for_rounding_has_no_interval(shown_account: AccountReport) -> None:
    table = step_table(shown_account.frame, FitOptions())
    rows, place = table.rows, {column.label: i for i, column in enumerate(table.columns)}
    (own,) = (
        row for row in rows if row[0].text == "deep" and row[place["cause"]].text == "correlations"
    )  # depthwise: no channel comes together with another
    assert own[place["share"]].text == "+0.00"
    assert own[place["95 % interval"]].text == own[place["p"]].text == "–"
    assert len(rows) == len(shown_account.frame)


def test_the_worst_prediction_is_named(shown_account: AccountReport) -> None:
    found = convolutions(shown_account.frame).dropna(subset="linear")
    apart = (found.linear - found.measured).abs()
    worst = found.layer[apart.idxmax()]
    assert f"farthest off is {worst}, by {number(apart.max())}" in kernels_sentence(
        shown_account.frame
    )


def test_contents_without_an_account() -> None:
    assert account_contents(None, FitOptions()) == {"account": None}
