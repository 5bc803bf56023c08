"""Tables and a figure of docs/training.md.

Run analyses/training_series.py and analyses/training_norms.py first, then
`python figures/training.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from filling import fill
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from natstats.numbers import interval, number
from natstats.report.figures.causes import CAUSE_STYLES, cause_name
from natstats.report.figures.style import (
    DEPTH_COLOURS,
    DEPTH_TOP,
    GREY,
    WIDTH,
    legend,
    look,
    new_axes,
    save,
)

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "training.md"
RESULTS = ROOT / "analyses" / "results"

Row = dict[str, Any]


def record() -> Row:
    """Everything that is said of the series but its tables."""
    found: Row = json.loads((RESULTS / "training_series.json").read_text(encoding="utf-8"))
    return found


def kernels() -> pd.DataFrame:
    """A row for every checkpoint and convolution, in the order of both."""
    found = pd.read_csv(RESULTS / "training_series_kernels.csv")
    return found.assign(is_lowpass=found.kernel_exponent > found.random_high)


def series_table() -> list[str]:
    """A row for each checkpoint: how training stood, exponents, slope and verdict."""
    lines = [
        "| step | training loss | validation accuracy | mean exponent | from, to | slope per layer "
        "| verdict | another form is better |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in pd.read_csv(RESULTS / "training_series.csv").to_dict("records"):
        mean = interval(row["exponent_mean_low"], row["exponent_mean_high"])
        slope = interval(row["slope_low"], row["slope_high"], 4, sign=True)
        lines.append(
            f"| {row['step']} | {number(row['train_loss'])} | {number(row['val_accuracy'])} "
            f"| {number(row['exponent_mean'])} {mean} "
            f"| {number(row['exponent_min'])}, {number(row['exponent_max'])} "
            f"| {number(row['slope'], 4, sign=True)} {slope} | {row['verdict']} "
            f"| {row['n_better_form']} of {row['n_exponents']} |"
        )
    found = record()
    images, how, versions = (found[name] for name in ("images", "measured", "versions"))
    return [
        *lines,
        "",
        f"> {found['change']['sentence']}",
        "",
        f"{how['photographs']} photographs, {how['size']} pixels a side, exponent "
        f"{number(images['exponent'])} {interval(images['low'], images['high'])} (grey); training "
        f"loss is the mean since the row above; torch {versions['torch']}, natstats "
        f"{versions['natstats']}.",
    ]


def short(value: float | None, digits: int) -> str:
    """A number of a table of many: no more decimals than asked for, however small it is."""
    kept = None if value is None else round(value, digits) + 0.0  # which makes -0 a 0
    return "–" if kept is None else number(kept, digits, sign=kept != 0)


def kernels_table() -> list[str]:
    """A row for each checkpoint: the exponents of the kernels alone."""
    lines = [
        "| step | low-pass layers | median exponent | from, to | median with shuffled taps | rank "
        "correlation with depth |",
        "|---|---|---|---|---|---|",
    ]
    for step, own in kernels().groupby("step"):
        found = own.kernel_exponent
        cells = [
            str(step),
            f"{own.is_lowpass.sum()} of {len(own)}",
            short(found.median(), 2),
            f"{short(found.min(), 2)}, {short(found.max(), 2)}",
            short(own.shuffled_exponent.median(), 2),
            short(own.depth.corr(found, method="spearman"), 2),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    random = record()["random_kernels"]
    return [
        *lines,
        "",
        f"Low-pass: above the middle {100 * random['level']:g} % of the exponents that this layer "
        f"has in {random['draws']} networks with random weights.",
    ]


def account_table() -> list[str]:
    """A row for each checkpoint: the account of the trunk."""
    rows = record()["accounts"]
    causes = [one["cause"] for one in rows[-1]["totals"]]
    heads = ["step", "images, last layer", *map(cause_name, causes)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        totals = {one["cause"]: one["share"] for one in row["totals"]}
        ends = ", ".join(number(value) for value in row["ends"])
        cells = [str(row["step"]), ends, *(short(totals.get(cause), 2) for cause in causes)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def averages_table() -> list[str]:
    """A row for each checkpoint: as it is held, and with running averages estimated anew."""
    held = pd.read_csv(RESULTS / "training_series.csv")
    anew = pd.read_csv(RESULTS / "training_norms.csv")
    lines = [
        "| step | validation accuracy | anew | mean exponent | anew | least-squares slope | anew |",
        "|---|---|---|---|---|---|---|",
    ]
    for own, other, account in zip(
        held.to_dict("records"), anew.to_dict("records"), record()["accounts"], strict=True
    ):
        whole = account["slopes"][0]
        slopes = (
            (whole["slope"], whole["low"], whole["high"]),
            (other["slope"], other["slope_low"], other["slope_high"]),
        )
        cells = [str(own["step"])]
        cells += [number(row["val_accuracy"]) for row in (own, other)]
        cells += [
            f"{number(row['exponent_mean'])} "
            f"{interval(row['exponent_mean_low'], row['exponent_mean_high'])}"
            for row in (own, other)
        ]
        cells += [
            f"{number(value, 3, sign=True)} {interval(low, high, 3, sign=True)}"
            for value, low, high in slopes
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def slopes_table() -> list[str]:
    """A row for each checkpoint: the slope of the exponents by cause."""
    rows = record()["accounts"]
    causes = [one["cause"] for one in rows[-1]["slopes"]]
    heads = ["step", "slope per layer", *map(cause_name, causes[1:])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in rows:
        slopes = {one["cause"]: one for one in row["slopes"]}
        whole = slopes["all"]
        cells = [
            str(row["step"]),
            f"{number(whole['slope'], 3, sign=True)} "
            f"{interval(whole['low'], whole['high'], 3, sign=True)}",
            *(short(slopes.get(cause, {}).get("slope"), 3) for cause in causes[1:]),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def step_axis(ax: Axes, steps: list[int]) -> None:
    """Steps on a logarithmic axis that has a place for step 0."""
    ax.set_xscale("function", functions=(lambda x: np.log1p(np.clip(x, -0.9, None)), np.expm1))
    ax.xaxis.set_major_locator(FixedLocator(steps))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlim(-0.13, 1.15 * steps[-1])


def draw_kernels(ax: Axes) -> list[tuple[Artist, str]]:
    """The exponent of the kernels of every layer over the steps; what the legend names."""
    found = kernels()
    norm = Normalize(1, found.depth.max())
    colours = LinearSegmentedColormap.from_list(
        "depth", matplotlib.colormaps[DEPTH_COLOURS](np.linspace(0, DEPTH_TOP, 256))
    )
    for _, own in found.groupby("layer", sort=False):
        colour = colours(norm(own.depth.iloc[0]))
        ax.plot(own.step, own.kernel_exponent, color=colour, linewidth=1.1, zorder=3)
        for some, face in ((own[own.is_lowpass], colour), (own[~own.is_lowpass], "white")):
            ax.plot(
                some.step, some.kernel_exponent, linestyle="none", marker="o", markersize=3,
                markeredgewidth=0.8, color=colour, markerfacecolor=face, zorder=4,
            )  # fmt: skip
    ax.set_ylabel(r"exponent $\alpha$ of the kernels alone")
    figure = ax.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(
        ScalarMappable(norm, colours), ax=ax, label="depth (weight layers)", pad=0.01, aspect=30,
        ticks=[1, 5, 10, 15, found.depth.max()],
    )  # fmt: skip
    bar.outline.set_visible(False)  # type: ignore[operator]
    first = found[(found.depth == 1) & (found.step <= 64)].iloc[-1]
    ax.text(
        0.93 * first.step, first.kernel_exponent, "first convolution", ha="right", va="center",
        color=colours(0.0), fontsize=8,
    )  # fmt: skip
    marks = {"low-pass: above 97.5 % of random kernels": GREY, "not above": "white"}
    return [
        (Line2D([], [], color=GREY, marker="o", markersize=3, markerfacecolor=face), name)
        for name, face in marks.items()
    ]


def draw_causes(ax: Axes, table: str, column: str, name: str) -> list[tuple[Artist, str]]:
    """A line for every cause over the steps, with intervals; what the legend names."""
    rows = [one | {"step": row["step"]} for row in record()["accounts"] for one in row[table]]
    found = pd.DataFrame(rows)
    entries: list[tuple[Artist, str]] = []
    for cause, style in CAUSE_STYLES.items():
        own = found[found.cause == cause]
        if len(own):
            ax.fill_between(
                own.step, own.low, own.high, color=style.colour, alpha=0.18, linewidth=0, zorder=2
            )
            (line,) = ax.plot(
                own.step, own[column], color=style.colour, marker=style.marker, markersize=3.5,
                markeredgewidth=0, linewidth=1.1, zorder=3,
            )  # fmt: skip
            entries.append((line, cause_name(cause)))
    ax.set_ylabel(name)
    return entries


def draw() -> Axes:
    """The kernels over training, above what all causes add and what slope they carry."""
    steps = [row["step"] for row in record()["accounts"]]
    figure = Figure(figsize=(WIDTH["double"], 7.6), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    upper = new_axes(above.subplots(), 0)
    left, right = (new_axes(ax, 0) for ax in below.subplots(1, 2))
    entries = draw_kernels(upper)
    legend(upper, *map(list, zip(*entries, strict=True)), loc="upper left")
    causes = draw_causes(left, "totals", "share", "added from the images\nto the last layer")
    draw_causes(right, "slopes", "slope", "slope of the exponents\n(per weight layer)")
    for ax in (upper, left, right):
        ax.grid(axis="y")
        ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
        step_axis(ax, steps)
        ax.set_xlabel("step (logarithmic axis)")
    handles, labels = zip(*causes, strict=True)
    below.legend(handles, labels, loc="outside upper left", ncols=4, fontsize=8)
    return upper


PARTS = {
    "series": series_table,
    "averages": averages_table,
    "kernels": kernels_table,
    "account": account_table,
    "slopes": slopes_table,
}


def main() -> None:
    """Fill the page between its markers, and draw the figure beside it."""
    fill(PAGE, "training.py", PARTS)
    with look():
        _, raster = save(draw(), ROOT / "docs" / "training", "kernels")
    raster.unlink()  # the page shows the other


if __name__ == "__main__":
    main()
