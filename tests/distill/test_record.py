"""The record of a distillation run: one for trainer, reader and page, and checked where it is read.

``run_0_4_0`` was written by natstats 0.4.0 (``natstats distill --method kd+spectral``).
"""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

from natstats.distill import record
from natstats.distill.comparison.compare import compare_runs
from natstats.distill.record import RunInfo, checked, known
from natstats.distill.report.pages import _run_contents, write_run_report
from natstats.distill.results import DistillationRun
from natstats.distill.run_files import read_record
from natstats.distill.run_folders import RECORD, STATE, find_runs
from natstats.distill.training.state import TrainingState
from natstats.errors import NatstatsError, UsageError
from natstats.runs import store

OLD = Path(__file__).parent / "run_0_4_0"
FILES = (RECORD, "history.csv", "gradients.csv", "gap.csv", "outcomes.npz")


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


def edit(path, *keys, value=None, drop=False):
    """Change one field of a record, by its place."""
    info = json.loads((OLD / RECORD).read_text())
    inner = info
    for key in keys[:-1]:
        inner = inner[key]
    if drop:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    (path / RECORD).write_text(json.dumps(info))
    return path


def test_a_run_of_0_4_0_opens_with_machine_and_versions(old, tmp_path):
    run = DistillationRun.open(old)
    assert run.info["device"] == {"type": "cpu", "name": "x86_64", "threads": 1}
    assert set(run.terms) >= {"kd", "spectral.exponent", "spectral.spectrum"}
    text = write_run_report(tmp_path, run).read_text(encoding="utf-8")
    facts = dict(_run_contents(run)["facts"])
    assert facts["machine"] == "type cpu, name x86_64, threads 1"
    assert facts["versions"].startswith("natstats 0.4.0, torch 2.")
    for shown in (facts["machine"], facts["versions"], "2026-11-25T"):
        assert shown in text
    assert compare_runs([run]).methods.label.tolist() == ["kd+spectral"]
    # Written again, all is as it was: the record loses nothing.
    with store.add_files(tmp_path / "again", last=RECORD) as folder:
        run.write(folder)
    again = json.loads((tmp_path / "again" / RECORD).read_text())
    assert RECORD in again.pop("files")  # new in 0.5.0
    assert again == json.loads((OLD / RECORD).read_text())


def fields(kind=RunInfo, start=()):
    """Every field of the record by its place, lists by their first entry."""
    for name, inner in get_type_hints(kind).items():
        yield (*start, name)
        text = str(inner)
        for other in vars(record).values():
            if record._is_record(other) and other.__qualname__ in text:
                step = (0,) if "list[" in text else ()
                yield from fields(other, (*start, name, *step))
                break


def test_the_trainer_fills_every_field_that_can_be_read():
    """So that no page reads what nothing writes; the fields of a teacher run need one."""
    written = json.loads((OLD / RECORD).read_text())
    for place in fields():
        if "teacher_run" in place[:-1] or place == ("data", "listing"):  # new in 0.5.0
            continue
        if place[0] == "asked":  # new in 0.9.0, see test_repetition
            continue
        value = written
        for key in place[:-1]:
            value = value[key]
        assert place[-1] in value, place


@pytest.mark.parametrize(
    ("place", "name"),
    [((), "machine"), ((), "torch"), (("data",), "images"), (("student",), "digest"),
     (("costs",), "energy"), (("versions",), "cuda"), (("teacher",), "top5")],
)  # fmt: skip
def test_no_field_can_be_invented(made_runs, place, name):
    run = made_runs(n_images=10).run("kd")
    info = copy.deepcopy(run.info)
    inner = info
    for key in place:
        inner = inner[key]
    inner[name] = "made up"
    with pytest.raises(UsageError, match=f"expected only .*; got {name}"):
        replace(run, info=info)
    assert known(info) == run.info  # a newer natstats may have it: it is not read


