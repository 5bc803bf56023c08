"""Results as tables: data frames to work with, text to read."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.estimators import ESTIMATORS
from natstats.fits.extremes import steepest_and_flattest
from natstats.fits.flags import OWN_OUTPUT
from natstats.fits.records import Fits
from natstats.law.law import bare_p
from natstats.law.law_layers import layers_of_law
from natstats.numbers import (
    MINUS,
    counted,
    estimate,
    estimate_cells,
    evenly_spaced,
    map_size,
    share,
)
from natstats.runs.text_columns import Column, fitted
from natstats.spectra.records import Layer, LayerSpectrum, SkippedLayer
from natstats.text import printable

__all__ = [
    "evenly", "in_law", "law_frame", "layers_frame", "left_out", "not_shown", "skipped_frame",
    "text_table", "with_control",
]  # fmt: skip


def layers_frame(spectra: Sequence[LayerSpectrum], fits: Fits, forms: pd.DataFrame) -> pd.DataFrame:
    """One row per layer, in the order of execution, the input images first.

    Columns: layer, call, kind, depth, order, receptive_field, channels, height, width, stride,
    layout, n_images, n_rings, exponent, exponent_low, exponent_high, a column for every record of
    :data:`natstats.fits.estimators.ESTIMATORS`, such as exponent_octave, exponent_image_mean,
    exponent_image_sd, r2, curvature, curvature_p, best_form, aicc_gain, flags, law (``yes``, or
    why the layer is not in the law, see :func:`natstats.law.law_layers.layers_of_law`).

    Args:
        spectra: spectra of the layers.
        fits: fits of the same layers.
        forms: comparison of forms for the same layers, see
            :func:`natstats.fits.form_comparison.forms_frame`.
    """
    rows = []
    for measured, fit, form in zip(spectra, fits.layers, forms.to_dict("records"), strict=True):
        layer = measured.layer
        rows.append(
            {
                "layer": layer.name,
                "call": layer.call,
                "kind": layer.kind,
                "depth": layer.depth,
                "order": np.nan if layer.order is None else layer.order,
                "receptive_field": layer.receptive_field,
                "channels": layer.channels,
                "height": layer.height,
                "width": layer.width,
                "stride": layer.stride,
                "layout": layer.layout,
                "n_images": fit.n_images,
                "n_rings": fit.n_rings,
                "exponent": fit.exponent,
                "exponent_low": fit.low,
                "exponent_high": fit.high,
                **{ESTIMATORS[name].column: value for name, value in fit.by_estimator.items()},
                "exponent_image_mean": fit.image_mean,
                "exponent_image_sd": fit.image_sd,
                "r2": fit.r2,
                "curvature": fit.curvature,
                "curvature_p": fit.curvature_p,
                "best_form": form["best_form"],
                "aicc_gain": form["aicc_gain"],
                "flags": "; ".join(
                    [*fit.flags, *filter(None, [form["flag"]]), *_layout_flags(layer)]
                ),
            }
        )
    frame = pd.DataFrame(rows)
    if rows:
        options = fits.options
        frame["law"] = layers_of_law(frame, options.law_layers, options.depth)[1]
    return frame


def with_control(layers: pd.DataFrame, control: pd.DataFrame) -> pd.DataFrame:
    """The table of layers with what training did to each; the images have none of it.

    Adds columns: control_mean, difference, difference_low, difference_high,
    difference_p_corrected.

    Args:
        layers: the columns of :func:`layers_frame`.
        control: a row for each layer but the images, see :attr:`natstats.runs.control.Control`.
    """
    inner = (layers.kind != "input").to_numpy()
    added = {}
    for name, own in _OF_CONTROL.items():
        values = np.full(len(layers), np.nan)
        values[inner] = control[own]
        added[name] = values
    return layers.assign(**added)


_OF_CONTROL = {
    "control_mean": "control_mean",
    "difference": "difference",
    "difference_low": "low",
    "difference_high": "high",
    "difference_p_corrected": "p_corrected",
}
"""Columns of a control in the table of layers, and in its own."""


def law_frame(spectra: Sequence[LayerSpectrum], fits: Fits) -> pd.DataFrame:
    """What a law and its verdict need of each layer; brief fits have all of it.

    Columns as in :func:`layers_frame`: layer, kind, depth, order, receptive_field, height, width,
    n_rings, exponent, exponent_low, exponent_high, flags (without those of other forms), and what
    else a :class:`natstats.spectra.records.Layer` has.
    """
    rows = [
        {
            **vars(measured.layer),
            "layer": measured.layer.name,
            "order": np.nan if measured.layer.order is None else measured.layer.order,
            "n_rings": fit.n_rings,
            "exponent": fit.exponent,
            "exponent_low": fit.low,
            "exponent_high": fit.high,
            "flags": "; ".join([*fit.flags, *_layout_flags(measured.layer)]),
        }
        for measured, fit in zip(spectra, fits.layers, strict=True)
    ]
    return pd.DataFrame(rows)


def in_law(spectra: Sequence[LayerSpectrum], fits: Fits) -> NDArray[np.bool_]:
    """Whether each layer is in the law that the fits ask for, (L,).

    Args:
        spectra: spectra of the layers.
        fits: fits of the same layers.

    Raises:
        UsageError: a part of the selection matches no layer.
    """
    if not spectra:
        return np.zeros(0, dtype=bool)
    options = fits.options
    return layers_of_law(law_frame(spectra, fits), options.law_layers, options.depth)[0]


def _layout_flags(layer: Layer) -> list[str]:
    """Flags of a layer that come from its place in the network and from its layout."""
    flags = [OWN_OUTPUT] if layer.is_output else []
    flags += [word for word in ("quantized", "regions") if word in layer.layout.split()]
    return [*flags, "layout by rule"] if layer.layout.endswith(" by rule") else flags


def skipped_frame(skipped: Sequence[SkippedLayer]) -> pd.DataFrame:
    """One row per layer that was not measured: layer, kind, reason."""
    rows = [(layer.name, layer.kind, layer.reason) for layer in skipped]
    return pd.DataFrame(rows, columns=["layer", "kind", "reason"])


_COLUMNS = (
    Column("layer", True, cut="name"), Column("depth", rank=1), Column("exponent"),
    Column("interval"), Column(f"{MINUS} random", rank=2), Column("its interval", rank=4),
    Column("Holm p", rank=3), Column("kind", True, rank=5), Column("map", rank=6),
    Column("R2", rank=7), Column("flags", True, cut="list"),
)  # fmt: skip
"""The main columns of a run; on narrow terminals those of high rank are dropped first. Only with a
control it has the exponent less that with random weights."""

_WITHOUT_CONTROL = [0, 1, 2, 3, 7, 8, 9, 10]
"""Places of the columns of a run without a control."""


def text_table(
    layers: pd.DataFrame, rows: int | None = None, width: int | None = None, how: str = ""
) -> str:
    """The main columns as aligned text; from more than `rows` layers, evenly spaced ones.

    Args:
        layers: the table of a run.
        rows: at most so many.
        width: of the terminal, see :func:`natstats.runs.text_columns.fitted`; None for all columns.
        how: command that shows all rows, for the last line; empty for none.

    >>> frame = pd.DataFrame({"layer": ["conv1"], "kind": ["conv"], "depth": [1], "height": [8],
    ...     "width": [8], "exponent": [1.5], "exponent_low": [1.4], "exponent_high": [1.6],
    ...     "r2": [0.99], "flags": [""]})
    >>> print(text_table(frame))
    layer  depth  exponent      interval  kind  map     R2  flags
    conv1      1      1.50  1.40 to 1.60  conv  8x8  0.990
    """
    shown = evenly(layers, rows)
    cells = [
        (
            str(row["layer"]),
            f"{row['depth']}",
            *estimate_cells(row["exponent"], row["exponent_low"], row["exponent_high"]),
            *_control_cells(row),
            str(row["kind"]),
            map_size(row["height"], row["width"]).replace(" × ", "x"),
            share(row["r2"], missing="-"),
            row["flags"],
        )
        for row in shown.to_dict("records")
    ]
    places = range(len(_COLUMNS)) if "difference" in layers else _WITHOUT_CONTROL
    return fitted(
        [_COLUMNS[n] for n in places],
        [[row[n] for n in places] for row in cells],
        width,
        "\n".join(filter(None, [not_shown(layers, rows, how), _extremes(layers)])),
    )


def _control_cells(row: Mapping[Hashable, Any]) -> tuple[str, str, str]:
    """What training did to a layer: difference, interval, corrected p."""
    if "difference" not in row:
        return "", "", ""
    low, high = row["difference_low"], row["difference_high"]
    return (
        *estimate_cells(row["difference"], low, high, sign=True),
        bare_p(row["difference_p_corrected"], "-"),
    )


def _extremes(layers: pd.DataFrame) -> str:
    """The steepest and the flattest layer, their flags, and whether others may be as steep."""
    told = []
    for one in steepest_and_flattest(layers):
        flags = f", {one.row['flags'].replace('; ', ', ')}" if one.row["flags"] else ""
        beside = "; apart from all other layers" if one.is_apart else ""
        if one.overlapping:
            name, told_of = _shown(one.overlapping[0])
            value, _, _ = told_of.partition(" ")
            n_layers = counted(len(one.overlapping), "other layer")
            beside = f"; overlaps with {n_layers}, the nearest {name} {value}"
        told.append(f"{one.word}: {' '.join(_shown(one.row))}{flags}{beside}")
    return "\n".join(told)


def _shown(row: Mapping[Hashable, Any]) -> tuple[str, str]:
    """Name of a layer, and its exponent with the interval."""
    told = estimate(row["exponent"], row["exponent_low"], row["exponent_high"])
    return printable(str(row["layer"])), told


def evenly(layers: pd.DataFrame, rows: int | None) -> pd.DataFrame:
    """All rows, or from more than `rows` of them, that many evenly spaced ones."""
    return layers if rows is None else layers.iloc[evenly_spaced(len(layers), rows)]


def not_shown(layers: pd.DataFrame, rows: int | None, how: str = "") -> str:
    """What :func:`evenly` leaves out, as the last line of a table; images are not counted.

    >>> not_shown(pd.DataFrame({"kind": ["input", "conv", "conv", "linear"]}), 2)
    '(2 of 3 layers not shown)'
    """
    total, shown = (int((part.kind != "input").sum()) for part in (layers, evenly(layers, rows)))
    return left_out(total - shown, total, "layers", how)


def left_out(n: int, total: int, what: str, how: str = "") -> str:
    """The last line of a table that leaves out `n` rows; empty where it leaves out none.

    >>> left_out(6, 19, "layers", "natstats show runs/a --all")
    '(6 of 19 layers not shown)   All of them: natstats show runs/a --all'
    """
    if not n:
        return ""
    return f"({n} of {total} {what} not shown){f'   All of them: {how}' if how else ''}"
