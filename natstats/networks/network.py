"""A network ready to be measured: the module, where its weights come from, and what it expects."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from natstats.brief import Brief
from natstats.networks.builders import Builder
from natstats.networks.input_forms import arguments
from natstats.networks.load_options import InputForm
from natstats.networks.preprocessing import Preprocessing
from natstats.networks.wrappers import unwrapped

__all__ = ["Network", "NetworkSource"]


@dataclass(frozen=True)
class NetworkSource:
    """The arguments with which a network was loaded, so that it can be loaded again.

    Attributes:
        name: name of the network or its factory.
        weights: name of the weights, or ``none``.
        checkpoint: file of the weights, as it was given; None for none.
        checkpoint_key: where in the file they are; None where they were found without it.
        model_args: arguments of the builder.
        takes: the form in which it takes images, if it was given.
        size: side of the images, if it was given, pixels.
        strict: whether a checkpoint had to fit.
        seed: seed of the random weights.
    """

    name: str
    weights: str = "default"
    checkpoint: str | None = None
    checkpoint_key: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    takes: str | None = None
    size: int | None = None
    strict: bool = True
    seed: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Network(Brief):
    """A network ready to be measured.

    Attributes:
        model: in eval mode, on its device.
        name: name of its builder or its class.
        weights: where the weights come from, in words.
        trained: False for a network with random weights; None where it is not known.
        preprocessing: what it expects of a photograph.
        notes: what a reader of the results must know.
        takes: the form in which it takes images, see :mod:`natstats.networks.input_forms`.
        builder: makes the same network with random weights; None where no way is known.
        source: the arguments with which it was loaded by name; None for a module that was given.
    """

    model: nn.Module
    name: str
    weights: str
    trained: bool | None = True
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    notes: tuple[str, ...] = ()
    takes: InputForm = "images"
    builder: Builder | None = field(default=None, repr=False)
    source: NetworkSource | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", unwrapped(self.model))

    def arguments(self, images: Tensor) -> tuple[Any, ...]:
        """Arguments of the forward pass, see :func:`natstats.networks.input_forms.arguments`."""
        return arguments(self.takes, images)

    def digest(self) -> str:
        """SHA-256 over names, shapes, types and bytes of parameters and buffers, 16 hex digits."""
        sha = hashlib.sha256()
        for name, value in self.model.state_dict().items():
            # A quantised linear layer holds its weights and biases in a tuple.
            for tensor in value if isinstance(value, tuple) else (value,):
                if not isinstance(tensor, Tensor):
                    continue
                facts = f"{name} {tuple(tensor.shape)} {tensor.dtype}"
                sha.update(facts.encode("utf-8", "surrogatepass"))  # may be invalid text
                flat = tensor.detach().cpu().contiguous().reshape(-1)
                sha.update(flat.view(torch.uint8).numpy().data)
        return sha.hexdigest()[:16]
