"""Batches from processes that read images, with a clear error where one of them was killed."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from torch.utils.data import DataLoader

from natstats.errors import NatstatsError

__all__ = ["from_workers"]

_KILLED = ("exited unexpectedly", "is killed by signal")
"""What torch says of a worker that is gone."""

_NO_SHARED_MEMORY = ("shared memory", "shm", "no space left on device", "torch_shm_manager")


def from_workers(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader, with or without workers.

    Raises:
        NatstatsError: a worker was killed, could not start or ran out of memory; it says what to
            do.

    >>> list(from_workers(DataLoader([1, 2, 3], batch_size=2)))
    [tensor([1, 2]), tensor([3])]
    """
    if not loader.num_workers:
        yield from loader
        return
    with _worker_errors():
        found = iter(loader)
    with _Losses() as losses:
        while True:
            with _worker_errors():
                losses.tell()
                batch = next(found, loader)
            if batch is loader:
                return
            yield batch


class _Losses:
    """Keeps the loss of a worker until the next batch is asked for.

    torch raises it in a signal handler, in the middle of whatever runs. In an import, the error may
    be caught half way, and what shows later is that a module lacks one of its parts; in the
    clean-up of an object, it is lost. A loader that waits checks its workers itself, every 5 s.
    """

    def __init__(self) -> None:
        self._handler: Any = None
        self._lost: RuntimeError | None = None

    def __enter__(self) -> _Losses:
        number = getattr(signal, "SIGCHLD", None)
        is_main = threading.current_thread() is threading.main_thread()
        # Elsewhere torch sets no handler either, and the loader looks at its workers itself.
        if number is not None and is_main and callable(signal.getsignal(number)):
            self._handler = signal.signal(number, self._handle)
        return self

    def __exit__(self, *given: object) -> None:
        if self._handler is not None and signal.getsignal(signal.SIGCHLD) == self._handle:
            signal.signal(signal.SIGCHLD, self._handler)

    def _handle(self, received: int, frame: FrameType | None) -> None:
        try:
            self._handler(received, frame)
        except RuntimeError as error:
            self._lost = error

    def tell(self) -> None:
        """Raise the error of a worker that was lost before."""
        if self._lost is not None:
            raise self._lost


@contextlib.contextmanager
def _worker_errors() -> Iterator[None]:
    """Turn what torch says of a lost worker into what happened and what to do."""
    try:
        yield
    except MemoryError:
        raise NatstatsError(
            "workers: expected memory for the processes that read images; one of them had too "
            "little (take fewer --workers, or --workers 0)"
        ) from None
    except BlockingIOError as error:
        raise NatstatsError(
            "workers: expected as many processes as can be started; the system refused one "
            "(take fewer --workers, or --workers 0)"
        ) from error
    except (RuntimeError, OSError, EOFError) as error:
        text = str(error)
        # A pipe ends with its worker, unless the worker itself met such an end ("Caught ...").
        is_end = isinstance(error, EOFError | ConnectionError) and not text.startswith("Caught ")
        if is_end or any(words in text for words in _KILLED):
            raise NatstatsError(
                "workers: expected the processes that read images to go on; one of them was "
                "killed, perhaps for lack of memory (take fewer --workers, or --workers 0)"
            ) from error
        if any(words in text.lower() for words in _NO_SHARED_MEMORY):
            raise NatstatsError(
                "workers: expected shared memory for the processes that read images; there was "
                "too little (take fewer --workers, a smaller --batch-size, or --workers 0)"
            ) from error
        raise
