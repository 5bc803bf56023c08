"""Results as plain values for scripts: what ``--json`` of the command line prints.

Every summary has these fields:

* ``format``: number of this description, :data:`FORMAT`; a larger one is a newer one.
* ``kind``: ``run``, ``series``, ``comparison`` or ``law``.
* ``path``: the folder; null where nothing was written.
* ``sentences``: the result in words, the lines that the terminal shows.
* ``warnings``: what a reader of the numbers must know, in sentences.

A ``run`` also has:

* ``name``; ``n_images``; ``images``, where they come from; ``model``, the network's name, null for
  images alone.
* ``fit``: how it was fitted, the fields of :class:`natstats.FitOptions`.
* ``law``: the fields of ``law.json``: the slope ``slope`` per unit of depth with ``slope_low``,
  ``slope_high`` and ``trend_p``, ``verdict``, ``n_layers`` and the others of
  :class:`natstats.Law`; ``specifications`` and ``influence``; null for images alone.
* ``layers``: a row per layer, the columns of ``layers.csv``, images first.
* ``skipped``: layers that were not measured: ``layer``, ``kind``, ``reason``.
* ``control``: the fields of ``control.json``; null without one.

A ``series`` has ``name``, ``checkpoints`` (the columns of ``series.csv``), ``exponents`` (those of
``exponents.csv``) and ``change`` (the last checkpoint minus the first, with its ``layers``). A
``comparison`` has the fields of ``comparison.json`` and ``layers``, the columns of
``comparison.csv``. A ``law`` has the fields of ``meta_analysis.json``, and ``networks`` and
``subgroups``, the columns of their tables.

Missing values are null, never NaN.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from natstats.runs.comparison import Comparison
from natstats.runs.networks_result import MetaAnalysis
from natstats.runs.run import Run
from natstats.runs.series import Series

__all__ = ["FORMAT", "comparison_summary", "networks_summary", "run_summary", "series_summary"]

FORMAT = 1
"""Number of the format of summaries."""


def _head(kind: str, path: Path | None, sentences: list[str], warnings: Any) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "kind": kind,
        "path": None if path is None else str(path),
        "sentences": sentences,
        "warnings": list(warnings),
    }


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def run_summary(run: Run, path: Path | None = None) -> dict[str, Any]:
    """A run as plain values.

    Args:
        run: the run.
        path: its folder; by default where it was saved or read.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> found = run_summary(run)
    >>> found["kind"], found["n_images"], found["law"], found["layers"][0]["layer"]
    ('run', 16, None, 'input')
    """
    images, model = run.info.get("images") or {}, run.info.get("model") or None
    return {
        **_head("run", path or run.path, run.sentences(), run.notes),
        "name": run.name,
        "n_images": int(images.get("n_images") or 0),
        "images": images.get("source"),
        "model": None if model is None else model.get("name"),
        "fit": run.options.to_dict(),
        "law": None if model is None else run.verdict.to_dict(),
        "layers": _rows(run.layers),
        "skipped": _rows(run.skipped),
        "control": None if run.control is None else run.control.to_dict(),
    }


def series_summary(series: Series, path: Path | None = None) -> dict[str, Any]:
    """A series as plain values.

    Args:
        series: the series.
        path: its folder.
    """
    return {
        **_head("series", path, series.sentences(), series.notes),
        "name": series.name,
        "checkpoints": _rows(series.frame),
        "exponents": _rows(series.exponents),
        "change": {**series.change.to_dict(), "layers": _rows(series.change.layers)},
    }


def comparison_summary(found: Comparison, path: Path | None = None) -> dict[str, Any]:
    """A comparison of two runs as plain values.

    Args:
        found: the comparison.
        path: its folder.
    """
    return {
        **found.to_dict(),
        **_head("comparison", path, [found.sentence()], found.notes),
        "layers": _rows(found.layers),
    }


def networks_summary(found: MetaAnalysis, path: Path | None = None) -> dict[str, Any]:
    """The laws of many networks as plain values.

    Args:
        found: the meta-analysis.
        path: its folder.
    """
    return {
        **found.to_dict(),
        **_head("law", path, found.sentences(), found.notes),
        "networks": _rows(found.networks),
        "subgroups": _rows(found.subgroups),
    }
