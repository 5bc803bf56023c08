"""Figures for papers and talks: as wide as a column, in the formats that are asked for.

A figure is drawn at its width, so that letters keep their size: 7 to 9 points on paper, also in a
column of 3.4 inches. For a talk everything is :data:`TALK` times as large. PDF files hold their
text as text, in TrueType fonts (type 42), which publishers ask for.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from natstats import checks
from natstats.errors import UsageError
from natstats.report.figures import style as looks

__all__ = ["FORMATS", "STYLES", "Printed", "Style", "asked_for", "parsed_width", "printed"]

FORMATS = ("svg", "png", "pdf")
"""Formats of figures; the first two are written when none is asked for."""

Style = Literal["paper", "talk"]
"""The names in :data:`STYLES`, for type checkers."""

STYLES = ("paper", "talk")
"""What figures are for."""

TALK = 1.7
"""How much larger all of a figure is for a talk."""

USUAL = {"paper": looks.WIDTH["double"], "talk": 10.0}
"""Width of a figure, inches, when none is asked for."""

_UNITS = {"in": 1.0, "cm": 1 / 2.54, "mm": 1 / 25.4, "pt": 1 / 72}
_NARROWEST, _WIDEST = 3.0, 60.0
"""Least width of a figure on paper, and greatest of any figure, inches."""

_asked: ContextVar[Printed | None] = ContextVar("printed", default=None)


def parsed_width(text: str) -> float:
    """The width in inches of a text with a unit: in, cm, mm or pt (72 to the inch).

    Raises:
        UsageError: there is no unit or no number.

    >>> parsed_width("3.4in"), round(parsed_width("86 mm"), 3), parsed_width("252pt")
    (3.4, 3.386, 3.5)
    >>> parsed_width("3.4")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    natstats.errors.UsageError: width: expected a number with its unit, ...
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(in|cm|mm|pt)\s*", text)
    if found is None:
        raise UsageError(
            "width: expected a number with its unit, such as 3.4in, 8.6cm, 86mm or 245pt; got "
            f"{text[:40]!r}"
        )
    return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Printed:
    """How figures are drawn and written.

    Attributes:
        width: of the figure as it is written, inches.
        formats: of the files, some of :data:`FORMATS`.
        scale: how much larger everything is than on paper.
    """

    width: float
    formats: Sequence[str]
    scale: float = 1.0

    def write(self, axes: Axes, folder: Path, name: str) -> list[Path]:
        """Write the figure of some axes into a folder, once in every format.

        Raises:
            UsageError: the folder cannot be made, or names leave no room at this width.
        """
        figure = looks.with_plain_texts(axes)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"out: expected a folder to draw into; {error}") from None
        paths = [folder / f"{name}.{kind}" for kind in self.formats]
        canvas, dpi, layout = figure.canvas, figure.dpi, figure.get_layout_engine()
        try:
            with (
                looks.look(),
                matplotlib.rc_context({"pdf.fonttype": 42}),
                warnings.catch_warnings(),
            ):
                warnings.filterwarnings("ignore", "Glyph .* missing from font")
                warnings.filterwarnings("error", "constrained_layout not applied")
                for path in paths:
                    _WRITERS[path.suffix[1:]](figure, path, self.scale)
                    # The layout of the first file is kept for the others.
                    figure.set_layout_engine("none")
        except UserWarning:
            raise UsageError(
                f"width: expected room for the names in the figure {name}; {self.width:.3g} inches "
                "leave none for what is drawn"
            ) from None
        finally:
            figure.set_layout_engine(layout)
            figure.set_canvas(canvas)
            figure.dpi = dpi
        return paths


def _write_svg(figure: Figure, path: Path, scale: float) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    drawn: Any = FigureCanvasSVG(figure)
    drawn.print_svg(path, metadata={"Date": None})
    text = looks.shorter_svg(path.read_text(encoding="utf-8"))
    head, _, rest = text.partition("viewBox")
    for side in ("width", "height"):
        head = re.sub(
            rf'(?<= {side}=")([\d.]+)pt', lambda one: f"{float(one[1]) * scale:g}pt", head
        )
    path.write_text(f"{head}viewBox{rest}", encoding="utf-8")


def _write_png(figure: Figure, path: Path, scale: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.dpi = looks.DPI * scale
    drawn: Any = FigureCanvasAgg(figure)
    drawn.print_png(path, pil_kwargs={"dpi": (looks.DPI, looks.DPI)})


def _write_pdf(figure: Figure, path: Path, scale: float) -> None:
    from matplotlib.backends import backend_mixed, backend_pdf

    pdf: Any = backend_pdf
    mixed: Any = backend_mixed
    figure.dpi = 72
    pdf.FigureCanvasPdf(figure)
    width, height = figure.get_size_inches()
    file = pdf.PdfFile(str(path), metadata={"CreationDate": None})
    try:
        file.newPage(width * scale, height * scale)
        if scale != 1:
            file.output(scale, 0, 0, scale, 0, 0, pdf.Op.concat_matrix)
        vector = pdf.RendererPdf(file, 72, height, width)
        renderer = mixed.MixedModeRenderer(figure, width, height, 72, vector)
        figure.draw(renderer)
        renderer.finalize()
        file.finalize()
    finally:
        file.close()


_WRITERS = {"svg": _write_svg, "png": _write_png, "pdf": _write_pdf}


def asked_for() -> Printed | None:
    """How figures are written now; None for the usual way."""
    return _asked.get()


@contextlib.contextmanager
def printed(
    formats: Sequence[str] | None = None,
    width: str | float | None = None,
    style: Style = "paper",
) -> Iterator[None]:
    """Draw and write figures for paper or a talk for as long as the context is open.

    Args:
        formats: some of :data:`FORMATS`; by default SVG and PNG.
        width: with its unit, see :func:`parsed_width`, or in inches; by default 7.2 inches on
            paper, 10 for a talk.
        style: one of :data:`STYLES`.

    Raises:
        UsageError: there is no such format or style, or the width is no width or out of range.

    >>> import tempfile, natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> with tempfile.TemporaryDirectory() as folder, printed(["pdf"], "3.4in"):
    ...     [path.name for path in looks.save(run.plot_spectra(), Path(folder), "spectra")]
    ['spectra.pdf']
    """
    checks.one_of("style", style, STYLES)
    chosen = list(dict.fromkeys(FORMATS[:2] if formats is None else formats))
    if not chosen:
        raise UsageError(f"format: expected one or more of {', '.join(FORMATS)}; got none")
    for one in chosen:
        checks.one_of("format", one, FORMATS)
    scale = TALK if style == "talk" else 1.0
    inches = USUAL[style] if width is None else width
    if isinstance(inches, str):
        inches = parsed_width(inches)
    inches = checks.finite("width", inches)
    if not _NARROWEST * scale <= inches <= _WIDEST:
        raise UsageError(
            f"width: expected from {_NARROWEST * scale:g} to {_WIDEST:g} inches for a {style}; got "
            f"{inches:.3g}"
        )
    before = _asked.set(Printed(inches, chosen, scale))
    try:
        with looks.drawn_at(inches / scale):
            yield
    finally:
        _asked.reset(before)
