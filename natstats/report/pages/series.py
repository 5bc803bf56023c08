"""The report of a series as one HTML file that needs nothing else, and links those of its runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from natstats._version import __version__
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.law.law import format_p
from natstats.numbers import interval, number, short
from natstats.report.figures.drawing import draw_series
from natstats.report.pages import provenance
from natstats.report.pages.html import drawn_twice, embedded, write_page
from natstats.report.records import SeriesReport

__all__ = ["write_series_report"]

COLUMNS = (
    ("checkpoint", False),
    ("step", True),
    ("verdict", False),
    ("slope", True),
    ("interval", True),
    ("p", True),
    ("mean exponent", True),
    ("interval", True),
    ("layers", True),
    ("best shape", False),
)
"""Heads of the table, and whether they stand over numbers."""

CHANGE_COLUMNS = ("layer", "kind", "depth", "first", "last", "difference", "interval", "p, Holm")


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
        "exponents": "A line for each layer, in the colour of its depth. Of more than six layers, "
        "names and intervals are those of the first, the last, the two that change most, and the "
        "highest and the lowest at the end. The images are the same at every checkpoint, so "
        "theirs is a level line. All intervals are in exponents.csv.",
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
        "sentence": series.sentence,
        "columns": COLUMNS,
        "rows": [_row(row) for row in series.frame.to_dict("records")],
        "change": series.change,
        "change_columns": CHANGE_COLUMNS,
        "change_rows": [_change_row(row) for row in series.change.layers.to_dict("records")],
        "measured": [
            ("unit of the slopes", DEPTH_AXES[options.depth].per),
            *provenance.measured(series.info, options),
        ],
        "repeat": _repeat(series.info, options),
        "has_command": bool(series.info.get("command")),
        "version": (series.info.get("versions") or {}).get("natstats", __version__),
    }


def _repeat(info: Mapping[str, Any], options: FitOptions) -> str:
    """As for a run; from Python it is another function."""
    shown = {"model": {"name": info.get("name"), "weights": "the checkpoints"}, **info}
    text = provenance.repeat(shown, options)
    if info.get("command"):
        return text
    return text.replace(
        "run = natstats.measure(\n    model,",
        "series = natstats.measure_series(\n    model,\n    checkpoints,",
    )


def _row(row: Mapping[Any, Any]) -> dict[str, Any]:
    def cell(name: str, text: str) -> tuple[str, float | None]:
        return text, float(row[name]) if np.isfinite(row[name]) else None

    return {
        "name": row["checkpoint"],
        "link": f"{quote(os.fsencode(str(row['checkpoint'])))}/report.html",
        "cells": [
            cell("step", str(row["step"])),
            (row["verdict"], None),
            cell("slope", number(row["slope"], 4, sign=True)),
            cell("slope_low", interval(row["slope_low"], row["slope_high"], 4, sign=True)),
            cell("slope_p", format_p(row["slope_p"]).removeprefix("= ")),
            cell("exponent_mean", number(row["exponent_mean"])),
            cell(
                "exponent_mean_low", interval(row["exponent_mean_low"], row["exponent_mean_high"])
            ),
            cell("n_layers", str(row["n_layers"])),
            (row["best_shape"], None),
        ],
    }


def _change_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    corrected = row["p_corrected"]
    return (
        row["layer"],
        row["kind"],
        short(row["depth"]),
        number(row["exponent_a"]),
        number(row["exponent_b"]),
        number(row["difference"], 3, sign=True),
        interval(row["low"], row["high"], 3, sign=True),
        format_p(corrected).removeprefix("= ") if np.isfinite(corrected) else "–",
    )
