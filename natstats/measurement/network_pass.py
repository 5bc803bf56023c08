"""One pass of images through one network: what is measured, and the facts of its run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from natstats.fits.options import FitOptions
from natstats.images.image_numbers import ImageNumbers
from natstats.images.sources import Batch, ImageSet, Photographs, batches
from natstats.measurement.counterfactual import counterfactual_of
from natstats.measurement.image_loop import ImageLoop, Progress, earlier_sums
from natstats.measurement.keeping import KeptPass
from natstats.measurement.options import MeasureOptions
from natstats.measurement.pass_sums import PassFacts, PassSums, as_arrays, as_tensors
from natstats.measurement.preparation import home_of
from natstats.measurement.watched_network import WatchedNetwork, prepared
from natstats.networks.load import Network
from natstats.networks.preprocessing import NORMALISED, spoken
from natstats.runs.counterfactual import ShuffledWeights
from natstats.runs.provenance import device_facts, model_facts
from natstats.runs.reading import Reading, SourceFacts
from natstats.runs.run import Run
from natstats.spectra.input_spectra import InputSpectra

__all__ = ["NetworkPass"]


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
        kept: where its state is saved; None where it is not.
        is_guess: whether nothing is known of how photographs are to be normalised.
    """

    network: Network
    source: ImageSet
    options: MeasureOptions
    fit: FitOptions
    strict: bool
    progress: Progress | None
    kept: KeptPass | None = None
    is_guess: bool = False

    def measured(self) -> Run:
        """The run of this network, without a control."""
        return self.sums().run(self.fit)

    def sums(self) -> PassSums:
        """What was measured of this network, now and in earlier sittings."""
        sums, earlier = earlier_sums(self.kept, self.source) or (self._new_sums(), None)
        if len(sums.reading.numbers) == len(self.source):
            return sums
        place, _ = home_of(self.network.model)
        with WatchedNetwork(self.network, self.source, self.options, self.fit) as watched:
            work = _Work(watched, sums)
            if earlier is not None:
                example = ImageNumbers.of([sums.facts.example])
                for batch in batches(self.source, 1, 0, place, example):
                    watched.start(batch.images)
                    watched.load(
                        as_tensors(earlier["collected"]), as_tensors(earlier["account_sums"])
                    )
            ImageLoop(self.source, self.options, place, self.strict, self.progress, self.kept).run(
                work
            )
        return sums

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
            "limit", "seed", "size", "crop", "normalize", "frames", "control", "counterfactual"
        )  # fmt: skip
        options = replace(self.options, **{name: getattr(usual, name) for name in settled})
        return replace(
            self,
            network=network,
            options=options,
            fit=FitOptions(),
            progress=progress,
            kept=kept,
            is_guess=False,
        )

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
        network = counterfactual_of(self.network, name, seed, self._images(shares[0]))
        own = self.of_control(network, shares[1], kept)
        run = replace(own, options=replace(own.options, explain=False)).measured()
        return ShuffledWeights.of(name, seed, run.info, run.spectra, run.skipped_layers)

    def _images(self, progress: Progress | None) -> Iterator[Tensor]:
        """The images as the network expects them, batch by batch; nothing is taken note of."""
        place, _ = home_of(self.network.model)
        done, options = 0, self.options
        for batch in batches(self.source, options.batch_size, options.workers or 0, place):
            done += len(batch.index) + len(batch.unreadable)
            if len(batch.index):
                yield prepared(self.network, self.source, batch.images)
            if progress is not None:
                progress(done, len(self.source))


@dataclass(eq=False)
class _Work:
    """The work of a pass, as its loop asks for it."""

    watched: WatchedNetwork
    sums: PassSums

    def measure(self, batch: Batch) -> None:
        watched, sums = self.watched, self.sums
        if not watched.is_started:
            watched.start(batch.images)
            sums.facts = replace(sums.facts, example=int(batch.index[0]))
        watched.measure(batch)
        if not sums.reading.n_read:
            sums.facts = replace(sums.facts, found=watched.found(batch.images))
        sums.inputs.update(batch.images, batch.index)

    def finish(self) -> None:
        self.sums.collected = self.watched.collector.collected()
        if self.watched.account is not None:
            self.sums.account = self.watched.account.compute()

    def state(self) -> dict[str, Any]:
        self.sums.collected = self.watched.collector.collected()
        return {**self.sums.state(), "account_sums": as_arrays(self.watched.state())}
