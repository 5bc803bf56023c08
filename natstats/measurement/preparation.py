"""The network and the images of a measurement, as they were asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import torch
from torch import nn

from natstats.errors import UsageError
from natstats.images.image_sets import none_readable
from natstats.images.sources import Images, ImageSet, Photographs, reframed
from natstats.measurement.options import MeasureOptions
from natstats.networks.load import Network, load_network, usable_device
from natstats.networks.load_options import LoadOptions
from natstats.networks.preprocessing import Preprocessing, configured, is_known
from natstats.networks.wrappers import unwrapped

__all__ = [
    "ImageSource", "as_network", "home_of", "prepared_as", "refuse_photograph_options",
    "refuse_unreadable",
]  # fmt: skip

ImageSource: TypeAlias = Images
"""What images may be given as, see :func:`natstats.images.sources.open_images`."""


def as_network(
    model: nn.Module | Network | str,
    loading: LoadOptions,
    strict: bool,
    seed: int,
    device: torch.device | str | None,
) -> Network:
    """The network that a name, a module or a ``Network`` stands for.

    Raises:
        UsageError: it is none of these, or an option is given that it cannot have.
        NatstatsError: the weights cannot be loaded, or do not fit.
    """
    if isinstance(model, str):
        return load_network(model, **vars(loading), strict=strict, seed=seed, device=device)
    for argument in loading.given():
        kind = type(model).__name__
        raise UsageError(
            f"{argument}: expected only with the name of a model; got it with a {kind}"
        )
    if isinstance(model, Network):
        if device is not None:
            raise UsageError(
                "device: expected none with a Network, which has one; move its model instead"
            )
        return model
    model = unwrapped(model)
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


def prepared_as(network: Network, options: MeasureOptions) -> Network:
    """The network with the preprocessing that was asked for in place of its own."""
    own = network.preprocessing
    framing = reframed(own.framing, options.size, options.crop)
    assert framing is not None
    prepared = replace(own, framing=framing)
    if not options.normalize:
        prepared = Preprocessing(framing, (0.0,) * len(own.mean), (1.0,) * len(own.std))
    return replace(network, preprocessing=prepared)


def refuse_photograph_options(
    source: ImageSet, images: ImageSource, options: MeasureOptions
) -> None:
    """Raise where options for photographs were given for images that are taken as they are.

    Raises:
        UsageError: `size`, `crop` or `normalize` would change nothing.
    """
    is_photographs = isinstance(source, Photographs)
    # What is passed as an image set has its framing already.
    is_framed = is_photographs and source is not images
    for name, is_given, is_usable in (
        ("size", options.size is not None, is_framed),
        ("crop", options.crop is not None, is_framed),
        ("normalize", not options.normalize, is_photographs),
    ):
        if is_given and not is_usable:
            raise UsageError(
                f"{name}: expected only for photographs; {source.description} is taken as it is"
            )


def refuse_unreadable(source: ImageSet) -> None:
    """Raise where not one photograph can be read, before weights are downloaded for them.

    Reading stops at the first that can; of other sources, such as streams, nothing is read here.

    Raises:
        NatstatsError: none can be read.
    """
    if not isinstance(source, Photographs):
        return
    first = ""
    for number in range(len(source)):
        sample = source[number]
        if sample.image is not None or sample.is_small:
            return
        first = first or f"{source.label(number)}: {sample.reason}"
    raise none_readable(len(source), first)


def home_of(model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Device and floating type of a model's parameters; CPU and float32 where it has none."""
    for parameter in model.parameters():
        if parameter.is_floating_point():
            return parameter.device, parameter.dtype
    return torch.device("cpu"), torch.float32
