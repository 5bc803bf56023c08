"""``--law-layers``: asked for in measure, fit and demo, by the grammar of ``--layers``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats import demo
from natstats.files.csv_files import read_csv


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A run of seven convolutions, the last of which writes the output."""
    torch.manual_seed(0)
    layers = [layer for _ in range(6) for layer in (nn.Conv2d(1, 1, 3, padding=1), nn.Tanh())]
    model = nn.Sequential(*layers, nn.Conv2d(1, 1, 3, padding=1)).eval()
    fields = np.float32(natstats.power_law_fields(16, 16, 16, alpha=2.0, seed=0)[:, None])
    run = natstats.measure(model, fields)
    return run.save(tmp_path_factory.mktemp("runs") / "run", report=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "n_layers"),
    [
        ([], 6),
        (["--law-layers", "all"], 7),
        (["--law-layers", "hidden,-0"], 5),
        (["--law-layers", "hidden", "--law-layers", "-0"], 5),
        (["--law-layers", "-0"], 5),
        (["--law-layers=-conv"], 0),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_run_is_fitted_over_other_layers(call, path, tmp_path, arguments, n_layers):
    call("fit", path, "--out", tmp_path / "again", *arguments)
    law = json.loads((tmp_path / "again" / "law.json").read_text())
    assert law["n_layers"] == n_layers
    rows = read_csv(tmp_path / "again" / "layers.csv")
    assert (rows["law"] == "yes").sum() == n_layers


@pytest.mark.parametrize("asked", ["layer1.*", "hidden,-cnv", ""])
def test_what_matches_nothing_is_one_sentence_and_no_run(call, path, tmp_path, asked):
    result = call("fit", path, "--out", tmp_path / "a", "--law-layers", asked, code=2)
    assert "--law-layers: expected hidden, all" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "a").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_the_demo_and_a_measurement_take_it(call, tmp_path):
    photos = demo.photographs()
    measure = ["measure", "squeezenet1_1", "--weights", "none", "--images", photos,
               "--limit", "3", "--size", "128", "--no-probe"]  # fmt: skip
    for command, asked in ((["demo"], "all,-conv1"), (measure, "all,-*.0")):
        call(*command, "--out", tmp_path / command[0], "--law-layers", asked)
        run = natstats.Run.open(tmp_path / command[0])
        assert run.options.law_layers == asked
        assert "not asked for" in set(run.layers.law)
    assert "own output" in run.layers["flags"].iloc[-1]
    assert run.layers.law.iloc[-1] == "yes" or "beyond range" in run.layers["flags"].iloc[-1]
