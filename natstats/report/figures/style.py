"""One place for the look of every figure, and for writing it to files."""

from __future__ import annotations

import contextlib
import re
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import blended_transform_factory
from numpy.typing import NDArray

from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES, DepthAxis
from natstats.text import lines

__all__ = [
    "DEPTH_COLOURS", "INK", "PALETTE", "WIDTH", "for_phones", "kind_marks", "look", "new_figure",
    "save",
]  # fmt: skip

WIDTH = {"single": 3.5, "double": 7.2}
"""Widths of a figure over one and two columns of a page, inches."""

NARROW = 4.5
"""Axes of a width below this, in inches before the layout makes room, count as one column."""

_width: ContextVar[float] = ContextVar("width", default=WIDTH["double"])
"""Width of new figures, inches."""

_on_phone: ContextVar[bool] = ContextVar("on_phone", default=False)
"""Whether figures are for the screen of a phone."""

INK, GREY, FAINT = "#1b1f24", "#5c6670", "#dfe3e7"
"""Text and lines; secondary text; grid and separators."""

PALETTE = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C00",
)  # fmt: skip
"""Eight colours that stay apart for colour-blind readers, after Okabe and Ito (2008).

Their yellow is too faint for a thin mark on white; an olive stands in for it."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
"""One marker per place in the palette, so that nothing rests on colour alone."""

DEPTH_COLOURS = "viridis"
"""Colour map of depth; used up to `DEPTH_TOP`, since its yellow end vanishes on white."""

DEPTH_TOP = 0.92

_KINDS = ("conv", "depthwise", "pointwise", "act", "norm")

_RC = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.formatter.limits": (-9, 12),  # 0.0001, and no 1e-4 at the end of the axis
    "axes.formatter.useoffset": False,
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.7,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "figure.dpi": 100,
    # DejaVu Sans comes with matplotlib: the same picture on every machine.
    "font.family": ["DejaVu Sans"],
    "font.size": 8,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "mathtext.default": "regular",
    "svg.fonttype": "path",
    "svg.hashsalt": "natstats",
    "text.color": INK,
    "text.parse_math": True,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 8,
}


@contextlib.contextmanager
def look() -> Iterator[None]:
    """The style of natstats, for as long as the context is open.

    >>> before = matplotlib.rcParams["font.size"]
    >>> with look():
    ...     matplotlib.rcParams["axes.linewidth"]
    0.7
    >>> matplotlib.rcParams["font.size"] == before
    True
    """
    with matplotlib.rc_context(_RC):  # type: ignore[arg-type]
        yield


@contextlib.contextmanager
def drawn_at(width: float) -> Iterator[None]:
    """New figures are as wide as this, in inches, for as long as the context is open."""
    before = _width.set(width)
    try:
        yield
    finally:
        _width.reset(before)


@contextlib.contextmanager
def for_phones() -> Iterator[None]:
    """New figures are one column wide for as long as the context is open, and saved as SVG only.

    On the screen of a phone the letters of such a figure are about as large as those of the page.

    >>> with for_phones():
    ...     print(new_figure(3.0).get_figwidth())
    3.5
    >>> print(new_figure(3.0).get_figwidth())
    7.2
    """
    before = _on_phone.set(True)
    try:
        with drawn_at(WIDTH["single"]):
            yield
    finally:
        _on_phone.reset(before)


def is_for_phones() -> bool:
    """Whether new figures are for the screen of a phone."""
    return _on_phone.get()


def new_figure(height: float) -> Figure:
    """A new figure that pyplot does not know, as wide as figures are now."""
    return Figure(figsize=(_width.get(), height), layout="constrained")


def new_axes(ax: Axes | None, height: float) -> Axes:
    """`ax`, or the axes of a new figure that pyplot does not know; dressed in the style."""
    if ax is None:
        ax = new_figure(height).add_subplot()
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def is_narrow(ax: Axes) -> bool:
    """True for axes about one column wide, which need their legend above or below."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    return ax.get_position(original=True).width * figure.get_figwidth() < NARROW


def depth_axis(ax: Axes, measure: DepthAxis = DEPTH_AXES["layers"]) -> None:
    """Name the axis of depth, with whole numbers only where depth is a count."""
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=measure.is_count, steps=[1, 2, 5, 10]))
    ax.set_xlabel(measure.axis)


