"""What a rectifier, or any function of single values, does to the covariance of Gaussian maps.

Take the values of a channel as jointly normal with mean mu, deviation s and autocorrelation rho(h).
With c_k the Hermite coefficients of phi(mu + s z)
(:mod:`natstats.theory.activation_functions`), the covariance after the function is

    cov(h) = sum_(k >= 1) c_k^2 rho(h)^k,

which for a rectifier begins with s^2 Phi(mu / s)^2 rho: the part of the field that passes
unchanged. Higher powers of the correlation fall off faster with the lag: they are finer than the
field, which is why a rectifier lowers the exponent. The series is cut after 24 terms. The variance
that it misses is given to the next power, so that the variance is exact.

What a measurement shows beyond this is due to maps that are not Gaussian.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.theory.activation_functions import (
    Activation,
    activation,
    hermite_coefficients,
    second_moment,
)
from natstats.theory.arrays import as_array

__all__ = ["N_TERMS", "rectified_mean", "rectified_sum", "rectifier", "variance_of_terms"]

Array = NDArray[np.float64]
Lags = TypeVar("Lags", Tensor, Array)

N_TERMS = 24
"""Terms of the series."""

_PIECE = 1 << 16
"""Numbers that are worked on at once: they stay in cache."""


def _function(function: str | Activation, parameters: dict[str, Any]) -> Activation:
    if isinstance(function, str):
        return activation(function, **parameters)
    if not isinstance(function, Activation) or parameters:
        raise UsageError(
            f"function: expected a name with its parameters, or an Activation alone; "
            f"got {function!r} with {parameters}"
        )
    return function


def _moments(covariance: Tensor, mean: Any) -> tuple[Array, Array]:
    """Mean and deviation of every channel, (C,)."""
    n_channels = len(covariance)
    means, variance = as_array("mean", mean), as_array("covariance", covariance[:, 0, 0])
    if means.shape not in ((), (n_channels,)):
        raise UsageError(f"mean: expected shape ({n_channels},); got {means.shape}")
    odd = ~((variance >= 0) & np.isfinite(means) & np.isfinite(variance))
    if odd.any():
        channel = int(odd.argmax())
        came = f"{variance[channel]:g} and mean {np.broadcast_to(means, n_channels)[channel]:g}"
        raise UsageError(
            f"covariance: expected a finite mean and a variance of at least 0 at lag 0; "
            f"got {came} in channel {channel}"
        )
    return np.broadcast_to(means, n_channels), np.sqrt(variance)


def variance_of_terms(coefficients: Array, moment: Array) -> Array:
    """Variance of every term from k = 1, and last the variance that the series misses.

    Args:
        coefficients: of the series from k = 0, (n + 1, C).
        moment: second moment of the output, (C,).

    Returns:
        (n + 1, C).

    >>> variance_of_terms(np.array([[1.0], [0.5]]), np.array([1.5])).ravel()
    array([0.25, 0.25])
    """
    squares = coefficients**2
    missed = moment - squares.sum(0)
    return np.concatenate([squares[1:], np.maximum(missed, 0.0)[None]])


def _shares(function: Activation, mean: Array, deviation: Array, n_terms: int) -> Array:
    """Variance of the terms of every channel, (n + 1, C)."""
    coefficients = hermite_coefficients(function, mean, deviation, n_terms)
    shares = variance_of_terms(coefficients, second_moment(function, mean, deviation))
    return np.where(deviation > 0, shares, 0.0)


def _checked(covariance: Any, n_terms: int) -> Tensor:
    lags = (
        covariance
        if isinstance(covariance, Tensor)
        else torch.from_numpy(as_array("covariance", covariance))
    )
    if lags.ndim != 3 or 0 in lags.shape or lags.is_complex():
        raise UsageError(
            f"covariance: expected a real array of shape (C, 2H, 2W); got {tuple(lags.shape)}"
        )
    checks.positive_int("n_terms", n_terms)
    return lags.detach()


def _rectified(
    lags: Tensor, mean: Any, function: Activation, n_terms: int
) -> Iterator[tuple[slice, Tensor]]:
    """Covariance after the function, some channels at a time, (c, 2H, 2W)."""
    means, deviation = _moments(lags, mean)
    shares = torch.from_numpy(_shares(function, means, deviation, n_terms)).to(lags.device)
    variance = lags[:, 0, 0].double()
    variance = torch.where(variance > 0, variance, 1.0)[:, None, None]
    step = max(1, _PIECE // lags[0].numel())
    for first in range(0, len(lags), step):
        channels = slice(first, first + step)
        # Noise may lift estimates above 1.
        rho = (lags[channels].double() / variance[channels]).clamp_(-1.0, 1.0)
        found = torch.zeros_like(rho)
        for weight in shares[:, channels, None, None].flip(0):
            found.add_(weight).mul_(rho)
        yield channels, found


def rectifier(
    covariance: Lags,
    mean: Any,
    function: str | Activation = "relu",
    *,
    n_terms: int = N_TERMS,
    **parameters: Any,
) -> Lags:
    """Covariance of Gaussian maps after a function of single values.

    Args:
        covariance: of every channel about its mean, (C, 2H, 2W), lags in FFT order, as
            :func:`natstats.theory.covariances.lag_covariance` gives it of maps less their mean; a
            tensor or an array. Where noise lifts it above the variance it is clipped.
        mean: of every channel, (C,), or one number.
        function: a name of :data:`natstats.theory.activation_kinds.ACTIVATIONS`, or an
            :class:`natstats.theory.activation_functions.Activation`.
        n_terms: terms of the series.
        parameters: of a function given by name, such as ``negative_slope``.

    Returns:
        (C, 2H, 2W), float64, a tensor on the same device or an array, as was given: the covariance
        about the new mean. A channel without variance gives zero.

    Raises:
        UsageError: shapes that do not fit, a negative variance, or an unknown function.

    >>> lags = np.zeros((1, 8, 8))
    >>> lags[0, 0, :2] = 1.0, 0.5
    >>> rectifier(lags, 0.0)[0, 0, :3].round(4)  # (pi - 1) / 2 pi; 0.5 falls to 0.1453
    array([0.3408, 0.1453, 0.    ])
    """
    lags = _checked(covariance, n_terms)
    found = torch.empty(lags.shape, dtype=torch.float64, device=lags.device)
    kind = _function(function, parameters)
    for channels, piece in _rectified(lags, mean, kind, n_terms):
        found[channels] = piece
    return found if isinstance(covariance, Tensor) else found.numpy()


def rectified_sum(
    covariance: Lags,
    mean: Any,
    function: str | Activation = "relu",
    *,
    n_terms: int = N_TERMS,
    **parameters: Any,
) -> Lags:
    """Sum over channels of what :func:`rectifier` gives, (2H, 2W), without keeping them.

    Spectra are summed over channels, and power is linear in the covariance. Arguments and errors
    are those of :func:`rectifier`.

    >>> lags = torch.zeros(3, 10, 10)
    >>> lags[:, 0, 0] = 1.0
    >>> rectified_sum(lags, 0.0, "identity")[0, :2]
    tensor([3., 0.], dtype=torch.float64)
    """
    lags = _checked(covariance, n_terms)
    total = torch.zeros(lags.shape[1:], dtype=torch.float64, device=lags.device)
    for _, piece in _rectified(lags, mean, _function(function, parameters), n_terms):
        total += piece.sum(0)
    return total if isinstance(covariance, Tensor) else total.numpy()


def rectified_mean(
    covariance: Tensor | Array,
    mean: Any,
    function: str | Activation = "relu",
    **parameters: Any,
) -> Array:
    """Mean of every channel after the function, (C,): c_0 of the series.

    Arguments and errors are those of :func:`rectifier`.

    >>> lags = np.ones((1, 2, 2))
    >>> rectified_mean(lags, 0.0).round(4)  # 1 / sqrt(2 pi)
    array([0.3989])
    """
    lags = _checked(covariance, 1)
    moments = _moments(lags, mean)
    return np.asarray(hermite_coefficients(_function(function, parameters), *moments, 0)[0])
