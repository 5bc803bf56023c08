"""A series from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import natstats
from natstats import Series, measure_series


@pytest.fixture
def call(call):
    """Run the command in a folder with three checkpoints of a ResNet-20."""
    for epoch in (1, 2, 3):
        torch.manual_seed(epoch)
        torch.save(natstats.networks.zoo.cifar_resnet20().state_dict(), f"epoch_{epoch}.pth")
    fields = natstats.power_law_fields(18, 32, 32, 2.0, seed=0).reshape(6, 3, 32, 32)
    np.save("fields.npy", np.float32(fields))
    return call


MEASURE = ("measure", "cifar_resnet20", "--images", "fields.npy", "--checkpoint")


@pytest.mark.slow
def test_a_pattern_makes_a_series_and_one_file_a_run(call, quick):
    found = call(*MEASURE, "epoch_*.pth", "--out", "series")
    assert "3 checkpoints, epoch 1 to 3" in found.stdout
    assert re.search(r"epoch_3 (differs|was not found to differ)", found.stdout)
    assert "18 of 18 images" in found.stderr
    series = Series.open("series")
    assert len(series.exponents) == 3 * 21
    assert series.info["command"].startswith("natstats")
    again = call(*MEASURE, "epoch_*.pth", "--out", "series")
    assert "3 runs were there already" in again.stderr
    call(*MEASURE, "epoch_3.pth", "--out", "run")
    assert natstats.Run.open("run").law.slope == pytest.approx(series.frame.slope.iloc[-1])
    call(*MEASURE, "epoch_3.pth", "--checkpoint", "epoch_1.pth", "--out", "two")
    assert Series.open("two").frame.step.tolist() == [1, 3]
    call("fit", "series", "--estimator", "ols", "--out", "other")
    other = Series.open("other")
    assert other.info["fit"]["estimator"] == "ols"
    assert other.frame.slope.tolist() != series.frame.slope.tolist()
    call("plot", "series", "--out", "figs")
    assert {p.name for p in Path("figs").iterdir()} == {
        f"{name}.{kind}" for name in ("exponents", "slopes") for kind in ("svg", "png")
    }
    assert (
        "expected a run to overwrite"
        in call(*MEASURE, "epoch_3.pth", "--out", "series", "--overwrite", code=2).stderr
    )


@pytest.mark.slow
def test_an_interruption_says_what_was_kept(call, quick, monkeypatch):
    import natstats.measurement.preparation as home

    real = home.load_network

    def load(name, **options):
        if options["checkpoint"].name == stop:
            raise KeyboardInterrupt
        return real(name, **options)

    monkeypatch.setattr(home, "load_network", load)
    stop = "epoch_1.pth"
    error = call(*MEASURE, "epoch_*.pth", "--out", "series", code=130).stderr
    assert "interrupted; nothing was written" in error
    assert not Path("series").exists()
    stop = "epoch_3.pth"
    error = call(*MEASURE, "epoch_*.pth", "--out", "series", code=130).stderr
    assert "2 finished runs are kept in series" in error
    assert "expected a finished series" in call("plot", "series", code=2).stderr
    stop = ""
    assert "2 runs were there already" in call(*MEASURE, "epoch_*.pth", "--out", "series").stderr


@pytest.mark.slow
def test_a_series_is_of_the_weights_under_a_key(tmp_path, quick):
    """The key goes with the checkpoints, which a series has from elsewhere."""
    for epoch in (1, 2):
        state = natstats.load_network(
            "cifar_resnet8", weights="none", seed=epoch
        ).model.state_dict()
        torch.save({"ema": state, "model": {}}, tmp_path / f"e{epoch}.pth")
    series = measure_series(
        "cifar_resnet8", tmp_path, torch.rand(4, 3, 32, 32), checkpoint_key="ema", layers="conv1",
        probe=False,
    )  # fmt: skip
    assert [run.info["model"]["weights"].endswith("(ema)") for run in series.runs] == [True] * 2


def test_mistakes_are_one_sentence(call):
    error = call(*MEASURE, "no_*.pth", code=2).stderr
    assert "Error: --checkpoint: expected a pattern that some file matches" in error
    Path("epoch_2.pth").write_bytes(b"")
    error = call(*MEASURE, "epoch_2.pth", "--checkpoint", "epoch_9.pth", code=2).stderr
    assert "epoch_9.pth" in error
    assert not Path("runs").exists()
