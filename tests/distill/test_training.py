"""Training: stages that train what they say, a teacher that stays as it is."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import natstats
from natstats.distill.losses import ring_comparison
from natstats.distill.methods import METHODS
from natstats.distill.training.distillation import WEIGHTS, distill
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import Looks, evaluate
from natstats.distill.training.frozen_networks import frozen
from natstats.distill.training.gradients import gradient_rows
from natstats.distill.training.loading import TrainBatches, eval_batches, normalise
from natstats.distill.training.objective import Objective
from natstats.distill.training.optimization import learning_rate
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.stages import plan_training
from natstats.distill.training.trainer import Trainer
from natstats.errors import UsageError
from natstats.networks.load import with_checkpoint


def weights_of(path):
    return load_file(path / WEIGHTS)


CLASSES = ("dark", "light", "mid")


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        "spectral",
        *(
            pytest.param(method, marks=pytest.mark.slow)
            for method in (*METHODS, "kd+spectral")
            if method not in ("ce", "spectral")
        ),
    ],
)
def test_the_teacher_stays_as_it_is_and_the_student_learns(
    tmp_path, data, teacher, method, setup_of, recipe
):
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    needed = [p.requires_grad for p in teacher.model.parameters()]
    setup = setup_of(data, teacher, method, recipe=recipe.changed(epochs=1))
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
    def trained(self, setup_of, data, teacher, method, until, **arguments):
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
            TrainBatches(data.train, setup.recipe, 0), setup.recipe, Looks(lambda: (0.0, 0.0)),
            together=Processes(0, 1, torch.device("cpu")), log=log,
        )  # fmt: skip
        with pytest.raises(Stop):
            trainer.train()
        return names, before, kept, setup

    @pytest.mark.slow
    def test_hints_train_the_lower_student_and_the_regressor_only(self, data, teacher, setup_of):
        names, before, after, setup = self.trained(
            setup_of, data, teacher, "fitnets", "fitnets.hint"
        )
        assert names == ["fitnets.hint", "main"]
        same = {k for k in before if torch.equal(before[k], after[k]) and "weight" in k}
        assert {"fc.weight", "stage3.0.conv1.weight"} <= same
        assert "stage2.0.conv1.weight" not in same
        main = setup.program.stages[-1]
        assert not list(nn.ModuleList(b.term.loss for b in main.terms).parameters())

    @pytest.mark.slow
    def test_the_paraphraser_trains_alone_and_is_frozen_then(self, data, teacher, setup_of):
        names, before, after, _ = self.trained(setup_of, data, teacher, "ft", "ft.paraphraser")
        assert names == ["ft.paraphraser", "main"]
        for key in before:
            assert torch.equal(before[key], after[key]), key
        self.trained(setup_of, data, teacher, "ft", "main")
        fresh = setup_of(data, teacher, "ft").program.stages[0].terms[0].term.loss.state_dict()
        after_own, after_main = self.first_losses
        assert not all(torch.equal(fresh[key], after_own[key]) for key in fresh)
        for key, value in after_own.items():
            assert torch.equal(value, after_main[key]), key

    @pytest.mark.slow
    def test_fsp_goes_on_with_labels_alone(self, data, teacher, setup_of):
        names, before, after, setup = self.trained(setup_of, data, teacher, "fsp", "fsp.matrices")
        assert names == ["fsp.matrices", "main"]
        assert setup.program.stages[-1].terms == ()
        assert setup.program.stages[0].ce_weight == 0
        assert torch.equal(before["fc.weight"], after["fc.weight"])
        assert not torch.equal(before["conv1.weight"], after["conv1.weight"])

    @pytest.mark.slow
    def test_stages_of_a_combination_follow_each_other(self, data, teacher, setup_of):
        program = setup_of(data, teacher, "fitnets+ft+kd").program
        assert [s.name for s in program.stages] == ["fitnets.hint", "ft.paraphraser", "main"]
        assert [b.term.name for b in program.stages[-1].terms] == ["fitnets.kd", "ft.factors", "kd"]
        assert program.stages[-1].ce_weight == pytest.approx(0.1)


def test_one_step_is_that_of_a_plain_loop(data, teacher, setup_of, recipe):
    """The trainer's first step, written out with torch alone."""
    setup = setup_of(data, teacher, "kd", recipe=recipe.changed(epochs=1))
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
        Looks(lambda: (0.0, 0.0)), together=Processes(0, 1, torch.device("cpu")), seed=3,
        progress=stop,
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


