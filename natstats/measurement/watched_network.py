"""Watching the layers of a network, and its operations where an account is wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from natstats.activations.hooks import undisturbed
from natstats.activations.layouts import Layout
from natstats.activations.selection import select_modules
from natstats.activations.trace import Trace, trace_calls
from natstats.checks import MINIMUM_SIDE
from natstats.errors import NatstatsError
from natstats.fits.options import FitOptions
from natstats.images.sources import Batch, ImageSet, Photographs
from natstats.law.law_layers import asked_for
from natstats.measurement.image_loop import NoRoomError
from natstats.measurement.options import MeasureOptions
from natstats.measurement.preparation import home_of
from natstats.networks.input_forms import channels_hint, stills_note
from natstats.networks.load import Network
from natstats.networks.wrappers import uncompiled
from natstats.spectra.collector import Collector
from natstats.theory.account_pass import AccountPass
from natstats.theory.planning import NotFollowedError

__all__ = ["WatchedNetwork", "prepared"]

IMAGES_FOR_THEORY = 16
"""Images that costly predictions of an account are made of: at least so many, or all."""

MOST_SAVED = 8
"""At least one image in so many is used for costly predictions."""

MANY = 1024
"""Images that a stream is taken to have, as their number is not known."""

FEWEST_GROUPS_FOR_THEORY = 8
"""Groups of images that costly predictions are made from: at least so many, or all."""

_NO_ROOM = ("can't allocate memory", "cannot allocate memory", "out of memory")


class WatchedNetwork:
    """Watches a network while batches run through it; open it as a context.

    Args:
        network: the network, with the preprocessing that was asked for.
        source: the images, framed for the network.
        options: how to measure.
        fit: how to fit, for the layers that are in the law.
    """

    def __init__(
        self, network: Network, source: ImageSet, options: MeasureOptions, fit: FitOptions
    ) -> None:
        self.network, self.source, self.options, self.fit = network, source, options, fit
        self._contexts = contextlib.ExitStack()
        self._collector: Collector | None = None
        self.account: AccountPass | None = None
        self._example: Tensor | None = None
        self._shape: Sequence[int] = ()

    def __enter__(self) -> WatchedNetwork:
        self._contexts.enter_context(uncompiled(self.network.model))
        self._contexts.enter_context(undisturbed(self.network.model))
        self._contexts.enter_context(torch.inference_mode())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._contexts.__exit__(kind, error, trace)

    @property
    def is_started(self) -> bool:
        """Whether the network was traced."""
        return self._collector is not None

    @property
    def collector(self) -> Collector:
        """What sums the spectra of the layers."""
        assert self._collector is not None
        return self._collector

    def start(self, images: Tensor) -> None:
        """Trace the network with the first of some images, and begin to watch.

        Args:
            images: the first batch, as it is read.
        """
        given = prepared(self.network, self.source, images)
        self._example, self._shape = given[:1], given.shape
        self._collector = self._contexts.enter_context(self._new_collector(self._example))
        if self.options.explain:
            self._start_account()

    def _start_account(self, by_modules: bool = False) -> None:
        assert self._example is not None
        self.account = self._new_account(self._example, self.collector.trace, by_modules)
        self._contexts.enter_context(self.account)
        self.collector.is_paused = True
        with self.account.centring():
            self._forward(self._example.clone())
        self.collector.is_paused = False
        self.collector.known_rows = self.account.rows_of

    def found(self, images: Tensor) -> tuple[str, ...]:
        """What a reader must know from the trace of the first image.

        Args:
            images: the first batch, as it is read.
        """
        said = stills_note(self.network.takes, images)
        if not self.collector.trace.followed:
            said.append(
                "depth counts weight layers in the order of execution, and receptive fields are "
                "not known: no path was traced"
            )
        return (*said, *self.collector.probed.warnings())

    def measure(self, batch: Batch) -> None:
        """Run a batch through the network.

        Raises:
            NoRoomError: it does not fit into memory; nothing of it was added.
            NatstatsError: the model fails; nothing of it was added.
        """
        given = prepared(self.network, self.source, batch.images)
        self._number(batch)
        try:
            self._forward(given)
        except NotFollowedError:
            if self.account is None or self.account.has_images:
                raise
            # The first batch goes another way than its first image: it is measured by modules.
            self.account.close()
            self._start_account(by_modules=True)
            self._number(batch)
            self._forward(given)

    def _number(self, batch: Batch) -> None:
        self.collector.number_images(batch.index)
        if self.account is not None:
            self.account.number_images(batch.index)

    def state(self) -> dict[str, Any] | None:
        """The state of the account; None where there is none."""
        return None if self.account is None else self.account.state_dict()

    def load(self, collected: Mapping[str, Any], account: Mapping[str, Any] | None) -> None:
        """Go on from the state of an earlier sitting.

        Args:
            collected: state of its collector.
            account: of its account; None where there was none.
        """
        self.collector.load_state_dict(collected)
        if account is not None:
            assert self.account is not None
            if account["by_modules"] and self.account.is_followed:
                self.account.close()
                self._start_account(by_modules=True)
            self.account.load_state_dict(account)

    def _forward(self, given: Tensor) -> None:
        place, _ = home_of(self.network.model)
        with _forward_errors(given.shape), _autocast(place, self.options.amp):
            self.network.model(*self.network.arguments(given))

    def _new_collector(self, given: Tensor) -> Collector:
        network, options = self.network, self.options
        place, _ = home_of(network.model)
        with _forward_errors(self._shape), _autocast(place, options.amp):
            trace = trace_calls(network.model, network.arguments(given), layouts=options.layouts)
        self._check_law_layers(trace)
        return Collector(
            network.model,
            options.layers,
            edges=options.edges,
            n_groups=options.n_groups,
            trace=trace,
            layouts=options.layouts,
            temporal=options.temporal,
            probe=options.probe,
        )

    def _new_account(self, given: Tensor, trace: Trace, by_modules: bool) -> AccountPass:
        """The pass that measures every operation; costly predictions take some of the images."""
        place, _ = home_of(self.network.model)
        n_images = self.source.n_images or self.options.limit or MANY
        n_groups = min(n_images, self.options.n_groups)
        every = min(max(n_images // IMAGES_FOR_THEORY, 1), MOST_SAVED)
        every = min(every, max(n_groups // FEWEST_GROUPS_FOR_THEORY, 1))
        with _forward_errors(self._shape), _autocast(place, self.options.amp):
            return AccountPass(
                self.network.model,
                self.network.arguments(given),
                trace,
                edges=self.options.edges,
                n_groups=self.options.n_groups,
                every=every,
                by_modules=by_modules,
            )

    def _check_law_layers(self, trace: Trace) -> None:
        """Check the selection of layers for the law before anything is measured.

        Raises:
            UsageError: a part of it matches no layer.
        """
        model = self.network.model
        chosen = {*select_modules(model, self.options.layers, trace.stages(model))}
        axes = slice(0, 1) if self.options.temporal else slice(-2, None)
        calls = [
            call
            for call in trace.calls
            if call.module in chosen
            and isinstance(call.layout, Layout)
            and min(call.layout.grid[axes]) >= MINIMUM_SIDE
        ]
        if calls:
            names, kinds = [call.name for call in calls], [call.kind for call in calls]
            asked_for(self.fit.law_layers, names, kinds, [False] * len(calls))


def prepared(network: Network, source: ImageSet, images: Tensor) -> Tensor:
    """Images as a network expects them, in memory of their own.

    Args:
        network: with its preprocessing.
        source: where they come from; only photographs are normalised.
        images: as they are read.
    """
    _, dtype = home_of(network.model)
    given = images
    if isinstance(source, Photographs):
        given = network.preprocessing.normalize(given)
    given = given.to(dtype)
    # The network may write into its input, but not into the data.
    return given.clone() if given.data_ptr() == images.data_ptr() else given


def _autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type) if enabled else contextlib.nullcontext()


@contextlib.contextmanager
def _forward_errors(sides: Sequence[int]) -> Iterator[None]:
    shape = " x ".join(map(str, sides))
    try:
        yield
    except (
        RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError,
        AttributeError, LookupError, ArithmeticError, MemoryError,
    ) as error:  # fmt: skip
        if isinstance(error, NatstatsError):
            raise
        reason = " ".join(str(error).split())[:200]
        is_full = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if is_full or any(words in reason.lower() for words in _NO_ROOM):
            raise NoRoomError(
                f"batch_size: a batch of {shape} does not fit into memory; take smaller images, "
                "or a device with more"
            ) from error
        if not isinstance(error, RuntimeError | ValueError):  # whose texts need no type before them
            reason = f"{type(error).__name__}: {reason}"
        raise NatstatsError(
            f"model: expected to take images of shape {shape}; the forward pass failed: {reason}"
            + channels_hint(str(error))
        ) from error
