"""What each operation of a network does to the state of its input.

Every function takes what the operation is given and returns the state after it, or raises
:class:`natstats.theory.state_parts.NoFormError` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from natstats.theory.activation_functions import Activation
from natstats.theory.activation_kinds import ACTIVATIONS
from natstats.theory.given_operations import Given, pair
from natstats.theory.random_fields import MaxWindow, SimulationOptions, simulated_max
from natstats.theory.random_states import State
from natstats.theory.state_parts import NoFormError, Window
from natstats.theory.stationary_states import StationaryState
from natstats.theory.weight_operations import (
    behind_convolution,
    behind_function,
    behind_normalization,
    by_channel,
)
from natstats.theory.window_weights import adaptive_weights, padded_positions, pooling_weights

__all__ = ["state_behind"]


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
        return by_channel(given, given.states["self"], signs[0], shift)
    shift = given.get("self")
    shift = shift * signs[0] if isinstance(shift, Tensor | int | float) else None
    return by_channel(given, given.states["other"], signs[1], shift)


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
            return one.pointwise(_SQUARE)
        return _in_one_form(one, two, "times")
    if "self" not in given.states:
        if name == "div":
            raise NoFormError("a quotient of values has no closed form")
        return by_channel(given, given.states["other"], given.get("self"), 0.0)
    factor = given.get("other")
    if name == "div" and isinstance(factor, Tensor | int | float):
        factor = 1 / factor
    return by_channel(given, given.states["self"], factor, 0.0)


_SQUARE = Activation("square", lambda x: x * x)


def _average(given: Given) -> State:
    state, get = given.own, given.get
    kernel = pair(get("kernel_size"))
    stride, padding = pair(get("stride"), kernel), pair(get("padding"), (0, 0))
    divisor = get("divisor_override")
    steps = [
        Window(side, kernel[axis], stride[axis], padding[axis])
        for axis, side in enumerate((state.height, state.width))
    ]
    rows, columns = (
        pooling_weights(
            step.side,
            step.kernel,
            step.stride,
            step.padding,
            bool(get("ceil_mode")),
            bool(get("count_include_pad", True)),
            is_sum=divisor is not None,
        )
        for step in steps
    )
    return state.averaged(rows, columns / float(divisor or 1), (steps[0], steps[1]))


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
    rows, columns = (
        adaptive_weights(step.side, n_out) for step, n_out in zip(steps, sides, strict=True)
    )
    return state.averaged(rows, columns, (steps[0], steps[1]))


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
    kernel = pair(get("kernel_size"))
    window = MaxWindow(
        kernel,
        pair(get("stride"), kernel),
        pair(get("padding"), (0, 0)),
        pair(get("dilation")),
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
    return State.concatenated(list(zip(states, channels, strict=True)))


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
    rows, columns = (list(chosen), columns) if axis == len(after) - 2 else (rows, list(chosen))
    return state.padded(rows, columns)


def _view(given: Given) -> State:
    """Operations without effect on maps; those that move pixels are refused."""
    name, state, after = given.operation.name, given.own, given.shape
    before = given.shapes.get("self") or given.shapes.get("input") or given.shapes.get("src")
    if name == "copy" and "src" in given.states:
        return given.states["src"]  # type: ignore[no-any-return]
    if name in ("slice", "split", "chunk", "narrow", "split_with_sizes", "unsafe_split"):
        return _part(given)
    moved = {
        "transpose": (given.get("dim0"), given.get("dim1")),
        "permute": tuple(given.get("dims") or ()),
    }.get(name, ())
    if name in ("flip", "roll", "unfold", "pixel_shuffle", "pixel_unshuffle", "t", "as_strided"):
        raise NoFormError("positions are rearranged")
    n = len(before or ())
    if name == "transpose" and any(int(axis) % n in (0, n - 2, n - 1) for axis in moved):
        raise NoFormError(
            "the axes of the maps are moved, as for a norm over channels or attention"
        )
    if name == "permute" and [int(axis) % n for axis in moved][-2:] != [n - 2, n - 1]:
        raise NoFormError(
            "the axes of the maps are moved, as for a norm over channels or attention"
        )
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
    "convolution": behind_convolution,
    "rectifier": behind_function,
    "normalization": behind_normalization,
    "addition": _addition,
    "concatenation": _concatenation,
    "view": _view,
}


def state_behind(given: Given) -> State:
    """The state after an operation.

    Raises:
        NoFormError: it has no closed form; the text says why.
    """
    name, kind = given.operation.name.strip("_"), given.operation.kind
    handler = _BY_NAME.get(name) or _BY_KIND.get(kind)
    if handler is None:
        if name not in ACTIVATIONS:
            raise NoFormError(f"{name} has no closed form here")
        handler = behind_function
    return handler(given)
