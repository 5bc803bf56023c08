"""How the processes of a group find each other: a store, and a key and a connection for each."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from datetime import timedelta
from typing import Any

from natstats.errors import NatstatsError, UsageError
from natstats.processes.environment import Place
from natstats.processes.watch import Door, claimed_here, connection

__all__ = ["Meeting"]

_SHORT = timedelta(seconds=5)

_SECONDS_APART = 3.0
"""How far apart in time processes of one start may come, or hear of a loss."""

_SECONDS_TO_CONNECT = 30.0
"""Least time for connecting to rank 0 once all have come."""


class Meeting:
    """The place where processes meet, as one of them sees it.

    Args:
        place: place of this process.
        limit: seconds within which all must have come.
        number: number of this meeting in this process, from 1.

    Attributes:
        store: store of torch.distributed; None before it is open.
        who: names of the processes for messages, by rank.
        connections: sockets to the others, by rank: rank 0 has one to each of the others, and each
            of those has one to rank 0. Where a firewall blocks it there is none.
    """

    def __init__(self, place: Place, limit: float, number: int) -> None:
        self.place = place
        self.name = f"natstats/{place.attempt}/{number}"
        self.store: Any = None
        self.who: dict[int, str] = {}
        self.connections: dict[int, socket.socket] = {}
        self._limit = limit
        self._deadline = time.monotonic() + limit
        self._words: Any = None
        self._n_came = 0
        self._claimed_here = False

    @property
    def hosts(self) -> bool:
        """Whether the store is in this process."""
        return self.place.rank == 0 and not self.place.keeper

    def meet(self) -> None:
        """Return when all have come and are connected.

        Raises:
            UsageError: the processes contradict each other.
            NatstatsError: some did not come; they are named.
            SystemExit: some did not come, and another process says so.
        """
        self._open()
        self._come()
        self._connect()

    def claim(self) -> bool | None:
        """Whether this process is the first of all to ask; None where no store answers."""
        if self._words is not None:
            with contextlib.suppress(RuntimeError):
                return bool(self._words.add(f"{self.name}/speaks", 1) == 1)
        return None

    def claim_here(self) -> bool:
        """Whether this process is the first on this machine to ask without a store."""
        self._claimed_here = claimed_here(f"{self.place.address}:{self.place.port}/{self.name}")
        return self._claimed_here

    def let_others_see(self) -> None:
        """Wait until the others can have seen that one process speaks."""
        if self._claimed_here:
            time.sleep(_SECONDS_APART)  # the claim ends with the process
        if not (self.hosts and self._n_came):
            return
        deadline = time.monotonic() + _SHORT.total_seconds()
        with contextlib.suppress(RuntimeError):
            while self.store.add(f"{self.name}/seen", 0) < self._n_came - 1:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.05)

    def _open(self) -> None:
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        place = self.place
        hosts = self.hosts
        if not hosts:
            self._wait_for_host()
        left = timedelta(seconds=max(self._deadline - time.monotonic(), 1.0))
        try:
            self.store = TCPStore(
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

    def _wait_for_host(self) -> None:
        """Return when the store can be reached; torch would print warnings while it tries."""
        while True:
            with contextlib.suppress(OSError, UnicodeError):
                socket.create_connection((self.place.address, self.place.port), 2.0).close()
                return
            if time.monotonic() > self._deadline:
                raise self._no_answer()
            time.sleep(0.1)

    def _no_answer(self) -> NatstatsError:
        where = f"{self.place.address}:{self.place.port} (MASTER_ADDR:MASTER_PORT)"
        return NatstatsError(
            f"processes: expected {self.place.world} processes within {self._limit:g} s; rank 0 is "
            f"missing: nobody answers at {where}"
        )

    def _come(self) -> None:
        place, keys = self.place, [f"{self.name}/here/{r}" for r in range(self.place.world)]
        if self.store.add(f"{self.name}/count/{place.rank}", 1) > 1:
            raise UsageError(
                f"RANK: expected a number that no other process has; {place.rank} came twice"
            )
        self.store.set(keys[place.rank], f"{place.world} {os.getpid()} {socket.gethostname()}")
        try:
            self._wait_for_all(keys)
        except RuntimeError as error:
            raise NatstatsError(
                f"processes: expected {place.world} processes to come; rank 0 ended before that"
            ) from error
        for rank, key in enumerate(keys):
            world, pid, host = self.store.get(key).decode("utf-8", "replace").split(" ", 2)
            self.who[rank] = f"rank {rank} (process {pid} on {host})"
            if int(world) != place.world:
                raise UsageError(
                    f"WORLD_SIZE: expected the same number in all processes; it is {place.world} "
                    f"in rank {place.rank} and {world} in rank {rank}"
                )

    def _wait_for_all(self, keys: list[str]) -> None:
        while True:
            if self.store.check([f"{self.name}/speaks"]):
                self.store.add(f"{self.name}/seen", 1)
                raise SystemExit(1)
            if self.store.check(keys):
                return
            if time.monotonic() > self._deadline:
                missing = [r for r, key in enumerate(keys) if not self.store.check([key])]
                if missing:
                    self._n_came = len(keys) - len(missing)
                    raise self._missing(missing)
            time.sleep(min(0.05 + len(keys) / 1000, 1.0))

    def _missing(self, ranks: list[int]) -> NatstatsError:
        listed = ", ".join(map(str, ranks[:20])) + (", ..." if len(ranks) > 20 else "")
        which = f"rank {listed} is" if len(ranks) == 1 else f"ranks {listed} are"
        n_here = self.place.world - len(ranks)
        return NatstatsError(
            f"processes: expected {self.place.world} processes within {self._limit:g} s; {n_here} "
            f"came, and {which} missing"
        )

    def _connect(self) -> None:
        place, key, found = self.place, f"{self.name}/door", self.connections
        if place.rank > 0:
            port, token, host = self.store.get(key).decode().split(" ", 2)
            found |= connection([place.address, host], int(port), token, place.rank)
            if not found:  # a firewall is between them: they go on without a connection
                self.store.add(f"{key}/shut", 1)
            return
        deadline = max(self._deadline, time.monotonic() + _SECONDS_TO_CONNECT)
        with Door() as door:
            self.store.set(key, f"{door.port} {door.token} {socket.gethostname()}")
            while len(found) + self.store.add(f"{key}/shut", 0) < place.world - 1:
                if time.monotonic() > deadline:
                    raise self._missing([r for r in range(1, place.world) if r not in found])
                found |= door.come(place.world)


def _first_line(error: BaseException) -> str:
    return str(error).split("\n")[0].strip()[:120]
