"""A small data set, a teacher that was trained on it, and the set-up of trainings with both."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from natstats.distill.training.data import open_labelled
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import Looks
from natstats.distill.training.loading import TrainBatches
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation, classifier
from natstats.distill.training.trainer import Trainer


@pytest.fixture(scope="session")
def recipe():
    return Recipe(
        epochs=2, batch_size=8, size=16, warmup_epochs=0.5, learning_rate=0.02, padding=2
    )  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Three classes of brightness, 10 training and 6 test images of each."""
    root = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    for split, n in (("train", 10), ("val", 6)):
        for place, name in enumerate(("dark", "light", "mid")):
            (root / split / name).mkdir(parents=True)
            for number in range(n):
                pixels = np.clip(rng.normal(60 + 60 * place, 30, (16, 16, 3)), 0, 255)
                image = Image.fromarray(pixels.astype(np.uint8))
                image.save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def data(folder, recipe):
    return open_labelled(f"imagefolder:{folder}", recipe)


@pytest.fixture(scope="session")
def teacher(data, recipe):
    """A trained one, so that its running statistics are those of data."""
    network = classifier("cifar_resnet14", 3, seed=5)
    setup = Distillation.of(network, data, "ce", recipe=recipe.changed(epochs=2))
    trainer = Trainer(
        network.model, None, setup.program, TrainBatches(data.train, setup.recipe, 0),
        setup.recipe, Looks(lambda: (0.0, 0.0)), together=Processes(0, 1, torch.device("cpu")),
    )  # fmt: skip
    trainer.train()
    network.model.eval().zero_grad(set_to_none=True)
    return network


@pytest.fixture(scope="session")
def setup_of(recipe):
    """A training of a small student, by the method, arguments and seed that are given."""
    usual = recipe

    def made(data, teacher, method="kd", student="cifar_resnet8", seed=3, recipe=usual, **more):
        return Distillation.of(
            classifier(student, 3, seed=seed), data, method, teacher=teacher, recipe=recipe,
            seed=seed, **more,
        )  # fmt: skip

    return made
