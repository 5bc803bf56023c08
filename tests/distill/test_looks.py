"""What is looked at during a training, on how many images, and what is said of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from natstats.distill.training import distillation
from natstats.distill.training.distillation import distill
from natstats.distill.training.evaluation import evaluate
from natstats.distill.training.loading import eval_batches
from natstats.errors import UsageError


@pytest.mark.slow
def test_looks_on_the_way_are_on_a_sample_and_the_last_on_all(
    tmp_path, data, teacher, setup_of, recipe
):
    run = distill(
        setup_of(data, teacher, recipe=recipe.changed(epochs=3)), tmp_path / "run",
        report=False, evaluate_on=9, evaluate_every=2, gap=False, gradients=False,
    )  # fmt: skip
    np.testing.assert_array_equal(run.history.eval_images, [np.nan, 9, 18])
    assert run.info["best_accuracy"] == run.accuracy == run.history.eval_accuracy.iloc[-1]
    assert len(run.gap) == len(run.gradients) == 0
    assert (run.history.images_per_second > 0).all()
    assert (run.history.memory_mib > 0).all()
    rows = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [row["eval_images"] for row in rows] == [None, 9, 18]
    assert rows[2]["loss"] == run.history.loss.iloc[2]


@pytest.mark.slow
def test_looks_do_not_change_what_is_learnt(tmp_path, data, teacher, setup_of):
    saved = []
    for number, settings in enumerate(({}, {"gap": False, "gradients": False, "evaluate_on": 3})):
        path = tmp_path / str(number)
        distill(setup_of(data, teacher), path, report=False, **settings)
        saved.append((path / distillation.WEIGHTS).read_bytes())
    assert saved[0] == saved[1]


@pytest.mark.parametrize("name", ["evaluate_on", "gap_on"])
@pytest.mark.parametrize("n", [0, 2, 1.5])
def test_a_sample_has_an_image_of_every_class(tmp_path, data, setup_of, name, n):
    with pytest.raises(UsageError, match=f"^{name}: expected .* got {n}"):
        distill(setup_of(data, None, "ce"), tmp_path / "run", **{name: n})
    assert not (tmp_path / "run").exists()


def test_the_samples_have_the_shares_of_the_classes_and_are_the_same(data, setup_of):
    looks = distillation._Evaluation(setup_of(data, None, "ce"), torch.device("cpu"), 0, 6)
    assert looks.looks().n_sample == 6
    assert looks.looks().n_images == 18
    (first,), (again,) = looks._batches(6), looks._batches(6)
    assert torch.equal(first.places, again.places)
    assert np.bincount(first.labels.numpy()).tolist() == [2, 2, 2]


def test_evaluation_is_in_float32_even_within_another_type(data, setup_of, recipe):
    setup = setup_of(data, None, "ce", recipe=recipe.changed(amp="bf16"))

    def found():
        return evaluate(
            setup.student.model, lambda: eval_batches(data.evaluation, setup.recipe),
            setup.recipe, torch.device("cpu"),
        )  # fmt: skip

    plain = found()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found().probability, plain.probability)
    looks = distillation._Evaluation(setup, torch.device("cpu"), 0, 18)
    assert looks.look() == (plain.loss, plain.accuracy)
