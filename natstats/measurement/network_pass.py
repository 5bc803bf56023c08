"""One pass of images through one network: batches, the collector, and the facts of its run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from natstats.images.sources import Batch, ImageSet, Photographs, batches
from natstats.law.law_layers import asked_for
from natstats.measurement.counterfactual import counterfactual_of
from natstats.measurement.options import MeasureOptions
from natstats.measurement.preparation import home_of
from natstats.networks.input_forms import channels_hint, stills_note
from natstats.networks.load import Network
from natstats.networks.preprocessing import NORMALISED, spoken
from natstats.networks.wrappers import uncompiled
from natstats.runs.counterfactual import ShuffledWeights
from natstats.runs.provenance import Reading, circumstances, image_facts, model_facts
from natstats.runs.run import Run
from natstats.spectra.collector import Collector
from natstats.spectra.input_spectra import InputSpectra
from natstats.theory.account_pass import AccountPass
from natstats.theory.planning import NotFollowedError

__all__ = ["NetworkPass", "Progress", "read_batches", "share_of"]

IMAGES_FOR_THEORY = 16
"""Images that costly predictions of an account are made of, if there are so many."""

MOST_SAVED = 8
"""Of more images, one in so many."""

FEWEST_GROUPS_FOR_THEORY = 8
"""Groups of images that they are taken from, if there are so many."""

Progress = Callable[[int, int], None]
"""Called after each batch with the images done and the images in all."""


def share_of(progress: Progress | None, number: int, n_parts: int) -> Progress | None:
    """The progress of one part of the work, such as one pass over the images, within all parts.

    >>> share_of(lambda done, total: print(done, "of", total), 1, 3)(5, 10)
    15 of 30
    """
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, n_parts * total)


@dataclass(frozen=True, eq=False)
class NetworkPass:
    """One pass of images through one network.

    Attributes:
        network: the network, with the preprocessing that was asked for.
        source: the images, framed for the network.
        options: how to measure; the number of workers is settled.
        fit: how to fit.
        strict: whether an unreadable image is an error.
        progress: called after each batch.
    """

    network: Network
    source: ImageSet
    options: MeasureOptions
    fit: FitOptions
    strict: bool
    progress: Progress | None

    def measured(self, is_guess: bool = False) -> Run:
        """The run of this network, without a control.

        Args:
            is_guess: whether nothing is known of how photographs are to be normalised.
        """
        options = self.options
        reading = Reading(self.source)
        inputs = InputSpectra(options.edges, options.n_groups, options.temporal)
        started = time.perf_counter()
        collector, account, stills = self._collected(reading, inputs)
        seconds = time.perf_counter() - started
        warnings = self._warnings(reading, collector, stills, is_guess)
        explained = None if account is None else account.compute()
        spectra = [*inputs.compute(), *collector.compute()]
        way = self.network.preprocessing
        normalisation = {"mean": list(way.mean), "std": list(way.std)}
        place, _ = home_of(self.network.model)
        info = {
            "name": self.network.name,
            **circumstances(place, seconds, spectra[0].spectrum.n_images),
            "model": model_facts(self.network),
            "images": image_facts(
                reading, spectra, normalisation if self._takes_photographs() else None
            ),
            "options": options.to_dict(),
            "warnings": warnings,
        }
        run = Run(spectra, collector.skipped, info, self.fit, (), explained)
        warnings += reading.few_images_warning(run)
        return run

    def of_control(self, network: Network, progress: Progress | None) -> NetworkPass:
        """The same images, framed and normalised as they are, through an untrained network."""
        usual = MeasureOptions()
        settled = (
            "limit", "seed", "size", "crop", "normalize", "frames", "control", "counterfactual"
        )  # fmt: skip
        options = replace(self.options, **{name: getattr(usual, name) for name in settled})
        return replace(self, network=network, options=options, fit=FitOptions(), progress=progress)

    def shuffled(
        self, name: str, seed: int, first: Progress | None, second: Progress | None
    ) -> ShuffledWeights:
        """The same images through a copy with shuffled kernels, whose norms are estimated on them.

        Args:
            name: what is shuffled.
            seed: seed of the orders.
            first: progress of the estimation.
            second: progress of the measurement.
        """
        place, dtype = home_of(self.network.model)
        reading = Reading(self.source)
        images = (
            self._prepared(batch.images, dtype)
            for batch in read_batches(reading, self.options, place, self.strict, first)
        )
        network = counterfactual_of(self.network, name, seed, images)
        own = self.of_control(network, second)
        run = replace(own, options=replace(own.options, explain=False)).measured()
        return ShuffledWeights.of(name, seed, run.info, run.spectra, run.skipped_layers)

    def _takes_photographs(self) -> bool:
        return isinstance(self.source, Photographs)

    def _collected(
        self, reading: Reading, inputs: InputSpectra
    ) -> tuple[Collector, AccountPass | None, list[str]]:
        """Run all images through the network, and say what was made of single images."""
        model = self.network.model
        place, dtype = home_of(model)
        collector: Collector | None = None
        account: AccountPass | None = None
        with contextlib.ExitStack() as stack:
            stack.enter_context(uncompiled(model))
            stack.enter_context(undisturbed(model))
            stack.enter_context(torch.inference_mode())
            for batch in read_batches(reading, self.options, place, self.strict, self.progress):
                prepared = self._prepared(batch.images, dtype)
                if collector is None:
                    collector = stack.enter_context(self._new_collector(prepared))
                    if self.options.explain:
                        account = stack.enter_context(self._new_account(prepared, collector.trace))
                        collector.known_rows = account.rows_of
                inputs.update(batch.images, batch.index)
                collector.number_images(batch.index)
                if account is not None:
                    account.number_images(batch.index)
                try:
                    self._forward(prepared)
                except NotFollowedError:
                    if account is None or account.n_images:
                        raise
                    # The first batch goes another way than its first image: module by module then.
                    account.close()
                    account = self._new_account(prepared, collector.trace, by_modules=True)
                    stack.enter_context(account)
                    collector.known_rows = account.rows_of
                    collector.number_images(batch.index)
                    account.number_images(batch.index)
                    self._forward(prepared)
        assert collector is not None  # read_batches raises when there is no batch
        return collector, account, stills_note(self.network.takes, batch.images)

    def _forward(self, prepared: Tensor) -> None:
        """One batch through the network, which hooks watch.

        Raises:
            NatstatsError: the model fails.
        """
        place, _ = home_of(self.network.model)
        with _forward_errors(prepared), _autocast(place, self.options.amp):
            self.network.model(*self.network.arguments(prepared))

    def _prepared(self, images: Tensor, dtype: torch.dtype) -> Tensor:
        """Images as the network expects them, in memory of their own."""
        prepared = images
        if self._takes_photographs():
            prepared = self.network.preprocessing.normalize(prepared)
        prepared = prepared.to(dtype)
        # What the network writes into is not the data.
        return prepared.clone() if prepared.data_ptr() == images.data_ptr() else prepared

    def _new_collector(self, prepared: Tensor) -> Collector:
        """The collector of the layers, which are traced with the first image."""
        network, options = self.network, self.options
        place, _ = home_of(network.model)
        with _forward_errors(prepared), _autocast(place, options.amp):
            trace = trace_calls(
                network.model, network.arguments(prepared[:1]), layouts=options.layouts
            )
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

    def _new_account(self, prepared: Tensor, trace: Trace, by_modules: bool = False) -> AccountPass:
        """What measures every operation, whose costly predictions take some of the images."""
        place, _ = home_of(self.network.model)
        n_groups = min(len(self.source), self.options.n_groups)
        every = min(max(len(self.source) // IMAGES_FOR_THEORY, 1), MOST_SAVED)
        every = min(every, max(n_groups // FEWEST_GROUPS_FOR_THEORY, 1))
        with _forward_errors(prepared), _autocast(place, self.options.amp):
            return AccountPass(
                self.network.model,
                self.network.arguments(prepared[:1]),
                trace,
                edges=self.options.edges,
                n_groups=self.options.n_groups,
                every=every,
                by_modules=by_modules,
            )

    def _check_law_layers(self, trace: Trace) -> None:
        """Say what is wrong with the selection of layers for the law before anything is measured.

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

    def _warnings(
        self, reading: Reading, collector: Collector, stills: list[str], is_guess: bool
    ) -> list[str]:
        """What a reader of the results must know."""
        is_normalised = self._takes_photographs() and self.options.normalize
        notes = spoken(self.network.notes, self._takes_photographs(), self.options.normalize)
        warnings = [*notes, *reading.warnings(), *stills]
        if not collector.trace.followed:
            warnings.append(
                "depth counts weight layers in the order of execution, and receptive fields are "
                "not known: no path was traced"
            )
        warnings += collector.probed.warnings()
        warnings += reading.range_warnings(None if is_guess else self.network.preprocessing)
        if is_normalised and is_guess:
            warnings.append(NORMALISED)
        return warnings


