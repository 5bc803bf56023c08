"""Which layers are in the law, and why the others are not.

The law is about activations. What a network returns is not one: its last convolution may give an
image, a noise or the scores of classes, and one such point at the end can hide a law or make one.
So the network's own output is left out unless it is asked for; it stays in all tables.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.flags import OWN_OUTPUT

__all__ = ["IN_LAW", "NOT_ASKED_FOR", "asked_for", "layers_of_law"]

IN_LAW = "yes"
"""What the table of layers says of a layer in the law, in the place of a reason."""

NOT_ASKED_FOR = "not asked for"
"""What the table says of a layer that could be in the law and was not asked for."""

WORDS = ("hidden", "all", "output")
"""Selections by role; anything else is a kind of layer or a pattern of names."""


def asked_for(
    law_layers: str, names: Sequence[str], kinds: Sequence[str], is_output: Sequence[bool]
) -> list[bool]:
    """Whether each layer is one of those that a law is asked for.

    Args:
        law_layers: ``hidden`` (all but the network's own output), ``all``, ``output``, a kind of
            layer as in the table (``conv``, ``depthwise``, ...) or a pattern of names such as
            ``layer1.*``; several separated by commas. The layers of one with a ``-`` before it are
            removed from the others, or from ``hidden`` if there are no others.
        names: of the layers, without the images.
        kinds: of the layers.
        is_output: whether they are the network's own output.

    Raises:
        UsageError: a kind or pattern matches no layer.

    >>> names, kinds, is_output = ["a", "b", "c"], ["conv", "act", "conv"], [False, False, True]
    >>> asked_for("hidden", names, kinds, is_output)
    [True, True, False]
    >>> asked_for("conv", names, kinds, is_output), asked_for("-a", names, kinds, is_output)
    ([True, False, True], [False, True, False])
    """
    parts = [part.strip() for part in law_layers.split(",")]
    chosen: set[int] = set()
    if all(part.startswith("-") for part in parts):
        parts.insert(0, "hidden")
    removed: set[int] = set()
    for part in parts:
        found = _matching(part.removeprefix("-").strip(), names, kinds, is_output)
        if found is None:
            raise UsageError(_nothing(part, names, kinds))
        (removed if part.startswith("-") else chosen).update(found)
    return [place in chosen - removed for place in range(len(names))]


def _matching(
    part: str, names: Sequence[str], kinds: Sequence[str], is_output: Sequence[bool]
) -> list[int] | None:
    """Places of the layers that a word, a kind or a pattern stands for; None without any."""
    places = range(len(names))
    if part in WORDS:
        wanted = {"hidden": (False,), "all": (False, True), "output": (True,)}[part]
        return [place for place in places if bool(is_output[place]) in wanted]
    if part in kinds:
        return [place for place in places if kinds[place] == part]
    found = []
    for place, name in enumerate(names):
        # A later call, or a part of an output, goes with its module: relu:1, fpn[0].
        module = re.sub(r"(:\d+)?(\[.*)?$", "", name)
        if part in (name, module) or any(fnmatch.fnmatchcase(x, part) for x in (name, module)):
            found.append(place)
    return found or None


def _nothing(part: str, names: Sequence[str], kinds: Sequence[str]) -> str:
    """What to say of a part that matches no layer."""
    import difflib

    known = list(dict.fromkeys(kinds))
    near = difflib.get_close_matches(
        part.removeprefix("-").replace("*", ""), [*WORDS, *known, *names], n=5, cutoff=0.5
    )
    hint = f"did you mean {', '.join(near)}?" if near else f"layers are named like {names[0]}"
    return (
        f"law_layers: expected {', '.join(WORDS)}, a kind of layer ({', '.join(known)}) or a "
        f"pattern that matches the name of a layer; nothing matched {part!r} ({hint})"
    )


def layers_of_law(
    layers: pd.DataFrame | Mapping[str, Sequence[object]],
    law_layers: str = "hidden",
    depth: str = "layers",
) -> tuple[NDArray[np.bool_], list[str]]:
    """Which layers are in the law, and what keeps out the others.

    Args:
        layers: table of the layers, see :func:`natstats.runs.tables.layers_frame`: the columns
            layer, kind, exponent, exponent_low, exponent_high, flags, and that of the depth.
        law_layers: which are asked for, see :func:`asked_for`.
        depth: name of the measure of depth, see :data:`natstats.fits.depth_axes.DEPTH_AXES`.

    Returns:
        Whether each layer is in the law, (L,), and for each ``yes`` or the reason why it is not:
        ``input`` (the images), ``own output``, ``not asked for``, ``beyond range``, ``no
        exponent``, ``no interval`` or ``no depth``.

    Raises:
        UsageError: a kind or pattern matches no layer.

    >>> layers = {"layer": ["input", "0", "2"], "kind": ["input", "conv", "conv"],
    ...     "depth": [0, 1, 2], "exponent": [2.0, 1.8, -0.1], "exponent_low": [1.9, 1.7, -0.2],
    ...     "exponent_high": [2.1, 1.9, 0.0], "flags": ["", "few images", "own output"]}
    >>> layers_of_law(layers)[1]
    ['input', 'yes', 'own output']
    >>> layers_of_law(layers, "all")[0].tolist()
    [False, True, True]
    """
    table = pd.DataFrame(layers)
    reasons = np.full(len(table), IN_LAW, dtype=object)
    flags = [str(cell or "").split("; ") for cell in table["flags"]]
    exponent, low, high = (
        table[name].to_numpy(dtype=np.float64)
        for name in ("exponent", "exponent_low", "exponent_high")
    )
    # A later reason takes the place of an earlier one.
    reasons[~np.isfinite(DEPTH_AXES[depth].values(table))] = "no depth"
    reasons[~(high > low)] = "no interval"
    reasons[~np.isfinite(exponent)] = "no exponent"
    reasons[["beyond range" in own for own in flags]] = "beyond range"
    is_output = np.array([OWN_OUTPUT in own for own in flags], dtype=bool)
    inner = np.flatnonzero((table["kind"] != "input").to_numpy())
    if len(inner):
        names, kinds = (table[name].astype(str).to_numpy()[inner] for name in ("layer", "kind"))
        asked = asked_for(law_layers, names.tolist(), kinds.tolist(), is_output[inner].tolist())
        left_out = inner[~np.array(asked, dtype=bool)]
        reasons[left_out] = NOT_ASKED_FOR
        reasons[left_out[is_output[left_out]]] = OWN_OUTPUT
    reasons[(table["kind"] == "input").to_numpy()] = "input"
    return reasons == IN_LAW, [str(reason) for reason in reasons]
