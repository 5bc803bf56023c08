"""Training: exact resume, stages that train what they say, a teacher that stays as it is."""

from __future__ import annotations

import copy
import json
import math
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import natstats
from natstats.distill.losses import ring_comparison
from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import STATE, is_unfinished
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import WEIGHTS, distill
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import evaluate
from natstats.distill.training.frozen_networks import frozen
from natstats.distill.training.gradients import gradient_rows
from natstats.distill.training.loading import TrainBatches, eval_batches, normalise
from natstats.distill.training.objective import Objective
from natstats.distill.training.optimization import learning_rate
from natstats.distill.training.out_folders import check_out, check_seeds_out, finished
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.stages import plan_training
from natstats.distill.training.state import TrainingState
from natstats.distill.training.trainer import Trainer
from natstats.errors import NatstatsError, UsageError
from natstats.networks.load import with_checkpoint

RECIPE = Recipe(epochs=2, batch_size=8, size=16, warmup_epochs=0.5, learning_rate=0.02, padding=2)
CLASSES = ("dark", "light", "mid")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three classes of brightness, 10 training and 6 test images of each."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, n in (("train", 10), ("val", 6)):
        for place, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for number in range(n):
                pixels = np.clip(rng.normal(60 + 60 * place, 30, (16, 16, 3)), 0, 255)
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def data(folder):
    return open_labelled(f"imagefolder:{folder}", RECIPE)


@pytest.fixture(scope="session")
def teacher(data):
    """A trained one, so that its running statistics are those of data."""
    network = classifier("cifar_resnet14", 3, seed=5)
    setup = Distillation.of(network, data, "ce", recipe=RECIPE.changed(epochs=2))
    trainer = Trainer(
        network.model, None, setup.program, TrainBatches(data.train, setup.recipe, 0),
        setup.recipe, lambda: (0.0, 0.0), together=Processes(0, 1, torch.device("cpu")),
    )  # fmt: skip
    trainer.train()
    network.model.eval().zero_grad(set_to_none=True)
    return network


def setup_of(data, teacher, method="kd", student="cifar_resnet8", seed=3, recipe=RECIPE, **more):
    return Distillation.of(
        classifier(student, 3, seed=seed), data, method, teacher=teacher, recipe=recipe,
        seed=seed, **more,
    )  # fmt: skip


def weights_of(path):
    return load_file(path / WEIGHTS)


class Cut(BaseException):
    """Stands for a machine that goes away."""


@pytest.mark.parametrize(
    ("method", "cuts"),
    [
        ("kd+spectral", (1, 3, 5)),
        ("fitnets", (1, 2, 7)),  # in the stage of hints, at its end, in the main stage
        ("ft", (2, 4)),  # in that of the paraphraser, and where it is used
        ("ab", (2, 5)),
        ("fsp", (1, 4)),
        ("ofd", (2,)),
        ("jacobian", (3,)),
    ],
)
def test_a_training_that_was_cut_ends_as_if_it_had_not_been(tmp_path, data, teacher, method, cuts):
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
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        whole.history.drop(columns=drop), resumed.history.drop(columns=drop)
    )
    pd.testing.assert_frame_equal(whole.gradients, resumed.gradients)
    np.testing.assert_array_equal(whole.outcomes.probability, resumed.outcomes.probability)
    pd.testing.assert_frame_equal(whole.gap, resumed.gap)


def test_dropout_is_resumed_exactly_too(tmp_path, data):
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
        setup = Distillation.of(copy.deepcopy(network), data, "ce", recipe=RECIPE)
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


def test_a_state_of_other_settings_is_refused_and_kept(tmp_path, data, teacher):
    def stop(done, total):
        if done == 2:
            raise Cut

    with pytest.raises(Cut):
        distill(setup_of(data, teacher), tmp_path / "run", progress=stop, keep_seconds=0.0)
    before = (tmp_path / "run" / STATE).read_bytes()
    with pytest.raises(UsageError, match=r"recipe\.learning_rate was 0\.02, is 0\.3"):
        other = setup_of(data, teacher, recipe=RECIPE.changed(learning_rate=0.3))
        distill(other, tmp_path / "run")
    assert (tmp_path / "run" / STATE).read_bytes() == before
    distill(other, tmp_path / "run", overwrite=True, report=False)
    assert not (tmp_path / "run" / STATE).exists()


def test_a_damaged_state_is_named(tmp_path, data, teacher):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / STATE).write_bytes(b"nonsense")
    with pytest.raises(NatstatsError, match=r"whole state of a training in .*--overwrite begins"):
        distill(setup_of(data, teacher), tmp_path / "run")
    assert (tmp_path / "run" / STATE).read_bytes() == b"nonsense"


