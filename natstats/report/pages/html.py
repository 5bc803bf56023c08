"""Pages that need nothing else: style, script and figures are inside, and no network is asked."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from natstats.text import lines

__all__ = ["PAGE", "embedded", "write_page"]

PAGE = "report.html"
"""Name of every page."""

_TEMPLATES = Path(__file__).parents[1] / "templates"


def embedded(path: Path, description: str) -> Markup:
    """An SVG file as an image that is part of the page.

    Args:
        path: the file.
        description: the alternative text, for readers who cannot see the image.

    Returns:
        An ``<img>`` whose address holds the whole file.
    """
    content = base64.b64encode(path.read_bytes()).decode()
    source = f"data:image/svg+xml;base64,{content}"
    return Markup('<img src="{}" alt="{}">').format(source, description)


def _shown(value: Any) -> Any:
    """A text whose names show what is in them; markup is ours and stays as it is."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return lines(value.split("\n")) if is_text else value


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
        finalize=_shown,
    )
    page = folder / PAGE
    text = environment.get_template(template).render(contents)
    # Half a pair of characters, as JSON and names of files can have, is in no text of UTF-8.
    page.write_text(text, encoding="utf-8", errors="backslashreplace")
    return page
