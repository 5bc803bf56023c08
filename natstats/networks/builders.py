"""Networks from their constructors: torchvision's and our own by name, and their classifiers."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from natstats import checks
from natstats.errors import UsageError
from natstats.networks import zoo
from natstats.networks.load_options import InputForm
from natstats.networks.torchvision_imports import torchvision_models
from natstats.networks.wrappers import unwrapped
from natstats.text import printable

__all__ = [
    "COUNTER",
    "EPS",
    "Builder",
    "Classifier",
    "form_of",
    "is_name",
    "named_builder",
    "network_names",
    "recognised",
]

_OWN_OPTIONS = {"weights", "progress", "pretrained", "checkpoint_path"}
"""Arguments of builders for which natstats has options."""


_WRONG_ARGUMENTS = (
    TypeError, ValueError, RuntimeError, AssertionError, AttributeError, LookupError,
    ArithmeticError,
)  # fmt: skip
"""What constructors raise for arguments that make no sense."""


ALIKE = 0.95
"""Least share of equal keys and shapes for which a state dict is taken for that of a network."""

COUNTER = "num_batches_tracked"
"""End of the keys of batch normalisation's counters, which old files lack."""


EPS = {
    "fasterrcnn_resnet50_fpn": "COCO_V1",
    "maskrcnn_resnet50_fpn": "COCO_V1",
    "keypointrcnn_resnet50_fpn": "COCO_V1",
    "retinanet_resnet50_fpn": "COCO_V1",
}
"""Builders that set ``eps`` of the backbone's frozen batch normalisation to 0 where they are given
these weights, which were trained before torchvision added it to the variance."""


def network_names() -> list[str]:
    """Names of torchvision's builders and of our own networks that are listed.

    Other names with numbers in them, such as ``wrn_22_3``, are valid, too; see :func:`is_name`.
    """
    return [*torchvision_models().list_models(), *zoo.NETWORKS]


def is_name(name: str) -> bool:
    """Whether a network goes by this name.

    >>> is_name("resnet18"), is_name("wrn_22_3"), is_name("wrn_23_3")
    (True, True, False)
    """
    try:
        return zoo.named_network(name) is not None or name in network_names()
    except UsageError:
        return False


@dataclass(frozen=True)
class Classifier:
    """The part of a network whose shapes follow from the number of classes.

    Attributes:
        keys: keys of its weights.
        sizes: by key, the axis that counts classes, its size per class, and a constant added to it.
    """

    keys: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    def n_classes(self, state: Mapping[str, Any]) -> int | None:
        """How many classes a state dict has; None when it does not say."""
        counts = set()
        for key, (axis, per_class, added) in self.sizes.items():
            value = state.get(key)
            if value is None and key.endswith(".weight"):  # a quantised layer packs its weights
                packed = state.get(f"{key.removesuffix('weight')}_packed_params._packed_params")
                value = packed[0] if isinstance(packed, tuple) else None
            if isinstance(value, Tensor) and value.ndim > axis:
                counts.add((value.shape[axis] - added) / per_class)
        number = counts.pop() if len(counts) == 1 else 0
        return int(number) if number >= 1 and number == int(number) else None


class _Unfilled(TorchFunctionMode):
    """Skips the filling of tensors without memory, which would load torch's compiler."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function in _FILLS or getattr(function, "__module__", "") == nn.init.__name__:
            tensor = kwargs.get("tensor", args[0] if args else None)
            if isinstance(tensor, Tensor) and tensor.is_meta:
                return tensor
        return function(*args, **kwargs)


_FILLS = (Tensor.normal_, Tensor.uniform_)


class _Empty(TorchFunctionMode):
    """Gives tensors that are allocated without values, as parameters are, a shape but no memory."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.empty:
            kwargs["device"] = "meta"
        return function(*args, **kwargs)


