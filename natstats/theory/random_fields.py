"""Max pooling of Gaussian fields by simulation, where there is no closed form.

Fields with the known covariance are drawn, the pointwise functions since the last convolution are
applied to them, they are pooled, and the moments of what comes out are taken. They carry the noise
of as many channels as fields are drawn.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from natstats.theory.covariances import lag_covariance
from natstats.theory.exact_states import ExactState
from natstats.theory.random_states import NoFormError, Origin, State
from natstats.theory.function_chains import linear_function
from natstats.theory.stationary_states import StationaryState, taper_overlap

__all__ = ["MaxWindow", "simulated_max"]

_MORE_AT_ALL_PAIRS = 16
"""Times as many fields are drawn of small maps: their moments are not averaged over positions."""

_JITTER = 1e-9
"""Share of the mean variance that is added to the diagonal, against rounding."""

_LEAST_OVERLAP = 0.02
"""Share of the pairs at lag 0 below which a lag counts as having no pairs."""


class MaxWindow(NamedTuple):
    """Arguments of a max pooling, as torch has them."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool

    def __call__(self, maps: Tensor) -> Tensor:
        return functional.max_pool2d(
            maps, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def mean_square(self, amplitude: Tensor) -> Tensor:
        """Mean square of amplitudes (N, H, W) over the windows."""
        reach = tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True))
        square = amplitude.square()[:, None]
        return functional.avg_pool2d(
            square, reach, self.stride, self.padding, self.ceil_mode, count_include_pad=False
        )[:, 0]


def simulated_max(state: State, window: MaxWindow, n_fields: int, seed: int, edges: str) -> State:
    """The state behind a max pooling.

    Args:
        state: before it.
        window: the pooling.
        n_fields: fields to draw for every image of large maps; more for small ones.
        seed: of the draws.
        edges: edge treatment, whose taper lags are seen under.

    Of large maps fields are drawn whose amplitude is 1 everywhere; a window's own amplitude is the
    root mean square of those in it.

    Raises:
        NoFormError: the covariance between images is followed, which a simulation of single images
            does not give.
    """
    if state.cross is not None:
        raise NoFormError("max pooling is simulated for single images, and batch norm needs all")
    base, function = state.origin or Origin(state, linear_function(1.0))
    generator = torch.Generator().manual_seed(seed)
    pooled = _pooled_pairs if isinstance(base, ExactState) else _pooled_lags

    def values(fields: Tensor) -> Tensor:
        return window(torch.from_numpy(function(fields.numpy())))

    found = [pooled(base, n, values, n_fields, generator, edges) for n in range(len(base.second))]
    height, width = found[0][2]
    second = torch.stack([one[0] for one in found]).to(state.second)
    mean = torch.stack([one[1] for one in found]).to(state.second)
    if not isinstance(state, StationaryState):
        return ExactState(height, width, second, mean, None, False, state.roots)
    amplitude = window.mean_square(state.amplitude).sqrt()
    made = StationaryState(
        height, width, second, mean, None, False, state.roots, amplitude=amplitude
    )
    return made.rescaled(amplitude).settled()


def _pooled_pairs(base, n, values, n_fields, generator, edges):
    mean = base.mean[n].cpu()
    covariance = base.second[n].cpu() - torch.outer(mean, mean)
    levels, vectors = torch.linalg.eigh(covariance)
    root = vectors * levels.clamp(min=0.0).sqrt()
    n_draws = n_fields * _MORE_AT_ALL_PAIRS
    noise = torch.randn(n_draws, len(mean), dtype=torch.float64, generator=generator)
    fields = (noise @ root.mT + mean).view(1, n_draws, base.height, base.width)
    maps = values(fields)[0]
    flat = maps.flatten(1)
    return flat.mT @ flat / n_draws, flat.mean(0), maps.shape[-2:]


def _pooled_lags(base, n, values, n_fields, generator, edges):
    """The covariance times the overlap of the taper is that of a field for certain.

    It is what a field shows under the taper, so that what comes out is divided by the overlap of
    the pooled maps.
    """
    height, width = base.height, base.width
    mean = float(base.mean[n])
    overlap = taper_overlap(height, width, edges)
    covariance = (base.second[n].cpu() - mean**2) * overlap
    amplitude = torch.fft.fft2(covariance).real.clamp(min=0.0).sqrt()
    power, total, count, shape = None, 0.0, 0, (0, 0)
    size = (2 * height, 2 * width)
    while count < n_fields:
        noise = torch.randn(*size, dtype=torch.complex128, generator=generator) * 2**0.5
        drawn = torch.fft.ifft2(amplitude * noise) * (4 * height * width) ** 0.5
        # Each part of the complex field, and each quarter of the torus, is a field.
        quarters = torch.view_as_real(drawn + complex(mean, mean)).permute(2, 0, 1)
        quarters = quarters.unflatten(1, (2, height)).unflatten(3, (2, width))
        fields = quarters.permute(0, 1, 3, 2, 4).reshape(1, -1, height, width)
        maps = values(fields.contiguous())[0]
        shape = maps.shape[-2:]
        level = maps.mean()
        lags = lag_covariance(maps).mean(0)
        power = lags if power is None else power + lags
        total, count = total + float(level) * len(maps), count + len(maps)
    mean_out = total / count
    lags = power * len(maps) / count
    pooled_overlap = taper_overlap(*shape, edges).clamp(min=_LEAST_OVERLAP)
    second = (lags - mean_out**2) / pooled_overlap + mean_out**2
    return second, torch.tensor([mean_out], dtype=torch.float64), shape
