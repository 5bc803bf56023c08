"""Which modules of a network are layers, what kind they are, and how a layer is called."""

from __future__ import annotations

import difflib
import fnmatch
from collections import Counter
from collections.abc import Iterable, Sequence

from torch import nn

from natstats.errors import UsageError
from natstats.text import few

__all__ = [
    "block_names",
    "call_name",
    "is_like_a_convolution",
    "is_weight_layer",
    "module_kind",
    "owned_weights",
    "select_modules",
]

GROUPS_OF_LAYERS = ("weight", "conv", "act", "block", "stage")
"""Selections by role; anything else is a name pattern."""

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, nn.Conv3d, nn.ConvTranspose3d)
_QUANTIZED_CONVOLUTIONS = ("Conv2d", "ConvReLU2d", "ConvTranspose2d", "Conv3d", "ConvReLU3d")
_QUANTIZED_PRODUCTS = ("Linear", "LinearReLU")


def call_name(name: str, call: int, part: str = "") -> str:
    """Name of a layer: the module's own, the number of the call from the second on, the part.

    Args:
        name: name of the module.
        call: 0 for its first call in a forward pass.
        part: which tensor of its output, such as ``[0]`` or ``[pool]``; empty for the only one.

    >>> call_name("layer1.0.relu", 0), call_name("layer1.0.relu", 1), call_name("fpn", 0, "[0]")
    ('layer1.0.relu', 'layer1.0.relu:1', 'fpn[0]')
    """
    return (name if call == 0 else f"{name}:{call}") + part


def _quantized_name(module: nn.Module) -> str:
    """Class name of a module of torch's eager quantisation; empty for any other."""
    home = type(module).__module__
    is_quantized = home.startswith("torch.ao.nn.") and "quantized" in home
    return type(module).__name__ if is_quantized and "qat" not in home else ""


