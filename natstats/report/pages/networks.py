"""The report on the laws of many networks as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from natstats._version import __version__
from natstats.fits.band_choice import band_text
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.law import format_p
from natstats.numbers import interval, number
from natstats.report.figures.drawing import draw_networks
from natstats.report.pages.html import drawn_twice, embedded, write_page
from natstats.report.records import CONTROL, NetworksReport

__all__ = ["write_networks_report"]

TITLES = {
    "rises": "Rises with depth, over networks",
    "falls": "Falls with depth, over networks",
    "no trend": "No common trend with depth",
    "too little to tell": "Too little to tell of networks",
}
"""Heading of the page by verdict."""

GROUP_COLUMNS = ("networks", "number", "mean slope", "interval", "p", "the next network",
                 "sd between", "share", "one slope: p")  # fmt: skip


def write_networks_report(folder: Path, networks: NetworksReport) -> Path:
    """Write ``figures/`` and ``report.html`` into `folder`.

    Args:
        folder: the directory; it must exist.
        networks: what to report.

    Returns:
        The page.
    """
    drawn = drawn_twice(lambda place: draw_networks(networks, place), folder)["forest"]
    figure = {
        "key": "forest",
        "title": "Slopes of the networks",
        "caption": "The slope of the law of each network, the mean over networks, and where the "
        "slope of the next network is expected. Intervals that are much longer than most run off "
        "the edge.",
        "image": embedded(f"Forest plot. {networks.sentences[0]}", *drawn),
    }
    return write_page(folder, "networks.html", {**_contents(networks), "figure_parts": figure})


def _contents(networks: NetworksReport) -> dict[str, Any]:
    """Everything that the template fills in, but for the figure."""
    level = f"{100 * networks.options.level:g} %"
    columns = [
        ("network", False),
        *([("subgroup", False)] if networks.by is not None else []),
        (f"slope {networks.per_unit}", True),
        (f"{level} interval", True),
        ("weight", True),
        (f"slope {networks.per_whole}", True),
        (f"{level} interval", True),
        ("weight", True),
        ("layers", True),
        ("deepest", True),
        ("verdict", False),
        ("model", False),
        ("weights", False),
    ]
    groups = networks.subgroups.to_dict("records")
    tables = [
        (per, [_group_row(row) for row in groups if row["unit"] == unit])
        for unit, per in (("depth", networks.per_unit), ("whole", networks.per_whole))
    ]
    fit = networks.options
    return {
        "n": len(networks.networks),
        "title": TITLES[networks.verdict],
        "sentences": networks.sentences,
        "shape_sentence": networks.shape_sentence,
        "notes": networks.notes,
        "by": networks.by,
        "columns": columns,
        "rows": [
            _row(row, networks.by is not None) for row in networks.networks.to_dict("records")
        ],
        "group_columns": GROUP_COLUMNS,
        "tables": tables,
        "has_control": any(str(row["subgroup"]).startswith(CONTROL) for row in groups),
        "measured": [
            ("measure of depth", DEPTH_AXES[fit.depth].meaning),
            ("estimator", fit.estimator),
            ("band", band_text(fit.band)),
            ("layers", fit.law_layers),
            ("power of images", "brought to the same mean" if fit.normalize else "as it is"),
            ("smallest number of rings", str(fit.min_rings)),
            ("intervals", f"{level}, Student's t"),
        ],
        "version": __version__,
    }


def _row(row: Mapping[Any, Any], is_grouped: bool) -> dict[str, Any]:
    def cell(name: str, text: str) -> tuple[str, float | None]:
        return text, float(row[name]) if np.isfinite(row[name]) else None

    cells: list[tuple[str, float | None]] = [(row["subgroup"], None)] if is_grouped else []
    for end in ("", "_whole"):
        low, high = row[f"slope{end}_low"], row[f"slope{end}_high"]
        cells += [
            cell(f"slope{end}", number(row[f"slope{end}"], 4, sign=True)),
            cell(f"slope{end}_low", interval(low, high, 4, sign=True)),
            cell(f"weight{end}", f"{100 * row[f'weight{end}']:.1f} %"),
        ]
    cells += [
        cell("n_layers", str(row["n_layers"])),
        cell("deepest", f"{row['deepest']:g}"),
        *((str(row[name]), None) for name in ("verdict", "model", "weights")),
    ]
    return {"name": row["network"], "cells": cells}


def _group_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    has_spread = np.isfinite(row["tau"])
    return (
        str(row["subgroup"]),
        str(row["n"]),
        number(row["mean"], 4, sign=True),
        interval(row["low"], row["high"], 4, sign=True),
        format_p(row["p"]).removeprefix("= ") if np.isfinite(row["p"]) else "–",
        interval(row["next_low"], row["next_high"], 4, sign=True)
        if np.isfinite(row["next_low"])
        else "–",
        number(row["tau"], 4),
        f"{100 * row['i2']:.0f} %" if has_spread else "–",
        format_p(row["q_p"]).removeprefix("= ") if np.isfinite(row["q_p"]) else "–",
    )