def depth_colours() -> LinearSegmentedColormap:
    """The colours of depth, from 0 to 1, without the end that is faint on white."""
    whole = matplotlib.colormaps[DEPTH_COLOURS]
    return LinearSegmentedColormap.from_list("depth", whole(np.linspace(0, DEPTH_TOP, 256)))


def kind_marks(kinds: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of every kind of layer, the same in all figures for the usual kinds.

    >>> kind_marks(["pointwise", "conv"])["conv"]
    ('#0072B2', 'o')
    """
    found = dict.fromkeys(kinds)
    unusual = [kind for kind in found if kind not in _KINDS]
    places = {kind: place for place, kind in enumerate((*_KINDS, *unusual))}
    n = len(PALETTE)
    # Beyond eight kinds the colours start again with the markers shifted by one.
    return {
        kind: (PALETTE[places[kind] % n], MARKERS[(places[kind] + places[kind] // n) % n])
        for kind in sorted(found, key=lambda kind: places[kind])
    }


def side_by_side(
    depths: Sequence[float], step: float, distance: float = 1.0
) -> NDArray[np.float64]:
    """Places for layers, those of one depth next to each other in the order of execution.

    Args:
        depths: depths of the layers, (L,).
        step: between neighbours at one depth; less where many share it.
        distance: distance from one depth to the next.

    Returns:
        (L,).

    >>> side_by_side([0, 1, 1], 0.2).tolist()
    [0.0, 0.9, 1.1]
    """
    total, seen = Counter(depths), Counter[float]()
    places = []
    for depth in depths:
        own = min(step, 0.8 * distance / total[depth])
        places.append(depth + own * (seen[depth] - (total[depth] - 1) / 2))
        seen[depth] += 1
    return np.array(places, dtype=np.float64)


def places_of_layers(depths: Sequence[float], is_count: bool) -> NDArray[np.float64]:
    """Where layers stand on an axis of depth: those of one depth a little apart, (L,).

    Args:
        depths: of the layers, finite.
        is_count: whether depth is a whole number, see
            :class:`natstats.fits.depth_axes.DepthAxis`.

    >>> places_of_layers([0, 1, 1], True).round(3).tolist()
    [0.0, 0.992, 1.008]
    """
    deepest = max([1.0, *depths])
    apart = 1.0 if is_count else 0.02 * deepest
    return side_by_side(depths, min(0.45 * apart, 0.016 * deepest), apart)


def legend(ax: Axes, handles: Sequence[Artist], labels: Sequence[str], **options: Any) -> Legend:
    """A legend whose labels are shown as they are, whatever characters are in them.

    Matplotlib drops labels that begin with an underscore and reads formulas between dollar signs.
    It takes fewer columns than asked for where they do not fit into the width of the axes.
    """
    if is_for_phones() and _is_above(ax, options):
        figure = ax.get_figure(root=True)
        assert figure is not None
        # From the left edge, as names of layers may leave the axes little of a narrow figure.
        places = blended_transform_factory(figure.transFigure, ax.transAxes)
        options |= {"bbox_to_anchor": (0.0, 1.0), "bbox_transform": places}
    if "ncols" in options:
        options["ncols"] = _fitting(ax, labels, options)
    drawn: Legend = ax.legend(handles, ["x"] * len(labels), **options)
    for text, label in zip(drawn.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(lines(label.split("\n")))
    return drawn


def _is_above(ax: Axes, options: dict[str, Any]) -> bool:
    """Whether a legend stands above axes that have no others beside them."""
    grid = ax.get_gridspec()
    is_alone = grid is None or grid.ncols == 1
    above = options.get("loc") == "lower left" and options.get("bbox_to_anchor") == (0.0, 1.0)
    return above and is_alone and "bbox_transform" not in options


def _fitting(ax: Axes, labels: Sequence[str], options: dict[str, Any]) -> int:
    """The most columns of a legend, up to those asked for, that are no wider than the axes."""
    size = float(options.get("fontsize", _RC["legend.fontsize"]))
    figure = ax.get_figure(root=True)
    assert figure is not None
    share = ax.get_position(original=True).width / 0.775
    # Labels of the vertical axis stand to the left of the axes.
    room = 72 * (share * figure.get_figwidth() - (0.1 if is_for_phones() else 0.55))
    # Handle and pads, in units of the font size, as matplotlib has them.
    beside = 2.0 + options.get("handletextpad", 0.8)
    widths = [max(_width_of(line, size) for line in label.split("\n")) for label in labels]
    for n_columns in range(min(options["ncols"], len(labels)), 1, -1):
        columns = [max(one) for one in np.array_split(widths, n_columns)]  # as matplotlib does
        pads = beside * len(columns) + options.get("columnspacing", 2.0) * (len(columns) - 1)
        if sum(columns) + size * pads <= room:
            return n_columns
    return 1


def _width_of(text: str, size: float) -> float:
    """Width of a line, points; an estimate where the font may lack letters."""
    if not text.isascii() or "$" in text:
        return 0.62 * size * len(text)
    return float(TextPath((0, 0), text, size=size).get_extents().width) if text.strip() else 0.0


LABEL_ROOM = 185.0
"""Room for the name of a horizontal axis on a phone, points, if the other axis has long names."""

DPI = 200
"""Dots per inch of the PNG files."""


def save(axes: Axes, folder: Path, name: str) -> list[Path]:
    """Write the figure of `axes` as ``name.svg`` and ``name.png`` (:data:`DPI`) into `folder`.

    The same figure gives the same bytes: no date, and ids that do not change. Text is drawn as
    outlines, so that it looks the same without the font.

    Args:
        axes: axes in the figure to write.
        folder: made if it is not there.
        name: name of the files, without suffix.

    Returns:
        The two files; the first alone of a figure for phones, see :func:`for_phones`.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    if _width.get() < NARROW:
        _wrap_labels(figure)
    from natstats.report.figures.printing import asked_for

    if (printed := asked_for()) is not None:
        return printed.write(axes, folder, name)
    with_plain_texts(axes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"out: expected a folder to draw into; {error}") from None
    vector, raster = folder / f"{name}.svg", folder / f"{name}.png"
    # On a phone, text can stay text: in the fonts of phones it is no wider.
    type_of_text = {"svg.fonttype": "none" if is_for_phones() else "path"}
    with look(), matplotlib.rc_context(type_of_text), warnings.catch_warnings():  # type: ignore[arg-type]
        # A name in a script that the font lacks shows as boxes, which is no reason to fail.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        _write(figure, vector, None if is_for_phones() else raster)
    vector.write_text(shorter_svg(vector.read_text(encoding="utf-8")), encoding="utf-8")
    return [vector] if is_for_phones() else [vector, raster]


def with_plain_texts(axes: Axes) -> Figure:
    """The figure of some axes; invisible characters in its texts become escapes."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        shown = lines(text.get_text().split("\n"))
        if shown != text.get_text():
            text.set_text(shown)
    return figure


def _wrap_labels(figure: Figure) -> None:
    """Break names of axes into lines that a narrow figure has room for."""
    for ax in figure.axes:
        for axis, room in ((ax.xaxis, LABEL_ROOM), (ax.yaxis, 72 * 0.8 * figure.get_figheight())):
            label = axis.label
            text, size = label.get_text(), float(label.get_fontsize())
            if "$" not in text and _width_of(max(text.split("\n"), key=len), size) > room:
                wrapped = textwrap.wrap(text.replace("\n", " "), int(room / (0.6 * size)))
                label.set_text("\n".join(wrapped))


def _write(figure: Figure, vector: Path, raster: Path | None) -> None:
    """Draw a figure once for each file; ``savefig`` draws it twice, first without a result."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    canvas, dpi = figure.canvas, figure.dpi
    try:
        drawn: Any = FigureCanvasSVG(figure)
        drawn.print_svg(vector, metadata={"Date": None})
        if raster is None:
            return
        figure.set_layout_engine("none")  # the layout of the first file is kept for the other
        figure.dpi = DPI
        drawn = FigureCanvasAgg(figure)
        drawn.print_png(raster)
    finally:
        figure.set_canvas(canvas)
        figure.dpi = dpi


def shorter_svg(svg: str) -> str:
    """Paths with two decimals of a point in place of six: half the size, no visible change."""

    def rounded(path: re.Match[str]) -> str:
        return re.sub(
            r"-?\d+\.\d{3,}", lambda one: f"{float(one[0]):.2f}".rstrip("0").rstrip("."), path[0]
        )

    return re.sub(r'(?<= d=")[^"]+', rounded, svg)