@pytest.mark.parametrize(
    "method",
    ["kd", "fitnets", "at", "fsp", "jacobian", "ft", "ab", "ofd", "spectral", "kd+spectral"],
)
def test_the_teacher_stays_as_it_is_and_the_student_learns(tmp_path, data, teacher, method):
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    needed = [p.requires_grad for p in teacher.model.parameters()]
    setup = setup_of(data, teacher, method, recipe=RECIPE.changed(epochs=1))
    start = {k: v.clone() for k, v in setup.student.model.state_dict().items()}
    run = distill(setup, tmp_path / "run", report=False)
    for key, value in teacher.model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(module.training for module in teacher.model.modules())
    assert [p.requires_grad for p in teacher.model.parameters()] == needed
    assert all(p.grad is None for p in teacher.model.parameters())
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in teacher.model.modules()]
    assert not any(hooks)
    weights = weights_of(tmp_path / "run")
    assert weights.keys() == start.keys()  # no connectors
    assert not torch.equal(weights["conv1.weight"], start["conv1.weight"])
    assert {row["name"].split(".")[0] for row in run.info["terms"]} >= set(method.split("+"))
    assert np.isfinite(run.history["loss"]).all()
    # One pass of the student a step: its batch norms counted each once.
    n_steps = TrainBatches(data.train, setup.recipe, 0).n_steps
    trained = [s for s in setup.program.stages if s.trains != "losses"]
    counted = int(weights["bn1.num_batches_tracked"])
    assert counted == n_steps * sum(stage.epochs for stage in trained)


def test_the_teacher_in_batch_statistics_is_given_back(teacher):
    model = copy.deepcopy(teacher.model).eval()
    images = torch.randn(4, 3, 16, 16)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    plain = model(images)
    with frozen(model, batch_statistics=True):
        by_batch = model(images)
        norm = model.get_submodule("bn1")
        assert norm.training
    assert not torch.allclose(plain, by_batch)
    torch.testing.assert_close(model(images), plain)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not any(module.training for module in model.modules())


class TestStages:
    def trained(self, data, teacher, method, until, **arguments):
        """State of student and losses after the stage called `until`."""
        setup = setup_of(data, teacher, method, method_args=arguments)
        names = [stage.name for stage in setup.program.stages]
        kept = {}
        self.first_losses = []

        class Stop(Exception):  # noqa: N818
            pass

        before = {k: v.clone() for k, v in setup.student.model.state_dict().items()}

        def log(row):
            kept.update(copy.deepcopy(setup.student.model.state_dict()))
            first = setup.program.stages[0].terms[0].term.loss
            self.first_losses.append(copy.deepcopy(first.state_dict()))
            if row["stage"] == until and row["epoch"] == 1:
                raise Stop

        trainer = Trainer(
            setup.student.model, teacher.model, setup.program,
            TrainBatches(data.train, setup.recipe, 0), setup.recipe, lambda: (0.0, 0.0),
            together=Processes(0, 1, torch.device("cpu")), log=log,
        )  # fmt: skip
        with pytest.raises(Stop):
            trainer.train()
        return names, before, kept, setup

    def test_hints_train_the_lower_student_and_the_regressor_only(self, data, teacher):
        names, before, after, setup = self.trained(data, teacher, "fitnets", "fitnets.hint")
        assert names == ["fitnets.hint", "main"]
        same = {k for k in before if torch.equal(before[k], after[k]) and "weight" in k}
        assert {"fc.weight", "stage3.0.conv1.weight"} <= same
        assert "stage2.0.conv1.weight" not in same
        main = setup.program.stages[-1]
        assert not list(nn.ModuleList(b.term.loss for b in main.terms).parameters())

    def test_the_paraphraser_trains_alone_and_is_frozen_then(self, data, teacher):
        names, before, after, _ = self.trained(data, teacher, "ft", "ft.paraphraser")
        assert names == ["ft.paraphraser", "main"]
        for key in before:
            assert torch.equal(before[key], after[key]), key
        self.trained(data, teacher, "ft", "main")
        fresh = setup_of(data, teacher, "ft").program.stages[0].terms[0].term.loss.state_dict()
        after_own, after_main = self.first_losses
        assert not all(torch.equal(fresh[key], after_own[key]) for key in fresh)
        for key, value in after_own.items():
            assert torch.equal(value, after_main[key]), key

    def test_fsp_goes_on_with_labels_alone(self, data, teacher):
        names, before, after, setup = self.trained(data, teacher, "fsp", "fsp.matrices")
        assert names == ["fsp.matrices", "main"]
        assert setup.program.stages[-1].terms == ()
        assert setup.program.stages[0].ce_weight == 0
        assert torch.equal(before["fc.weight"], after["fc.weight"])
        assert not torch.equal(before["conv1.weight"], after["conv1.weight"])

    def test_stages_of_a_combination_follow_each_other(self, data, teacher):
        program = setup_of(data, teacher, "fitnets+ft+kd").program
        assert [s.name for s in program.stages] == ["fitnets.hint", "ft.paraphraser", "main"]
        assert [b.term.name for b in program.stages[-1].terms] == ["fitnets.kd", "ft.factors", "kd"]
        assert program.stages[-1].ce_weight == pytest.approx(0.1)


