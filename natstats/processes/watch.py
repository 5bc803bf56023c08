"""Watching the other processes: a loss is noticed at once, whatever this process is doing.

Every process holds a connection to rank 0, over which a single byte is sent, at the end. A
connection that closes without this byte is that of a process that was killed. So a loss is noticed
even while images are read, or where a library would wait for the lost process for hours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import selectors
import socket
import sys
import threading
import weakref
from collections.abc import Callable, Mapping

__all__ = ["BYE", "FAILED", "INTERRUPTED", "Door", "Watch", "claimed_here", "connection"]

BYE, FAILED, INTERRUPTED = b"b", b"f", b"i"
"""Last words of a process: it finished, it ended by an error, it was interrupted."""

_SECONDS_TO_CONNECT = 15.0
_TOKEN = 16
_HELLO = _TOKEN + 4

_claims: list[socket.socket] = []
_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def _close_in_child() -> None:
    """Close the connections in a forked worker, which would keep those of a killed parent open."""
    for one in list(_open):
        one.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


class Watch:
    """The connections of a process to the others, and a thread that listens to them.

    Args:
        connections: by rank of the other side.
        lost: called once, in the thread, when the first process is gone that did not finish: with
            its rank and its last word, which is empty where it sent none.

    Attributes:
        gone: last words of the processes that are gone, by rank; empty where one sent none.
    """

    def __init__(
        self, connections: Mapping[int, socket.socket], lost: Callable[[int, bytes], None]
    ) -> None:
        self.gone: dict[int, bytes] = {}
        self._connections = dict(connections)
        self._lost = lost
        self._changed = threading.Condition()
        self._stopped = False
        self._thread = threading.Thread(target=self._listen, name="natstats-watch", daemon=True)
        self._thread.start()

    @property
    def dead(self) -> list[int]:
        """Ranks of the processes that are gone without a last word."""
        return sorted(rank for rank, word in list(self.gone.items()) if not word)

    def settled(self, seconds: float, until: Callable[[], bool]) -> bool:
        """Wait until a condition holds, at most `seconds`, and tell whether it does."""
        with self._changed:
            return self._changed.wait_for(until, seconds)

    def leave(self, word: bytes, seconds: float = 0.0) -> None:
        """Send the last word, wait at most `seconds` for those of the others, and stop."""
        for one in self._connections.values():
            with contextlib.suppress(OSError):
                one.send(word)
        self.settled(seconds, lambda: len(self.gone) == len(self._connections))
        self._stopped = True
        for one in self._connections.values():
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join(2.0)
        for one in self._connections.values():
            one.close()

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, one in self._connections.items():
                one.setblocking(False)
                selector.register(one, selectors.EVENT_READ, rank)
            while selector.get_map() and not self._stopped:
                for key, _ in selector.select(1.0):
                    try:
                        word = key.fileobj.recv(1)  # type: ignore[union-attr]
                    except BlockingIOError:
                        continue
                    except OSError:
                        word = b""
                    selector.unregister(key.fileobj)
                    if not self._stopped:
                        self._note(key.data, word)

    def _note(self, rank: int, word: bytes) -> None:
        with self._changed:
            is_first = all(one == BYE for one in self.gone.values())
            self.gone[rank] = word
            self._changed.notify_all()
        if word != BYE and is_first:
            self._lost(rank, word)


class Door:
    """Where the process of rank 0 waits for the connections of the others."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(_TOKEN // 2)
        both = socket.has_dualstack_ipv6()
        self._server = socket.create_server(
            ("", 0), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
        _open.add(self._server)

    @property
    def port(self) -> int:
        """Port at which it listens."""
        return int(self._server.getsockname()[1])

    def come(self, world: int) -> dict[int, socket.socket]:
        """The next connection that comes within a second, by its rank; empty where none comes.

        Args:
            world: number of processes. A connection without the token, or with a rank that is not
                below this number, is refused.
        """
        self._server.settimeout(1.0)
        try:
            one, _ = self._server.accept()
            one.settimeout(2.0)
            hello = _read(one)
        except OSError:
            return {}
        rank = int.from_bytes(hello[_TOKEN:], "big")
        if not secrets.compare_digest(hello[:_TOKEN], self.token.encode()) or rank >= world:
            one.close()
            return {}
        return {rank: _kept(one)}

    def __enter__(self) -> Door:
        """Return itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop listening."""
        self._server.close()


def connection(hosts: list[str], port: int, token: str, rank: int) -> dict[int, socket.socket]:
    """The connection to rank 0 as ``{0: socket}``; empty where none of the hosts can be reached.

    Args:
        hosts: names or addresses of its machine.
        port: port of its :class:`Door`.
        token: token of its :class:`Door`.
        rank: rank of this process.
    """
    for host in hosts:
        with contextlib.suppress(OSError):
            one = socket.create_connection((host, port), _SECONDS_TO_CONNECT / len(hosts))
            one.sendall(token.encode() + rank.to_bytes(4, "big"))
            return {0: _kept(one)}
    return {}


def _kept(one: socket.socket) -> socket.socket:
    """The connection, set to notice within a minute or two that the other machine is off."""
    _open.add(one)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 5)):
        if hasattr(socket, name):
            one.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return one


def _read(one: socket.socket) -> bytes:
    hello = b""
    while len(hello) < _HELLO:
        more = one.recv(_HELLO - len(hello))
        if not more:
            break
        hello += more
    return hello


def claimed_here(name: str) -> bool:
    """Whether this process is the first of its machine to claim a name, which it keeps to its end.

    Only Linux can tell; on other systems every process counts as the first.
    """
    if not sys.platform.startswith("linux"):
        return True
    digest = hashlib.sha256(name.encode()).hexdigest()[:32]
    one = socket.socket(socket.AF_UNIX)
    try:
        one.bind(f"\0natstats/{os.getuid()}/{digest}")
    except OSError:
        one.close()
        return False
    _claims.append(one)
    return True
