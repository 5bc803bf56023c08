"""Trainings that are cut go on exactly, and what else is in their folder is kept."""

from __future__ import annotations

import copy
import math
import os

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import STATE, is_unfinished
from natstats.distill.training.distillation import WEIGHTS, distill
from natstats.distill.training.out_folders import check_out, check_seeds_out, finished
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.soundness import NotFiniteError
from natstats.distill.training.state import TrainingState
from natstats.errors import NatstatsError, UsageError


def weights_of(path):
    return load_file(path / WEIGHTS)


class Cut(BaseException):
    """Stands for a machine that goes away."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "cuts"),
    [
        ("kd", (3,)),
        ("kd+spectral", (1, 3, 5)),
        # In the stage of hints, at its end, in the main stage.
        ("fitnets", (1, 2, 7)),
        # In the stage of the paraphraser, and where it is used.
        ("ft", (2, 4)),
        ("ab", (2, 5)),
        ("ofd", (2,)),
    ],
)
def test_a_training_that_was_cut_ends_as_if_it_had_not_been(
    tmp_path, data, teacher, method, cuts, setup_of
):
    settings = {"method_args": {"margin": "measured"}} if method == "ofd" else {}
    whole = distill(setup_of(data, teacher, method, **settings), tmp_path / "whole", report=False)
    for cut in cuts:

        def stop(done, total, cut=cut):
            if done == cut:
                raise Cut

        with pytest.raises(Cut):
            distill(
                setup_of(data, teacher, method, **settings), tmp_path / "cut", report=False,
                progress=stop, keep_seconds=0.0,
            )  # fmt: skip
        assert not (tmp_path / "cut" / "distill.json").exists()
    resumed = distill(
        setup_of(data, teacher, method, **settings), tmp_path / "cut", report=False,
        keep_seconds=0.0,
    )  # fmt: skip
    assert resumed.info["costs"]["sittings"] > 1
    assert not (tmp_path / "cut" / STATE).exists()
    first, second = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    drop = ["seconds", "images_per_second", "memory_mib"]
    pd.testing.assert_frame_equal(
        whole.history.drop(columns=drop), resumed.history.drop(columns=drop)
    )
    pd.testing.assert_frame_equal(whole.gradients, resumed.gradients)
    np.testing.assert_array_equal(whole.outcomes.probability, resumed.outcomes.probability)
    pd.testing.assert_frame_equal(whole.gap, resumed.gap)


@pytest.mark.slow
def test_dropout_is_resumed_exactly_too(tmp_path, data, recipe):
    class Dropping(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 8, 3), nn.ReLU()
            self.drop, self.fc = nn.Dropout(0.5), nn.Linear(8, 3)

        def forward(self, x):
            return self.fc(self.drop(self.relu(self.conv(x)).mean((2, 3))))

    torch.manual_seed(0)
    network = Dropping()

    def run(name, **settings):
        setup = Distillation.of(copy.deepcopy(network), data, "ce", recipe=recipe)
        return distill(setup, tmp_path / name, report=False, keep_seconds=0.0, **settings)

    run("whole")

    def stop(done, total):
        if done == 4:
            raise Cut

    with pytest.raises(Cut):
        run("cut", progress=stop)
    run("cut")
    for key, value in weights_of(tmp_path / "whole").items():
        assert torch.equal(value, weights_of(tmp_path / "cut")[key]), key


@pytest.mark.slow
def test_a_state_of_other_settings_is_refused_and_kept(tmp_path, data, teacher, setup_of, recipe):
    def stop(done, total):
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        distill(setup_of(data, teacher), tmp_path / "run", progress=stop, keep_seconds=0.0)
    before = (tmp_path / "run" / STATE).read_bytes()
    with pytest.raises(UsageError, match=r"recipe\.learning_rate was 0\.02, is 0\.3"):
        other = setup_of(data, teacher, recipe=recipe.changed(learning_rate=0.3))
        distill(other, tmp_path / "run")
    assert (tmp_path / "run" / STATE).read_bytes() == before
    distill(other, tmp_path / "run", overwrite=True, report=False)
    assert not (tmp_path / "run" / STATE).exists()


@pytest.mark.slow
def test_a_run_that_is_being_replaced_is_finished_no_more(tmp_path, data, setup_of):
    """From the first state of the new training on, also within its first epoch."""
    path = tmp_path / "run"
    distill(setup_of(data, None, "ce"), path, report=False)

    def stop(done, total):
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        distill(
            setup_of(data, None, "ce"), path, report=False, overwrite=True, keep_seconds=0.0,
            progress=stop,
        )  # fmt: skip
    assert (path / STATE).is_file()
    assert finished(setup_of(data, None, "ce"), path) is None
    assert is_unfinished(path)
    assert distill(setup_of(data, None, "ce"), path, report=False).info["costs"]["sittings"] == 2


@pytest.mark.parametrize(
    "error", [PermissionError(13, "Permission denied"), MemoryError(), torch.OutOfMemoryError("no")]
)
def test_a_state_that_cannot_be_read_now_is_not_called_damaged(tmp_path, monkeypatch, error):
    """The advice to begin again would cost a good state."""
    state = TrainingState(tmp_path, {"seed": 0})
    state.write({"step": 1})

    def fail(*given):
        raise error

    monkeypatch.setattr("natstats.distill.training.state.load_plain", fail)
    with pytest.raises(NatstatsError, match="out: expected to read the state of a") as caught:
        state.read(torch.device("cpu"))
    assert "overwrite" not in str(caught.value)
    monkeypatch.undo()
    assert state.read(torch.device("cpu")) == {"step": 1}


@pytest.mark.parametrize(
    ("option", "value"),
    [("keep_seconds", "x"), ("keep_seconds", -1.0), ("overwrite", "no"), ("report", 1)],
)
def test_wrong_options_are_refused_at_the_door(tmp_path, data, setup_of, option, value):
    with pytest.raises(UsageError, match=f"{option}: expected "):
        distill(setup_of(data, None, "ce"), tmp_path / "run", **{option: value})
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_damaged_state_is_named(tmp_path, data, teacher, setup_of):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STATE).write_bytes(b"nonsense")
    with pytest.raises(NatstatsError, match=r"whole state of a training in .*--overwrite begins"):
        distill(setup_of(data, teacher), tmp_path / "run")
    assert (tmp_path / "run" / STATE).read_bytes() == b"nonsense"


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_is_named(tmp_path, data, teacher, recipe):
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = classifier("cifar_resnet8", 3).model
            self.n_passes = 0

        def forward(self, x):
            scores = self.inner(x)
            self.n_passes += self.training
            return scores * (math.inf if self.n_passes > 5 else 1.0)

    setup = Distillation.of(
        Broken(), data, "kd+at", teacher=teacher, recipe=recipe, method_args={"at.weight": 1.0}
    )
    with pytest.raises(
        NotFiniteError, match="kd and ce were not finite in stage main, epoch 2"
    ) as e:
        distill(setup, tmp_path / "run", report=False)
    assert "the last good state is kept" in str(e.value)
    assert (tmp_path / "run" / STATE).is_file()
    assert not (tmp_path / "run" / WEIGHTS).exists()
    kept = torch.load(tmp_path / "run" / STATE, weights_only=True)["student"]
    assert all(v.isfinite().all() for v in kept.values())


@pytest.mark.slow
def test_weights_that_a_finite_loss_broke_are_not_kept(tmp_path, data, teacher, setup_of):
    setup = setup_of(data, teacher, "ce")
    n_steps = 0

    def break_at_the_end(gradient):
        nonlocal n_steps
        n_steps += 1
        return gradient * math.inf if n_steps == 7 else gradient  # the last step of two epochs

    handle = None

    def begin(done, total):
        nonlocal handle
        if handle is None:  # after the first step
            handle = setup.student.model.conv1.weight.register_hook(break_at_the_end)

    with pytest.raises(
        NotFiniteError, match=r"expected finite weights; .* epoch 2 .*state is kept"
    ):
        distill(setup, tmp_path / "run", report=False, progress=begin)
    kept = torch.load(tmp_path / "run" / STATE, weights_only=True)
    assert kept["epoch"] == 1
    assert all(v.isfinite().all() for v in kept["student"].values())
    assert not (tmp_path / "run" / "distill.json").exists()


@pytest.mark.slow
def test_a_run_that_is_replaced_can_be_cut_and_goes_on(tmp_path, data, teacher, setup_of):
    path = tmp_path / "run"
    distill(setup_of(data, teacher, seed=1), path, report=False)

    def stop(done, total):
        if done == 5:  # in the second epoch
            raise Cut

    with pytest.raises(UsageError, match="--overwrite replaces a training"):
        distill(setup_of(data, teacher), path, report=False)
    with pytest.raises(Cut):
        distill(setup_of(data, teacher), path, report=False, progress=stop, overwrite=True)
    with pytest.raises(UsageError, match="expected a finished training"):
        DistillationRun.open(path)
    resumed = distill(setup_of(data, teacher), path, report=False)
    assert resumed.seed == 3
    assert resumed.info["costs"]["sittings"] == 2
    whole = distill(setup_of(data, teacher), tmp_path / "whole", report=False)
    assert resumed.history.loss.tolist() == whole.history.loss.tolist()


@pytest.mark.parametrize(
    "there", ["distill.json", STATE, f"{STATE}.partial", "table.csv", "table.json", "seed-0/notes"]
)
def test_several_seeds_leave_what_else_is_there_alone(tmp_path, there):
    check_seeds_out(tmp_path / "new")
    check_seeds_out(tmp_path)
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("mine")
    with pytest.raises(UsageError, match="out: expected a folder for the runs of several seeds"):
        check_seeds_out(tmp_path)


def test_several_seeds_go_on_beside_those_that_are_there(tmp_path):
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / STATE).touch()
    check_seeds_out(tmp_path)
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UsageError, match="holds other things and is kept"):
        check_seeds_out(tmp_path)
    (tmp_path / "table.json").write_text("{}")  # then the page is that of the table
    check_seeds_out(tmp_path)


@pytest.mark.parametrize("name", ["state.pt", "state.pth", f"{STATE}.bak", "history.csv"])
def test_files_of_nearly_the_name_of_a_state_are_the_users(tmp_path, name):
    (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="is kept"):
            check_out(tmp_path, overwrite)
    assert not is_unfinished(tmp_path)


def test_a_place_that_cannot_be_written_to_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UsageError, match="out: expected a place that can be written to"):
        check_out(tmp_path, False)


@pytest.mark.slow
def test_a_finished_run_is_that_of_the_same_training_or_none(
    tmp_path, data, teacher, setup_of, recipe
):
    alone = recipe.changed(epochs=1)
    setup = setup_of(data, None, "ce", recipe=alone)
    assert finished(setup, tmp_path / "run") is None
    done = distill(setup, tmp_path / "run", report=False)
    assert finished(setup_of(data, None, "ce", recipe=alone), tmp_path / "run").path == done.path
    for other, named in (
        (setup_of(data, None, "ce", seed=4, recipe=alone), "seed was 3, is 4"),
        (setup_of(data, teacher, "at", recipe=alone), "method was ce, is at"),
        (setup_of(data, None, "ce", recipe=recipe), "recipe.epochs was 1, is 2"),
    ):
        with pytest.raises(UsageError, match=named):
            finished(other, tmp_path / "run")


def test_an_interrupted_write_leaves_the_state_that_was_there(tmp_path, monkeypatch):
    state = TrainingState(tmp_path, {"seed": 0})
    state.write({"step": 1})

    def cut(values, file):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        state.write({"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == [STATE]
    assert state.read(torch.device("cpu")) == {"step": 1}
