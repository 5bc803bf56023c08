"""What an operation of a network is given: states, shapes, and arguments as torch has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from natstats.activations.graph import Operation
from natstats.spectra.edge_names import Edges
from natstats.theory.random_states import State
from natstats.theory.state_parts import NoFormError

__all__ = ["Given", "RecursionOptions", "pair"]


@dataclass(frozen=True)
class RecursionOptions:
    """Options of the recursion over random weights.

    Attributes:
        edges: edge treatment, whose taper weights the lags of large maps.
        max_pooling: ``stop`` or ``simulate``.
        n_fields: fields to draw for every image of large maps, 16 times as many for small ones.
        seed: of the draws.
        batch_norm: ``eval`` for stored statistics, ``train`` for those of the images at hand.
    """

    edges: Edges = "sine"
    max_pooling: str = "stop"
    n_fields: int = 128
    seed: int = 0
    batch_norm: str = "eval"


@dataclass(frozen=True, eq=False)
class Given:
    """What an operation is given.

    Attributes:
        operation: the operation.
        states: states of those arguments that are values of the data, by name; a list for a list.
        shape: of its output, of one image.
        shapes: of its inputs, by name.
        by_image: whether a normalisation uses the statistics of each image alone.
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
        """The state of the value that the operation works on.

        Raises:
            NoFormError: it does not work on maps.
        """
        for name in ("self", "input", "src"):
            if name in self.states:
                return self.states[name]  # type: ignore[no-any-return]
        raise NoFormError("it does not work on maps")

    def get(self, name: str, default: Any = None) -> Any:
        """An argument by name; the default where it is missing, or a value of the data."""
        return default if name in self.states else self.operation.arguments.get(name, default)


def pair(value: Any, default: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """(a, b) of a number, a list of one or two, or nothing."""
    if isinstance(value, int):
        return value, value
    items = [int(one) for one in value or ()]
    if not items:
        return default
    return (items[0], items[-1])
