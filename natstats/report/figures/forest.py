"""A forest plot: slopes of many networks, their mean, and the range for the next network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from natstats.numbers import change, interval
from natstats.report.figures.style import (
    FAINT,
    GREY,
    INK,
    PALETTE,
    is_for_phones,
    is_narrow,
    legend,
    look,
    new_axes,
)
from natstats.report.records import ALL, CONTROL, DIFFERENCE, NetworksReport
from natstats.text import printable

__all__ = ["plot_forest"]

ROW = 0.165
"""Height of a row, inches."""

LARGEST, SMALLEST = 8.0, 2.2
"""Side of the square of the network with most weight, and of one with hardly any, points."""

LONGEST_NAME = {"single": 18, "double": 36}
"""Most characters of a name on one line, by the width of the figure; a longer one is wrapped."""


@dataclass(frozen=True)
class _Row:
    """A line of the plot: a heading, a network, a mean, or a gap."""

    kind: str
    label: str = ""
    values: Mapping[Any, Any] | None = None


def plot_forest(networks: NetworksReport, ax: Axes | None = None) -> Axes:
    """Draw a row for each network, the means of subgroups and of all, and the next network.

    A square is as large as the share of the network in the mean; a diamond is as wide as the
    interval of a mean; the bar below the last one is where the next network is expected.

    Args:
        networks: what to draw.
        ax: where to draw; by default a new figure, whose height fits its rows.

    Returns:
        The axes drawn into.
    """
    is_single = is_for_phones() if ax is None else is_narrow(ax)
    width = "single" if is_single else "double"
    rows = _rows(networks, LONGEST_NAME[width])
    with look():
        height = 1.15 + ROW * sum(1 + row.label.count("\n") for row in rows)
        ax = new_axes(ax, height)
        places = _places(rows)
        ax.set_ylim(places[-1] + 1.0, -0.8)
        ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=1)
        mean = networks.means.iloc[0]
        if np.isfinite(mean["mean"]):
            ax.axvline(mean["mean"], color=PALETTE[0], linewidth=0.8, linestyle=(0, (2, 2)))
        largest = float(networks.networks.share.max())
        for row, place in zip(rows, places, strict=True):
            _draw(ax, row, place, largest)
        _label(ax, rows, places)
        _set_range(ax, networks)
        gap = "\n" if width == "single" else " "
        ax.set_xlabel(f"slope of the exponent,{gap}{networks.per}")
        ax.spines["left"].set_visible(False)
        _legend(ax, networks)
    return ax


def _rows(networks: NetworksReport, longest: int) -> list[_Row]:
    """All lines from the top: subgroups with their means, all networks, the next, the control."""
    means = {row["subgroup"]: row for row in networks.means.to_dict("records")}
    records = networks.networks.to_dict("records")
    rows: list[_Row] = []
    if networks.by is None:
        rows += [_Row("network", _wrapped(row["network"], longest), row) for row in records]
    else:
        for label in dict.fromkeys(row["subgroup"] for row in records):
            rows.append(_Row("head", _wrapped(label, longest)))
            own = [row for row in records if row["subgroup"] == label]
            rows += [_Row("network", _wrapped(row["network"], longest), row) for row in own]
            if len(own) > 1:
                rows.append(_Row("group", f"mean of {len(own)}", means[label]))
            rows.append(_Row("gap"))
        rows.pop()
    rows += [_Row("gap"), _Row("all", f"mean of {means[ALL]['n']} networks", means[ALL])]
    if np.isfinite(means[ALL]["next_low"]):
        rows.append(_Row("next", "the next network", means[ALL]))
    change_row = means.get(f"{CONTROL}{DIFFERENCE}")
    if change_row is not None:
        rows.append(_Row("gap"))
        rows.append(_Row("head", f"with a control ({change_row['n']})"))
        for name in ("trained", "random weights", DIFFERENCE):
            rows.append(_Row("group", name, means[f"{CONTROL}{name}"]))
    return rows


def _wrapped(name: Any, longest: int) -> str:
    """A name in full, on as many lines as it takes."""
    text = printable(str(name))
    pieces = [text[i : i + longest] for i in range(0, len(text), longest)]
    return "\n".join(pieces) or " "


def _places(rows: list[_Row]) -> list[float]:
    """Middle of each row, counted in rows from the top."""
    places, top = [], 0.0
    for row in rows:
        lines = 1 + row.label.count("\n") if row.kind != "gap" else 0.6
        places.append(top + (lines - 1) / 2)
        top += lines
    return places


def _draw(ax: Axes, row: _Row, place: float, largest: float) -> None:
    values = row.values
    if values is None:
        return
    if row.kind == "network":
        share = float(values["share"]) / largest if largest > 0 else 0.0
        if np.isfinite([values["low"], values["high"]]).all():
            ends = [values["low"], values["high"]]
            ax.plot(ends, [place, place], color=INK, linewidth=0.9, solid_capstyle="butt", zorder=3)
        ax.plot(
            [values["value"]], [place], linestyle="none", marker="s", color=PALETTE[0], zorder=4,
            markersize=SMALLEST + (LARGEST - SMALLEST) * np.sqrt(share), markeredgewidth=0.0,
        )  # fmt: skip
    elif row.kind == "next":
        ends = [values["next_low"], values["next_high"]]
        ax.plot(ends, [place, place], color=PALETTE[1], linewidth=3.0, solid_capstyle="butt")
    elif np.isfinite(values["low"]):
        colour = PALETTE[0] if row.kind == "all" else GREY
        middle, low, high = values["mean"], values["low"], values["high"]
        corners = [(low, place), (middle, place - 0.36), (high, place), (middle, place + 0.36)]
        ax.add_patch(Polygon(corners, closed=True, facecolor=colour, edgecolor=colour, zorder=4))
    elif np.isfinite(values["mean"]):
        ax.plot([values["mean"]], [place], linestyle="none", marker="D", markersize=3.5, color=GREY)


def _label(ax: Axes, rows: list[_Row], places: list[float]) -> None:
    """Names on the left; numbers on the right where there is room."""
    shown = [(row, place) for row, place in zip(rows, places, strict=True) if row.kind != "gap"]
    # Names are shown as they are: "$" makes no formula.
    labels = [row.label for row, _ in shown]
    ax.set_yticks([place for _, place in shown], labels, parse_math=False, fontsize=7.5)
    ax.tick_params(axis="y", length=0)
    for tick, (row, _) in zip(ax.get_yticklabels(), shown, strict=True):
        if row.kind in ("head", "all"):
            tick.set_fontweight("bold")
    if is_narrow(ax):
        return
    for row, place in shown:
        text = _numbers(row)
        if text:
            ax.text(
                1.02, place, text, transform=ax.get_yaxis_transform(), va="center", fontsize=7,
                fontweight="bold" if row.kind == "all" else "normal",
            )  # fmt: skip


def _numbers(row: _Row) -> str:
    values = row.values
    if values is None:
        return ""
    if row.kind == "next":
        return interval(values["next_low"], values["next_high"], 4, sign=True)
    value = values["value"] if row.kind == "network" else values["mean"]
    return change(value, values["low"], values["high"])


def _set_range(ax: Axes, networks: NetworksReport) -> None:
    """Make room for everything but intervals much longer than most, which run off the edge."""
    rows, mean = networks.networks, networks.means.iloc[0]
    ends = rows[["low", "high"]].to_numpy(dtype=float)
    points = [0.0, *rows.value, mean["next_low"], mean["next_high"], mean["low"], mean["high"]]
    kept = np.array([x for x in points if np.isfinite(x)])
    finite = ends[np.isfinite(ends).all(axis=1)]
    reach = 4 * np.median(finite[:, 1] - finite[:, 0]) if len(finite) else 0.0
    low, high = min(kept.min(), 0.0), max(kept.max(), 0.0)
    if len(finite):
        low = min(low, max(finite.min(), low - reach))
        high = max(high, min(finite.max(), high + reach))
    spare = 0.04 * ((high - low) or 1.0)
    ax.set_xlim(low - spare, high + spare)
    ax.grid(axis="x", color=FAINT)


def _legend(ax: Axes, networks: NetworksReport) -> None:
    square = Line2D([], [], color=INK, linewidth=0.9, marker="s", markersize=5,
                    markerfacecolor=PALETTE[0], markeredgewidth=0.0)  # fmt: skip
    level = f"{100 * networks.options.level:g} %"
    diamond = Line2D([], [], linestyle="none", marker="D", markersize=5, color=PALETTE[0])
    entries = [
        (square, f"a network, {level} interval; size: its weight"),
        (diamond, f"mean, {level} interval"),
    ]
    if np.isfinite(networks.means.iloc[0]["next_low"]):
        following = Line2D([], [], color=PALETTE[1], linewidth=3.0)
        entries.append((following, f"the next network, {level}"))
    has_long_names = networks.networks.network.str.len().max() > 24
    legend(
        ax,
        [handle for handle, _ in entries],
        [text for _, text in entries],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
        ncols=1 if is_narrow(ax) or has_long_names else len(entries),
        fontsize=7,
        handletextpad=0.5,
        columnspacing=1.2,
    )
