"""A group of processes from the inside: how they meet, and which of them says why they end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType
from typing import Any

from natstats.errors import NatstatsError, UsageError
from natstats.process_environment import Place, seconds_to_join
from natstats.process_watch import BYE, FAILED, INTERRUPTED, Door, Watch, claimed_here, connection

__all__ = ["Group", "may_speak"]

_SHORT = timedelta(seconds=5)

_SECONDS_OF_AGENT = 1.0
"""In which torchrun's agent ends the others when one is dead; else they do so by themselves."""

_SECONDS_OF_SIGNALS = 5.0
"""A terminal and an agent both pass an interruption on: what comes so soon is the same one."""

_SECONDS_STUCK = 20.0
"""After which a process is ended that waits for a lost one in a library, deaf to signals."""

_SECONDS_ENDING = 300.0

_INTERRUPTIONS = (130, 143)

_LOST = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "connection was likely",
    "remote process exited", "nccl communicator was aborted", "socket timeout", "timed out",
    "connection refused", "connectfullmesh failed",
)  # fmt: skip
"""What gloo, NCCL and their store say where another process is gone."""

_latest: Group | None = None
_times = 0


def may_speak() -> bool:
    """Whether this process may say why it ends: always, but for one of several where another did.

    It asks for good: the first of several that asks is the one that speaks.

    >>> may_speak()
    True
    """
    return _latest is None or _latest.claim()