def _own(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a module itself, without those of the modules inside it."""
    return dict(module.named_parameters(recurse=False))


def is_like_a_convolution(module: nn.Module) -> bool:
    """True for what is built like a convolution of maps without being one of torch's.

    Deformable convolutions of torchvision, those of timm that mix several kernels, and such.
    """
    names = ("in_channels", "out_channels", "kernel_size")
    weight = _own(module).get("weight")
    return weight is not None and weight.ndim >= 2 and all(hasattr(module, n) for n in names)


def _owns_kernels(module: nn.Module) -> bool:
    """True for modules with kernels of their own, (out, in, h, w): weights that act on maps.

    Position embeddings do not count: they have four axes, too, but the first is that of the images
    and has length 1. Nor do modules that compute a weight for another one (parametrisations).
    """
    if type(module).__module__.startswith("torch.nn.utils."):
        return False
    return any(p.ndim >= 4 and p.shape[0] > 1 for p in _own(module).values())


def _is_convolution(module: nn.Module) -> bool:
    if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        return False
    return (
        isinstance(module, _CONVOLUTIONS)
        or _quantized_name(module) in _QUANTIZED_CONVOLUTIONS
        or is_like_a_convolution(module)
    )


def is_weight_layer(module: nn.Module) -> bool:
    """True for convolutions, linear layers, attention, and others that have kernels of their own.

    >>> is_weight_layer(nn.Linear(2, 2)), is_weight_layer(nn.BatchNorm2d(2))
    (True, False)
    """
    known = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.MultiheadAttention)
    quantized = _QUANTIZED_CONVOLUTIONS + _QUANTIZED_PRODUCTS
    return (
        isinstance(module, known)
        or _quantized_name(module) in quantized
        or is_like_a_convolution(module)
        or _owns_kernels(module)
    )


def owned_weights(model: nn.Module) -> set[str]:
    """Names of weight layers that are never called: parts of torch's own multi-head attention.

    >>> owned_weights(nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2)}))
    {'attention.out_proj'}
    """
    return {
        f"{name}.out_proj".lstrip(".")
        for name, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
    }


def module_kind(module: nn.Module) -> str:
    """What sort of layer a module is: ``conv``, ``depthwise``, ``linear``, ``attention``, ...

    >>> module_kind(nn.Conv2d(8, 8, 3, groups=8)), module_kind(nn.Conv2d(8, 4, 1))
    ('depthwise', 'pointwise')
    """
    if isinstance(module, nn.modules.conv._ConvNd) or _is_convolution(module):
        groups, n_in = getattr(module, "groups", 1), getattr(module, "in_channels", 0)
        if groups > 1 and groups == n_in:
            return "depthwise"
        return "pointwise" if set(getattr(module, "kernel_size", ())) == {1} else "conv"
    if isinstance(module, nn.Linear) or _quantized_name(module) in _QUANTIZED_PRODUCTS:
        return "linear"
    if isinstance(module, nn.MultiheadAttention):
        return "attention"
    home = type(module).__module__
    if home == "torch.nn.modules.activation":
        return "act"
    if home in ("torch.nn.modules.batchnorm", "torch.nn.modules.normalization"):
        return "norm"
    return type(module).__name__


def block_names(model: nn.Module) -> list[str]:
    """Names of the blocks: outermost modules with two weight layers or more and no repeated part.

    A repeated part is a class of which two or more modules inside hold two weight layers each. What
    is found are residual, dense, inverted-bottleneck, inception or transformer blocks.
    """

    def is_candidate(module: nn.Module) -> bool:
        if isinstance(module, (*_CONTAINERS, nn.MultiheadAttention)):
            return False
        inside = (nn.Linear, nn.modules.conv._ConvNd)
        n_layers = sum(
            isinstance(inner, inside)
            or is_like_a_convolution(inner)
            or bool(_quantized_name(inner) and is_weight_layer(inner))
            for inner in module.modules()
        )
        return n_layers >= 2

    found: list[str] = []

    def descend(name: str, module: nn.Module) -> None:
        inside = [
            inner for inner in module.modules() if inner is not module and is_candidate(inner)
        ]
        repeats = max(Counter(type(inner) for inner in inside).values(), default=0) >= 2
        if name and is_candidate(module) and not repeats:
            found.append(name)
            return
        for child_name, child in module.named_children():
            descend(f"{name}.{child_name}".lstrip("."), child)

    descend("", model)
    return found


def select_modules(
    model: nn.Module, layers: str | Sequence[str], stages: Iterable[str] = ()
) -> list[str]:
    """Names of the modules that `layers` asks for, in the order of the model.

    Args:
        model: the network.
        layers: ``weight`` (every convolution, linear layer and multi-head attention), ``conv``
            (convolutions), ``act`` (activation modules), ``block`` (residual, dense,
            inverted-bottleneck, transformer, ... blocks), ``stage`` (the last block of each
            resolution), or name patterns such as ``layer1.*.conv2``; several as a sequence or
            separated by commas.
        stages: what ``stage`` stands for in this model; it takes a forward pass to know.

    Raises:
        UsageError: something asked for is not there, or a module's name is not text.

    >>> select_modules(nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU()), "conv,1")
    ['0', '1']
    """
    asked = layers.split(",") if isinstance(layers, str) else list(layers)
    named = [(name, module) for name, module in model.named_modules() if name]
    odd = [name for name, _ in named if any("\ud800" <= char <= "\udfff" for char in name)]
    if odd:  # no table and no file can hold one
        raise UsageError(f"model: expected modules whose names are text; got {few(odd)}")
    chosen: set[str] = set()
    for part in (part.strip() for part in asked):
        if part == "weight":
            owned = owned_weights(model)
            found = [n for n, m in named if is_weight_layer(m) and n not in owned]
        elif part == "conv":
            found = [n for n, m in named if _is_convolution(m)]
        elif part == "act":
            found = [n for n, m in named if module_kind(m) == "act"]
        elif part == "block":
            found = block_names(model)
        elif part == "stage":
            found = list(stages)
        else:
            found = fnmatch.filter([n for n, _ in named], part)
        if not found and not named:
            raise UsageError(
                f"model: expected modules inside a network; got a single {type(model).__name__}; "
                "wrap it in torch.nn.Sequential"
            )
        if not found:
            names = [n for n, m in named if not list(m.children())]
            near = difflib.get_close_matches(part, [*GROUPS_OF_LAYERS, *names], n=3)
            if part in ("weight", "conv"):
                hint = (
                    "it has no such layers; act takes activation functions, which need no weights"
                )
            elif near and part not in near:
                hint = f"did you mean {', '.join(near)}?"
            else:
                hint = f"modules are named like {few(names, 5)}"
            raise UsageError(
                f"layers: expected {', '.join(GROUPS_OF_LAYERS)} or a pattern that matches a "
                f"module of the model; nothing matched {part!r} ({hint})"
            )
        chosen.update(found)
    return [name for name, _ in named if name in chosen]
