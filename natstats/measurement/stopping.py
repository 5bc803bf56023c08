"""Stopping between two batches: the first Ctrl-C waits for the batch, a second one does not."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from natstats.errors import Interrupted
from natstats.processes.group import heard

__all__ = ["Stops"]


class Stops:
    """Holds back an interruption, or a polite kill, until it is asked for.

    A batch that is half added would make all sums worthless; so the first signal is only noted.
    The second raises at once, and what was saved before stays as it is.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self.signal = 0

    def __enter__(self) -> Stops:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # A signal that has no handler in Python, or is ignored, stays as it is.
                if callable(signal.getsignal(number)):
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        is_same = heard(number)  # a terminal and an agent may both pass on the same signal
        if self.signal and not is_same:
            self._restore()
            raise Interrupted(exit_code=128 + number)
        self.signal = self.signal or number

    def raise_as(self, sentence: str) -> None:
        """Raise if a signal came.

        Raises:
            Interrupted: a signal came; the sentence is its text.
        """
        if self.signal:
            raise Interrupted(sentence, exit_code=128 + self.signal)