@dataclass(frozen=True, eq=False)
class Builder:
    """A constructor with its arguments: makes the same network again, with other weights.

    Attributes:
        name: name of the network, as it was asked for.
        call: returns a network.
        arguments: arguments that were asked for.
        fixed: further arguments, which the user cannot set.
        is_random: False where the constructor may return trained weights.
        convert: brings weights of other code for the same network to the keys of this one.
    """

    name: str
    call: Callable[..., Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    is_random: bool = True
    convert: Callable[[Mapping[str, Any], nn.Module], Any] | None = None

    def build(self, seed: int, **others: Any) -> nn.Module:
        """Make the network, with the same random weights for the same seed.

        Raises:
            UsageError: the constructor does not take `arguments`.
        """
        return unwrapped(self.construct(seed, **others))

    def construct(self, seed: int, **others: Any) -> Any:
        """What the constructor returns, whatever that is; see :meth:`build`."""
        arguments = {**self.fixed, **self.arguments, **others}
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Some builders announce that a default of theirs will change.
            warnings.simplefilter("ignore", FutureWarning)
            torch.manual_seed(seed)
            try:
                return self.call(**arguments)
            except _WRONG_ARGUMENTS as error:
                if not self.arguments or not self.is_random or isinstance(error, OSError):
                    raise
                raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> UsageError:
        known = self.accepted()
        given = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        reason = printable(" ".join(str(error).split())[:200])
        unknown = [key for key in self.arguments if key not in known]
        if unknown and known:
            reason = f"it takes {', '.join(known)}"
        return UsageError(f"model_args: expected arguments of {self.name}; got {given}: {reason}")

    def accepted(self) -> list[str]:
        """Names of the arguments that the constructor takes, as far as they can be known."""
        try:
            parameters = inspect.signature(self.call).parameters.values()
        except (TypeError, ValueError):
            return []
        kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        names = [p.name for p in parameters if p.kind in kinds]
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters) and self.is_random:
            # They are handed on to the class.
            names += _class_arguments(type(self._without_memory(plain=True)))
        return [name for name in dict.fromkeys(names) if name not in _OWN_OPTIONS]

    def with_arguments(self, **arguments: Any) -> Builder:
        """The same constructor with these arguments added."""
        return replace(self, arguments={**self.arguments, **arguments})

    def takes_classes(self) -> bool:
        """Whether the number of classes is an argument that was not given."""
        return "num_classes" not in self.arguments and "num_classes" in self.accepted()

    def classifier(self, model: nn.Module) -> Classifier:
        """Find which weights of `model`, made by this builder, depend on the number of classes.

        The network is built with two numbers of classes, and the shapes are compared. Where its
        constructor does not take one, the classifier is its last linear layer or convolution.
        """
        few, many = 7, 11
        shapes = [self.shapes(num_classes=n) for n in (few, many)]
        if not shapes[0] or shapes[0].keys() != shapes[1].keys():
            return Classifier(_last_layer(model))
        sizes = {}
        for key, small in shapes[0].items():
            large = shapes[1][key]
            axes = [i for i, pair in enumerate(zip(small, large, strict=True)) if len({*pair}) > 1]
            if len(axes) == 1:
                per_class = (large[axes[0]] - small[axes[0]]) // (many - few)
                sizes[key] = (axes[0], per_class, small[axes[0]] - few * per_class)
        return Classifier(tuple(sizes), sizes) if sizes else Classifier(_last_layer(model))

    def shapes(self, **others: Any) -> dict[str, tuple[int, ...]]:
        """Shapes by key, from a network built without memory; empty where that is impossible."""
        model = self._without_memory(**others)
        if model is None:
            return {}
        state = model.state_dict()
        return {k: tuple(v.shape) for k, v in state.items() if isinstance(v, Tensor)}

    def _without_memory(self, plain: bool = False, **others: Any) -> nn.Module | None:
        """The network on the meta device, None where it cannot be built there."""
        builder = replace(self, arguments={}) if plain else self
        if "quantize" in self.fixed:  # quantised layers need values; their keys start alike
            others["quantize"] = False
        # Some constructors need values that they compute; others mix devices if only a part moves.
        for mode in (torch.device("meta"), _Empty()):
            with contextlib.suppress(Exception, SystemExit), mode, _Unfilled():
                return builder.build(0, **others)
        return None


def _class_arguments(kind: type) -> list[str]:
    """Names of the arguments with a default, of a class and of the bases that take its others."""
    names = []
    for base in kind.__mro__:
        if base is nn.Module or "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names += [p.name for p in parameters if p.default is not p.empty]
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            break
    return names


def _last_layer(model: nn.Module) -> tuple[str, ...]:
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    named = [(name, part) for name, part in model.named_modules() if isinstance(part, kinds)]
    return tuple(f"{name}.{key}" for name, part in named[-1:] for key in part.state_dict())


