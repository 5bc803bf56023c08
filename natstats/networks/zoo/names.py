"""Which networks go by a name, and what a name builds."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from natstats.errors import UsageError
from natstats.images.framing import Framing
from natstats.networks.zoo.cifar_resnets import cifar_resnet, cifar_resnet_x4
from natstats.networks.zoo.mobilenets import mobilenet_v1
from natstats.networks.zoo.parts import blocks_of
from natstats.networks.zoo.pyramidnets import pyramidnet_110_84, pyramidnet_200_240
from natstats.networks.zoo.wide_resnets import wide_resnet

__all__ = ["NETWORKS", "NamedNetwork", "named_network"]

_SMALL = Framing(32, 32)
_NUMBER = "([1-9][0-9]{0,3})"


@dataclass(frozen=True)
class NamedNetwork:
    """A network that goes by a name.

    Attributes:
        name: its name on the command line.
        build: its constructor; all of its arguments have a default, ``num_classes`` among them.
        framing: how photographs are brought to the size that it was made for.
        family: the module that it is in.
    """

    name: str
    build: Callable[..., nn.Module]
    framing: Framing
    family: str


@dataclass(frozen=True)
class _Family:
    """Names with numbers in them, the first of which is the depth.

    Attributes:
        pattern: pattern of the whole name.
        form: form of the name, for an error.
        build: takes the numbers and the arguments of the network.
        rest: the depth is a multiple of 6 plus this.
    """

    pattern: str
    form: str
    build: Callable[..., nn.Module]
    rest: int


_FAMILIES = (
    _Family(f"cifar_resnet{_NUMBER}", "cifar_resnetD", cifar_resnet, 2),
    _Family(f"cifar_resnet{_NUMBER}x4", "cifar_resnetDx4", cifar_resnet_x4, 2),
    _Family(f"wrn_{_NUMBER}_{_NUMBER}", "wrn_D_K", wide_resnet, 4),
)

_SINGLE = (
    NamedNetwork("pyramidnet_110_84", pyramidnet_110_84, _SMALL, pyramidnet_110_84.__module__),
    NamedNetwork("pyramidnet_200_240", pyramidnet_200_240, _SMALL, pyramidnet_200_240.__module__),
    NamedNetwork("mobilenet_v1", mobilenet_v1, Framing(224, 256), mobilenet_v1.__module__),
)


def named_network(name: str) -> NamedNetwork | None:
    """The network of ours that goes by a name; None where there is none.

    Beside the names in :data:`NETWORKS`, any ``cifar_resnetD``, ``cifar_resnetDx4`` and ``wrn_D_K``
    is one.

    Args:
        name: such as ``wrn_16_2``.

    Raises:
        UsageError: a name of such a form with an impossible depth.

    >>> named_network("wrn_22_3").build(num_classes=7).fc
    Linear(in_features=192, out_features=7, bias=True)
    >>> named_network("wrn_18_2")
    Traceback (most recent call last):
    natstats.errors.UsageError: model: expected wrn_D_K with D = 6 n + 4 (10, ...); got 'wrn_18_2'
    """
    for single in _SINGLE:
        if single.name == name:
            return single
    for family in _FAMILIES:
        match = re.fullmatch(family.pattern, name)
        if match is None:
            continue
        numbers = [int(number) for number in match.groups()]
        try:
            blocks_of(numbers[0], 6, family.rest)
        except UsageError as error:
            raise UsageError(
                f"model: expected {family.form} with D = 6 n + {family.rest} "
                f"({6 + family.rest}, ...); got {name!r}"
            ) from error
        # By position, so that a user cannot give them as arguments by name.
        return NamedNetwork(name, partial(family.build, *numbers), _SMALL, family.build.__module__)
    return None


_PUBLISHED = (
    *(f"cifar_resnet{depth}" for depth in (8, 14, 20, 32, 44, 56, 110)),
    *(f"cifar_resnet{depth}x4" for depth in (8, 32)),
    "wrn_10_1", "wrn_10_2", "wrn_16_1", "wrn_16_2", "wrn_16_4", "wrn_28_2", "wrn_28_4", "wrn_28_10",
    "wrn_40_1", "wrn_40_2", "wrn_40_4",
    *(single.name for single in _SINGLE),
)  # fmt: skip

NETWORKS: dict[str, NamedNetwork] = {
    name: network for name in _PUBLISHED if (network := named_network(name)) is not None
}
"""The published networks by name; :func:`named_network` knows more."""
