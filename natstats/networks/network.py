"""A network ready to be measured: the module, where its weights come from, and what it expects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from natstats.networks.builders import Builder
from natstats.networks.input_forms import arguments
from natstats.networks.preprocessing import Preprocessing
from natstats.networks.wrappers import unwrapped

__all__ = ["Network"]


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to be measured.

    Attributes:
        model: in eval mode, on its device.
        name: name of its builder or its class.
        weights: where the weights come from, in words.
        trained: False for a network with random weights; None where it is not known.
        preprocessing: what it expects of a photograph.
        notes: what a reader of the results must know.
        takes: the form in which it takes images, see :mod:`natstats.networks.input_forms`.
        builder: makes the same network with random weights; None where nothing is known to.
    """

    model: nn.Module
    name: str
    weights: str
    trained: bool | None = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    notes: tuple[str, ...] = ()
    takes: str = "images"
    builder: Builder | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", unwrapped(self.model))

    def arguments(self, images: Tensor) -> tuple[Any, ...]:
        """Arguments of the forward pass, see :func:`natstats.networks.input_forms.arguments`."""
        return arguments(self.takes, images)

    def digest(self) -> str:
        """SHA-256 over names, shapes and bytes of all parameters and buffers, 16 hex digits."""
        sha = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            if isinstance(tensor, Tensor):
                sha.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                sha.update(flat.view(torch.uint8).numpy().data)
        return sha.hexdigest()[:16]
