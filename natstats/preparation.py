"""The network and the images of a measurement, as they were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from natstats.errors import UsageError
from natstats.images.sources import ImageSet, Photographs, reframed
from natstats.networks.load import Network, load_network, usable_device
from natstats.networks.preprocessing import Preprocessing, configured, is_known
from natstats.networks.wrappers import unwrapped

__all__ = ["ImageSource", "as_network", "home_of", "prepared_as", "refuse_unused"]

ImageSource = str | Path | np.ndarray[Any, Any] | Tensor | ImageSet
"""What images may be given as, see :func:`natstats.images.sources.open_images`."""


def as_network(
    model: nn.Module | Network | str,
    loading: Mapping[str, Any],
    strict: bool,
    seed: int,
    device: torch.device | str | None,
) -> Network:
    """The network that a name, a module or a ``Network`` stands for.

    Raises:
        UsageError: not one of these, or what only goes with a name is given beside the others.
        NatstatsError: the weights cannot be had, or do not fit.
    """
    if isinstance(model, str):
        return load_network(model, **loading, strict=strict, seed=seed, device=device)
    given = {name: value not in (None, "default", {}) for name, value in loading.items()}
    if isinstance(model, Network):
        given |= {"device": device is not None}
    else:
        model = unwrapped(model)
    for argument, is_given in given.items():
        if is_given:
            raise UsageError(f"{argument}: expected only beside the name of a model; got both")
    if isinstance(model, Network):
        return model
    if device is not None:
        model = model.to(usable_device(device))
    if not list(model.children()):  # a single layer has no name of its own
        model = nn.Sequential(model)
    preprocessing = configured(model) or Preprocessing()
    return Network(
        model,
        type(model).__name__,
        "as given",
        preprocessing=preprocessing,
        notes=preprocessing.notes(is_known(model)),
    )


def prepared_as(network: Network, size: int | None, crop: int | None, normalize: bool) -> Network:
    """The network with the preprocessing that was asked for in place of its own."""
    own = network.preprocessing
    framing = reframed(own.framing, size, crop)
    assert framing is not None
    prepared = replace(own, framing=framing)
    if not normalize:
        prepared = Preprocessing(framing, (0.0,) * len(own.mean), (1.0,) * len(own.std))
    return replace(network, preprocessing=prepared)


def refuse_unused(
    source: ImageSet, images: ImageSource, size: int | None, crop: int | None, normalize: bool = True
) -> None:
    """Raise where photographs' options were given for what is taken as it is."""
    is_framed = isinstance(source, Photographs) and source is not images
    for name, is_given in (("size", size is not None), ("crop", crop is not None)):
        if is_given and not is_framed:
            raise UsageError(
                f"{name}: expected only for photographs; {source.description} is taken as it is"
            )
    if not normalize and not isinstance(source, Photographs):
        raise UsageError(
            f"normalize: expected only for photographs; {source.description} is taken as it is"
        )


def home_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating type of a model's parameters."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32