def test_one_step_is_that_of_a_plain_loop(data, teacher):
    """The trainer's first step, written out with torch alone."""
    setup = setup_of(data, teacher, "kd", recipe=RECIPE.changed(epochs=1))
    student = copy.deepcopy(setup.student.model).train()
    batches = TrainBatches(data.train, setup.recipe, 3)
    stopped = {}

    class Stop(Exception):  # noqa: N818
        pass

    def stop(done, total):
        stopped.update(copy.deepcopy(setup.student.model.state_dict()))
        raise Stop

    trainer = Trainer(
        setup.student.model, teacher.model, setup.program, batches, setup.recipe,
        lambda: (0.0, 0.0), together=Processes(0, 1, torch.device("cpu")), seed=3, progress=stop,
    )  # fmt: skip
    with pytest.raises(Stop):
        trainer.train()
    batch = next(batches.epoch("main", 0))
    images = normalise(batch.images, setup.recipe.mean, setup.recipe.std)
    rate = learning_rate(setup.recipe, 0, batches.n_steps)
    optimizer = torch.optim.SGD(
        student.parameters(), rate, 0.9, nesterov=True, weight_decay=setup.recipe.weight_decay
    )
    scores = student(images)
    with torch.no_grad():
        goal = teacher.model(images)
    soft = functional.kl_div(
        functional.log_softmax(scores / 4, 1), functional.softmax(goal / 4, 1),
        reduction="batchmean",
    )  # fmt: skip
    loss = 0.1 * functional.cross_entropy(scores, batch.labels) + 0.9 * 16 * soft
    loss.backward()
    optimizer.step()
    for key, value in student.state_dict().items():
        torch.testing.assert_close(stopped[key], value, rtol=1e-5, atol=1e-6, msg=key)


def test_a_loss_that_is_not_finite_stops_and_is_named(tmp_path, data, teacher):
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
        Broken(), data, "kd+at", teacher=teacher, recipe=RECIPE, method_args={"at.weight": 1.0}
    )
    with pytest.raises(
        NatstatsError, match="kd and ce were not finite in stage main, epoch 2"
    ) as e:
        distill(setup, tmp_path / "run", report=False)
    assert "the last good state is kept" in str(e.value)
    assert (tmp_path / "run" / STATE).is_file()
    assert not (tmp_path / "run" / WEIGHTS).exists()
    kept = torch.load(tmp_path / "run" / STATE, weights_only=True)["student"]
    assert all(v.isfinite().all() for v in kept.values())


def test_weights_that_a_finite_loss_broke_are_not_kept(tmp_path, data, teacher):
    setup = setup_of(data, teacher, "ce")
    n_steps = 0

    def break_at_the_end(gradient):
        nonlocal n_steps
        n_steps += 1
        return gradient * math.inf if n_steps == 6 else gradient  # the last step of two epochs

    handle = None

    def begin(done, total):
        nonlocal handle
        if handle is None:  # after the first step; gradients of reports are taken, too
            handle = setup.student.model.conv1.weight.register_hook(break_at_the_end)

    with pytest.raises(NatstatsError, match=r"expected finite weights; .* epoch 2 .*state is kept"):
        distill(setup, tmp_path / "run", report=False, progress=begin)
    kept = torch.load(tmp_path / "run" / STATE, weights_only=True)
    assert kept["epoch"] == 1
    assert all(v.isfinite().all() for v in kept["student"].values())
    assert not (tmp_path / "run" / "distill.json").exists()


def test_a_run_that_is_replaced_can_be_cut_and_goes_on(tmp_path, data, teacher):
    path = tmp_path / "run"
    distill(setup_of(data, teacher, seed=1), path, report=False)

    def stop(done, total):
        if done == 4:
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


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(UsageError, match="out: expected a place that can be written to"):
        check_out(tmp_path, False)


def test_a_finished_run_is_that_of_the_same_training_or_none(tmp_path, data, teacher):
    alone = RECIPE.changed(epochs=1)
    setup = setup_of(data, None, "ce", recipe=alone)
    assert finished(setup, tmp_path / "run") is None
    done = distill(setup, tmp_path / "run", report=False)
    assert finished(setup_of(data, None, "ce", recipe=alone), tmp_path / "run").path == done.path
    for other, named in (
        (setup_of(data, None, "ce", seed=4, recipe=alone), "seed was 3, is 4"),
        (setup_of(data, teacher, "at", recipe=alone), "method was ce, is at"),
        (setup_of(data, None, "ce", recipe=RECIPE), "recipe.epochs was 1, is 2"),
    ):
        with pytest.raises(UsageError, match=named):
            finished(other, tmp_path / "run")


