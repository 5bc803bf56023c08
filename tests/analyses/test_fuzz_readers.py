"""Whatever is in a file: a sentence or success, no code run, nothing written elsewhere.

analyses/fuzz_readers.py goes on with the same for as long as one likes.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

from fuzz_readers import LawBrokenError, Made, check, one_change
from fuzz_targets import TARGETS

from natstats.errors import NatstatsError, UsageError

SLOW = {"run", "run with controls", "series", "photographs", "list", "shard", "account state"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    found = {}

    def of(target):
        if target.name not in found:
            found[target.name] = Made(target, tmp_path_factory.mktemp("fuzz") / "valid")
        return found[target.name]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS, ids=[target.name for target in TARGETS])
def test_what_was_changed_is_read_or_refused(made, target, tmp_path):
    valid = made(target)

    @settings(
        max_examples=5 if target.name in SLOW else 15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def holds(choose):
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        valid.copied(folder)
        one_change(valid, folder, choose)
        check(target.read, folder)

    valid.copied(tmp_path / "first")
    assert check(target.read, tmp_path / "first") == "read"
    holds()


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda folder: (folder.parent / "elsewhere").mkdir(), "wrote or started"),
        (lambda folder: os.system("true"), "wrote or started"),
        (lambda folder: bytearray(3 << 30), "MemoryError"),
        (lambda folder: 1 / 0, "ZeroDivisionError"),
        (lambda folder: raised(NatstatsError("")), "said"),
    ],
)
def test_the_law_is_enforced(tmp_path, act, words):
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(LawBrokenError, match=words):
        check(act, folder)


def raised(error):
    raise error


def test_what_may_be_is_let_through(tmp_path):
    def refuse(folder):
        (folder / "file").write_text("x")
        raise UsageError("a: expected b; got c")

    assert check(refuse, tmp_path) == "refused"
    assert check(lambda folder: None, tmp_path) == "read"


def test_changes_reach_every_file_and_put_right_digests(made, tmp_path):
    target = next(one for one in TARGETS if one.name == "table")
    valid = made(target)
    seen = set()
    for seed in range(60):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        valid.copied(tmp_path / "copy")
        one_change(valid, tmp_path / "copy", random.Random(seed))
        seen.add((tmp_path / "copy" / "it.csv").read_bytes())
    assert len(seen) > 30
