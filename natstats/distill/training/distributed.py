"""Several processes that train one student, as ``torchrun`` starts them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from natstats.errors import UsageError
from natstats.networks.load import usable_device
from natstats.processes.environment import place_of
from natstats.processes.joining import Processes, joined

__all__ = ["Processes", "processes", "synchronised"]

_REMEDY = (
    "start fewer processes, or take a smaller --batch-size, or --workers 0; the same command goes "
    "on from the last state that was kept"
)


@contextlib.contextmanager
def processes(device: torch.device | str | None = None) -> Iterator[Processes]:
    """Join the other processes where ``torchrun`` started several; else be the only one.

    Args:
        device: device of a single process, None for CUDA if there is any; each of several takes
            the CUDA device of its own number, or the CPU where `device` says so or there is no
            CUDA.

    Raises:
        UsageError: there is no such device, or the environment lacks what ``torchrun`` sets.
        NatstatsError: a process did not join, or was killed; see there.
        SystemExit: this process ends because of another, which gives the reason.

    >>> with processes("cpu") as alone:
    ...     alone.world, alone.is_first
    (1, True)
    """
    place = place_of()
    chosen = usable_device(device)
    if place is not None and chosen.type == "cuda" and not torch.distributed.is_initialized():
        if place.local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"LOCAL_RANK: expected the number of one of the {torch.cuda.device_count()} CUDA "
                f"devices here; got {place.local_rank} (start fewer processes a machine, or "
                "--device cpu)"
            )
        chosen = torch.device("cuda", place.local_rank)
        torch.cuda.set_device(chosen)
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    with joined(chosen, backend=backend, remedy=_REMEDY) as together:
        yield together


@contextlib.contextmanager
def synchronised(model: nn.Module, together: Processes, wanted: bool = True) -> Iterator[None]:
    """Let the batch norms of a model see the batches of all processes, then restore its own.

    They keep their weights, their statistics and their names. Nothing changes in a single process.

    Args:
        model: the model; if it is itself a batch norm, it stays as it is.
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
