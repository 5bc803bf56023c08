"""Arguments of a forward pass that hold images: to take the first image, or to add a second one.

A batch is a tensor (N, ...), a list or tuple of images, a list or tuple of batches (the crops of
one image in several sizes), or a dict of any of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["doubled", "first_image"]


def _holds_batches(value: Any) -> bool:
    """Whether a list or tuple is one of batches, (N, C, H, W) each, not of images."""
    return bool(value) and isinstance(value[0], Tensor) and value[0].ndim > 3


def _like(value: Any, items: list[Any]) -> Any:
    """The items in a list or tuple of the type of `value`, also where it is a named tuple."""
    if hasattr(value, "_fields"):
        return type(value)(*items)
    return type(value)(items)


def first_image(value: Any, n_images: int) -> Any:
    """The first image of an argument that holds `n_images`, as a copy.

    >>> first_image([torch.zeros(4, 3, 8, 8), torch.zeros(4, 3, 6, 6)], 4)[1].shape
    torch.Size([1, 3, 6, 6])
    """
    if isinstance(value, Tensor):
        is_batch = value.ndim > 0 and len(value) == n_images
        return (value[:1] if is_batch else value).detach().clone()
    if isinstance(value, Mapping):
        return {key: first_image(inner, n_images) for key, inner in value.items()}
    if isinstance(value, list | tuple) and value:
        if _holds_batches(value):
            return _like(value, [first_image(inner, n_images) for inner in value])
        if isinstance(value[0], Tensor | Mapping) and not hasattr(value, "_fields"):
            # These are single images: none of their axes is that of the images.
            return _like(value, [first_image(inner, -1) for inner in value[:1]])
    return value


def doubled(value: Any, other: Callable[[Tensor], Tensor]) -> Any:
    """An argument of one image with a second one behind it, which `other` makes from the first.

    >>> doubled((torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 6, 6)), torch.ones_like)[1].mean()
    tensor(0.5000)
    >>> len(doubled([torch.zeros(3, 8, 8)], torch.ones_like))
    2
    """
    if isinstance(value, Tensor):
        return torch.cat([value, other(value)]) if value.ndim >= 3 else value
    if isinstance(value, Mapping):
        return {key: doubled(inner, other) for key, inner in value.items()}
    if isinstance(value, list | tuple) and value:
        if _holds_batches(value):
            return _like(value, [doubled(inner, other) for inner in value])
        if isinstance(value[0], Tensor):
            return _like(value, [*value, *(other(one) for one in value)])
        if isinstance(value[0], Mapping):
            seconds = [{k: _second(v, other) for k, v in one.items()} for one in value]
            return _like(value, [*value, *seconds])
    return value


def _second(value: Any, other: Callable[[Tensor], Tensor]) -> Any:
    return other(value) if isinstance(value, Tensor) and value.ndim >= 3 else value
