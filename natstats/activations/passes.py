"""Passes that only look at a network: they draw the same random numbers and leave no trace."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from natstats.activations.hooks import undisturbed

__all__ = ["repeatable", "unchanged"]

MOST_KEPT = 1 << 16
"""Most numbers in a parameter that is put back after a pass. Parameters that a network sets from
its first data are scales and shifts of channels; copies of all weights would double the memory."""


@contextlib.contextmanager
def repeatable() -> Iterator[None]:
    """Draw the same random numbers in every such context, and leave all generators as they were.

    A network that draws by chance, such as a masked autoencoder, then does the same in each pass.

    >>> with repeatable():
    ...     first = torch.rand(1)
    >>> with repeatable():
    ...     bool(torch.rand(1) == first)
    True
    """
    # A network may also draw from the global generators of Python and numpy.
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(0)
            random.seed(0)
            np.random.seed(0)  # noqa: NPY002
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode, and take back what passes write into it.

    Restored are modes, the random state, buffers, parameters of up to :data:`MOST_KEPT` numbers,
    and attributes that are set anew, such as a mark that the first data have come.

    >>> norm = nn.BatchNorm2d(2)
    >>> with unchanged(norm):
    ...     _ = norm.running_mean.fill_(7)
    >>> norm.running_mean
    tensor([0., 0.])
    """
    tensors = [
        (tensor, tensor.detach().clone())
        for tensor in [*model.buffers(), *model.parameters()]
        if not isinstance(tensor, nn.Parameter) or tensor.numel() <= MOST_KEPT
    ]
    # The dictionaries themselves, as a pass may put another tensor in the place of a buffer.
    kept = [
        (vars_of, dict(vars_of))
        for module in model.modules()
        if not isinstance(module, torch.jit.ScriptModule)  # which keeps all of it elsewhere
        for vars_of in (vars(module), module._buffers, module._parameters)
    ]
    try:
        with undisturbed(model):
            yield
    finally:
        for vars_of, before in kept:
            if any(vars_of.get(key, kept) is not value for key, value in before.items()) or len(
                vars_of
            ) != len(before):
                vars_of.clear()
                vars_of.update(before)
        with torch.no_grad():
            for tensor, before_it in tensors:
                if not torch.equal(tensor.detach(), before_it):
                    tensor.data.copy_(before_it)
