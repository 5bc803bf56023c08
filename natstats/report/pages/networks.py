"""The report on the laws of many networks as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from natstats._version import __version__
from natstats.fits.band_choice import band_text
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.law.law import format_p
from natstats.numbers import change, interval, number, short
from natstats.report.figures.drawing import draw_networks
from natstats.report.pages.html import drawn_twice, embedded, link_to, write_page
from natstats.report.records import ALL, CONTROL, NetworksReport

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


def write_networks_report(
    folder: Path, networks: NetworksReport, home: Path | None = None, command: str = ""
) -> Path:
    """Write ``figures/`` and ``report.html`` into `folder`.

    Args:
        folder: the directory; it must exist.
        networks: what to report.
        home: where the folder will be, for links to the reports of the networks; by default as it
            is.
        command: what was typed for it; empty when it was made from Python.

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
    contents = _contents(networks, home or folder)
    repeat = command or _repeat(networks)
    more = {"figure_parts": figure, "repeat": repeat, "has_command": bool(command)}
    return write_page(folder, "networks.html", contents | more)


def _contents(networks: NetworksReport, home: Path) -> dict[str, Any]:
    """Everything that the template fills in, but for the figure."""
    level = f"{100 * networks.options.level:g} %"
    columns = [
        ("network", False),
        *([("subgroup", False)] if networks.by is not None else []),
        (f"slope {networks.per_unit}", True),
        (f"{level} interval", True),
        ("weight", True),
        ("verdict", False),
        (f"slope {networks.per_whole}", True),
        (f"{level} interval", True),
        ("weight", True),
        ("layers", True),
        ("deepest", True),
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
        "keys": _keys(networks),
        "notes": networks.notes,
        "by": networks.by,
        "columns": columns,
        "rows": [
            _row(row, networks.by is not None, home) for row in networks.networks.to_dict("records")
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


def _repeat(networks: NetworksReport) -> str:
    """The call from Python."""
    paths = [str(path) for path in networks.networks.path]
    usual = FitOptions().to_dict()
    chosen = {key: value for key, value in networks.options.to_dict().items()
              if value != usual[key]}  # fmt: skip
    lines = [
        "import natstats",
        "",
        "natstats.meta_analysis(",
        "    [",
        *(f"        {path!r}," for path in paths),
        "    ],",
        *([f"    by={networks.by!r},"] if networks.by is not None else []),
        *(f"    {key}={value!r}," for key, value in chosen.items()),
        ")",
    ]
    return "\n".join(lines)


def _keys(networks: NetworksReport) -> list[tuple[str, str, str]]:
    """The numbers under the headline: name, value, and what stands beside the value."""
    rows = networks.subgroups.to_dict("records")
    keys = []
    for unit, per in (("depth", networks.per_unit), ("whole", networks.per_whole)):
        row = next(one for one in rows if one["unit"] == unit and one["subgroup"] == ALL)
        if np.isfinite(row["mean"]):
            value, _, ends = change(row["mean"], row["low"], row["high"]).partition(" ")
            keys.append((f"mean slope {per}", value, ends))
    verdicts = networks.networks.verdict.value_counts()
    found = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
    return [*keys, ("networks", str(len(networks.networks)), ""), ("each by itself", found, "")]


def _row(row: Mapping[Any, Any], is_grouped: bool, home: Path) -> dict[str, Any]:
    def cell(name: str, text: str) -> tuple[str, float | None]:
        return text, float(row[name]) if np.isfinite(row[name]) else None

    cells: list[tuple[str, float | None]] = [(row["subgroup"], None)] if is_grouped else []
    for end, more in (("", [(str(row["verdict"]), None)]), ("_whole", [])):
        low, high = row[f"slope{end}_low"], row[f"slope{end}_high"]
        cells += [
            cell(f"slope{end}", number(row[f"slope{end}"], 4, sign=True)),
            cell(f"slope{end}_low", interval(low, high, 4, sign=True)),
            cell(f"weight{end}", f"{100 * row[f'weight{end}']:.1f} %"),
            *more,
        ]
    cells += [
        cell("n_layers", str(row["n_layers"])),
        cell("deepest", short(row["deepest"])),
        *((str(row[name]), None) for name in ("model", "weights")),
    ]
    path = Path(str(row["path"])) if row.get("path") else None
    return {"name": row["network"], "link": link_to(path, home), "cells": cells}


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
