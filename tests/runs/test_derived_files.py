"""Files of a run that follow from its spectra: seen where they are not what these give."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import natstats
from natstats.runs.derived_files import doubtful_files

nn = torch.nn


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved run with a control, so that it has every such file."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(8)))
    fields = np.float32(natstats.power_law_fields(36, 24, 24, alpha=2.0)).reshape(12, 3, 24, 24)
    run = natstats.measure(model, fields, control="random-weights", control_seeds=2)
    return run.save(tmp_path_factory.mktemp("whole") / "run", report=False)


def cut(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))


def binary(file: Path) -> None:
    file.write_bytes(b"\xff\x00\xfe")


def one_number(file: Path) -> None:
    text = file.read_text()
    first = next(one for one in text.replace("\n", ",").split(",") if one[:3] in ("1.9", "2.0"))
    file.write_text(text.replace(first, "7.25", 1))


def slope(file: Path) -> None:
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"slope": values["slope"] + 0.001}))


@pytest.mark.parametrize(
    ("name", "damage", "why"),
    [
        ("layers.csv", cut, "has 9 of 10 rows"),
        ("layers.csv", one_number, "has other values"),
        ("forms.csv", Path.unlink, "is missing"),
        ("sensitivity.csv", cut, "rows"),
        ("image_exponents.csv", binary, "cannot be read"),
        ("specifications.csv", cut, "rows"),
        ("control.csv", cut, "has 7 of 8 rows"),
        ("law.json", slope, "has other values"),
        ("law.json", cut, "cannot be read"),
        ("control.json", Path.unlink, "is missing"),
    ],
)
def test_a_damaged_file_is_named(
    whole: Path, tmp_path: Path, name: str, damage: Callable[[Path], None], why: str
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    damage(tmp_path / "run" / name)
    run = natstats.Run.open(tmp_path / "run")
    found = doubtful_files(run, tmp_path / "run")
    assert list(found) == [name]
    assert why in found[name]


def test_a_whole_run_has_none_nor_has_one_of_fewer_columns(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    run = natstats.Run.open(tmp_path / "run")
    assert doubtful_files(run, tmp_path / "run") == {}
    # As an older natstats wrote it.
    run.layers[["layer", "depth", "exponent"]].to_csv(tmp_path / "run/layers.csv", index=False)
    assert doubtful_files(run, tmp_path / "run") == {}


def test_the_measurement_alone_is_no_damage(whole: Path, tmp_path: Path) -> None:
    run = natstats.Run.open(whole)
    assert doubtful_files(run, tmp_path) == {}