@pytest.mark.parametrize("number", [-1, 0, True, False, 1.5, 1.0, "1", None, [1], float("nan")])
def test_a_number_that_is_no_format_is_refused(old, number):
    with pytest.raises(NatstatsError, match=r"distill\.json"):
        DistillationRun.open(edit(old, "format", value=number))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("method",), 3, "method: expected text; got 3"),
        (("seed",), True, "seed: expected a whole number from 0; got True"),
        (("accuracy",), 1.5, "accuracy: expected a number from 0 to 1; got 1.5"),
        (("teacher", "name"), None, "teacher: expected name; name is missing"),
        (("teacher", "accuracy"), "0.5", "teacher.accuracy: expected a number from 0 to 1 or"),
        (("costs", "epochs"), 2.5, "costs.epochs: expected a whole number from 0; got 2.5"),
        (("costs",), [], "costs: expected an object; got a list"),
        (("taps", 1, "student_shape", 0), "x", r"taps\[1\].student_shape\[0\]: expected a whole"),
        (("terms", 0, "weight"), {}, r"terms\[0\].weight: expected a number or a list"),
        (("notes", 0), 10**400, r"notes\[0\]: expected text"),
        (("data", "classes"), "dark", "data.classes: expected a list; got 'dark'"),
        (("arguments", "kd"), 4, "arguments.kd: expected an object; got 4"),
        (("taps", 0), {"student": "a"}, r"taps\[0\]: expected method, .*; method is missing"),
        (
            ("asked",),
            {"student": {"name": "cifar_resnet8"}},
            r"asked.student: expected name, seed; seed is missing",
        ),
        (("kind",), "cooking\x1b", r"expected the kind 'distillation'; .* is a 'cooking\\x1b'"),
    ],
)
def test_a_field_that_is_wrong_is_named(old, place, value, message):
    with pytest.raises(NatstatsError, match=message) as e:
        DistillationRun.open(edit(old, *place, value=value))
    if "kind" not in place:
        assert f"run: expected a whole run in {old}; distill.json, " in str(e.value)


@pytest.mark.parametrize("name", ["method", "seed", "data", "student", "accuracy", "format"])
def test_a_field_that_is_missing_is_named(old, name):
    with pytest.raises(NatstatsError, match=rf"distill\.json: expected .*; {name} is missing"):
        DistillationRun.open(edit(old, name, drop=True))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (RECORD, b"\xff{}", r"distill\.json: expected JSON"),
        (RECORD, b"[" * 100_000, r"distill\.json: expected"),
        (
            RECORD,
            b'{"kind": NaN}',
            r"distill\.json: expected JSON; a finite number was expected in place of NaN",
        ),
        ("history.csv", b"stage,epoch\nmain,1\n", r"history\.csv: expected the column learning_"),
        ("gap.csv", None, r"gap\.csv: No such file"),
        ("gradients.csv", b"\x00", r"gradients\.csv: expected"),
        ("outcomes.npz", b"PK\x03\x04", r"outcomes\.npz: expected arrays"),
    ],
)
def test_a_file_that_is_wrong_is_named(old, name, content, message):
    (old / name).unlink()
    if content is not None:
        (old / name).write_bytes(content)
    with pytest.raises(NatstatsError, match=f"expected a whole run in .*; {message}"):
        DistillationRun.open(old)


