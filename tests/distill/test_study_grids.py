"""Weights in the studies of distillation: grids, where they go on, and what waits for them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

from distill_jobs import Outcome
from distill_parts import Work, candidates
from distill_report import Report
from distill_studies import Arm

from tests.distill.small_studies import WIDER, Made, Peaked, rows_in, runner


@pytest.fixture
def run(tmp_path, monkeypatch):
    return runner(tmp_path, monkeypatch)


def test_grids_are_tenfold_around_the_default():
    assert candidates(Arm("at", "at", {}, "at.weight"), (0.1, 1, 10)) == [
        {"at.weight": 100.0}, {"at.weight": 1000.0}, {"at.weight": 10000.0}
    ]  # fmt: skip
    assert candidates(Arm("ce", "ce"), (0.1, 1, 10)) == []
    assert candidates(Arm("at", "at", {}, "at.nothing"), (0.1, 1, 10)) == []


@pytest.mark.slow
def test_a_candidate_that_broke_down_is_none(run):
    class Breaking(Made):
        def outcome(self, job):
            if job.arguments.get("kd.weight") == 0.9 and job.method == "kd":
                return Outcome(float("nan"), error="kd is not finite")
            return super().outcome(job)

    trained = run("--part", "weights", "main", workers=Breaking())
    finals = [job.arguments["kd.weight"] for job in trained if job.seed < 2 and job.arguments]
    assert finals
    assert 0.9 not in finals


@pytest.mark.slow
@pytest.mark.parametrize(
    ("best", "breaks", "chosen", "tried", "end"),
    [
        (0.9, 1e9, 0.9, [0.09, 0.9, 9], ""),
        (90, 1e9, 90, [0.09, 0.9, 9, 90, 900], ""),
        (0.009, 1e9, 0.009, [0.0009, 0.009, 0.09, 0.9, 9], ""),
        # Between what is best and what breaks down.
        (1e9, 50, 28.4605, [0.09, 0.9, 9, 28.4605, 90], " (largest that trained)"),
        (1e9, 20, 9, [0.09, 0.9, 9, 28.4605, 90], " (largest that trained)"),
        # Not without end, which leaves room for one between.
        (1e9, 1e9, 9000, [0.09, 0.9, 9, 90, 900, 9000], " (largest tried)"),
        (1e9, 5e3, 2846.05, [0.09, 0.9, 9, 90, 900, 2846.05, 9000], " (largest that trained)"),
    ],
)
def test_a_grid_goes_on_while_its_end_is_best(run, tmp_path, best, breaks, chosen, tried, end):
    trained = run(
        "--arms", "kd", "--part", "weights", "main", workers=Peaked(best, breaks), study=WIDER
    )
    weights = [job.arguments["kd.weight"] for job in trained if job.method == "kd" and job.holdout]
    assert sorted(weights) == tried
    final = {job.arguments["kd.weight"] for job in trained if job.method == "kd" and job.seed < 2}
    assert final == {chosen}
    work = Work(WIDER, "imagefolder:data", tmp_path / "work" / "tiny")
    text = "".join(Report(work, rows_in(tmp_path / "results")).parts())
    assert f"kd.weight {float(chosen)}{end} |" in text


@pytest.mark.slow
def test_equal_candidates_take_the_smallest_and_go_nowhere(run):
    trained = run("--arms", "kd", "--part", "weights", workers=Peaked(1, 1e9, 0), study=WIDER)
    assert [job.arguments["kd.weight"] for job in trained if job.method == "kd"] == [0.09, 0.9, 9]


@pytest.mark.slow
def test_what_stands_beside_waits_for_the_end_of_a_grid(run, tmp_path):
    """Cut half way, nothing is chosen, what is finished stays, and the report says so."""
    work = Work(WIDER, "imagefolder:data", tmp_path / "work" / "tiny")

    def report():
        return "".join(Report(work, rows_in(tmp_path / "results")).parts())

    with pytest.raises(SystemExit, match="the same command goes on"):
        run("--part", "weights", workers=Peaked(90, 1e9, most=4), study=WIDER)
    first = run("--part", "main", workers=Peaked(90, 1e9), study=WIDER)
    assert {job.method for job in first} == {"ce"}
    assert "Begun, but the weight is not chosen yet: kd." in report()
    assert "Not trained here: kd+spectral." in report()
    trained = run(workers=Peaked(90, 1e9), study=WIDER)
    beside = [job.arguments for job in trained if job.method == "kd+spectral"]
    assert beside
    assert {one["kd.weight"] for one in beside} == {90}
    assert "not chosen yet" not in report()


@pytest.mark.slow
def test_without_weights_an_arm_waits(run, capsys):
    trained = run("--part", "main")
    assert {job.method for job in trained} == {"ce"}
    said = capsys.readouterr().out
    assert "a: left out until their weights are chosen (--part weights): kd" in said
