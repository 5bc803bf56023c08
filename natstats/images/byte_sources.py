"""Where the bytes of a shard come from: a local file, a command, or an address that fsspec knows.

When a source itself fails, it raises a :class:`SourceError`, to tell this from errors in the bytes
that came: a lost connection can be tried again, a damaged archive cannot.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import open_regular
from natstats.images.image_sets import reason_of
from natstats.images.read_ahead import Abort
from natstats.text import printable

__all__ = [
    "ByteSource", "SourceError", "check_address", "matching_addresses", "opened_address",
    "opened_command", "opened_file",
]  # fmt: skip

_PIECE = 1 << 18
_SECONDS_TO_EXIT = 5.0
"""How long a command may take to end when all of its output has come."""

_LAST_WORDS = 4096
_SHOWN = 200

_LIBRARY = (
    "images: expected the library that opens {address}; it is not installed "
    "(pip install 'natstats[streams]')"
)


class SourceError(NatstatsError):
    """A shard could not be opened, or its bytes stopped coming."""


class ByteSource(Protocol):
    """Bytes that come one after the other."""

    def read(self, n: int, /) -> bytes:
        """The next bytes, at most `n`; none at the end.

        Raises:
            SourceError: they stopped coming.
        """
        raise NotImplementedError

    def hurry(self) -> None:
        """Note that all that matters has come: wait for the rest only briefly, then give it up."""


class _File:
    """The bytes of an open file."""

    def __init__(self, file: Any, name: str) -> None:
        self._file, self._name = file, name

    def read(self, n: int, /) -> bytes:
        try:
            return bytes(self._file.read(n))
        except Exception as error:  # each file system of fsspec has errors of its own
            raise SourceError(
                f"images: expected all of {self._name}; reading it failed: {reason_of(error)}"
            ) from error

    def hurry(self) -> None:
        pass


@contextlib.contextmanager
def opened_file(path: str, name: str) -> Iterator[ByteSource]:
    """A local file.

    Args:
        path: of the file.
        name: what to call it.

    Raises:
        SourceError: it cannot be opened.
    """
    try:
        file = open_regular(path)
    except OSError as error:
        raise SourceError(f"images: expected a file at {name}; {reason_of(error)}") from error
    with file:
        yield _File(file, name)


@contextlib.contextmanager
def opened_address(address: str, name: str) -> Iterator[ByteSource]:
    """What fsspec finds at an address.

    Args:
        address: with its protocol; may be chained with others by ``::``.
        name: what to call it.

    Raises:
        SourceError: it cannot be opened.
    """
    import fsspec

    if "::" not in address and address.partition("://")[0] in ("file", "local"):
        # What is no plain file, such as a named pipe, is not opened.
        with opened_file(str(fsspec.core.url_to_fs(address)[1]), name) as file:
            yield file
        return
    opened = None
    try:
        opened = fsspec.open(address, "rb")
        file = opened.__enter__()
    except Exception as error:  # each file system has errors of its own
        raise SourceError(f"images: expected a file at {name}; {reason_of(error)}") from error
    try:
        yield _File(file, name)
    finally:
        with contextlib.suppress(Exception):
            opened.__exit__()


def check_address(address: str) -> None:
    """Raise where the protocol of an address is not known, or its library is missing.

    Raises:
        UsageError: the protocol is not known, or the library is missing.
    """
    try:
        import fsspec
    except ImportError:
        raise UsageError(_LIBRARY.format(address=printable(address)[:_SHOWN])) from None
    for part in address.split("::"):
        protocol = part.partition("://")[0]
        try:
            fsspec.get_filesystem_class(protocol)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"images: expected an address that fsspec can open; {printable(address)[:_SHOWN]}: "
                f"{reason_of(error)}"
            ) from None


def matching_addresses(pattern: str) -> list[str]:
    """Addresses that match a pattern with ``*``, sorted.

    Raises:
        UsageError: there is none, or they cannot be listed.
    """
    import fsspec

    shown = printable(pattern)[:_SHOWN]
    try:
        files, path = fsspec.core.url_to_fs(pattern)
        found = sorted(files.unstrip_protocol(one) for one in files.glob(path))
    except Exception as error:  # each file system has errors of its own
        raise UsageError(
            f"images: expected shards at {shown}; they cannot be listed: {reason_of(error)}"
        ) from error
    if not found:
        raise UsageError(f"images: expected shards at {shown}; nothing matches")
    return found


class _Output:
    """What a command prints; closing this ends the command."""

    def __init__(self, command: str, name: str) -> None:
        self._name = name
        try:
            # A session of its own: Ctrl-C is for natstats, which ends the command when it is time.
            self._child = subprocess.Popen(
                command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise SourceError(
                f"images: expected a command that can be started; {name}: {reason_of(error)}"
            ) from error
        self._deadline: float | None = None
        self._is_cut = False
        self._said = b""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        """Keep the end of what the command writes to its stderr."""
        assert self._child.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            while piece := self._child.stderr.read(_LAST_WORDS):
                self._said = (self._said + piece)[-_LAST_WORDS:]

    def read(self, n: int, /) -> bytes:
        assert self._child.stdout is not None
        if self._is_cut:
            return b""
        if self._deadline is not None:
            left = max(0.0, self._deadline - time.monotonic())
            with selectors.DefaultSelector() as selector:
                selector.register(self._child.stdout, selectors.EVENT_READ)
                if not selector.select(left):
                    self.cut()
                    return b""
        found = self._child.stdout.read(n) or b""
        if not found and not self._is_cut:
            self._check()
        return found

    def hurry(self) -> None:
        self._deadline = time.monotonic() + _SECONDS_TO_EXIT

    def _check(self) -> None:
        """Check how the command ended, once all of its output has come.

        Raises:
            SourceError: it failed.
        """
        status = self._status()
        if status is None:  # its output is complete; it may wait for something else
            self.cut()
        elif status and not self._is_cut:
            self._listener.join(1.0)
            said = self._said.decode("utf-8", "replace").strip().splitlines()
            last = f": {printable(said[-1])[:_SHOWN]}" if said else ""
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            raise SourceError(f"images: expected all of a shard; {self._name} {how}{last}")

    def _status(self) -> int | None:
        """How the command ended, negative for a signal; None where it does not end in time."""
        if not hasattr(os, "waitid"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._child.wait(_SECONDS_TO_EXIT)
            return None
        # WNOWAIT keeps its process number until it is closed, so that no other process can have it.
        end = time.monotonic() + _SECONDS_TO_EXIT
        while True:
            how = os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if how is not None:
                return how.si_status if how.si_code == os.CLD_EXITED else -how.si_status
            if time.monotonic() >= end:
                return None
            time.sleep(0.005)

    def cut(self) -> None:
        """End the command, and all that it has started."""
        self._is_cut = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def close(self) -> None:
        if self._child.returncode is None:  # the number is still that of the command
            self.cut()
        self._child.wait()
        self._listener.join(1.0)
        for pipe in (self._child.stdout, self._child.stderr):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


@contextlib.contextmanager
def opened_command(command: str, name: str, abort: Abort) -> Iterator[ByteSource]:
    """The output of a command, which a shell runs.

    Args:
        command: as the user typed it; nothing else is ever given here.
        name: what to call it.
        abort: ends the command when it is set.

    Raises:
        SourceError: it cannot be started, or it failed, which is checked once all of its output is
            read.
    """
    output = _Output(command, name)
    try:
        with abort.calling(output.cut):
            yield output
    finally:
        output.close()
