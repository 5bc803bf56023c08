"""What the site of the docs needs beside their Markdown; mkdocs.yml names this file as its hook.

Pages are plain Markdown that a code host shows as it is. For the site, links to files outside of
docs/ become links to the repository (a file that is not there is a warning, and so an error), the
whole docstrings take the place of the summaries of reference/api.md, and notebooks become pages.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["on_files", "on_page_content", "on_page_markdown", "on_post_build"]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

log = logging.getLogger("mkdocs.hooks.docs_site")

_LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)#\s]+)((?:#[^)\s]*)?\))")
_NAMED = re.compile(r"\[[\w./-]+\.md\](\((?![a-z]+:)([^)#\s]+\.md)(?:#[^)\s]*)?\))")
_ENTRY = re.compile(
    r"(\n### [^\n]+\n(?:\n```text\n[^`]*```\n)?)(?:(?!\n### ).)*?<!-- api: (\S+) -->", re.DOTALL
)
_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):(<code>)~?")
_OUTSIDE = re.compile(r"<script[^>]+src=\"?https?://[^>]*></script>")
_REQUEST = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\ssrc=["']?(https?://[^"'\s>]+)"""
    r"""|<link\b[^>]*rel=["']?stylesheet["']?[^>]*href=["']?(https?://[^"'\s>]+)"""
)


def on_files(files: Any, config: Any) -> Any:
    """Add a page, and its pictures, for every notebook."""
    from mkdocs.structure.files import File

    for notebook in sorted((DOCS / "notebooks").glob("*.ipynb")):
        for name, content in notebook_files(notebook).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def notebook_files(notebook: Path) -> dict[str, str | bytes]:
    """A notebook as Markdown, and the pictures among its outputs, by the name of the file."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    pictures: dict[str, bytes] = {}
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            parts += _output(output, notebook.stem, pictures)
    own = f"[This page as a notebook](../../docs/notebooks/{notebook.name})"
    text = "\n\n".join([parts[0], own, *parts[1:]]) + "\n"
    return {f"{notebook.stem}.md": text, **pictures}


def _output(output: dict[str, Any], stem: str, pictures: dict[str, bytes]) -> Iterator[str]:
    """An output as Markdown: a picture, a table, or text."""
    if output["output_type"] == "stream":
        yield "```text\n" + "".join(output["text"]).rstrip() + "\n```"
        return
    data = {kind: "".join(value) for kind, value in output["data"].items()}
    if "image/png" in data:
        name = f"{stem}_{len(pictures)}.png"
        pictures[name] = base64.b64decode(data["image/png"])
        yield f"![Output of the code above]({name})"
    elif "text/html" in data:
        # The theme lays out tables that have no class of their own.
        own = r'<style.*?</style>| border="1" class="dataframe"|\n\s*'
        yield re.sub(own, "", data["text/html"], flags=re.DOTALL)
    else:
        yield f"```text\n{data['text/plain']}\n```"


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Bring links to the site, and docstrings into the page of the Python names."""
    source = page.file.src_uri
    if source == "reference/api.md":
        markdown = _ENTRY.sub(r"\1\n::: \2\n", markdown)
    folder = Path(DOCS / source).parent
    markdown = _NAMED.sub(lambda link: f"[{_title(folder / link[2])}]{link[1]}", markdown)
    return _LINK.sub(lambda link: f"{link[1]}{_target(link[2], source, config)}{link[3]}", markdown)


def _title(page: Path) -> str:
    """What a page is called, for links that give the name of its file."""
    if not page.is_file():
        return page.name  # the link itself is found later
    return page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")


def _target(target: str, source: str, config: Any) -> str:
    """Where a link of a page leads on the site."""
    if target.endswith(".ipynb") and not target.startswith("../../docs/"):
        return target.replace(".ipynb", ".md")
    path = Path(DOCS / source).parent.joinpath(target).resolve()
    if path.is_relative_to(DOCS) and path.suffix != ".ipynb":
        return target  # mkdocs looks after these
    if not path.exists():
        log.warning("%s links to %s, which is not there", source, target)
    kind = "tree" if path.is_dir() else "blob"
    return f"{config['extra']['repository']}/{kind}/main/{path.relative_to(ROOT)}"


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Take the roles off the names in docstrings."""
    return _ROLE.sub(r"\1", html)


def on_post_build(config: Any) -> None:
    """Take scripts of other hosts out: pages are read without a network. Links may lead there.

    The theme has one, for the search of pages that are opened from the disk; docs/offline_search.js
    stands in its place. Whatever else a page asks of another host is a warning.
    """
    site = Path(config["site_dir"])
    for page in sorted(site.rglob("*.html")):
        up = "../" * (len(page.relative_to(site).parts) - 1)
        own = f'<script src="{up}offline_search.js"></script>'
        html = _OUTSIDE.sub(own, page.read_text(encoding="utf-8"))
        page.write_text(html, encoding="utf-8")
        for found in _REQUEST.finditer(html):
            log.warning("%s asks for %s", page.name, found[1] or found[2])
