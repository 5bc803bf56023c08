"""The recursion over random weights along the graph of a forward pass, for a batch of images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from natstats.activations.graph import Graph, Operation, ValueRef
from natstats.activations.operations import Place
from natstats.theory.given_operations import Given, RecursionOptions
from natstats.theory.random_operations import state_behind
from natstats.theory.random_samples import Samples, apply_operation
from natstats.theory.random_states import State
from natstats.theory.state_parts import NoFormError
from natstats.theory.stationary_states import state_of_maps

__all__ = ["Recursion", "Stopped"]

_MOVES = ("slice", "copy", "written")
"""The operations that torch runs one after the other to make a circular border."""


@dataclass(frozen=True)
class Stopped:
    """Stands for a value that the recursion does not reach.

    Attributes:
        reason: a sentence that names the place.
    """

    reason: str


_Known = State | Tensor | Stopped


def _without_circular_moves(operations: Sequence[Operation]) -> list[Operation]:
    """The operations, with those that make a circular border joined into one.

    torch makes such a border from a new, empty tensor into which slices are copied. The first
    slices say where the maps are in it.
    """
    found: list[Operation] = []
    rest = list(operations)
    while rest:
        first = rest.pop(0)
        n_moves = 0
        if first.name == "new_empty":
            while n_moves < len(rest) and rest[n_moves].name in _MOVES:
                n_moves += 1
        moves = rest[:n_moves]
        if not any(move.name == "written" for move in moves):
            found.append(first)
            continue
        corner, held = {2: 0, 3: 0}, first.output
        for move in moves:
            if move.name == "slice" and move.inputs[0] == held:
                corner[int(move.arguments["dim"])] = int(move.arguments["start"])
                held = move.output
        size = [int(side) for side in first.arguments["size"]]
        found.append(
            replace(
                moves[-1],
                name="circular_pad",
                kind="other",
                place=Place(first.module, first.place.call, "circular_pad", first.place.number),
                inputs=first.inputs,
                arguments={"self": first.arguments["self"], "corner": corner, "size": size},
            )
        )
        rest = rest[n_moves:]
    return found


class Recursion:
    """Takes batches of images through the graph of a network with random weights.

    Args:
        graph: of one image.
        model: the network, whose weights give the variances.
        options: of the recursion.

    Attributes:
        with_cross: whether the covariance between images is followed.
        approximate: places of functions whose input is taken for Gaussian and is not, as keys.
    """

    def __init__(self, graph: Graph, model: nn.Module, options: RecursionOptions) -> None:
        self.graph, self.options = graph, options
        self._operations = _without_circular_moves(graph.operations)
        self._last_use = {value: one.number for one in self._operations for value in one.inputs}
        self._by_image = {
            name
            for name, module in model.named_modules()
            if isinstance(module, nn.modules.instancenorm._InstanceNorm)
        }
        norms = [one for one in self._operations if "batch_norm" in one.name]
        self.with_cross = any(
            one.module not in self._by_image
            and (
                options.batch_norm == "train"
                or one.arguments.get("training", False)
                or one.arguments.get("running_var") is None
            )
            for one in norms
        )
        simulated = self._operations if options.max_pooling == "simulate" else []
        self.approximate: dict[str, None] = {}
        self._samples = Samples(graph, simulated, options.n_fields, options.seed)

    def run(self, given: tuple[Any, ...], first: int = 0) -> Iterator[tuple[int, _Known]]:
        """Every value of the graph, by number, in the order of execution.

        Args:
            given: arguments of the forward pass, of several images.
            first: number of the first image, which with the seed decides the draws.
        """
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        values: dict[int, _Known] = dict(zip(self.graph.inputs, tensors, strict=True))
        self._samples.start(dict(zip(self.graph.inputs, tensors, strict=True)), first)
        yield from values.items()
        for operation in self._operations:
            self._samples.follow(operation)
            try:
                found: _Known = self._behind(operation, values, first)
            except NoFormError as error:
                where = operation.module or "the network itself"
                found = Stopped(f"{where} ({operation.name}): {error}")
            values[operation.output] = found
            yield operation.output, found
            for number in operation.inputs:
                if self._last_use[number] == operation.number:
                    values.pop(number, None)
                    self._samples.forget(number)

    def _behind(self, operation: Operation, values: Mapping[int, _Known], first: int) -> _Known:
        known = [values[number] for number in operation.inputs]
        stopped = [one for one in known if isinstance(one, Stopped)]
        if stopped:
            is_gate = operation.name == "mul" and len(stopped) < len(known)
            if is_gate:
                raise NoFormError("a gate that is computed from all of the maps has no closed form")
            return stopped[0]
        is_given = all(isinstance(one, Tensor) for one in known)
        if is_given and operation.kind not in ("convolution", "linear"):
            return self._computed(operation, values)
        return self._state(operation, values, first)

    def _computed(self, operation: Operation, values: Mapping[int, _Known]) -> Tensor:
        """The output of an operation before the first weights, which does not depend on chance."""
        given = {n: one for n, one in values.items() if isinstance(one, Tensor)}
        n_images = len(next(iter(given.values())))
        shape = self.graph.values[operation.output].shape
        if operation.name == "circular_pad":
            pad = self._border(dict(operation.arguments))["pad"]
            return functional.pad(given[operation.inputs[0]], pad, mode="circular")
        size = operation.arguments.get("size")
        if isinstance(size, list) and size and size[0] == 1:
            arguments = {**operation.arguments, "size": [n_images, *size[1:]]}
            operation = replace(operation, arguments=arguments)
        found = apply_operation(operation, given)
        if found.shape[1:] != shape[1:] or operation.name in ("split", "chunk", "unbind"):
            raise NoFormError("it cannot be applied to several images")
        return found

    def _state(self, operation: Operation, values: Mapping[int, _Known], first: int) -> State:
        shapes = self.graph.values

        def state(ref: ValueRef) -> State:
            value = values[ref.number]
            if isinstance(value, Tensor):
                if value.ndim != 4:
                    raise NoFormError("it is not given maps (N, C, H, W)")
                # MPS has no float64, so the CPU does it.
                value = value.cpu() if value.device.type == "mps" else value
                return state_of_maps(value, self.options.edges, with_cross=self.with_cross)
            assert isinstance(value, State)
            return value

        arguments = dict(operation.arguments) or {"self": ValueRef(operation.inputs[0])}
        if operation.name == "circular_pad":
            arguments = self._border(arguments)
            operation = replace(operation, arguments=arguments)
        made: dict[int, State] = {}
        number = operation.inputs[0]
        first_state = values[number]
        if operation.kind == "rectifier" and isinstance(first_state, State):
            base = first_state.origin.base if first_state.origin else first_state
            if not base.is_gaussian:
                self.approximate[f"{operation.module} ({operation.name})"] = None

        def once(ref: ValueRef) -> State:
            return made.setdefault(ref.number, state(ref))

        return state_behind(
            Given(
                operation,
                _of_data(arguments, once),
                tuple(shapes[operation.output].shape),
                _of_data(arguments, lambda ref: tuple(shapes[ref.number].shape)),
                operation.module in self._by_image,
                self.options.seed + 1_000_003 * operation.number + first,
                lambda: self._samples.get(operation.inputs[0]),
                self.options,
            )
        )

    def _border(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments of a circular border, in the form of those of other borders."""
        before = self.graph.values[arguments["self"].number].shape
        pad = []
        for axis in (3, 2):
            start = arguments["corner"][axis]
            pad += [start, arguments["size"][axis] - before[axis] - start]
        return {"self": arguments["self"], "pad": pad}


def _of_data(arguments: Mapping[str, Any], make: Callable[[ValueRef], Any]) -> dict[str, Any]:
    """Those of the arguments that are data, or lists of data, as `make` gives them."""
    found: dict[str, Any] = {}
    for name, value in arguments.items():
        if isinstance(value, ValueRef):
            found[name] = make(value)
        elif isinstance(value, list | tuple) and any(isinstance(one, ValueRef) for one in value):
            found[name] = [make(one) if isinstance(one, ValueRef) else one for one in value]
    return found
