"""Activation functions as Hermite series: what a nonlinearity does to Gaussian values.

With x = mu + s z and z a standard normal variable, any function phi has the expansion

    phi(mu + s z) = sum_k c_k He_k(z) / sqrt(k!),    c_k = E[phi(mu + s z) He_k(z)] / sqrt(k!),

He_k the probabilists' Hermite polynomials. The k-th terms of two normal variables x, x' with
correlation rho have the covariance c_k c'_k rho^k, and different terms are uncorrelated (Mehler's
formula), so that Cov[phi(x), phi(x')] = sum_(k >= 1) c_k c'_k rho^k.

For a function of straight pieces, by Stein's lemma, with bends d_j of the slope (and jumps e_j)
where z = t_j, g the standard normal density, and k >= 2 (k >= 1 for jumps):

    c_k = sum_j g(t_j) (s d_j He_(k-2)(t_j) + e_j He_(k-1)(t_j)) / sqrt(k!);

c_0 is the mean, and c_1 is s times the mean slope plus the terms of jumps. The coefficients of all
other functions are found by Gauss-Legendre quadrature on pieces between the points where the
function bends. The functions are those of :mod:`natstats.theory.activation_kinds`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from natstats import checks
from natstats.errors import UsageError
from natstats.theory.activation_kinds import Activation, activation

__all__ = ["Activation", "activation", "hermite_coefficients", "second_moment"]

Array = NDArray[np.float64]

N_NODES = 40
"""Nodes of the quadrature on each piece of the line."""

_FAR = 50.0
"""Deviations from the mean beyond which the normal density is zero in a double."""


def _density(t: Array) -> Array:
    return np.asarray(np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi))


def _polynomials(t: Array, start: Array, n_terms: int) -> Iterator[Array]:
    """He_k(t) / sqrt(k!) times `start` for k = 0 .. n_terms - 1."""
    before, now = np.zeros_like(start), start
    for k in range(n_terms):
        yield now
        before, now = now, (t * now - np.sqrt(k) * before) / np.sqrt(k + 1)


@dataclass(frozen=True, eq=False)
class _Gaussian:
    """Mean and deviation of normal values, checked and broadcast; deviations of 0 are set to 1."""

    mean: Array
    deviation: Array
    varies: NDArray[np.bool_]

    @classmethod
    def of(cls, mean: ArrayLike, deviation: ArrayLike) -> _Gaussian:
        try:
            both = np.broadcast_arrays(
                np.asarray(mean, dtype=np.float64), np.asarray(deviation, dtype=np.float64)
            )
        except ValueError as error:
            shapes = f"{np.shape(mean)} and {np.shape(deviation)}"
            raise UsageError(f"deviation: expected a shape that fits mean; got {shapes}") from error
        if not (both[1] >= 0).all():
            raise UsageError(f"deviation: expected no number below 0; got {both[1].min():g}")
        varies = both[1] > 0
        return cls(both[0], np.where(varies, both[1], 1.0), varies)

    def standard(self, x: float) -> Array:
        """(x - mean) / deviation, clipped to where the density is above zero in a double."""
        return np.asarray(np.clip((x - self.mean) / self.deviation, -_FAR, _FAR))


@dataclass(frozen=True, eq=False)
class _Piece:
    """A straight piece a + b z of a function of z, and the normal density below it."""

    a: Array
    b: Array
    share: Array  # P(low < z < high)
    first: Array  # E[z; low < z < high]
    second: Array  # E[z^2; low < z < high]


def _pieces(function: Activation, values: _Gaussian) -> list[_Piece]:
    ends = [np.full_like(values.mean, -_FAR), *map(values.standard, function.kinks)]
    ends.append(np.full_like(values.mean, _FAR))
    found = []
    for (low, high), (slope, intercept) in zip(pairwise(ends), function.pieces or (), strict=True):
        # In the upper tail both distribution functions are near 1; their mirrors keep the digits.
        mirrored = low > 0
        share = ndtr(np.where(mirrored, -low, high)) - ndtr(np.where(mirrored, -high, low))
        first = _density(low) - _density(high)
        second = share + low * _density(low) - high * _density(high)
        a, b = intercept + slope * values.mean, slope * values.deviation
        found.append(_Piece(a, b, share, first, second))
    return found


def _closed(function: Activation, values: _Gaussian, n_terms: int) -> Array:
    """The coefficients of a function of straight pieces, (n_terms + 1, ...)."""
    pieces = _pieces(function, values)
    shape = np.broadcast_shapes(values.mean.shape, *(np.shape(piece.b) for piece in pieces))
    found = np.zeros((n_terms + 1, *shape))
    for piece in pieces:
        found[0] += piece.a * piece.share + piece.b * piece.first
        if n_terms:
            found[1] += piece.b * piece.share
    for kink, left, right in zip(function.kinks, pieces[:-1], pieces[1:], strict=True):
        t = values.standard(kink)
        bend, jump = right.b - left.b, (right.a - left.a) + (right.b - left.b) * t
        for k, term in enumerate(_polynomials(t, _density(t), n_terms)):
            found[k + 1] += jump * term / np.sqrt(k + 1)
            if k + 2 <= n_terms:
                found[k + 2] += bend * term / np.sqrt((k + 1) * (k + 2))
    return found


def _nodes(function: Activation, values: _Gaussian, reach: float) -> Iterator[tuple[Array, Array]]:
    """Nodes z and weights, (N_NODES, ...), on each piece of the line in turn.

    Pieces end at the kinks and bends of the function, and are no longer than 5 deviations.
    """
    fixed = np.linspace(-reach, reach, 2 * int(np.ceil(reach / 5)) + 1)
    ends = [values.standard(x) for x in {*function.kinks, *function.bends}]
    ends += [np.full_like(values.mean, z) for z in fixed]
    knots = np.sort(np.clip(np.stack(ends), -reach, reach), axis=0)
    unit, weight = np.polynomial.legendre.leggauss(N_NODES)
    unit, weight = (x.reshape(-1, *[1] * values.mean.ndim) for x in (unit, weight))
    for low, high in pairwise(knots):
        half = (high - low) / 2
        if half.any():
            yield (low + high) / 2 + half * unit, half * weight


def _by_quadrature(function: Activation, values: _Gaussian, n_terms: int) -> Array:
    found: Array | None = None
    # The k-th term oscillates up to 2 sqrt(k) and falls off beyond.
    for z, weight in _nodes(function, values, 2 * np.sqrt(n_terms) + 8):
        value = function(values.mean + values.deviation * z) * weight * _density(z)
        terms = np.stack([term.sum(0) for term in _polynomials(z, value, n_terms + 1)])
        found = terms if found is None else found + terms
    return np.asarray(found)


def hermite_coefficients(
    activation: Activation, mean: ArrayLike, deviation: ArrayLike, n_terms: int = 24
) -> Array:
    """Coefficients c_k of an activation function of normal values, see the head of this module.

    Args:
        activation: the function.
        mean: of the values, (...).
        deviation: of the values, at least 0, (...); both are broadcast. Where it is 0 the value is
            the mean, and only c_0 is not 0.
        n_terms: the last k.

    Returns:
        (n_terms + 1, ...): E[phi(mean + deviation z) He_k(z)] / sqrt(k!) for k = 0 .. n_terms. In
        closed form for functions of straight pieces, else exact to about 1e-12 of the largest.

    Raises:
        UsageError: a negative deviation, or shapes that do not fit.

    >>> hermite_coefficients(activation("relu"), 0.0, 1.0, 4).round(4) + 0.0
    array([ 0.3989,  0.5   ,  0.2821,  0.    , -0.0814])
    """
    checks.positive_int("n_terms", n_terms, 0)
    values = _Gaussian.of(mean, deviation)
    make = _by_quadrature if activation.pieces is None else _closed
    found = make(activation, values, n_terms)
    if not values.varies.all():
        constant = np.zeros_like(found)
        constant[0] = activation(values.mean)
        found = np.where(values.varies, found, constant)
    return found


def second_moment(activation: Activation, mean: ArrayLike, deviation: ArrayLike) -> Array:
    """E[phi(mean + deviation z)^2], (...): the sum of the squares of all coefficients.

    Arguments and errors are those of :func:`hermite_coefficients`.

    >>> float(second_moment(activation("relu"), 0.0, 2.0))
    2.0
    """
    values = _Gaussian.of(mean, deviation)
    if activation.pieces is None:
        found = sum(
            (activation(values.mean + values.deviation * z) ** 2 * weight * _density(z)).sum(0)
            for z, weight in _nodes(activation, values, 14.0)
        )
    else:
        found = sum(
            piece.a**2 * piece.share
            + 2 * piece.a * piece.b * piece.first
            + piece.b**2 * piece.second
            for piece in _pieces(activation, values)
        )
    return np.where(values.varies, np.maximum(found, 0.0), activation(values.mean) ** 2)
