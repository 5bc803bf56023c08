"""Arguments that older runs did not record, with the values that describe what they did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["completed"]


def completed(arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Arguments of a run of any version, with those filled in that were introduced later.

    >>> completed({"kd": {"weight": 0.9}})
    {'kd': {'weight': 0.9, 'standardise': False}}
    """
    return {name: {**given, **_unsaid(name, given)} for name, given in arguments.items()}


def _unsaid(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of arguments that runs before 0.9.0 did not have, as they behaved."""
    implied: dict[str, Any] = {}
    if method == "kd":
        implied = {"standardise": False}
    elif method == "at":
        implied = {"paper_scale": "fixed" if given.get("form") == "paper" else "map"}
    elif method == "spectral":
        implied = {
            "weighting": "octave", "layers": "equal", "skip_last": 0, "relative": 0.0,
            "likeness": 0.0, "coherence": 0.0,
        }  # fmt: skip
    return {name: value for name, value in implied.items() if name not in given}
