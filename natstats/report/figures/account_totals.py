"""What each cause adds along the trunk, with intervals, beside the same with random weights."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from natstats.numbers import number
from natstats.report.figures.causes import CAUSE_STYLES, cause_name, share_text, without_rounding
from natstats.report.figures.style import FAINT, GREY, INK, is_narrow, legend, look, new_axes
from natstats.report.records import AccountReport

__all__ = ["WHOLE", "plot_account_totals"]

WHOLE = "all"
"""Cause of the row that holds the whole change."""

ROW = 0.34
"""Height of a row, inches; half as much again with random weights."""


def plot_account_totals(account: AccountReport, ax: Axes | None = None) -> Axes:
    """Draw the total of every cause as a bar with its interval, and the whole change last.

    With a control a hollow bar below is the total of random weights, and the number on the right is
    the difference, with its interval.

    Args:
        account: what to draw.
        ax: where to draw; by default a new figure, whose height fits its rows.

    Returns:
        The axes drawn into.
    """
    rows = _rows(account)
    has_random = account.difference is not None
    with look():
        ax = new_axes(ax, 0.9 + ROW * (1.5 if has_random else 1.0) * len(rows))
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.axvline(0.0, color=GREY, linewidth=0.8, zorder=3)
        ax.grid(axis="x", color=FAINT)
        with matplotlib.rc_context({"hatch.linewidth": 0.5}):
            for place, row in enumerate(rows.to_dict("records")):
                _draw(ax, place, row, has_random)
        ax.set_yticks(
            range(len(rows)), [_label(cause) for cause in rows.cause], parse_math=False, fontsize=8
        )
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        what = r"change of the exponent $\alpha$"
        ax.set_xlabel(what if is_narrow(ax) else f"{what} from the images to the last layer")
        _draw_numbers(ax, rows, has_random)
        _draw_legend(ax, has_random)
    return ax


def _rows(account: AccountReport) -> pd.DataFrame:
    """Columns cause, share, low, high; with a control also random, difference, from and to."""
    own = account.totals[["cause", "share", "low", "high"]]
    found = account.difference
    if found is not None:
        # A cause may be missing in either network: it adds nothing there.
        causes = [cause for cause in CAUSE_STYLES if cause in {*own.cause, *found.cause}]
        own = own.set_index("cause").reindex(causes)
        named = found.set_index("cause").rename(columns={"low": "from", "high": "to"})
        own = own.join(named[["random", "difference", "from", "to"]]).reset_index()
        own = own.fillna({"share": 0.0, "random": 0.0})
    whole: dict[str, Any] = {
        "cause": WHOLE, "share": account.change.value, "low": account.change.low,
        "high": account.change.high,
    }  # fmt: skip
    if found is not None:
        total = found[found.cause == WHOLE]
        if not len(total):  # the sum of the causes, whose interval is not known here
            total = (
                found[["random", "difference"]].sum().to_frame().T.assign(low=np.nan, high=np.nan)
            )
        names = {"random": "random", "difference": "difference", "low": "from", "high": "to"}
        whole |= {new: float(total[old].iloc[0]) for old, new in names.items()}
    return pd.DataFrame([*own.to_dict("records"), whole])


def _label(cause: str) -> str:
    return "whole change" if cause == WHOLE else cause_name(cause)


def _draw(ax: Axes, place: int, row: dict[Any, Any], has_random: bool) -> None:
    style = CAUSE_STYLES.get(row["cause"])
    area = {"facecolor": INK, "linewidth": 0.0} if style is None else style.area
    height, shift = (0.36, -0.2) if has_random else (0.6, 0.0)
    ax.barh(
        place + shift, row["share"], height, hatch=None if style is None else style.hatch,
        zorder=2, **area,
    )  # fmt: skip
    if np.isfinite([row["low"], row["high"]]).all():
        reach = [[row["share"] - row["low"]], [row["high"] - row["share"]]]
        line: dict[str, Any] = {"fmt": "none", "capsize": 2.5}
        for colour, width in (("white", 2.6), (INK if style is not None else GREY, 1.0)):
            ax.errorbar(
                [row["share"]], [place + shift], xerr=np.clip(reach, 0.0, None), ecolor=colour,
                elinewidth=width, capthick=width, zorder=4, **line,
            )  # fmt: skip
    if has_random:
        colour = INK if style is None else style.colour
        ax.barh(
            place + 0.2, row["random"], 0.3, facecolor="white", edgecolor=colour, linewidth=1.2,
            zorder=2,
        )  # fmt: skip


def _draw_numbers(ax: Axes, rows: pd.DataFrame, has_random: bool) -> None:
    """The numbers on the right, where there is room."""
    if is_narrow(ax):
        return
    names = ("difference", "from", "to") if has_random else ("share", "low", "high")
    head = "trained \N{MINUS SIGN} random" if has_random else ""
    at: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 7.5}
    ax.text(1.02, -0.75, head, color=GREY, **at)
    for place, row in enumerate(rows.to_dict("records")):
        value, low, high = (float(row[name]) for name in names)
        has_ends = np.isfinite([low, high]).all()
        alone = number(without_rounding(value), sign=True)
        text = share_text(value, low, high) if has_ends else alone
        ax.text(1.02, place, text, **at, fontweight="bold" if row["cause"] == WHOLE else "normal")


def _draw_legend(ax: Axes, has_random: bool) -> None:
    if not has_random:
        return
    entries: list[tuple[Artist, str]] = [
        (Patch(facecolor=GREY, linewidth=0.0), "trained"),
        (Patch(facecolor="white", edgecolor=GREY, linewidth=1.2), "random weights"),
    ]
    legend(
        ax, [handle for handle, _ in entries], [text for _, text in entries], loc="lower left",
        bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2, ncols=2, fontsize=7.5,
    )  # fmt: skip