@pytest.mark.parametrize(
    ("name", "column", "value", "message"),
    [
        ("history.csv", "epoch", "1.5", "history.csv, epoch: expected whole numbers; got '1.5'"),
        ("history.csv", "epoch", "9" * 30, "history.csv, epoch: expected whole numbers"),
        ("history.csv", "loss", "low", "history.csv, loss: expected numbers; got 'low'"),
        ("gradients.csv", "norm", "1,5", "gradients.csv, norm: expected numbers; got '1,5'"),
        ("gap.csv", "height", "", "gap.csv, height: expected whole numbers; got ''"),
    ],
)
def test_a_cell_that_is_wrong_is_named(old, name, column, value, message):
    from natstats.files.csv_files import read_csv, write_csv

    frame = read_csv(old / name)
    frame.loc[0, column] = value
    write_csv(frame, old / name)
    with pytest.raises(NatstatsError, match=message):
        DistillationRun.open(old)


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("label", np.zeros(8), "label: expected .* whole numbers; got float64"),
        ("label", np.zeros((8, 1), int), r"label: expected .* of shape \(8, 1\)"),
        ("predicted", np.zeros(7, int), "predicted: expected one for each of the 8 labels; got 7"),
        ("probability", np.array(list("abcdefgh")), "probability: expected .* numbers"),
        ("image", np.arange(8), "image: expected .* texts"),
        ("probability", None, "expected the array probability; it is missing"),
    ],
)
def test_an_array_that_is_wrong_is_named(old, array, value, message):
    arrays = {**np.load(old / "outcomes.npz"), array: value}
    np.savez(old / "outcomes.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(NatstatsError, match=rf"outcomes\.npz(,|:) .*{message}|{message}"):
        DistillationRun.open(old)


def places(value, start=()):
    if start:
        yield start
    keys = value if isinstance(value, dict) else range(len(value) if type(value) is list else 0)
    for key in keys:
        yield from places(value[key], (*start, key))


@pytest.mark.slow
def test_any_changed_field_is_named_or_does_no_harm(old, tmp_path):
    """What opens can be shown and compared; what does not, is one sentence about this file."""
    deep = []
    for _ in range(300):
        deep = [deep]
    values = [None, True, "x", "", "\ud800\x1b", -1, 0, 1.5, float("nan"), 1e308, 10**400, [], {},
              deep, [None], {"a": {"b": [1]}}]  # fmt: skip
    rng = random.Random(0)
    everywhere = list(places(json.loads((OLD / RECORD).read_text())))
    refused = []
    for number in range(900):
        edit(old, *rng.choice(everywhere), value=rng.choice(values), drop=number % 16 == 0)
        try:
            if number % 45:
                read_record(old)
                continue
            run = DistillationRun.open(old)
        except (NatstatsError, ValueError) as error:
            refused.append(str(error))
            continue
        _run_contents(run)
        found = compare_runs([run])
        for text in (found.table(), found.markdown(), *found.sentences()):
            assert text.count("\x1b") == 0
    assert len(refused) > 300
    named = (RECORD, "kind", "format", "accuracy")
    assert not [text for text in refused if not any(name in text for name in named)]


@pytest.mark.slow
def test_names_from_a_run_lead_nowhere(old, tmp_path):
    """Fields that look like paths: nothing is opened or written outside of the folders given."""
    opened = []
    is_on = [True]

    def hook(event, arguments):
        if is_on[0] and event in ("open", "os.rename", "os.remove", "os.mkdir"):
            opened.append(arguments)

    info = json.loads((OLD / RECORD).read_text())
    secret = tmp_path / "secret"
    secret.mkdir()
    for place in places(info):
        inner = info
        for key in place[:-1]:
            inner = inner[key]
        if isinstance(inner[place[-1]], str) and place[-1] not in ("kind", "method"):
            inner[place[-1]] = f"../secret/{place[-1]}"
    info["teacher_run"] = {"model": "../secret/x", "spectra": str(secret / "spectra.npz")}
    (old / RECORD).write_text(json.dumps(info))
    sys.addaudithook(hook)
    run = DistillationRun.open(old)
    write_run_report(old, run)
    compare_runs([run]).save(tmp_path / "table", report=False)
    is_on[0] = False
    assert any(RECORD in str(arguments[0]) for arguments in opened)
    assert not [arguments for arguments in opened if "secret" in str(arguments)]
    assert not list(secret.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_is_not_waited_for(old, name):
    (old / name).unlink()
    os.mkfifo(old / name)
    with pytest.raises(NatstatsError, match="named pipe|holds no distill.json"):
        DistillationRun.open(old)


def test_a_pipe_in_place_of_a_state_is_not_waited_for(tmp_path):
    import torch

    os.mkfifo(tmp_path / STATE)
    state = TrainingState(tmp_path, {"seed": 0})
    with pytest.raises(NatstatsError, match="a named pipe, not a file"):
        state.read(torch.device("cpu"))
    os.mkfifo(tmp_path / f"{STATE}.partial")
    state.write({"step": 1})
    assert state.read(torch.device("cpu")) == {"step": 1}


def test_a_state_begun_again_stays_until_there_is_another(tmp_path):
    import torch

    TrainingState(tmp_path, {"seed": 0}).write({"step": 1})
    other = TrainingState(tmp_path, {"seed": 1}, begins_again=True)
    assert other.read(torch.device("cpu")) is None
    assert TrainingState(tmp_path, {"seed": 0}).read(torch.device("cpu")) == {"step": 1}
    other.write({"step": 2})
    assert other.read(torch.device("cpu")) == {"step": 2}


@pytest.mark.parametrize("opened", [DistillationRun.open, lambda path: find_runs([path])])
def test_a_home_that_is_not_there_is_a_sentence(opened):
    with pytest.raises(UsageError, match="expected the home of a user behind ~"):
        opened("~no-such-user-here/runs")


def test_facts_that_are_no_object_are_refused():
    with pytest.raises(UsageError, match="info: expected an object; got 'x'"):
        checked("x")
