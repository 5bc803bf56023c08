"""Expected products of a function of two Gaussian values, for whole covariances at once.

For values u, u' of mean m, m', deviation s, s' and correlation rho, and Hermite coefficients
a_k = E[f(m + s z) He_k(z)] / sqrt(k!),

    E[f(u) f(u')] = sum_k a_k a'_k rho^k.

Where f has a kink the series converges slowly, and what it leaves out matters most where rho is
near 1: in the finest waves. There the shape of the rest does not depend on where the kink is. It
is that of the rectifier at mean zero, whose sum is known (kappa below), scaled so that the second
moment at rho = 1 is exact. For negative rho even and odd terms have opposite signs: there the rest
depends on how much the last even terms outweigh the last odd ones.

For a function with f(s x) = s f(x) and values of mean zero there is a closed form: with f = p x +
q |x| and K the covariance it is p^2 K + q^2 (2 / pi) s s' (sqrt(1 - rho^2) + rho arcsin rho), the
arc-cosine kernel of order one (Cho and Saul 2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["N_TERMS", "correlation", "homogeneous", "series"]

N_TERMS = 24
"""Terms of the series; the rest of functions with kinks has a closed shape."""


def correlation(covariance: Tensor, product: Tensor) -> Tensor:
    """Covariance over the product of the deviations, clipped to [-1, 1]; 0 for a product of 0."""
    is_there = product > 0
    rho = covariance / torch.where(is_there, product, 1.0)
    return torch.where(is_there, rho, 0.0).clamp_(-1.0, 1.0)


def homogeneous(covariance: Tensor, product: Tensor, linear: float, even: float) -> Tensor:
    """E[f(u) f(u')] of f(x) = linear x + even |x| for values of mean zero.

    Args:
        covariance: of the values, (...).
        product: of their deviations; it broadcasts against the covariance.
        linear: p above.
        even: q above.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> homogeneous(one, one, 0.5, 0.5)  # a rectifier keeps half of the second moment
    tensor([0.5000], dtype=torch.float64)
    """
    kept = linear**2 * covariance
    if even == 0.0:
        return kept
    rho = correlation(covariance, product)
    bend = torch.asin(rho).mul_(rho)
    bend += (1.0 - rho.square_()).sqrt_()
    return kept + bend.mul_(product).mul_(even**2 * 2 / math.pi)


def _kappa_coefficients() -> list[float]:
    """Coefficients of kappa(rho) = (sqrt(1 - rho^2) + rho (pi - arccos rho)) / pi."""
    coefficients = [1 / math.pi, 0.5]
    hermite = [1.0, 0.0]  # He_k(0)
    for k in range(2, N_TERMS + 1):
        coefficients.append(hermite[k - 2] ** 2 / (math.pi * math.factorial(k)))
        hermite.append(-(k - 1) * hermite[k - 2])
    return coefficients


_KAPPA = _kappa_coefficients()
_KAPPA_REST = 1.0 - sum(_KAPPA)


def _rest_shape(rho: Tensor) -> Tensor:
    """What the series of kappa leaves out, as a share of that at rho = 1; for rho of at least 0."""
    square = rho.square()
    even = torch.full_like(rho, _KAPPA[N_TERMS])
    for k in range(N_TERMS - 2, -1, -2):
        even.mul_(square).add_(_KAPPA[k])
    kappa = (1.0 - square).sqrt_() + rho * (math.pi - torch.acos(rho))
    return (kappa.div_(math.pi) - even - 0.5 * rho).div_(_KAPPA_REST).clamp_(0.0, 1.0)


def series(
    rho: Tensor,
    left: Tensor,
    right: Tensor,
    left_rest: Tensor,
    right_rest: Tensor,
    outer: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """E[f(u) f(u')] of any f from its Hermite coefficients.

    Args:
        rho: correlations, (N, ...).
        left: coefficients of the left values, (n_terms + 1, N, P).
        right: of the right values.
        left_rest: square root of what the series leaves out of the second moment, for positive and
            for negative correlations, (2, N, P).
        right_rest: of the right values.
        outer: makes products of (N, P) and (N, P) that broadcast against `rho`.

    Returns:
        The shape of `rho`.

    >>> from natstats.theory.activation_functions import activation, hermite_coefficients
    >>> terms = torch.from_numpy(hermite_coefficients(activation("relu"), [[0.0]], 1.0))
    >>> rest = (0.5 - terms.square().sum(0)).sqrt().expand(2, 1, 1)
    >>> rho = torch.tensor([[[0.999, -0.999]]], dtype=torch.float64)
    >>> by_series = series(rho, terms, terms, rest, rest, lambda x, y: (x * y)[..., None])
    >>> (by_series - homogeneous(rho, torch.ones_like(rho), 0.5, 0.5)).abs().max().item() < 1e-12
    True
    """
    total = torch.zeros_like(rho)
    for one, two in zip(left.flip(0), right.flip(0), strict=True):
        total.mul_(rho).add_(outer(one, two))
    if bool((left_rest > 0).any()):
        above, below = (outer(one, two) for one, two in zip(left_rest, right_rest, strict=True))
        total += _rest_shape(rho.abs()).mul_(torch.where(rho > 0, above, below))
    return total
