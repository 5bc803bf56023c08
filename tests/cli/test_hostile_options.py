"""Any value of any option: a sentence and an exit code, and nothing is written elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import natstats

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.slow]

TEXTS = (
    "", " ", "-", "--", "a\x1b[2J\nError: b", "\u202egnp", "=cmd|'/C calc'!A1", "<b>", "{{7*7}}",
    "%s", "caf\udce9", "x" * 300, "y" * 5000, "None", "true", ",", ":", "=", "a=b", "*", "[",
    "{1..9}", "$HOME", "\\", "'", '"', "0x10", "1_000", "\uff11", "a,b,c", "1:2:3", "3/2",
    "1/1", "cpu:99",
)  # fmt: skip
NUMBERS = (
    "nan", "inf", "-inf", "1e999", "-1", "0", "-0.0", "1e-320", "1e300", "0.5", "3", "9" * 30,
    "9" * 5000, "2147483648", "9223372036854775808", "0.1:0.4", "nan:inf", "-1:1", "0:0",
    "5e-1:inf",
)  # fmt: skip

values = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.floats().map(repr),
    st.integers().map(str),
    st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
)


@pytest.fixture
def place(tmp_path, monkeypatch, call):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(5):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    call("images", "photos", "--size", 32, "--crop", 32, "--out", "run")
    call("images", "photos", "--size", 32, "--crop", 32, "--shard", "1/1", "--out", "part")
    for name in ("data/train/a", "data/train/b", "data/val/a", "data/val/b"):
        Path(name).mkdir(parents=True)
        for number in range(2):
            Image.fromarray(pixels[:16, :16]).save(f"{name}/{number}.png")
    return tmp_path


SMALL = ["--size", "32", "--crop", "32"]
BASES = {
    "images": ["photos", *SMALL],
    "measure": ["cifar_resnet8", "--weights", "none", "--images", "photos", *SMALL],
    "explain": ["cifar_resnet8", "--weights", "none", "--images", "photos", *SMALL],
    "fit": ["run"],
    "compare": ["run", "run"],
    "plot": ["run"],
    "law": ["run", "run"],
    "merge": ["part", "--out", "merged"],
    "table": ["run"],
    "models": [],
    "distill": [
        "--student", "cifar_resnet8", "--data", "imagefolder:data", "--epochs", "1", "--size", "16",
        "--batch-size", "2", "--dry-run",
    ],
}  # fmt: skip
NOT_HERE = {"help", "workers", "threads"}
"""Many processes are no mistake of a value."""


def options_of(group, name):
    command = group.get_command(click.Context(group), name)
    return [
        one
        for one in command.params
        if isinstance(one, click.Option) and not one.is_flag and one.name not in NOT_HERE
    ]


@pytest.mark.parametrize("name", BASES)
def test_any_value_is_taken_or_refused(group, place, name):
    options = options_of(group, name)

    @settings(
        max_examples=30 if name not in ("measure", "explain", "distill") else 12,
        deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None,
    )  # fmt: skip
    @given(st.data())
    def holds(data):
        option = data.draw(st.sampled_from(options)) if options else None
        value = data.draw(values)
        if option is None:
            arguments = [name, *BASES[name], value]
        else:
            if isinstance(option.type, click.Path) or option.name in ("out", "overwrite"):
                value = value.replace("/", "_").replace("~", "_")
            if option.name in ("epochs", "limit", "resamples", "frames"):
                value = value[:3]  # long work is no mistake
            arguments = [name, *BASES[name], f"{option.opts[-1]}={value}"]
        before = {*place.parent.iterdir()}
        result = CliRunner().invoke(group, arguments)
        assert result.exit_code in (0, 1, 2), (arguments, result.output, result.exception)
        assert "defect of natstats" not in result.output, (arguments, result.output)
        shown = result.output.replace("\n", "")
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown), arguments
        assert "\nError: b" not in result.output
        assert len(result.output) < 40_000, arguments
        assert {*place.parent.iterdir()} == before

    holds()
    assert os.path.isdir("photos")
    assert natstats.Run.open("run").spectra
