"""Figures as elements of a page that someone else writes, such as a notebook."""

from __future__ import annotations

import io
import re
import warnings
from typing import Any

from matplotlib.axes import Axes

from natstats.report.figures import style

__all__ = ["inline_svg"]

_ELEMENT = "max-width:100%;height:auto;background:#fff;stroke-linejoin:round;stroke-linecap:butt"
"""Style of the element; the last two are what matplotlib sets for all of its shapes."""


def inline_svg(axes: Axes) -> str:
    """The figure of some axes as an element: outlines only, on a white ground.

    It holds neither names nor comments, so that nothing in a figure can act as markup, and no style
    sheet, which would apply to the whole page.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> inline_svg(run.plot_spectra())[:4]
    '<svg'
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    figure = style.with_plain_texts(axes)
    canvas, file = figure.canvas, io.StringIO()
    try:
        with style.look(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            drawn: Any = FigureCanvasSVG(figure)
            drawn.print_svg(file, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    finally:
        figure.set_canvas(canvas)
    text = style.shorter_svg(file.getvalue())
    for part in (r"<!--.*?-->", r"<metadata>.*?</metadata>", r"<style.*?</style>"):
        text = re.sub(part, "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*", "\n", text[text.index("<svg") :])
    return text.replace("<svg", f'<svg style="{_ELEMENT}"', 1)
