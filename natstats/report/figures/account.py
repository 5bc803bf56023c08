"""Where the exponent of a layer comes from: a waterfall along the trunk, and running sums."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.numbers import number
from natstats.report.figures.causes import CAUSE_STYLES, cause_name, without_rounding
from natstats.report.figures.style import (
    GREY,
    INK,
    depth_axis,
    is_narrow,
    legend,
    look,
    new_axes,
    new_figure,
)
from natstats.report.records import AccountReport
from natstats.text import printable

__all__ = ["layers_of_trunk", "plot_account"]

HATCHED = 6.0
"""Distance of neighbouring layers, points, from which on bars are wide enough for hatching."""

Array = NDArray[np.float64]
Pair = tuple[Axes, Axes]


def plot_account(account: AccountReport, axes: Pair | None = None) -> Pair:
    """Draw what raises and what lowers the exponent from layer to layer, and the running sums.

    Above, the black points are the exponents of the layers of the trunk. The bars between two
    layers are the shares of the operations between them, summed by cause; they start at the
    exponent of the earlier layer and lead to that of the next. Below, the shares of each cause are
    summed from the images on.

    Args:
        account: what to draw.
        axes: above and below; by default those of a new figure.

    Returns:
        The axes drawn into.
    """
    layers = layers_of_trunk(account.frame)
    with look():
        above, below = _two(axes)
        place, is_depth = _places(layers)
        step = _points_of_a_step(above, len(layers))
        causes = [cause for cause in CAUSE_STYLES if cause in layers]
        _draw_stairs(above, layers, causes, place, step)
        _draw_sums(below, layers, causes, place)
        for ax in (above, below):
            ax.grid(axis="y")
            if len(place):
                spare = 0.02 * (place[-1] - place[0] + 1)
                ax.set_xlim(place[0] - 1 - spare, place[-1] + spare)
        above.tick_params(labelbottom=False)
        depth_axis(below, DEPTH_AXES["layers"])
        if not is_depth:
            below.set_xlabel("layers of the trunk, in order")
        narrow = is_narrow(above)
        above.set_ylabel(r"exponent $\alpha$" if narrow else r"exponent $\alpha$ of the layers")
        below.set_ylabel("running sum" if narrow else "running sum of shares")
        title = _title(account, narrow)
        _draw_legend(above, account.totals, causes, narrow, step >= HATCHED, title)
    return above, below


def layers_of_trunk(frame: pd.DataFrame) -> pd.DataFrame:
    """The trunk of an account by layers: what the operations up to each weight layer add.

    Args:
        frame: a row per share, see :attr:`natstats.theory.account.Account.frame`.

    Returns:
        A row per layer: layer, depth, before, after, and a column for each cause that occurs.
    """
    trunk = frame[frame.trunk.astype(bool)]
    names = trunk.layer.where(trunk.layer != "", trunk.step)
    number_of = (names != names.shift()).cumsum()
    rows = []
    for _, own in trunk.groupby(number_of.to_numpy(), sort=False):
        last = own.iloc[-1]
        rows.append(
            {
                "layer": last.layer or last.step,
                "depth": last.depth,
                "before": own.before.iloc[0],
                "after": last.after,
                **own.groupby("cause", sort=False).share.sum(),
            }
        )
    return pd.DataFrame(rows, columns=None if rows else ["layer", "depth", "before", "after"])


def _two(axes: Pair | None) -> Pair:
    if axes is None:
        figure = new_figure(6.0)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1.5, 1.0))
        axes = above, below
    return new_axes(axes[0], 0.0), new_axes(axes[1], 0.0)


def _places(layers: pd.DataFrame) -> tuple[Array, bool]:
    """Depths of the layers and True, if they rise all along; else their numbers and False."""
    depth = layers.depth.to_numpy(dtype=np.float64)
    if np.all(np.diff(depth) > 0):
        return depth, True
    return np.arange(1.0, len(depth) + 1), False


def _points_of_a_step(ax: Axes, n_layers: int) -> float:
    """Distance from one layer to the next, points."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    width = ax.get_position(original=True).width * figure.get_figwidth()
    return float(72 * width / (n_layers + 1))


