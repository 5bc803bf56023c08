"""What is drawn in axes: points, bars and texts, and whether these can be read."""

from __future__ import annotations

import itertools

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox


def n_error_bars(ax: Axes) -> int:
    return sum(len(one.get_segments()) for one in ax.collections if isinstance(one, LineCollection))


def n_points(ax: Axes) -> int:
    return sum(
        len(line.get_xdata()) for line in ax.lines if line.get_marker() not in ("None", None, "")
    )


def drawn_texts(ax: Axes) -> list[tuple[str, Bbox]]:
    """Every text that is painted in the figure, with its box."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    unpainted = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    return [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unpainted
    ]


def overlapping(ax: Axes) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap by more than half a pixel."""
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(drawn_texts(ax), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
    ]


def outside(ax: Axes) -> list[str]:
    """Texts that stick out of the figure by more than a pixel."""
    whole = ax.get_figure(root=True).bbox.padded(1)
    return [
        text
        for text, box in drawn_texts(ax)
        if not (whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1))
    ]


def unreadable(ax: Axes) -> list[str | tuple[str, str]]:
    """Texts that stick out of the figure, and pairs that overlap."""
    return [*outside(ax), *overlapping(ax)]
