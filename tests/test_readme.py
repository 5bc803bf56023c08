"""What the README tells a newcomer to type runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=["first", "own loop"])
def test_a_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_what_the_readme_points_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_table_was_made_by_the_demo():
    """19 layers, two rows of input, and a verdict between the markers."""
    inside = README.split("<!-- demo: begin")[1].split("<!-- demo: end -->")[0]
    assert len(re.findall(r"^stage|^conv1|^input", inside, flags=re.MULTILINE)) == 21
    assert "slope" in inside
