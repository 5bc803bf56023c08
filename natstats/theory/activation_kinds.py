"""The activation functions that networks use, by torch's names and definitions.

Each is kept with what is needed to integrate it: where it bends, and whether it is made of straight
pieces.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, ndtr

from natstats import checks
from natstats.errors import UsageError

__all__ = ["ACTIVATIONS", "TRACED_NAMES", "Activation", "activation"]

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

_BENDS = (-32.0, -8.0, -2.0, 0.0, 2.0, 8.0, 32.0)
"""Where the pieces of the quadrature end for smooth functions, which bend near 0 only."""


@dataclass(frozen=True, eq=False)
class Activation:
    """A function that is applied to every value by itself.

    Attributes:
        name: as torch.nn.functional calls it.
        function: from an array to one of the same shape.
        kinks: points, rising, at which it is not smooth.
        is_homogeneous: whether phi(s x) = s phi(x) for every s > 0.
        pieces: for a function of straight pieces the slope and the intercept of each, one more
            than there are kinks; numbers, or arrays that broadcast against mean and deviation. None
            for others.
        bends: further points between which the function is easy to integrate.
        parameters: those that it was made with by :func:`activation`.
    """

    name: str
    function: Function
    kinks: tuple[float, ...] = ()
    is_homogeneous: bool = False
    pieces: tuple[tuple[Any, Any], ...] | None = None
    bends: tuple[float, ...] = _BENDS
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, x: ArrayLike) -> Array:
        """The function at x."""
        return self.function(np.asarray(x, dtype=np.float64))


def _straight(
    name: str, kinks: tuple[float, ...], *pieces: tuple[Any, Any], is_homogeneous: bool = False
) -> Activation:
    """A function of straight pieces; at a kink the piece on the left holds."""

    def function(x: Array) -> Array:
        slope, intercept = pieces[0]
        value = slope * x + intercept
        for kink, (slope, intercept) in zip(kinks, pieces[1:], strict=True):
            value = np.where(x > kink, slope * x + intercept, value)
        return np.asarray(value)

    return Activation(name, function, kinks, is_homogeneous, pieces)


def _smooth(
    name: str, function: Function, kinks: tuple[float, ...] = (), scale: float = 1.0
) -> Activation:
    return Activation(name, function, kinks, bends=tuple(scale * x for x in _BENDS))


def _above(argument: str, value: float, least: float = 0.0) -> float:
    return checks.finite(argument, value, above=least)


def _in_order(low: str, first: float, high: str, second: float) -> tuple[float, float]:
    first, second = checks.finite(low, first), checks.finite(high, second)
    if first > second:
        raise UsageError(f"{high}: expected a number of at least {low} ({first:g}); got {second:g}")
    return first, second


def _relu() -> Activation:
    return _straight("relu", (0.0,), (0.0, 0.0), (1.0, 0.0), is_homogeneous=True)


def _leaky_relu(negative_slope: float = 0.01) -> Activation:
    slope = checks.finite("negative_slope", negative_slope)
    return _straight("leaky_relu", (0.0,), (slope, 0.0), (1.0, 0.0), is_homogeneous=True)


def _prelu(weight: ArrayLike = 0.25) -> Activation:
    slope = np.asarray(weight, dtype=np.float64)
    slope = slope.reshape(()) if slope.size == 1 else slope
    return _straight("prelu", (0.0,), (slope, 0.0), (1.0, 0.0), is_homogeneous=True)


def _rrelu(lower: float = 1 / 8, upper: float = 1 / 3) -> Activation:
    slope = sum(_in_order("lower", lower, "upper", upper)) / 2  # as in eval mode
    return _straight("rrelu", (0.0,), (slope, 0.0), (1.0, 0.0), is_homogeneous=True)


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0) -> Activation:
    low, high = _in_order("min_val", min_val, "max_val", max_val)
    return _straight("hardtanh", (low, high), (0.0, low), (1.0, 0.0), (0.0, high))


def _relu6() -> Activation:
    return _straight("relu6", (0.0, 6.0), (0.0, 0.0), (1.0, 0.0), (0.0, 6.0))


def _threshold(threshold: float, value: float) -> Activation:
    limit, value = checks.finite("threshold", threshold), checks.finite("value", value)
    return _straight("threshold", (limit,), (0.0, value), (1.0, 0.0))


def _hardshrink(lambd: float = 0.5) -> Activation:
    limit = checks.finite("lambd", lambd, least=0.0)

    def function(x: Array) -> Array:
        return np.where(np.abs(x) > limit, x, 0.0)

    pieces = ((1.0, 0.0), (0.0, 0.0), (1.0, 0.0))
    return Activation("hardshrink", function, (-limit, limit), pieces=pieces)


def _softshrink(lambd: float = 0.5) -> Activation:
    limit = checks.finite("lambd", lambd, least=0.0)
    return _straight("softshrink", (-limit, limit), (1.0, limit), (0.0, 0.0), (1.0, -limit))


def _hardsigmoid() -> Activation:
    return _straight("hardsigmoid", (-3.0, 3.0), (0.0, 0.0), (1 / 6, 0.5), (0.0, 1.0))


def _identity() -> Activation:
    return _straight("identity", (), (1.0, 0.0), is_homogeneous=True)


def _abs() -> Activation:
    return _straight("abs", (0.0,), (-1.0, 0.0), (1.0, 0.0), is_homogeneous=True)


def _hardswish() -> Activation:
    return _smooth("hardswish", lambda x: x * np.clip(x + 3, 0, 6) / 6, (-3.0, 3.0))


def _exponential(name: str, scale: float, alpha: float, width: float) -> Activation:
    """Scale * x above 0, scale * alpha * (exp(x / width) - 1) below."""

    def function(x: Array) -> Array:
        below = alpha * np.expm1(np.minimum(x, 0) / width)
        return np.asarray(scale * np.where(x > 0, x, below))

    return _smooth(name, function, (0.0,), width)


def _elu(alpha: float = 1.0) -> Activation:
    return _exponential("elu", 1.0, checks.finite("alpha", alpha), 1.0)


def _celu(alpha: float = 1.0) -> Activation:
    return _exponential("celu", 1.0, _above("alpha", alpha), alpha)


def _selu() -> Activation:
    # Klambauer, Unterthiner, Mayr and Hochreiter 2017, arXiv 1706.02515
    return _exponential("selu", 1.0507009873554804934193349852946, 1.6732632423543772848, 1.0)


def _gelu(approximate: str = "none") -> Activation:
    if checks.one_of("approximate", approximate, ["none", "tanh"]) == "none":
        return _smooth("gelu", lambda x: x * ndtr(x))
    root = np.sqrt(2 / np.pi)
    return _smooth("gelu", lambda x: 0.5 * x * (1 + np.tanh(root * (x + 0.044715 * x**3))))


def _softplus(beta: float = 1.0, threshold: float = 20.0) -> Activation:
    beta, limit = _above("beta", beta), checks.finite("threshold", threshold) / beta

    def function(x: Array) -> Array:
        return np.where(x > limit, x, np.logaddexp(0, beta * x) / beta)

    return _smooth("softplus", function, (limit,), 1 / beta)


def _silu() -> Activation:
    return _smooth("silu", lambda x: x * expit(x))


def _mish() -> Activation:
    return _smooth("mish", lambda x: x * np.tanh(np.logaddexp(0, x)))


def _sigmoid() -> Activation:
    return _smooth("sigmoid", expit)


def _logsigmoid() -> Activation:
    return _smooth("logsigmoid", lambda x: -np.logaddexp(0, -x))


def _tanh() -> Activation:
    return _smooth("tanh", np.tanh)


def _tanhshrink() -> Activation:
    return _smooth("tanhshrink", lambda x: x - np.tanh(x))


def _softsign() -> Activation:
    return _smooth("softsign", lambda x: x / (1 + np.abs(x)), (0.0,))


ACTIVATIONS: dict[str, Callable[..., Activation]] = {
    make.__name__.lstrip("_"): make
    for make in (
        _relu, _leaky_relu, _prelu, _rrelu, _relu6, _hardtanh, _threshold, _hardshrink,
        _softshrink, _hardsigmoid, _hardswish, _identity, _abs, _elu, _celu, _selu, _gelu,
        _softplus, _silu, _mish, _sigmoid, _logsigmoid, _tanh, _tanhshrink, _softsign,
    )
}  # fmt: skip
"""The known activation functions by name; each takes the parameters that torch gives it."""

TRACED_NAMES = {"log_sigmoid_forward": "logsigmoid", "rrelu_with_noise": "rrelu"}
"""The names of operations, as a traced pass has them, that differ from those of the functions."""


def activation(name: str, **parameters: Any) -> Activation:
    """Return an activation function by the name that torch.nn.functional has for it.

    Args:
        name: one of :data:`ACTIVATIONS`.
        parameters: as torch names them, such as ``negative_slope`` of ``leaky_relu``, with torch's
            defaults; ``weight`` of ``prelu`` may hold a slope for each channel.

    Raises:
        UsageError: an unknown name, or a parameter that is unknown, missing or out of range.

    >>> leaky = activation("leaky_relu", negative_slope=0.1)
    >>> leaky([-2.0, 3.0]), leaky.kinks, leaky.is_homogeneous
    (array([-0.2,  3. ]), (0.0,), True)
    """
    make = ACTIVATIONS[checks.one_of("function", name, ACTIVATIONS)]
    known = inspect.signature(make).parameters
    for given in parameters:
        if given not in known:
            listed = ", ".join(known) or "none"
            raise UsageError(f"{name}: expected parameters of {listed}; got {given}")
    needed = [key for key, one in known.items() if one.default is one.empty]
    if missing := [key for key in needed if key not in parameters]:
        raise UsageError(f"{name}: expected the parameter {missing[0]}; got none")
    return replace(make(**parameters), parameters=parameters)
