"""Reading ahead in a thread, in bounded memory, that can be cut short at any moment."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

__all__ = ["Abort", "ahead"]

T = TypeVar("T")

_SECONDS_TO_LOOK = 0.2
"""How long an item is waited for before asking again whether to end."""

_SECONDS_TO_END = 5.0
"""How long the thread is waited for once told to end. It does not keep the process alive."""


class Abort:
    """Tells a reader in another thread to stop, and ends what it may be waiting for.

    >>> abort = Abort()
    >>> with abort.calling(lambda: print("ended")):
    ...     abort.set()
    ended
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: list[Callable[[], None]] = []
        self.is_set = False

    @contextlib.contextmanager
    def calling(self, function: Callable[[], None]) -> Iterator[None]:
        """Call a function when it is time to stop, if the context is open then."""
        with self._lock:
            is_late = self.is_set
            self._calls.append(function)
        try:
            if is_late:
                function()
            yield
        finally:
            with self._lock:
                self._calls.remove(function)

    def set(self) -> None:
        """Tell the reader to stop."""
        with self._lock:
            self.is_set = True
            calls = list(self._calls)
        for function in calls:
            function()


class _Ahead:
    """What the thread that reads and the one that takes share."""

    def __init__(self, most: int) -> None:
        self.changed = threading.Condition()
        self.found: deque[tuple[object, int]] = deque()
        self.size = 0
        self.most = most
        self.is_over = False
        self.error: BaseException | None = None
        self.abort = Abort()

    def fill(self, items: Iterator[object], size: Callable[[object], int]) -> None:
        try:
            for item in items:
                with self.changed:
                    while self.size >= self.most and not self.abort.is_set:
                        self.changed.wait()
                    if self.abort.is_set:
                        break
                    n = size(item)
                    self.found.append((item, n))
                    self.size += n
                    self.changed.notify_all()
        except BaseException as error:  # raised again in the thread that takes
            self.error = error
        finally:
            try:
                if isinstance(items, Generator):
                    items.close()
            except BaseException as error:
                self.error = self.error or error
            with self.changed:
                self.is_over = True
                self.changed.notify_all()


def ahead(
    items: Callable[[Abort], Iterator[T]],
    size: Callable[[T], int],
    most: int,
    stopped: Callable[[], bool] | None = None,
) -> Generator[T, None, None]:
    """Give items one after the other while a thread reads those that follow.

    Args:
        items: gives what is read; it is called and runs in the thread.
        size: bytes that an item takes.
        most: bytes that may wait to be taken; the last item may exceed them.
        stopped: asked while an item is waited for; where it returns True, the items end.

    Raises:
        Exception: what `items` raises, once all items before it were taken.

    >>> list(ahead(lambda abort: iter("abc"), len, 2))
    ['a', 'b', 'c']
    """
    one = _Ahead(most)

    def run() -> None:
        one.fill(items(one.abort), size)  # type: ignore[arg-type]

    thread = threading.Thread(target=run, name="natstats-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            with one.changed:
                while not one.found and not one.is_over:
                    if stopped is not None and stopped():
                        return
                    one.changed.wait(None if stopped is None else _SECONDS_TO_LOOK)
                if not one.found:
                    break
                item, n = one.found.popleft()
                one.size -= n
                one.changed.notify_all()
            yield item  # type: ignore[misc]
        if one.error is not None:
            raise one.error
    finally:
        one.abort.set()
        with one.changed:
            one.changed.notify_all()
        thread.join(_SECONDS_TO_END)
