"""Networks by name: built, given their weights, and ready to be measured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from natstats import checks
from natstats.errors import UsageError
from natstats.images.framing import Framing
from natstats.networks.builders import Builder, form_of, named_builder, network_names
from natstats.networks.checkpoint_files import SUFFIXES
from natstats.networks.checkpoint_loading import load_checkpoint, with_checkpoint
from natstats.networks.checkpoints import read_checkpoint
from natstats.networks.external import factory_builder, timm_builder, timm_weights
from natstats.networks.fitting import side_of, with_classes
from natstats.networks.load_options import InputForm, LoadOptions
from natstats.networks.matching import mismatch
from natstats.networks.network import Network, NetworkSource
from natstats.networks.preprocessing import (
    NORMALISED,
    Preprocessing,
    configured,
    is_known,
    takes_grey,
)
from natstats.networks.published_weights import download, published
from natstats.networks.wrappers import unwrapped
from natstats.text import printable

__all__ = [
    "Network",
    "Preprocessing",
    "build_network",
    "load_network",
    "network_names",
    "usable_device",
    "with_checkpoint",
]


LARGEST_SEED = 2**63 - 1
"""The largest seed: torch takes up to 2**64 - 1, and control seeds count on from this one."""

_WEIGHTS = {*SUFFIXES, ".th", ".tar", ".pkl", ".h5", ".onnx"}
"""Endings of files that may be given where the name of a network is expected."""


def usable_device(device: torch.device | str | None) -> torch.device:
    """Return a device that tensors can be put on; None stands for CUDA if there is any, else CPU.

    Raises:
        UsageError: there is no such device here.

    >>> usable_device("cpu")
    device(type='cpu')
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        if reason.startswith("Expected one of"):  # all that torch knows
            reason = "torch knows no device of this name"
        raise UsageError(
            f"device: expected a device of this machine, such as cpu or cuda; got {str(device)!r}: "
            f"{reason}"
        ) from None
    return torch.device(device)


def load_network(
    name: str,
    *,
    weights: str = "default",
    checkpoint: str | Path | None = None,
    checkpoint_key: str | None = None,
    strict: bool = True,
    model_args: Mapping[str, Any] | None = None,
    takes: InputForm | None = None,
    size: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = "cpu",
) -> Network:
    """Build a network and give it its weights.

    Args:
        name: a torchvision builder or a network of :mod:`natstats.networks.zoo`; ``timm:`` and a
            name that timm knows; or ``package.module:factory``, a function or class that returns a
            network (or a :class:`Network`), imported from the current directory or installed.
        weights: ``default`` (the newest published weights, or what a factory returns), the name of
            published weights such as ``IMAGENET1K_V1``, or ``none`` for the untrained network.
        checkpoint: a file of weights, in place of `weights`, see
            :func:`natstats.networks.checkpoints.read_checkpoint`.
        checkpoint_key: where in the file the weights are, such as ``ema``; found if not given.
        strict: refuse a checkpoint that does not fit but for the classifier; else load what fits,
            see :func:`natstats.networks.matching.load_state`.
        model_args: arguments of the builder or the factory.
        takes: in what form it takes images, see :mod:`natstats.networks.input_forms`; by default
            known of torchvision's networks, and ``images`` for any other.
        size: side of the images, pixels, in place of what the weights were published with.
        seed: seed of the random weights.
        device: where to put it; None for CUDA if there is any, else the CPU.

    Raises:
        UsageError: unknown name, weights or arguments, or weights beside a checkpoint.
        NatstatsError: the network cannot be built, or the weights cannot be had or do not fit.

    >>> network = load_network("natstats.networks.zoo:cifar_resnet", model_args={"depth": 8})
    >>> network.weights, network.trained
    ('as built by natstats.networks.zoo:cifar_resnet', None)
    """
    builder = _builder(name, dict(model_args or {}))
    loading = LoadOptions(weights, checkpoint, checkpoint_key, takes=takes)
    device = usable_device(device)
    if checks.positive_int("seed", seed, 0) > LARGEST_SEED:
        raise UsageError(f"seed: expected a whole number from 0 to {LARGEST_SEED}; got {seed}")
    if size is not None:
        checks.positive_int("size", size, 5)
    loading.refuse_contradictions()
    network = _loaded(builder, loading, strict, seed)
    source = NetworkSource(
        name, weights, None if checkpoint is None else str(checkpoint), checkpoint_key,
        dict(model_args or {}), takes, size, strict, seed,
    )  # fmt: skip
    takes = takes or network.takes
    preprocessing = network.preprocessing
    if size is not None:
        preprocessing = preprocessing.at_size(size)
    elif takes == "list":
        preprocessing = _for_detector(network.model, preprocessing)
    model = network.model.eval().to(device)
    return replace(network, model=model, preprocessing=preprocessing, takes=takes, source=source)


