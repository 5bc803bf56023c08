"""Which values of a forward pass are the network's own output, and not activations.

A value is the network's own output when it reaches what the model returns, and neither it nor
anything linear in it goes through a weight layer or a nonlinearity on the way. It stays output
through operations that only move, scale, add or average values: views, copies, concatenations, sums
with other data (a residual: the image minus the noise), products with constants, average pooling,
interpolation, padding, normalisation, and the softmax that turns scores into probabilities. Any
other operation *takes* it: unknown ones, activations, products with weights and of data with data.
Operations whose results are not returned, such as a check for infinities, do not count.

One more case is recognised by its name or size: a convolution that classifies may be followed by an
activation and by pooling (SqueezeNet), and so may the last convolution of a network whose
classifier was removed. See :func:`is_named_classifier`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from natstats.activations.storages import storage_key

__all__ = ["IS_CONSTANT", "OwnOutput", "WayOut", "is_named_classifier", "is_normalisation"]


class Step(enum.IntFlag):
    """What operations on the way out do to a value; once TAKEN it is no output of the network."""

    LINEAR = 0
    AVERAGE = 1
    ACTIVATION = 2
    MAXIMUM = 4
    TAKEN = 8


_AVERAGES = re.compile(r"(_?adaptive)?_?avg_pool\d?d?$|mean$|sum$|nansum$")
_MAXIMA = re.compile(r"(adaptive_|fractional_)?max_pool\d?d?(_with_indices)?$|amax$|max$")
_LINEAR = re.compile(
    r"(add|sub|rsub|neg|negative|positive|cat|concat|stack|clone|lift_fresh|to_copy|copy|"
    r"\w+_copy|convert_element_type|mul|multiply|div|divide|true_divide|lerp|addcmul|addcdiv|"
    r"cumsum|diff|upsample_\w+|pixel_(un)?shuffle|(native_)?channel_shuffle|im2col|col2im|"
    r"(constant|reflection|replication)_pad(_nd|\d?d)|index|unsafe_index|index_select|gather|take|"
    r"index_put|unsafe_index_put|index_put_impl|index_(add|copy|fill)|scatter|scatter_add|"
    r"(slice|select|diagonal|as_strided)_scatter|masked_fill|masked_select|where|roll|flip|"
    r"repeat|tril|triu|grid_sampler_\dd(_\w+)?|complex|real|imag|fft_\w+|resolve_conj|dropout|"
    r"native_dropout|alpha_dropout|feature_dropout|feature_alpha_dropout|"
    r"\w*batch_norm\w*|(native_)?(layer|group)_norm|instance_norm|(fused_)?rms_norm\w*|"
    r"quantize_per_\w+|dequantize|fake_quantize_\w+|"
    # Scores become probabilities, and the largest of them an answer.
    r"(safe_|log_|masked_)?softmax|argmax|argmin)$"
)
"""Names, without underscores around them, of operations after which output is still output."""

_SCALES = {
    "mul": (), "multiply": (), "addcmul": (), "div": ("other",), "divide": ("other",),
    "true_divide": ("other",), "addcdiv": ("tensor2",),
}  # fmt: skip
"""Products and quotients, linear while one factor is data; with the factors that must not be."""

_FACTORS = ("self", "other", "tensor1", "tensor2")

_SELECTORS = ("index", "indices", "mask", "condition", "grid", "weight", "bias", "scale",
              "running_mean", "running_var", "zero_point")  # fmt: skip
"""Arguments that must not be data if an operation is to be linear in its data."""

IS_CONSTANT = re.compile(r"(_like$|new_|^bernoulli$|^scalar_tensor$)")
"""Names of operations that use the size of the data, and not their values."""

_UNTAGGED = ("hardswish", "rrelu_with_noise", "prelu_kernel", "log_sigmoid_forward", "glu")
"""Activations that torch does not tag as pointwise."""

_CLASSIFIERS = (
    "classifier", "classifiers", "classification", "classification_head", "class_head",
    "class_predictor", "clf", "cls", "cls_head", "cls_score", "fc", "fc_out", "head", "heads",
    "last_linear", "logit", "logits", "pred", "prediction", "predictor", "score", "scores",
)  # fmt: skip
"""Parts of the name of a module that say that it classifies."""


@dataclass(frozen=True)
class WayOut:
    """What happens to a value on all ways from it to what the model returns.

    Attributes:
        is_returned: whether there is such a way.
        steps: everything that is done to it there.
        is_product: whether the value is a product with weights, or linear in one.
    """

    is_returned: bool
    steps: Step
    is_product: bool

    def is_output(self, is_classifier: bool) -> bool:
        """Whether the value is the network's own output.

        Args:
            is_classifier: whether its name or size says that it classifies.
        """
        if not self.is_returned or Step.TAKEN in self.steps:
            return False
        pooled = bool(self.steps & (Step.AVERAGE | Step.MAXIMUM))
        if self.steps & (Step.ACTIVATION | Step.MAXIMUM) or (pooled and not self.is_product):
            return pooled and is_classifier
        return True


def is_named_classifier(
    model: nn.Module, module: str, channels: int | None, words: Iterable[str] = _CLASSIFIERS
) -> bool:
    """Whether the name of a module or its number of channels says that it classifies.

    That is so when a part of its name is a word for a classifier, or when it has as many channels
    as the network, or a module around it, has classes (``num_classes``).

    Args:
        model: the network.
        module: dotted name of the module.
        channels: number of its maps.
        words: what counts as a word for a classifier.

    >>> is_named_classifier(nn.Identity(), "net.classifier.1", 10)
    True
    >>> is_named_classifier(nn.Identity(), "features.conv_head", 10)
    False
    """
    parts = module.split(".")
    known = {*words}
    if any(part.lower() in known or part.lower().endswith("_classifier") for part in parts):
        return True
    holder: Any = model
    for part in [*parts, None]:
        n_classes = getattr(holder, "num_classes", None)
        is_count = isinstance(n_classes, int) and not isinstance(n_classes, bool) and n_classes > 0
        if is_count and n_classes == channels:
            return True
        holder = getattr(holder, part, None) if part else None
    return False


def is_normalisation(module: nn.Module) -> bool:
    """Whether a module only normalises, by its class.

    Beside torch's own classes, those count that are named like one, have no modules inside, and
    whose parameters have all but one axis of length 1.

    >>> is_normalisation(nn.RMSNorm(4)), is_normalisation(nn.Linear(4, 4))
    (True, False)
    """
    if type(module).__module__ == "torch.nn.modules.normalization":
        return True
    named = re.search(r"norm(alization)?(_?\dd)?$", type(module).__name__, re.IGNORECASE)
    sizes = [p.numel() == max(p.shape, default=1) for p in module.parameters()]
    return named is not None and next(module.children(), None) is None and all(sizes)


@dataclass(frozen=True)
class _Value:
    """One content of one storage.

    Attributes:
        made_of: numbers of the values that it was made of, each with what was done to it.
        is_product: see :class:`WayOut`.
    """

    made_of: tuple[tuple[int, Step], ...] = ()
    is_product: bool = False


class OwnOutput:
    """Follows the data through a forward pass, to find the network's own output.

    Args:
        inputs: arguments of the forward pass.

    >>> images = torch.zeros(1, 3, 9, 9)
    >>> own = OwnOutput([images])
    >>> own.leave("identity", images)
    >>> own.ways_out([images])
    [WayOut(is_returned=True, steps=<Step.LINEAR: 0>, is_product=False)]
    """

    def __init__(self, inputs: Any) -> None:
        self._values: list[_Value] = []
        self._held: dict[int, int] = {}
        self._given: dict[str, int] = {}
        self._left: list[int | None] = []
        for leaf in _tensors(inputs):
            self._hold(storage_key(leaf), _Value())

    def _hold(self, key: int, value: _Value) -> None:
        self._values.append(value)
        self._held[key] = len(self._values) - 1

    def follow(
        self,
        func: Any,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        output: Any,
        is_product: bool = False,
    ) -> None:
        """Note what `output`, which the operation `func` has just made, is made of.

        Args:
            func: the operation.
            args: its arguments.
            kwargs: its arguments by name.
            output: what it made.
            is_product: whether it multiplies data with weights.
        """
        given = {
            argument.name: value
            for argument, value in zip(func._schema.arguments, args, strict=False)
        }
        given |= kwargs
        outs = {argument.name for argument in func._schema.arguments if argument.is_out}
        tensors = {name: list(_flat(value)) for name, value in given.items()}
        old = {storage_key(tensor) for inside in tensors.values() for tensor in inside}
        data = {
            name: [
                self._held[storage_key(tensor)]
                for tensor in inside
                if storage_key(tensor) in self._held
            ]
            for name, inside in tensors.items()
            if name not in outs
        }
        data = {name: inside for name, inside in data.items() if inside}
        name = func.overloadpacket.__name__.strip("_")
        writes = func._schema.is_mutable and torch.Tag.inplace_view not in func.tags
        for leaf in _flat(output):
            key = storage_key(leaf)
            if key in old and not writes:
                continue  # a view
            whole = leaf.numel() * leaf.element_size() >= leaf.untyped_storage().nbytes()
            if name in ("fill", "zero", "copy") and key in old:
                self._write(key, data, whole)
            elif data and not IS_CONSTANT.search(func.overloadpacket.__name__):
                step = _step_of(func, name, data)
                made_of = {number: step for inside in data.values() for number in inside}
                if key in old and not whole and key in self._held:
                    made_of.setdefault(self._held[key], Step.LINEAR)
                self._hold(key, self._made(made_of, is_product))

    def _write(self, key: int, data: Mapping[str, list[int]], whole: bool) -> None:
        """Note a copy into all of a storage, or into a part of it."""
        source = [n for name, inside in data.items() if name != "self" for n in inside]
        rest = [] if whole or key not in self._held else [self._held[key]]
        if source:
            self._hold(key, self._made(dict.fromkeys((*source, *rest), Step.LINEAR), False))
        elif whole:
            self._held.pop(key, None)

    def _made(self, made_of: Mapping[int, Step], is_product: bool) -> _Value:
        linear = (number for number, step in made_of.items() if not step & ~Step.AVERAGE)
        is_product = is_product or any(self._values[number].is_product for number in linear)
        return _Value(tuple(made_of.items()), is_product)

    def enter(self, name: str, given: Any) -> None:
        """Note what a module that only normalises is given, whatever operations it consists of."""
        numbers = [
            self._held[storage_key(leaf)]
            for leaf in _flat(given)
            if storage_key(leaf) in self._held
        ]
        if len(numbers) == 1:
            self._given[name] = numbers[0]

    def leave(self, name: str, output: Tensor) -> None:
        """Note a tensor that a module returns; :meth:`ways_out` keeps the order of these calls."""
        before = self._given.pop(name, None)
        if before is not None and self._held.get(storage_key(output)) not in (None, before):
            self._hold(storage_key(output), self._made({before: Step.LINEAR}, False))
        self._left.append(self._held.get(storage_key(output)))

    def ways_out(self, returned: Any) -> list[WayOut | None]:
        """The way out of every tensor given to :meth:`leave`; None where it is not known.

        It is not known for tensors that do not come from the data. It is known for none when
        nothing that is returned comes from the data: then the data went where they cannot be
        followed.

        Args:
            returned: what the model returned.
        """
        steps = [Step.LINEAR] * len(self._values)
        is_returned = [False] * len(self._values)
        for leaf in _tensors(returned):
            if storage_key(leaf) in self._held:
                is_returned[self._held[storage_key(leaf)]] = True
        for number in reversed(range(len(self._values))):
            if is_returned[number]:
                for source, step in self._values[number].made_of:
                    is_returned[source] = True
                    steps[source] |= step | steps[number]
        is_followed = any(is_returned)
        return [
            WayOut(is_returned[number], steps[number], self._values[number].is_product)
            if number is not None and is_followed
            else None
            for number in self._left
        ]


def _step_of(func: Any, name: str, data: Mapping[str, list[int]]) -> Step:
    """What an operation does to the data that it is given."""
    n_data = sum(map(len, data.values()))
    if func.namespace not in ("aten", "prims", "prim"):
        return Step.TAKEN
    if _AVERAGES.match(name):
        return Step.AVERAGE
    if _MAXIMA.match(name) and n_data == 1:
        return Step.MAXIMUM
    if name in _SCALES:
        factors = [own for own in _FACTORS if own in data]
        if name.startswith("addc"):
            factors = [own for own in factors if own != "self"]
        n_factors = sum(len(data[own]) for own in factors)
        is_rounded = str(func).endswith("_mode")
        refused = any(own in data for own in _SCALES[name])
        return Step.TAKEN if n_factors > 1 or refused or is_rounded else Step.LINEAR
    if _LINEAR.match(name):
        return Step.TAKEN if any(own in data for own in _SELECTORS) else Step.LINEAR
    is_pointwise = torch.Tag.pointwise in func.tags or name in _UNTAGGED
    return Step.ACTIVATION if is_pointwise and n_data == 1 else Step.TAKEN


def _flat(values: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))


def _tensors(values: Any, depth: int = 4) -> Iterator[Tensor]:
    """All tensors in what a model takes or returns, also in objects that torch does not know."""
    for leaf in tree_leaves(values):
        if isinstance(leaf, Tensor):
            yield leaf
        elif depth and isinstance(leaf, Mapping):
            yield from _tensors(list(leaf.values()), depth - 1)
        elif depth and hasattr(leaf, "__dict__") and not isinstance(leaf, type | nn.Module):
            yield from _tensors(list(vars(leaf).values()), depth - 1)
