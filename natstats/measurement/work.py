"""What a loop over images needs of the object that does something with them."""

from __future__ import annotations

from typing import Any, Protocol

from natstats.images.sources import Batch
from natstats.measurement.pass_sums import PassSums
from natstats.spectra.records import LayerSpectrum

__all__ = ["Work"]


class Work(Protocol):
    """What is done with the images of a loop.

    Attributes:
        sums: what was measured so far.
    """

    sums: PassSums

    def measure(self, batch: Batch) -> None:
        """Add a batch to the sums; one that raises has added nothing."""

    def state(self) -> dict[str, Any]:
        """Everything that is saved."""
        raise NotImplementedError

    def spectra(self) -> list[LayerSpectrum]:
        """The spectra so far, those of the images among them."""
        raise NotImplementedError
