"""Joining the processes that ``torchrun`` started, and exchanging sums and values among them.

They find each other through a store in which each sets a key; an error names those that do not
come in time. From then on each knows when another is gone (:mod:`natstats.processes.watch`).
However they end, one process alone says why: the one that takes a key that only one can have.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from natstats.processes.environment import place_of
from natstats.processes.group import Group, may_speak

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Processes", "joined", "may_speak"]

_PATIENCE = 4 * 3600.0
"""Seconds that the others wait while the first alone works, as when it looks at all images."""


@dataclass(frozen=True)
class Processes:
    """The place of this process among those that work together.

    All of them must call the methods in the same order. In a single process each method returns
    what it was given, :meth:`gather` and :meth:`gather_values` in a list.

    Attributes:
        rank: number of this process, from 0; the first alone evaluates, writes and speaks.
        world: how many there are.
        device: device of this process.

    >>> import torch
    >>> alone = Processes(0, 1, torch.device("cpu"))
    >>> alone.is_first, alone.total(torch.ones(2)).tolist(), alone.share({"seed": 1})
    (True, [1.0, 1.0], {'seed': 1})
    >>> alone.gather(b"state")
    [b'state']
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates, writes and speaks."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes, a new tensor."""
        summed = values.clone()
        if self.world > 1:
            from torch import distributed as dist

            dist.all_reduce(summed)
        return summed

    def wait(self) -> None:
        """Return when all processes have made this call."""
        if self.world > 1:
            from torch import distributed as dist

            dist.barrier()

    def gather(self, data: bytes) -> list[bytes]:
        """The data of all processes by rank, in the first process; an empty list in the others.

        Args:
            data: bytes of any length, which may differ from process to process.
        """
        if self.world == 1:
            return [data]
        import torch
        from torch import distributed as dist

        where = self._where()
        length = torch.tensor([len(data)], dtype=torch.int64, device=where)
        lengths = [torch.zeros_like(length) for _ in range(self.world)]
        dist.all_gather(lengths, length)
        if not self.is_first:
            if data:
                dist.send(_as_tensor(data).to(where), 0)
            return []
        found = [data]
        for rank in range(1, self.world):
            came = torch.empty(int(lengths[rank]), dtype=torch.uint8, device=where)
            if len(came):
                dist.recv(came, rank)
            found.append(came.cpu().numpy().tobytes())
        return found

    def gather_values(self, value: Any) -> list[Any]:
        """Like :meth:`gather`, for values that JSON can hold; tuples come back as lists.

        Floats come back the same, to the last bit.
        """
        if self.world == 1:
            return [value]
        return [json.loads(one) for one in self.gather(json.dumps(value).encode())]

    def share(self, value: Any) -> Any:
        """The first process's plain value, in all processes; those of the others are ignored."""
        if self.world == 1:
            return value
        return json.loads(self.spread(json.dumps(value).encode() if self.is_first else b""))

    def spread(self, data: bytes) -> bytes:
        """The bytes of the first process, in all processes; those of the others are ignored."""
        if self.world == 1:
            return data
        import torch
        from torch import distributed as dist

        where = self._where()
        length = torch.tensor([len(data)], dtype=torch.int64, device=where)
        dist.broadcast(length, 0)
        content = torch.empty(int(length), dtype=torch.uint8, device=where)
        if self.is_first:
            content.copy_(_as_tensor(data))
        dist.broadcast(content, 0)
        return content.cpu().numpy().tobytes()

    def _where(self) -> torch.device:
        """Device through which messages go: NCCL takes those of CUDA alone, gloo the host's."""
        import torch
        from torch import distributed as dist

        return self.device if dist.get_backend() == "nccl" else torch.device("cpu")


def _as_tensor(data: bytes) -> Tensor:
    import torch

    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


@contextlib.contextmanager
def joined(
    device: torch.device | str = "cpu",
    *,
    backend: str = "gloo",
    limit: float | None = None,
    patience: float = _PATIENCE,
    remedy: str = "start fewer processes; the same command goes on from the last state",
) -> Iterator[Processes]:
    """Join the other processes where ``torchrun`` started several; else be the only one.

    However the context ends, one process alone raises the error that says why. The others end with
    :class:`SystemExit`, and so print nothing, whether all met an error, one did, or one was killed.
    Only the first process tells of an interruption.

    Args:
        device: device of this process.
        backend: of torch.distributed: ``gloo``, or ``nccl`` for CUDA.
        limit: seconds within which all must have joined; by default those of the variable
            NATSTATS_JOIN_SECONDS, or 120.
        patience: seconds that a process waits for others that are alive and busy.
        remedy: what the user can do when a process was killed.

    Raises:
        UsageError: a variable of the environment is missing or invalid; the error names it.
        NatstatsError: a process did not come in time, or was killed; it is named.
        SystemExit: another process says why this one ends.

    >>> with joined() as alone:
    ...     alone.world, alone.is_first
    (1, True)
    """
    import torch
    from torch import distributed as dist

    chosen = torch.device(device)
    if dist.is_initialized():  # by the calling program
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
        return
    place = place_of()
    if place is None:
        yield Processes(0, 1, chosen)
        return
    with Group(place, limit, remedy).ended_by_one() as group:
        group.join(backend, timedelta(seconds=patience))
        yield Processes(place.rank, place.world, chosen)