def named_builder(name: str, arguments: Mapping[str, Any] | None = None) -> Builder:
    """The builder of a network that goes by a name.

    Args:
        name: name of a torchvision builder, or of a network of :mod:`natstats.networks.zoo`.
        arguments: arguments of the builder.

    Raises:
        UsageError: unknown name, or an argument for which there is an option.

    >>> named_builder("resnet18", {"num_classes": 4}).build(0).fc.out_features
    4
    """
    own = zoo.named_network(name)
    if own is None:
        checks.one_of("model", name, network_names())
    arguments = dict(arguments or {})
    for key in _OWN_OPTIONS & {*arguments}:
        raise UsageError(
            f"model_args: expected arguments other than {key}; got it: --weights and --checkpoint "
            "say which weights"
        )
    if own is not None:
        return Builder(name, own.build, arguments)
    call = torchvision_models().get_model_builder(name)
    known = inspect.signature(call).parameters
    # Nothing is downloaded that was not asked for, and a network called quantised is quantised.
    fixed = {"weights": None, "weights_backbone": None, "quantize": True}
    fixed = {key: value for key, value in fixed.items() if key in known}
    return Builder(name, _with_eps(call) if name in EPS else call, arguments, fixed)


def _with_eps(call: Callable[..., Any]) -> Callable[..., Any]:
    """A builder of a detector that also takes ``eps`` of the batch normalisation in its backbone.

    >>> detector = named_builder("retinanet_resnet50_fpn", {"eps": 0.5}).build(0)
    >>> detector.backbone.body.bn1.eps
    0.5
    """

    @functools.wraps(call)
    def build(*args: Any, eps: float | None = None, **options: Any) -> Any:
        model = call(*args, **options)
        if eps is not None:
            checks.finite("eps", eps, least=0)
            for part in model.get_submodule("backbone.body").modules():
                if hasattr(part, "running_var") and hasattr(part, "eps"):
                    part.eps = eps
        return model

    signature = inspect.signature(call)
    eps = inspect.Parameter("eps", inspect.Parameter.KEYWORD_ONLY, default=None)
    *others, last = signature.parameters.values()
    places = [*others, eps, last] if last.kind is last.VAR_KEYWORD else [*others, last, eps]
    build.__signature__ = signature.replace(parameters=places)  # type: ignore[attr-defined]
    return build


def recognised(state: Mapping[str, Any], near: str) -> list[str]:
    """Names of the networks that a state dict belongs to, whatever its classifier.

    Args:
        state: weights by key.
        near: a name whose family is looked at first.

    >>> recognised(named_builder("resnet34").build(0).state_dict(), near="resnet18")
    ['resnet34']
    """
    families: dict[str, list[str]] = {}
    for name in torchvision_models().list_models():
        home = torchvision_models().get_model_builder(name).__module__
        families.setdefault(home, []).append(name)
    for name, own in zoo.NETWORKS.items():
        families.setdefault(own.family, []).append(name)
    # What is quantised has scales; the other keys are those of the plain network.
    is_quantized = any(key.endswith(".scale") for key in state)

    def rank(names: list[str]) -> tuple[bool, bool]:
        return near not in names, names[0].startswith("quantized_") != is_quantized

    for names in sorted(families.values(), key=rank):
        # The first of a family tells whether the keys are of its kind; it may be far larger.
        first = named_builder(names[0]).shapes()
        if len(first.keys() & state.keys()) < 0.3 * min(len(first), len(state)):
            continue
        shares = {name: _share(state, named_builder(name).shapes()) for name in names}
        if max(shares.values()) >= ALIKE:
            return [name for name, share in shares.items() if share == max(shares.values())]
    return []


def _share(state: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> float:
    """Share of keys that are in both with the same shape; counters, which old files lack, aside."""
    known, held = ({k for k in keys if not k.endswith(COUNTER)} for keys in (shapes, state))
    same = [k for k in known if getattr(state.get(k), "shape", None) == shapes[k]]
    return len(same) / max(len(known), len(held), 1)


def form_of(name: str) -> InputForm:
    """The form in which a network takes images, see :mod:`natstats.networks.input_forms`."""
    if name not in torchvision_models().list_models():
        return "images"
    home = torchvision_models().get_model_builder(name).__module__
    forms: dict[str, InputForm] = {
        ".detection.": "list",
        ".video.": "clips",
        ".optical_flow.": "pairs",
    }
    return next((form for part, form in forms.items() if part in home), "images")
