"""Published weights of torchvision: downloaded by name, or recognised in a file of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.networks import zoo
from natstats.networks.builders import EPS, Builder
from natstats.networks.checkpoints import Checkpoint
from natstats.networks.preprocessing import Preprocessing, of_published
from natstats.networks.torchvision_imports import torchvision_models
from natstats.text import printable

__all__ = ["as_published", "download", "published"]

_TRANSFORMED = ("googlenet", "inception_v3", "quantized_googlenet", "quantized_inception_v3")
"""Builders that set ``transform_input`` where they are given weights, and not otherwise."""


def published(name: str, weights: str) -> tuple[Preprocessing, Any]:
    """Preprocessing and entry of published weights; the default's when none are to be loaded.

    Args:
        name: name of a network of torchvision or of ours.
        weights: ``default``, ``none``, or a name.

    Raises:
        UsageError: no such weights.
    """
    own = zoo.named_network(name)
    if own is not None:
        return Preprocessing(own.framing), None
    entries = _entries(name)
    if not entries:
        return Preprocessing(), None
    if weights in ("default", "none"):
        entry = entries["DEFAULT"]
    else:
        names = [one for one in entries if one != "DEFAULT"]
        entry = entries[checks.one_of("weights", weights, names)]
    return of_published(entry), entry


def _entries(name: str) -> dict[str, Any]:
    """Published weights by name, the default once more as ``DEFAULT``."""
    found = torchvision_models().get_model_weights(name)
    return dict(found.__members__)


def download(builder: Builder, entry: Any, seed: int) -> nn.Module:
    """The network with an entry of its published weights, which are downloaded once and kept.

    Raises:
        UsageError: the builder does not take its arguments.
        NatstatsError: they cannot be downloaded, or the file that was kept is damaged.
    """
    kept = Path(torch.hub.get_dir()) / "checkpoints" / Path(entry.url).name
    was_there = kept.is_file()
    try:
        return builder.build(seed, weights=entry)
    except Exception as error:
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        if was_there and not _is_of(kept, entry):
            raise NatstatsError(
                f"weights: expected {entry} in {printable(kept)}, where they were kept, and the "
                f"file is damaged ({reason}); delete it, and they are downloaded again"
            ) from error
        if isinstance(error, UsageError) or not isinstance(error, OSError | RuntimeError):
            raise
        # URLError is an OSError; a bad hash a RuntimeError
        raise NatstatsError(
            f"weights: expected to download {entry} from {entry.url}; got {reason}. Give a file "
            "with --checkpoint, or take the untrained network with --weights none"
        ) from error


def _is_of(path: Path, entry: Any) -> bool:
    """Whether a file is that of an entry: its name ends in the first digits of its SHA-256."""
    digits = re.search(r"-([0-9a-f]{8,64})\.", Path(entry.url).name)
    if digits is None:
        return False
    sha = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                sha.update(piece)
    except OSError:
        return False
    return sha.hexdigest().startswith(digits[1])


def as_published(
    builder: Builder, model: nn.Module, saved: Checkpoint, n_classes: Callable[[], int | None]
) -> tuple[Builder, list[str]]:
    """The builder with the settings that its weights need and that their shapes do not show.

    torchvision makes some settings only where it is given its own weights; a state dict counts as
    these where it has their shapes and number of classes. Arguments that the user gave stay.

    Args:
        builder: builder of the network that takes the state dict, whose shapes it has.
        model: such a network.
        saved: the file.
        n_classes: says how many classes it has; None where that does not show.

    Returns:
        The builder, and notes on what was set.
    """
    name = builder.name
    if isinstance(model, zoo.CifarResNet) and "shortcut" not in builder.arguments:
        return _padded(builder, saved.state) if "shortcut" in builder.accepted() else (builder, [])
    if name in _TRANSFORMED and "transform_input" not in builder.arguments:
        return _transformed(builder, n_classes())
    if name in EPS and "eps" not in builder.arguments:
        return _without_eps(builder, saved, n_classes())
    return builder, []


def _padded(builder: Builder, state: Mapping[str, Any]) -> tuple[Builder, list[str]]:
    """Code that calls the classifier ``linear`` pads shortcuts on both sides; ours pads behind.

    Of 500 images of CIFAR-10, four such files classify 80 to 84 % right with the zeros on both
    sides; two of them were tried with the zeros behind, and had 15 and 10 %.
    """
    ends = {key.removesuffix("linear.weight") for key in state if key.endswith("linear.weight")}
    has_weights = any(".shortcut." in key or ".downsample." in key for key in state)
    if len(ends) != 1 or has_weights:
        return builder, []
    return builder.with_arguments(shortcut="pad-both"), [
        "the shortcuts have their zeros on both sides, as in the code that calls the classifier "
        "linear (--model-arg shortcut=pad for zeros behind)"
    ]


def _transformed(builder: Builder, n_classes: int | None) -> tuple[Builder, list[str]]:
    published_classes = len(_entries(builder.name)["DEFAULT"].meta["categories"])
    if n_classes != published_classes:
        return builder, [
            "transform_input is off, as the checkpoint does not have the classes of the published "
            "weights; one that was trained further from those needs --model-arg "
            "transform_input=true"
        ]
    return builder.with_arguments(transform_input=True), [
        "transform_input is on, as torchvision's published weights need it, whose shapes and "
        "classes the checkpoint has (--model-arg transform_input=false for others)"
    ]


def _without_eps(
    builder: Builder, saved: Checkpoint, n_classes: int | None
) -> tuple[Builder, list[str]]:
    entries = _entries(builder.name)
    entry = entries[EPS[builder.name]]
    others = [one for one in entries.values() if one is not entry]
    if n_classes != len(entry.meta["categories"]):
        return builder, []
    # Published backbones were frozen. Normalisation that was trained has counted its batches.
    counters = [
        value
        for key, value in saved.state.items()
        if "backbone.body." in key and key.endswith("num_batches_tracked")
    ]
    if any(isinstance(value, Tensor) and bool((value > 0).any()) for value in counters):
        return builder, [
            "eps of the backbone's batch normalisation is torchvision's usual one, as it was "
            "trained and not frozen as that of the published weights (--model-arg eps=0 for those)"
        ]
    if any(_is_of(Path(saved.source), one) for one in others):
        return builder, []
    return builder.with_arguments(eps=0.0), [
        f"eps of the backbone's batch normalisation is 0, as torchvision sets it for {entry}, "
        "whose shapes and classes the checkpoint has (--model-arg eps=1e-5 for others)"
    ]
