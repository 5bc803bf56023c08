"""Names at the right ends of lines, in place of a legend, kept apart from each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from natstats.report.figures.style import is_narrow
from natstats.text import printable

__all__ = ["EndLabel", "label_ends", "spread"]

SIZE = 7.0
"""Font size of a label, points."""

LIGHTEST = 0.45
"""Greatest lightness of letters that can be read on white."""

LONGEST = {"narrow": 17, "wide": 26}
"""Most characters of a label; a longer one loses its beginning, which layers have in common."""


@dataclass(frozen=True)
class EndLabel:
    """The name of a line.

    Attributes:
        text: the name.
        value: where the line ends.
        colour: of the line.
    """

    text: str
    value: float
    colour: Any


def label_ends(ax: Axes, x: float, labels: Sequence[EndLabel]) -> None:
    """Write names to the right of the axes, each at the end of its line or near it.

    The limits of the axes stay what they are now.

    Args:
        ax: with the lines.
        x: where the lines end.
        labels: of the lines.
    """
    labels = sorted(labels, key=lambda one: one.value)
    if not labels:
        return
    low, high = ax.get_ylim()
    ax.set_ylim(low, high)
    figure = ax.get_figure(root=True)
    assert figure is not None
    # About a fifth of the height is for the labels of the axes.
    points = 0.8 * 72 * figure.get_figheight() * ax.get_position(original=True).height / 0.77
    ends = np.array([(one.value - low) / (high - low) for one in labels])
    longest = LONGEST["narrow" if is_narrow(ax) else "wide"]
    for one, place in zip(labels, spread(ends, 1.3 * SIZE / points), strict=True):
        name = printable(one.text)
        name = name if len(name) <= longest else f"…{name[1 - longest :]}"
        ax.annotate(
            name, (x, one.value), xytext=(1.02, place), textcoords="axes fraction", va="center",
            fontsize=SIZE, color=_readable(one.colour), parse_math=False, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": one.colour, "linewidth": 0.5, "alpha": 0.6,
                        "shrinkA": 1, "shrinkB": 2},
        )  # fmt: skip


def _readable(colour: Any) -> tuple[float, float, float]:
    """The colour, or a darker one where its letters would be faint on white."""
    red, green, blue = to_rgb(colour)
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    share = min(1.0, LIGHTEST / light) if light else 1.0
    return red * share, green * share, blue * share


def spread(places: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Places near the given ones, in their order and at least `distance` apart.

    Neighbours that are too near move apart about their mean.

    >>> spread(np.array([0.0, 0.5, 0.51]), 0.1).round(3).tolist()
    [0.0, 0.455, 0.555]
    """
    blocks = [[float(place)] for place in places]
    joined: list[list[float]] = []
    for block in blocks:
        joined.append(block)
        while len(joined) > 1 and _top(joined[-2], distance) + distance > _bottom(
            joined[-1], distance
        ):
            last = joined.pop()
            joined[-1] = joined[-1] + last
    found = [
        _bottom(block, distance) + distance * place
        for block in joined
        for place in range(len(block))
    ]
    return np.array(found, dtype=np.float64)


def _bottom(block: Sequence[float], distance: float) -> float:
    """The lowest place of a block of labels that are spread about the mean of their places."""
    return float(np.mean(block)) - distance * (len(block) - 1) / 2


def _top(block: Sequence[float], distance: float) -> float:
    return float(np.mean(block)) + distance * (len(block) - 1) / 2