def read_batches(
    reading: Reading,
    options: MeasureOptions,
    device: torch.device,
    strict: bool,
    progress: Progress | None,
) -> Iterator[Batch]:
    """Batches that hold at least one image; `reading` takes note of all that is found out.

    Raises:
        NatstatsError: an image cannot be read and `strict` is set, or none can be read.
    """
    done, source = 0, reading.source
    for batch in batches(source, options.batch_size, options.workers or 0, device):
        reading.add(batch)
        if strict:
            reading.refuse(strict)
        done += len(batch.index) + len(batch.unreadable)
        if len(batch.index):
            yield batch
        if progress is not None:
            progress(done, len(source))
    reading.refuse(strict)


def _autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type) if enabled else contextlib.nullcontext()


@contextlib.contextmanager
def _forward_errors(images: Tensor) -> Iterator[None]:
    shape = " x ".join(str(side) for side in images.shape)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NatstatsError(
            f"batch_size: a batch of {shape} does not fit into the device's memory; "
            "take a smaller --batch-size"
        ) from error
    except (
        RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError,
        AttributeError, LookupError, ArithmeticError,
    ) as error:  # fmt: skip
        if isinstance(error, NatstatsError):
            raise
        reason = " ".join(str(error).split())[:200]
        if not isinstance(error, RuntimeError | ValueError):  # whose texts stand alone
            reason = f"{type(error).__name__}: {reason}"
        raise NatstatsError(
            f"model: expected to take images of shape {shape}; the forward pass failed: {reason}"
            + channels_hint(str(error))
        ) from error
