"""Numbers that JSON does not have: null when written, NaN when read."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

import pytest

from natstats.files.json_files import as_number, nan_for_null, to_json
from natstats.law.differences import Estimate


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
