"""Self-contained pages: style, script and figures are inside, nothing comes from a network."""

from __future__ import annotations

import base64
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from natstats.report.pages.citing import citation
from natstats.report.pages.smaller_svg import compact
from natstats.report.pages.words import DOCS, meanings
from natstats.text import lines, printable

__all__ = ["PAGE", "drawn_twice", "embedded", "link_to", "link_to_layer", "write_page"]

PAGE = "report.html"
"""Name of every page."""

_TEMPLATES = Path(__file__).parents[1] / "templates"


def drawn_twice(
    draw: Callable[[Path], Sequence[Path]],
    folder: Path,
    draw_narrow: Callable[[Path], Sequence[Path]] | None = None,
) -> dict[str, tuple[Path, str]]:
    """Draw figures into ``figures/`` of a folder, and once more as a phone shows them.

    Args:
        draw: writes figures into the folder that it is given, and returns the files.
        folder: of the page.
        draw_narrow: the same for phones, where they do without some of the figures.

    Returns:
        Of every figure by name: its SVG file, and the narrow SVG as text, empty without one.
    """
    from natstats.report.figures.style import for_phones

    files = {path.stem: path for path in draw(folder / "figures") if path.suffix == ".svg"}
    with tempfile.TemporaryDirectory() as narrow, for_phones():
        small = {
            path.stem: path.read_text(encoding="utf-8")
            for path in (draw_narrow or draw)(Path(narrow))
            if path.suffix == ".svg"
        }
    return {name: (path, small.get(name, "")) for name, path in files.items()}


def embedded(description: str, path: Path, narrow: str = "") -> Markup:
    """An SVG file as an image that is part of the page.

    Args:
        description: the alternative text, for readers who cannot see the image.
        path: the file.
        narrow: SVG, as text, that phones show in its place; empty if they show the same.

    Returns:
        An ``<img>`` whose address holds the whole picture, in a ``<picture>`` where there are two.
    """
    source = _address(path.read_text(encoding="utf-8"))
    image = Markup('<img src="{}" alt="{}">').format(source, description)
    if not narrow:
        return image
    one = Markup('<picture><source media="screen and (max-width: 40rem)" srcset="{}">{}</picture>')
    return one.format(_address(narrow), image)


def link_to(path: Path | None, home: Path) -> str:
    """The address of the page in a folder, from another one; empty where there is none.

    Args:
        path: the folder that may hold a page; None for nowhere.
        home: the folder whose page links it.
    """
    if path is None or not (path / PAGE).is_file():
        return ""
    try:
        way = os.path.relpath((path / PAGE).resolve(), home.resolve())
    except ValueError:  # on another drive
        return ""
    return quote(os.fsencode(Path(way).as_posix()))


def link_to_layer(page: str, layer: str) -> str:
    """The address of a layer on the page of a run, from that of the page; empty without one.

    >>> link_to_layer("../a/report.html", "conv 1"), link_to_layer("", "conv 1")
    ('../a/report.html#layer=conv%201', '')
    """
    return page and f"{page}#layer={quote(printable(layer), safe='')}"


def _address(svg: str) -> str:
    content = base64.b64encode(compact(svg).encode()).decode()
    return f"data:image/svg+xml;base64,{content}"


_SECTION = re.compile(r'<section\b[^>]*\bid="([^"]+)"[^>]*>\s*<h2[^>]*>(.*?)</h2>', re.DOTALL)


def _sections(page: str) -> list[tuple[str, Markup]]:
    """Name and heading of every section of a page, in their order."""
    # What stands in the page has been escaped; scripts hold no sections.
    return [(name, Markup(title.strip())) for name, title in _SECTION.findall(page)]


def _breakable(name: str) -> Markup:
    """A name that lines may break after its dots, slashes and underscores."""
    return Markup("<wbr>").join(map(str, re.split(r"(?<=[./_])(?=.)", _shown(name))))


def _shown(value: Any) -> Any:
    """A text with invisible characters as escapes; markup is our own and stays as it is."""
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
    environment.filters |= {"sections": _sections, "breakable": _breakable}
    environment.globals |= {"citation": citation, "docs": DOCS, "meanings": meanings}
    page = folder / PAGE
    text = environment.get_template(template).render(contents)
    # UTF-8 cannot encode half a surrogate pair, which JSON and names of files can hold.
    page.write_text(text, encoding="utf-8", errors="backslashreplace")
    return page
