"""What the site does with the pages: links, notebooks, docstrings. `make docs` builds all of it."""

from __future__ import annotations

import base64
import json
import logging
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = runpy.run_path(str(ROOT / "figures" / "docs_site.py"))
DOCSTRINGS = runpy.run_path(str(ROOT / "figures" / "docs_docstrings.py"))
CONFIG = {"extra": {"repository": "https://host/project"}}


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("../method.md", "../method.md"),
        ("../../README.md", "https://host/project/blob/main/README.md"),
        ("../../analyses", "https://host/project/tree/main/analyses"),
        ("../notebooks/first_measurement.ipynb", "../notebooks/first_measurement.md"),
        ("../demo/law.png", "../demo/law.png"),
    ],
)
def test_a_link_that_leaves_the_docs_leads_to_the_repository(target, leads_to):
    assert SITE["_target"](target, "how-to/page.md", CONFIG) == leads_to


def test_a_file_that_is_not_there_is_a_warning(caplog):
    with caplog.at_level(logging.WARNING):
        SITE["_target"]("../../no/such.py", "how-to/page.md", CONFIG)
    assert "how-to/page.md links to ../../no/such.py" in caplog.text


def test_a_notebook_becomes_a_page(tmp_path):
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["one\n"]},
        {"output_type": "display_data", "data": {
            "image/png": base64.b64encode(b"picture").decode(), "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {
            "text/html": ["<style>a</style>\n", "<table></table>"], "text/plain": "table"}},
        {"output_type": "execute_result", "data": {"text/plain": ["4"]}},
    ]  # fmt: skip
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["2 + 2"], "outputs": outputs},
    ]
    path = tmp_path / "small.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    found = SITE["notebook_files"](path)
    assert found["small_0.png"] == b"picture"
    page = found["small.md"]
    assert page.startswith("# Title\n")
    for part in ("```python\n2 + 2\n```", "```text\none\n```", "(small_0.png)",
                 "<table></table>", "```text\n4\n```"):  # fmt: skip
        assert part in page
    assert "style" not in page


def test_docstrings_become_markdown():
    found = DOCSTRINGS["as_markdown"]("See :class:`~a.B` and ``x``::\n\n    y\n\n>>> 1\n1\n\nEnd.")
    assert found == "See `a.B` and `x`:\n\n    y\n\n```pycon\n>>> 1\n1\n```\n\nEnd."


def test_no_page_asks_anything_of_another_host(tmp_path, caplog):
    page = tmp_path / "page.html"
    page.write_text(
        '<p>1</p><script src="https://unpkg.com/x"></script><script src="own.js"></script>'
        '<a href="https://host/">links may</a><img alt="x" src="https://host/x.png">'
        '<link rel="stylesheet" href="https://host/x.css">'
    )
    with caplog.at_level(logging.WARNING):
        SITE["on_post_build"]({"site_dir": tmp_path})
    assert "unpkg" not in page.read_text()
    assert '<script src="offline_search.js"></script>' in page.read_text()
    assert "own.js" in page.read_text()
    assert [record.getMessage() for record in caplog.records] == [
        "page.html asks for https://host/x.png",
        "page.html asks for https://host/x.css",
    ]
