"""The report of a series: one self-contained HTML file that links the reports of its runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from natstats._version import __version__
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.report.figures.drawing import draw_series
from natstats.report.pages import provenance
from natstats.report.pages.html import drawn_twice, embedded, link_to_layer, write_page
from natstats.report.pages.page_tables import (
    Cell,
    Column,
    Table,
    interval_cell,
    number_cell,
    p_cell,
    plain_cell,
)
from natstats.report.pages.verdict import verdict_meanings
from natstats.report.records import SeriesReport

__all__ = ["write_series_report"]


def write_series_report(folder: Path, series: SeriesReport) -> Path:
    """Write ``figures/`` and ``report.html`` into `folder`.

    Args:
        folder: the directory of the series; it must exist.
        series: what to report.

    Returns:
        The page.
    """
    drawn = drawn_twice(lambda place: draw_series(series, place), folder)
    titles = {"exponents": "Exponents over training", "slopes": "Slope of the law over training"}
    captions = {
        "exponents": "A line for each layer, in the colour of its depth. If there are more than "
        "six, only the first, the last, the two that change most, and the highest and the lowest "
        "at the end have a name and an interval. The images are the same at every checkpoint, so "
        "their line is level. All intervals are in exponents.csv.",
        "slopes": "Slope of the exponent against depth at every checkpoint, with its interval; "
        "the mark is the verdict of the tests of that law. The checkpoints share their images, "
        "so two of them can differ clearly though their intervals overlap.",
    }
    figures = [
        {
            "key": key,
            "title": titles[key],
            "caption": captions[key],
            "image": embedded(titles[key], *pictures),
        }
        for key, pictures in drawn.items()
    ]
    return write_page(folder, "series.html", {**_contents(series), "figures": figures})


def _contents(series: SeriesReport) -> dict[str, Any]:
    """Everything that the template fills in, but for the figures."""
    options = series.options
    return {
        "name": series.name,
        "n": len(series.frame),
        "step_name": series.step_name,
        "first": series.frame.iloc[0],
        "last": series.frame.iloc[-1],
        "headline": series.change.headline,
        "sentence": series.sentence,
        "reasons": verdict_meanings(series.frame.verdict),
        "checkpoints": _checkpoint_table(series),
        "change": series.change,
        "changes": _change_table(series),
        "measured": [
            ("unit of the slopes", DEPTH_AXES[options.depth].per),
            *provenance.measured(series.info, options),
        ],
        "repeat": _repeat(series.info, options),
        "has_command": bool(series.info.get("command")),
        "version": (series.info.get("versions") or {}).get("natstats", __version__),
    }


def _repeat(info: Mapping[str, Any], options: FitOptions) -> str:
    """How to repeat it, as for a run; from Python the function is another one."""
    shown = {"model": {"name": info.get("name"), "weights": "the checkpoints"}, **info}
    text = provenance.repeat(shown, options)
    if info.get("command"):
        return text
    return text.replace(
        "run = natstats.measure(\n    model,",
        "series = natstats.measure_series(\n    model,\n    checkpoints,",
    )


def _checkpoint_table(series: SeriesReport) -> Table:
    """A row for every checkpoint, linked to its page."""
    level = f"{100 * series.options.level:g} %"
    columns = [
        Column("checkpoint", "name of its run", is_number=False, first="always"),
        Column("step", f"{series.step_name} that it was saved at", first="wide"),
        Column("verdict", "of the law of this checkpoint", is_number=False, first="always"),
        Column("slope", DEPTH_AXES[series.options.depth].per, first="always"),
        Column(f"{level} interval", "of the slope; sorted by its lower end", first="always"),
        Column("p", "of the test that there is no trend", first="wide"),
        Column("mean exponent", "over the layers that count", first="wide"),
        Column("its interval", f"{level}; sorted by its lower end", first="wide"),
        Column("layers", "in the law", first="wide"),
        Column("best shape", "by AICc", is_number=False, first="wide"),
    ]
    rows = [
        [
            Cell(str(row["checkpoint"]), None, _page_of(row["checkpoint"])),
            Cell(str(row["step"]), float(row["step"])),
            Cell(row["verdict"]),
            number_cell(row["slope"], 4, sign=True),
            interval_cell(row["slope_low"], row["slope_high"], 4, sign=True),
            p_cell(row["slope_p"]),
            number_cell(row["exponent_mean"]),
            interval_cell(row["exponent_mean_low"], row["exponent_mean_high"]),
            Cell(str(row["n_layers"]), float(row["n_layers"])),
            Cell(str(row["best_shape"] or "–")),
        ]
        for row in series.frame.to_dict("records")
    ]
    return Table("checkpoints", "checkpoints", columns, rows, series.frame, "series.csv")


def _page_of(checkpoint: str) -> str:
    """The address of the page of a checkpoint, below that of its series."""
    return f"{quote(os.fsencode(str(checkpoint)))}/report.html"


def _change_table(series: SeriesReport) -> Table:
    """A row for every layer; its exponents link to the pages of the first and last checkpoint."""
    level = f"{100 * series.options.level:g} %"
    layers = series.change.layers
    columns = [
        Column("layer", "module name; :1 is its second call", is_number=False, first="always"),
        Column("kind", "of the module", is_number=False, first="wide"),
        Column("depth", "weight layers on the longest path from the input", first="wide"),
        Column("first", "exponent at the first checkpoint", first="wide"),
        Column("last", "exponent at the last checkpoint", first="wide"),
        Column("difference", "last minus first", first="always"),
        Column(f"{level} interval", "of the difference; sorted by its lower end", first="always"),
        Column(
            "p, Holm", "of the test that nothing changed; corrected for all layers", first="always"
        ),
        Column("flags", "what to know before using the numbers", False, is_list=True),
    ]
    ends = [_page_of(series.frame.checkpoint.iloc[place]) for place in (0, -1)]
    rows = [
        [
            Cell(row["layer"]),
            Cell(row["kind"]),
            plain_cell(row["depth"]),
            *(
                replace(number_cell(row[f"exponent_{end}"]), link=link_to_layer(page, row["layer"]))
                for end, page in zip("ab", ends, strict=True)
            ),
            number_cell(row["difference"], 3, sign=True),
            interval_cell(row["low"], row["high"], 3, sign=True),
            p_cell(row["p_corrected"]),
            Cell(str(row.get("flags") or "")),
        ]
        for row in layers.to_dict("records")
    ]
    return Table("change", "what changed of each layer", columns, rows, layers, "change.csv")