def test_the_student_comes_back_in_the_mode_in_which_it_came(tmp_path, data, setup_of, recipe):
    setup = setup_of(data, None, "ce", recipe=recipe.changed(epochs=1))
    student = setup.student.model
    student.eval()
    student.stage1.train()
    modes = [module.training for module in student.modules()]
    distill(setup, tmp_path / "run", report=False)
    assert [module.training for module in student.modules()] == modes


def test_epochs_between_evaluations_are_a_number_above_0(tmp_path, data, teacher, setup_of):
    with pytest.raises(UsageError, match="evaluate_every: expected a whole number of at least 1"):
        distill(setup_of(data, teacher), tmp_path / "run", evaluate_every=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_batch_norm_that_sees_one_value_is_said_in_words(tmp_path, data, setup_of, recipe):
    setup = setup_of(data, None, "ce", "resnet18", recipe=recipe.changed(batch_size=1))
    with pytest.raises(UsageError, match=r"batch_size: expected two images or more .* got 1"):
        distill(setup, tmp_path / "run", report=False)


@pytest.mark.slow
def test_the_run_is_complete_and_has_the_weights_evaluated(tmp_path, data, teacher, setup_of):
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
        "ce", "kd", "spectral.spectrum", "spectral.exponent", "spectral.coherence",
    ]  # fmt: skip
    assert len(run.gap) == 2  # maps of 16 and 8 pixels; 4 are too few
    assert (run.gap["distance_before"] > 0).all()
    names = set(run.gradients["term"])
    assert names == {"kd", "spectral.spectrum", "spectral.exponent", "spectral.coherence"}


def test_the_evaluation_is_what_a_loop_over_files_gives(folder, data, teacher, recipe):
    recipe = Distillation.of(teacher, data, "ce", recipe=recipe).recipe
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


@pytest.mark.slow
def test_gradient_rows_are_the_gradients_and_leave_no_trace(data, teacher, setup_of):
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


@pytest.mark.slow
def test_a_pass_for_gradients_does_not_count_for_margins(data, teacher, setup_of):
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


@pytest.mark.slow
def test_values_that_do_not_count_come_without_a_gradient(data, teacher, setup_of):
    """Several processes wait for the gradients of all that the objective gives."""
    stage = setup_of(data, teacher, "kd+spectral").program.stages[-1]
    student = classifier("cifar_resnet8", 3).model
    objective = Objective(student, teacher.model, stage.terms, torch.zeros(1, 3, 16, 16))
    factors = {"ce": 0.0, "kd": 0.0, "spectral.spectrum": 1.0, "spectral.exponent": 0.0,
               "spectral.coherence": 0.0}  # fmt: skip
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


@pytest.mark.slow
def test_the_spectral_terms_transform_their_maps_once(data, teacher, monkeypatch, setup_of):
    setup = setup_of(data, teacher, "spectral", method_args={"coherence": 0})
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


@pytest.mark.slow
def test_bfloat16_trains_with_losses_in_float32(tmp_path, data, teacher, setup_of, recipe):
    recipe = recipe.changed(amp="bf16", channels_last=True, epochs=1, clip=1.0)
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


@pytest.mark.slow
def test_a_student_is_measured_as_it_was_normalised(tmp_path, data, setup_of, recipe):
    recipe = recipe.changed(epochs=1, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    distill(setup_of(data, None, "ce", recipe=recipe), tmp_path / "run", report=False)
    network = natstats.load_network("cifar_resnet8", checkpoint=tmp_path / "run" / WEIGHTS)
    assert network.preprocessing.mean == (0.1, 0.2, 0.3)
    assert network.preprocessing.std == (0.5, 0.6, 0.7)
    own = replace(classifier("cifar_resnet8", 3), builder=None)
    assert with_checkpoint(own, tmp_path / "run" / WEIGHTS).preprocessing.mean == (0.1, 0.2, 0.3)


@pytest.mark.slow
def test_notes_say_whose_network_they_are_of(tmp_path, data, setup_of, recipe):
    untrained = classifier("cifar_resnet8", 3, seed=1)
    recipe = recipe.changed(epochs=1)
    run = distill(setup_of(data, untrained, recipe=recipe), tmp_path / "run")
    for role in ("student before training", "teacher"):
        assert any(
            note.startswith(f"{role}: the network is untrained") for note in run.info["notes"]
        )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "right after the last epoch (seed" in page
    assert "warmup_epochs 0.5" in page
