"""What the README tells a newcomer to type runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import natstats
from natstats import demo

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.draws
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [pytest.param(BLOCKS[0], marks=pytest.mark.slow, id="first"), *BLOCKS[1:]],
)
def test_a_python_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


def test_what_the_readme_points_to_is_there():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_the_table_and_the_verdict_are_those_of_the_demo():
    run = natstats.measure(demo.network(), demo.photographs())
    inside = README.split("<!-- demo: begin")[1].split("<!-- demo: end -->")[0]
    row = r"^(\S+) +\d+ +(\S+) +\S+ to \S+ +(?:input|conv) +\d+x\d+"
    rows = re.findall(row, inside, flags=re.MULTILINE)
    assert [name for name, _ in rows] == list(run.layers.layer)
    # Another machine rounds the network's products differently, in the third decimal at most.
    exponents = [float(exponent) for _, exponent in rows]
    np.testing.assert_allclose(exponents, run.layers.exponent, atol=0.011)
    assert run.verdict.lines()[0].split(":")[0] in inside
    assert run.forms_sentence() in inside
