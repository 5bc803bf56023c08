"""Products in plain float32, however the program around them has set torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["full_precision"]


@contextlib.contextmanager
def full_precision(device: torch.device, convolutions: bool = False) -> Iterator[None]:
    """Within this context, products on `device` are plain float32: no autocast, no TF32.

    A spectrum spans many decades, and the bits that reduced precision drops are the low ones. The
    settings are restored afterwards, in whichever of torch's two ways they were made.

    Args:
        device: where the products are.
        convolutions: whether convolutions are to be plain as well; by default CUDA rounds them.

    >>> torch.set_float32_matmul_precision("high")
    >>> with full_precision(torch.device("cpu")):
    ...     torch.get_float32_matmul_precision()
    'highest'
    >>> torch.get_float32_matmul_precision()
    'high'
    >>> torch.set_float32_matmul_precision("highest")
    """
    precision = _by_the_old_way()
    is_rounded = convolutions and _rounds_convolutions(device)
    if precision == "highest" and not torch.is_autocast_enabled(device.type) and not is_rounded:
        yield  # the usual case, without the cost of changing anything
        return
    with contextlib.ExitStack() as stack:
        if precision != "highest":
            for backend in _backends():
                stack.enter_context(_exact(backend))
            if precision is not None:
                stack.callback(torch.set_float32_matmul_precision, precision)
                torch.set_float32_matmul_precision("highest")
        if is_rounded:
            stack.enter_context(_exact_convolutions())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        yield


def _by_the_old_way() -> str | None:
    """The precision of products; None where it was set in the new way, which torch then refuses.

    From version 2.9 on torch has a setting for each backend beside the one for all, and an error
    where one is asked for after the other was set.
    """
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


def _backends() -> list[Any]:
    """The backends that hold the precision in the new way; none where torch has only the old."""
    found = (torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None))
    return [one for one in found if hasattr(one, "fp32_precision")]


@contextlib.contextmanager
def _exact(backend: Any) -> Iterator[None]:
    """Plain float32 in a backend, by the new way."""
    before = backend.fp32_precision
    backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        # With "none" a wider setting holds again; its value must not become this backend's own.
        backend.fp32_precision = "none"
        if backend.fp32_precision != before:
            backend.fp32_precision = before


def _rounds_convolutions(device: torch.device) -> bool:
    """Whether convolutions may be rounded to TF32, as they are by default on CUDA."""
    if device.type != "cuda":
        return False
    new = getattr(torch.backends.cudnn, "conv", None)
    return bool(torch.backends.cudnn.allow_tf32 if new is None else new.fp32_precision == "tf32")


def _exact_convolutions() -> contextlib.AbstractContextManager[Any]:
    """Convolutions on CUDA in plain float32."""
    new = getattr(torch.backends.cudnn, "conv", None)
    return torch.backends.cudnn.flags(allow_tf32=False) if new is None else _exact(new)