def test_the_student_comes_back_in_the_mode_in_which_it_came(tmp_path, data):
    setup = setup_of(data, None, "ce", recipe=RECIPE.changed(epochs=1))
    student = setup.student.model
    student.eval()
    student.stage1.train()
    modes = [module.training for module in student.modules()]
    distill(setup, tmp_path / "run", report=False)
    assert [module.training for module in student.modules()] == modes


def test_epochs_between_evaluations_are_a_number_above_0(tmp_path, data, teacher):
    with pytest.raises(UsageError, match="evaluate_every: expected a whole number of at least 1"):
        distill(setup_of(data, teacher), tmp_path / "run", evaluate_every=0)
    assert not (tmp_path / "run").exists()


def test_a_batch_norm_that_sees_one_value_is_said_in_words(tmp_path, data):
    setup = setup_of(data, None, "ce", "resnet18", recipe=RECIPE.changed(batch_size=1))
    with pytest.raises(UsageError, match=r"batch_size: expected two images or more .* got 1"):
        distill(setup, tmp_path / "run", report=False)


def test_the_run_is_complete_and_its_weights_are_those_evaluated(tmp_path, data, teacher):
    setup = setup_of(data, teacher, "kd+spectral")
    run = distill(setup, tmp_path / "run", command="natstats distill ...")
    for name in ("distill.json", "history.csv", "gradients.csv", "outcomes.npz", "gap.csv",
                 WEIGHTS, "report.html"):  # fmt: skip
        assert (tmp_path / "run" / name).is_file(), name
    again = classifier("cifar_resnet8", 3, checkpoint=tmp_path / "run" / WEIGHTS).model
    recipe = setup.recipe
    found = evaluate(
        again, lambda: eval_batches(data.evaluation, recipe), recipe, torch.device("cpu")
    )
    assert found.accuracy == run.accuracy == run.history["eval_accuracy"].iloc[-1]
    np.testing.assert_array_equal(found.predicted.numpy(), run.outcomes.predicted)
    info = json.loads((tmp_path / "run" / "distill.json").read_text())
    assert info["costs"]["teacher_passes"] == 1
    assert info["costs"]["ms_per_step"] > 0
    assert info["teacher"]["accuracy"] == pytest.approx(run.teacher_accuracy)
    assert info["teacher"]["digest"] == teacher.digest()
    assert [t["name"] for t in info["terms"]] == [
        "ce", "kd", "spectral.spectrum", "spectral.exponent",
    ]  # fmt: skip
    assert len(run.gap) == 2  # maps of 16 and 8 pixels; 4 are too few
    assert (run.gap["distance_before"] > 0).all()
    names = set(run.gradients["term"])
    assert names == {"kd", "spectral.spectrum", "spectral.exponent"}


def test_the_evaluation_is_what_a_loop_over_files_gives(folder, data, teacher):
    recipe = Distillation.of(teacher, data, "ce", recipe=RECIPE).recipe
    found = evaluate(
        teacher.model, lambda: eval_batches(data.evaluation, recipe), recipe, torch.device("cpu")
    )
    right, total = 0, 0.0
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    for label, name in enumerate(CLASSES):
        for path in sorted((folder / "val" / name).iterdir()):
            pixels = torch.tensor(np.array(Image.open(path)), dtype=torch.float32).permute(2, 0, 1)
            with torch.no_grad():
                scores = teacher.model(((pixels / 255 - mean) / std)[None])[0]
            right += int(scores.argmax()) == label
            total -= float(functional.log_softmax(scores, 0)[label])
    assert found.accuracy == right / 18
    assert found.loss == pytest.approx(total / 18, rel=1e-4)
    assert found.top5 == 1.0


def test_gradient_rows_are_the_gradients_and_leave_no_trace(data, teacher):
    setup = setup_of(data, teacher, "kd+spectral")
    stage = setup.program.stages[-1]
    images = torch.zeros(1, 3, 16, 16)
    objective = Objective(setup.student.model.train(), teacher.model, stage.terms, images)
    batch = next(TrainBatches(data.train, setup.recipe, 0).epoch("main", 0))
    pixels = normalise(batch.images, setup.recipe.mean, setup.recipe.std)
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    rows = gradient_rows(objective, pixels, batch.labels, {"kd": 0.9, "spectral.spectrum": 2.0})
    for key, value in objective.state_dict().items():
        assert torch.equal(value, before[key]), key
    values = objective(pixels, batch.labels)
    parameters = list(setup.student.model.parameters())
    for row in rows:
        value = row["weight"] * values.terms[row["term"]]
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        norm = math.sqrt(sum(float(g.square().sum()) for g in grads if g is not None))
        assert row["norm"] == pytest.approx(norm, rel=1e-4)
    assert -1 <= rows[0]["cosine"] <= 1


