"""The notebooks of the docs run from top to bottom, and show what their outputs here show."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SCRIPT = str(ROOT / "figures" / "notebooks.py")


def kinds(cells):
    """Types of the outputs of every cell."""
    return [
        [
            sorted(output.get("data", {output["output_type"]: 0}))
            for output in cell.get("outputs", [])
        ]
        for cell in cells
    ]


@pytest.mark.slow
@pytest.mark.draws
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_runs_and_has_outputs_of_the_same_kinds(path):
    written = json.loads(path.read_text(encoding="utf-8"))
    assert kinds(runpy.run_path(SCRIPT)["executed"](path).cells) == kinds(written["cells"])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_is_kept_small_and_without_traces_of_a_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 400_000
    cells = json.loads(text)["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert any(cell["outputs"] for cell in code)
    assert all(cell["execution_count"] is None for cell in code)
    assert not any(output["output_type"] == "error" for cell in code for output in cell["outputs"])
    for word in ("/home/", "/root/", "/tmp/", "/Users/"):
        assert word not in text
