"""Notes on how two runs were compared, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from natstats.law.differences import Estimate, layers_text
from natstats.law.trend import FEWEST_LAYERS
from natstats.runs.pairing import Missing, RunPair

__all__ = ["law_notes", "pairing_notes", "setting_notes"]

_IMAGES = {
    "size": "size of the images", "resize": "scaling", "interpolation": "interpolation",
    "normalisation": "normalisation", "frames": "frames",
}  # fmt: skip
_OPTIONS = {
    "crop": "crop", "normalize": "normalisation of the images", "edges": "edges of the maps",
    "amp": "mixed precision",
}  # fmt: skip


def pairing_notes(
    frame: pd.DataFrame,
    only: tuple[Missing, Missing],
    unpaired: str | None,
    slope: Estimate,
    by_layer: bool,
) -> list[str]:
    """Whether the runs are paired, and what only one of them has.

    Args:
        frame: a row for every common layer.
        only: what only A and only B have.
        unpaired: why they are not paired; None where they are.
        slope: difference of the slopes.
        by_layer: whether it is over the same layers.
    """
    n_common, n_apart = int((frame.kind != "input").sum()), sum(len(layers) for layers, _ in only)
    cancels = ", so that what the images do to both cancels" if n_common else ""
    notes = [
        f"Paired: both runs saw the same images in the same numbering{cancels}."
        if unpaired is None
        else f"Not paired, the errors are taken as independent: {unpaired}."
    ]
    if n_common < FEWEST_LAYERS and n_apart:
        common = {0: "No layer bears", 1: "Only 1 layer bears"}
        notes.append(
            f"{common.get(n_common, f'Only {n_common} layers bear')} the same name in both runs: "
            "layers are compared by name, networks of other architecture by the slopes of their "
            "laws."
        )
    for name, (layers, images) in zip("AB", only, strict=True):
        if layers:
            listed = ", ".join(layers[:3]) + (", ..." if len(layers) > 3 else "")
            notes.append(f"Only in {name}: {layers_text(len(layers))} ({listed}).")
        if images:
            notes.append(f"Of the images only in {name}: {', '.join(images)}.")
    if np.isfinite(slope.value) and not by_layer:
        notes.append(
            "The slopes are those of the two laws, over layers that differ; their errors are taken "
            "as independent."
        )
    return notes


def setting_notes(infos: Sequence[Mapping[str, Any]]) -> list[str]:
    """What was not done alike in both runs: differences may come from that, too.

    Args:
        infos: facts on the two measurements.

    >>> setting_notes([{"images": {"size": 64}}, {"images": {"size": 48}}])[0][:57]
    'Not measured alike: size of the images (64 in A, 48 in B)'
    """
    apart = []
    for part, names in (("images", _IMAGES), ("options", _OPTIONS)):
        one, other = (info.get(part) or {} for info in infos)
        for key, called in names.items():
            if key in one and key in other and one[key] != other[key]:
                plain = not any(isinstance(found[key], dict) for found in (one, other))
                said = " in A, ".join(map(_shown, (one[key], other[key])))
                apart.append(f"{called} ({said} in B)" if plain else called)
    if not apart:
        return []
    return [
        f"Not measured alike: {', '.join(apart)}. What differs may come from that, and not from "
        "the networks."
    ]


def _shown(value: Any) -> str:
    """The value of a setting in words.

    >>> [_shown(value) for value in (None, True, False, 232)]
    ['none', 'yes', 'no', '232']
    """
    words = {None: "none", True: "yes", False: "no"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def law_notes(pair: RunPair, left_out: Sequence[str]) -> list[str]:
    """Notes on the layers in the slopes.

    Args:
        pair: the runs.
        left_out: layers that were compared and are not in both laws.
    """
    asked = [run.options.law_layers for run in pair.runs]
    notes = []
    if left_out:
        listed = ", ".join(left_out[:3]) + (", ..." if len(left_out) > 3 else "")
        notes.append(f"Not in the slopes, as not in both laws: {listed}.")
    if asked[0] != asked[1]:
        notes.append(f"The laws were asked for over different layers: {asked[0]} and {asked[1]}.")
    return notes
