"""Runs of distillation: what is written is read, what is broken is told, what is there is found."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from natstats.distill import run_files
from natstats.distill.results import GAP, DistillationRun, Outcomes
from natstats.distill.run_folders import RECORD, STATE, find_runs, find_unfinished
from natstats.errors import NatstatsError, UsageError
from natstats.runs import store


def test_what_is_written_is_read(made_runs, tmp_path):
    run = made_runs().run("kd+spectral", seed=3, epochs_before=2, notes=["a note"])
    with store.add_files(tmp_path / "run", last=RECORD) as folder:
        run.write(folder)
    again = DistillationRun.open(tmp_path / "run")
    assert again.path == tmp_path / "run"
    assert again.info == {"kind": "distillation", "format": 1, **run.info}
    for name in ("history", "gradients", "gap"):
        # To the last bit: a table must not depend on whether a run was written in between.
        pd.testing.assert_frame_equal(getattr(again, name), getattr(run, name), check_exact=True)
    for name, array in run.outcomes.arrays().items():
        np.testing.assert_array_equal(again.outcomes.arrays()[name], array)
    assert again.terms == ["ce", "kd", "spectral"]
    assert (again.method, again.seed, again.teacher) == ("kd+spectral", 3, "large")


def test_a_run_without_a_teacher(made_runs, tmp_path):
    made_runs().save(tmp_path / "run", method="ce")
    run = DistillationRun.open(tmp_path / "run")
    assert run.teacher is None
    assert (tmp_path / "run/gap.csv").read_text().split() == [",".join(GAP)]
    assert math.isnan(run.teacher_accuracy)
    assert math.isnan(run.outcomes.agreement)
    assert all(map(math.isnan, run.gap_means().values()))
    assert "teacher_predicted" not in np.load(tmp_path / "run/outcomes.npz").files


def test_the_state_of_the_trainer_and_other_files_stay(made_runs, tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / STATE).write_bytes(b"1")
    made_runs().save(path)
    assert (path / STATE).read_bytes() == b"1"
    assert DistillationRun.open(path).method == "kd"


def test_numbers_of_a_run(made_runs):
    run = made_runs().run("kd", closed=0.2)
    assert run.accuracy == (run.outcomes.predicted == run.outcomes.label).mean()
    low, high = run.interval()
    assert 0 < low < run.accuracy < high < 1
    # Wilson's interval of 7 of 20, 95 %, by his formula: 0.18119 to 0.56715.
    n = np.zeros(20, int)
    answers = Outcomes(n, (np.arange(20) >= 7).astype(int), n, n.astype(str))
    one = replace(run, info={**run.info, "accuracy": 0.35}, outcomes=answers)
    assert one.interval() == pytest.approx((0.18119, 0.56715), abs=1e-5)
    gaps = run.gap_means()
    apart = (run.gap.exponent_after - run.gap.exponent_teacher).abs().mean()
    assert gaps["gap_after"] == pytest.approx(apart)
    assert gaps["gap_before"] == pytest.approx(0.5)
    ratios = run.gradient_ratios()
    assert set(ratios.ratio[ratios.term == "kd"]) == {2.0}


def test_the_rows_of_the_table_of_epochs(made_runs):
    run = made_runs().run("kd")
    n = len(run.history)
    lines = [len(run.table(rows=rows).splitlines()) for rows in (None, n, 1, 0)]
    assert lines[0] == lines[1] == n + 1
    # A line below tells what is left out.
    assert lines[2:] == [3, 2]


def test_a_gradient_beside_no_cross_entropy_has_no_ratio(made_runs):
    run = made_runs().run("kd")
    silent = replace(run, gradients=run.gradients.assign(ce_norm=0.0))
    assert silent.gradient_ratios().ratio.isna().all()


@pytest.mark.parametrize("name", ["method", "seed", "data", "student", "accuracy"])
def test_a_fact_that_is_missing_is_named(made_runs, name):
    run = made_runs().run()
    with pytest.raises(UsageError, match=f"{name} is missing"):
        replace(run, info={key: value for key, value in run.info.items() if key != name})


def test_a_column_that_is_missing_is_named(made_runs):
    run = made_runs().run()
    with pytest.raises(UsageError, match="history: expected the column eval_accuracy"):
        replace(run, history=run.history.drop(columns="eval_accuracy"))


def test_an_accuracy_that_is_not_that_of_the_answers_is_refused(made_runs):
    run = made_runs().run()
    with pytest.raises(UsageError, match="accuracy: expected that of the outcomes"):
        replace(run, info={**run.info, "accuracy": run.accuracy + 0.01})


def test_outcomes_of_different_lengths_are_refused():
    with pytest.raises(UsageError, match="predicted has shape"):
        Outcomes(np.zeros(3), np.zeros(2), np.zeros(3), np.array(list("abc")))
    with pytest.raises(UsageError, match="one length"):
        Outcomes(np.zeros(0), np.zeros(0), np.zeros(0), np.array([], str))


def test_what_is_not_a_run(tmp_path):
    with pytest.raises(UsageError, match=r"holds no distill\.json"):
        DistillationRun.open(tmp_path / "nothing")
    with pytest.raises(UsageError, match=r"holds no distill\.json"):
        DistillationRun.open(tmp_path)


def test_an_unfinished_training_says_so(made_runs, tmp_path):
    made_runs().save(tmp_path / "cut")
    (tmp_path / "cut" / RECORD).unlink()
    (tmp_path / "cut" / STATE).touch()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / f"{STATE}.partial").touch()
    for name in ("cut", "new"):
        with pytest.raises(UsageError, match="expected a finished training"):
            DistillationRun.open(tmp_path / name)
    assert find_unfinished([tmp_path]) == [tmp_path / "cut", tmp_path / "new"]
    with pytest.raises(UsageError, match="the training in .*cut is not finished"):
        find_runs([tmp_path])


def _edit(path: Path, **changes):
    record = json.loads((path / RECORD).read_text())
    (path / RECORD).write_text(json.dumps({**record, **changes}))


def test_a_newer_format_and_another_kind(made_runs, tmp_path):
    path = made_runs().save(tmp_path / "run")
    _edit(path, format=2)
    with pytest.raises(NatstatsError, match="format 2 and was written by a newer natstats"):
        DistillationRun.open(path)
    _edit(path, format=1, kind="cooking")
    with pytest.raises(NatstatsError, match="'cooking'"):
        DistillationRun.open(path)


@pytest.mark.parametrize("name", ["history.csv", "gradients.csv", "gap.csv", "outcomes.npz"])
@pytest.mark.parametrize("damage", ["missing", "empty", "other", "cut"])
def test_a_damaged_run_says_so(made_runs, tmp_path, name, damage):
    path = made_runs().save(tmp_path / "run")
    content = (path / name).read_bytes()
    if damage == "missing":
        (path / name).unlink()
    else:
        kinds = {"empty": b"", "other": b"x,y\n1,2\n", "cut": content[: len(content) // 3]}
        (path / name).write_bytes(kinds[damage])
    if damage == "cut" and name.endswith(".csv"):
        # A table that ends in the middle of a row has empty cells at the end.
        (path / name).write_bytes(content.splitlines()[0][:9])
    with pytest.raises(NatstatsError, match="expected a whole run in"):
        DistillationRun.open(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"kind": "distillation"}'])
def test_a_damaged_record_says_so(made_runs, tmp_path, text):
    path = made_runs().save(tmp_path / "run")
    (path / RECORD).write_text(text)
    with pytest.raises(NatstatsError, match="expected a whole run in"):
        DistillationRun.open(path)


@pytest.mark.slow
def test_any_changed_byte_is_damage_or_does_no_harm(made_runs, tmp_path, n_damaged):
    """A packed file fails in many ways, each of which has to end in the same words."""
    path = made_runs().save(tmp_path / "run")
    assert n_damaged(path / "outcomes.npz", lambda: DistillationRun.open(path)) > 10


def test_outcomes_are_never_unpickled(made_runs, tmp_path):
    path = made_runs().save(tmp_path / "run")
    names = dict(np.load(path / "outcomes.npz"))
    names["image"] = names["image"].astype(object)
    np.savez(path / "outcomes.npz", **names)
    with pytest.raises(NatstatsError, match="expected a whole run in"):
        DistillationRun.open(path)


def test_runs_are_found_below_folders_once_and_in_order(made_runs, tmp_path):
    made = made_runs(n_images=10)
    for name in ("b/seed-10", "b/seed-2", "a/deep/er/run", ".hidden/run", "b/.partial.x"):
        made.save(tmp_path / name, accuracy=0.5)
    # A run in a run is no run of its own: such as what a trainer keeps of its best epoch.
    made.save(tmp_path / "b/seed-2/inner", accuracy=0.5)
    names = ["a/deep/er/run", "b/seed-2", "b/seed-10"]
    expected = [tmp_path / name for name in names]
    assert find_runs([tmp_path]) == expected
    assert find_runs([tmp_path / "b", tmp_path, tmp_path / "b/seed-2"]) == expected
    (tmp_path / "b/loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_runs([tmp_path])) == 3


def test_where_nothing_is_found_the_path_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, reason in (("no", "is not there"), ("file", "is a file"), ("empty", "holds no")):
        with pytest.raises(UsageError, match=f"{name} {reason}"):
            find_runs([tmp_path / name])


def test_outcomes_keep_their_kinds():
    found = Outcomes([0.0, 1.0], [1, 1], [0.5, 0.25], ["a", "b"])
    assert found.label.dtype == np.int64
    assert found.probability.dtype == np.float32


def test_packed_zeros_do_not_fill_the_memory(made_runs, tmp_path, monkeypatch):
    path = made_runs().save(tmp_path / "run")
    monkeypatch.setattr(run_files, "_MOST_BYTES", 1 << 20)
    np.savez_compressed(path / "outcomes.npz", label=np.zeros(1 << 20, np.int64))
    assert (path / "outcomes.npz").stat().st_size < 1 << 14
    with pytest.raises(NatstatsError, match=r"outcomes\.npz: .* at most 1 are read"):
        DistillationRun.open(path)


def test_half_a_surrogate_pair_in_a_record_is_named(made_runs, tmp_path):
    path = made_runs().save(tmp_path / "run")
    _edit(path, command="\ud800")
    with pytest.raises(NatstatsError, match=r"distill\.json: .* surrogate"):
        DistillationRun.open(path)
