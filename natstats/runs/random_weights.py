"""What was measured of a network with random weights, and how a run keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from natstats.brief import Brief
from natstats.errors import NatstatsError
from natstats.files.paths import member
from natstats.files.schema import shown
from natstats.runs import store
from natstats.runs.account_files import read_account, write_account
from natstats.spectra.records import LayerSpectrum, SkippedLayer
from natstats.theory.account_spectra import AccountSpectra

__all__ = ["RandomWeights", "read_random_weights", "write_random_weights"]

FOLDER = "control"


@dataclass(frozen=True, eq=False, repr=False)
class RandomWeights(Brief):
    """What was measured of the network with random weights of one seed.

    Attributes:
        seed: seed of the weights.
        info: facts about the measurement, as of a run.
        spectra: spectra of the layers, without the input images and without those of single images.
        skipped: layers that were not measured.
        account: what was measured for the account; None where it was not asked for.
    """

    seed: int
    info: dict[str, Any]
    spectra: list[LayerSpectrum]
    skipped: list[SkippedLayer]
    account: AccountSpectra | None = None

    @classmethod
    def of(
        cls,
        seed: int,
        info: dict[str, Any],
        spectra: Sequence[LayerSpectrum],
        skipped: Sequence[SkippedLayer],
        account: AccountSpectra | None = None,
    ) -> RandomWeights:
        """Keep what the control needs of a measurement: neither images nor their own spectra."""
        kept = [
            LayerSpectrum(m.layer, replace(m.spectrum, image_power=m.spectrum.image_power[:0]))
            for m in spectra
            if m.layer.kind != "input"
        ]
        return cls(seed, info, kept, list(skipped), account)


def write_random_weights(folder: Path, random: Sequence[RandomWeights]) -> None:
    """Write ``control/seed-0`` and so on into the folder of a run, each as a run."""
    for one in random:
        own = folder / FOLDER / f"seed-{one.seed}"
        own.mkdir(parents=True)
        store.write_run(own, {**one.info, "seed": one.seed}, one.spectra, one.skipped)
        if one.account is not None:
            write_account(own, one.account)


def read_random_weights(folder: Path, n_groups: int) -> list[RandomWeights]:
    """Read what :func:`write_random_weights` wrote; empty for a run without a control.

    Args:
        folder: folder of the run.
        n_groups: groups of images in the run.

    Raises:
        NatstatsError: a part is damaged or missing.
    """
    found = []
    home = member(folder, FOLDER, FOLDER)
    for entry in home.glob("seed-*"):
        name = f"{FOLDER}/{entry.name}"
        info, spectra, skipped = store.read_run(member(home, entry.name, name), name)
        seed = info.pop("seed", None)
        if entry.name != f"seed-{seed}":
            raise NatstatsError(
                f"run: expected a whole run in {folder}; {name}/run.json, seed: expected that of "
                f"the folder; got {shown(seed)}"
            )
        for place, measured in enumerate(spectra):
            if len(measured.spectrum.count) != n_groups:
                raise NatstatsError(
                    f"run: expected a whole run in {folder}; {name}/spectra.npz, {place:04d}/count:"
                    f" expected {n_groups} groups as in the run; got {len(measured.spectrum.count)}"
                )
        account = read_account(home / entry.name, n_groups, f"{name}/")
        found.append(RandomWeights(seed, info, spectra, skipped, account))
    if len(found) == 1:
        raise NatstatsError(f"control: expected two seeds or more in {home}; got one")
    return sorted(found, key=lambda one: one.seed)
