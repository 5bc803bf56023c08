"""The run directory: whole or not at all, and never at the cost of what was there."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.runs.store import FORMAT, free_path, to_json, write_directory


@pytest.fixture(scope="module")
def run():
    torch.manual_seed(0)
    model = nn.Sequential(
        *(layer for _ in range(6) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(3, 3, 1),
    )
    fields = natstats.power_law_fields(60, 24, 24, 2.0, seed=0).reshape(20, 3, 24, 24)
    return natstats.measure(model, fields)


@pytest.mark.slow
def test_a_run_survives_the_disk(run, tmp_path):
    path = run.save(tmp_path / "run", report=False)
    again = natstats.Run.open(path)
    assert again.layers.equals(run.layers)
    assert again.skipped.equals(run.skipped)
    assert to_json(again.law.to_dict()) == to_json(run.law.to_dict())
    assert again.options == run.options
    assert again.info["model"] == run.info["model"]


@pytest.mark.slow
def test_a_refit_of_a_saved_run_is_a_fit_of_the_measured_one(run, tmp_path):
    path = run.save(tmp_path / "run", report=False)
    again = natstats.Run.open(path).refit(band=(0.05, 0.4), estimator="whittle")
    assert again.layers.equals(run.refit(band=(0.05, 0.4), estimator="whittle").layers)
    saved = again.save(tmp_path / "other", report=False)
    assert natstats.Run.open(saved).options == again.options


@pytest.mark.slow
def test_the_directory_holds_what_the_documentation_says(run, tmp_path):
    path = run.save(tmp_path / "run")
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file()}
    assert {"run.json", "spectra.npz", "layers.csv", "skipped.csv", "law.json"} <= names
    assert {"forms.csv", "sensitivity.csv", "image_exponents.csv"} <= names
    assert {"report.html", "figures/law.svg", "figures/law.png"} <= names
    record = json.loads((path / "run.json").read_text())
    assert record["format"] == FORMAT
    header = (path / "layers.csv").read_text().splitlines()[0].split(",")
    columns = (
        "layer call kind depth order receptive_field channels height width stride n_rings "
        "exponent exponent_low exponent_high exponent_whittle exponent_ols exponent_image_mean "
        "exponent_image_sd r2 curvature curvature_p best_form aicc_gain flags"
    )
    for column in columns.split():
        assert column in header
    with np.load(path / "spectra.npz", allow_pickle=False) as arrays:
        assert arrays["0000/power"].shape == (128, 12)


@pytest.mark.slow
def test_what_exists_is_kept(run, tmp_path):
    path = run.save(tmp_path / "run", report=False)
    before = (path / "run.json").read_bytes()
    with pytest.raises(natstats.UsageError, match="out: .*exists and is kept"):
        run.save(path, report=False)
    assert (path / "run.json").read_bytes() == before
    run.refit(level=0.9).save(path, overwrite=True, report=False)
    assert natstats.Run.open(path).options.level == 0.9


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_run_is_never_overwritten(run, tmp_path, overwrite):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    for target in (tmp_path / "thesis", tmp_path / "thesis" / "chapter1.tex"):
        with pytest.raises(natstats.UsageError, match="is kept"):
            run.save(target, overwrite=overwrite, report=False)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_an_interrupted_write_leaves_nothing_half_written(run, tmp_path, error):
    path = run.save(tmp_path / "run", report=False)
    before = sorted(p.name for p in tmp_path.iterdir())
    record = (path / "run.json").read_bytes()
    for target in (path, tmp_path / "new"):
        with pytest.raises(error), write_directory(target, overwrite=True) as folder:
            (folder / "run.json").write_text("half")
            raise error
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert (path / "run.json").read_bytes() == record


def test_missing_parents_are_made(run, tmp_path):
    assert run.save(tmp_path / "a" / "b" / "run", report=False).is_dir()


def test_a_place_that_cannot_be_written_to_is_an_error(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        natstats.NatstatsError, match="out: expected a place that can be written to"
    ):
        run.save(tmp_path / "file" / "run", report=False)


def test_free_path_counts_up(tmp_path):
    assert free_path(tmp_path / "run") == tmp_path / "run"
    (tmp_path / "run").mkdir()
    (tmp_path / "run-2").mkdir()
    assert free_path(tmp_path / "run") == tmp_path / "run-3"


def damage(path, how):
    record = json.loads((path / "run.json").read_text())
    if how == "newer":
        record["format"] = FORMAT + 1
    elif how == "no format":
        del record["format"]
    elif how == "no layers":
        del record["layers"]
    elif how == "cut":
        (path / "spectra.npz").write_bytes((path / "spectra.npz").read_bytes()[:500])
    elif how == "no spectra":
        (path / "spectra.npz").unlink()
    text = "{" if how == "not json" else json.dumps(record)
    (path / "run.json").write_text(text)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("newer", "written by a newer natstats"),
        ("no format", "format number"),
        ("no layers", "expected a whole run"),
        ("cut", "expected a whole run"),
        ("no spectra", "expected a whole run"),
        ("not json", "expected a whole run"),
    ],
)
def test_a_damaged_run_says_why_it_does_not_open(run, tmp_path, how, words):
    path = run.save(tmp_path / "run", report=False)
    damage(path, how)
    with pytest.raises(natstats.NatstatsError, match=words):
        natstats.Run.open(path)


@pytest.mark.slow
def test_any_changed_byte_is_damage_or_does_no_harm(run, tmp_path, n_damaged):
    """A packed file fails in many ways, each of which has to end in the same words."""
    path = run.save(tmp_path / "run", report=False)
    assert n_damaged(path / "spectra.npz", lambda: natstats.Run.open(path)) > 10


@pytest.mark.slow
def test_a_run_of_format_1_opens_without_receptive_fields(run, tmp_path):
    path = run.save(tmp_path / "run", report=False)
    record = json.loads((path / "run.json").read_text())
    record["format"] = 1
    for layer in record["layers"]:
        del layer["order"], layer["receptive_field"]
    (path / "run.json").write_text(json.dumps(record))
    old = natstats.Run.open(path)
    assert to_json(old.law.to_dict()) == to_json(run.law.to_dict())
    assert old.layers[["order", "receptive_field"]].isna().all(axis=None)
    law = old.refit(depth="receptive-field").law
    assert law.n_layers == 0
    assert "a known receptive field" in law.sentence()
    again = natstats.Run.open(old.save(tmp_path / "again", report=False))
    assert again.layers.equals(old.layers)


@pytest.mark.slow
def test_a_receptive_field_that_is_not_known_survives_the_disk(run, tmp_path):
    some = [
        replace(m, layer=replace(m.layer, receptive_field=np.nan)) if place == 3 else m
        for place, m in enumerate(run.spectra)
    ]
    partly = natstats.Run(some, run.skipped_layers, run.info, run.options)
    refitted = partly.refit(depth="receptive-field")
    path = refitted.save(tmp_path / "run", report=False)
    assert json.loads((path / "run.json").read_text())["layers"][3]["receptive_field"] is None
    again = natstats.Run.open(path)
    assert again.layers.equals(refitted.layers)
    assert list(again.layers.law)[3] == "no depth"
    assert again.layers.drop(columns="law").equals(partly.layers.drop(columns="law"))
    assert again.law.n_layers == run.law.n_layers - 1
    assert again.law.depth == "receptive-field"


def test_no_run_is_a_mistake_of_usage(tmp_path):
    with pytest.raises(natstats.UsageError, match="holds no run.json"):
        natstats.Run.open(tmp_path)


def test_a_run_of_distillation_is_none_and_is_told_so(made_runs, tmp_path):
    path = made_runs(n_images=10).save(tmp_path / "run")
    with pytest.raises(natstats.UsageError, match="one of natstats distill, which natstats table"):
        natstats.Run.open(path)
