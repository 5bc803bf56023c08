"""The tables and the figures of docs/families.md, from what analyses/families.py wrote.

Run that first, then `python figures/families.py`.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from filling import fill
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from natstats.law.law import bare_p
from natstats.numbers import change, interval, number
from natstats.report.figures.style import GREY, kind_marks, legend, look, new_axes, save

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "families.md"
FIGURES = ROOT / "docs" / "families"
RESULTS = ROOT / "analyses" / "results"

TRAINED = {"imagenet": "ImageNet", "textures": "textures"}
"""The groups of trained networks, and what they were trained on."""

Row = dict[str, Any]


def networks(*groups: str) -> list[Row]:
    """The rows of these groups."""
    found = json.loads((RESULTS / "families.json").read_text(encoding="utf-8"))
    return [row for row in found["networks"] if row["group"] in groups]


def value(given: float | None) -> float:
    """A number of a JSON file, in which NaN is null."""
    return np.nan if given is None else float(given)


def p_text(given: float | None) -> str:
    """A p-value as it stands in a column of its own."""
    return bare_p(value(given))


def slope_text(given: list[float | None]) -> str:
    """A slope with its interval."""
    return change(*(value(one) for one in given[:3]))


def kinds_text(row: Row) -> str:
    """How many layers of which kinds."""
    return ", ".join(f"{n} {kind}" for kind, n in row["kinds"].items())


def trained_table() -> list[str]:
    """The slope of each trained network."""
    lines = [
        "| network | trained on | slope per weight layer | within one map size | best shape |",
        "|---|---|---|---|---|",
    ]
    for row in networks(*TRAINED):
        law = row["law"]
        cells = [
            row["network"],
            TRAINED[row["group"]],
            number(value(law["slope"][0]), 4, sign=True),
            number(value(law["within_resolution"][0]), 4, sign=True),
            str(law["best_shape"] or "–"),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def exponents_table() -> list[str]:
    """The exponents of each trained network."""
    lines = [
        "| network | layers with an exponent | images | first, last layer | mean | from, to "
        "| another form is better |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in networks(*TRAINED):
        n = row["n_layers"]
        total = n + row["n_skipped"]
        cells = [
            row["network"],
            f"{n} of {total}, {n / total:.0%} ({kinds_text(row)})",
            f"{number(row['images'][0])} {interval(*row['images'][1:])}",
            f"{number(row['first'])}, {number(row['last'])}",
            number(row["mean"]),
            f"{number(row['lowest'])}, {number(row['highest'])}",
            f"{row['n_better_form']} of {n}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    checked = [row for row in networks(*TRAINED) if "animals" in row]
    named = ", ".join(f"{row['network']} {row['animals_named']}" for row in checked)
    return [
        *lines,
        "",
        f"Of {checked[0]['animals']} photographs of animals whose files say what they show are "
        f"named right: {named}.",
    ]


def roles_table() -> list[str]:
    """The slope within layers of one kind."""
    lines = ["| network | kind of layer | layers | slope per weight layer |", "|---|---|---|---|"]
    for row in networks(*TRAINED):
        # Where all layers are of one kind there is nothing to set apart.
        kinds = [one for one in row["by_role"] if one["n"] < row["n_layers"] - 1]
        for one in kinds:
            slope = number(value(one["slope"][0]), 4, sign=True)
            lines.append(f"| {row['network']} | {one['role']} | {one['n']} | {slope} |")
    return lines


def training_table() -> list[str]:
    """How the networks of the second group were trained."""
    lines = [
        "| network | parameters | training loss | validation accuracy | seconds |",
        "|---|---|---|---|---|",
    ]
    logs = {row["network"].split(",")[0]: row["training"] for row in networks("textures")
            if "training" in row}  # fmt: skip
    for name, log in logs.items():
        lines.append(
            f"| {name} | {log['parameters']:,} | {number(log['train_loss'])} "
            f"| {number(log['val_accuracy'])} | {log['seconds']} |"
        )
    log = next(iter(logs.values()))
    return [
        *lines,
        "",
        f"{log['train_images']:,} images of {log['classes']} classes, {log['steps']} steps of "
        f"{log['batch_size']} crops of {log['crop']} pixels, {log['optimizer']}, learning rate up "
        f"to {log['learning_rate']:g}, weight decay {log['weight_decay']:g}, seed {log['seed']}; "
        f"the accuracy is over {log['val_images']:,} validation images, chance is "
        f"{number(1 / log['classes'])}; seconds of one core that others shared.",
    ]


def random_table() -> list[str]:
    """A row for each network with random weights, over its seeds."""
    lines = [
        "| network | layers with an exponent | images | first, last | mean | slope per weight "
        "layer, by seed | another form is better |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in itertools.groupby(networks("random"), key=lambda row: row["network"]):
        rows = list(group)
        first, n = rows[0], rows[0]["n_layers"]
        slopes = [number(value(row["law"]["slope"][0]), 4, sign=True) for row in rows]
        means = [row["mean"] for row in rows]
        better = sum(row["n_better_form"] for row in rows)
        cells = [
            name,
            f"{n} of {n + first['n_skipped']} ({kinds_text(first)})",
            f"{number(first['images'][0])} {interval(*first['images'][1:])}",
            f"{number(first['first'])}, {number(first['last'])}",
            ", ".join(number(mean) for mean in means),
            ", ".join(slopes),
            f"{better} of {sum(row['n_layers'] for row in rows)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", "First and last are those of the first seed."]


def closing() -> list[str]:
    """Where the numbers come from."""
    found = json.loads((RESULTS / "families.json").read_text(encoding="utf-8"))
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    counts = {group: {row["n_photographs"] for row in networks(group)} for group in
              (*TRAINED, "random")}  # fmt: skip
    text = ", ".join(f"{', '.join(map(str, n))} ({group})" for group, n in counts.items())
    return [f"Photographs: {text}. {versions}; one of 2 cores of a shared x86_64 server, CPU."]


def panels(rows: list[Row], n_columns: int, height: float, size: float, share: str) -> Axes:
    """Exponent against depth, a panel for each network; the line where the verdict is linear."""
    layers = pd.read_csv(RESULTS / "families_layers.csv")
    is_trained = rows[0]["group"] in TRAINED  # what is random has seeds in place of intervals
    n_rows = -(-(len(rows) + 1) // n_columns)
    figure = Figure(figsize=(7.2, height * n_rows), layout="constrained")
    places = figure.subplots(n_rows, n_columns, sharey=share, squeeze=False)
    spare = list(places.flat[len(rows) :])
    for ax in spare:
        ax.set_axis_off()
    marks = kind_marks(sorted({kind for row in rows for kind in row["kinds"]}))
    for ax, row in zip(places.flat, rows, strict=False):
        new_axes(ax, 0)
        own = layers[(layers.group == row["group"]) & (layers.network == row["network"])]
        others = own[(own.seed != row.get("seed", 0)) & (own.kind != "input")]
        own = own[own.seed == row.get("seed", 0)]
        inner = own[own.kind != "input"]
        ax.grid(axis="y")
        ax.axhline(row["images"][0], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
        grey = {"linestyle": "none", "marker": "o", "markersize": 2, "color": GREY, "alpha": 0.35}
        ax.plot(inner.depth, inner.exponent_random, zorder=2, **grey)
        ax.plot(others.depth, others.exponent, zorder=2, **grey)
        for kind, (colour, marker) in marks.items():
            some = inner[inner.kind == kind]
            style = {"linestyle": "none", "marker": marker, "markersize": size, "color": colour}
            reach = [some.exponent - some.exponent_low, some.exponent_high - some.exponent]
            ax.errorbar(
                some.depth, some.exponent, reach if is_trained else None, elinewidth=0.6,
                markeredgewidth=0, zorder=3, **style,
            )  # fmt: skip
        # The detector's and the segmenter's names end with that of their backbone.
        title = row["network"].removesuffix("_mobilenet_v3_large")
        ax.set_title(f"{title}\n", fontsize=7, pad=2)
        ax.tick_params(labelsize=7)
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        ax.set_xlim(left=0)
    figure.supxlabel("depth (weight layers from the input)", fontsize=8)
    figure.supylabel(r"exponent $\alpha$", fontsize=8)
    handles = [
        Line2D([], [], linestyle="none", marker=marker, markersize=4, color=colour)
        for colour, marker in marks.values()
    ]
    random = Line2D([], [], linestyle="none", marker="o", markersize=3, color=GREY, alpha=0.5)
    photographs = Line2D([], [], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    entries = ["random, mean of 3 seeds" if is_trained else "other seeds", "photographs"]
    handles += [random, photographs]
    beside = legend(
        spare[0], handles, [*marks, *entries], loc="upper left", fontsize=7, borderaxespad=0.0
    )
    beside.set_in_layout(False)
    axes: Axes = places.flat[0]
    return axes


PARTS = {
    "trained": trained_table,
    "exponents": exponents_table,
    "roles": roles_table,
    "training": training_table,
    "random": random_table,
    "closing": closing,
}


def main() -> None:
    """Fill the page between its markers, and draw the figures beside it."""
    fill(PAGE, "families.py", PARTS)
    with look():
        save(panels(networks(*TRAINED), 4, 1.75, 3.0, "all"), FIGURES, "trained")
        shown = [row for row in networks("random") if row["seed"] == 0]
        save(panels(shown, 6, 1.4, 2.2, "row"), FIGURES, "random")


if __name__ == "__main__":
    main()
