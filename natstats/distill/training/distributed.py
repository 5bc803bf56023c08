"""Several processes that train one student, as ``torchrun`` starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, nn
from torch import distributed as dist

from natstats.errors import NatstatsError, UsageError
from natstats.networks.load import usable_device

__all__ = ["Processes", "processes", "synchronised"]

_PATIENCE = timedelta(hours=4)
"""For which the others wait while the first evaluates and writes."""


@dataclass(frozen=True)
class Processes:
    """The place of this process among those that train together.

    Attributes:
        rank: number of this process, from 0; the first alone evaluates and writes.
        world: how many there are.
        device: device of this process.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process evaluates and writes."""
        return self.rank == 0

    def total(self, values: Tensor) -> Tensor:
        """Sum of a tensor over all processes, a new tensor."""
        summed = values.clone()
        if self.world > 1:
            dist.all_reduce(summed)
        return summed

    def wait(self) -> None:
        """Return when all processes are here."""
        if self.world > 1:
            dist.barrier()


@contextlib.contextmanager
def processes(device: torch.device | str | None = None) -> Iterator[Processes]:
    """Join the other processes where ``torchrun`` started several; else be the only one.

    Args:
        device: device of a single process, None for CUDA if there is any; each of several takes
            the CUDA device of its own number, or the CPU where `device` says so or there is no
            CUDA.

    Raises:
        UsageError: there is no such device.

    >>> with processes("cpu") as alone:
    ...     alone.world, alone.is_first
    (1, True)
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world <= 1 or dist.is_initialized():
        rank = dist.get_rank() if dist.is_initialized() else 0
        world = dist.get_world_size() if dist.is_initialized() else 1
        yield Processes(rank, world, usable_device(device))
        return
    chosen = usable_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        with _lost_processes():
            yield Processes(dist.get_rank(), world, chosen)
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def synchronised(model: nn.Module, together: Processes, wanted: bool = True) -> Iterator[None]:
    """Let the batch norms of a model see the batches of all processes, and give its own back.

    They keep their weights, their statistics and their names. Nothing changes in a single process.

    Args:
        model: a batch norm that is the model itself stays as it is.
        together: the processes.
        wanted: False changes nothing.

    Raises:
        UsageError: the processes are on CPUs, where torch has no such batch norm.
    """
    if not wanted or together.world == 1:
        yield
        return
    if together.device.type != "cuda":
        raise UsageError(
            f"sync_bn: expected CUDA devices beside several processes; got {together.device.type}, "
            "for which torch has no batch norm over processes"
        )
    own = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.modules.batchnorm._BatchNorm)
    ]
    try:
        for parent, name, child in own:
            converted = nn.SyncBatchNorm.convert_sync_batchnorm(child)  # type: ignore[no-untyped-call]
            setattr(parent, name, converted)
        yield
    finally:
        for parent, name, child in own:
            child.train(getattr(parent, name).training)
            setattr(parent, name, child)


_LOST = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "connection was likely",
    "remote process exited", "nccl communicator was aborted", "socket timeout", "timed out",
)  # fmt: skip
"""What gloo, NCCL and their store say where another process is gone."""


@contextlib.contextmanager
def _lost_processes() -> Iterator[None]:
    """Turn what is said where another process is gone into what happened and what to do.

    Raises:
        NatstatsError: in place of an error of the connection to other processes.
    """
    try:
        yield
    except NatstatsError:
        raise
    except (RuntimeError, OSError) as error:
        text = str(error).lower()
        if not isinstance(error, dist.DistError) and not any(words in text for words in _LOST):
            raise
        raise NatstatsError(
            "processes: expected every process of the training to go on; another one ended or was "
            "killed, perhaps for lack of memory (start fewer processes, or take a smaller "
            "--batch-size, or --workers 0; the same command goes on from the last state that was "
            "kept)"
        ) from error
