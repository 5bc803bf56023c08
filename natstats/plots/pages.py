"""Pages that need nothing else: style, script and figures are inside, and no network is asked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from natstats.plots.svg import inline_svg

__all__ = ["PAGE", "embedded", "write_page"]

PAGE = "report.html"
"""Name of every page."""

_TEMPLATES = Path(__file__).parent / "templates"


def embedded(path: Path, key: str, description: str) -> Markup:
    """An SVG file as a part of a page.

    Args:
        path: the file.
        key: tells its parts from those of other figures.
        description: for those who cannot see it.
    """
    # Safe: matplotlib escapes, and text is drawn as outlines.
    return Markup(inline_svg(path.read_text(encoding="utf-8"), key, description))


def write_page(folder: Path, template: str, contents: Mapping[str, Any]) -> Path:
    """Fill in a template and write it into `folder`.

    Args:
        folder: it must exist.
        template: name of the file.
        contents: all that it asks for; what is missing is an error.

    Returns:
        The page.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    page = folder / PAGE
    page.write_text(environment.get_template(template).render(contents), encoding="utf-8")
    return page
