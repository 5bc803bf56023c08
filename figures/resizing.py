"""The tables and the figure of docs/resizing.md, from what analyses/resizing.py wrote.

Run `python analyses/resizing.py --images FOLDER` first, then `python figures/resizing.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from filling import fill
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from natstats.numbers import change, interval, number
from natstats.report.figures.style import GREY, MARKERS, PALETTE, look, new_axes, save

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "resizing.md"
FIGURES = ROOT / "docs" / "resizing"
RESULT = ROOT / "analyses" / "results" / "resizing.json"

METHODS = ("bilinear", "bicubic", "lanczos", "bilinear without antialiasing")
FACTORS = {1 / 4: "1/4", 1 / 3: "1/3", 1 / 2: "1/2", 3 / 4: "3/4", 1: "1", 3 / 2: "3/2", 2: "2"}

Row = dict[str, Any]


def record() -> dict[str, Any]:
    """What the study found."""
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def estimate(values: list[float]) -> str:
    """An exponent with its interval."""
    return f"{number(values[0])} {interval(*values[1:])}"


def moved(values: list[float] | None, row: Row) -> str:
    """A difference with its interval; none where a row is compared with itself."""
    return "–" if values is None or row["method"] == "unscaled" else change(*values, digits=2)


def factor_table() -> list[str]:
    """A row for every kind of picture, factor and method."""
    lines = [
        "| pictures | factor | method | exponent | difference, whole band "
        "| difference, up to 0.25 | difference, same waves |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record()["factors"]:
        cells = [
            row["pictures"],
            FACTORS[row["factor"]],
            row["method"],
            estimate(row["exponent"]),
            *(
                moved(row[key], row)
                for key in ("difference", "difference_low_band", "difference_same_waves")
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", closing()]


def preset_table() -> list[str]:
    """The preset of most published weights."""
    lines = [
        "| pictures | method | exponent | difference, whole band | difference, up to 0.25 |",
        "|---|---|---|---|---|",
    ]
    for row in record()["presets"]:
        cells = [
            f"{row['n']} {row['pictures']}",
            row["method"],
            estimate(row["exponent"]),
            *(moved(row[key], row) for key in ("difference", "difference_low_band")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def closing() -> str:
    """Where the numbers come from."""
    found = record()
    fields, versions = found["fields"], found["versions"]
    low, high = found["shorter_side"]
    counts = {row["pictures"]: row["n"] for row in found["factors"]}
    return (
        f"{found['n_photographs']} photographs of a shorter side of {low} to {high} px, of which "
        f"{counts['photographs']} are large enough for 1/4 and stand in this table; "
        f"{fields['n']} fields of {fields['side']} × {fields['side']} px, α = {fields['alpha']:g}, "
        f"waves up to {fields['outer_scale']} times that. Maps of {found['map']} × {found['map']} "
        f"px, 95 % intervals. `{found['command']}`; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + "."
    )


def draw() -> Axes:
    """Differences by factor: against the unscaled square, and of the same waves."""
    figure = Figure(figsize=(7.2, 3.3), layout="constrained")
    panels = figure.subplots(1, 2)
    rows = record()["factors"]
    parts = (
        ("difference", "Against the unscaled centre", ("photographs",)),
        (
            "difference_same_waves",
            "The same waves: what the filter does",
            ("photographs", "fields"),
        ),
    )
    for ax, (key, title, kinds) in zip(panels, parts, strict=True):
        new_axes(ax, 0)
        ax.axhline(0, color=GREY, linewidth=0.7, zorder=1)
        for kind in kinds:
            for place, method in enumerate(METHODS):
                own = [
                    row
                    for row in rows
                    if (row["pictures"], row["method"]) == (kind, method) and row[key] is not None
                ]
                points = np.array([[row["factor"], *row[key]] for row in own])
                # Reducing and enlarging are apart: between them lies no scaling, and no change.
                points = np.insert(points, int((points[:, 0] < 1).sum()), np.nan, axis=0)
                factors, values, low, high = points.T
                is_field = kind == "fields"
                ax.errorbar(
                    factors * (1 + 0.012 * (place - 1.5) + 0.02 * is_field),
                    values,
                    yerr=[values - low, high - values],
                    color=PALETTE[place], marker=MARKERS[place], markersize=4.5, linewidth=0.9,
                    linestyle=":" if is_field else "-",
                    markerfacecolor="white" if is_field else PALETTE[place],
                    label=None if is_field else method,
                )  # fmt: skip
        ax.set_xscale("log")
        shown = sorted({row["factor"] for row in rows if row[key] is not None})
        ax.set_xticks(shown, [FACTORS[factor] for factor in shown])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("factor of scaling")
        ax.set_title(title)
        ax.grid(axis="y")
    panels[0].set_ylabel("change of the exponent")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    axes: Axes = panels[0]
    return axes


def main() -> None:
    """Fill the page between its markers, and draw the figure beside it."""
    fill(PAGE, "resizing.py", {"factors": factor_table, "presets": preset_table})
    with look():
        save(draw(), FIGURES, "factors")


if __name__ == "__main__":
    main()