def test_a_pass_for_gradients_is_none_of_the_batches_that_margins_are_measured_on(data, teacher):
    setup = setup_of(data, teacher, "ofd", method_args={"margin": "measured"})
    stage = setup.program.stages[-1]
    images = torch.zeros(1, 3, 16, 16)
    objective = Objective(setup.student.model.train(), teacher.model, stage.terms, images)
    loss = stage.terms[0].term.loss.train()
    loss.measured_batches = 2
    batches = TrainBatches(data.train, setup.recipe, 0).epoch("main", 0)
    pixels, labels = zip(
        *[(normalise(b.images, setup.recipe.mean, setup.recipe.std), b.labels) for b in batches],
        strict=True,
    )
    objective(pixels[0], labels[0])
    gradient_rows(objective, pixels[1], labels[1], {"ofd": 1.0})
    before = loss.margin(0).clone()
    objective(pixels[2], labels[2])
    assert int(loss.n_batches) == 2
    assert not torch.equal(loss.margin(0), before)


def test_values_that_do_not_count_come_without_a_gradient(data, teacher):
    """Several processes wait for the gradients of all that the objective gives."""
    stage = setup_of(data, teacher, "kd+spectral").program.stages[-1]
    student = classifier("cifar_resnet8", 3).model
    objective = Objective(student, teacher.model, stage.terms, torch.zeros(1, 3, 16, 16))
    factors = {"ce": 0.0, "kd": 0.0, "spectral.spectrum": 1.0, "spectral.exponent": 0.0}
    values = objective(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]), factors)
    assert not values.objective_ce.requires_grad
    assert [name for name, value in values.terms.items() if value.requires_grad] == [
        "spectral.spectrum"
    ]


