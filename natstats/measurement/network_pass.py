"""One pass of images through one network: what is measured, and the facts of its run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from torch import Tensor

from natstats.files.state_files import state_from_bytes, state_in_bytes
from natstats.fits.options import FitOptions
from natstats.images.sources import Batch, ImageSet, Photographs, batches
from natstats.measurement.counterfactual import counterfactual_of
from natstats.measurement.image_loop import Progress
from natstats.measurement.keeping import KeptPass
from natstats.measurement.options import MeasureOptions
from natstats.measurement.pass_sums import PassFacts, PassSums, as_arrays, as_tensors
from natstats.measurement.preparation import home_of
from natstats.measurement.shared_pass import SharedPass, Work
from natstats.measurement.watched_network import WatchedNetwork, prepared
from natstats.networks.load import Network
from natstats.networks.preprocessing import NORMALISED, spoken
from natstats.networks.shuffled_weights import estimate_norms, load_norms, norms_of
from natstats.runs.counterfactual import ShuffledWeights
from natstats.runs.provenance import device_facts, model_facts
from natstats.runs.reading import Reading, SourceFacts
from natstats.spectra.input_spectra import InputSpectra
from natstats.spectra.records import LayerSpectrum
from natstats.theory.account_states import added_states

__all__ = ["NetworkPass"]


@dataclass(frozen=True, eq=False)
class NetworkPass:
    """One pass of images through one network.

    Attributes:
        network: the network, with the preprocessing that was asked for.
        images: the images, framed for the network, and how to go through them.
        fit: how to fit.
        is_guess: whether nothing is known of how photographs are to be normalised.
    """

    network: Network
    images: SharedPass
    fit: FitOptions
    is_guess: bool = False

    @property
    def options(self) -> MeasureOptions:
        """How to measure."""
        return self.images.options

    @property
    def source(self) -> ImageSet:
        """The images."""
        return self.images.source

    def sums(self) -> PassSums:
        """What was measured of this network, now and in earlier sittings."""
        place, _ = home_of(self.network.model)
        return self.images.run(place, self._new_sums(), self._work)

    @contextlib.contextmanager
    def _work(self, sums: PassSums) -> Iterator[Work]:
        with WatchedNetwork(self.network, self.source, self.options, self.fit) as watched:
            yield _Work(watched, sums, self.images.is_part)

    def _new_sums(self) -> PassSums:
        options, way = self.options, self.network.preprocessing
        place, _ = home_of(self.network.model)
        normalisation = {"mean": list(way.mean), "std": list(way.std)}
        takes_photographs = isinstance(self.source, Photographs)
        is_assumed = takes_photographs and options.normalize and self.is_guess
        facts = PassFacts(
            name=self.network.name,
            model=model_facts(self.network),
            options=options.to_dict(),
            device=device_facts(place),
            normalisation=normalisation if takes_photographs else None,
            expected=None if self.is_guess else normalisation,
            notes=tuple(spoken(self.network.notes, takes_photographs, options.normalize)),
            assumed=(NORMALISED,) if is_assumed else (),
        )
        inputs = InputSpectra(options.edges, options.n_groups, options.temporal)
        return PassSums(facts, Reading(SourceFacts.of(self.source)), inputs)

    def of_control(
        self, network: Network, progress: Progress | None, kept: KeptPass | None = None
    ) -> NetworkPass:
        """The same images, framed and normalised as they are, through an untrained network."""
        usual = MeasureOptions()
        settled = (
            "limit", "until", "seed", "size", "crop", "normalize", "frames", "control",
            "counterfactual",
        )  # fmt: skip
        options = replace(self.options, **{name: getattr(usual, name) for name in settled})
        images = replace(self.images, options=options, progress=progress, kept=kept)
        return NetworkPass(network, images, FitOptions())

    def shuffled(
        self,
        name: str,
        seed: int,
        shares: Sequence[Progress | None],
        kept: KeptPass | None = None,
    ) -> ShuffledWeights:
        """The same images through a copy with shuffled kernels, whose norms are estimated on them.

        Args:
            name: what is shuffled.
            seed: seed of the orders.
            shares: progress of the estimation, and of the measurement.
            kept: where the state of the measurement is saved.
        """
        network = counterfactual_of(self.network, name, seed)

        def estimated() -> dict[str, Any]:
            estimate_norms(network, self._batches(shares[0]))
            return dict(as_arrays(norms_of(network)))

        together = self.images.together
        content = b""
        if together.is_first:  # the others get them from it
            found = estimated() if kept is None else kept.once("norms", estimated)
            content = state_in_bytes(found)
        load_norms(network, as_tensors(state_from_bytes(together.spread(content))))
        own = self.of_control(network, shares[1], kept)
        images = replace(own.images, options=replace(own.options, explain=False))
        return replace(own, images=images).sums().as_shuffled(name, seed)

    def _batches(self, progress: Progress | None) -> Iterator[Tensor]:
        """The images as the network expects them, batch by batch; nothing is recorded of them."""
        place, _ = home_of(self.network.model)
        done, options = 0, self.options
        workers = options.workers or 0
        with contextlib.closing(batches(self.source, options.batch_size, workers, place)) as found:
            for batch in found:
                done += len(batch.index) + len(batch.unreadable)
                if self.images.expected is not None:
                    self.images.expected.check(batch)
                if len(batch.index):
                    yield prepared(self.network, self.source, batch.images)
                if progress is not None:
                    progress(done, self.source.n_images or 0)


@dataclass(eq=False)
class _Work:
    """The work of a pass, as its loop asks for it."""

    watched: WatchedNetwork
    sums: PassSums
    is_part: bool = False
    _is_finished: bool = False

    def begin(self, example: Batch, account: dict[str, Any] | None) -> None:
        self.watched.start(example.images)
        if self.sums.collected is not None:
            self.watched.load(self.sums.collected.state(), account)

    def measure(self, batch: Batch) -> None:
        watched, sums = self.watched, self.sums
        if not watched.is_started:
            watched.start(batch.images)
            sums.facts = replace(sums.facts, example=int(batch.index[0]))
        watched.measure(batch)
        if not sums.reading.n_read:
            sums.facts = replace(sums.facts, found=watched.found(batch.images))
        sums.inputs.update(batch.images, batch.index)

    def finish(self, others: list[PassSums], accounts: list[dict[str, Any]]) -> None:
        self._collect()
        for other in others:
            self.sums.merge(other)
        account = self.watched.account
        if account is not None:
            if accounts:
                account.load_state_dict(reduce(added_states, accounts, account.state_dict()))
            self.sums.account = account.compute()
            if self.is_part:  # so that other parts can be added
                self.sums.account_sums = account.sums(self.sums.account)
        self._is_finished = self.sums.is_whole = True

    def _collect(self) -> None:
        if self.watched.is_started:
            self.sums.collected = self.watched.collector.collected()

    def spectra(self) -> list[LayerSpectrum]:
        self._collect()
        return self.sums.spectra()

    def state(self) -> dict[str, Any]:
        if not self._is_finished:
            self._collect()
        # After the end, what the account has summed is in the sums.
        return self.sums.state(None if self._is_finished else self.watched.state())
