"""Numbers as text that does not lie, and those that JSON does not have: NaN where null is read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from natstats.files.json_files import to_json
from natstats.law.differences import Estimate
from natstats.numbers import as_number, change, interval, nan_for_null, number


@pytest.mark.parametrize(("low", "high"), [(-1e-5, 0.02), (1e-7, 0.5), (-0.3, -1e-9), (-0.1, 0.1)])
def test_rounding_does_not_move_an_interval_across_zero(low: float, high: float) -> None:
    shown = interval(low, high).strip("[]").replace("\N{MINUS SIGN}", "-").split(", ")
    assert [np.sign(float(end)) for end in shown] == [np.sign(low), np.sign(high)]
    assert len({len(end.partition(".")[2]) for end in shown}) == 1
    assert interval(low, high, 4, sign=True) in change((low + high) / 2, low, high)


def test_numbers_that_are_missing_say_so() -> None:
    assert number(float("nan")) == number(float("inf")) == "–"
    assert change(0.1, float("nan"), 0.2) == "+0.1000 no interval"


def test_numbers_come_back_and_those_that_json_lacks_as_nan():
    written = {"a": 0.1 + 0.2, "n": 3, "none": math.nan, "far": -math.inf, "word": "up"}
    found = nan_for_null(json.loads(to_json(written)))
    assert (found["a"], found["n"], found["word"]) == (0.1 + 0.2, 3, "up")
    assert isinstance(found["n"], int)
    assert math.isnan(found["none"])
    assert math.isnan(found["far"])
    assert isinstance(as_number(3), float)
    assert math.isnan(as_number(None))


@pytest.mark.parametrize("value", [[], {}, [1.0], "much"])
def test_what_is_no_number_is_an_error(value):
    with pytest.raises((TypeError, ValueError)):
        as_number(value)
    with pytest.raises((TypeError, ValueError)):
        Estimate.from_dict({"value": value})


@pytest.mark.parametrize("estimate", [Estimate(), Estimate(0.5, -1.0, 2.0, 0.25, 7.5)])
def test_an_estimate_survives_json(estimate):
    again = Estimate.from_dict(json.loads(to_json(asdict(estimate))))
    assert repr(again) == repr(estimate)  # NaN is not equal to itself


def test_an_estimate_of_other_fields_is_an_error():
    with pytest.raises(TypeError, match="width"):
        Estimate.from_dict({"value": 1.0, "width": 2.0})
