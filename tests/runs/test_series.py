"""A series of checkpoints: what it holds is true to its runs, and survives the disk."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

import natstats
from natstats import Series, measure_series
from natstats.law.law import OLDER_VERDICTS, VERDICTS
from natstats.report.figures.series import (
    plot_exponents,
    plot_slopes,
)
from natstats.report.pages.series import write_series_report
from natstats.runs.comparison import compare
from tests.runs.small_series import N_LAYERS, between, network


@pytest.mark.slow
def test_a_series_is_its_runs_and_their_paired_comparison(checkpoints, series_images):
    model = network(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure_series(model, checkpoints / "*.pth", series_images)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(found.frame.step) == [0, 1, 2, 10]
    for row, run in zip(found.frame.to_dict("records"), found.runs, strict=True):
        alone = network()
        alone.load_state_dict(torch.load(row["file"], weights_only=True))
        single = natstats.measure(alone, series_images)
        assert row["slope"] == single.law.slope == run.law.slope
        assert row["verdict"] == single.verdict.word
        assert row["weights_digest"] == single.info["model"]["digest"]
        inner = single.layers[single.layers.kind != "input"]
        assert row["exponent_mean"] == pytest.approx(inner.exponent.mean())
        assert row["exponent_mean_low"] < row["exponent_mean"] < row["exponent_mean_high"]
        own = found.exponents[found.exponents.checkpoint == row["checkpoint"]]
        assert own.exponent.tolist() == single.layers.exponent.tolist()
        assert own.low.tolist() == single.layers.exponent_low.tolist()
    images_rows = found.exponents[found.exponents.layer == "input.grey"]
    assert images_rows.exponent.nunique() == 1
    expected = compare(found.runs[0], found.runs[-1], ("epoch_0", "epoch_10"))
    assert found.change.to_dict() == expected.to_dict()
    assert found.change.is_paired
    assert found.sentence().endswith(expected.sentence())
    assert "4 checkpoints, epoch 0 to 10" in found.sentence()


@pytest.mark.slow
def test_weights_that_do_not_change_change_nothing(tmp_path, series_images):
    for epoch in (1, 2):
        torch.save(between(0.0), tmp_path / f"e{epoch}.pth")
    found = measure_series(network(3), tmp_path, series_images)
    assert found.frame.weights_digest.nunique() == 1
    assert (found.change.slope.value, found.change.mean.value) == (0.0, 0.0)
    assert "exactly those of e1" in found.sentence()


@pytest.mark.slow
def test_a_series_survives_the_disk(series, series_images):
    again = Series.open(series)
    whole = measure_series(network(), series.parent / "epoch_*.pth", series_images)
    pd.testing.assert_frame_equal(again.frame, whole.frame, check_dtype=False)
    pd.testing.assert_frame_equal(again.exponents, whole.exponents, check_dtype=False)
    pd.testing.assert_frame_equal(again.change.layers, whole.change.layers, check_dtype=False)
    assert again.change.to_dict() == whole.change.to_dict()
    assert again.sentence() == whole.sentence()
    assert again.table() == whole.table()
    assert len(again.runs) == 3
    assert again.runs[-1].law.slope == whole.runs[-1].law.slope
    assert [run.law.slope for run in again.runs] == again.frame.slope.tolist()


def test_verdicts_of_earlier_versions_stay_as_they_are(series, tmp_path):
    """Before 0.7 laws had other words, by other tests: nothing is said of them in the new ones."""
    older = tmp_path / "older"
    shutil.copytree(series, older)
    record = json.loads((older / "series.json").read_text())
    for row, verdict in zip(record["runs"], OLDER_VERDICTS, strict=True):
        row["verdict"] = verdict
    (older / "series.json").write_text(json.dumps(record))
    found = Series.open(older)
    assert tuple(found.frame.verdict) == OLDER_VERDICTS
    assert not set(OLDER_VERDICTS) & set(VERDICTS)
    told = "linear (1), rises, not linearly (1), undecided (1); its slope"
    assert f"by the verdict on their law: {told}" in found.sentence()
    for verdict in OLDER_VERDICTS:
        assert verdict in found.table()
    ax = plot_slopes(found.report())
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels[:-1] == list(OLDER_VERDICTS)
    write_series_report(tmp_path, found.report())
    text = (tmp_path / "report.html").read_text()
    for verdict in OLDER_VERDICTS:
        assert f">{verdict}</td>" in text
    assert tuple(Series.open(found.save(tmp_path / "again")).frame.verdict) == OLDER_VERDICTS
    record["runs"][0]["verdict"] = "rises, linearly"
    (older / "series.json").write_text(json.dumps(record))
    with pytest.raises(natstats.NatstatsError, match=r"runs\[0\].verdict: expected one of"):
        Series.open(older)


def test_the_directory_holds_what_the_documentation_says(series):
    names = {p.relative_to(series).as_posix() for p in series.rglob("*") if p.is_file()}
    assert {"series.json", "series.csv", "exponents.csv", "change.csv", "report.html"} <= names
    figures = {f"figures/{n}.{kind}" for n in ("exponents", "slopes") for kind in ("svg", "png")}
    assert figures <= names
    for name in ("epoch_0", "epoch_1", "epoch_8"):
        assert {f"{name}/{file}" for file in ("run.json", "spectra.npz", "report.html")} <= names
    assert not [name for name in names if name.startswith(".")]
    record = json.loads((series / "series.json").read_text())
    assert (record["format"], record["kind"]) == (1, "series")
    rows = pd.read_csv(series / "series.csv")
    assert [run["slope"] for run in record["runs"]] == pytest.approx(rows.slope.tolist())
    for key in ("checkpoint", "step", "file", "weights_digest", "slope_low", "slope_high",
                "verdict", "exponent_mean", "exponent_mean_low", "exponent_mean_high"):  # fmt: skip
        assert key in record["runs"][0]
    assert record["change"]["slope"]["low"] < record["change"]["slope"]["value"]
    long = pd.read_csv(series / "exponents.csv")
    columns = ["checkpoint", "step", "layer", "kind", "depth", "exponent", "low", "high", "flags"]
    assert list(long.columns) == columns
    assert len(long) == 3 * (N_LAYERS + 2)


@pytest.mark.slow
def test_a_refit_of_a_series_is_a_refit_of_its_runs(series, tmp_path, quick):
    again = Series.open(series).refit(estimator="whittle", depth="normalized")
    runs = [run.refit(estimator="whittle", depth="normalized") for run in Series.open(series).runs]
    assert again.frame.slope.tolist() == [run.law.slope for run in runs]
    assert again.depth == "normalized"
    assert again.exponents.depth.max() == 1.0
    saved = Series.open(again.save(tmp_path / "new"))
    assert saved.frame.equals(again.frame)
    assert saved.info["fit"]["estimator"] == "whittle"
    assert saved.runs[0].options.estimator == "whittle"


@pytest.mark.slow
def test_a_checkpoint_without_a_law_is_a_gap_and_no_error(
    checkpoints, series_images, tmp_path, quick
):
    torch.save(
        {key: torch.full_like(value, np.nan) for key, value in between(0.0).items()},
        checkpoints / "epoch_2.pth",
    )
    measure_series(network(), checkpoints, series_images, out=tmp_path / "out")
    found = Series.open(tmp_path / "out")
    row = found.frame.iloc[2]
    assert (row.verdict, row.n_exponents) == ("too little to tell", 0)
    assert np.isnan([row.slope, row.exponent_mean]).all()
    assert np.isfinite(found.change.slope.value)
    own = found.exponents[(found.exponents.step == 2) & (found.exponents.kind != "input")]
    assert own["flags"].str.contains("no images").all()
    assert "-" in found.table().splitlines()[3].split()
    labels = [text.get_text() for text in plot_slopes(found.report()).get_legend().get_texts()]
    assert "no law (too few layers)" in labels
    labels = [text.get_text() for text in plot_exponents(found.report()).get_legend().get_texts()]
    assert f"{N_LAYERS} without an exponent not drawn" in labels


def test_a_short_table_leaves_out_checkpoints_in_the_middle(series):
    lines = Series.open(series).table(2).splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["epoch_0", "epoch_8"]
    assert lines[-1] == "(1 of 3 checkpoints not shown)"


def test_wrong_arguments_are_one_sentence(checkpoints, series_images, tmp_path):
    with pytest.raises(natstats.UsageError, match="^checkpoints: expected two or more.*got 1"):
        measure_series(network(), checkpoints / "epoch_1.pth", series_images)
    with pytest.raises(natstats.UsageError, match="^option: .*'edge'.*edges"):
        measure_series(network(), checkpoints, series_images, edge="sine")
    with pytest.raises(natstats.NatstatsError, match="^checkpoint: expected a readable file"):
        measure_series(
            network(), [checkpoints / "epoch_1.pth", checkpoints / "none.pth"], series_images
        )
    with pytest.raises(natstats.UsageError, match="^series: expected a series; .*no series.json"):
        Series.open(tmp_path)
    with pytest.raises(natstats.UsageError, match="^runs: expected two runs or more"):
        Series.of([], [])
