"""Accuracy of a classifier, image by image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from natstats import checks
from natstats.activations.hooks import undisturbed
from natstats.distill.method import scores_of
from natstats.distill.training.loading import LabelledBatch, prepared
from natstats.distill.training.recipes import Recipe
from natstats.errors import UsageError

__all__ = ["LOOKS", "Evaluated", "Looks", "checked_looks", "evaluate", "usual_sample"]

LOOKS = ("evaluate_every", "evaluate_on", "gap", "gap_on", "gradients")
"""Options of a training that say what is looked at on the way."""

_LEAST = 64
"""Fewest images of an evaluation before the last."""


def usual_sample(n_train: int) -> int:
    """Images of an evaluation before the last: an eighth of those of an epoch, at least 64.

    Training on an image runs the student forwards and backwards, which takes three times as long as
    evaluating on it, and the teacher besides. Such an evaluation thus takes 4 % of the time of an
    epoch where the student trains alone, and less where it has a teacher.

    >>> usual_sample(50_000), usual_sample(100)
    (6250, 64)
    """
    return max(_LEAST, n_train // 8)


@dataclass(frozen=True, eq=False)
class Looks:
    """The evaluations of a student during its training, called looks.

    Attributes:
        everything: returns loss and accuracy on all images, for the look after the last epoch.
        n_images: number of all images; NaN where that is not known.
        sample: returns both on a sample, for looks after earlier epochs; None for all images.
        n_sample: number of images in the sample.
    """

    everything: Callable[[], tuple[float, float]]
    n_images: float = math.nan
    sample: Callable[[], tuple[float, float]] | None = None
    n_sample: float = math.nan

    def at_all(self) -> tuple[float, float, float]:
        """Loss and accuracy on all images, and the number of images."""
        return (*self.everything(), self.n_images)

    def on_the_way(self) -> tuple[float, float, float]:
        """Loss and accuracy on the sample, and the number of images."""
        if self.sample is None:
            return self.at_all()
        return (*self.sample(), self.n_sample)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Predictions of a classifier for the evaluation images, in their order.

    Attributes:
        label: true class, (n,).
        predicted: class with the highest score, (n,).
        probability: probability of the true class, (n,), float32.
        n_top5: images whose label is among the five highest scores.
        loss: mean cross-entropy.
    """

    label: Tensor
    predicted: Tensor
    probability: Tensor
    n_top5: int
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of the images that were classified correctly."""
        return float((self.predicted == self.label).double().mean())

    @property
    def top5(self) -> float:
        """Share of the images whose label is among the five highest scores."""
        return self.n_top5 / len(self.label)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Callable[[], Iterator[LabelledBatch]],
    recipe: Recipe,
    device: torch.device,
) -> Evaluated:
    """Run the evaluation images through a classifier in eval mode; its mode is restored.

    It runs in float32 whatever type it was trained in: a half type alone would cost accuracy.

    Args:
        model: gives (N, K).
        batches: starts from the first image each time it is called.
        recipe: gives the normalisation and the memory format.
        device: where the model is.
    """
    labels, predicted, probability, n_top5, loss = [], [], [], 0, 0.0
    with undisturbed(model):
        for batch in batches():
            images = prepared(batch.images, recipe, device)
            with torch.autocast(device.type, enabled=False):
                scores = scores_of(model(images))
            scores = scores.float().cpu()
            label = batch.labels
            log_probability = functional.log_softmax(scores, dim=1)
            own = log_probability.gather(1, label[:, None])[:, 0]
            best = scores.topk(min(5, scores.shape[1]), dim=1).indices
            labels.append(label)
            predicted.append(scores.argmax(dim=1))
            probability.append(own.exp())
            n_top5 += int((best == label[:, None]).any(dim=1).sum())
            loss -= float(own.double().sum())
    label = torch.cat(labels)
    return Evaluated(label, torch.cat(predicted), torch.cat(probability), n_top5, loss / len(label))


def checked_looks(options: Mapping[str, Any]) -> None:
    """Raise unless the options of evaluation, gap and gradients are valid, whatever is trained.

    Args:
        options: options of :func:`natstats.distill.training.distillation.distill`, by name; others
            are ignored.

    Raises:
        UsageError: a number of epochs or images is not a positive whole number, or a flag is
            neither True nor False.

    >>> checked_looks({"gap": "no"})
    Traceback (most recent call last):
    natstats.errors.UsageError: gap: expected True or False; got 'no'
    """
    for name in ("evaluate_every", "evaluate_on", "gap_on"):
        if options.get(name) is not None:
            checks.positive_int(name, options[name])
    if "evaluate_every" in options and options["evaluate_every"] is None:
        raise UsageError("evaluate_every: expected a whole number of at least 1; got None")
    for name in ("gap", "gradients"):
        if name in options:
            checks.flag(name, options[name])
