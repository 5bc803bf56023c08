"""SVG files of matplotlib with the same picture and half the bytes, for pages that hold them."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree

__all__ = ["compact"]

_SVG, _LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"

_FONT = "'DejaVu Sans'"
"""The font named in figures for phones, whose text is not outlines; a phone may lack it."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def compact(svg: str) -> str:
    """The same picture without metadata, ids that nothing refers to, and bare groups.

    Styles that occur three times or more become classes; numbers keep a tenth of a point.

    Args:
        svg: an SVG file of :func:`natstats.report.figures.style.save`.

    >>> group = '<g id="a"><path d="M 0 1.23456 L 2 3" style="fill: none"/></g>'
    >>> compact(f'<svg xmlns="http://www.w3.org/2000/svg">{group}</svg>')
    '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 1.2L2 3" style="fill:none" /></svg>'
    """
    ElementTree.register_namespace("", _SVG[1:-1])
    root = ElementTree.fromstring(svg)
    for child in list(root):
        if child.tag == f"{_SVG}metadata":
            root.remove(child)
    values = [value for one in root.iter() for value in one.attrib.values()]
    used = set(re.findall(r"#([\w.-]+)", " ".join(values)))
    for one in root.iter():
        _shorten(one, used)
    _unwrap(root)
    _share_styles(root)
    return ElementTree.tostring(root, encoding="unicode")


def _shorten(one: ElementTree.Element, used: set[str]) -> None:
    """Shorter attributes of one element, and no text between elements."""
    if one.get("id") not in used:
        one.attrib.pop("id", None)
    if _LINK in one.attrib:
        one.set("href", one.attrib.pop(_LINK))
    for name in ("d", "x", "y", "transform", "points"):
        if name in one.attrib and not (name == "transform" and "scale(0.0" in one.attrib[name]):
            one.set(name, re.sub(r"-?\d+\.\d{2,}", _rounded, one.attrib[name]))
    if "d" in one.attrib:
        path = re.sub(r"\s*([A-Za-z])\s*", r"\1", one.attrib["d"].strip())
        one.set("d", re.sub(r"M(\S+?) (\S+?)L\1 (?=[^L ]+(?:M|$))", r"M\1 \2V", path))
    if "style" in one.attrib:
        style = re.sub(r"\s*([:;])\s+", r"\1", one.attrib["style"])
        one.set("style", style.replace(_FONT, f"{_FONT},sans-serif"))
    if one.tag not in (f"{_SVG}text", f"{_SVG}tspan", f"{_SVG}style", f"{_SVG}title"):
        one.text = None
    one.tail = None


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _unwrap(parent: ElementTree.Element) -> None:
    """Replace groups without attributes by what they hold."""
    kept: list[ElementTree.Element] = []
    for child in list(parent):
        _unwrap(child)
        is_bare = child.tag == f"{_SVG}g" and not child.attrib
        kept += list(child) if is_bare else [child]
    parent[:] = kept


def _share_styles(root: ElementTree.Element) -> None:
    """Give each style that occurs three times or more a class, in one style sheet."""
    counts = Counter(one.get("style", "") for one in root.iter())
    again = [style for style, n in counts.items() if style and n > 2]
    names = {style: _name(place) for place, style in enumerate(again)}
    for one in root.iter():
        if one.get("style") in names:
            one.set("class", names[one.attrib.pop("style")])
    sheet = root.find(f".//{_SVG}style")
    if sheet is not None:
        rules = "".join(f".{name}{{{style}}}" for style, name in names.items())
        sheet.text = f"{sheet.text or ''}{rules}"


def _name(place: int) -> str:
    """Names a, b, ... z, ba, bb, ..."""
    n = len(_LETTERS)
    return (_name(place // n) if place >= n else "") + _LETTERS[place % n]