def _draw_stairs(
    ax: Axes, layers: pd.DataFrame, causes: list[str], place: Array, step: float
) -> None:
    """Bars up and down from the exponent of the layer before, and the stairs of the exponents."""
    before = layers.before.to_numpy(dtype=np.float64)
    top, bottom, middle = before.copy(), before.copy(), place - 0.5
    with matplotlib.rc_context({"hatch.linewidth": 0.5}):
        for cause in causes:
            share = layers[cause].fillna(0.0).to_numpy(dtype=np.float64)
            style = CAUSE_STYLES[cause]
            outlines = []
            for end, own in ((top, np.clip(share, 0, None)), (bottom, np.clip(share, None, 0))):
                some = own != 0
                drawn = ax.bar(
                    middle[some], own[some], width=0.8, bottom=end[some], zorder=2, **style.area
                )
                outlines += [
                    bar.get_patch_transform().transform_path(bar.get_path()) for bar in drawn
                ]
                end += own
            if step >= HATCHED and style.hatch and outlines:
                # One shape for all bars of a cause: printed pages keep a picture of the hatching
                # for every shape, which made megabytes of a hundred bars.
                shape = Path.make_compound_path(*outlines)
                hatching = {**style.area, "facecolor": "none", "hatch": style.hatch}
                ax.add_patch(PathPatch(shape, zorder=2, **hatching))
    if len(place):
        at, level = [place[0] - 1, *place], [*before, layers.after.iloc[-1]]
        size, width = min(3.4, 0.38 * step), min(1.1, 0.2 * step)
        for colour, more in (("white", min(1.6, 0.2 * step)), (INK, 0.0)):
            ax.plot(
                at, level, drawstyle="steps-post", color=colour, linewidth=width + more, zorder=3,
                marker="o", markersize=size + more, markeredgewidth=0.0,
            )  # fmt: skip


def _draw_sums(ax: Axes, layers: pd.DataFrame, causes: list[str], place: Array) -> None:
    """The shares of each cause, summed from the images on, and the sum of all causes."""
    ax.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    if not len(place):
        return
    every = max(1, round(len(place) / 9))
    at = np.concatenate([[place[0] - 1], place])
    for turn, cause in enumerate(causes):
        total = np.cumsum([0.0, *layers[cause].fillna(0.0)])
        # Marks of different lines stand at different layers, so that none hides another.
        marks = (1 + turn * every // max(len(causes), 1), every)
        ax.plot(at, total, markevery=marks, zorder=3, **_line(cause))
    change = np.array([layers.before.iloc[0], *layers.after]) - layers.before.iloc[0]
    ax.plot(at, change, color=INK, linewidth=1.6, zorder=4)


def _line(cause: str) -> dict[str, Any]:
    style = CAUSE_STYLES[cause]
    return {
        "color": style.colour, "linewidth": 1.0, "marker": style.marker, "markersize": 4.2,
        "markeredgewidth": 0.5, "markeredgecolor": "white",
    }  # fmt: skip


def _title(account: AccountReport, narrow: bool) -> str:
    trunk = account.trunk
    if not len(trunk):
        return "no way from the images to a layer\nhas exponents all along"
    first, last = account.ends
    where = printable(str(trunk.step.iloc[-1]))
    text = f"from {number(first)} in the images to {number(last)} in {where}"
    return "\n".join(textwrap.wrap(text, 40 if narrow else 80))


def _draw_legend(
    ax: Axes, totals: pd.DataFrame, causes: list[str], narrow: bool, is_hatched: bool, title: str
) -> None:
    """Above the axes: area and line of each cause, with what it adds in all."""
    share = totals.set_index("cause").share
    handles: list[Any] = []
    for cause in causes:
        style = CAUSE_STYLES[cause]
        area = Patch(hatch=style.hatch if is_hatched else None, **style.area)
        handles.append((area, Line2D([], [], **_line(cause))))
    labels = [
        f"{cause_name(cause)} {number(without_rounding(share[cause]), sign=True)}"
        for cause in causes
    ]
    handles.append(Line2D([], [], color=INK, linewidth=1.6))
    labels.append(f"exponent {number(share.sum(), sign=True)}")
    drawn = legend(
        ax, handles, labels, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2,
        ncols=1 if narrow else 3, fontsize=7 if narrow else 8, handlelength=4.0, columnspacing=1.4,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.3)}, title=title, alignment="left",
        title_fontproperties={"weight": "bold", "size": 8 if narrow else 9.5},
    )  # fmt: skip
    drawn.get_title().set_parse_math(False)
