"""One step of a stage: passes, losses, gradients, and the step of the optimiser."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from natstats.distill.training.objective import Objective, Taught, Values
from natstats.distill.training.optimization import make_optimizer
from natstats.distill.training.program import TrainingStage
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.sums import EpochSums

__all__ = ["Stepper"]


class Stepper:
    """Takes the steps of a stage.

    Args:
        stage: says which values count, and what is trained.
        objective: student and losses.
        recipe: how to train.
        scaler: scaler of losses whose gradients pass through float16.
        device: device of networks and losses.
        world: number of processes that train together.
    """

    def __init__(
        self,
        stage: TrainingStage,
        objective: Objective,
        recipe: Recipe,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        world: int = 1,
    ) -> None:
        self.stage, self.objective, self.recipe = stage, objective, recipe
        self.scaler, self.device = scaler, device
        groups = stage.trained(objective)
        self.optimizer = make_optimizer(recipe, [{"params": group} for group in groups])
        self._has_gradient = False
        self.runner: nn.Module = objective
        if world > 1:
            self.runner = DistributedDataParallel(
                objective,
                device_ids=[device.index] if device.type == "cuda" else None,
                find_unused_parameters=True,
            )

    def sums(self) -> EpochSums:
        """Empty sums for an epoch, with values in the order in which :meth:`backward` adds them."""
        names = [bound.term.name for bound in self.stage.terms]
        return EpochSums([*names, "ce", "loss"], self.device)

    def set_rate(self, rate: float) -> None:
        """Set the learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def n_parts(self, n_images: int) -> int:
        """Number of parts in which a batch goes through the networks, none a single image."""
        return max(1, min(self.recipe.accumulate, n_images // 2))

    def backward(
        self,
        images: Tensor,
        labels: Tensor,
        factors: Mapping[str, float],
        sums: EpochSums,
        number: int,
        taught: Taught | None = None,
    ) -> None:
        """The passes of a batch, forwards and backwards.

        Args:
            images: (N, 3, H, W), normalised.
            labels: (N,), or (N, K) for shares of the classes.
            factors: factors of the cross-entropy, as ``ce``, and of every term by its name.
            sums: where the values are added.
            number: number of the step, for `sums`.
            taught: the teacher's outputs for the images, where they are kept; None runs the
                teacher.
        """
        n_parts = self.n_parts(len(images))
        self.optimizer.zero_grad(set_to_none=True)
        self._has_gradient = False
        for part in range(n_parts):
            pixels = images.tensor_split(n_parts)[part] if n_parts > 1 else images
            classes = labels.tensor_split(n_parts)[part] if n_parts > 1 else labels
            with self._apart(part + 1 < n_parts):
                said = None if taught is None else taught.part(part, n_parts)
                values: Values = self.runner(pixels, classes, factors, said)
                loss, listed = self._total(values, factors)
                sums.add(listed, values.n_right, len(pixels), number)
                if loss.requires_grad:  # not where a ramp begins at 0 beside nothing else
                    self._has_gradient = True
                    if n_parts > 1:
                        loss = loss * (len(pixels) / len(images))
                    self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call, unused-ignore]

    def follow(self) -> None:
        """Let the optimiser take its step, if there are gradients."""
        if not self._has_gradient:
            return
        if self.recipe.clip is not None:
            self.scaler.unscale_(self.optimizer)
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self.recipe.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def _apart(self, is_apart: bool) -> contextlib.AbstractContextManager[Any]:
        """Keep the gradients in this process, as for all parts but the last, which shares them."""
        if is_apart and isinstance(self.runner, DistributedDataParallel):
            return self.runner.no_sync()
        return contextlib.nullcontext()

    def _total(self, values: Values, factors: Mapping[str, float]) -> tuple[Tensor, Tensor]:
        """What is minimised, and all values in the order of the sums."""
        loss = self.stage.total(values, factors, self.device)
        ce = torch.zeros((), device=self.device) if values.ce is None else values.ce
        listed = [values.terms[bound.term.name].detach() for bound in self.stage.terms]
        return loss, torch.stack([*listed, ce, loss.detach()]).float()