class Attentive(nn.Module):
    """Patches of 4 pixels that attend to each other."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_jacobians_of_attention_are_matched(teacher):
    """Fused attention has no second derivative."""
    student = Attentive()
    program = plan_training("jacobian", {}, student, teacher.model, torch.zeros(2, 3, 16, 16), 1)
    terms = program.stages[-1].terms
    objective = Objective(student, teacher.model, terms, torch.zeros(1, 3, 16, 16))
    values = objective(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))
    values.terms["jacobian"].backward()
    assert student.attention.in_proj_weight.grad.abs().sum() > 0


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


def test_the_spectral_terms_transform_their_maps_once(data, teacher, monkeypatch):
    setup = setup_of(data, teacher, "spectral")
    stage = setup.program.stages[-1]
    images = torch.zeros(1, 3, 16, 16)
    objective = Objective(setup.student.model, teacher.model, stage.terms, images)
    shapes = []
    real = ring_comparison.power_spectrum

    def counted(maps, edges):
        shapes.append(tuple(maps.shape))
        return real(maps, edges)

    monkeypatch.setattr(ring_comparison, "power_spectrum", counted)
    objective(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 0]))
    assert len(stage.terms) == 2
    assert len(shapes) == 2 * len(setup.program.taps["spectral"])
    # Nothing of the pass is held.
    assert all(bound.term.loss._shared._left is None for bound in stage.terms)


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("kd", {"weight": 0.0, "ce_weight": 0.0}, "weight above 0 in stage main; all are 0"),
        ("fsp", {"weight": 0.0}, r"weight above 0 in stage fsp\.matrices; all are 0"),
        ("ce", {"weight": -1.0}, r"ce\.weight: expected a number that is at least 0; got -1"),
        ("spectral", {"exponent": math.nan}, r"spectral\.exponent: expected a number"),
    ],
)
def test_weights_with_which_nothing_is_trained_are_refused(data, method, arguments, message):
    same = classifier("cifar_resnet8", 3, seed=1)
    with pytest.raises(UsageError, match=message):
        setup_of(data, same, method, method_args=arguments)


def test_bfloat16_trains_with_losses_in_float32(tmp_path, data, teacher):
    recipe = RECIPE.changed(amp="bf16", channels_last=True, epochs=1, clip=1.0)
    setup = setup_of(data, teacher, "kd+spectral+at", recipe=recipe)
    stage = setup.program.stages[-1]
    objective = Objective(
        setup.student.model, teacher.model, stage.terms, torch.zeros(1, 3, 16, 16),
        autocast=torch.bfloat16,
    )  # fmt: skip
    values = objective(torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long))
    assert {value.dtype for value in values.terms.values()} == {torch.float32}
    run = distill(setup, tmp_path / "run", report=False)
    assert np.isfinite(run.history["loss"]).all()


def test_terms_of_a_run_need_no_teacher(tmp_path, data, teacher):
    pixels = np.random.default_rng(0).random((16, 3, 16, 16), dtype=np.float32)
    measured = natstats.measure(teacher.model, pixels, layers="stage*.1.relu2,stage*.0.relu2")
    measured.save(tmp_path / "teacher", report=False)
    setup = Distillation.of(
        classifier("cifar_resnet8", 3), data, "spectral", recipe=RECIPE.changed(epochs=1),
        teacher_run=tmp_path / "teacher",
    )  # fmt: skip
    run = distill(setup, tmp_path / "run", report=False)
    assert run.info["teacher"] is None
    assert run.info["costs"]["teacher_passes"] == 0
    assert run.info["teacher_run"]["digest"] == teacher.digest()
    assert run.history["spectral.spectrum"].iloc[0] > 0
    assert len(run.gap) == 0
    assert {(row["student"], row["teacher"]) for row in run.info["taps"]} == {
        ("stage1.0.relu2", "stage1.1.relu2"), ("stage2.0.relu2", "stage2.1.relu2"),
    }  # fmt: skip


def test_a_student_is_measured_with_the_normalisation_of_its_training(tmp_path, data):
    recipe = RECIPE.changed(epochs=1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    distill(setup_of(data, None, "ce", recipe=recipe), tmp_path / "run", report=False)
    network = natstats.load_network("cifar_resnet8", checkpoint=tmp_path / "run" / WEIGHTS)
    assert network.preprocessing.mean == (0.1, 0.2, 0.3)
    assert network.preprocessing.std == (0.5, 0.6, 0.7)
    own = replace(classifier("cifar_resnet8", 3), builder=None)
    assert with_checkpoint(own, tmp_path / "run" / WEIGHTS).preprocessing.mean == (0.1, 0.2, 0.3)


class TestTargetsOfARun:
    @staticmethod
    def measured(path, network, layers="act", size=16):
        pixels = np.random.default_rng(0).random((8, 3, size, size), dtype=np.float32)
        natstats.measure(network, pixels, layers=layers).save(path, report=False)
        return path

    def test_another_run_is_another_training(self, tmp_path, data, teacher):
        runs = [
            self.measured(tmp_path / str(seed), classifier("cifar_resnet14", 3, seed=seed))
            for seed in (0, 1)
        ]
        setups = [setup_of(data, None, "spectral", teacher_run=run) for run in runs]
        identities = [setup.identity(1) for setup in setups]
        assert identities[0] != identities[1]
        assert {**identities[0], "teacher_run": None} == {**identities[1], "teacher_run": None}

    def test_a_teacher_beside_its_run_is_not_asked(self, tmp_path, data, teacher):
        run = self.measured(tmp_path / "run", teacher)
        setup = setup_of(data, teacher, "spectral", teacher_run=run)
        assert setup.program.teacher_passes == 0
        objective = Objective(
            setup.student.model, teacher.model, setup.program.stages[-1].terms,
            torch.zeros(1, 3, 16, 16),
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(teacher.model, "forward", None)
            values = objective(torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long))
        assert values.terms["spectral.spectrum"].isfinite()
        assert setup_of(data, teacher, "kd+spectral", teacher_run=run).program.teacher_passes == 1

    def test_another_normalisation_is_told(self, tmp_path, data, folder, teacher):
        path = tmp_path / "run"
        natstats.measure(teacher, folder / "train", layers="act", size=16).save(path, report=False)
        assert not setup_of(data, None, "spectral", teacher_run=path).program.notes
        recipe = RECIPE.changed(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
        (note,) = setup_of(data, None, "spectral", teacher_run=path, recipe=recipe).program.notes
        assert "normalised with the mean 0.485 0.456 0.406, the student's are with 0.100" in note

    def test_weights_of_another_teacher_are_refused(self, tmp_path, data, teacher):
        run = self.measured(tmp_path / "run", classifier("cifar_resnet14", 3, seed=8))
        with pytest.raises(UsageError, match="teacher_run: expected a run of the teacher, whose"):
            setup_of(data, teacher, "spectral", teacher_run=run)

    def test_layers_that_are_no_activations_are_no_targets(self, tmp_path, data, teacher):
        run = self.measured(tmp_path / "run", teacher, layers="conv")
        with pytest.raises(UsageError, match="teacher run: expected layer stage1.1.relu2; it was"):
            setup_of(data, teacher, "spectral", teacher_run=run)
        with pytest.raises(UsageError, match="an activation of 16 x 16 pixels, .* got none"):
            setup_of(data, None, "spectral", teacher_run=run)

    def test_images_of_another_size_are_refused(self, tmp_path, data, teacher):
        run = self.measured(tmp_path / "run", teacher, size=32)
        for known in (teacher, None):
            with pytest.raises(UsageError, match="teacher run: expected .*16 x 16 .* 32 x 32"):
                setup_of(data, known, "spectral", teacher_run=run)

    @pytest.mark.parametrize(
        "asked", [{"activation": "pre"}, {"activation": "block"}, {"place": "blocks"}]
    )
    def test_layers_that_a_run_does_not_name_need_the_teacher(self, tmp_path, data, teacher, asked):
        run = self.measured(tmp_path / "run", teacher)
        (named,) = asked.items()
        with pytest.raises(UsageError, match=f"beside the teacher run for {'='.join(named)}"):
            setup_of(data, None, "spectral", teacher_run=run, method_args=asked)


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "message"),
        [("kd+nonsense", "expected one of ce, kd"), ("kd+kd", "each method once"),
         ("at", "teacher: expected one for method at; got none")],
    )  # fmt: skip
    def test_methods(self, data, method, message):
        with pytest.raises(UsageError, match=message):
            Distillation.of(classifier("cifar_resnet8", 3), data, method, recipe=RECIPE)

    def test_other_numbers_of_classes(self, data, teacher):
        with pytest.raises(UsageError, match="student: expected scores for the 3 classes of"):
            Distillation.of(classifier("cifar_resnet8", 5), data, "ce", recipe=RECIPE)
        other = classifier("cifar_resnet8", 10)
        with pytest.raises(UsageError, match="teacher: .*cifar_resnet8 has 10 classes"):
            setup_of(data, other)

    def test_unequal_channels_for_fsp(self, data, teacher):
        with pytest.raises(UsageError, match="fsp: expected equal numbers of channels"):
            setup_of(data, teacher, "fsp", student="wrn_10_2")

    @pytest.mark.parametrize("method", ["ab", "ofd"])
    def test_a_tap_behind_a_relu_where_the_sign_is_needed(self, data, teacher, method):
        with pytest.raises(UsageError, match="tap stage1.0.relu2: expected a map before a ReLU"):
            setup_of(data, teacher, method, taps=[("stage1.0.relu2", "stage1.1.relu2")])

    def test_a_network_for_larger_images(self, data):
        with pytest.raises(UsageError, match="takes images of 16 x 16 pixels; alexnet says"):
            Distillation.of(classifier("alexnet", 3), data, "ce", recipe=RECIPE)

    def test_a_run_beside_another_method(self, data, teacher):
        with pytest.raises(UsageError, match="teacher_run: expected only beside method spectral"):
            setup_of(data, teacher, "kd", teacher_run="nowhere")

    def test_a_teacher_that_is_the_student(self, data, teacher):
        with pytest.raises(UsageError, match="teacher: expected another network than the student"):
            Distillation.of(teacher, data, "kd", teacher=teacher, recipe=RECIPE)

    def test_a_student_that_cannot_be_trained(self, data):
        student = classifier("cifar_resnet8", 3)
        student.model.requires_grad_(False)
        with pytest.raises(UsageError, match="student: expected parameters that can be trained"):
            Distillation.of(student, data, "ce", recipe=RECIPE)

    def test_taps_without_a_partner(self, data, teacher):
        with pytest.raises(UsageError, match="taps: expected pairs, student and teacher"):
            setup_of(data, teacher, "at", taps=[("stage1",)])

    def test_a_place_that_is_none(self, data, teacher):
        with pytest.raises(UsageError, match=r"spectral\.place: expected one of groups, middle"):
            setup_of(data, teacher, "spectral", method_args={"place": "none"})

    def test_an_argument_that_comes_twice(self, data, teacher):
        with pytest.raises(UsageError, match=r"kd\.weight: expected once; got it twice"):
            setup_of(data, teacher, "kd", method_args={"weight": 1, "kd.weight": 2})

    def test_an_argument_of_another_method(self, data, teacher):
        with pytest.raises(UsageError, match=r"at\.weight: expected METHOD\.NAME with one of"):
            setup_of(data, teacher, "kd", method_args={"at.weight": 1})

    def test_what_is_there_is_kept(self, tmp_path, data, teacher):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(UsageError, match="is kept"):
            distill(setup_of(data, teacher), tmp_path)
        with pytest.raises(UsageError, match="is something else and is kept"):
            distill(setup_of(data, teacher), tmp_path, overwrite=True)
        assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
        check_out(tmp_path / "new", False)


def test_the_plan_says_what_will_happen(data, teacher):
    text = setup_of(data, teacher, "fitnets+spectral").text()
    assert "Stage fitnets.hint: 1 epoch, trains the student up to its last tap" in text
    assert "4 to " in text
    assert "stage2.0.relu2 (32 x 8 x 8) <- stage2.1.relu2 (32 x 8 x 8)" in text
    assert "18 test images" in text


@pytest.mark.parametrize(
    ("method", "is_taught", "message"),
    [("kd", True, "method kd, which looks at no layer"), ("ce", False, "no teacher")],
)
def test_taps_that_nothing_looks_at_are_refused(data, teacher, method, is_taught, message):
    with pytest.raises(UsageError, match=f"tap: expected only beside a teacher .* {message}"):
        setup_of(data, teacher if is_taught else None, method, taps=[("stage1", "stage1")])


def test_a_ramp_is_shown_as_far_as_it_goes(data, teacher):
    """That of FitNets is cut off by the end of the stage, as in its public code."""
    program = setup_of(data, teacher, "fitnets").program
    (row,) = [row for row in program.terms_table() if row["name"] == "fitnets.kd"]
    assert row["weight"] == pytest.approx([4.0, 4.0 - 3.0 * (288 - 5) / (400 - 5)])
    assert "4 to 1.85 x fitnets.kd" in program.text()


def test_notes_say_whose_network_they_are_of(tmp_path, data):
    untrained = classifier("cifar_resnet8", 3, seed=1)
    recipe = RECIPE.changed(epochs=1)
    run = distill(setup_of(data, untrained, recipe=recipe), tmp_path / "run")
    for role in ("student before training", "teacher"):
        assert any(
            note.startswith(f"{role}: the network is untrained") for note in run.info["notes"]
        )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "right after the last epoch (seed" in page
    assert "warmup_epochs 0.25" in page


def test_named_taps_are_taken(data, teacher):
    program = setup_of(data, teacher, "at", taps=[("stage2.0.bn2", "stage2.1.bn2")]).program
    assert [(a.name, b.name) for a, b in program.taps["at"]] == [("stage2.0.bn2", "stage2.1.bn2")]
    with pytest.raises(UsageError, match="expected one pair for method ft; got 2"):
        setup_of(data, teacher, "ft", taps=[("stage1", "stage1"), ("stage2", "stage2")])


def test_losses_of_a_plan_do_not_depend_on_what_was_drawn_before(data, teacher):
    first = setup_of(data, teacher, "ofd").program.losses().state_dict()
    torch.rand(5)
    second = setup_of(data, teacher, "ofd").program.losses().state_dict()
    assert first
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    other = setup_of(data, teacher, "ofd", seed=4).program.losses().state_dict()
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


PROCESSES = """
import sys, torch
from torch import nn
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import distill
from natstats.distill.training.distributed import processes
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation

folder, out = sys.argv[1:]
recipe = Recipe(epochs=2, batch_size=10, size=16, learning_rate=0.05)


def network(width, seed):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1),
              nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)]
    return nn.Sequential(*layers)


with processes("cpu") as together:
    data = open_labelled("imagefolder:" + folder, recipe)
    setup = Distillation.of(network(4, 0), data, "kd+spectral+at+fitnets", teacher=network(8, 1),
                            recipe=recipe, method_args={"at.weight": 10.0, "fitnets.weight": 1.0})
    run = distill(setup, out, together=together, report=False)
    print("accuracy", together.rank, run.accuracy)
"""


def test_two_processes_train_the_same_student_as_one(tmp_path, folder, monkeypatch, capsys):
    """Without batch norm, whose statistics are those of a process's share of the batch.

    A stage of hints trains a part of the student, and must not wait for the rest.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESSES, str(folder), str(tmp_path / "2")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["-c", str(folder), str(tmp_path / "1")])
    exec(PROCESSES, {})
    assert capsys.readouterr().out.count("accuracy") == 1
    for process in started:
        out, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-2000:]
        assert out.count("accuracy") == 1
    one, two = (weights_of(tmp_path / str(number)) for number in (1, 2))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5, msg=key)


ONE_FAILS = """
import sys
import torch
from natstats.distill.training import trainer
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import distill
from natstats.distill.training.distributed import processes
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation, classifier
from natstats.errors import NatstatsError

recipe = Recipe(epochs=2, batch_size=6, size=16)
prepared = trainer.prepared
n_batches = 0


def failing(images, recipe, device):
    global n_batches
    n_batches += 1
    if n_batches == 3 and torch.distributed.get_rank() == 1:
        raise NatstatsError("image 7 cannot be read")
    return prepared(images, recipe, device)


trainer.prepared = failing
with processes("cpu") as together:
    data = open_labelled("imagefolder:" + sys.argv[1], recipe)
    setup = Distillation.of(classifier("cifar_resnet8", 3), data, "ce", recipe=recipe)
    distill(setup, sys.argv[2], together=together, report=False)
"""


def test_an_error_in_one_process_ends_all(tmp_path, folder):
    script = tmp_path / "train.py"
    script.write_text(ONE_FAILS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(folder), str(tmp_path / "run")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "image 7 cannot be read" in done.stderr


def test_planning_leaves_the_networks_alone(data, teacher):
    student = classifier("cifar_resnet8", 3).model.train()
    before = copy.deepcopy(student.state_dict())
    plan_training("kd+spectral+ofd", {}, student, teacher.model, torch.randn(2, 3, 16, 16), 2)
    assert all(torch.equal(v, before[k]) for k, v in student.state_dict().items())
    assert all(module.training for module in student.modules())
