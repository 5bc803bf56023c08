"""The picture of docs/architecture.md: the rooms of the package, and which imports which.

    python figures/architecture.py

Rooms, their sentences and their imports are read from the code (imports inside functions, too), so
the picture says what is so. tests/test_architecture.py draws it again and compares.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "natstats"
PICTURE = ROOT / "docs" / "architecture" / "rooms.svg"

ROOMS = (
    "files", "images", "activations", "networks", "spectra", "fits", "law", "theory", "report",
    "runs", "distill", "measurement", "demo",
)  # fmt: skip
"""The rooms in the order of the data, then the demo."""

TOP = {"demo": ("demo", "demo_data")}
"""Modules outside of rooms that are taken for one."""

COMMON = ("errors", "checks", "text", "html_blocks", "brief", "numbers", "processes", "_version")
"""Modules that every room may use; no arrow is drawn from them."""

WIDTH, MARGIN, GAP = 400, 8, 16
BOX, LANE, LINE, HEAD, LETTERS = 250, 14, 13, 19, 41
"""Width of a box and distance of lines beside it, heights of a line of text and of a name, letters
in a line of text."""

INK, GREY, EDGE, FILL, HUES = "#1b1f24", "#414b55", "#5c6670", "#eef3f8", ("#0072B2", "#D55E00")


def room_of(path: Path) -> str:
    """The room of a module, or the module itself where it is in none."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return next((name for name, parts in TOP.items() if first in parts), first)


def imported(path: Path) -> Iterator[str]:
    """Names in natstats that a module imports anywhere, without ``natstats.``."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: Iterable[str] = ()
        if isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
        yield from (name[9:] for name in names if name.startswith("natstats."))


def edges() -> set[tuple[str, str]]:
    """Pairs of rooms, the first of which is imported by the second.

    Raises:
        ValueError: a room is not in :data:`ROOMS`, or imports one that is behind it.
    """
    found = set()
    for path in PACKAGE.rglob("*.py"):
        room = room_of(path)
        if room not in (*COMMON, "__init__"):
            others = {room_of(PACKAGE / name.split(".")[0]) for name in imported(path)}
            found |= {(other, room) for other in others - {room, *COMMON}}
    for pair in found:
        if not set(pair) <= set(ROOMS):
            raise ValueError(f"figures/architecture.py: no place for {set(pair) - set(ROOMS)}")
        if ROOMS.index(pair[0]) > ROOMS.index(pair[1]):
            raise ValueError(f"{pair[1]} imports {pair[0]}, which comes after it")
    return found


def sentence(room: str) -> str:
    """What a room says of itself: the first line of its docstring."""
    path = PACKAGE / room
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return re.sub(r"\s*\(:\w+:[^)]*\)", "", docstring.split("\n\n")[0].replace("\n", " "))


def text(x: float, y: float, words: str, more: str = "") -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}"{more}>{escape(words)}</text>'


def box(y: float, name: str, words: str) -> tuple[list[str], float]:
    """A room, and how high it is."""
    wrapped = textwrap.wrap(words, LETTERS, break_on_hyphens=False)
    height = HEAD + LINE * len(wrapped) + 8
    drawn = [
        f'<rect x="{MARGIN}" y="{y:g}" width="{BOX}" height="{height}" rx="5" fill="{FILL}" '
        f'stroke="{EDGE}"/>',
        text(MARGIN + 9, y + HEAD - 2, name, ' class="name"'),
    ]
    drawn += [
        text(MARGIN + 9, y + HEAD + LINE * (place + 1) - 1, line)
        for place, line in enumerate(wrapped)
    ]
    return drawn, height


def picture() -> str:
    """The SVG: a box for every room, and a line from it down to the rooms that import it."""
    pairs = edges()
    sources = [room for room in ROOMS if any(pair[0] == room for pair in pairs)]
    right = MARGIN + BOX
    # The line of the first room is the outermost, so that where a line starts it crosses none.
    lane = {room: right + 6 + LANE * (len(sources) - place) for place, room in enumerate(sources)}
    boxes, starts, ends, y = [], {}, {}, 62.0
    for room in ROOMS:
        drawn, height = box(y, room, sentence(room))
        boxes += drawn
        ends[room], starts[room] = y + 12, y + height - 10
        y += height + GAP
    lines = []
    for place, source in enumerate(sources):
        hue, x = HUES[place % 2], lane[source]
        into = [room for room in ROOMS if (source, room) in pairs]
        lines.append(
            f'<path d="M{right} {starts[source]:g}H{x}V{ends[into[-1]]:g}" fill="none" '
            f'stroke="{hue}" stroke-width="1.6"/>'
        )
        lines += [f'<circle cx="{x}" cy="{ends[room]:g}" r="3.4" fill="{hue}"/>' for room in into]
    arrows = []
    for room in ROOMS:
        reach = [lane[source] for source in sources if (source, room) in pairs]
        if reach:
            arrows.append(
                f'<path d="M{max(reach)} {ends[room]:g}H{right + 2}" fill="none" stroke="{EDGE}" '
                'stroke-width="1.2" marker-end="url(#head)"/>'
            )
    common = ", ".join(name for name in COMMON if not name.startswith("_"))
    listed = "; ".join(
        f"{room} imports {', '.join(other for other in ROOMS if (other, room) in pairs)}"
        for room in ROOMS
        if any(pair[1] == room for pair in pairs)
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" '
            f'width="{WIDTH}" height="{y:g}" role="img" aria-labelledby="title desc">',
            '<title id="title">The rooms of natstats and their imports</title>',
            f'<desc id="desc">{escape(listed)}.</desc>',
            "<style>text{font:10.5px 'DejaVu Sans',Verdana,Arial,sans-serif;"
            f"fill:{GREY}}}text.name{{font-size:13px;font-weight:bold;fill:{INK}}}</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            f'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z" fill="{EDGE}"/></marker>'
            "</defs>",
            f'<rect width="{WIDTH}" height="{y:g}" fill="#fff"/>',
            text(MARGIN, 18, "Each room imports only rooms above it. Follow a line"),
            text(MARGIN, 32, "down from a room: every dot is a room that imports it."),
            text(MARGIN, 50, f"All may import {common}."),
            *arrows,
            *lines,
            *boxes,
            "</svg>",
            "",
        ]
    )


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
