"""Channels of a network with random weights, drawn at random, for what has no closed form.

Together with the recursion, a network of the same graph is run, with as many channels as are asked
for, and with Gaussian weights of the same variances, drawn anew for every image. So an average over
images is an average over weights, too. Its values are used where a covariance at lags is not
enough: the largest of several neighbours depends on how alike they are at that very place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from natstats.activations.graph import Graph, Operation, ValueRef
from natstats.theory.exact_states import is_exact_size
from natstats.theory.state_parts import NoFormError

__all__ = ["Samples", "apply_operation"]


def _given(argument: Any, values: Mapping[int, Tensor]) -> Any:
    if isinstance(argument, ValueRef):
        return values[argument.number]
    if isinstance(argument, list | tuple):
        return [_given(one, values) for one in argument]
    return argument


def apply_operation(operation: Operation, values: Mapping[int, Tensor]) -> Tensor:
    """The output of an operation for given values.

    Raises:
        NoFormError: it cannot be applied to as many images, or channels, as there are.
    """
    packet = getattr(torch.ops.aten, operation.name, None)
    packet = packet or getattr(torch.ops.aten, f"_{operation.name}", None)
    arguments = {name: _given(one, values) for name, one in operation.arguments.items()}
    try:
        if packet is None:
            raise RuntimeError
        result = packet(**arguments)
    except (RuntimeError, TypeError) as error:
        raise NoFormError("it cannot be applied to several images") from error
    return next(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))


class Samples:
    """The inputs of the max poolings of large maps, channel by channel.

    Args:
        graph: of one image.
        operations: of the graph.
        n_channels: channels of every value but the images.
        seed: of the weights.
    """

    def __init__(
        self, graph: Graph, operations: Sequence[Operation], n_channels: int, seed: int
    ) -> None:
        self._graph, self._n_channels, self._seed = graph, n_channels, seed
        wanted: set[int] = set()
        self.operations: set[int] = set()
        for one in reversed(operations):
            is_large = not is_exact_size(*graph.values[one.output].shape[-2:]) or any(
                not is_exact_size(*graph.values[number].shape[-2:]) for number in one.inputs
            )
            is_max = one.name == "max_pool2d_with_indices" and is_large
            if is_max or one.output in wanted:
                wanted.update(one.inputs)
                self.operations.add(one.number)
        self._first = 0
        self._values: dict[int, Tensor] = {}

    def start(self, given: Mapping[int, Tensor], first: int) -> None:
        """Begin with the next images: their given values, and the number of the first of them."""
        self._values, self._first = dict(given), first

    def follow(self, operation: Operation) -> None:
        """Find the output of an operation, if it is wanted and can be found."""
        if operation.number not in self.operations:
            return
        if all(number in self._values for number in operation.inputs):
            try:
                self._values[operation.output] = self._made(operation)
            except NoFormError:
                return

    def forget(self, number: int) -> None:
        """Drop a value that is not used again."""
        self._values.pop(number, None)

    def get(self, number: int) -> Tensor:
        """The value of this number, (N, C, H, W).

        Raises:
            NoFormError: it could not be found.
        """
        if number not in self._values:
            raise NoFormError("what it is given cannot be drawn channel by channel")
        return self._values[number]

    def _generator(self, operation: Operation, image: int) -> torch.Generator:
        seed = (self._seed * 1_000_003 + operation.number) * 1_000_003 + self._first + image
        return torch.Generator().manual_seed(seed % 2**63)

    def _made(self, operation: Operation) -> Tensor:
        if operation.kind == "convolution":
            return self._convolved(operation)
        if operation.kind == "normalization":
            return self._normalized(operation)
        arguments = operation.arguments
        if operation.kind == "concatenation":
            return self._concatenated(operation)
        if any(isinstance(one, Tensor) and one.numel() > 1 for one in arguments.values()):
            raise NoFormError("it has weights for channels")
        return apply_operation(operation, self._values)

    def _convolved(self, operation: Operation) -> Tensor:
        arguments = operation.arguments
        weight, bias = arguments["weight"], arguments["bias"]
        if arguments["transposed"] or not isinstance(weight, Tensor):
            raise NoFormError("it is no convolution with weights of its own")
        maps = self._values[operation.inputs[0]]
        n_in, n_summed = maps.shape[1], int(weight.shape[1])
        is_depthwise = n_summed == 1 and int(arguments["groups"]) > 1 and n_in == self._n_channels
        shape = (self._n_channels, 1 if is_depthwise else n_in, *weight.shape[2:])
        square = float(weight.double().square().mean()) * n_summed
        scale = (square / shape[1]) ** 0.5
        shift = 0.0 if bias is None else float(bias.double().square().mean()) ** 0.5
        found = []
        for image, own in enumerate(maps):
            generator = self._generator(operation, image)
            drawn = scale * torch.randn(shape, generator=generator)
            added = shift * torch.randn(self._n_channels, generator=generator)
            found.append(
                functional.conv2d(
                    own[None], drawn.to(own), added.to(own), arguments["stride"],
                    arguments["padding"], arguments["dilation"],
                    self._n_channels if is_depthwise else 1,
                )
            )  # fmt: skip
        return torch.cat(found)

    def _normalized(self, operation: Operation) -> Tensor:
        """Every channel is normalised like a channel of the network that is drawn at random."""
        get = operation.arguments.get
        variance, maps = get("running_var"), self._values[operation.inputs[0]]
        if "batch_norm" not in operation.name or variance is None or get("training", False):
            raise NoFormError("it has statistics of its own")
        generator = self._generator(operation, 0)
        place = torch.randint(len(variance), (maps.shape[1],), generator=generator)

        def drawn(name: str) -> Tensor | None:
            tensor = get(name)
            return None if tensor is None else tensor[place].to(maps)

        return functional.batch_norm(
            maps, drawn("running_mean"), drawn("running_var"), drawn("weight"), drawn("bias"),
            eps=float(get("eps", 1e-5)),
        )  # fmt: skip

    def _concatenated(self, operation: Operation) -> Tensor:
        """From each value as many channels, drawn at random, as are its share."""
        sizes = [self._graph.values[number].shape[1] for number in operation.inputs]
        ends = [0]
        for size in sizes:
            ends.append(ends[-1] + size)
        n, total = self._n_channels, ends[-1]
        parts = []
        for number, first, last in zip(operation.inputs, ends[:-1], ends[1:], strict=True):
            maps = self._values[number]
            n_taken = last * n // total - first * n // total
            order = torch.randperm(maps.shape[1], generator=self._generator(operation, number))
            parts.append(maps[:, order[:n_taken]])
        return torch.cat(parts, 1)
