"""The command line: what is drawn and what its pages say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import natstats


@pytest.mark.slow
def test_fit_puts_another_measure_of_depth_on_the_axis(call, measured):
    path, _ = measured
    out = call("fit", path, "--depth", "receptive-field", "--out", "fields").stdout
    fields = natstats.Run.open("fields")
    assert all(line in out for line in fields.verdict.lines())
    assert (fields.options.depth, fields.law.depth) == ("receptive-field", "receptive-field")
    page = Path("fields/report.html").read_text()
    assert "side of the theoretical receptive field" in page
    assert ">receptive field</th>" in page
    assert json.loads(Path("fields/law.json").read_text())["depth"] == "receptive-field"


@pytest.mark.slow
def test_plot_draws_one_run_or_several(call, quick, measured):
    path, _ = measured
    call("plot", path, "--out", "figs")
    assert {p.name for p in Path("figs").iterdir()} == {
        f"{name}.{kind}"
        for name in ("law", "spectra", "spread", "sensitivity")
        for kind in ("svg", "png")
    }
    call("fit", path, "--estimator", "ols", "--out", "other")
    call("plot", path, "other", "--out", "both")
    assert {"compare.svg", "compare.png"} <= {p.name for p in Path("both").iterdir()}
    assert Path("both/small/law.svg").is_file()
    assert Path("both/other/law.svg").is_file()


@pytest.mark.slow
def test_how_images_enter_can_be_chosen_and_is_in_the_command(call, photographs):
    call(
        "measure", "cifar_resnet20", "--weights", "none", "--images", photographs, "--size", 56,
        "--crop", 48, "--no-normalize", "--equal-power", "--no-probe", "--out", "run",
    )  # fmt: skip
    run = natstats.Run.open("run")
    assert run.info["options"]["probe"] is False
    images = run.info["images"]
    assert (images["size"], images["resize"]) == (48, 56)
    assert images["normalisation"]["std"] == [1.0, 1.0, 1.0]
    assert run.options.normalize is True
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "central 48 × 48 px, in [0, 1], not normalised" in page


@pytest.mark.slow
def test_demo_runs_on_what_ships(call):
    result = call("demo")
    assert "runs/demo/report.html" in result.stdout
    run = natstats.Run.open("runs/demo")
    assert len(run.layers) == 21
    assert run.info["model"]["trained"]
    assert json.loads(Path("runs/demo/law.json").read_text())["n_layers"] == 19
