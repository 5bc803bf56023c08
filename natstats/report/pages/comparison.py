"""The report of two runs compared: one self-contained HTML file that links their own reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from natstats._version import __version__
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.differences import Estimate
from natstats.law.law import format_p
from natstats.numbers import change_cells, estimate
from natstats.report.figures.drawing import draw_comparison
from natstats.report.pages import provenance
from natstats.report.pages.html import drawn_twice, embedded, link_to, link_to_layer, write_page
from natstats.report.pages.page_tables import (
    Cell,
    Column,
    Table,
    interval_cell,
    number_cell,
    p_cell,
    plain_cell,
)
from natstats.report.records import ComparisonReport

__all__ = ["write_comparison_report"]

TITLES = {"difference": "What differs", "compare": "Both laws"}
"""Headings of the figures."""

CAPTIONS = {
    "difference": "Above: exponents of the layers that both runs have by name, with their "
    "intervals. Below: B minus A; filled where a layer differs after correction for the number of "
    "layers.",
    "compare": "All layers of both runs against depth, with the line of each law; a dashed line "
    "was not shown to be a law.",
}


def write_comparison_report(
    folder: Path, comparison: ComparisonReport, home: Path | None = None, command: str = ""
) -> Path:
    """Write ``figures/`` and ``report.html`` into `folder`.

    Args:
        folder: the directory; it must exist.
        comparison: what to report.
        home: where `folder` will be, for links to the reports of the runs; by default where it is.
        command: command line that made it; empty when it was made from Python.

    Returns:
        The page.
    """
    drawn = drawn_twice(lambda place: draw_comparison(comparison, place), folder)
    figures = [
        {
            "key": key,
            "title": TITLES[key],
            "caption": CAPTIONS[key],
            "image": embedded(f"{TITLES[key]}. {comparison.difference.sentence}", *pictures),
        }
        for key, pictures in drawn.items()
    ]
    contents = _contents(comparison, home or folder, command)
    return write_page(folder, "comparison.html", {**contents, "figures": figures})


def _contents(comparison: ComparisonReport, home: Path, command: str) -> dict[str, Any]:
    """Everything that the template fills in, but for the figures."""
    names, runs = comparison.difference.names, comparison.runs
    level = f"{100 * runs[0].options.level:g} %"
    links = [link_to(path, home) for path in comparison.paths]
    return {
        "title": comparison.headline,
        "names": names,
        "links": links,
        "sentence": comparison.difference.sentence,
        "keys": _keys(comparison),
        "notes": list(comparison.difference.notes),
        "layers": _layer_table(comparison, level, links),
        "only": comparison.only,
        "facts": _facts(comparison),
        "repeat": command or _repeat(comparison),
        "has_command": bool(command),
        "level": level,
        "version": __version__,
    }


def _keys(comparison: ComparisonReport) -> list[tuple[str, str, str]]:
    """The numbers under the headline: name, value, and what stands beside the value."""
    per = DEPTH_AXES[comparison.runs[0].options.depth].per
    keys = []
    for name, found in (
        (f"difference of the slopes {per}", comparison.slope),
        ("difference of the mean exponents", comparison.mean),
    ):
        if np.isfinite(found.value):
            keys.append((name, *_apart(found)))
    if comparison.n_layers:
        differing = f"{comparison.n_differ} of {comparison.n_layers}"
        keys.append(("layers that differ", differing, "after Holm's correction"))
    for letter, run in zip("AB", comparison.runs, strict=True):
        law = run.law
        if np.isfinite(law.slope):
            own = Estimate(law.slope, law.slope_low, law.slope_high, law.trend_p)
            keys.append((f"slope of the law of {letter} {per}", *_apart(own)))
    return [
        *keys,
        ("images", "the same" if comparison.is_paired else "different", _paired(comparison)),
    ]


def _paired(comparison: ComparisonReport) -> str:
    return "in both: paired" if comparison.is_paired else "not paired"


def _apart(found: Estimate) -> tuple[str, str]:
    """An estimate, and its interval with its p."""
    value, ends = change_cells(found.value, found.low, found.high)
    p = f", p {format_p(found.p)}" if np.isfinite(found.p) else ""
    return value, f"{ends}{p}"


def _layer_table(comparison: ComparisonReport, level: str, links: Sequence[str]) -> Table:
    """A row for every layer of both; the exponents link to the pages of their runs."""
    layers = comparison.difference.layers
    columns = [
        Column("layer", "module name; :1 is its second call", is_number=False, first="always"),
        Column("kind", "of the module", is_number=False, first="wide"),
        Column("depth", "weight layers on the longest path from the input", first="wide"),
        Column("A", f"exponent in A, with its {level} interval", first="wide"),
        Column("B", f"exponent in B, with its {level} interval", first="wide"),
        Column("B − A", "difference of the exponents", first="always"),
        Column(f"{level} interval", "of the difference; sorted by its lower end", first="always"),
        Column(
            "p, Holm",
            "of the test that there is no difference; corrected for all layers",
            first="always",
        ),
        Column("p", "of the same test, for this layer by itself"),
        Column("flags", "what to know before using the numbers", False, "wide", is_list=True),
    ]
    rows = []
    for row in layers.to_dict("records"):
        ends = [
            Cell(
                estimate(row[f"exponent_{end}"], row[f"low_{end}"], row[f"high_{end}"]),
                number_cell(row[f"exponent_{end}"]).value,
                link_to_layer(link, row["layer"]),
            )
            for end, link in zip("ab", links, strict=True)
        ]
        rows.append(
            [
                Cell(row["layer"]),
                Cell(row["kind"]),
                plain_cell(row["depth"]),
                *ends,
                number_cell(row["difference"], 3, sign=True),
                interval_cell(row["low"], row["high"], 3, sign=True),
                p_cell(row["p_corrected"]),
                p_cell(row["p"]),
                Cell(row["flags"]),
            ]
        )
    return Table("layers", "layers", columns, rows, layers, "comparison.csv")


def _facts(comparison: ComparisonReport) -> list[tuple[str, str, str]]:
    """How each run was measured: label, A and B, in the order of A."""
    first, second = (dict(provenance.measured(run.info, run.options)) for run in comparison.runs)
    labels = dict.fromkeys([*first, *second])
    return [(label, first.get(label, "–"), second.get(label, "–")) for label in labels]


def _repeat(comparison: ComparisonReport) -> str:
    """The call from Python; a run that is in no folder is called ``run``."""
    opened = [
        "run" if path is None else f"natstats.Run.open({str(path)!r})" for path in comparison.paths
    ]
    lines = ["import natstats", "", "natstats.compare(", *(f"    {one}," for one in opened), ")"]
    return "\n".join(lines)
