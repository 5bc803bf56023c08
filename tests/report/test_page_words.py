"""What pages say of a verdict, of shapes and of the layers at the ends, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from natstats.law.law import CLEAR_AICC, VERDICTS, Law, fit_law
from natstats.networks.checkpoint_files import number_checkpoints
from natstats.report.pages import verdict as page
from natstats.report.pages.results import extremes
from natstats.report.pages.series import write_series_report
from natstats.runs.series import Series
from natstats.runs.tables import text_table


def layers(*rows: tuple[str, float, float, float, str]) -> pd.DataFrame:
    """A table of layers behind the images, which are steeper than all of them."""
    columns = ["layer", "exponent", "exponent_low", "exponent_high", "flags"]
    frame = pd.DataFrame([("input", 9.0, 8.9, 9.1, ""), *rows], columns=columns)
    return frame.assign(kind=["input", *["conv"] * len(rows)])


def test_layers_are_told_apart_where_their_intervals_are():
    steep, next_steep = ("c", 3.0, 2.9, 3.1, "few rings; few images"), ("d", 2.5, 2.4, 2.6, "")
    flat, next_flat = ("a", 1.0, 0.8, 1.2, ""), ("b 1", 1.1, 1.0, 1.3, "")
    nothing = ("e", np.nan, np.nan, np.nan, "no fit")
    steepest, flattest = extremes(layers(next_flat, nothing, steep, flat, next_steep))
    assert [one["layer"]["name"] for one in (steepest, flattest)] == ["c", "a"]
    assert steepest["layer"]["flags"] == ["few rings", "few images"]
    assert steepest["layer"]["told"] == "3.00 [2.90, 3.10]"
    assert (steepest["next"]["name"], steepest["is_apart"]) == ("d", True)
    assert (flattest["nearest"]["link"], flattest["overlapping"]) == ("#layer=b%201", 1)
    # The terminal says the same, of the same function.
    table = layers(next_flat, nothing, steep, flat, next_steep)
    told = text_table(table.assign(depth=1, height=8, width=8, r2=0.9)).splitlines()[-2:]
    assert told[0].startswith(
        "Steepest: c 3.00 [2.90, 3.10], few rings, few images; apart from all"
    )
    assert told[1].startswith("Flattest: a 1.00 [0.80, 1.20]; overlaps with 1 other layer")


def test_a_layer_behind_the_next_one_may_overlap():
    found = extremes(
        layers(("a", 3.0, 2.9, 3.1, ""), ("b", 2.5, 2.4, 2.6, ""), ("c", 2.0, 0.5, 3.0, ""))
    )
    assert found[0]["next"]["name"] == "b"
    assert (found[0]["overlapping"], found[0]["nearest"]["name"]) == (1, "c")


@pytest.mark.parametrize(("low", "overlap"), [(2.6, True), (2.601, False)])
def test_intervals_that_touch_overlap(low, overlap):
    found = extremes(layers(("c", 3.0, low, 3.1, ""), ("d", 2.5, 2.4, 2.6, "")))
    assert bool(found[0]["overlapping"]) is overlap


def test_one_layer_is_no_extreme():
    assert extremes(layers(("c", 3.0, 2.9, 3.1, ""))) == []


def test_a_layer_without_an_interval_is_not_said_to_overlap():
    found = extremes(layers(("c", 3.0, np.nan, np.nan, ""), ("d", 2.5, 2.4, 2.6, "")))
    assert (found[0]["overlapping"], found[0]["is_apart"]) == (0, False)
    assert found[0]["layer"]["told"] == "3.00 no interval"


def law(verdict: str, quadratic: float) -> Law:
    """A law of ten layers whose line has an AICc of 30."""
    rng = np.random.default_rng(0)
    deviations = 0.01 * rng.standard_normal((20, 10))
    depth = np.arange(10.0)
    found = fit_law(depth, 1 + 0.1 * depth, deviations, ["12"] * 10)
    shapes = {"constant": 50.0, "linear": 30.0, "quadratic": quadratic}
    return replace(found, verdict=verdict, shapes=shapes)


def test_a_better_shape_is_told_whatever_the_verdict():
    better, worse = 30.0 - CLEAR_AICC - 1, 30.0 - CLEAR_AICC + 1
    told = page.shapes_sentence(law("depends on the specification", better))
    assert told.endswith(
        "Here the shape quadratic is better than the line by 7.0: a line describes this network "
        "badly, whatever the verdict on a trend is."
    )
    assert "it cannot make a trend of none" in told
    assert page.shapes_sentence(law("rises", better)).endswith("the verdict speaks of no line.")
    for one in (law("linear law", worse), law("no trend", 40.0)):
        assert "Here" not in page.shapes_sentence(one)
    assert page.shapes_sentence(replace(law("rises", 1.0), shapes={})) == ""


def test_every_verdict_has_a_reason():
    assert [word for word, _ in page.verdict_meanings(VERDICTS[::-1])] == list(
        page.VERDICT_MEANINGS
    )
    assert {*page.VERDICT_MEANINGS} == {*VERDICTS}


def test_a_series_is_headed_by_what_changed_and_says_why_its_laws_have_their_verdicts(
    made_networks, tmp_path
):
    runs = made_networks.run(0, -0.05), made_networks.run(1, 0.05)
    series = Series.of(runs, number_checkpoints([Path("epoch_1.pth"), Path("epoch_7.pth")]))
    text = write_series_report(tmp_path, series.report()).read_text(encoding="utf-8")
    assert "<h1>epoch_7 differs from epoch_1</h1>" in text
    assert "2 checkpoints, epoch 1 to 7" in text
    for verdict in series.frame.verdict:
        assert f"<dt>{verdict}</dt><dd>{page.VERDICT_MEANINGS[verdict][:20]}" in text
