"""A running average of a student's weights over the steps of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks

__all__ = ["WeightAverage"]


class WeightAverage:
    """The exponential average of weights and of the statistics of batch norms.

    After step t, from 1, the average A becomes d A + (1 - d) W with W the weights and
    d = min(decay, t / (9 + t)): in the first steps it follows the weights closely, so that the
    random weights at the start are soon forgotten. Running means and variances of batch norms are
    averaged in the same way; counters, which are whole numbers, are copied.

    Args:
        model: its weights and buffers are averaged, beginning with their present values.
        decay: d after many steps, 0 to 1.

    Reference:
        B. Polyak and A. Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992,
        SIAM Journal on Control and Optimization 30; the growing decay is that of TensorFlow's
        ExponentialMovingAverage, one step later.

    >>> model = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.zeros_(model.weight)
    >>> average = WeightAverage(model, 0.5)
    >>> _ = nn.init.ones_(model.weight)
    >>> average.update()
    >>> with average.in_place():
    ...     round(model.weight.item(), 3)
    0.9
    >>> model.weight.item()
    1.0
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.n_steps = 0
        self._model = model
        self._average = {name: value.clone() for name, value in self._now().items()}

    def _now(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self._model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after one more step."""
        self.n_steps += 1
        decay = min(self.decay, self.n_steps / (9 + self.n_steps))
        now = self._now()
        floats = [name for name, value in now.items() if value.is_floating_point()]
        torch._foreach_lerp_(
            [self._average[name] for name in floats], [now[name] for name in floats], 1 - decay
        )
        for name in now.keys() - floats:
            self._average[name].copy_(now[name])

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the model the averages within the context, then its own weights back."""
        before = {name: value.clone() for name, value in self._now().items()}
        self.keep()
        try:
            yield
        finally:
            self._model.load_state_dict(before)

    def keep(self) -> None:
        """Give the model the averages for good."""
        self._model.load_state_dict(self._average)

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` resumes from."""
        return {"n_steps": self.n_steps, "average": self._average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from what :meth:`state_dict` gave.

        Raises:
            UsageError: keys are missing or unexpected, or tensors have another shape.
        """
        checks.state_keys("an average of weights", state, ("n_steps", "average"))
        shapes = {name: tuple(value.shape) for name, value in self._average.items()}
        checks.state_keys("an average of weights", state["average"], shapes, shapes)
        self.n_steps = state["n_steps"]
        for name, value in state["average"].items():
            self._average[name].copy_(value)
