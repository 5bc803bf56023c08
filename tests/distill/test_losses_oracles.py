"""The losses of others against what the authors' programs gave, see analyses/distill_oracles.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from natstats.distill.methods import METHODS

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

import distill_oracles as oracles


@pytest.mark.parametrize("case", oracles.CASES, ids=lambda case: f"{case.method}-{case.variant}")
def test_a_loss_is_that_of_the_authors_program(case):
    assert case.difference < (1e-6 if "in float32" in case.function else 1e-9)


def test_every_method_is_held_to_something():
    assert {case.method for case in oracles.CASES} | set(oracles.WITHOUT) == set(METHODS)


def test_the_table_is_that_of_the_cases():
    assert json.loads(oracles.RESULT.read_text(encoding="utf-8")) == oracles.table()
