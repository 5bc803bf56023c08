"""The results of a run as the report page shows them: texts and numbers, no HTML."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.extremes import steepest_and_flattest
from natstats.fits.flags import FIT_FLAGS, LAYOUT_FLAGS
from natstats.fits.forms import FORMS, flag_meanings
from natstats.fits.options import FitOptions
from natstats.law.law import Law, format_p
from natstats.numbers import change_cells, estimate, map_size, number, share
from natstats.report.figures.points import flag_names
from natstats.report.pages.page_tables import (
    Cell,
    Column,
    First,
    Table,
    interval_cell,
    number_cell,
    p_cell,
    plain_cell,
)
from natstats.text import printable

__all__ = ["extremes", "flag_rows", "image_table", "key_numbers", "layer_table", "shape_rows"]


def layer_table(layers: pd.DataFrame, options: FitOptions) -> Table:
    """The layer table, a row for every layer; with a control, what training did to each."""
    has_control = "difference" in layers
    level = f"{100 * options.level:g} %"
    own = ESTIMATORS[options.estimator]
    others = [one for one in ESTIMATORS.values() if one is not own]
    columns = [
        Column("layer", "module name; :1 is its second call", is_number=False, first="always"),
        Column("kind", "of the module", is_number=False, first="wide"),
        Column("depth", "weight layers on the longest path from the input", first="wide"),
        Column("map", "height × width, pixels; or the length of a clip", first="wide"),
        Column(
            "exponent",
            f"of the mean spectrum, by the estimator {own.name}: {own.meaning}",
            first="always",
        ),
        Column(
            f"{level} interval",
            "from resampling the images; sorted by its lower end",
            first="always",
        ),
        Column(
            "flags", "what to know before using the number", False, first="always", is_list=True
        ),
        *(_control_columns(level) if has_control else []),
        Column("in the law", "yes, or why it is not", is_number=False),
        Column("best form", f"by AICc, among: {', '.join(FORMS)}", is_number=False),
        Column("gain", "AICc of the power law above that of the best form"),
        Column("image mean", "mean of the exponents of single images"),
        Column("image sd", "standard deviation of the exponents of single images"),
        *(Column(one.name, f"exponent by {one.name}: {one.meaning}") for one in others),
        Column("R²", "share of the variance of log power that the fit explains"),
        Column("curvature", "coefficient of (ln frequency)² in what the fit leaves"),
        Column("its p", "of the test that the curvature is zero"),
        Column("order", "weight layers executed up to and including this one"),
        Column("receptive field", "its theoretical side along the height, pixels of the input"),
        Column("rings", "rings of frequencies in the fit"),
        Column("maps", "number of channels"),
        Column("stride", "pixels of the input per pixel of the map"),
        Column("images", "in the mean spectrum"),
    ]
    rows = [
        [
            Cell(str(row["layer"])),
            Cell(str(row["kind"])),
            Cell(f"{row['depth']:d}", row["depth"]),
            Cell(map_size(row["height"], row["width"]), row["height"] * row["width"]),
            number_cell(row["exponent"]),
            interval_cell(row["exponent_low"], row["exponent_high"]),
            Cell(str(row["flags"] or "")),
            *(_control_cells(row) if has_control else []),
            Cell(str(row["law"])),
            Cell(str(row["best_form"] or "–")),
            number_cell(row["aicc_gain"], 1),
            number_cell(row["exponent_image_mean"]),
            number_cell(row["exponent_image_sd"]),
            *(number_cell(row[one.column]) for one in others),
            Cell(share(row["r2"]), row["r2"] if math.isfinite(row["r2"]) else None),
            number_cell(row["curvature"]),
            p_cell(row["curvature_p"]),
            *(plain_cell(row[name]) for name in ("order", "receptive_field")),
            *(Cell(f"{row[name]:d}", row[name]) for name in ("n_rings", "channels")),
            plain_cell(row["stride"]),
            Cell(f"{row['n_images']:d}", row["n_images"]),
        ]
        for row in layers.to_dict("records")
    ]
    return Table("layer", "layers", columns, rows, layers, "layers.csv")


def _control_columns(level: str) -> list[Column]:
    return [
        Column("trained − random", "difference to the mean over random weights", first="room"),
        Column(f"{level} interval of that", "from images and seeds; sorted by its lower end"),
        Column("p, Holm", "of that, corrected for the number of layers", first="room"),
    ]


def _control_cells(row: Mapping[Hashable, Any]) -> list[Cell]:
    """What training did to a layer; dashes where that is not known, as for the images."""
    value, low, high, p = (
        row[f"difference{part}"] for part in ("", "_low", "_high", "_p_corrected")
    )
    if not math.isfinite(value):
        return [Cell("–")] * 3
    return [number_cell(value, sign=True), interval_cell(low, high, sign=True), p_cell(p)]


def extremes(layers: pd.DataFrame) -> list[dict[str, Any]]:
    """The steepest and the flattest layer, for the top of the page; none with fewer than two.

    Returns:
        Of each: word, layer, the next one in that direction, whether it is apart from all others,
        how many have overlapping intervals, and the nearest of these or None; of a layer its name,
        link, exponent with interval, flags.
    """
    return [
        {
            "word": one.word,
            "layer": _named(one.row),
            "next": _named(one.following),
            "is_apart": one.is_apart,
            "overlapping": len(one.overlapping),
            "nearest": _named(one.overlapping[0]) if one.overlapping else None,
        }
        for one in steepest_and_flattest(layers)
    ]


def _named(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    name = str(row["layer"])
    return {
        "name": name,
        "link": f"#layer={quote(printable(name), safe='')}",
        "told": estimate(row["exponent"], row["exponent_low"], row["exponent_high"]),
        "flags": [flag for flag in str(row["flags"] or "").split("; ") if flag],
    }


def key_numbers(law: Law, n_images: int) -> list[tuple[str, str, str]]:
    """The numbers under the headline: name, value, and what stands beside the value."""
    counts = [("layers", f"{law.n_layers}", "in the law"), ("images", f"{n_images}", "")]
    if not np.isfinite(law.slope):
        return counts
    within = (
        law.slope_within_resolution,
        law.slope_within_resolution_low,
        law.slope_within_resolution_high,
    )
    lack, best = format_p(law.lack_of_fit_p), law.best_shape
    return [
        (
            f"slope of the law {DEPTH_AXES[law.depth].per}",
            *_apart(law.slope, law.slope_low, law.slope_high),
        ),
        ("slope within one map size", *_apart(*within)),
        ("rank correlation", number(law.rank_correlation, sign=True), f"p {format_p(law.rank_p)}"),
        ("lack of fit of the line", f"p {lack}", ""),
        ("best shape", best or "not available", "by AICc" if best else ""),
        ("scatter of layers about the line", number(law.between_layer_sd), "standard deviation"),
        *counts,
    ]


def _apart(value: float, low: float, high: float) -> tuple[str, str]:
    """A signed estimate and its interval."""
    if not math.isfinite(value):
        return "not available", ""
    return change_cells(value, low, high)


def shape_rows(law: Law) -> list[tuple[str, str]]:
    """Shape and AICc above the best, the best first; those that could not be fitted last."""
    if law.best_shape is None:
        return []
    least = law.shapes[law.best_shape]
    order = sorted(law.shapes.items(), key=lambda item: (not np.isfinite(item[1]), item[1]))
    return [
        (name, number(value - least, 1) if np.isfinite(value) else "too few layers")
        for name, value in order
    ]


def flag_rows(layers: pd.DataFrame) -> list[tuple[str, str]]:
    """The flags that occur, with their meaning."""
    meanings = FIT_FLAGS | LAYOUT_FLAGS | flag_meanings()
    return [(flag, meanings.get(flag, "")) for flag in flag_names(layers)]


def image_table(image_exponents: pd.DataFrame, options: FitOptions) -> Table:
    """How the exponents of single images spread, for layers with two of them or more."""
    level = f"{100 * options.level:g} %"
    told: dict[str, tuple[str, str, First]] = {
        "mean": ("mean", "of the exponents of single images", "always"),
        "sd": ("sd", "their standard deviation", "always"),
        "q50": ("median", "half of the images have a smaller exponent", "wide"),
        "q05": ("5 %", "5 % of the images have a smaller exponent", "wide"),
        "q95": ("95 %", "95 % of the images have a smaller exponent", "wide"),
    }
    columns = [
        Column("layer", "module name", is_number=False, first="always"),
        Column("images", "that have an exponent of their own", first="wide"),
        *(
            Column(label, f"{meaning}, with its {level} interval", first=first)
            for label, meaning, first in told.values()
        ),
    ]
    shown = image_exponents[image_exponents.n > 1]
    rows = []
    for row in shown.to_dict("records"):
        cells = [
            Cell(
                estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]),
                float(row[name]),
            )
            if math.isfinite(row[name])
            else Cell("–")
            for name in told
        ]
        rows.append([Cell(str(row["layer"])), Cell(f"{row['n']:d}", row["n"]), *cells])
    return Table(
        "images", "exponents of single images", columns, rows, shown, "image_exponents.csv"
    )
