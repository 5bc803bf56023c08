"""Adding the states of passes for an account, each over a part of the images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from natstats.errors import UsageError

__all__ = ["added_states"]


def added_states(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The state that one pass over the images of both would have.

    Args:
        first: what :meth:`natstats.theory.account_pass.AccountPass.state_dict` gave.
        second: the same of other images, with the same network and settings, whose products were
            taken about the same centre.

    Raises:
        UsageError: they are not of the same operations.
    """
    moments = {own["after"]: own for own in first["moments"]}
    others = {own["after"]: own for own in second["moments"]}
    if moments.keys() != others.keys() or first["by_modules"] != second["by_modules"]:
        raise UsageError(
            "explain: expected the network to do the same for all images; in one part it did not"
        )
    sums = {tuple(own["states"]): own["sums"] for own in first["sums"]["sums"]}
    for own in second["sums"]["sums"]:
        key = tuple(own["states"])
        sums[key] = sums[key] + own["sums"] if key in sums else own["sums"]
    offsets = {int(state): offset for state, offset in first["sums"]["offsets"]}
    for state, offset in second["sums"]["offsets"]:
        offsets[state] = offsets.get(state, 0.0) + offset
    return {
        "by_modules": first["by_modules"],
        "sums": {
            "sums": [{"states": list(key), "sums": own} for key, own in sums.items()],
            "offsets": list(offsets.items()),
        },
        "moments": [_added(own, others[after]) for after, own in moments.items()],
        "n_left_out": first["n_left_out"] + second["n_left_out"],
        "next_index": max(first["next_index"], second["next_index"]),
    }


def _added(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    centres = [own["centre"] for own in (first, second) if own["centre"] is not None]
    if len(centres) == 2 and not torch.equal(*centres):
        raise UsageError("explain: expected parts that began with the same image; got others")
    added = {name: first[name] + second[name] for name in ("power", "total", "maps", "count")}
    return {"after": first["after"], **added, "centre": centres[0] if centres else None}
