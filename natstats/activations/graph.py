"""The graph of a forward pass: which operation makes each value of the data out of which others.

Where :mod:`natstats.activations.trace` asks how deep a layer is, this asks what is done to the maps
on the way to it. It is drawn from a pass, not from code, so that any network that runs has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from natstats.activations.hooks import parts_of, unwatched
from natstats.activations.operations import After, OperationHooks, Place, kind_of
from natstats.activations.passes import repeatable, unchanged
from natstats.activations.selection import call_name
from natstats.activations.storages import storage_key

__all__ = ["WRITTEN", "Graph", "Operation", "Value", "ValueRef", "trace_graph"]


WRITTEN = "written"
"""Name of an operation that torch does not have: a value has changed because another view of its
storage was written into."""


class ValueRef(NamedTuple):
    """Stands in the arguments of an operation for a value of the data."""

    number: int


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation with data.

    Attributes:
        number: place in the order of execution, among those with data.
        name: what torch calls it, without overload and without the underscore of writing in place:
            ``convolution``, ``relu``, ``native_batch_norm``, ``add``, ...
        kind: one of :data:`natstats.activations.operations.KINDS`.
        place: where in the pass it stands.
        inputs: numbers of the values that it takes, in the order of its arguments.
        output: number of the value that it makes.
        arguments: all arguments by name; values of the data are :class:`ValueRef`, weights tensors.
        part: which of the tensors that it returns; a split, for one, counts as several operations.
    """

    number: int
    name: str
    kind: str
    place: Place
    inputs: tuple[int, ...]
    output: int
    arguments: Mapping[str, Any] = field(repr=False)
    part: int = 0

    @property
    def module(self) -> str:
        """Dotted name of the innermost module that runs it; empty for the model itself."""
        return self.place.module


@dataclass(frozen=True, eq=False)
class Value:
    """One value of the data: what the network is given, or what an operation made.

    Attributes:
        number: place in the order in which the values were made.
        operation: number of the operation that made it, None for what the network is given.
        shape: of the tensor.
        layers: names of the layers whose output it is.
    """

    number: int
    operation: int | None
    shape: tuple[int, ...]
    layers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Graph:
    """All operations with data of a forward pass.

    Attributes:
        operations: in the order of execution.
        values: what they take and make.
        inputs: numbers of the values that the network is given.
        outputs: numbers of those that it returns.
    """

    operations: tuple[Operation, ...]
    values: tuple[Value, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def maker(self, value: int) -> Operation | None:
        """The operation that made a value; None for what the network is given."""
        number = self.values[value].operation
        return None if number is None else self.operations[number]


_View = tuple[int, tuple[int, ...], tuple[int, ...]]


def _view(tensor: Tensor) -> _View:
    return int(tensor.storage_offset()), tuple(tensor.shape), tuple(tensor.stride())


class _Builder:
    """Notes operations and values as they come."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.values: list[Value] = []
        self.layers: dict[int, list[str]] = {}
        self._held: dict[int, dict[_View, int]] = {}

    def new_value(self, tensor: Tensor, operation: int | None, is_write: bool = False) -> int:
        """The number of a new value, which a tensor holds from now on."""
        number = len(self.values)
        self.values.append(Value(number, operation, tuple(tensor.shape)))
        views = self._held.setdefault(storage_key(tensor), {})
        if is_write:
            views.clear()
        views[_view(tensor)] = number
        return number

    def find(self, tensor: Tensor) -> int | None:
        """The number of the value in a tensor; None where it is not data."""
        views = self._held.get(storage_key(tensor))
        if views is None:
            return None
        number = views.get(_view(tensor))
        if number is None:
            # The storage was written into through another view, so this value comes from that one.
            source = next(reversed(views.values()))
            is_whole = tensor.numel() == torch.Size(self.values[source].shape).numel()
            kind = "view" if is_whole else "other"
            number = self._note(WRITTEN, kind, Place("", 0, WRITTEN, -1), [source], {}, tensor)
        return number

    def _note(
        self,
        name: str,
        kind: str,
        place: Place,
        inputs: list[int],
        arguments: Mapping[str, Any],
        output: Tensor,
        is_write: bool = False,
        part: int = 0,
    ) -> int:
        operation = len(self.operations)
        made = self.new_value(output, operation, is_write)
        self.operations.append(
            Operation(operation, name, kind, place, tuple(inputs), made, arguments, part)
        )
        return made

    def before(self, place: Place, func: Any, arguments: dict[str, Any]) -> After | None:
        """Note an operation with data."""
        inputs: list[int] = []

        def replaced(tensor: Tensor) -> Any:
            number = self.find(tensor)
            if number is None:
                return tensor
            inputs.append(number)
            return ValueRef(number)

        given = tree_map_only(Tensor, replaced, arguments)
        if not inputs:
            return None
        writes = func._schema.is_mutable and torch.Tag.inplace_view not in func.tags

        def after(output: Any) -> None:
            tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
            # Statistics beside a normalised value, or indices beside a maximum, are not maps.
            kind = kind_of(place.name)
            parts = tensors if kind == "view" else tensors[:1]
            for part, tensor in enumerate(parts):
                self._note(place.name, kind, place, inputs, given, tensor, writes, part)

        return after

    def layer(self, name: str, call: int, output: Any) -> None:
        """Note that a layer has returned a value."""
        for part, tensor in parts_of(output):
            number = self.find(tensor)
            if number is not None:
                self.layers.setdefault(number, []).append(call_name(name, call, part))


def trace_graph(
    model: nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any] | None = None
) -> Graph:
    """Run `inputs` through a model once, in eval mode, and return the graph of the pass.

    Mode, random state and buffers are as before when it returns.

    Args:
        model: the network.
        inputs: arguments of the forward pass.
        named: its keyword arguments.

    Raises:
        RuntimeError: an operation cannot be dispatched through Python; other errors as the model
            raises them.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    >>> graph = trace_graph(model, (torch.zeros(1, 3, 9, 9),))
    >>> [(one.name, one.kind, one.module) for one in graph.operations]
    [('convolution', 'convolution', '0'), ('relu', 'rectifier', '1')]
    >>> [value.layers for value in graph.values]
    [(), ('0',), ('1',)]
    """
    builder = _Builder()
    # A network may write into what it is given.
    given, by_name = tree_map_only(
        Tensor, lambda tensor: tensor.detach().clone(), (inputs, dict(named or {}))
    )
    with unwatched(), unchanged(model), repeatable():
        hooks = OperationHooks(model, builder.before, builder.layer)
        with hooks:
            leaves = [one for one in tree_leaves((given, by_name)) if isinstance(one, Tensor)]
            first = tuple(builder.new_value(leaf, None) for leaf in leaves)
            output = model(*given, **by_name)
    returned = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    outputs = tuple(number for leaf in returned if (number := builder.find(leaf)) is not None)
    values = tuple(
        Value(one.number, one.operation, one.shape, tuple(builder.layers.get(one.number, ())))
        for one in builder.values
    )
    return Graph(tuple(builder.operations), values, first, outputs)
