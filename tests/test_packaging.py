"""What a package index shows of the project; `make package` checks what it would install."""

from __future__ import annotations

import configparser
import runpy
from html.parser import HTMLParser
from pathlib import Path

import readme_renderer.markdown

import natstats

ROOT = Path(__file__).parents[1]
SETUP = runpy.run_path(str(ROOT / "setup.py"))

CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")
URL = CONFIG["metadata"]["url"]


class Page(HTMLParser):
    """Where the links and images of a page lead, and the anchors that it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.links, self.images, self.anchors = [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.links += [found["href"]] if "href" in found else []
        self.images += [found["src"]] if "src" in found else []
        self.anchors.add(found.get("id"))


def test_no_link_of_the_description_is_broken():
    page = Page(readme_renderer.markdown.render(SETUP["description"]()))
    assert page.images
    for link in page.links + page.images:
        kind = "raw" if link in page.images else "blob"
        if link.startswith("#"):
            assert {link[1:], f"user-content-{link[1:]}"} & page.anchors, link
        elif link.startswith(URL):
            path = link.partition("#")[0].removeprefix(f"{URL}/{kind}/main/")
            assert (ROOT / path).is_file(), link
        else:
            assert link.startswith("https://"), link


def test_only_relative_links_change():
    def changed(text):
        return SETUP["with_absolute_links"](text, "https://host/project")

    assert changed("![law](docs/law.png)") == "![law](https://host/project/raw/main/docs/law.png)"
    assert changed("[a](b.md#c), [d](e)") == (
        "[a](https://host/project/blob/main/b.md#c), [d](https://host/project/blob/main/e)"
    )
    for text in ("[use](#use)", "[x](https://x.org/y.md)", "[x](mailto:x@x.org)", "f[0](x y)"):
        assert changed(text) == text


def test_every_address_of_the_project_is_at_its_url():
    for line in CONFIG["metadata"]["project_urls"].strip().splitlines():
        name, address = line.split(" = ")
        assert f"{address}/".startswith(f"{URL}/"), name
        inside = address.partition("/main/")[2]
        assert (ROOT / inside).exists(), address


def test_the_citation_is_of_this_version():
    assert f"\nversion: {natstats.__version__}\n" in (ROOT / "CITATION.cff").read_text()
