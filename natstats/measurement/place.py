"""Where a measurement is written: the folder that is claimed for it, its states, then the run."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from natstats._version import __version__
from natstats.errors import Interrupted, NatstatsError, UsageError
from natstats.files.claims import claimed
from natstats.files.ownership import STATE
from natstats.files.paths import expanded
from natstats.fits.options import FitOptions
from natstats.images.sources import ImageSet
from natstats.measurement.keeping import Keeper, KeptPass
from natstats.measurement.parts import Shard, refuse_empty, save_part
from natstats.measurement.pass_sums import PassSums
from natstats.networks.load import Network
from natstats.processes.joining import Processes
from natstats.runs import store
from natstats.runs.run import STATES, Run
from natstats.text import printable

__all__ = ["SAVE_EVERY", "Keeping", "Place", "amend", "has_kept_state", "keeps_states"]

SAVE_EVERY = 60.0
"""Seconds between two saves of the state of a measurement."""

_MAY_CHANGE = ("batch_size", "workers", "until")
"""Options that do not change what an image adds, so that they may differ between sittings."""

_log = logging.getLogger("natstats")


def has_kept_state(path: Path) -> bool:
    """Whether a folder is a run whose measurement can be continued."""
    return (path / STATES).is_dir() and (path / "run.json").is_file()


def keeps_states(run: Run) -> bool:
    """Whether the states of its passes are kept in a run, which may be continued later."""
    return run.info["options"].get("until") is not None


def _take_up(kept: Path, state: Path) -> None:
    """Copy the states that a run has kept, all or none, unless it was continued before.

    Raises:
        NatstatsError: there is no room.
    """
    if any(state.glob("*.safetensors")):
        return
    copies = {file.name: state / f"{file.name}.copy" for file in kept.glob("*.safetensors")}
    try:
        for name, copy in copies.items():
            shutil.copyfile(kept / name, copy)
        for name, copy in copies.items():
            copy.replace(state / name)
    except OSError as error:
        for name, copy in copies.items():
            for file in (copy, state / name):
                file.unlink(missing_ok=True)
        raise NatstatsError(
            f"out: expected room for the state of the run that is gone on with; "
            f"{error.strerror or error}"
        ) from error


@contextlib.contextmanager
def _telling_what_is_kept(out: Path, state: Path) -> Iterator[None]:
    """Say what is kept when an interruption comes between passes, or during fits and figures.

    Raises:
        Interrupted: it came without a message, and states are kept.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        if str(error) or not any(state.glob("*.safetensors")):
            raise
        raise Interrupted(
            f"interrupted; {out} keeps what was measured, and the same command, with --out {out}, "
            "goes on from there",
            exit_code=getattr(error, "exit_code", 130),
        ) from error


def amend(run: Run, about: Mapping[str, Any]) -> None:
    """Add what was kept beside the sums to the facts of the run that is made from them.

    Args:
        run: the run.
        about: see :meth:`Keeping.about`.
    """
    if about.get("command") is not None:
        run.info["command"] = about["command"]
    if about.get("series") is not None:
        if about.get("weights") and run.info["model"] is not None:
            run.info["model"]["weights"] = about["weights"]
        run.info["warnings"] = [*about.get("notes", ()), *run.info["warnings"]]
        run.info["series"] = dict(about["series"])