def _loaded(builder: Builder, loading: LoadOptions, strict: bool, seed: int) -> Network:
    """The network with its weights, as its builder or the checkpoint brings them."""
    if not builder.is_random:
        network = _from_factory(builder, loading.weights, seed)
    else:
        weights = loading.weights if loading.checkpoint is None else None
        network = _from_builder(builder, weights, seed)
    if loading.checkpoint is None:
        return network
    saved = read_checkpoint(loading.checkpoint, loading.checkpoint_key)
    network = load_checkpoint(network, builder, saved, strict=strict, seed=seed)
    if loading.checkpoint_key is None:
        return network
    key = printable(loading.checkpoint_key)
    return replace(network, weights=f"{network.weights} ({key})")


def _builder(name: str, model_args: Mapping[str, Any]) -> Builder:
    if not isinstance(name, str):
        raise UsageError(f"model: expected a name; got {printable(repr(name)[:80])}")
    if Path(name).suffix.lower() in _WEIGHTS or (os.sep in name and Path(name).is_file()):
        raise UsageError(
            f"model: expected the name of a network, which `natstats models` lists; got "
            f"{printable(name)!r}, a file of weights: give it as --checkpoint, beside the name of "
            "its network"
        )
    if name.startswith("timm:"):
        return timm_builder(name.removeprefix("timm:"), model_args)
    if ":" in name:
        return factory_builder(name, model_args)
    return named_builder(name, model_args)


def build_network(name: str, seed: int, like: Mapping[str, Any] | None = None) -> nn.Module:
    """A network with random weights, with as many classes as the state dict `like` has.

    Raises:
        UsageError: unknown name.
    """
    builder = named_builder(name)
    model = builder.build(seed)
    if like is not None and mismatch(like, model.state_dict()):
        _, model = with_classes(builder, model, like, builder.classifier(model), seed)
    return model


def _from_builder(builder: Builder, weights: str | None, seed: int) -> Network:
    """A network by name with the weights asked for; `weights` is None if a checkpoint has them."""
    untrained = f"none (random, seed {seed})"
    notes = ("the network is untrained: its weights are random, as was asked for",)
    if builder.name.startswith("timm:"):
        if weights in (None, "none"):
            model, label = builder.build(seed), untrained
        else:
            model, label = timm_weights(builder, weights or "default", seed)
        preprocessing = configured(model) or Preprocessing()
    else:
        preprocessing, entry = published(builder.name, weights or "none")
        if weights in (None, "none"):
            model, label = builder.build(seed), untrained
        elif entry is None:
            raise UsageError(
                f"weights: expected a checkpoint file beside {builder.name}, which has no "
                f"published weights, or none for random ones; got {weights!r}"
            )
        else:
            model, label = download(builder, entry, seed), str(entry)
    if takes_grey(model):
        preprocessing = preprocessing.in_grey()
    # Built without published weights, it may take images of another size than those take.
    side = side_of(builder.arguments) or side_of({"image_size": getattr(model, "image_size", None)})
    if side is not None:
        preprocessing = preprocessing.at_size(side)
    trained = label != untrained
    return Network(
        model,
        builder.name,
        label,
        trained,
        preprocessing,
        preprocessing.notes(is_known=True) + (() if trained else notes),
        form_of(builder.name),
        builder,
    )


def _from_factory(builder: Builder, weights: str, seed: int) -> Network:
    """What a factory returns, with what is known of it."""
    if weights not in ("default", "none"):
        raise UsageError(
            f"weights: expected default, none or a checkpoint for {builder.name}, whose weights "
            f"are those that it returns; got {weights!r}"
        )
    made = builder.construct(seed)
    label = f"as built by {builder.name}"
    if isinstance(made, Network):
        return replace(made, name=builder.name, weights=f"{label}: {made.weights}")
    model = unwrapped(made, f"model: what {builder.name} returns")
    if weights == "none":
        trained: bool | None = False
        notes = [f"the network counts as untrained, as was said: it is as {builder.name} made it"]
    else:
        trained = None
        notes = [f"whether the network is trained is not known: it is as {builder.name} made it"]
    preprocessing = configured(model)
    if preprocessing is None:
        notes.append(NORMALISED)
        preprocessing = Preprocessing()
    notes += preprocessing.notes(is_known(model))
    side = side_of(builder.arguments)
    if side is not None:
        preprocessing = preprocessing.at_size(side)
    return Network(model, builder.name, label, trained, preprocessing, tuple(notes))


def _for_detector(model: nn.Module, preprocessing: Preprocessing) -> Preprocessing:
    """At the size to which a detector would scale images itself, so that it has nothing to do."""
    transform = getattr(model, "transform", None)
    sides: Any = getattr(transform, "fixed_size", None) or getattr(transform, "min_size", None)
    if not sides:
        return preprocessing
    return replace(preprocessing, framing=Framing(int(min(sides)), int(min(sides))))