class Group:
    """The processes that were started together, for one of them.

    Args:
        place: of this process.
        limit: seconds in which all must have come; None for the usual ones.
        remedy: what the user can do when a process was killed.
    """

    def __init__(self, place: Place, limit: float | None, remedy: str) -> None:
        global _latest, _times
        _times += 1
        self.place = place
        self._limit = seconds_to_join(limit)
        self._remedy = remedy
        self._name = f"natstats/{place.attempt}/{_times}"
        self._store: Any = None
        self._words: Any = None
        self._watch: Watch | None = None
        self._who: dict[int, str] = {}
        self._claim: bool | None = None
        self._claiming = threading.Lock()
        self._signal = 0
        self._signalled_at = 0.0
        self._woken = False
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()
        self._main = threading.main_thread()
        _latest = self

    # -- who speaks -----------------------------------------------------------------------------

    def claim(self) -> bool:
        """Whether this process is the one that says why all end; the answer stays what it is."""
        with self._claiming:
            if self._claim is None:
                self._claim = self._asked_to_speak()
            return self._claim

    def _asked_to_speak(self) -> bool:
        is_kept = self.place.keeper or self._watch is None or 0 not in self._watch.gone
        if self._words is not None and is_kept:
            with contextlib.suppress(RuntimeError):
                return bool(self._words.add(f"{self._name}/speaks", 1) == 1)
        # The store went with rank 0.
        place = self.place
        return claimed_here(f"{place.address}:{place.port}/{self._name}")

    # -- coming ---------------------------------------------------------------------------------

    def join(self, backend: str, patience: timedelta) -> None:
        """Meet the others, at most in the time that is set.

        Raises:
            UsageError: the processes contradict each other.
            NatstatsError: some did not come.
        """
        from torch.distributed import (  # type: ignore[attr-defined]
            PrefixStore,
            init_process_group,
        )

        deadline = time.monotonic() + self._limit
        self._open_store(deadline)
        self._meet(deadline)
        self._start_watch()
        init_process_group(
            backend,
            store=PrefixStore(f"{self._name}/group", self._store),
            rank=self.place.rank,
            world_size=self.place.world,
            timeout=patience,
        )

    def _open_store(self, deadline: float) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        place = self.place
        hosts = place.rank == 0 and not place.keeper
        if not hosts:
            self._wait_for_host(deadline)
        left = timedelta(seconds=max(deadline - time.monotonic(), 1.0))
        try:
            self._store = TCPStore(
                place.address, place.port, None, hosts, left, wait_for_workers=False,
                multi_tenant=hosts,
            )  # fmt: skip
            self._words = TCPStore(
                place.address, place.port, None, False, _SHORT, wait_for_workers=False
            )
        except (RuntimeError, ValueError) as error:
            if not hosts:
                raise self._no_answer() from error
            raise UsageError(
                f"MASTER_PORT: expected a port that rank 0 can listen on; got {place.port} "
                f"({_first_line(error)})"
            ) from error

    def _wait_for_host(self, deadline: float) -> None:
        """Return when the store can be reached, without the noise of a library that tries."""
        while True:
            with contextlib.suppress(OSError, UnicodeError):
                socket.create_connection((self.place.address, self.place.port), 2.0).close()
                return
            if time.monotonic() > deadline:
                raise self._no_answer()
            time.sleep(0.1)

    def _no_answer(self) -> NatstatsError:
        where = f"{self.place.address}:{self.place.port} (MASTER_ADDR:MASTER_PORT)"
        return NatstatsError(
            f"processes: expected {self.place.world} processes within {self._limit:g} s; rank 0 is "
            f"missing: nobody answers at {where}"
        )

    def _meet(self, deadline: float) -> None:
        place, keys = self.place, [f"{self._name}/here/{r}" for r in range(self.place.world)]
        if self._store.add(f"{self._name}/count/{place.rank}", 1) > 1:
            raise UsageError(
                f"RANK: expected a number that no other process has; {place.rank} came twice"
            )
        self._store.set(keys[place.rank], f"{place.world} {os.getpid()} {socket.gethostname()}")
        while not self._store.check(keys):
            if self._store.check([f"{self._name}/speaks"]):
                raise _other_speaks()
            if time.monotonic() > deadline:
                missing = [r for r, key in enumerate(keys) if not self._store.check([key])]
                if missing:
                    raise self._missing(missing)
            time.sleep(min(0.05 + place.world / 1000, 1.0))
        for rank, key in enumerate(keys):
            world, pid, host = self._store.get(key).decode("utf-8", "replace").split(" ", 2)
            self._who[rank] = f"rank {rank} (process {pid} on {host})"
            if int(world) != place.world:
                raise UsageError(
                    f"WORLD_SIZE: expected the same number in all processes; it is {place.world} "
                    f"in rank {place.rank} and {world} in rank {rank}"
                )

    def _missing(self, ranks: list[int]) -> NatstatsError:
        listed = ", ".join(map(str, ranks[:20])) + (", ..." if len(ranks) > 20 else "")
        which = f"rank {listed} is" if len(ranks) == 1 else f"ranks {listed} are"
        n_here = self.place.world - len(ranks)
        return NatstatsError(
            f"processes: expected {self.place.world} processes within {self._limit:g} s; {n_here} "
            f"came, and {which} missing"
        )

    def _start_watch(self) -> None:
        place, key = self.place, f"{self._name}/door"
        if place.rank == 0:
            door = Door()
            self._store.set(key, f"{door.port} {door.token} {socket.gethostname()}")
            found = door.connections(place.world)
        else:
            port, token, host = self._store.get(key).decode().split(" ", 2)
            found = connection([place.address, host], int(port), token, place.rank)
        self._watch = Watch(found, self._wake)

    # -- one is gone ----------------------------------------------------------------------------

    def _wake(self, rank: int, word: bytes) -> None:
        """Begin to end this process, as another is gone."""
        threading.Thread(target=self._end_soon, args=(rank, word), daemon=True).start()

    def _end_soon(self, rank: int, word: bytes) -> None:
        if rank == 0 and not word and not self.place.keeper:
            self.claim()  # at the same time as the others, whatever each is doing
        if self._ended.wait(_SECONDS_OF_AGENT):
            return
        if not self._signal and self._before:
            self._woken = True
            signal.pthread_kill(self._main.ident or 0, signal.SIGTERM)
        if self._ended.wait(_SECONDS_STUCK) or (self._signal and self._ended.wait(_SECONDS_ENDING)):
            return
        if word != FAILED and self.claim():
            sys.stderr.write(f"Error: {self._loss()}\n")
            sys.stderr.flush()
        os._exit(1)

    def _loss(self) -> str:
        watch = self._watch
        gone = {} if watch is None else {r: w for r, w in watch.gone.items() if w != BYE}
        dead = [rank for rank, word in sorted(gone.items()) if not word] or sorted(gone)
        who = ", ".join(self._who.get(rank, f"rank {rank}") for rank in dead[:8])
        was = "was" if len(dead) == 1 else "were"
        what = f"{who} {was} killed, perhaps for lack of memory"
        if not dead:
            what = "another one ended or was killed, perhaps for lack of memory"
        elif gone[dead[0]] == INTERRUPTED:
            what = f"{who} {was} interrupted"
        return (
            f"processes: expected all {self.place.world} processes to go on; {what} "
            f"({self._remedy})"
        )

    # -- the end --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def ended_by_one(self) -> Iterator[Group]:
        """However the context ends, let one process say why, and leave the group.

        Raises:
            NatstatsError: another process is gone, and this one says so.
            SystemExit: another process says why.
        """
        self._catch_signals()
        word = FAILED
        try:
            yield self
            word = BYE
        except BaseException as error:
            word, told = self._ending(error)
            if told is error:
                raise
            raise told from error
        finally:
            self._leave(word)

    def _ending(self, error: BaseException) -> tuple[bytes, BaseException]:
        """Last word of this process, and what it raises in place of an error."""
        code = getattr(error, "exit_code", None)
        if isinstance(error, SystemExit) or code == 0:
            return (BYE if code == 0 or not getattr(error, "code", 1) else FAILED), error
        is_interruption = isinstance(error, KeyboardInterrupt) or code in _INTERRUPTIONS
        if isinstance(error, KeyboardInterrupt):
            code = 128 + (self._signal or signal.SIGINT)
        is_lost = self._is_lost(error, 0.3 if is_interruption else 5.0)
        if not (is_interruption or is_lost):
            return FAILED, error if self._speaks() else SystemExit(code or 1)
        gone = {} if self._watch is None else dict(self._watch.gone)
        if is_interruption and not (self._woken or is_lost):
            silent = SystemExit(code)
            has_told = FAILED in gone.values()
            if self.place.rank > 0 or has_told or not self._speaks():
                return INTERRUPTED, silent
            was_deaf = self._before.get(signal.SIGTERM) == signal.SIG_DFL
            is_plain = isinstance(error, KeyboardInterrupt) and self._signal == signal.SIGTERM
            return INTERRUPTED, silent if was_deaf and is_plain else error
        if self.place.rank > 0 and self._watch is not None:
            self._watch.settled(10.0, lambda: 0 in self._watch.gone)  # type: ignore[union-attr]
            gone = dict(self._watch.gone)
        silent = SystemExit(code if is_interruption and not self._woken else 1)
        if FAILED in gone.values() or gone.get(0) == INTERRUPTED or not self._speaks():
            return FAILED, silent
        told = NatstatsError(self._loss())
        told.exit_code = int(silent.code or 1)
        return FAILED, told

    def _is_lost(self, error: BaseException, seconds: float) -> bool:
        """Whether another process is gone without a word, and this one ends for that."""
        from torch import distributed as dist

        if not isinstance(error, RuntimeError | OSError | KeyboardInterrupt | NatstatsError):
            return False
        text = str(error).lower()
        is_said = isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and any(words in text for words in _LOST)
        )
        is_other = isinstance(error, NatstatsError) and error.exit_code not in _INTERRUPTIONS
        if is_other or self._watch is None:
            return is_said and not isinstance(error, NatstatsError)
        watch = self._watch
        watch.settled(
            seconds if is_said or not isinstance(error, RuntimeError | OSError) else 0.3,
            lambda: any(word != BYE for word in watch.gone.values()),
        )
        return is_said or bool(watch.dead)

    def _speaks(self) -> bool:
        """Whether this process tells; then nothing keeps it from that any more."""
        if self._before:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self.claim()

    def _leave(self, word: bytes) -> None:
        from torch import distributed as dist

        watch = self._watch
        if word != BYE and watch is not None:
            watch.leave(word)
        with contextlib.suppress(RuntimeError):
            if dist.is_initialized() and (word == BYE or dist.get_backend() == "gloo"):
                dist.destroy_process_group()
        if word == BYE and watch is not None:
            # The store is in the process of rank 0.
            watch.leave(word, 5.0 if self.place.rank == 0 else 0.0)
        self._ended.set()
        self._give_signals_back(word)
        self._store = None

    def _catch_signals(self) -> None:
        if threading.current_thread() is self._main:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._caught)

    def _give_signals_back(self, word: bytes) -> None:
        for number, before in self._before.items():
            if number == signal.SIGTERM and word != BYE:
                # Its end has begun: an agent's signal stops neither what it says nor its silence.
                signal.signal(number, signal.SIG_IGN if self._claim else signal.SIG_DFL)
            elif signal.getsignal(number) == self._caught and before is not None:
                signal.signal(number, before)

    def _caught(self, number: int, frame: FrameType | None) -> None:
        before, now = self._before[number], time.monotonic()
        if before == signal.SIG_IGN and not self._woken:
            return
        if self._signal and now - self._signalled_at < _SECONDS_OF_SIGNALS:
            return
        self._signal, self._signalled_at = number, now
        if callable(before):
            before(number, frame)
        else:
            raise KeyboardInterrupt


def _other_speaks() -> SystemExit:
    return SystemExit(1)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0].strip()[:120]
