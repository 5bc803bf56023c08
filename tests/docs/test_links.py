"""Pages of text: what they link to is there, and they read on a code host as on the site."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md"), *DOCS.rglob("*.ipynb")]

ELSEWHERE = {
    "https://download.pytorch.org/whl/cpu",  # the index of PyTorch's builds for the CPU
    "https://github.com/natstats/natstats",  # where the project will live
}
"""Every address of another host that a page names. Nobody follows them in a test."""

LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
ONLY_MKDOCS = re.compile(r"^(!!! |\?\?\? |=== \"|::: )|\{: |\{\{|<div|\[TOC\]", re.MULTILINE)


def markdown(path: Path) -> str:
    """Text of a page, or of the text cells of a notebook."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")


def prose(path: Path) -> str:
    """A page without its code."""
    text = re.sub(r"^ *```.*?^ *```$", "", markdown(path), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "``", text)


def anchors(path: Path) -> set[str]:
    """What the headings of a page are called in links, as code hosts have it."""
    text = re.sub(r"^ *```.*?^ *```$", "", markdown(path), flags=re.MULTILINE | re.DOTALL)
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
        slug = slug.strip().replace(" ", "-")
        found.add(slug if not seen[slug] else f"{slug}-{seen[slug]}")
        seen[slug] += 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_within_the_project_leads_somewhere(page):
    for image, words, target in LINK.findall(prose(page)):
        assert words.strip(), f"{target}: a link or picture without words"
        if re.match(r"[a-z]+:", target):
            assert target.startswith(("https://", "mailto:")), target
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        assert not image or file.suffix in (".png", ".svg"), target
        if anchor:
            assert anchor in anchors(file), target


def test_addresses_of_other_hosts_are_listed():
    found = {
        address.rstrip(".,")
        for page in PAGES
        for address in re.findall(r"https?://[^\s)>\"'`|\\]+", markdown(page))
    }
    assert found == ELSEWHERE


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_is_plain_markdown(page):
    assert not ONLY_MKDOCS.search(prose(page))
    # A code host begins a list at once, and the site only after an empty line.
    text = prose(page)
    late = re.findall(r"^(?![-*\d >|#])\S[^\n]*\n[-*] [^\n]*", text, re.MULTILINE)
    inside = re.findall(r"^[-*] [^\n]*(?:\n {2,}[^\n]*)*", text, re.MULTILINE)
    assert not [one for one in late if not any(one in item for item in inside)]


def test_every_page_is_in_the_contents_of_the_site():
    class Loader(yaml.SafeLoader):
        """Reads what mkdocs has beside plain YAML as nothing."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)

    def pages(entry):
        if isinstance(entry, str):
            yield entry
            return
        for one in entry.values() if isinstance(entry, dict) else entry:
            yield from pages(one)

    listed = list(pages(config["nav"]))
    there = [
        str(path.relative_to(DOCS).with_suffix(".md")) for path in PAGES if DOCS in path.parents
    ]
    assert sorted(listed) == sorted(there)


def test_only_a_few_pages_are_long():
    """What one reads from top to bottom stays short; what one looks things up in may be long."""
    short = [*DOCS.glob("how-to/*.md"), *DOCS.glob("explanation/*.md"), DOCS / "install.md"]
    lengths = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in short}
    assert not {name: n for name, n in lengths.items() if n > 110}
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200
