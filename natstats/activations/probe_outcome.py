"""What the probe found, and how it decides on layers whose answers prove nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from natstats.activations.answers import Outcome
from natstats.activations.layout_rules import LayoutRules
from natstats.activations.layouts import Layout
from natstats.activations.trace import LayerCall

__all__ = ["Probed", "decide_on_rest"]

FEWEST_POINTS = 8
"""Side of a map, in points, from which a convolution has to answer where the patch is."""


@dataclass
class Probed:
    """What the probe found.

    Attributes:
        proved: layers whose answers sit where their layout says.
        settled: layers that are read in a layout other than that of the rules, with this layout.
        refused: layers that fit no layout, with the reason.
        by_rule: layers whose own answers prove nothing, so that their layout is not proved.
        doubted: layers with a declared layout that answer elsewhere.
        problem: why the probe could not be made; empty when it was.
    """

    proved: set[str] = field(default_factory=set)
    settled: dict[str, Layout] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    by_rule: set[str] = field(default_factory=set)
    doubted: list[str] = field(default_factory=list)
    problem: str = ""

    def warnings(self) -> list[str]:
        """What a reader of the results must know."""
        said = []
        if self.problem:
            said.append(f"the layouts of the layers were not proved: {self.problem}")
        if self.doubted:
            n = len(self.doubted)
            said.append(
                f"{n} {'layer answers' if n == 1 else 'layers answer'} in another place than the "
                f"layout says that was declared: {', '.join(self.doubted[:3])}"
            )
        return said


class _Rest:
    """Layers without a proof of their own.

    Layers with equally many tokens usually have them in the same order, but outputs of attention
    answer everywhere, which proves nothing. So these layers follow those of the same form that have
    a proof.
    """

    def __init__(
        self,
        outcomes: Mapping[str, Outcome],
        calls: Mapping[str, LayerCall],
        rules: LayoutRules,
        found: Probed,
    ) -> None:
        self._outcomes, self._calls, self._rules, self._found = outcomes, calls, rules, found
        elsewhere = {name for name, outcome in outcomes.items() if outcome.is_elsewhere}
        self._refused = elsewhere - {name for name in outcomes if self._is_small(calls[name])}
        proved = (calls[name] for name in found.proved)
        self._dense = {
            call.layout.grid
            for call in proved
            if isinstance(call.layout, Layout) and len(call.shape) > 3
        }

    def _is_small(self, call: LayerCall) -> bool:
        """Whether an answer in another place than the patch says nothing.

        On a map of a few points, each of which sees the whole image, a convolution may well answer
        somewhere else; and its output can be read in one way only.
        """
        return (
            isinstance(call.layout, Layout)
            and min(call.layout.grid[-2:]) < FEWEST_POINTS
            and self._rules.is_certain(call.module, call.layout)
        )

    def decide(self, layer: str) -> None:
        """Settle a layer, refuse it, or leave it to the rules."""
        call, outcome, found = self._calls[layer], self._outcomes[layer], self._found
        read = call.layout
        if self._rules.is_declared(call.module):
            if outcome.is_elsewhere and isinstance(read, Layout):
                found.doubted.append(layer)
            return
        alike = [c for n, c in self._calls.items() if n != layer and _form(c) == _form(call)]
        settled = self._settled_beside(call, alike)
        is_amid_refused = any(other.name in self._refused for other in alike)
        if settled is not None and not outcome.is_silent:
            found.settled[layer] = settled
            found.by_rule.add(layer)
        elif not isinstance(read, Layout):
            pass  # it was refused already
        elif layer in self._refused:
            found.refused[layer] = f"answers in the wrong place: {outcome.words} as {read}"
        elif self._goes_with_proved(read, alike, is_amid_refused):
            self._leave_to_rules(call, read)
        elif len(call.shape) == 3 or is_amid_refused:
            found.refused[layer] = f"answers in no place: {outcome.words} as {read}"
        else:
            self._leave_to_rules(call, read)

    def _settled_beside(self, call: LayerCall, alike: Sequence[LayerCall]) -> Layout | None:
        """The layout in which layers of the same form were settled; None where there is none."""
        # Windows are shifted in every other block: only the layers of one attention are alike.
        beside = [other for other in alike if _home(other) == _home(call)]
        settled = self._found.settled
        layouts = [settled[other.name] for other in (*alike, *beside) if other.name in settled]
        if layouts and (layouts[-1].windows is None or beside):
            return layouts[-1]
        return None

    def _goes_with_proved(
        self, read: Layout, alike: Sequence[LayerCall], is_amid_refused: bool
    ) -> bool:
        if any(other.name in self._found.proved for other in alike) or self._found.problem:
            return True
        # A few tokens that come from a small map that is proved cannot prove anything themselves.
        return (
            min(read.grid[-2:]) < FEWEST_POINTS
            and read.grid in self._dense
            and read.n_prefix + read.n_suffix <= 1
            and not is_amid_refused
        )

    def _leave_to_rules(self, call: LayerCall, read: Layout) -> None:
        if not self._rules.is_certain(call.module, read):
            self._found.by_rule.add(call.name)


def decide_on_rest(
    outcomes: Mapping[str, Outcome],
    calls: Mapping[str, LayerCall],
    rules: LayoutRules,
    found: Probed,
) -> None:
    """Decide on layers without a proof, one after the other, and note it in `found`.

    Args:
        outcomes: what the answers of these layers say.
        calls: all layers, also those with a proof.
        rules: layout rules of the network.
        found: what was found for the other layers.
    """
    rest = _Rest(outcomes, calls, rules, found)
    for layer in outcomes:
        rest.decide(layer)


def _home(call: LayerCall) -> str:
    return call.module.rpartition(".")[0]


def _form(call: LayerCall) -> tuple[Any, ...]:
    """A key that is the same for layers whose maps should stand in the same places."""
    shape = call.shape
    return len(shape), str(call.layout), shape[0] if len(shape) == 3 else 0
