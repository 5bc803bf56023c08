"""How analyses/distill_table.py chooses weights: the best mean, never one that broke down."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

import distill_table
from distill_jobs import Job


@pytest.fixture
def choose(monkeypatch, tmp_path):
    """Choose with made accuracies: a function of method, arguments and seed."""

    def run(accuracy, methods):
        asked = []

        def jobs_done(jobs, processes, command):
            asked.extend(jobs)
            return [accuracy(job.method, job.arguments, job.seed) for job in jobs]

        monkeypatch.setattr(distill_table, "run_jobs", jobs_done)
        args = argparse.Namespace(
            methods=methods, choosing_seeds=2, choosing_epochs=1, holdout=0.2, processes=1,
            size=16, teacher="t", student="s",
        )  # fmt: skip
        teacher = Job(tmp_path / "teacher", data="x", method="ce", student="t")
        chosen, tried = distill_table.choose(args, tmp_path, teacher, {"data": "x"}, [])
        return chosen, tried, asked

    return run


def test_the_best_mean_over_seeds_is_chosen(choose):
    def accuracy(method, arguments, seed):
        weight = arguments[f"{method}.weight"]
        # The largest weight does best once, and the middle one in the mean.
        return {100.0: (0.5, 0.5), 1000.0: (0.6, 0.6), 10000.0: (0.7, 0.4)}[weight][seed - 100]

    chosen, tried, asked = choose(accuracy, ["ce", "at"])
    assert chosen == {"ce": {}, "at": {"at.weight": 1000.0}}
    assert [one["held_out"] for one in tried] == pytest.approx([0.5, 0.6, 0.55])
    assert {job.seed for job in asked} == {100, 101}
    assert all(job.holdout == 0.2 and job.method == "at" for job in asked)
    assert len({job.out for job in asked}) == 6


def test_a_candidate_that_broke_down_is_none(choose):
    def accuracy(method, arguments, seed):
        weight = arguments["fsp.weight"]
        return np.nan if (weight, seed) == (10.0, 101) else weight

    assert choose(accuracy, ["fsp"])[0] == {"fsp": {"fsp.weight": 1.0}}
    with pytest.raises(SystemExit, match="fsp: expected one candidate that trains"):
        choose(lambda *_: np.nan, ["fsp"])


def test_a_combination_starts_from_what_its_first_part_chose(choose):
    def accuracy(method, arguments, seed):
        return -arguments["spectral.weight"] if "+" in method else arguments["kd.weight"]

    chosen, _, asked = choose(accuracy, ["kd", "kd+spectral"])
    assert chosen["kd"] == {"kd.weight": 9.0, "kd.ce_weight": 1.0}
    combined = [job.arguments for job in asked if "+" in job.method]
    assert {(one["kd.weight"], one["kd.ce_weight"]) for one in combined} == {(9.0, 1.0)}
    least = min(one["spectral.weight"] for one in combined)
    assert chosen["kd+spectral"] == {**chosen["kd"], "spectral.weight": least}


def test_methods_have_three_candidates_around_their_defaults():
    for method, candidates in distill_table.CANDIDATES.items():
        assert len(candidates) == (1 if method == "ce" else 3)
    assert distill_table.weights_of("at") == [100.0, 1000.0, 10000.0]
