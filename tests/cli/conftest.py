"""Photographs, and a run of them that the command line made."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from PIL import Image

from natstats import demo


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted(demo.photographs().glob("*.jpg"))[:5]:
        with Image.open(path) as image:
            image.resize((80, 64)).save(folder / f"{path.stem}.png")
    return folder


@pytest.fixture(scope="session")
def measured(group, photographs, tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "small"
    result = CliRunner().invoke(
        group,
        f"measure cifar_resnet20 --weights none --size 48 --images {photographs} --out {path}",
    )
    assert result.exit_code == 0, result.output
    return path, result
