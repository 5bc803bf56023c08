"""The pass that an account is made of: maps are measured before and after every operation.

Open it as a context around the forward passes of any loop over images, as a collector. It keeps
sums, so memory does not grow with the number of images.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from natstats import checks
from natstats.activations.hooks import ActivationHooks
from natstats.activations.operations import After, OperationHooks, Place
from natstats.activations.trace import Trace
from natstats.errors import NatstatsError, UsageError
from natstats.spectra.edges import EDGES
from natstats.spectra.frequencies import extent
from natstats.theory.account_spectra import AccountSpectra
from natstats.theory.account_steps import STATE_KEYS, adds_alike, recorded_step, size_of, span_of
from natstats.theory.account_sums import AccountSums, noted
from natstats.theory.filters import Filter, MapPower
from natstats.theory.moments import MomentSums
from natstats.theory.planning import NotFollowedError, plan_of
from natstats.theory.predictions import Place2d, Predictions, predictions_of, scale_of
from natstats.theory.state_sums import StateSums
from natstats.theory.trunk import MeasuredValue, PlannedStep

__all__ = ["AccountPass"]

N_BLOCKS = 8
"""Blocks of images; for errors, each is left out once of the moments of activation functions."""

MOST_MOMENT_BYTES = 1 << 30
"""Most memory for the moments of all activation functions. Where it is not enough, half as many
blocks are used."""


class AccountPass:
    """Measures the maps before and after every operation while any loop over images runs a network.

    Args:
        model: the network.
        inputs: arguments of a forward pass of one image, to follow its operations.
        trace: the traced pass of that image.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        n_groups: groups of images, the unit of resampling.
        every: predict what is costly from groups 0, `every`, 2 `every` and so on.
        by_modules: do not follow operations, but measure before and after modules.

    Raises:
        UsageError: an argument is out of range, or the network takes no images (N, C, H, W).

    >>> from natstats.activations.trace import trace_calls
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    >>> images = torch.rand(8, 3, 32, 32)
    >>> with AccountPass(model, (images[:1],), trace_calls(model, (images[:1],))) as account:
    ...     _ = model(images)
    >>> [step.operation for step in account.compute().steps]
    ['convolution 3x3', 'relu', 'convolution 3x3']
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: tuple[Any, ...],
        trace: Trace,
        *,
        edges: str = "sine",
        n_groups: int = 128,
        every: int = 1,
        by_modules: bool = False,
    ) -> None:
        self.edges = checks.one_of("edges", edges, EDGES)
        self.n_groups = checks.positive_int("n_groups", n_groups, 1, checks.LARGEST["n_groups"])
        self.every = checks.positive_int("every", every)
        self._plan, self.is_followed = plan_of(model, inputs, trace, by_modules)
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._sums = StateSums(self.edges, self.n_groups, self._device)
        self._prepare()
        self._hooks: OperationHooks | ActivationHooks
        if self.is_followed:
            self._hooks = OperationHooks(
                model, self._before, on_start=self._start_at_images, on_success=self._count
            )
            self._hooks.places = {*self._values_at, *self._step_at}
        else:
            names = sorted({value.place.module for value in self._plan.values if value.place})
            self._hooks = ActivationHooks(
                model, names, self._receive, self._start_at_images, self._count
            )
        self._is_open = self._is_centring = False
        self._next_index = self._n_left_out = 0
        self._numbers: Tensor | None = None
        self._index: Tensor | None = None
        self._start()

    def _prepare(self) -> None:
        """States, predictions and transforms of all values and steps."""
        values, plan = self._plan.values, self._plan
        image_side = extent(*values[0].layout.grid)
        self._places = [
            Place2d(size_of(value), self.edges, span_of(value, image_side), value.channels)
            for value in values
        ]
        self._states = [self._sums.new(place.size, place.span) for place in self._places]
        self._predicted: dict[int, Predictions] = {}
        filters: dict[int, list[Filter]] = {}
        for step in plan.steps:
            made = Predictions()
            if step.operation is not None:
                before = self._places[step.before]
                made = predictions_of(step.operation, before, self._sums.new, self._device)
            if step.kind == "addition" and adds_alike(step, values):
                made.states["sum"] = self._sums.new(size_of(values[step.after]), 1.0)
            self._predicted[step.after] = made
            filters.setdefault(step.before, []).extend(made.filters)
        self._power = self._new_power(filters)
        self._moments = self._new_moments()
        self._values_at: dict[Place, list[MeasuredValue]] = {}
        for value in values:
            if value.place is not None:
                self._values_at.setdefault(value.place, []).append(value)
        self._step_at = {
            step.operation.place: step for step in plan.steps if step.operation is not None
        }

    def _new_power(self, filters: dict[int, list[Filter]]) -> dict[int, MapPower]:
        """The transforms of the values, except those whose spectra follow from others without one.

        Args:
            filters: what is predicted from each value; more may be added.
        """
        derived = set()
        for step in self._plan.steps:
            scale = scale_of(step.operation)
            if scale is not None and not filters.get(step.after) and step.before not in derived:
                own = Filter(self._states[step.after], scale[:, None, None])
                filters.setdefault(step.before, []).append(own)
                derived.add(step.after)
        return {
            number: MapPower(
                place.size, self.edges, self._states[number], filters.get(number, []), self._device
            )
            for number, place in enumerate(self._places)
            if number not in derived
        }

    def _new_moments(self) -> dict[int, MomentSums]:
        """Sums for the activation functions, by the value that they make."""
        wanted = {
            step.after: self._places[step.before]
            for step in self._plan.steps
            if self._predicted[step.after].function is not None
        }
        n_bytes = sum(MomentSums.bytes_of(p.size, p.channels, N_BLOCKS) for p in wanted.values())
        self.n_blocks = N_BLOCKS if n_bytes <= MOST_MOMENT_BYTES else N_BLOCKS // 2
        made = {}
        for after, place in wanted.items():
            function = self._predicted[after].function
            assert function is not None
            made[after] = MomentSums(
                place.size, self.edges, place.channels, function, self.n_blocks, self._device
            )
        return made

    def __enter__(self) -> AccountPass:
        self._hooks.__enter__()
        self._is_open = True
        return self

    def close(self) -> None:
        """Remove the hooks; what was measured stays. This is also done when the context closes."""
        if self._is_open:
            self._is_open = False
            self._hooks.__exit__(None, None, None)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def number_images(self, index: Tensor) -> None:
        """Give the images of the next batch their numbers in the data, (N,) whole numbers."""
        self._numbers = index

    @contextlib.contextmanager
    def centring(self) -> Iterator[None]:
        """Let the next pass, of one image, settle the centre of all products; it is not counted.

        The centre is subtracted from values before products of them are summed. Parts of a
        measurement can be added only if they had the same image here. Where this is not called, the
        first batch settles the centre.
        """
        self._is_centring = True
        self._numbers = torch.zeros(1, dtype=torch.int64)
        try:
            yield
        finally:
            self._is_centring = False
            self._numbers = None

    def _start(self) -> None:
        self._rows: dict[int, Tensor] = {}
        self._offsets: dict[int, Tensor] = {}
        self._of_layers: dict[str, Tensor] = {}
        self._later: list[tuple[int, list[tuple[Tensor, Tensor]]]] = []
        self._chosen: Tensor | None = None
        self._index = None

    def _start_at_images(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._start()
        leaves = [one for one in tree_leaves((inputs, named)) if isinstance(one, Tensor)]
        if self._plan.image_leaf < len(leaves):
            self._measure(self._plan.values[0], leaves[self._plan.image_leaf])

    def _see_images(self, n_images: int) -> None:
        """Number the images of a batch, now that it is known how many they are."""
        if self._index is not None:
            return
        if self._numbers is None:
            self._index = torch.arange(self._next_index, self._next_index + n_images)
        else:
            self._index, self._numbers = self._numbers.cpu(), None
        group = self._index % self.n_groups
        self._chosen = (group % self.every == 0).nonzero()[:, 0].to(self._device)

    def _before(self, place: Place, func: Any, given: dict[str, Any]) -> After | None:
        step, values = self._step_at.get(place), self._values_at.get(place)
        if step is not None:
            self._predict(step, given)
        if values is None:
            return None

        def after(output: Any) -> None:
            tensors = [output] if isinstance(output, Tensor) else output
            for value in values:
                self._measure(value, tensors[value.part])

        return after

    def _receive(self, name: str, call: int, output: Any) -> None:
        values = self._values_at.get(Place(name, call, "", 0), ())
        for value in values if isinstance(output, Tensor) else ():
            self._measure(value, output)

    def _maps(self, value: MeasuredValue, output: Tensor) -> Tensor:
        maps = value.layout.maps(output.detach())
        if tuple(maps.shape[2:]) != size_of(value) or maps.shape[1] != value.channels:
            first = (value.channels, *size_of(value))
            raise NotFollowedError(
                f"explain: expected maps of {' x '.join(map(str, first))} at {value.name}, as with "
                f"the first image; got {tuple(maps.shape[1:])}"
            )
        if self._index is not None and len(maps) != len(self._index):
            raise NotFollowedError(
                f"explain: expected every operation to take all {len(self._index)} images of a "
                f"batch; {value.name} took {len(maps)}"
            )
        return maps

    def _measure(self, value: MeasuredValue, output: Tensor) -> None:
        maps = self._maps(value, output)
        self._see_images(len(maps))
        if value.number not in self._power:
            return
        own, predicted = self._power[value.number].rows(maps)
        self._rows |= predicted
        state = self._states[value.number]
        self._rows[state], self._offsets[state] = own[:, :-1], own[:, -1]
        for name in value.layers:
            self._of_layers[name] = own / value.channels

    def rows_of(self, layer: str) -> Tensor | None:
        """Ring power and squared mean of a layer whose output has just been measured.

        Args:
            layer: its name.

        Returns:
            (N, n_rings + 1), see :class:`natstats.spectra.transforms.RingTransform`; None for a
            layer without a transform of its own.
        """
        return self._of_layers.get(layer)

    def _predict(self, step: PlannedStep, given: dict[str, Any]) -> None:
        """Predict what needs the maps themselves, before the operation may write into them."""
        one, before = step.operation, self._plan.values[step.before]
        assert one is not None
        main = next((n for n in ("input", "self", "mat1") if isinstance(given.get(n), Tensor)), "")
        if not main:
            return
        made = self._predicted[step.after]
        if made.circular is None and step.after not in self._moments:
            return
        maps = self._maps(before, given[main])
        self._see_images(len(maps))
        assert self._chosen is not None
        if not len(self._chosen):
            return
        maps = maps.index_select(0, self._chosen.to(maps.device))
        if made.circular is not None:
            circular, state = made.circular
            self._rows[state] = circular.rows(maps)
        if step.after in self._moments:
            self._later.append((step.after, self._moments[step.after].prepared(maps)))

    def _count(self) -> None:
        """Add what the pass gave, now that it has succeeded."""
        if self._is_centring:
            self._start()
            return
        missing = [v.name for v in self._plan.values if self._states[v.number] not in self._rows]
        if missing:
            raise NotFollowedError(
                f"explain: expected the network to do the same for every batch; for this one it "
                f"did not come to {missing[0]}"
            )
        assert self._index is not None
        assert self._chosen is not None
        for step in self._plan.steps:
            made = self._predicted[step.after].states.get("sum")
            if made is not None:
                both = [self._rows[self._states[n]] for n in (step.before, *step.others)]
                self._rows[made] = both[0] + both[1]
        whole = self._sums.add(self._rows, self._index, self._chosen, self._offsets)
        self._n_left_out += int((~whole).sum())
        self._next_index = max(self._next_index, int(self._index.max()) + 1)
        group = self._index[self._chosen.cpu()] % self.n_groups
        block = group // self.every % self.n_blocks
        block = torch.where(whole[self._chosen], block.to(self._device), -1)
        for after, prepared in self._later:
            self._moments[after].add(prepared, block)
        self._start()

    def compute(self) -> AccountSpectra:
        """What was measured so far.

        Raises:
            NatstatsError: no image has come yet.
        """
        if self._next_index == 0:
            raise NatstatsError("explain: expected a forward pass inside the context; none was")
        values = self._plan.values
        steps = tuple(
            recorded_step(step, values, self._states, self._predicted[step.after], self._moments)
            for step in self._plan.steps
        )
        note = noted(self._plan.note, self._n_left_out)
        return AccountSpectra(self._sums.states(), steps, self.every, note)

    def sums(self, account: AccountSpectra) -> AccountSums:
        """The sums by which parts are added, beside an account that :meth:`compute` gave."""
        functions = {
            self._states[after]: (own.function.name, own.function.parameters)
            for after, own in self._moments.items()
        }
        return AccountSums(account, self.state_dict(), functions, self._plan.note)

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as a copy: tensors and plain values."""
        return {
            "by_modules": not self.is_followed,
            "sums": self._sums.state_dict(),
            "moments": [{"after": n, **own.state_dict()} for n, own in self._moments.items()],
            "n_left_out": self._n_left_out,
            "next_index": self._next_index,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave.

        Raises:
            UsageError: keys are missing or unexpected, or the state is of other operations.
        """
        checks.state_keys("an account", state, STATE_KEYS)
        try:
            known = {own["after"]: own for own in state["moments"]}
            if known.keys() != self._moments.keys():
                raise UsageError("state: expected one of the same operations; got others")
            self._sums.load_state_dict(state["sums"])
            for after, own in self._moments.items():
                own.load_state_dict(known[after])
            self._n_left_out, self._next_index = state["n_left_out"], state["next_index"]
        except (LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"state: expected that of an account; {error!r}") from error

    @property
    def has_images(self) -> bool:
        """Whether an image has been counted so far."""
        return self._next_index > 0
