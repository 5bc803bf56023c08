"""The report on the laws of many networks: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from natstats._version import __version__
from natstats.fits.band_choice import band_text
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.numbers import change_cells
from natstats.report.figures.drawing import draw_networks
from natstats.report.pages.html import drawn_twice, embedded, link_to, write_page
from natstats.report.pages.page_tables import (
    Cell,
    Column,
    Table,
    interval_cell,
    number_cell,
    p_cell,
    plain_cell,
)
from natstats.report.records import ALL, CONTROL, NetworksReport

__all__ = ["write_networks_report"]

TITLES = {
    "rises": "Rises with depth, over networks",
    "falls": "Falls with depth, over networks",
    "no trend": "No common trend with depth",
    "too little to tell": "Too little to tell whether networks have a common trend",
}
"""Heading of the page by verdict."""


def write_networks_report(
    folder: Path, networks: NetworksReport, home: Path | None = None, command: str = ""
) -> Path:
    """Write ``figures/`` and ``report.html`` into `folder`.

    Args:
        folder: the directory; it must exist.
        networks: what to report.
        home: where `folder` will be, for links to the reports of the networks; by default where it
            is.
        command: command line that made it; empty when it was made from Python.

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
    more = {
        "figure_parts": figure,
        "repeat": repeat,
        "has_command": bool(command),
        "are_folders": _are_folders(networks),
    }
    return write_page(folder, "networks.html", contents | more)


