"""``natstats explain`` from the command line."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import natstats


@pytest.fixture
def images(tmp_path):
    fields = natstats.power_law_fields(48, 24, 24, alpha=2.0, seed=0).reshape(16, 3, 24, 24)
    np.save(tmp_path / "fields.npy", np.float32(fields))
    return tmp_path / "fields.npy"


@pytest.fixture
def model(tmp_path):
    code = (
        "import torch\nfrom torch import nn\n\n\ndef network():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), "
        "nn.Conv2d(6, 6, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU())\n"
    )
    (tmp_path / "explained_network.py").write_text(code)
    return "explained_network:network"


@pytest.mark.slow
def test_an_account_is_measured_kept_and_said(call, tmp_path, images, model):
    result = call(
        "explain", model, "--images", str(images), "--out", "why", "--control", "random-weights",
        "--control-seeds", "2", "--counterfactual", "shuffle-kernels",
    )  # fmt: skip
    assert "From " in result.output
    assert "Trained minus 2 networks with random weights" in result.output
    assert "With shuffled kernels, measured" in result.output
    shares = pd.read_csv(tmp_path / "why" / "account.csv")
    record = json.loads((tmp_path / "why" / "account.json").read_text())
    trunk = shares[shares.trunk]
    change = record["exponent_of_last_layer"] - record["exponent_of_images"]
    assert trunk.share.sum() == pytest.approx(change, abs=1e-6)
    assert {row["cause"] for row in record["totals"]} == {*trunk.cause}
    assert (tmp_path / "why" / "counterfactual" / "spectra.npz").is_file()
    assert 'id="account"' in (tmp_path / "why" / "report.html").read_text()


@pytest.mark.slow
def test_a_refit_keeps_the_account(call, quick, tmp_path, images, model):
    call("measure", model, "--images", str(images), "--out", "a", "--explain")
    call("fit", "a", "--band", "0.1:0.4", "--out", "b")
    first, second = (natstats.Run.open(tmp_path / name).account for name in "ab")
    assert first.frame.step.tolist() == second.frame.step.tolist()
    assert not np.allclose(first.shares.value, second.shares.value)
    # The folder is one of natstats, all of it, and may be written over.
    call("fit", "a", "--band", "0.1:0.3", "--out", "b", "--overwrite")


def test_what_cannot_be_explained_is_said(call, images, model):
    result = call(
        "explain", model, "--images", str(images), "--counterfactual", "shuffle-bias", code=2
    )
    assert "shuffle-kernels" in result.output
    with pytest.raises(natstats.UsageError, match="counterfactual: expected only with explain"):
        natstats.MeasureOptions(counterfactual="shuffle-kernels")
    with pytest.raises(natstats.UsageError, match="explain: expected only for maps"):
        natstats.MeasureOptions(explain=True, temporal=True)
    with pytest.raises(natstats.UsageError, match="explain: expected only for a network"):
        natstats.measure_images(images, options=natstats.MeasureOptions(explain=True))
