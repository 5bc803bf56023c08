"""What newcomers stumbled over: standard output, options that need others, tables, errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import natstats
from natstats.fits.flags import OWN_OUTPUT
from natstats.numbers import estimate
from natstats.runs.tables import text_table, with_control

FACTORY = """
from torch import nn
def make():
    print("the factory speaks")
    return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
"""


def layers(*rows: tuple[str, float, float, str]) -> pd.DataFrame:
    """A table of layers by name, exponent, half the width of its interval, and flags."""
    name, exponent, half, flags = (list(column) for column in zip(*rows, strict=True))
    low, high = np.subtract(exponent, half), np.add(exponent, half)
    return pd.DataFrame(
        {
            "layer": name, "kind": "conv", "depth": range(len(rows)), "height": 8, "width": 8,
            "exponent": exponent, "exponent_low": low, "exponent_high": high, "r2": 0.9,
            "flags": flags,
        }
    )  # fmt: skip


def test_the_steepest_layer_is_told_with_its_flags_and_what_overlaps():
    table = layers(("a", 3.1, 0.04, "few rings"), ("b", 1.0, 0.1, ""), ("c", 1.1, 0.1, ""))
    for rows in (None, 2):
        told = text_table(table, rows)
        assert "Steepest: a 3.10 [3.06, 3.14], few rings; apart from all other layers" in told
        assert "Flattest: b 1.00 [0.90, 1.10]; overlaps with 1 other layer, the nearest c" in told


def test_a_control_is_in_the_table_of_layers():
    table = layers(("a", 2.0, 0.1, OWN_OUTPUT), ("b", 1.0, 0.1, ""))
    table = pd.concat([table.iloc[:1].assign(kind="input"), table], ignore_index=True)
    control = pd.DataFrame(
        {"control_mean": [1.0, 2.0], "difference": [1.0, -1.0], "low": [0.8, -1.3],
         "high": [1.2, -0.7], "p_corrected": [0.03, 0.5]}
    )  # fmt: skip
    found = with_control(table, control)
    assert found.difference.tolist()[1:] == [1.0, -1.0]
    assert np.isnan(found.difference[0])
    lines = text_table(found).splitlines()
    assert "random    its interval  Holm p" in lines[0]
    assert "+1.00  +0.80 to +1.20   0.030" in lines[2]
    assert "random" not in text_table(table)


@pytest.mark.parametrize("width", [0.011, 0.03, 0.05, 0.2, 0.7])
def test_exponent_and_interval_have_the_same_decimals(width):
    shown = estimate(2.0, 2.0 - width / 3, 2.0 + width * 2 / 3).strip("]").replace("[", "")
    numbers = shown.replace(",", "").split()
    assert len({len(one.partition(".")[2]) for one in numbers}) == 1
    assert abs(float(numbers[2]) - float(numbers[1]) - width) <= width / 5


@pytest.mark.slow
def test_what_a_factory_prints_is_not_on_standard_output(call, tmp_path):
    (tmp_path / "speaking.py").write_text(FACTORY)
    fields = np.float32(natstats.power_law_fields(24, 16, 16, 2.0)).reshape(8, 3, 16, 16)
    np.save("fields.npy", fields)
    measure = ("measure", "speaking:make", "--images", "fields.npy")
    found = call(*measure, "--out", "run", "--json")
    assert "the factory speaks" in found.stderr
    assert json.loads(found.stdout)["kind"] == "run"
    drawn = call("plot", "run", "--layer", "1", "--out", "figs").stdout.split()
    assert drawn == ["figs/1/spectra.svg", "figs/1/spectra.png"]
    assert "expected one of" in call("plot", "run", "--layer", "9", "--out", "figs", code=2).stderr
    error = call("fit", "run", "--band", "0.01:0.011", code=2).stderr
    assert "at least one layer has an exponent; got none (too few rings in band)" in error
    assert "A and B are the same run" in " ".join(call("compare", "run", "run").stdout.split())
    found = call(*measure, "--limit", "1", "--out", "one", code=1)
    assert "got none (too few images" in found.stderr
    error = call("fit", ".", "--level", "0.9", code=2).stderr
    assert "runs in it: one, run" in " ".join(error.split())


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--control-seeds", "5"), "--control-seeds: expected only beside --control; got 5"),
        (("--resamples", "500"), "--resamples: expected only with interval bootstrap; got 500"),
        (("--batch-size", "x"), "--batch-size: expected a whole number; got 'x'"),
        (
            ("--estimator", "whitle"),
            "--estimator: expected one of octave, whittle, ols; got",
        ),
    ],
)
def test_an_option_is_refused_as_it_is_typed(call, given, words):
    error = call("measure", "resnet18", "--images", "nowhere", *given, code=2).stderr
    assert words in error
    assert "Usage" not in error


def test_labelled_images_are_refused_as_they_are_typed(call):
    error = call("distill", "--student", "cifar_resnet8", "--data", "cifar10:no", code=2).stderr
    assert error.startswith("Error: --data: expected cifar-10-batches-py below no ")


@pytest.mark.parametrize("weights", ["none", "IMAGENET1K_V1"])
@pytest.mark.parametrize("command", ["measure", "explain"])
@pytest.mark.parametrize("checkpoints", ["a.pth", "*.pth"])
def test_weights_beside_a_checkpoint_are_refused(call, command, weights, checkpoints):
    for name in ("a.pth", "b.pth"):
        Path(name).touch()
    options = ("--weights", weights, "--checkpoint", checkpoints, "--images", "nowhere")
    error = call(command, "resnet18", *options, code=2).stderr
    assert "--weights: expected not to be given beside" in error


def test_images_are_looked_at_before_weights(call, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_text("no")
    error = call("measure", "nowhere_net", "--images", "bad", code=1).stderr
    assert "all 1 are unreadable" in error