def _contents(networks: NetworksReport, home: Path) -> dict[str, Any]:
    """Everything that the template fills in, but for the figure."""
    level = f"{100 * networks.options.level:g} %"
    tables = [
        (per, _means_table(networks, unit, per))
        for unit, per in (("depth", networks.per_unit), ("whole", networks.per_whole))
    ]
    fit = networks.options
    sample = _network_table(networks, home)
    return {
        "n": len(networks.networks),
        "title": TITLES[networks.verdict],
        "sentences": networks.sentences,
        "shape_sentence": networks.shape_sentence,
        "keys": _keys(networks),
        "notes": networks.notes,
        "by": networks.by,
        "sample": sample,
        "has_links": any(row[0].link for row in sample.rows),
        "tables": tables,
        "has_control": bool(networks.subgroups.subgroup.astype(str).str.startswith(CONTROL).any()),
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


def _are_folders(networks: NetworksReport) -> bool:
    """Whether all runs were given by their path, or found below one."""
    return all(Path(path).is_dir() for path in networks.networks.path)


def _repeat(networks: NetworksReport) -> str:
    """The call from Python; ``runs`` stands for runs that were in no folder."""
    paths = [str(path) for path in networks.networks.path]
    given = ["    [", *(f"        {path!r}," for path in paths), "    ],"]
    if not _are_folders(networks):
        given = ["    runs,"]
    usual = FitOptions().to_dict()
    chosen = {key: value for key, value in networks.options.to_dict().items()
              if value != usual[key]}  # fmt: skip
    lines = [
        "import natstats",
        "",
        "natstats.meta_analysis(",
        *given,
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
            told = change_cells(row["mean"], row["low"], row["high"])
            keys.append((f"mean slope {per}", *told))
    verdicts = networks.networks.verdict.value_counts()
    found = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
    return [*keys, ("networks", str(len(networks.networks)), ""), ("each by itself", found, "")]


def _network_table(networks: NetworksReport, home: Path) -> Table:
    """A row for every network, linked to the page of its run; the slope asked for is first."""
    level = f"{100 * networks.options.level:g} %"
    is_grouped = networks.by is not None
    units = {"": networks.per_unit, "_whole": networks.per_whole}
    first = "_whole" if networks.per == networks.per_whole else ""
    second = "" if first else "_whole"
    rows = networks.networks
    has_control = bool(np.isfinite(rows.random_slope).any())
    columns = [
        Column("network", "end of the path of its run", is_number=False, first="always"),
        *([Column("subgroup", f"by {networks.by}", False, "wide")] if is_grouped else []),
        *_slope_columns(units[first], level, is_first=True),
        Column("verdict", "of the law of this network by itself", False, "wide"),
        Column("layers", "in its law", first="wide"),
        *_slope_columns(units[second], level, is_first=False),
        Column("deepest", "depth of its deepest layer"),
        Column("model", "what it was called when it was measured", False, "room"),
        Column("family", "kind of network, by the name of its model", False),
        Column("weights", "where its weights come from", False, "room"),
        Column("images", "that it was measured on", False),
        *_control_columns(level, has_control),
    ]
    table = []
    for row in rows.to_dict("records"):
        place = row.get("place") or row.get("path")
        slopes = {end: _slope_cells(row, end) for end in units}
        cells = [
            Cell(str(row["network"]), None, link_to(Path(str(place)) if place else None, home)),
            *([Cell(str(row["subgroup"]))] if is_grouped else []),
            *slopes[first],
            Cell(str(row["verdict"])),
            plain_cell(row["n_layers"]),
            *slopes[second],
            plain_cell(row["deepest"]),
            *(Cell(_text(row[name])) for name in ("model", "family", "weights", "images")),
        ]
        if has_control:
            cells += [
                number_cell(row[f"random_slope{first}"], 4, sign=True),
                number_cell(row[f"difference{first}"], 4, sign=True),
                interval_cell(
                    row[f"difference{first}_low"], row[f"difference{first}_high"], 4, sign=True
                ),
            ]
        table.append(cells)
    # Columns that only the page needs are not in the file.
    file = rows.drop(columns=["value", "low", "high", "share", "place"], errors="ignore")
    return Table("networks", "networks", columns, table, file, "networks.csv")


def _slope_columns(per: str, level: str, *, is_first: bool) -> list[Column]:
    """The slope that the networks are compared by, or the other one."""
    if is_first:
        return [
            Column(f"slope {per}", "of its law", first="always"),
            Column(f"{level} interval", "of the slope; sorted by its lower end", first="always"),
            Column("weight", "its share in the mean over networks", first="wide"),
        ]
    return [
        Column(f"slope {per}", "of its law", first="room"),
        Column(f"{level} interval {per}", "of that slope; sorted by its lower end", first="room"),
        Column(f"weight {per}", "its share in the mean over networks of that slope"),
    ]


def _control_columns(level: str, has_control: bool) -> list[Column]:
    """The columns on random weights, where these were measured."""
    if not has_control:
        return []
    return [
        Column("random weights", "slope with random weights, mean over their seeds"),
        Column("trained − random", "change of the slope by training"),
        Column(f"{level} interval of that", "of the change by training; sorted by its lower end"),
    ]


def _slope_cells(row: Mapping[Any, Any], end: str) -> list[Cell]:
    """Slope, interval and weight; with `end` ``_whole``, of the slope over the whole depth."""
    return [
        number_cell(row[f"slope{end}"], 4, sign=True),
        interval_cell(row[f"slope{end}_low"], row[f"slope{end}_high"], 4, sign=True),
        Cell(f"{100 * row[f'weight{end}']:.1f} %", float(row[f"weight{end}"]))
        if np.isfinite(row[f"weight{end}"])
        else Cell("–"),
    ]


def _text(value: Any) -> str:
    """What a table says in words; a dash for what was not kept."""
    return str(value) if isinstance(value, str) and value else "–"


def _means_table(networks: NetworksReport, unit: str, per: str) -> Table:
    """A row for all networks, for each subgroup, and for those with a control, of one slope."""
    level = f"{100 * networks.options.level:g} %"
    columns = [
        Column("networks", "which they are", is_number=False, first="always"),
        Column("number", "of networks", first="wide"),
        Column("mean slope", per, first="always"),
        Column(f"{level} interval", "of the mean; sorted by its lower end", first="always"),
        Column("p", "of the test that the mean is zero", first="wide"),
        Column("the next network", f"where its slope is expected, {level}", first="wide"),
        Column("sd between", "standard deviation of the true slopes", first="wide"),
        Column("share", "its part of the variance of the measured slopes", first="wide"),
        Column("one slope: p", "of the test that all networks have one slope", first="wide"),
    ]
    means = networks.subgroups[networks.subgroups.unit == unit]
    rows = [_means_cells(row) for row in means.to_dict("records")]
    name = f"means, slope {per}"
    return Table(f"means-{unit}", name, columns, rows, means, "subgroups.csv")


def _means_cells(row: Mapping[Any, Any]) -> list[Cell]:
    has_next, has_spread = np.isfinite(row["next_low"]), np.isfinite(row["tau"])
    return [
        Cell(str(row["subgroup"])),
        plain_cell(row["n"]),
        number_cell(row["mean"], 4, sign=True),
        interval_cell(row["low"], row["high"], 4, sign=True),
        p_cell(row["p"]),
        interval_cell(row["next_low"], row["next_high"], 4, sign=True) if has_next else Cell("–"),
        number_cell(row["tau"], 4),
        Cell(f"{100 * row['i2']:.0f} %", float(row["i2"])) if has_spread else Cell("–"),
        p_cell(row["q_p"]),
    ]
