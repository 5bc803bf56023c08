"""The studies of distillation: order, choices, rows that survive, resuming, reports of a part."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

import distill_table
from distill_cells import first_reach
from distill_parts import Work, available
from distill_report import Report, write_report
from distill_rows import CURVES
from distill_studies import ABLATION_CONTRASTS, CONTRASTS, STUDIES, Arm, Teacher, digest
from pandas import DataFrame

from tests.distill.small_studies import RESNET8, TINY, InOne, Made, rows_in, runner


@pytest.fixture
def run(tmp_path, monkeypatch):
    return runner(tmp_path, monkeypatch)


# Records.


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_a_record_holds_together(study):
    names = [arm.name for arm in study.arms]
    assert len(set(names)) == len(names)
    for arms, pairs in ((study.arms, study.contrasts), (study.ablation, study.ablation_contrasts)):
        own = [arm.name for arm in arms]
        assert {name for pair in pairs for name in pair} <= set(own)
        # What an arm stands beside is chosen before it.
        assert all(own.index(arm.beside) < own.index(arm.name) for arm in arms if arm.beside)
    for setting in study.settings:
        assert setting.teacher in study.teachers
        assert setting.seeds >= 8
        assert set(setting.arms) <= set(names)
    used = set(range(max(setting.seeds for setting in study.settings)))
    assert not used & set(study.choosing_seeds)
    assert not set(study.ablation_seeds) & (used | set(study.choosing_seeds))
    assert {study.budget_setting, study.ablation_setting} - {""} <= {
        setting.name for setting in study.settings
    }


def test_every_claim_is_a_contrast():
    assert set(CONTRASTS) == {
        ("spectral", "ce"), ("kd+spectral", "kd"), ("at+spectral", "at"), ("ofd+spectral", "ofd"),
        ("dkd+spectral", "dkd"),
    }  # fmt: skip
    assert len(ABLATION_CONTRASTS) >= 15


def test_an_arm_that_cannot_be_trained_says_why():
    assert available(Arm("x", "kd+nonsense")) == "there is no method nonsense"
    assert "nonsense" in available(Arm("x", "kd", {"kd.nonsense": 1}))
    assert available(Arm("kd", "kd", {"kd.ce_weight": 1.0})) == ""


# Parts.


@pytest.mark.slow
def test_parts_are_in_order_and_seed_by_seed(run):
    trained = run("--part", "teacher", "weights", "main")
    teachers, rest = trained[:2], trained[2:]
    assert [job.holdout for job in teachers] == [0.2, 0.0]
    choosing, final = rest[:6], rest[6:]
    assert {job.holdout for job in choosing} == {0.2}
    assert [job.method for job in choosing] == ["kd"] * 3 + ["kd+spectral"] * 3
    assert {job.seed for job in choosing} == set(TINY.choosing_seeds)
    assert [(job.seed, job.method) for job in final] == [
        (seed, method) for seed in (0, 1) for method in ("ce", "kd", "kd+spectral")
    ]
    assert {job.holdout for job in final} == {0.0}
    # The best weight of kd, beside which that of spectral was chosen.
    assert all(job.arguments["kd.weight"] == 0.9 for job in choosing[3:])
    assert all(job.arguments["kd.weight"] == 0.9 for job in final if "kd" in job.method)
    part, whole = (job.out / "student.safetensors" for job in teachers)
    assert {job.teacher_weights for job in choosing} == {part}
    assert {job.teacher_weights for job in final if "kd" in job.method} == {whole}


@pytest.mark.slow
def test_a_teacher_is_trained_where_it_is_needed(run):
    assert {job.teacher for job in run("--part", "main")} == {None}
    trained = run("--part", "weights", "--arms", "kd")
    assert [(job.method, job.seed) for job in trained] == [("ce", 1000)] + [("kd", 100)] * 3


@pytest.mark.slow
def test_the_student_alone_is_trained_once_for_all_teachers(run):
    again = replace(TINY.settings[0], name="b")
    study = replace(TINY, settings=(*TINY.settings, again))
    alone = [job.out for job in run("--part", "main", study=study) if job.method == "ce"]
    assert (len(alone), len(set(alone))) == (4, 2)


@pytest.mark.slow
def test_what_was_cut_goes_on_and_no_row_is_lost(run, tmp_path):
    with pytest.raises(SystemExit, match="the same command goes on"):
        run(workers=Made(most=9))
    kept = rows_in(tmp_path / "results").rows
    assert len(kept) == 9
    assert rows_in(tmp_path / "work" / "tiny").rows.equals(kept)
    trained = run()
    after = rows_in(tmp_path / "results").rows
    assert len(after) == 9 + len(trained)
    assert not run()


@pytest.mark.slow
def test_rows_of_another_machine_are_kept(run, tmp_path):
    run("--part", "teacher", "weights")
    (tmp_path / "work" / "tiny" / "distill_tiny_rows.csv").unlink()
    (tmp_path / "work" / "tiny" / "distill_tiny_curves.csv").unlink()
    assert {job.holdout for job in run("--part", "weights", "main")} == {0.0}


@pytest.mark.slow
def test_a_budget_takes_the_trainings_that_are_there(run):
    run("--part", "teacher", "weights", "main")
    assert [job.recipe["epochs"] for job in run("--part", "budget")] == [2, 2, 2]


@pytest.mark.slow
def test_another_record_is_another_training(run):
    run("--part", "teacher", "weights", "main")
    longer = replace(TINY, settings=(replace(TINY.settings[0], epochs=3),))
    assert {job.recipe["epochs"] for job in run("--part", "weights", study=longer)} == {3}
    taught = replace(TINY, teachers={"r": Teacher(RESNET8, 2)})
    assert {job.recipe["epochs"] for job in run("--part", "weights", study=taught)} == {1, 2}


@pytest.mark.slow
def test_contrasts_that_were_changed_are_seen(run, tmp_path):
    run("--part", "teacher")
    run("--part", "teacher", study=replace(TINY, contrasts=CONTRASTS[:2]))
    plans = json.loads((tmp_path / "results" / "distill_tiny_plan.json").read_text())
    assert len(plans) == 2
    assert plans[0]["digest"] == digest(TINY.planned())


def test_bad_input_in_a_sentence(run, tmp_path):
    with pytest.raises(SystemExit, match="--settings: expected some of a; got b"):
        run("--settings", "b")
    with pytest.raises(SystemExit, match="expected TEACHER=FILE with one of r"):
        run("--teacher-checkpoint", "r=missing")
    bare = replace(TINY, teachers={"r": Teacher(RESNET8, 1, start="published.pth")})
    with pytest.raises(SystemExit, match="--weights: expected a folder with published.pth"):
        run("--weights", tmp_path, study=bare)


# Reports.


@pytest.mark.slow
def test_a_report_of_what_there_is(run, tmp_path):
    with pytest.raises(SystemExit):
        run(workers=Made(most=12))  # one seed is whole, the next is not
    work = Work(TINY, "imagefolder:data", tmp_path / "work" / "tiny")
    write_report(work, rows_in(tmp_path / "results"), tmp_path / "out", tmp_path / "figures")
    text = (tmp_path / "out" / "distill_tiny.md").read_text()
    assert "4 of 6 trainings of the record are finished" in text
    run()
    rows = rows_in(tmp_path / "results")
    write_report(work, rows, tmp_path / "out", tmp_path / "figures")
    text = (tmp_path / "out" / "distill_tiny.md").read_text()
    assert "trainings of the record are finished" not in text
    report = Report(work, rows)
    report.parts()
    (frame,) = report.frames
    # Two seeds are too few for a pool, so that even the control is not seen.
    assert frame.verdict.tolist() == ["too little to tell", "too little to tell"]
    assert frame.error.tolist() == ["own", "own"]
    assert "kd+spectral over kd" in text
    assert "| 2 | kd |" in text
    assert (tmp_path / "figures" / "tiny-a-contrasts.png").is_file()
    assert (tmp_path / "figures" / "tiny-a-curves.png").is_file()


def test_where_a_curve_reaches_an_accuracy():
    curve = DataFrame({"epoch": [2, 4, 6], "accuracy": [0.2, 0.4, 0.5]})
    assert first_reach(curve, 0.3) == pytest.approx(3.0)
    assert first_reach(curve, 0.1) == 2.0
    assert np.isnan(first_reach(curve, 0.6))
    assert np.isnan(first_reach(DataFrame(columns=list(CURVES)), 0.6))


# Real trainings.


@pytest.mark.slow
def test_real_trainings_give_rows_that_come_again(run, folder, tmp_path):
    study = replace(TINY, factors=(1.0,))
    arguments = ("--part", "weights", "main", "--arms", "ce", "kd")
    run(*arguments, workers=InOne(), study=study, data=folder)
    first = rows_in(tmp_path / "results")
    # As if it was cut between the end of each training and its row.
    for path in [*tmp_path.glob("results/*rows.csv"), *tmp_path.glob("work/tiny/*rows.csv")]:
        path.unlink()
    run(*arguments, workers=InOne(), study=study, data=folder)
    again = rows_in(tmp_path / "results")
    assert len(first.rows) == 7
    assert again.rows.equals(first.rows)
    assert again.curves.equals(first.curves)
    assert set(again.rows.split) == {"held-out", "test"}
    assert (again.rows.seconds > 0).all()


@pytest.mark.slow
def test_a_training_that_breaks_down_is_a_row_without_accuracy(run, folder, tmp_path):
    study = replace(TINY, recipe={**TINY.recipe, "learning_rate": 1e30})
    run("--part", "main", "--arms", "ce", workers=InOne(), study=study, data=folder)
    rows = rows_in(tmp_path / "results").rows
    assert rows.accuracy.isna().tolist() == [True, True]
    assert all("ce was not finite in stage main" in text for text in rows.error)
    assert not run("--part", "main", "--arms", "ce", workers=InOne(), study=study, data=folder)


KILLED = """
import sys
from dataclasses import replace
sys.path[:0] = [ANALYSES, TESTS]
import distill_table, small_studies
from distill_studies import STUDIES
if __name__ == "__main__":
    STUDIES["tiny"] = replace(small_studies.TINY, teachers={})
    distill_table.main()
"""


@pytest.mark.slow
def test_a_study_that_is_killed_keeps_its_rows_and_goes_on(folder, tmp_path):
    """With its workers, which end by themselves."""
    script = tmp_path / "script.py"
    places = {"ANALYSES": Path(distill_table.__file__).parent, "TESTS": Path(__file__).parent}
    text = KILLED
    for name, place in places.items():
        text = text.replace(name, repr(str(place)))
    script.write_text(text)
    rows = tmp_path / "distill_tiny_rows.csv"  # written after that below --work
    command = [
        sys.executable, str(script), "--study", "tiny", "--data", str(folder), "--processes", "1",
        "--work", str(tmp_path / "work"), "--results", str(tmp_path), "--part", "main",
        "--arms", "ce",
    ]  # fmt: skip
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 300
    try:
        while not rows.is_file():
            assert started.poll() is None
            assert time.monotonic() < until, "no training has ended"
            time.sleep(0.05)
    finally:
        started.kill()
        started.wait()
    kept = rows_in(tmp_path).rows
    assert 1 <= len(kept) <= 2
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    after = rows_in(tmp_path).rows
    assert after.seed.tolist() == [0, 1]
    assert kept.equals(after[after.seed.isin(kept.seed)].reset_index(drop=True))
