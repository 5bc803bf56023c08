"""The file of a student's weights: the same bytes for the same tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors import torch as safetensors
from torch import Tensor

__all__ = ["weights_file"]

_PLACE = 8
"""Bytes that hold the length of the header; the tensors after it are aligned to as many."""


def weights_file(weights: Mapping[str, Tensor], facts: Mapping[str, str]) -> bytes:
    """Weights in the format of safetensors, the same bytes in whatever order they are given.

    The library sorts the tensors, but leaves its own metadata in an order that differs from process
    to process.

    Args:
        weights: tensors by name, on any device.
        facts: texts for the metadata, by name.

    >>> import torch
    >>> one, other = torch.zeros(2), torch.ones(3)
    >>> weights_file({"a": one, "b": other}, {"x": "1", "y": "2"}) == weights_file(
    ...     {"b": other, "a": one}, {"y": "2", "x": "1"})
    True
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    content = safetensors.save(tensors, dict(facts))
    length = int.from_bytes(content[:_PLACE], "little")
    header = json.loads(content[_PLACE : _PLACE + length])
    metadata = {key: value for key, value in header.items() if key == "__metadata__"}
    places = sorted(header.keys() - metadata.keys(), key=lambda name: _place(header[name], name))
    if metadata:
        metadata["__metadata__"] = dict(sorted(metadata["__metadata__"].items()))
    ordered = metadata | {name: header[name] for name in places}
    text = json.dumps(ordered, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _PLACE)
    return len(text).to_bytes(_PLACE, "little") + text + content[_PLACE + length :]


def _place(entry: Mapping[str, list[int]], name: str) -> tuple[list[int], str]:
    return entry["data_offsets"], name
