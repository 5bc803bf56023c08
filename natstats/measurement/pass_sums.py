"""The sums of a pass of images: those of parts are added, and a run is made from them.

All that a run needs is here, so that parts can be put together, and runs finished, without the
network that was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats.errors import NatstatsError
from natstats.fits.options import FitOptions
from natstats.measurement.state_schema import check_state
from natstats.measurement.until import Look
from natstats.runs.account_files import account_from_bytes, account_in_bytes
from natstats.runs.control import RandomWeights
from natstats.runs.counterfactual import ShuffledWeights
from natstats.runs.provenance import circumstances
from natstats.runs.reading import Reading
from natstats.runs.run import Run
from natstats.spectra.collected import Collected
from natstats.spectra.input_spectra import InputSpectra
from natstats.spectra.records import LayerSpectrum
from natstats.text import printable
from natstats.theory.account_spectra import AccountSpectra
from natstats.theory.account_sums import AccountSums

__all__ = ["PassFacts", "PassSums", "as_arrays", "as_tensors"]


@dataclass(frozen=True)
class PassFacts:
    """What is known of a pass besides its sums.

    Attributes:
        name: of the run that it gives.
        model: which network; None for images alone.
        options: how it is measured, as a run keeps them.
        device: what it is measured on.
        normalisation: mean and standard deviation that photographs were brought to; None for other
            images.
        expected: mean and standard deviation that the network expects of its images; None where
            they are not known.
        notes: what a reader must know of the network.
        found: the same of what was found out with the first image.
        assumed: the same of what was assumed, as it is not known.
        example: number of the image that the network was traced with.
    """

    name: str
    model: dict[str, Any] | None
    options: dict[str, Any]
    device: dict[str, Any]
    normalisation: dict[str, list[float]] | None = None
    expected: dict[str, list[float]] | None = None
    notes: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    example: int = 0


@dataclass
class PassSums:
    """What was measured so far in one pass of images.

    Attributes:
        facts: of the pass.
        reading: what was found out about the images.
        inputs: the spectra of the images themselves.
        collected: those of the layers; None for images alone.
        seconds: how long it took.
        smallest: images of a batch, where larger ones did not fit into memory; 0 where all did.
        account: what was measured for the account, when all images have come.
        is_whole: whether all images that were wanted have come.
        look: the last look at the intervals, where they decide how many images are measured.
        account_sums: sums by which parts of an account are added; None if the pass is not a part.
    """

    facts: PassFacts
    reading: Reading
    inputs: InputSpectra
    collected: Collected | None = None
    seconds: float = 0.0
    smallest: int = 0
    account: AccountSpectra | None = None
    is_whole: bool = False
    look: Look | None = None
    account_sums: AccountSums | None = None

    def renewed(self) -> PassSums:
        """Empty sums of the same pass."""
        options = self.facts.options
        inputs = InputSpectra(options["edges"], options["n_groups"], options["temporal"])
        return PassSums(self.facts, Reading(self.reading.facts), inputs)

    def merge(self, other: PassSums) -> None:
        """Add what another part of the same pass has measured, on other images.

        Raises:
            UsageError: an image is in both.
        """
        self.inputs.merge(other.inputs)
        if self.collected is None:
            self.collected = other.collected
        elif other.collected is not None:
            self.collected.merge(other.collected)
        if not self.reading.n_read:
            self.facts = replace(self.facts, found=other.facts.found)
        self.reading.merge(other.reading)
        self.seconds += other.seconds
        if self.account_sums is not None and other.account_sums is not None:
            self.account_sums = self.account_sums.merged(other.account_sums)
            self.account = None  # of one part alone
        self.look = max(filter(None, (self.look, other.look)), default=None)
        self.smallest = min(filter(None, (self.smallest, other.smallest)), default=0)

    def spectra(self) -> list[LayerSpectrum]:
        """The spectra so far, those of the images first."""
        layers = [] if self.collected is None else self.collected.spectra()
        return [*self.inputs.compute(), *layers]

    def renumber(self, by: int) -> None:
        """Add `by`, a multiple of the number of groups, to the number of every image."""
        self.inputs.renumber(by)
        self.reading.renumber(by)
        if self.collected is not None:
            self.collected.renumber(by)

    @property
    def was_stopped(self) -> bool:
        """Whether images are left that were not measured, as intervals were narrow enough."""
        n_all = self.reading.n_images
        is_over = n_all is not None and len(self.reading.numbers) >= n_all
        return self.facts.options.get("until") is not None and not is_over

    def run(self, fit: FitOptions) -> Run:
        """The run of all that was measured.

        Args:
            fit: how to fit; `stopped` is set here, from whether intervals ended the measurement.

        Raises:
            NatstatsError: no image was measured.
        """
        if not self.reading.n_read:
            where = printable(self.reading.facts.description)
            raise NatstatsError(f"images: expected at least one image; got none in {where!r}")
        facts = self.facts
        spectra = self.spectra()
        n_images = spectra[0].spectrum.n_images
        warnings = [*facts.notes, *self.reading.warnings(), *facts.found]
        if facts.model is not None:
            warnings += self.reading.range_warnings(facts.expected)
        warnings += facts.assumed
        if self.smallest:
            warnings.append(
                f"batches of {facts.options.get('batch_size')} did not fit into memory, and were "
                f"measured in parts of {self.smallest}"
            )
        info = {
            "name": facts.name,
            **circumstances(facts.device, self.seconds, n_images),
            "model": facts.model,
            "images": self.reading.image_facts(n_images, facts.normalisation),
            "options": dict(facts.options),
            "warnings": warnings,
        }
        skipped = () if self.collected is None else self.collected.skipped()
        fit = replace(fit, stopped=self.was_stopped)
        if self.account is None and self.account_sums is not None:
            self.account = self.account_sums.compute()
        run = Run(spectra, skipped, info, fit, (), self.account)
        run.info["warnings"] += self.reading.few_images_warning(run)
        return run

    def as_control(self, seed: int) -> RandomWeights:
        """What a control keeps of the pass of a network with random weights of this seed."""
        run = self.run(FitOptions())
        account = run.account_spectra
        return RandomWeights.of(seed, run.info, run.spectra, run.skipped_layers, account)

    def as_shuffled(self, name: str, seed: int) -> ShuffledWeights:
        """What a run keeps of the pass of its copy with shuffled kernels.

        Args:
            name: what was shuffled.
            seed: seed of the orders.
        """
        run = self.run(FitOptions())
        return ShuffledWeights.of(name, seed, run.info, run.spectra, run.skipped_layers)

    def state(self, account_sums: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Everything needed to go on later, or to finish: arrays and plain values.

        Args:
            account_sums: the state of an account that is not finished.
        """
        own = self.account_sums
        account = self.account if own is None else own.frame
        content = None if account is None else account_in_bytes(account)
        functions = None
        if own is not None:
            account_sums = own.state if account_sums is None else account_sums
            functions = {
                "note": own.note,
                "functions": [[n, name, dict(given)] for n, (name, given) in own.functions.items()],
            }
        state = {
            "facts": vars(self.facts),
            "reading": self.reading.state(),
            "inputs": self.inputs.state_dict(),
            "collected": None if self.collected is None else self.collected.state(),
            "seconds": self.seconds,
            "smallest": self.smallest,
            "is_whole": self.is_whole,
            "look": self.look,
            "account": None if content is None else np.frombuffer(content, np.uint8),
            "account_sums": account_sums,
            "account_functions": functions,
        }
        arrays: dict[str, Any] = as_arrays(state)
        return arrays

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> PassSums:
        """Inverse of :meth:`state`.

        Raises:
            NatstatsError: it is no such state.
        """
        check_state(state)
        try:
            return cls._from_state(state)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise NatstatsError(
                f"state: expected that of a measurement; {type(error).__name__}: {error}"
            ) from error

    @classmethod
    def _from_state(cls, state: Mapping[str, Any]) -> PassSums:
        facts = dict(state["facts"])
        for name in ("notes", "found", "assumed"):
            facts[name] = tuple(facts[name])
        options = facts["options"]
        inputs = InputSpectra(options["edges"], options["n_groups"], options["temporal"])
        inputs.load_state_dict(as_tensors(state["inputs"]))
        collected = None
        if state["collected"] is not None:
            collected = Collected.from_state(as_tensors(state["collected"]))
        look = state.get("look")
        account = None
        if state["account"] is not None:
            account = account_from_bytes(state["account"].tobytes(), options["n_groups"])
        known = state.get("account_functions")
        account_sums = None
        if known is not None and account is not None and state["account_sums"] is not None:
            functions = {number: (name, given) for number, name, given in known["functions"]}
            sums = as_tensors(state["account_sums"])
            account_sums = AccountSums(account, sums, functions, known["note"])
        return cls(
            PassFacts(**facts),
            Reading.from_state(state["reading"]),
            inputs,
            collected,
            state["seconds"],
            state["smallest"],
            account,
            state["is_whole"],
            None if look is None else Look(*look),
            account_sums,
        )


def as_arrays(value: Any) -> Any:
    """The same with all tensors as arrays of numpy on the host, which may share their memory."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if isinstance(value, Mapping):
        return {name: as_arrays(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return [as_arrays(own) for own in value]
    return value


def as_tensors(value: Any) -> Any:
    """Inverse of :func:`as_arrays`."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, Mapping):
        return {name: as_tensors(own) for name, own in value.items()}
    if isinstance(value, list):
        return [as_tensors(own) for own in value]
    return value
