"""Layouts are a table: a record that is added can be declared, found and read."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from natstats.activations.declared_layouts import declarable, parse_layouts
from natstats.activations.layout_candidates import candidates
from natstats.activations.layout_rules import LayoutRules
from natstats.activations.layouts import LAYOUTS, Layout, LayoutKind
from natstats.errors import UsageError

NETWORKS = Path(__file__).parents[2] / "docs" / "networks.md"
MAPS = torch.arange(2 * 3 * 8 * 6, dtype=torch.float32).view(2, 3, 8, 6)


def mirrored(shape: tuple[int, ...], grids: tuple[tuple[int, ...], ...]) -> Iterator[Layout]:
    if len(shape) == 4:
        yield Layout("NCHM", shape[2:], sets=shape[0])


@pytest.fixture(autouse=True)
def kind(monkeypatch: pytest.MonkeyPatch) -> LayoutKind:
    """Maps whose columns run from right to left."""
    one = LayoutKind(
        name="NCHM",
        axes="(N, C, H, W mirrored)",
        found_in="nowhere",
        maps=lambda output, layout: output.flip(-1),
        candidates=mirrored,
        n_axes=4,
        channels=1,
    )
    monkeypatch.setitem(LAYOUTS, one.name, one)
    return one


def test_it_can_be_declared() -> None:
    assert "NCHM" in declarable()
    assert parse_layouts({"0": "NCHM"})["0"].name == "NCHM"
    with pytest.raises(UsageError, match="expected a number of tokens after NLC. or LNC."):
        parse_layouts({"0": "NCHM+1"})


def test_a_declared_one_is_found_and_read() -> None:
    rules = LayoutRules(nn.Sequential(nn.Conv2d(3, 3, 1)), {"0": "NCHM"})
    rules.start([MAPS], 2)
    found = rules.find("0", MAPS)
    assert isinstance(found, Layout)
    assert str(found) == "NCHM"
    assert torch.equal(found.maps(MAPS), MAPS.flip(-1))


def test_the_probe_considers_it() -> None:
    shape = (1, 3, 8, 6)
    assert "NCHM" in map(str, candidates(nn.ReLU(), shape, ((8, 6),)))
    # A linear layer has its channels last, and this layout first.
    assert "NCHM" not in map(str, candidates(nn.Linear(6, 6), shape, ((8, 6),)))


def test_the_command_line_offers_it() -> None:
    spec = importlib.util.find_spec("natstats_cli.measure")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (option,) = (p for p in module.command.params if p.name == "layouts")
    assert "NCHM" in option.help


def test_the_docs_name_every_layout() -> None:
    text = NETWORKS.read_text(encoding="utf-8")
    for name in LAYOUTS:
        assert name == "NCHM" or f"`{name}`" in text, name
