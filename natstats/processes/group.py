"""One process in its group: joining, noticing a loss, and which process says why all end."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from types import FrameType
from typing import Any

from natstats.errors import NatstatsError
from natstats.processes.environment import Place, seconds_to_join
from natstats.processes.meeting import Meeting
from natstats.processes.watch import BYE, FAILED, INTERRUPTED, Watch

__all__ = ["Group", "heard", "may_speak", "says_lost"]

_SECONDS_OF_AGENT = 1.0
"""Time for torchrun's agent to end the others when one is dead; then they end by themselves."""

_SECONDS_OF_SIGNALS = 5.0
"""A terminal and an agent both pass an interruption on: a second signal so soon is the same one."""

_SECONDS_STUCK = 20.0
"""Time after which a process is ended that waits for a lost one in a library, deaf to signals."""

_SECONDS_TO_GO = 1.0
"""Time for a silent process to end in the usual way, before it is forced to."""

_SECONDS_ENDING = 300.0

_INTERRUPTIONS = (130, 143)

_LOST = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "connection was likely",
    "remote process exited", "nccl communicator was aborted", "socket timeout", "timed out",
    "connection refused", "connectfullmesh failed",
)  # fmt: skip
"""Parts of the errors of gloo, NCCL and their store when another process is gone."""

_latest: Group | None = None
_times = 0


def may_speak() -> bool:
    """Whether this process may say why it ends: yes, unless another of its group has said so.

    The answer is final: of several processes, the first that asks is the one that speaks.

    >>> may_speak()
    True
    """
    return _latest is None or _latest.claim()


def heard(number: int) -> bool:
    """Take note of a signal that the program acts on later, so that it is given time to do so.

    Args:
        number: number of the signal.

    Returns:
        Whether this is one of several processes and the signal repeats one that it has noted.

    >>> heard(2)
    False
    """
    return _latest is not None and not _latest.takes(number)


def says_lost(error: BaseException) -> bool:
    """Whether an error is one that gloo, NCCL or their store raise when another process is gone.

    >>> says_lost(RuntimeError("[pair.cc:534] Connection closed by peer [::1]:3"))
    True
    >>> says_lost(NatstatsError("timed out"))
    False
    """
    from torch.distributed import DistError

    if isinstance(error, DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _LOST)


