"""The pages of reference that the code says are those of the code as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = runpy.run_path(str(ROOT / "figures" / "reference.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFERENCE["PAGES"])
def test_a_page_is_that_of_the_code(name):
    written = (REFERENCE["FOLDER"] / name).read_text(encoding="utf-8")
    assert REFERENCE["PAGES"][name]() == written, "write it again: python figures/reference.py"


def test_every_command_and_every_option_is_there():
    page = REFERENCE["commands"]()
    assert page.count("\n## natstats ") == len(REFERENCE["group"].list_commands(None))
    assert "- `--band LOW:HIGH`: " in page


@pytest.mark.slow
def test_every_public_name_is_there():
    import natstats

    page = REFERENCE["api"]()
    for name in set(natstats.__all__) - {"__version__"}:
        assert f"\n### natstats.{name}\n" in page
    for names in REFERENCE["NAMES"].values():
        assert set(names.split()) <= set(natstats.__all__)
