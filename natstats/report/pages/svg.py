"""Figures for a page that holds several of them."""

from __future__ import annotations

import re
from html import escape

__all__ = ["inline_svg"]


def inline_svg(svg: str, name: str, description: str) -> str:
    """An SVG file as an element of an HTML page.

    Every id gets `name` in front, since matplotlib uses the same ones in every figure; the header,
    the metadata and the page-wide style rule go, and the size follows the page.

    Args:
        svg: the text of a file that matplotlib wrote.
        name: of the figure; unique on the page.
        description: what a reader who cannot see it is told.

    >>> text = '<?xml ?><svg width="2pt" viewBox="0 0 2 1"><metadata/><path id="a"/></svg>'
    >>> inline_svg(text, "law", "a line").partition(" viewBox")[2]
    '="0 0 2 1"><path id="law-a"/></svg>'
    """
    body = svg[svg.index("<svg") :].strip()
    body = re.sub(r"<metadata\b.*?</metadata>|<metadata\s*/>", "", body, flags=re.DOTALL)
    body = re.sub(r"<style\b.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="', f'id="{name}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{name}-", body)
    opening, _, rest = body.partition(">")
    opening = re.sub(r'\s(width|height|version|xmlns|xmlns:xlink)="[^"]*"', "", opening)
    # The rule that matplotlib writes for everything is inherited from the element just as well.
    style = 'style="stroke-linejoin:round;stroke-linecap:butt"'
    label = f'role="img" aria-label="{escape(description)}"'
    return f"{opening.replace('<svg', f'<svg {label} {style}', 1)}>{rest}"
