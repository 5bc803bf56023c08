"""The tables and the figures of docs/law.md, from what analyses/many_networks.py wrote.

Run that first, then `python figures/many_networks.py`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from calibration_tables import table
from families import p_text, slope_text, value
from filling import fill
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from natstats.numbers import number
from natstats.report.figures.style import INK, PALETTE, kind_marks, look, save

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "law.md"
FIGURES = ROOT / "docs" / "law"
RESULT = ROOT / "analyses" / "results" / "many_networks.json"
OUTCOMES = {"rises": PALETTE[0], "no trend": "#d9d9d9", "falls": PALETTE[1]}

Row = dict[str, Any]


def results() -> Row:
    """What the study wrote."""
    found: Row = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def counts(row: Row) -> str:
    """How many specifications rise, show no trend, fall."""
    found = row["specifications"]["outcomes"]
    return ", ".join(str(found.get(outcome, 0)) for outcome in OUTCOMES)


def networks(images: str) -> list[str]:
    """One row for every network."""
    lines = []
    for row in results()[images]["networks"]:
        law, own = row["law"], row["law"]["description"]
        lines.append(
            [
                row["network"],
                row["training"],
                f"{law['n']} ({row['n_few_rings']})",
                slope_text(law["slope"]),
                f"{p_text(law['p'])}, {p_text(law['rank_p'])}",
                number(law["correlation"][0]),
                law["verdict"],
                counts(row),
                slope_text(own["slope"]),
                f"{own['line_share']:.2f}",
                f"{law['best_shape']}, {max(own['shape_share'], 0):.2f}",
            ]
        )
    head = [
        "network", "trained on", "layers (of few rings)", "slope of the law", "p, by ranks", "φ",
        "verdict", "rises, no trend, falls", "this network's slope", "line explains", "best shape",
    ]  # fmt: skip
    return table(head, lines)


def control(images: str) -> list[str]:
    """Trained against random weights."""
    lines = []
    for row in results()[images]["networks"]:
        found = row["control"]
        if found is None:
            continue
        lines.append(
            [
                row["network"],
                slope_text(row["law"]["slope"]),
                ", ".join(number(one["slope"][0], 4, sign=True) for one in row["random"]),
                slope_text(found["difference"]),
                p_text(found["p"]),
            ]
        )
    head = ["network", "slope, trained", "slope, random weights, by seed", "difference", "p"]
    return table(head, lines)


def pooled(rows: Sequence[tuple[str, Row]]) -> list[list[str]]:
    """Rows of means over networks."""
    return [
        [
            name,
            str(row["n"]),
            slope_text(row["mean"]),
            p_text(row["p"]),
            "–" if row["next"][0] is None else _interval(row["next"]),
            number(value(row["tau"]), 4),
            p_text(row["q_p"]),
        ]
        for name, row in rows
    ]


def _interval(given: Sequence[float | None]) -> str:
    low, high = (value(one) for one in given)
    return f"{number(low, 4, sign=True)} to {number(high, 4, sign=True)}"


MEANS = ["sample", "networks", "mean slope", "p", "next network", "sd between", "one slope: p"]


def together(images: str, unit: str) -> list[str]:
    """All networks, families, training and bands, for one of the two slopes."""
    found = results()[images]["together"]
    rows = [("all networks", found["family"]["pooled"][unit])]
    for by in ("family", "training"):
        for row in found[by]["subgroups"]:
            if row["unit"] == unit and row["subgroup"] not in ("all", ""):
                if str(row["subgroup"]).startswith("control") and by != "family":
                    continue
                named = {**row, "mean": [row["mean"], row["low"], row["high"]]}
                named["next"] = [row["next_low"], row["next_high"]]
                rows.append((str(row["subgroup"]), named))
    rows.append(("families as the sample", found["families"][unit]))
    for name, row in found["bands"].items():
        if name == "whole":
            continue
        same = found["same_layers"][name]
        kept, total = same["layers"]
        rows.append((f"band {name}, {kept} of {total} layers", row["pooled"][unit]))
        if unit == "depth":
            rows.append(("the same layers, whole band", same))
    kept = [(name, row) for name, row in rows if name != "all networks" or row is rows[0][1]]
    return table(MEANS, pooled(kept))


def stages(images: str) -> list[str]:
    """Mean exponent and slope by map size."""
    lines = []
    for row in results()[images]["networks"]:
        own = [stage for stage in row["stages"] if stage["n"] > 0]
        lines.append(
            [
                row["network"],
                ", ".join(f"{stage['side']}: {stage['mean']:.2f}" for stage in own),
                ", ".join(
                    f"{stage['side']}: {number(stage['slope'][0], 3, sign=True)}"
                    + ("*" if _is_told(stage["slope"]) else "")
                    for stage in own
                    if stage["slope"][0] is not None
                ),
            ]
        )
    return table(["network", "mean exponent by map side", "slope within a map side"], lines)


def _is_told(slope: Sequence[float | None]) -> bool:
    low, high = value(slope[1]), value(slope[2])
    return low > 0 or high < 0


def trainings() -> list[str]:
    """Two trainings of one architecture."""
    lines = []
    for images, name in (("photographs", "photographs"), ("cifar10", "CIFAR-10")):
        for row in results().get(images, {}).get("trainings", []):
            shown = f"{row['rms']:.2f} of {row['sd']:.2f}"
            cells = [f"ResNet-{row['depth']}", name, str(row["n"]), f"{row['correlation']:.2f}"]
            lines += [[*cells, shown, *(slope_text(slope) for slope in row["slopes"])]]
    head = [
        "network", "images", "layers", "correlation of exponents", "rms difference of sd", "slope",
        "slope, b",
    ]  # fmt: skip
    return table(head, lines)


def stretch() -> list[str]:
    """The convolutions 4 to 14 of DnCNN, by band."""
    lines = [
        [
            row["network"],
            "whole" if row["band"].startswith("(") else row["band"],
            str(row["n"]),
            slope_text(row["slope"]),
            slope_text(row["description"]["slope"]),
            f"{row['description']['line_share']:.2f}",
            row["verdict"],
        ]
        for row in results()["photographs"]["stretch"]
    ]
    head = [
        "network",
        "band",
        "layers",
        "slope of a law",
        "description",
        "line explains",
        "verdict",
    ]
    return table(head, lines)


def closing() -> list[str]:
    """The command and the versions."""
    found = results()
    versions = ", ".join(f"{key} {one}" for key, one in found["versions"].items())
    scaling = found["photographs"]["scaling"]
    n = found["photographs"]["networks"][0]["n_images"]
    return [
        f"`{found['command']}`; {n} images; {versions}; {found['machine']}. Slope against depth in "
        f"{scaling['n']} CIFAR ResNets: power {slope_text(scaling['power'])}."
    ]


PARTS = {
    "networks": lambda: networks("photographs"),
    "cifar": lambda: networks("cifar10"),
    "together": lambda: together("photographs", "depth"),
    "together_whole": lambda: together("photographs", "whole"),
    "together_cifar": lambda: together("cifar10", "depth"),
    "control": lambda: control("photographs"),
    "stages": lambda: stages("photographs"),
    "trainings": trainings,
    "stretch": stretch,
    "closing": closing,
}


def draw_exponents() -> Axes:
    """Exponent against depth for every network, with the line of its law and random weights."""
    rows = results()["photographs"]["networks"]
    n_columns = 4
    n_rows = -(-len(rows) // n_columns)
    figure = Figure(figsize=(9.6, 1.75 * n_rows), layout="constrained")
    axes = figure.subplots(n_rows, n_columns, sharey=True, squeeze=False)
    for ax, row in zip(axes.flat, rows, strict=False):
        inner = [one for one in row["layers"] if one[1] != "input" and one[4] is not None]
        marks = kind_marks([one[1] for one in inner])
        for _, kind, depth, _, exponent, law in inner:
            colour, marker = marks[kind]
            ax.plot(
                depth, exponent, marker=marker, color=colour, markersize=2.6, linestyle="none",
                markerfacecolor=colour if law == "yes" else "white", markeredgewidth=0.6,
            )  # fmt: skip
        ax.set_title(row["network"], fontsize=7, loc="left")
        ax.tick_params(labelsize=6)
        ax.grid(axis="y")
    for ax in list(axes.flat)[len(rows) :]:
        ax.set_visible(False)
    figure.supxlabel("depth (weight layers from the input)", fontsize=8)
    figure.supylabel("exponent", fontsize=8)
    first: Axes = axes[0, 0]
    return first


def draw_specifications() -> Axes:
    """Share of the specifications of every network that rise, show no trend, or fall."""
    rows = results()["photographs"]["networks"][::-1]
    figure = Figure(figsize=(7.2, 0.8 + 0.2 * len(rows)), layout="constrained")
    ax: Axes = figure.subplots()
    left = np.zeros(len(rows))
    for outcome, colour in OUTCOMES.items():
        found = [row["specifications"] for row in rows]
        shares = np.array([100 * one["outcomes"].get(outcome, 0) / one["n"] for one in found])
        ax.barh(range(len(rows)), shares, left=left, color=colour, label=outcome, height=0.75)
        left += shares
    ax.set_yticks(range(len(rows)), [row["network"] for row in rows], fontsize=7)
    ax.set_xlim(0, 100)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel("specifications, %")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    ax.tick_params(colors=INK)
    return ax


def main() -> None:
    """Fill the page between its markers, and draw the figures beside it."""
    fill(PAGE, "many_networks.py", PARTS)
    with look():
        save(draw_exponents(), FIGURES, "exponents")
        save(draw_specifications(), FIGURES, "specifications")


if __name__ == "__main__":
    main()
