"""The pass over images without a network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from natstats.images.sources import Batch, source_name
from natstats.measurement.pass_sums import PassFacts, PassSums
from natstats.measurement.shared_pass import SharedPass, Work
from natstats.runs.provenance import device_facts
from natstats.runs.reading import Reading, SourceFacts
from natstats.spectra.input_spectra import InputSpectra
from natstats.spectra.records import LayerSpectrum

__all__ = ["sums_of_images"]


def sums_of_images(images: SharedPass) -> PassSums:
    """What is measured of images by themselves.

    Args:
        images: the images, and how to go through them.
    """
    options, source = images.options, images.source
    device = torch.device("cpu")
    name = source_name(source.description)
    facts = PassFacts(name, None, options.of_images(), device_facts(device))
    inputs = InputSpectra(options.edges, options.n_groups, options.temporal)
    new = PassSums(facts, Reading(SourceFacts.of(source)), inputs)

    @contextlib.contextmanager
    def work(sums: PassSums) -> Iterator[Work]:
        yield _Work(sums)

    return images.run(device, new, work)


@dataclass
class _Work:
    """The work of images alone, as their loop asks for it."""

    sums: PassSums

    def begin(self, example: Batch, account: dict[str, Any] | None) -> None:
        pass

    def measure(self, batch: Batch) -> None:
        self.sums.inputs.update(batch.images, batch.index)

    def finish(self, others: list[PassSums], accounts: list[dict[str, Any]]) -> None:
        for other in others:
            self.sums.merge(other)
        self.sums.is_whole = True

    def spectra(self) -> list[LayerSpectrum]:
        return self.sums.spectra()

    def state(self) -> dict[str, Any]:
        return self.sums.state()
