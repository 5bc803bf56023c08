"""What convolutions, activation functions and norms do to the state of their input."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from natstats.theory.activation_functions import Activation, activation
from natstats.theory.activation_kinds import ACTIVATIONS, TRACED_NAMES
from natstats.theory.function_chains import composed, linear_function
from natstats.theory.given_operations import Given, pair
from natstats.theory.random_states import State
from natstats.theory.state_parts import ChannelFactors, NoFormError, Window

__all__ = ["behind_convolution", "behind_function", "behind_normalization", "by_channel"]

MANY_CHANNELS = 16
"""Fewest terms of a weighted sum whose output is taken for Gaussian."""


def _square(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else float(tensor.detach().double().square().mean())


def behind_convolution(given: Given) -> State:
    """The state after a convolution, of which only the mean square of its weights counts."""
    weight = given.get("weight")
    if not isinstance(weight, Tensor):
        raise NoFormError("its weights are computed from the data")
    if given.get("transposed"):
        raise NoFormError("a transposed convolution gives no field that is alike at all positions")
    if weight.ndim != 4:
        raise NoFormError("it is not one of maps")
    state = given.own
    stride, padding, dilation = (
        pair(given.get(name), default)
        for name, default in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)))
    )
    rows, columns = (
        Window(side, int(kernel), stride[axis], padding[axis], dilation[axis])
        for axis, (side, kernel) in enumerate(
            zip((state.height, state.width), weight.shape[2:], strict=True)
        )
    )
    n_summed = int(weight.shape[1])
    # For given values, as in a first layer, fewer would do: Gaussian weights make them Gaussian.
    is_gaussian = n_summed * rows.kernel * columns.kernel >= MANY_CHANNELS and n_summed > 1
    return state.convolved(
        rows,
        columns,
        _square(weight) * n_summed,
        _square(given.get("bias")),
        is_gaussian=is_gaussian,
    )


def _function_of(given: Given) -> Activation:
    """The activation function that an operation applies."""
    name, get = given.operation.name, given.get
    if name in ("clamp", "clamp_min", "clamp_max", "hardtanh"):
        low, high = get("min_val", get("min")), get("max_val", get("max"))
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            raise NoFormError("its limits are tensors")
        low = -math.inf if low is None else float(low)
        high = math.inf if high is None else float(high)
        rectified = linear_function(1.0)
        if low > -math.inf:
            above = composed(linear_function(1.0, -low), activation("relu"))
            rectified = activation("relu") if low == 0 else composed(above, linear_function(1, low))
        if high < math.inf:
            below = composed(linear_function(-1.0, high), activation("relu"))
            rectified = composed(rectified, composed(below, linear_function(-1.0, high)))
        return rectified
    if name == "prelu_kernel":
        return activation("leaky_relu", negative_slope=float(get("weight").double().mean()))
    if name == "elu":
        scale, inside = float(get("scale", 1)), float(get("input_scale", 1))
        function = activation("elu", alpha=float(get("alpha", 1.0)))
        function = function if inside == 1 else composed(linear_function(inside), function)
        return function if scale == 1 else composed(function, linear_function(scale))
    known = TRACED_NAMES.get(name, name)
    taken = {
        "leaky_relu": ("negative_slope",), "rrelu": ("lower", "upper"), "celu": ("alpha",),
        "gelu": ("approximate",), "softplus": ("beta", "threshold"), "hardshrink": ("lambd",),
        "softshrink": ("lambd",), "threshold": ("threshold", "value"),
    }.get(known, ())  # fmt: skip
    if known not in ACTIVATIONS:
        raise NoFormError("no such function is known")
    return activation(known, **{key: get(key) for key in taken if get(key) is not None})


def behind_function(given: Given) -> State:
    """The state after an activation function."""
    return given.own.pointwise(_function_of(given))


def _numbers(value: Any, n_channels: int) -> Tensor | None:
    """Numbers for the channels, (1,) or (C,), from a number or (.., C, 1, 1); else None."""
    if isinstance(value, bool | int | float):
        return torch.full((1,), float(value), dtype=torch.float64)
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().double().reshape(1)
    if not isinstance(value, Tensor) or value.ndim < 3 or value.shape[-2:] != (1, 1):
        return None
    return value.detach().double().reshape(-1) if value.numel() == n_channels else None


def by_channel(given: Given, state: State, factor: Any, shift: Any) -> State:
    """The state after u -> factor u + shift, with numbers for all channels or for each."""
    n_channels = given.shape[1] if len(given.shape) == 4 else 0
    g, b = _numbers(factor, n_channels), _numbers(shift, n_channels)
    if g is None or b is None:
        raise NoFormError("it works with weights that differ from position to position")
    return state.of_channels(ChannelFactors.of(g + 0 * b, b + 0 * g))


def behind_normalization(given: Given) -> State:
    """The state after batch norm, or instance norm."""
    get, state = given.get, given.own
    if "batch_norm" not in given.operation.name:
        raise NoFormError("a norm over channels or groups has no closed form here")
    weight, bias = get("weight"), get("bias")
    mean, variance = get("running_mean"), get("running_var")
    epsilon = float(get("eps", get("epsilon", 1e-5)))
    is_own = bool(get("training", False)) or variance is None
    if is_own or given.options.batch_norm == "train":
        state = state.normalized(epsilon, by_image=given.by_image)
        mean = variance = None
    n = max((len(one) for one in (weight, bias, mean, variance) if one is not None), default=1)
    gain = torch.ones(n, dtype=torch.float64)
    if variance is not None:
        gain = (variance.detach().cpu().double() + epsilon).rsqrt()
    if weight is not None:
        gain = gain * weight.detach().cpu().double()
    shift = torch.zeros(n, dtype=torch.float64)
    if mean is not None:
        shift = -mean.detach().cpu().double() * gain
    if bias is not None:
        shift = shift + bias.detach().cpu().double()
    return state.of_channels(ChannelFactors.of(gain, shift))
