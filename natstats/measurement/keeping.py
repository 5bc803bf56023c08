"""The state of an unfinished measurement: saved now and then, and taken up again later."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from natstats.errors import NatstatsError, UsageError
from natstats.files import locks
from natstats.files.state_files import read_state, write_state
from natstats.text import printable

__all__ = ["FORMAT", "Keeper", "KeptPass", "difference"]

FORMAT = 1
"""Number of the format of a state."""

MOST_SHARE = 0.01
"""Share of the time that saving may take; where it takes longer, it is done less often."""

_log = logging.getLogger("natstats")


@dataclass(frozen=True)
class Keeper:
    """Where the passes of one measurement keep their states.

    Attributes:
        folder: for the states.
        identity: what is measured, and how: a state of anything else is refused.
        every: seconds between two saves of a state; 0 to save after every batch.
        out: folder of the run, for messages.
        overwrite: states of anything else are dropped, not refused.
        rank: number of this process, among those that share the work.
        about: what else is kept with the states: what was typed, and how to fit.
        passes: the passes whose states were asked for.
    """

    folder: Path
    identity: Mapping[str, Any]
    every: float
    out: Path
    overwrite: bool = False
    rank: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)
    passes: list[KeptPass] = field(default_factory=list)

    def of(self, name: str) -> KeptPass:
        """The state of one pass."""
        one = KeptPass(self, name)
        self.passes.append(one)
        return one

    def labelled(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state as it is saved: with what it is a state of."""
        kept = {"identity": dict(self.identity), "about": dict(self.about)}
        return {"format": FORMAT, **kept, **state}

    def forget(self) -> None:
        """Remove all states that are there."""
        for path in self.folder.glob("*.safetensors"):
            path.unlink(missing_ok=True)

    def is_saved(self) -> bool:
        """Whether the last state of every pass could be saved."""
        return bool(self.passes) and not any(one.has_failed for one in self.passes)

    def checked(self, path: Path) -> dict[str, Any]:
        """A state that was saved, read from its file.

        Raises:
            UsageError: it is of something else; what differs is named.
            NatstatsError: it is damaged.
        """
        state = read_state(path)
        if state.get("format") != FORMAT:
            raise NatstatsError(
                f"out: expected the state of a measurement by this version; {printable(path)} is "
                f"of another (--overwrite begins anew)"
            )
        why = difference(state.get("identity"), self.identity)
        if why is not None:
            raise self.refusal(why)
        return state

    def refusal(self, why: str) -> UsageError:
        """What to raise where the state of another measurement is there.

        Args:
            why: what it is a state of, as the end of a sentence.
        """
        return UsageError(
            f"out: expected an unfinished measurement of the same; {printable(self.out)} keeps "
            f"one {why} (another --out, or --overwrite to begin anew)"
        )


@dataclass
class KeptPass:
    """The state of one pass, as it is kept.

    Attributes:
        keeper: where.
        name: of the pass.
        has_failed: whether it could not be saved the last time.
    """

    keeper: Keeper
    name: str
    has_failed: bool = False
    _last: float = field(default_factory=time.monotonic)
    _cost: float = 0.0

    @property
    def is_first(self) -> bool:
        """Whether this is the first process, or the only one."""
        return self.keeper.rank == 0

    @property
    def path(self) -> Path:
        """The file of this process."""
        rank = "" if self.is_first else f".rank-{self.keeper.rank}"
        return self.keeper.folder / f"{self.name}{rank}.safetensors"

    def _others(self) -> list[Path]:
        return sorted(self.keeper.folder.glob(f"{self.name}.rank-*.safetensors"))

    def earlier(self) -> list[dict[str, Any]]:
        """What was kept of earlier sittings, by all their processes.

        Raises:
            UsageError: it is of something else, and may not be dropped.
            NatstatsError: it is damaged.
        """
        paths = [self.keeper.folder / f"{self.name}.safetensors", *self._others()]
        try:
            return [self.keeper.checked(path) for path in paths if path.exists()]
        except NatstatsError:
            if not self.keeper.overwrite:
                raise
            self.keeper.forget()
            return []

    def forget(self) -> None:
        """Remove the state of this process."""
        self.path.unlink(missing_ok=True)

    def forget_others(self) -> None:
        """Remove the states of other processes than the first."""
        for path in self._others():
            path.unlink(missing_ok=True)

    def tick(self, state: Callable[[], Mapping[str, Any]]) -> None:
        """Save the state if it is time to."""
        wait = max(self.keeper.every, self._cost / MOST_SHARE if self.keeper.every else 0.0)
        started = time.monotonic()
        if started - self._last >= wait:
            self.save(state())
            self._cost = time.monotonic() - started

    def once(self, what: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What is found out before the pass begins: read if it was saved, else made, and saved.

        Args:
            what: its name.
            make: finds it out, as plain values and arrays.

        Raises:
            UsageError: what is kept is of something else, and may not be dropped.
            NatstatsError: it is damaged.
        """
        path = self.keeper.folder / f"{self.name}-{what}.safetensors"
        try:
            return dict(self.keeper.checked(path)[what])
        except FileNotFoundError:
            pass
        except (NatstatsError, LookupError, TypeError, ValueError) as error:
            if self.keeper.overwrite:
                pass
            elif isinstance(error, NatstatsError):
                raise
            else:
                raise NatstatsError(
                    f"state: expected what natstats wrote; {printable(path)} has no {what} "
                    "(--overwrite begins anew)"
                ) from error
        found = make()
        with contextlib.suppress(OSError):  # if it is not saved, it is made again
            write_state(path, self.keeper.labelled({what: found}))
        return found

    def is_worth(self, seconds: float) -> bool:
        """Whether work of so many seconds is worth keeping, where it ends with an error."""
        return seconds >= self.keeper.every or self.path.exists()

    def save(self, state: Mapping[str, Any]) -> bool:
        """Save the state, and return whether that succeeded; if not, the one before stays."""
        if self.is_first:
            locks.sign(self.keeper.folder)
        try:
            write_state(self.path, self.keeper.labelled(state))
        except OSError as error:
            if not self.has_failed:
                _log.warning(
                    "Note: the state of the measurement could not be saved to %s: %s. It goes on, "
                    "and tries again.",
                    printable(self.path), error.strerror or error,
                )  # fmt: skip
            self.has_failed = True
        else:
            self.has_failed = False
        self._last = time.monotonic()
        return not self.has_failed


def difference(before: Any, now: Mapping[str, Any]) -> str | None:
    """What differs between two descriptions of a measurement, in words; None where nothing does.

    >>> difference({"seed": 1}, {"seed": 2})
    'with seed 1 in place of 2'
    """
    then, asked = (
        json.loads(json.dumps(dict(one) if isinstance(one, Mapping) else {}, default=str))
        for one in (before, now)
    )
    for name in dict.fromkeys([*asked, *then]):
        if then.get(name) != asked.get(name):
            if name == "network":
                return "of other weights"
            if name == "images":
                return "of other images"
            shown = (printable(repr(one.get(name)))[:60] for one in (then, asked))
            return f"with {name} {' in place of '.join(shown)}"
    return None
