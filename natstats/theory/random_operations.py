"""What each operation of a network does to the state of its input.

Every function takes the operation, the values that it works with and the options, and returns the
state behind it, or raises :class:`natstats.theory.random_states.NoFormError` with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from natstats.activations.graph import Operation
from natstats.theory.activation_functions import Activation, activation
from natstats.theory.activation_kinds import ACTIVATIONS
from natstats.theory.function_chains import composed, linear_function
from natstats.theory.random_fields import MaxWindow, SimulationOptions, simulated_max
from natstats.theory.random_states import ChannelFactors, NoFormError, State, Window
from natstats.theory.stationary_states import StationaryState
from natstats.theory.window_weights import adaptive_weights, padded_positions, pooling_weights

__all__ = ["Given", "RecursionOptions", "state_behind"]

MANY_CHANNELS = 16
"""Terms of a sum of products with weights from which its output is taken for Gaussian."""


@dataclass(frozen=True)
class RecursionOptions:
    """How the recursion goes.

    Attributes:
        edges: edge treatment, whose taper the lags of large maps are seen under.
        max_pooling: ``stop`` or ``simulate``.
        n_fields: fields that are drawn of large maps for every image.
        seed: of the draws.
        batch_norm: ``eval`` for stored statistics, ``train`` for those of the images at hand.
    """

    edges: str = "sine"
    max_pooling: str = "stop"
    n_fields: int = 128
    seed: int = 0
    batch_norm: str = "eval"


@dataclass(frozen=True, eq=False)
class Given:
    """What an operation is given.

    Attributes:
        operation: the operation.
        states: of the values among its arguments, by name; lists for lists.
        shape: of its output, of one image.
        shapes: of its inputs, by name.
        by_image: whether a normalisation has the statistics of each image for itself.
        seed: for draws.
        sample: gives channels of its first input, drawn at random.
        options: of the recursion.
    """

    operation: Operation
    states: Mapping[str, Any]
    shape: tuple[int, ...]
    shapes: Mapping[str, Any]
    by_image: bool
    seed: int
    sample: Callable[[], Tensor]
    options: RecursionOptions

    @property
    def own(self) -> State:
        """The value that the operation works on."""
        for name in ("self", "input", "src"):
            if name in self.states:
                return self.states[name]  # type: ignore[no-any-return]
        raise NoFormError("it does not work on maps")

    def get(self, name: str, default: Any = None) -> Any:
        """An argument by name, None where it is a value of the data."""
        return default if name in self.states else self.operation.arguments.get(name, default)


def _pair(value: Any, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """(a, b) of a number, a list of one or two, or nothing."""
    if isinstance(value, int):
        return value, value
    items = [int(one) for one in value or ()]
    if not items:
        return default
    return (items[0], items[-1])


def _square(tensor: Tensor | None) -> float:
    return 0.0 if tensor is None else float(tensor.detach().double().square().mean())


def _convolution(given: Given) -> State:
    weight = given.get("weight")
    if not isinstance(weight, Tensor):
        raise NoFormError("its weights are computed from the data")
    if given.get("transposed"):
        raise NoFormError("a transposed convolution gives no field that is alike at all positions")
    if weight.ndim != 4:
        raise NoFormError("it is not one of maps")
    state = given.own
    stride, padding, dilation = (
        _pair(given.get(name), default)
        for name, default in (("stride", (1, 1)), ("padding", (0, 0)), ("dilation", (1, 1)))
    )
    rows, columns = (
        Window(side, int(kernel), stride[axis], padding[axis], dilation[axis])
        for axis, (side, kernel) in enumerate(
            zip((state.height, state.width), weight.shape[2:], strict=True)
        )
    )
    n_summed = int(weight.shape[1])
    # The first layer sees given values, of which any number of Gaussian weights makes a Gaussian.
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
    known = {"log_sigmoid_forward": "logsigmoid", "rrelu_with_noise": "rrelu"}.get(name, name)
    taken = {
        "leaky_relu": ("negative_slope",), "rrelu": ("lower", "upper"), "celu": ("alpha",),
        "gelu": ("approximate",), "softplus": ("beta", "threshold"), "hardshrink": ("lambd",),
        "softshrink": ("lambd",), "threshold": ("threshold", "value"),
    }.get(known, ())  # fmt: skip
    if known not in ACTIVATIONS:
        raise NoFormError("no such function is known")
    return activation(known, **{key: get(key) for key in taken if get(key) is not None})


def _pointwise(given: Given) -> State:
    return given.own.pointwise(_function_of(given))


def _numbers(value: Any, n_channels: int) -> tuple[Tensor, bool] | None:
    """What each channel is multiplied with, or added to: a number, or (.., C, 1, 1)."""
    if isinstance(value, bool | int | float):
        return torch.full((1,), float(value), dtype=torch.float64), True
    if isinstance(value, Tensor) and value.numel() == 1:
        return value.detach().double().reshape(1), True
    if isinstance(value, Tensor) and value.numel() == n_channels and value.ndim >= 3:
        if value.shape[-1] == 1 and value.shape[-2] == 1:
            return value.detach().double().reshape(-1), False
    return None


def _by_channel(given: Given, state: State, factor: Any, shift: Any) -> State:
    """Behind u -> factor u + shift."""
    n_channels = given.shape[1] if len(given.shape) == 4 else 0
    found = _numbers(factor, n_channels), _numbers(shift, n_channels)
    if found[0] is None or found[1] is None:
        raise NoFormError("it works with weights that differ from position to position")
    g, b = torch.broadcast_tensors(found[0][0], found[1][0])
    return state.of_channels(ChannelFactors.of(g, b))


def _alike(given: Given) -> tuple[State, State]:
    """Two values of the same shape among the arguments."""
    if given.shapes["self"] != given.shapes["other"]:
        raise NoFormError("a value of another shape is spread over the maps, as a gate's is")
    return given.states["self"], given.states["other"]


def _addition(given: Given) -> State:
    name, alpha = given.operation.name, float(given.get("alpha", 1) or 1)
    signs = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[name]
    if {"self", "other"} <= given.states.keys():
        one, two = _alike(given)
        if one is two:
            return one.affine(signs[0] + signs[1])
        one, two = (
            state if sign == 1 else state.affine(sign)
            for state, sign in zip((one, two), signs, strict=True)
        )
        return _in_one_form(one, two, "plus")
    if "self" in given.states:
        shift = given.get("other")
        shift = shift * signs[1] if isinstance(shift, Tensor | int | float) else None
        return _by_channel(given, given.states["self"], signs[0], shift)
    shift = given.get("self")
    shift = shift * signs[0] if isinstance(shift, Tensor | int | float) else None
    return _by_channel(given, given.states["other"], signs[1], shift)


def _in_one_form(one: State, two: State, how: str) -> State:
    if one.form != two.form:
        one, two = (
            state.at_all_pairs() if isinstance(state, StationaryState) else state
            for state in (one, two)
        )
    return getattr(one, how)(two)  # type: ignore[no-any-return]


def _product(given: Given) -> State:
    name = given.operation.name
    if {"self", "other"} <= given.states.keys():
        if name == "div":
            raise NoFormError("a quotient of values has no closed form")
        one, two = _alike(given)
        if one is two:
            one_square = composed(linear_function(1.0), _SQUARE)
            return one.pointwise(one_square)
        return _in_one_form(one, two, "times")
    if "self" not in given.states:
        if name == "div":
            raise NoFormError("a quotient of values has no closed form")
        return _by_channel(given, given.states["other"], given.get("self"), 0.0)
    factor = given.get("other")
    if name == "div" and isinstance(factor, Tensor | int | float):
        factor = 1 / factor
    return _by_channel(given, given.states["self"], factor, 0.0)


_SQUARE = Activation("square", lambda x: x * x)


def _normalization(given: Given) -> State:
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


def _average(given: Given) -> State:
    state, get = given.own, given.get
    kernel = _pair(get("kernel_size"))
    stride = _pair(get("stride"), kernel)
    padding, divisor = _pair(get("padding"), (0, 0)), get("divisor_override")
    weights = [
        pooling_weights(
            side, *parts, bool(get("ceil_mode")), bool(get("count_include_pad", True)),
            is_sum=divisor is not None,
        )
        for side, *parts in zip(
            (state.height, state.width), kernel, stride, padding, strict=True
        )
    ]  # fmt: skip
    if divisor is not None:
        weights[1] = weights[1] / float(divisor)
    steps = tuple(
        Window(side, *parts)
        for side, *parts in zip((state.height, state.width), kernel, stride, padding, strict=True)
    )
    return state.averaged(*weights, steps)


def _adaptive_average(given: Given) -> State:
    state, sides = given.own, tuple(given.shape[-2:])
    if sides == (1, 1):
        raise NoFormError(GLOBAL)
    if sides == (state.height, state.width):
        return state
    steps = []
    for side, n_out in zip((state.height, state.width), sides, strict=True):
        if state.form == "stationary" and side % n_out:
            raise NoFormError("windows of several sizes have no stationary form")
        steps.append(Window(side, side // n_out, side // n_out, 0))
    weights = [
        adaptive_weights(side, n_out)
        for side, n_out in zip((state.height, state.width), sides, strict=True)
    ]
    return state.averaged(*weights, tuple(steps))


GLOBAL = "global pooling leaves no maps"


def _mean(given: Given) -> State:
    n_axes = len(given.shapes["self"])
    axes = {int(axis) % n_axes for axis in given.get("dim") or range(n_axes)}
    if axes >= {n_axes - 2, n_axes - 1}:
        raise NoFormError(GLOBAL)
    raise NoFormError("a mean over channels, or one axis, has no closed form")


def _max(given: Given) -> State:
    if given.options.max_pooling != "simulate":
        raise NoFormError("max pooling has no closed form; max_pooling='simulate' draws fields")
    get = given.get
    kernel = _pair(get("kernel_size"))
    window = MaxWindow(
        kernel,
        _pair(get("stride"), kernel),
        _pair(get("padding"), (0, 0)),
        _pair(get("dilation")),
        bool(get("ceil_mode")),
    )
    how = SimulationOptions(given.options.n_fields, given.seed, given.options.edges)
    return simulated_max(given.own, window, given.sample, how)


def _concatenation(given: Given) -> State:
    states: Sequence[Any] = given.states["tensors"]
    axis = int(given.get("dim", 0)) % len(given.shape)
    if axis != 1 or any(not isinstance(state, State) for state in states):
        raise NoFormError("it does not put channels side by side")
    if len({state.form for state in states}) > 1:
        states = [s.at_all_pairs() if isinstance(s, StationaryState) else s for s in states]
    channels = [int(shape[1]) for shape in given.shapes["tensors"]]
    return type(states[0]).concatenated(list(zip(states, channels, strict=True)))


def _border(given: Given) -> State:
    name, state = given.operation.name, given.own
    pad = [int(one) for one in given.get("pad", given.get("padding"))]
    mode = {"constant_pad_nd": "constant", "reflection_pad2d": "reflect"}.get(
        name, name.split("_")[0].replace("replication", "replicate")
    )
    if mode == "constant" and given.get("value", 0) not in (0, None):
        raise NoFormError("the border is filled with another number than zero")
    if any(pad[4:]):
        raise NoFormError("channels are added")
    left, right, above, below = (pad + [0] * 4)[:4]
    return state.padded(
        padded_positions(state.height, above, below, mode),
        padded_positions(state.width, left, right, mode),
    )


def _part(given: Given) -> State:
    """Some of the channels, or some rows and columns."""
    state, before, after = given.own, given.shapes["self"], given.shape
    if len(before) != len(after) or len(after) < 3 or before[0] != after[0]:
        raise NoFormError("what is left are no maps")
    if before == after:
        return state
    if before[-2:] == after[-2:]:
        return state.fresh()
    axis, step = int(given.get("dim", 0)) % len(after), int(given.get("step", 1) or 1)
    if given.operation.name != "slice" or step != 1 or axis < len(after) - 2:
        raise NoFormError("positions are taken apart")
    start = int(given.get("start", 0) or 0)
    start = start if start >= 0 else start + before[axis]
    rows, columns = list(range(state.height)), list(range(state.width))
    chosen = range(start, start + after[axis])
    rows, columns = (
        (list(chosen), columns) if axis == len(after) - 2 else (rows, list(chosen))
    )
    return state.padded(rows, columns)


def _view(given: Given) -> State:
    """Without effect on maps; all that moves pixels is refused."""
    name, state, after = given.operation.name, given.own, given.shape
    before = given.shapes.get("self") or given.shapes.get("input") or given.shapes.get("src")
    if name == "copy" and "src" in given.states:
        return given.states["src"]  # type: ignore[no-any-return]
    if name in ("slice", "split", "chunk", "narrow", "split_with_sizes", "unsafe_split"):
        return _part(given)
    moved = {
        "transpose": (given.get("dim0"), given.get("dim1")),
        "permute": tuple(given.get("dims") or ()),
    }.get(name)
    if name in ("flip", "roll", "unfold", "pixel_shuffle", "pixel_unshuffle", "t", "as_strided"):
        raise NoFormError("positions are rearranged")
    n = len(before)
    if name == "transpose" and any(int(axis) % n in (0, n - 2, n - 1) for axis in moved):
        raise NoFormError("the axes of the maps are moved")
    if name == "permute" and [int(axis) % n for axis in moved][-2:] != [n - 2, n - 1]:
        raise NoFormError("the axes of the maps are moved")
    if len(after) < 3 or tuple(after[-2:]) != (state.height, state.width):
        raise NoFormError("its output is no longer maps")
    return state


def _same(given: Given) -> State:
    return given.own


_BY_NAME: dict[str, Callable[[Given], State]] = {
    "avg_pool2d": _average,
    "adaptive_avg_pool2d": _adaptive_average,
    "mean": _mean,
    "max_pool2d_with_indices": _max,
    "mul": _product,
    "div": _product,
    "constant_pad_nd": _border,
    "reflection_pad2d": _border,
    "replication_pad2d": _border,
    "circular_pad": _border,
    "neg": lambda given: given.own.affine(-1.0),
    "square": lambda given: given.own.pointwise(_SQUARE),
    "native_dropout": _same,
}

_BY_KIND: dict[str, Callable[[Given], State]] = {
    "convolution": _convolution,
    "rectifier": _pointwise,
    "normalization": _normalization,
    "addition": _addition,
    "concatenation": _concatenation,
    "view": _view,
}


def state_behind(given: Given) -> State:
    """The state behind an operation.

    Raises:
        NoFormError: it has no closed form; the text says why.
    """
    name, kind = given.operation.name.strip("_"), given.operation.kind
    handler = _BY_NAME.get(name) or _BY_KIND.get(kind)
    if handler is None:
        if name not in ACTIVATIONS:
            raise NoFormError(f"{name} has no closed form here")
        handler = _pointwise
    return handler(given)
