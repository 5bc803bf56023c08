"""The stages that analyses/startup.py times are functions that there are."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "analyses"))

from startup_stages import AFTER, MEASURING, STAGES, Stages


@pytest.mark.parametrize("place", STAGES)
def test_a_stage_is_a_function(place):
    module, _, name = place.partition(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_what_comes_after_is_timed():
    assert {*AFTER} < {*STAGES.values()}
    assert MEASURING in STAGES.values()


def test_a_stage_within_a_stage_counts_for_the_inner_one_alone():
    stages = Stages()
    stages.start(time.monotonic())
    slow = stages.timed("inner", lambda seconds: time.sleep(seconds))
    with stages.within("outer"):
        slow(0.05)
    stages.lap()
    assert stages.seconds["inner"][1] >= 0.05 > stages.seconds["outer"][1]
    assert [*stages.seconds] == ["start of python", "the rest", "outer", "inner"]
