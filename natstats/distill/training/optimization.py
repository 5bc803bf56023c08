"""The optimiser of a recipe, and its learning rate at every step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from natstats import checks
from natstats.distill.training.recipes import SCHEDULES, Recipe
from natstats.errors import UsageError

__all__ = ["learning_rate", "make_optimizer"]


def learning_rate(
    recipe: Recipe,
    step: int,
    n_steps_per_epoch: int,
    epochs: int | None = None,
    schedule: str | None = None,
) -> float:
    """The learning rate at a step, which depends on the number of the step alone.

    With T steps in the stage and W of warm-up, the rate L of step t, from 0, is

    * ``constant``: L;
    * ``step``: L gamma^k, k the milestones at or before t;
    * ``cosine``: L (1 + cos(pi (t - W) / (T - W))) / 2;
    * in the warm-up: the rate of ``constant`` or ``step`` times (t + 1) / W, for ``cosine`` too.

    In a stage with another number of epochs, milestones keep their shares of its length, and the
    warm-up keeps its number of epochs, up to half of the stage (:meth:`Recipe.warmup_in`).

    Args:
        recipe: gives the schedule.
        step: number of the step, from 0 at the beginning of the stage.
        n_steps_per_epoch: steps of an epoch.
        epochs: length of the stage; that of the recipe by default.
        schedule: replaces the recipe's, such as ``constant`` in a stage before the main one.

    Raises:
        UsageError: `step` or `n_steps_per_epoch` is out of range, or no such schedule.

    Reference:
        The cosine without restarts of I. Loshchilov and F. Hutter, "SGDR", 2016, arXiv 1608.03983;
        the linear warm-up of P. Goyal et al., "Accurate, Large Minibatch SGD", 2017,
        arXiv 1706.02677.

    >>> recipe = Recipe.from_preset("cifar100")
    >>> [round(learning_rate(recipe, 10 * epoch, 10), 6) for epoch in (0, 149, 150, 180, 239)]
    [0.05, 0.05, 0.005, 0.0005, 5e-05]
    """
    checks.positive_int("step", step, 0)
    epochs = recipe.epochs if epochs is None else checks.positive_int("epochs", epochs)
    n_steps = checks.positive_int("n_steps_per_epoch", n_steps_per_epoch) * epochs
    chosen = recipe.schedule if schedule is None else schedule
    checks.one_of("schedule", chosen, SCHEDULES)
    warmup = round(recipe.warmup_in(epochs) * n_steps_per_epoch)
    rate = recipe.learning_rate
    if chosen == "step":
        passed = sum(step >= round(at * n_steps / recipe.epochs) for at in recipe.milestones)
        rate *= recipe.gamma**passed
    if step < warmup:
        return rate * (step + 1) / warmup
    if chosen == "cosine":
        progress = min(step - warmup, n_steps - warmup) / max(n_steps - warmup, 1)
        rate *= (1 + math.cos(math.pi * progress)) / 2
    return rate


def make_optimizer(
    recipe: Recipe, parameters: Iterable[Tensor] | Iterable[dict[str, Any]]
) -> torch.optim.Optimizer:
    """The optimiser that a recipe asks for.

    Its learning rate is the recipe's; set it at every step to :func:`learning_rate`. Frozen
    parameters are left out. Without ``decay_vectors``, parameters of one axis are not decayed.

    Args:
        recipe: gives optimiser, momentum and weight decay.
        parameters: those to train, or groups of them as torch takes them: dicts with ``params`` and
            what differs for them, such as ``weight_decay``.

    Raises:
        UsageError: there is nothing to train.

    >>> make_optimizer(Recipe(), torch.nn.Linear(2, 2).parameters()).param_groups[0]["nesterov"]
    True
    """
    groups: list[dict[str, Any]] = []
    given = list(parameters)
    if not all(isinstance(group, dict) for group in given):
        given = [{"params": given}]
    for group in given:
        assert isinstance(group, dict)
        listed = group["params"]
        tensors = [listed] if isinstance(listed, Tensor) else list(listed)
        tensors = [tensor for tensor in tensors if tensor.requires_grad]
        decayed = [one for one in tensors if recipe.decay_vectors or one.ndim > 1]
        others = [one for one in tensors if not (recipe.decay_vectors or one.ndim > 1)]
        groups += [{**group, "params": decayed}] if decayed else []
        groups += [{**group, "params": others, "weight_decay": 0.0}] if others else []
    if not groups:
        raise UsageError("parameters: expected at least one to train; got none")
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            groups, lr=rate, betas=(recipe.momentum, 0.999), weight_decay=decay
        )
    return torch.optim.SGD(
        groups, lr=rate, momentum=recipe.momentum, weight_decay=decay, nesterov=recipe.nesterov
    )
