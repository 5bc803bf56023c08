"""``natstats models``: what can be named, by family, with a filter."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torchvision.models
from click.testing import CliRunner

from natstats.networks.zoo import NETWORKS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def call(call):
    return partial(call, "models")


def names(result):
    return [line.split()[0] for line in result.stdout.splitlines() if line.startswith("    ")]


def test_all_that_torchvision_and_natstats_name_is_listed(call):
    result = call()
    assert sorted(names(result)) == sorted([*torchvision.models.list_models(), *NETWORKS])
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == ["torchvision", "natstats"]
    families = [line for line in lines if re.match("  [^ ]", line)]
    assert len(families) == len({*families})
    assert "    resnet50          IMAGENET1K_V1, IMAGENET1K_V2" in lines
    assert re.search(r"wrn_16_2 +no published weights", result.stdout)
    assert "wrn_D_K" in result.stderr


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("vgg1?", {"vgg11", "vgg13", "vgg16", "vgg19"}),
        ("SQUEEZE", {"squeezenet1_0", "squeezenet1_1"}),
        ("optical_flow", {"raft_large", "raft_small"}),
        ("pyramidnet", {"pyramidnet_110_84", "pyramidnet_200_240"}),
    ],
)
def test_a_pattern_chooses_by_name_or_family(call, pattern, found):
    assert {*names(call(pattern))} == found


def test_what_fits_nothing_names_what_is_near(call):
    assert "did you mean" in call("resnet51", code=2).stderr


@pytest.mark.slow
def test_timm_is_listed_where_asked_for(call):
    timm = pytest.importorskip("timm", reason="timm is an extra")
    listed = names(call("convnext*", "--timm"))
    assert {f"timm:{name}" for name in timm.list_models("convnext*")} <= {*listed}
    assert "convnext_tiny" in listed
    assert names(call("timm:vit_tiny_patch16_224")) == ["timm:vit_tiny_patch16_224"]


def test_it_is_named_where_it_is_needed(group):
    assert "natstats models" in (ROOT / "README.md").read_text()
    for arguments in (["--help"], ["measure", "--help"]):
        assert "models" in CliRunner().invoke(group, arguments).output


@pytest.mark.parametrize("pattern", ["vit_tiny*", "timm:vit_tiny*"])
def test_a_pattern_of_whole_names_finds_those_of_timm(call, pattern):
    timm = pytest.importorskip("timm")
    found = {f"timm:{name}" for name in timm.list_models("vit_tiny*")}
    assert {*names(call(pattern, "--timm"))} == found
