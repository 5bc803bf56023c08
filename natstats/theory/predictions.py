"""What theory predicts of one operation: which spectra, and how they follow from its input."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats.activations.graph import Operation
from natstats.theory.activation_kinds import ACTIVATIONS, TRACED_NAMES, Activation, activation
from natstats.theory.circular import CircularConvolution
from natstats.theory.filters import Filter, padded_size
from natstats.theory.kernels import kernel_exponent, kernel_power, shuffled_kernel_power

__all__ = ["Place2d", "Predictions", "activation_of", "in_words", "predictions_of", "scale_of"]


@dataclass(frozen=True)
class Place2d:
    """Maps of one size.

    Attributes:
        size: (H, W), pixels.
        edges: edge treatment.
        span: share of the image that they cover.
        channels: number of maps.
    """

    size: tuple[int, int]
    edges: str
    span: float
    channels: int


@dataclass(eq=False)
class Predictions:
    """What is predicted of one step.

    Attributes:
        states: numbers of predicted states by name, see
            :class:`natstats.theory.account_spectra.Step`.
        filters: predictions from the power of the channels of its input.
        circular: the convolution on the torus, and the state that it is summed in.
        function: the activation function, for its Gaussian part.
        kernel_exponent: see :class:`natstats.theory.account_spectra.Step`.
        shuffled_exponent: likewise.
    """

    states: dict[str, int] = field(default_factory=dict)
    filters: list[Filter] = field(default_factory=list)
    circular: tuple[CircularConvolution, int] | None = None
    function: Activation | None = None
    kernel_exponent: float = math.nan
    shuffled_exponent: float = math.nan


NewState = Callable[[tuple[int, int], float], int]
"""Makes a state for maps of a size and a span, and returns its number."""


def predictions_of(
    one: Operation, before: Place2d, new_state: NewState, device: torch.device
) -> Predictions:
    """What is predicted of an operation from its input.

    Args:
        one: the operation.
        before: the maps that it takes.
        new_state: makes the states.
        device: where the maps are.
    """
    if one.kind == "convolution" and _is_plain_convolution(one):
        return _convolution(one, before, new_state, device)
    if one.kind == "linear":
        weight = one.arguments.get("mat2")
        if isinstance(weight, Tensor) and len(weight) == before.channels:
            return _product(weight, before, new_state)
    if one.kind == "pooling":
        return _pooling(one, before, new_state)
    if one.kind == "rectifier":
        return Predictions(function=activation_of(one))
    return Predictions()


def scale_of(one: Operation | None) -> Tensor | None:
    """Factor of the power of each channel in batch normalisation in eval mode, (C,).

    None for any other operation.
    """
    if one is None or "batch_norm" not in one.name or one.arguments.get("training", False):
        return None
    variance, weight = (one.arguments.get(name) for name in ("running_var", "weight"))
    if not isinstance(variance, Tensor):
        return None
    scale = 1 / (variance.detach().double() + float(one.arguments["eps"]))
    return scale * weight.detach().double() ** 2 if isinstance(weight, Tensor) else scale


def _is_plain_convolution(one: Operation) -> bool:
    weight = one.arguments.get("weight")
    is_kernel = isinstance(weight, Tensor) and weight.ndim == 4 and weight.is_floating_point()
    return is_kernel and not one.arguments.get("transposed")


def _pair(values: Any) -> tuple[int, int]:
    first, *rest = values
    return int(first), int(rest[0] if rest else first)


def _convolution(
    one: Operation, before: Place2d, new_state: NewState, device: torch.device
) -> Predictions:
    weight: Tensor = one.arguments["weight"]
    stride, dilation = _pair(one.arguments["stride"]), _pair(one.arguments["dilation"])
    groups = int(one.arguments["groups"])
    made = Predictions()
    grid = padded_size(before.size, stride)
    own = weight.detach().cpu().double().numpy()
    shape = (*before.size, before.edges, dilation, groups)
    is_pointwise = own.shape[2:] == (1, 1)
    made.kernel_exponent = made.shuffled_exponent = 0.0
    if not is_pointwise:
        made.kernel_exponent = kernel_exponent(own, *shape)
        made.shuffled_exponent = kernel_exponent(own, *shape, shuffle="kernels")

    def weights(size: tuple[int, int], of: Callable[..., Any] = kernel_power) -> Tensor:
        # A kernel of one tap acts alike at all frequencies.
        size = (1, 1) if is_pointwise else size
        return torch.from_numpy(of(own, *size, dilation, groups)).float()

    def predict(
        name: str, weight: Tensor, by: tuple[int, int] = (1, 1), coherent: Tensor | None = None
    ) -> None:
        size = before.size if by == (1, 1) else _coarse(grid, by)
        made.states[name] = new_state(size, before.span)
        made.filters.append(Filter(made.states[name], weight, by, coherent))

    predict("independent", weights(before.size))
    if stride != (1, 1):
        predict("strided", weights(grid), stride)
    if not is_pointwise:
        predict("shuffled kernels", weights(before.size, shuffled_kernel_power))
    if groups == 1:
        size = (1, 1) if is_pointwise else before.size
        predict("shuffled channels", *_mixed(own, size, before.size, dilation))
    elif own.shape[1] == 1:
        predict("shuffled channels", weights(before.size).mean(0, keepdim=True))
    if is_pointwise and stride == (1, 1) and not any(one.arguments["padding"]):
        return made  # no borders: the rest is the correlations of channels
    if own.shape[1] == 1:  # each output has one input channel
        made.states["linear"] = made.states.get("strided", made.states["independent"])
    else:
        circular = CircularConvolution(
            before.size, before.edges, weight, stride, dilation, groups, device
        )
        made.states["linear"] = new_state(circular.size, before.span)
        made.circular = circular, made.states["linear"]
    return made


def _coarse(grid: tuple[int, int], stride: tuple[int, int]) -> tuple[int, int]:
    return grid[0] // stride[0], grid[1] // stride[1]


def _mixed(
    weight: Any, size: tuple[int, int], whole: tuple[int, int], dilation: tuple[int, int]
) -> tuple[Tensor, tuple[int, int], Tensor]:
    """Weights of a convolution whose input channels are shuffled: of power, and of correlations.

    Over all orders the kernels of two different inputs have the mean product
    (|sum_i W_oi|^2 - sum_i |W_oi|^2) / (C (C - 1)).
    """
    n = weight.shape[1]
    own = kernel_power(weight, *size, dilation).sum(0)
    together = kernel_power(weight.sum(1, keepdims=True), *size, dilation)[0]
    half = whole[0], whole[1] // 2 + 1
    power, pairs = (
        torch.from_numpy(one).float().expand(half)
        for one in (own / n, (together - own) / max(n * (n - 1), 1))
    )
    return power[None], (1, 1), pairs


def _product(weight: Tensor, before: Place2d, new_state: NewState) -> Predictions:
    """A product of the channels at every place with one matrix, (C, O)."""
    made = Predictions(kernel_exponent=0.0, shuffled_exponent=0.0)
    power = weight.detach().double().square().sum(1).cpu()
    made.states["independent"] = new_state(before.size, before.span)
    made.filters.append(Filter(made.states["independent"], power[:, None, None].float()))
    return made


def _pooling(one: Operation, before: Place2d, new_state: NewState) -> Predictions:
    """An average over windows; for max pooling, its linear part."""
    made = Predictions()
    if one.arguments.get("kernel_size") is None:
        return made
    window = _pair(one.arguments["kernel_size"])
    stride = _pair(one.arguments.get("stride") or window)
    grid = padded_size(before.size, stride)
    box = np.full((1, 1, *window), 1 / np.prod(window))
    power = torch.from_numpy(kernel_power(box, *grid)).float()
    size = _coarse(grid, stride)
    made.states["average"] = new_state(size, before.span)
    made.filters.append(Filter(made.states["average"], power, stride))
    return made


def activation_of(one: Operation) -> Activation | None:
    """The activation function that an operation is; None where it, or a parameter, is not known."""
    given = one.arguments
    if one.name == "prelu_kernel":
        weight = given.get("weight")
        if isinstance(weight, Tensor) and weight.numel() == 1:
            return activation("leaky_relu", negative_slope=float(weight))
        return None
    if one.name in ("clamp", "clamp_min"):
        low, high = given.get("min"), given.get("max")
        if low is None or isinstance(low, Tensor) or isinstance(high, Tensor):
            return None
        if high is None:
            return activation("relu") if low == 0 else None
        return activation("hardtanh", min_val=float(low), max_val=float(high))
    if one.name == "elu":
        alpha, scale = float(given["alpha"]), float(given["scale"])
        if scale != 1:
            return activation("selu")
        steep = float(given["input_scale"])
        return activation("celu", alpha=1 / steep) if steep != 1 else activation("elu", alpha=alpha)
    name = TRACED_NAMES.get(one.name, one.name)
    if name not in ACTIVATIONS:
        return None
    known: Mapping[str, tuple[str, ...]] = {
        "leaky_relu": ("negative_slope",),
        "rrelu": ("lower", "upper"),
        "hardtanh": ("min_val", "max_val"),
        "gelu": ("approximate",),
        "softplus": ("beta", "threshold"),
    }
    return activation(name, **{key: given[key] for key in known.get(name, ())})


def in_words(one: Operation | None, kind: str) -> str:
    """What an operation is, for tables.

    >>> in_words(None, "attention")
    'attention'
    """
    if one is None:
        return kind
    if one.kind in ("convolution", "pooling"):
        return _window_in_words(one)
    words = {
        "rectifier": one.name.removesuffix("_kernel").removesuffix("_forward"),
        "normalization": "batch norm" if "batch_norm" in one.name else _norm_name(one.name),
        "linear": "product with weights",
    }
    return words.get(one.kind, one.kind if one.kind != "other" else one.name)


def _norm_name(name: str) -> str:
    return name.removeprefix("native_").replace("_", " ")


def _window_in_words(one: Operation) -> str:
    words = ["convolution"]
    if one.kind == "pooling":
        words = ["maximum" if "max" in one.name else "average"]
    weight = one.arguments.get("weight")
    sides = one.arguments.get("kernel_size")
    if isinstance(weight, Tensor):
        sides = weight.shape[2:]
    if sides is not None and len(sides) > 0:
        words.append("x".join(map(str, sides if len(sides) > 1 else [*sides, *sides])))
    stride = one.arguments.get("stride") or sides
    if stride is not None and any(by != 1 for by in stride):
        words.append(f"/{max(stride)}")
    groups = one.arguments.get("groups", 1)
    if groups != 1 and isinstance(weight, Tensor):
        words.append("depthwise" if weight.shape[1] == 1 else f"in {groups} groups")
    if any(by != 1 for by in one.arguments.get("dilation") or ()):
        words.append(f"dilation {max(one.arguments['dilation'])}")
    return " ".join(words)
