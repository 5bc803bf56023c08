"""Small tables and blocks of HTML, with which results show themselves in a notebook.

Fits and laws use them as well as reports, so this module depends on no subpackage of natstats.
Pages, and notebook output with figures, are made in natstats.report.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from natstats.text import printable

__all__ = ["html_block", "html_table"]


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A small table for a notebook, whatever its cells hold; it takes the colours of the page.

    >>> "<td>&lt;b&gt;</td>" in html_table(["layer"], [["<b>"]])
    True
    """

    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}>{html.escape(printable(one))}</{tag}>" for one in cells)

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    top = f"<thead><tr>{row(head, 'th')}</tr></thead>" if head else ""
    return f'<table style="color:inherit;font-size:inherit">{top}<tbody>{body}</tbody></table>'


def html_block(title: str, texts: Sequence[str], *parts: str) -> str:
    """A title, paragraphs and ready HTML, as one block for a notebook.

    >>> html_block("a <b>", ["c & d"])
    '<div class="natstats"><p><strong>a &lt;b&gt;</strong></p><p>c &amp; d</p></div>'
    """
    told = "".join(f"<p>{html.escape(printable(text))}</p>" for text in texts)
    name = html.escape(printable(title))
    return f'<div class="natstats"><p><strong>{name}</strong></p>{told}{"".join(parts)}</div>'
