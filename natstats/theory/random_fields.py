"""Max pooling by simulation, as there is no closed form.

Where the covariance is known at all pairs, Gaussian fields with that covariance are drawn, the
pointwise functions since the last convolution are applied to them, they are pooled, and the moments
of the result are taken. Where it is known at lags alone, which does not say how alike neighbours
are at each place, the channels come from :mod:`natstats.theory.random_samples`. Either way the
moments carry noise, less of it the more channels are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from natstats.theory.activation_functions import Activation
from natstats.theory.exact_states import ExactState
from natstats.theory.function_chains import linear_function
from natstats.theory.random_states import Origin, State
from natstats.theory.state_parts import NoFormError
from natstats.theory.stationary_states import StationaryState

__all__ = ["MaxWindow", "SimulationOptions", "simulated_max"]

_MORE_AT_ALL_PAIRS = 16
"""How many times more fields small maps get, as their moments are not averaged over positions."""


class MaxWindow(NamedTuple):
    """Arguments of a max pooling, as torch has them."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    def __call__(self, maps: Tensor) -> Tensor:
        """The largest value in every window, (N, C, H, W) -> (N, C, H', W')."""
        return functional.max_pool2d(
            maps, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )


class SimulationOptions(NamedTuple):
    """How fields are drawn.

    Attributes:
        n_fields: fields for every image of large maps, 16 times as many for small ones.
        seed: of the draws.
        edges: edge treatment, whose taper weights the lags of large maps.
    """

    n_fields: int
    seed: int
    edges: str


def simulated_max(
    state: State, window: MaxWindow, sample: Callable[[], Tensor], options: SimulationOptions
) -> State:
    """The state after a max pooling.

    Args:
        state: before it.
        window: the pooling.
        sample: gives channels of the value, (N, C, H, W), for maps too large for all pairs.
        options: how to draw.

    Raises:
        NoFormError: the covariance between images is followed, which a simulation of single images
            does not give; or no channels can be drawn.
    """
    if state.cross is not None:
        raise NoFormError("max pooling is simulated for single images, and batch norm needs all")
    if isinstance(state, StationaryState):
        pooled = StationaryState.of_maps(window(sample()), options.edges)
        return replace(pooled, roots=state.roots).settled()
    base, function = state.origin or Origin(state, linear_function(1.0))
    generator = torch.Generator().manual_seed(options.seed)
    found = [
        _pooled_pairs(base, n, function, window, options.n_fields, generator)
        for n in range(len(base.second))
    ]
    height, width = found[0][2]
    second = torch.stack([one[0] for one in found]).to(state.second)
    mean = torch.stack([one[1] for one in found]).to(state.second)
    return ExactState(height, width, second, mean, None, False, state.roots)


def _pooled_pairs(
    base: State,
    n: int,
    function: Activation,
    window: MaxWindow,
    n_fields: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor, torch.Size]:
    """Second moment, mean and size after the pooling of a function of one image's field."""
    mean = base.mean[n].cpu()
    covariance = base.second[n].cpu() - torch.outer(mean, mean)
    levels, vectors = torch.linalg.eigh(covariance)
    root = vectors * levels.clamp(min=0.0).sqrt()
    n_draws = n_fields * _MORE_AT_ALL_PAIRS
    noise = torch.randn(n_draws, len(mean), dtype=torch.float64, generator=generator)
    fields = (noise @ root.mT + mean).view(n_draws, 1, base.height, base.width)
    maps = window(torch.from_numpy(function(fields.numpy())))[:, 0]
    flat = maps.flatten(1)
    return flat.mT @ flat / n_draws, flat.mean(0), maps.shape[-2:]
