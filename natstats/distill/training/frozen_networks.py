"""Keeping the teacher unchanged while a student is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from natstats.activations.hooks import same_modes

__all__ = ["frozen"]


@contextmanager
def frozen(model: nn.Module | None, batch_statistics: bool = False) -> Iterator[None]:
    """Keep a teacher in eval mode and without gradients, then restore it as it was.

    Args:
        model: the teacher; None for none.
        batch_statistics: True lets batch norms normalise with the statistics of each batch; the
            running statistics stay as they are.
    """
    modules = [] if model is None else list(model.modules())
    parameters = [] if model is None else list(model.parameters())
    needed = [parameter.requires_grad for parameter in parameters]
    norms: list[Any] = []
    if batch_statistics:
        norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    modes = same_modes(nn.ModuleList() if model is None else model)
    try:
        with modes:
            for module in modules:
                module.training = False
            for parameter in parameters:
                parameter.requires_grad_(False)
            for norm in norms:
                norm.train()
                norm.momentum = 0.0
                if norm.num_batches_tracked is not None:
                    norm.num_batches_tracked = norm.num_batches_tracked.clone()
            yield
    finally:
        for norm, (momentum, n_batches) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, n_batches
        for parameter, is_needed in zip(parameters, needed, strict=True):
            parameter.requires_grad_(is_needed)
