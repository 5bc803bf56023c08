"""Where a measurement goes: the folder that is claimed for it, its states, the run at last."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from natstats._version import __version__
from natstats.errors import NatstatsError, UsageError
from natstats.files.claims import claimed
from natstats.files.paths import expanded
from natstats.fits.options import FitOptions
from natstats.images.sources import ImageSet
from natstats.measurement.keeping import Keeper, KeptPass
from natstats.networks.load import Network
from natstats.runs import store
from natstats.runs.run import Run
from natstats.text import printable

__all__ = ["SAVE_EVERY", "Place", "kept_in"]

SAVE_EVERY = 60.0
"""Seconds between two times that the state of a measurement is saved."""

_SAME_NUMBERS = ("batch_size", "workers")
"""Options that do not change the results, so that another sitting may have others."""

_log = logging.getLogger("natstats")


class Place:
    """Where a measurement goes, or nowhere.

    Args:
        out: the folder of the run; None for nowhere.
        folder: for the states; None for nowhere.
        overwrite: what is there may be replaced.
        every: seconds between two times that a state is saved.
        command: what was typed.
    """

    def __init__(
        self,
        out: Path | None,
        folder: Path | None,
        overwrite: bool,
        every: float,
        command: str | None,
    ) -> None:
        self._out, self._folder, self._overwrite = out, folder, overwrite
        self._every, self._command = every, command
        self._keeper: Keeper | None = None

    def identify(
        self,
        source: ImageSet,
        options: dict[str, Any],
        fit: FitOptions,
        network: Network | None = None,
    ) -> None:
        """Say what is measured, before the first state is asked for.

        Raises:
            UsageError: the state of another measurement is there, and may not be replaced.
            NatstatsError: a state is damaged.
        """
        if self._out is None or self._folder is None:
            return
        identity = {name: value for name, value in options.items() if name not in _SAME_NUMBERS}
        identity["natstats"] = __version__
        identity["images"] = source.listing()
        if network is not None:
            identity |= {"network": network.digest(), "preprocessing": repr(network.preprocessing)}
        self._keeper = Keeper(
            self._folder,
            identity,
            self._every,
            self._out,
            self._overwrite,
            {"command": self._command, "fit": fit.to_dict()},
        )
        self._keeper.check()

    def of(self, name: str) -> KeptPass | None:
        """The state of one pass; None where nothing is kept."""
        return None if self._keeper is None else self._keeper.of(name)

    def finish(self, run: Run) -> Run:
        """Save the run where it goes; it is returned.

        Raises:
            NatstatsError: it cannot be written; the states stay.
        """
        if self._out is None or self._keeper is None:
            return run
        if self._command is not None:
            run.info["command"] = self._command
        try:
            run.save(self._out, overwrite=self._overwrite)
        except UsageError as error:  # something came there in the meantime
            spare = store.free_path(self._out)
            _log.warning("Note: %s; the new run goes to %s.", error, printable(spare))
            run.save(spare)
        except (NatstatsError, OSError) as error:
            kept = "what was measured could not be kept"
            if self._keeper.is_saved():
                kept = (
                    f"what was measured is kept in {self._out}; `natstats fit {self._out}` "
                    "finishes the run when it can be written"
                )
            raise NatstatsError(f"{str(error).removesuffix('.')}; {kept}") from error
        return run


@contextlib.contextmanager
def kept_in(
    out: str | Path | None, overwrite: bool, every: float, command: str | None
) -> Iterator[Place]:
    """Claim the folder of a run for as long as the context is open.

    Args:
        out: the folder; None for nowhere.
        overwrite: what is there may be replaced.
        every: seconds between two times that a state is saved.
        command: what was typed, to be told in the report.

    Raises:
        UsageError: it is no place for a run, or another process is at work there.
    """
    if not (isinstance(every, int | float) and math.isfinite(every) and every >= 0):
        raise UsageError(f"save_every: expected seconds, 0 or more; got {every!r}")
    if out is None:
        yield Place(None, None, overwrite, every, command)
        return
    path = expanded(out, "out")
    with claimed(path, overwrite) as folder:
        yield Place(path, folder, overwrite, every, command)