class Group:
    """The processes that were started together, as one of them sees the group.

    Args:
        place: place of this process.
        limit: seconds within which all must have joined, see
            :func:`natstats.processes.environment.seconds_to_join`.
        remedy: what the user can do when a process was killed.
    """

    def __init__(self, place: Place, limit: float | None, remedy: str) -> None:
        global _latest, _times
        _times += 1
        self.place = place
        self._meeting = Meeting(place, seconds_to_join(limit), _times)
        self._remedy = remedy
        self._watch: Watch | None = None
        self._claim: bool | None = None
        self._claiming = threading.Lock()
        self._signal = 0
        self._signalled_at = 0.0
        self._woken = False
        self._ending = False
        self._before: dict[int, Any] = {}
        self._ended = threading.Event()
        self._main = threading.main_thread()
        _latest = self

    # -- who speaks -----------------------------------------------------------------------------

    def claim(self) -> bool:
        """Whether this process is the one that says why all end; the first answer is kept."""
        with self._claiming:
            if self._claim is None:
                self._claim = self._asked_to_speak()
            return self._claim

    def _asked_to_speak(self) -> bool:
        watch = self._watch
        gone = {} if watch is None else watch.gone
        if FAILED in gone.values():  # that process said why, or knew that another did
            return False
        if self.place.keeper or 0 not in gone:
            answer = self._meeting.claim()
            if answer is not None:
                return answer
            if watch is not None:  # the store went with rank 0, whose last word may be on its way
                watch.settled(1.0, lambda: 0 in watch.gone)
        return gone.get(0) not in (FAILED, INTERRUPTED) and self._meeting.claim_here()

    # -- coming ---------------------------------------------------------------------------------

    def join(self, backend: str, patience: timedelta) -> None:
        """Join the others within the time limit.

        Args:
            backend: backend of torch.distributed, ``gloo`` or ``nccl``.
            patience: how long an operation waits for the others.

        Raises:
            UsageError: the processes contradict each other.
            NatstatsError: some did not come.
        """
        from torch.distributed import (  # type: ignore[attr-defined]
            PrefixStore,
            init_process_group,
        )

        try:
            self._meeting.meet()
        finally:  # also when some did not come, so that the others hear of this end
            self._watch = Watch(self._meeting.connections, self._wake)
        init_process_group(
            backend,
            store=PrefixStore(f"{self._meeting.name}/group", self._meeting.store),
            rank=self.place.rank,
            world_size=self.place.world,
            timeout=patience,
        )

    # -- one is gone ----------------------------------------------------------------------------

    def _wake(self, rank: int, word: bytes) -> None:
        """Begin to end this process, as another is gone."""
        threading.Thread(target=self._end_soon, args=(rank, word), daemon=True).start()

    def _end_soon(self, rank: int, word: bytes) -> None:
        if rank == 0 and not word and not self.place.keeper:
            self.claim()  # all claim at the same time, whatever each is doing
        if self._ended.wait(_SECONDS_OF_AGENT):
            return
        if not self._signal and self._before:
            self._woken = True
            signal.pthread_kill(self._main.ident or 0, signal.SIGTERM)
        has_told = word and self.place.rank > 0
        seconds = _SECONDS_OF_SIGNALS if has_told else _SECONDS_STUCK
        if self._ended.wait(seconds) or (self._signal and self._ended.wait(_SECONDS_ENDING)):
            return
        if word != FAILED and self.claim():
            # The main thread may hold the lock of sys.stderr, and never give it back.
            os.write(2, f"Error: {self._loss()}\n".encode(errors="backslashreplace"))
        os._exit(1)

    def _loss(self) -> str:
        watch = self._watch
        gone = {} if watch is None else {r: w for r, w in watch.gone.items() if w != BYE}
        dead = [rank for rank, word in sorted(gone.items()) if not word] or sorted(gone)
        who = ", ".join(self._meeting.who.get(rank, f"rank {rank}") for rank in dead[:8])
        was = "was" if len(dead) == 1 else "were"
        start = f"processes: expected all {self.place.world} processes to go on"
        if dead and gone[dead[0]] == INTERRUPTED:
            return f"{start}; {who} {was} interrupted"
        what = f"{who} {was} killed" if dead else "another one ended or was killed"
        return f"{start}; {what}, perhaps for lack of memory ({self._remedy})"

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
            self._ending, word = True, BYE
        except BaseException as error:
            self._ending = True
            word, told = self._last_word(error)
            if told is error:
                raise
            if isinstance(told, SystemExit):
                self._go_soon(int(told.code or 1))
            raise told from error
        finally:
            self._leave(word)

    def _last_word(self, error: BaseException) -> tuple[bytes, BaseException]:
        """Last word to send to the others, and what to raise in place of `error`."""
        code = getattr(error, "exit_code", None)
        if isinstance(error, SystemExit) or code == 0:
            is_well = code == 0 or not getattr(error, "code", 1)
            return BYE if is_well else FAILED, error
        is_interruption = isinstance(error, KeyboardInterrupt) or code in _INTERRUPTIONS
        if isinstance(error, KeyboardInterrupt):
            code = 128 + (self._signal or signal.SIGINT)
        is_lost = self._is_lost(error, is_interruption)
        if not (is_interruption or is_lost):
            return FAILED, error if self._speaks() else SystemExit(code or 1)
        if is_interruption and not (self._woken or is_lost):
            return INTERRUPTED, self._of_interruption(error, SystemExit(code))
        watch = self._watch
        if self.place.rank > 0 and watch is not None:  # if rank 0 is there, it speaks
            watch.settled(10.0, lambda: 0 in watch.gone)
        silent = SystemExit(code if is_interruption and not self._woken else 1)
        gone = {} if watch is None else watch.gone
        if FAILED in gone.values() or gone.get(0) == INTERRUPTED or not self._speaks():
            return FAILED, silent
        told = NatstatsError(self._loss())
        told.exit_code = int(silent.code or 1)
        return FAILED, told

    def _of_interruption(self, error: BaseException, silent: SystemExit) -> BaseException:
        """What to raise for an interruption that all processes were sent, or only this one."""
        has_told = self._watch is not None and FAILED in self._watch.gone.values()
        if self.place.rank > 0 or has_told or not self._speaks():
            return silent
        # A SIGTERM for which the program has no handler and no message ends it silently.
        is_plain = self._before.get(signal.SIGTERM) == signal.SIG_DFL
        is_mute = isinstance(error, KeyboardInterrupt) and not str(error)
        return silent if is_plain and is_mute and self._signal == signal.SIGTERM else error

    def _is_lost(self, error: BaseException, is_interruption: bool) -> bool:
        """Whether this process ends because another is gone without a last word."""
        is_said, watch = says_lost(error), self._watch
        if watch is None or not (is_interruption or isinstance(error, RuntimeError | OSError)):
            return is_said
        # The agent and the library may notice a loss before the connection does.
        watch.settled(
            5.0 if is_said else 0.3, lambda: any(word != BYE for word in watch.gone.values())
        )
        return is_said or bool(watch.dead)

    def _speaks(self) -> bool:
        """Whether this process says why it ends; from now on SIGTERM cannot keep it from that."""
        if self._before:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        return self.claim()

    def _leave(self, word: bytes) -> None:
        from torch import distributed as dist

        watch = self._watch
        if word != BYE and watch is not None:
            watch.leave(word)
        self._meeting.let_others_see()
        if word == BYE:  # else this might wait for a lost process
            dist.destroy_process_group()
        if word == BYE and watch is not None:
            # Rank 0 may host the store, so it waits until the others have left.
            watch.leave(word, 5.0 if self.place.rank == 0 else 0.0)
        self._ended.set()
        self._give_signals_back(word)
        self._meeting.store = None

    def _go_soon(self, code: int) -> None:
        """End this silent process soon, even where a library would wait as it exits."""

        def go() -> None:
            time.sleep(_SECONDS_TO_GO)
            os._exit(code)

        threading.Thread(target=go, daemon=True).start()

    def _catch_signals(self) -> None:
        if threading.current_thread() is self._main:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._caught)

    def _give_signals_back(self, word: bytes) -> None:
        for number, before in self._before.items():
            if number == signal.SIGTERM and word != BYE:
                # It is ending: an agent's SIGTERM must not cut its words, nor make it speak.
                signal.signal(number, signal.SIG_IGN if self._claim else signal.SIG_DFL)
            elif signal.getsignal(number) == self._caught and before is not None:
                signal.signal(number, before)

    def takes(self, number: int) -> bool:
        """Take note of a signal, and tell whether it is a new one rather than the same again."""
        now = time.monotonic()
        if self._signal and now - self._signalled_at < _SECONDS_OF_SIGNALS:
            return False
        self._signal, self._signalled_at = number, now
        return True

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if self._ending:
            if self.place.rank > 0 and not self._claim:
                raise SystemExit(128 + number)
            return
        before = self._before[number]
        if before == signal.SIG_IGN and not self._woken:
            return
        if not self.takes(number):
            return
        if callable(before):
            before(number, frame)
        else:
            raise KeyboardInterrupt
