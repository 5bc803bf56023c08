"""What setup.cfg cannot say: the description on a package index, whose links lead to the project.

README.md links to files beside it. A page of a package index has nothing beside it, so these links
get the address of the project in front, which is the `url` of setup.cfg.
"""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent

LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^][]*)\]\((?!#|[a-z]+:)(?P<path>[^()\s]+)\)")
"""Links and images in Markdown, except those within the page and those with a scheme."""


def with_absolute_links(text: str, url: str) -> str:
    """Markdown with relative links made absolute: to pages of the project, images to raw files."""

    def absolute(link: re.Match[str]) -> str:
        kind = "raw" if link["image"] else "blob"
        return f"{link['image']}[{link['text']}]({url}/{kind}/main/{link['path']})"

    return LINK.sub(absolute, text)


def description() -> str:
    """README.md as a package index shows it."""
    config = configparser.ConfigParser()
    config.read(HERE / "setup.cfg", encoding="utf-8")
    return with_absolute_links(
        (HERE / "README.md").read_text(encoding="utf-8"), config["metadata"]["url"]
    )


if __name__ == "__main__":
    setup(long_description=description(), long_description_content_type="text/markdown")
