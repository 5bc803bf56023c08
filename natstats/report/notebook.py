"""What notebooks show of results: small tables and a figure, in the colours of the page.

Names that users chose cannot act as markup there: texts are escaped, figures hold only outlines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from natstats.html_blocks import html_block, html_table
from natstats.law.verdict import headline
from natstats.numbers import change, evenly_spaced, interval, map_size, number
from natstats.report.records import DifferenceReport, RunReport, SeriesReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["difference_html", "run_html", "series_html"]

ROWS = 8
"""Most rows of a table; of more, evenly spaced ones are shown."""


def run_html(run: RunReport, notes: Sequence[str] = ()) -> str:
    """A run: verdict, some layers, and the plot of the law.

    Args:
        run: what to show.
        notes: remarks that change how the numbers are to be read, each without a full stop.
    """
    from natstats.report.figures.law import plot_law

    layers = run.layers
    is_network = bool((layers.kind != "input").any())
    texts = [*(run.verdict.lines() if is_network else []), *(f"Note: {one}." for one in notes)]
    shown = _evenly(layers)
    rows = [
        [
            str(row["layer"]),
            f"{row['depth']}",
            number(row["exponent"]),
            interval(row["exponent_low"], row["exponent_high"]),
            map_size(row["height"], row["width"]),
            str(row["flags"]),
        ]
        for row in shown.to_dict("records")
    ]
    table = html_table(["layer", "depth", "exponent α", "interval", "map", "flags"], rows)
    left = _left_out(len(layers) - len(shown), len(layers), "run.layers")
    has_law = is_network and np.isfinite(layers.exponent[layers.kind != "input"]).any()
    figure = [figure_html(plot_law(layers, run.law))] if has_law else []
    title = f"{run.name}: {headline(run.law)}" if is_network else run.name
    return html_block(title, texts, table, left, *figure)


def series_html(series: SeriesReport) -> str:
    """A series: what it shows, some checkpoints, and the slopes over training."""
    from natstats.report.figures.series import plot_slopes

    shown = _evenly(series.frame)
    rows = [
        [
            str(row["checkpoint"]),
            str(row["step"]),
            change(row["slope"], row["slope_low"], row["slope_high"])
            if np.isfinite(row["slope"])
            else "–",
            str(row["verdict"]),
        ]
        for row in shown.to_dict("records")
    ]
    table = html_table(["checkpoint", series.step_name, "slope of the law", "verdict"], rows)
    left = _left_out(len(series.frame) - len(shown), len(series.frame), "series.frame")
    has_law = np.isfinite(series.frame.slope).any()
    figure = [figure_html(plot_slopes(series))] if has_law else []
    texts = [series.sentence, series.change.sentence]
    return html_block(f"Series of {series.name}", texts, table, left, *figure)


def difference_html(found: DifferenceReport) -> str:
    """A comparison: the verdict, the layers that differ most, and the plot of the difference."""
    from natstats.report.figures.difference import plot_difference

    layers = found.layers
    known = layers[np.isfinite(layers.difference)]
    most = known.reindex(known.p.sort_values(kind="stable").index)[:ROWS]
    rows = [
        [
            str(row["layer"]),
            number(row["exponent_a"]),
            number(row["exponent_b"]),
            change(row["difference"], row["low"], row["high"], 3),
            number(row["p_corrected"], 3) if np.isfinite(row["p_corrected"]) else "–",
        ]
        for row in most.to_dict("records")
    ]
    first, second = found.names
    head = ["layer", f"A: {first}", f"B: {second}", "B − A", "p (Holm)"]
    left = _left_out(len(layers) - len(most), len(layers), "comparison.layers")
    figure = [figure_html(plot_difference(found)[0])] if len(known) else []
    texts = [found.sentence, *found.notes]
    title = f"{second} compared with {first}"
    return html_block(title, texts, html_table(head, rows), left, *figure)


def figure_html(axes: Axes) -> str:
    """A figure in a block of its own, at most as wide as the page."""
    from natstats.report.figures.inline import inline_svg

    return f'<div style="max-width:46em">{inline_svg(axes)}</div>'


def _evenly(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.iloc[evenly_spaced(len(frame), ROWS)]


def _left_out(n: int, total: int, where: str) -> str:
    return f"<p>{total - n} of {total} rows; all are in <code>{where}</code>.</p>" if n else ""