class Place:
    """Where a measurement is written, if anywhere.

    Args:
        keeping: what was asked for.
        folder: for the states; None for nowhere.
        together: the processes that share the work.
    """

    def __init__(self, keeping: Keeping, folder: Path | None, together: Processes) -> None:
        self._keeping, self._folder, self._together = keeping, folder, together
        self._keeper: Keeper | None = None

    def identify(
        self,
        source: ImageSet,
        options: dict[str, Any],
        fit: FitOptions,
        network: Network | None = None,
    ) -> None:
        """Say what is measured, before the first state is asked for."""
        keeping = self._keeping
        if keeping.path is None or self._folder is None:
            return
        identity = {name: value for name, value in options.items() if name not in _MAY_CHANGE}
        identity["natstats"] = __version__
        identity["images"] = source.listing()
        identity["shard"] = None if keeping.shard is None else str(keeping.shard)
        if network is not None:
            identity |= {"network": network.digest(), "preprocessing": repr(network.preprocessing)}
        self._keeper = Keeper(
            self._folder,
            identity,
            keeping.every,
            keeping.path,
            keeping.overwrite,
            self._together.rank,
            {**keeping.about(), "fit": fit.to_dict()},
        )

    def refuse_empty(self, sums: PassSums) -> None:
        """Raise where a share of a stream has no image; nothing is left in its folder.

        Raises:
            UsageError: it has none.
        """
        try:
            refuse_empty(self._keeping.shard, sums)
        except UsageError:
            if self._keeper is not None and self._together.is_first:
                self._keeper.forget()
            raise

    def of(self, name: str) -> KeptPass | None:
        """The state of one pass; None where nothing is kept."""
        return None if self._keeper is None else self._keeper.of(name)

    def finish(self, run: Run, passes: Mapping[str, PassSums]) -> Run:
        """Save the run, or the part, where it goes; the run is returned.

        Args:
            run: of all that was measured here.
            passes: what it is made of, by the name of the pass.

        Raises:
            NatstatsError: it cannot be written; the states stay.
        """
        keeping, keeper = self._keeping, self._keeper
        keeping.amend(run)
        if keeping.path is None or keeper is None:
            return run
        if self._together.is_first:
            try:
                self._save(keeping, keeper, run, passes)
            except UsageError as error:  # something was written there in the meantime
                spare = store.free_path(keeping.path)
                _log.warning("Note: %s; what was measured goes to %s.", error, printable(spare))
                self._save(replace(keeping, out=spare, overwrite=False), keeper, run, passes)
                keeper.forget()
            except (NatstatsError, OSError) as error:
                raise NatstatsError(
                    f"{str(error).removesuffix('.')}; {self._kept(keeper)}"
                ) from error
        return run

    @staticmethod
    def _save(keeping: Keeping, keeper: Keeper, run: Run, passes: Mapping[str, PassSums]) -> None:
        assert keeping.path is not None
        if keeping.shard is None:
            states = passes if keeps_states(run) else {}
            run.save(
                keeping.path,
                overwrite=keeping.overwrite or keeping.goes_on,
                states={name: keeper.labelled(sums.state()) for name, sums in states.items()},
            )
        else:
            save_part(keeping.path, keeping.overwrite, keeper.identity, keeper.about, passes)

    def _kept(self, keeper: Keeper) -> str:
        """What is kept of work that could not be written, as the end of a sentence."""
        out = self._keeping.path
        if not keeper.is_saved():
            if not any(keeper.folder.glob("*.safetensors")):
                return "what was measured could not be kept either"
            return f"{out} keeps some of what was measured, and the same command goes on from there"
        how = f"`natstats fit {out}`" if self._keeping.shard is None else "the same command"
        return f"what was measured is kept in {out}; {how} finishes it when it can be written"


@dataclass(frozen=True)
class Keeping:
    """Where a measurement is to be written, as it was asked for.

    Attributes:
        out: the folder; None for nowhere.
        overwrite: what is there may be replaced.
        every: seconds between two saves of a state.
        command: what was typed, for the report.
        shard: the share of the images that is measured; None for all of them.
        may_go_on: a run that has kept its state may be continued, and replaced.
        series: for which series, and from which checkpoint; None for a run of its own.
        weights: where the weights came from; empty where the network says it.
        notes: what a reader must know of the network, beside what it says itself.

    Raises:
        UsageError: `every` is not a number of at least 0.
    """

    out: str | Path | None
    overwrite: bool
    every: float
    command: str | None
    shard: Shard | None = None
    may_go_on: bool = False
    series: Mapping[str, Any] | None = None
    weights: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        every = self.every
        if not (isinstance(every, int | float) and math.isfinite(every) and every >= 0):
            raise UsageError(f"save_every: expected seconds, 0 or more; got {every!r}")

    @property
    def path(self) -> Path | None:
        """The folder; None for nowhere."""
        return None if self.out is None else expanded(self.out, "out")

    @property
    def goes_on(self) -> bool:
        """Whether there is a run that has kept its state and is to be continued."""
        path = self.path
        return self.may_go_on and not self.overwrite and path is not None and has_kept_state(path)

    def about(self) -> dict[str, Any]:
        """What a run says of itself that is not found in the sums; it is kept with them."""
        found: dict[str, Any] = {"command": self.command}
        if self.series is not None:
            found |= {"series": dict(self.series), "weights": self.weights, "notes": [*self.notes]}
        return found

    def amend(self, run: Run) -> None:
        """Add this to the facts of a run."""
        amend(run, self.about())

    @contextlib.contextmanager
    def place(self, together: Processes) -> Iterator[Place]:
        """Claim the folder for as long as the context is open, for all processes.

        Raises:
            UsageError: it is no place for a run, or another process is at work there.
        """
        path = self.path
        if path is None:
            yield Place(self, None, together)
            return
        with contextlib.ExitStack() as stack:
            if together.is_first:
                kind = "run" if self.shard is None else "part"
                goes_on = self.goes_on
                state = stack.enter_context(claimed(path, self.overwrite or goes_on, kind))
                if goes_on:
                    _take_up(path / STATES, state)
            together.wait()
            folder = Path(os.path.realpath(path)) / STATE
            with _telling_what_is_kept(path, folder):
                yield Place(self, folder, together)
            together.wait()
