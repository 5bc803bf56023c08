"""The tables and the figures of docs/theory.md, from what the studies of theory wrote.

Run `python analyses/accounts.py`, the commands of `python analyses/theory.py` and
`python analyses/explain_cost.py` first, then `python figures/theory.py`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from calibration_tables import table
from filling import fill
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from natstats.numbers import change, number
from natstats.report.figures.causes import CAUSE_STYLES, cause_name
from natstats.report.figures.style import INK, PALETTE, look, save

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "theory.md"
FIGURES = ROOT / "docs" / "theory"
RESULTS = ROOT / "analyses" / "results"
SHOWN = ("kernels", "correlations", "rectifiers", "strides", "norms", "additions", "borders")
"""Causes with a column of their own."""

Row = dict[str, Any]


def results(name: str) -> Row:
    """What a study wrote."""
    found: Row = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def versions(found: Mapping[str, Any]) -> str:
    """The command of a result, and where it ran."""
    own = found.get("versions", found)  # earlier results have them beside the rest
    listed = ", ".join(f"{name} {own[name]}" for name in ("natstats", "torch") if name in own)
    return f"`{found['command']}`; {found.get('machine', 'x86_64, CPU')}, {listed}."


def trained() -> list[str]:
    """Theory against trained networks, with what was asked."""
    found = results("theory_trained")
    lines = []
    for row in found["networks"]:
        conv, rect = row["convolutions"], row["rectifiers"]
        worst, farthest = conv["largest"][0], rect["largest"][0]
        lines.append(
            [
                row["network"],
                f"{conv['median']:.3f} ({conv['n']})",
                f"{conv['median_wide']:.3f} ({conv['n_wide']})",
                f"{worst[0]} {number(worst[1], sign=True)}",
                f"{rect['median']:.3f} ({rect['n']})",
                f"{rect['correlation']:.2f}",
                f"{farthest[0]} {number(farthest[1], sign=True)} for "
                f"{number(farthest[2], sign=True)}",
                f"{row['sum']:.0e}",
            ]
        )
    asked = found["at_most"]
    lines.append(
        [
            "asked",
            f"≤ {asked['convolutions']}", "", "", f"≤ {asked['rectifiers']}",
            f"≥ {asked['correlation']}", "", f"{asked['sum']:.0e}",
        ]
    )  # fmt: skip
    head = [
        "network", "convolutions, median difference (n)", "of those with a border",
        "largest", "rectifiers, median difference (n)", "correlation",
        "largest: measured for predicted", "sum of shares, off by",
    ]  # fmt: skip
    return [*table(head, lines), "", versions(found)]


def coverage() -> list[str]:
    """Coverage of intervals by simulation."""
    found = results("theory_coverage")
    rates = [row["coverage"] for row in found["shares"].values()]
    worst = min(found["shares"], key=lambda name: found["shares"][name]["coverage"])
    error = np.sqrt(0.05 * 0.95 / found["repeats"])
    totals = ", ".join(
        f"{cause_name(cause)} {100 * value:.1f} %" for cause, value in found["totals"].items()
    )
    return [
        f"A network with known kernels, {found['n_images']} images whose contrasts differ as those "
        f"of photographs do, {found['repeats']} times; truth is the account of 16,384 images. 95 % "
        f"intervals hold it in **{100 * found['all_shares']:.1f} %** of cases over {len(rates)} "
        f"shares (asked: 93 to 97), that of the whole change in {100 * found['change']:.1f} %; by "
        f"total: {totals}. A single rate has an error of {100 * error:.1f}. The lowest is "
        f"{worst} with {100 * found['shares'][worst]['coverage']:.1f} %.",
        "",
        versions(found),
    ]


def cost() -> list[str]:
    """What the account costs."""
    found = results("explain_cost")
    lines = [
        [row["network"], f"{row['measure']:.0f} s", f"{row['ratio']:.2f}",
         ", ".join(f"{one:.2f}" for one in row["ratios"])]
        for row in found["networks"]
    ]  # fmt: skip
    head = ["network", "measured alone", "with the account, times as long", "rounds"]
    return [
        *table(head, lines),
        "",
        f"{found['images']} photographs, {found['threads']} threads; asked: at most 2.5. Memory "
        f"does not grow with the number of images. {versions(found)}",
    ]


def accounts() -> list[str]:
    """One row for every network."""
    lines = []
    for row in results("accounts")["networks"]:
        totals = {one["cause"]: one["share"] for one in row["totals"]}
        slopes = {one["cause"]: one for one in row["slopes"]}
        whole = slopes.pop("all", None)
        largest = sorted(slopes.values(), key=lambda one: -abs(one["slope"]))[:2]
        rest = sum(value for cause, value in totals.items() if cause not in SHOWN)
        lines.append(
            [
                row["network"],
                f"{row['ends'][0]:.2f} → {row['ends'][1]:.2f}",
                *(number(totals[c], sign=True) if c in totals else "" for c in SHOWN),
                number(rest, sign=True) if abs(rest) > 0.005 else "",
                "–" if whole is None else change(whole["slope"], whole["low"], whole["high"]),
                ", ".join(
                    f"{cause_name(one['cause'])} {number(one['slope'], 3, sign=True)}"
                    for one in largest
                ),
            ]
        )
    head = ["network", "exponent", *map(cause_name, SHOWN), "others", "slope", "most of it"]
    return [*table(head, lines), "", versions(results("accounts"))]


def difference() -> list[str]:
    """Trained less random weights, by cause."""
    lines = []
    for row in results("accounts")["networks"]:
        if row["difference"] is None:
            continue
        own = {one["cause"]: one for one in row["difference"]}
        lines.append(
            [
                row["network"],
                *(
                    change(own[c]["difference"], own[c]["low"], own[c]["high"], 2)
                    if c in own and own[c]["low"] is not None else ""
                    for c in ("all", "kernels", "correlations", "rectifiers", "strides", "norms")
                ),
            ]
        )  # fmt: skip
    head = ["network", "in all", "kernels", "correlations", "rectifiers", "strides", "norms"]
    return table(head, lines)


def counterfactual() -> list[str]:
    """Predicted beside measured counterfactuals."""
    found, lines = results("theory_counterfactual"), []
    for name, row in found["networks"].items():
        for place, own in enumerate(row["counterfactuals"]):
            lines.append(
                [
                    "" if place else name,
                    own["counterfactual"],
                    "" if place else number(row["slope"][0], 3, sign=True),
                    change(*own["slope_predicted"], 3),
                    ", ".join(number(one[0], 3, sign=True) for one in own["slopes_measured"]),
                    number(own["median_gap"]),
                    f"{own['median_step_gap']:.3f}",
                ]
            )
    head = [
        "network", "counterfactual", "slope as it is", "predicted", "measured",
        "exponents, median gap", "one step, median gap",
    ]  # fmt: skip
    return [*table(head, lines), "", versions(found)]


def plain() -> list[str]:
    """The plain network with random weights."""
    lines = [
        [
            row["layer"], str(row["side"]), f"{row['predicted']:.3f}", f"{row['measured']:.3f}",
            f"{row['standard_error']:.3f}", "yes" if row["within"] else "no",
        ]
        for row in results("theory_random")["plain"]["layers"]
    ]  # fmt: skip
    head = ["layer", "map", "predicted", "measured", "standard error", "within"]
    return [*table(head, lines), "", versions(results("theory_random"))]


def random() -> list[str]:
    """Known architectures with random weights."""
    lines = []
    for row in results("theory_random")["networks"]:
        predicted, measured = row["predicted_slope"], row["measured_slope"]
        wide = row["arguments"].get("width_mult")
        name = row["network"] + (f", {wide:g} times as wide" if wide else "")
        lines.append(
            [
                name,
                number(predicted, 4, sign=True),
                number(measured, 4, sign=True),
                ", ".join(number(one, 4, sign=True) for one in row["measured_slopes"]),
                f"{100 * (predicted - measured) / abs(measured):+.0f} %".replace("-", "−"),
                f"{row['median_difference']:.2f}",
            ]
        )
    head = [
        "network", "predicted slope", "measured", "seeds", "difference",
        "median difference of exponents",
    ]  # fmt: skip
    return table(head, lines)


def totals_figure() -> Axes:
    """Totals by cause of every network, as bars to both sides."""
    rows = results("accounts")["networks"][::-1]
    figure = Figure(figsize=(7.2, 0.24 * len(rows) + 1.3), layout="constrained")
    axes: Axes = figure.subplots()
    axes.margins(y=0.01)
    drawn: dict[str, Any] = {}
    for place, row in enumerate(rows):
        ends = {True: 0.0, False: 0.0}
        for cause, style in CAUSE_STYLES.items():
            value = next((one["share"] for one in row["totals"] if one["cause"] == cause), 0.0)
            if abs(value) > 0.02:
                bars = axes.barh(
                    place, value, left=ends[value > 0], height=0.78, hatch=style.hatch, **style.area
                )
                drawn.setdefault(cause, bars)
                ends[value > 0] += value
        axes.plot([row["ends"][1] - row["ends"][0]] * 2, [place - 0.42, place + 0.42], color=INK)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(range(len(rows)), [row["network"] for row in rows], fontsize=7)
    axes.set_xlabel("what each cause adds to the exponent along the trunk; black: their sum")
    axes.grid(visible=False, axis="y")
    names = [cause for cause in CAUSE_STYLES if cause in drawn]
    figure.legend(
        [drawn[cause] for cause in names],
        [cause_name(cause) for cause in names],
        loc="outside upper center",
        ncols=4,
        fontsize=7,
    )
    return axes


def kernels_figure() -> Axes:
    """Exponent of the kernels alone over relative depth, for kernels larger than 1 x 1."""
    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes: Axes = figure.subplots()
    families: dict[str, list[tuple[float, float]]] = {}
    for row in results("accounts")["networks"]:
        deepest = max((one["depth"] for one in row["kernels"]), default=1)
        for one in row["kernels"]:
            if one["kernel_exponent"] is not None and abs(one["kernel_exponent"]) > 0.005:
                families.setdefault(row["family"], []).append(
                    (one["depth"] / deepest, one["kernel_exponent"])
                )
    markers = "os^Dv*PXp<>"
    for place, (family, points) in enumerate(families.items()):
        x, y = np.array(points).T
        axes.scatter(
            x, y, s=11, alpha=0.7, marker=markers[place % len(markers)],
            color=PALETTE[place % len(PALETTE)], label=family, linewidths=0,
        )  # fmt: skip
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("depth, as a share of the deepest layer of the trunk")
    axes.set_ylabel("exponent of the kernels alone")
    figure.legend(loc="outside right upper", fontsize=7, markerscale=1.6)
    return axes


PARTS = {
    "trained": trained,
    "coverage": coverage,
    "cost": cost,
    "accounts": accounts,
    "difference": difference,
    "counterfactual": counterfactual,
    "plain": plain,
    "random": random,
}


def main(parts: Sequence[str] = tuple(PARTS)) -> None:
    """Write the page and the figures."""
    fill(PAGE, "theory.py", {name: PARTS[name] for name in parts})
    with look():
        save(totals_figure(), FIGURES, "totals")
        save(kernels_figure(), FIGURES, "kernels")


if __name__ == "__main__":
    main()
