"""What the docs say of the code's shape is so: the picture, and every file and name they give."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PICTURE = runpy.run_path(str(ROOT / "figures" / "architecture.py"))
PAGES = {name: (ROOT / name).read_text() for name in ("docs/architecture.md", "CONTRIBUTING.md")}


@pytest.mark.slow
def test_the_picture_is_that_of_the_code():
    drawn = PICTURE["picture"]()
    assert drawn == PICTURE["PICTURE"].read_text(), "draw it again: python figures/architecture.py"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_is_there(page):
    links = re.findall(r"\]\((?!http|#)([^)#]+)\)", PAGES[page])
    assert not [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]
    named = re.findall(r"`((?:natstats|cli|tests|docs|figures|analyses)/[^`*]*)`", PAGES[page])
    assert named
    assert not [path for path in named if not (ROOT / path).exists()]


def test_every_step_of_an_image_names_what_is_there():
    steps = re.findall(r"^\| \d+ \|.*\| (.+) \|$", PAGES["docs/architecture.md"], re.MULTILINE)
    assert len(steps) > 12
    for name in re.findall(r"`([^`]+)`", " ".join(steps)):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(f"natstats.{module}"), attribute), name
