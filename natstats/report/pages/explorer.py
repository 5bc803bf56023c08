"""The data that the script of a run's page draws: every layer and its spectrum in plain values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.numbers import map_size
from natstats.report.figures.law_curves import best_shape, line_of
from natstats.report.figures.points import flag_names
from natstats.report.figures.style import (
    depth_colours,
    kind_marks,
    places_of_layers,
)
from natstats.report.pages.explorer_layers import layer_facts, spectrum_of
from natstats.report.records import RunReport
from natstats.text import printable

__all__ = ["explorer_data", "plain"]

SYMBOLS = {
    "o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down",
    "P": "cross", "X": "x", "p": "pentagon",
}  # fmt: skip
"""Names that the plotting library of the page has for the markers of our figures."""


def explorer_data(run: RunReport) -> dict[str, Any]:
    """All that the plots, the panel of a layer and the filters of a page need.

    Args:
        run: what the page reports.

    Returns:
        Plain values for JSON: None for missing numbers, texts with invisible characters as escapes.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> data = explorer_data(run.report())
    >>> [layer["name"] for layer in data["layers"]], data["stages"]
    (['input'], ['16 × 16'])
    """
    axis = DEPTH_AXES[run.law.depth]
    rows = run.layers.assign(place=axis.values(run.layers))
    places = _places(rows.place.to_numpy(dtype=float), axis.is_count)
    inner = rows[rows.kind != "input"].assign(depth=rows.place)
    marks = kind_marks(list(inner.kind))
    colours = _colours(rows.place.to_numpy(dtype=float))
    sizes = zip(rows.height.tolist(), rows.width.tolist(), strict=True)
    stages = [map_size(int(height), int(width)) for height, width in sizes]
    layers = []
    for place, record in enumerate(rows.to_dict("records")):
        row = {str(key): value for key, value in record.items()}
        flags = [printable(flag) for flag in str(row["flags"] or "").split("; ") if flag]
        layers.append(
            {
                "name": printable(row["layer"]),
                "kind": printable(row["kind"]),
                "stage": stages[place],
                "colour": colours[place],
                "x": places[place],
                "exponent": row["exponent"],
                "low": row["exponent_low"],
                "high": row["exponent_high"],
                "flags": flags,
                "doubt": bool(flag_names(rows.iloc[[place]], doubts=True)),
                "spectrum": spectrum_of(run, place),
                **layer_facts(run, place, row),
            }
        )
    data = {
        "level": f"{100 * run.options.level:g} %",
        "axis": axis.axis,
        "frequency": "cycles per clip" if run.unit == "frame" else "cycles per image",
        "unit": run.unit,
        "kinds": {
            printable(kind): {"colour": colour, "symbol": SYMBOLS[marker]}
            for kind, (colour, marker) in marks.items()
        },
        "stages": list(dict.fromkeys(stages)),
        "law": _law(run, inner),
        "doubts": [
            printable(flag) for flag in flag_names(inner[np.isfinite(inner.exponent)], doubts=True)
        ],
        "layers": layers,
    }
    return dict(plain(data))


def _places(depth: NDArray[np.float64], is_count: bool) -> NDArray[np.float64]:
    """Where layers stand on the axis; NaN where their depth is not known."""
    places = depth.copy()
    known = np.isfinite(depth)
    places[known] = places_of_layers(list(depth[known]), is_count)
    return places


def _colours(depth: NDArray[np.float64]) -> list[str]:
    """The colour of every layer by its depth."""
    shares = np.nan_to_num(depth / max([1.0, *depth[np.isfinite(depth)]]))
    return [to_hex(one) for one in depth_colours()(shares)]


def _law(run: RunReport, inner: Any) -> dict[str, Any]:
    """The line and the best shape, each None where there is none."""
    line, shape = line_of(run.law, inner), best_shape(run.law)
    return {
        "line": line and {
            "x": line.depth, "y": line.exponent, "low": line.low, "high": line.high,
            "name": line.label, "found": line.is_law,
        },
        "shape": shape and {"x": shape.depth, "y": shape.exponent, "name": shape.label},
    }  # fmt: skip


def plain(value: Any, digits: int = 4) -> Any:
    """Values for JSON: numbers with `digits` significant digits, None where they are not finite."""
    if isinstance(value, dict):
        return {key: plain(one, digits) for key, one in value.items()}
    if isinstance(value, np.ndarray):
        return [plain(one, digits) for one in value.tolist()]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one, digits) for one in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value.item() if isinstance(value, np.generic) else value
