"""A series of checkpoints: in order, paired, never losing a finished run, and true to its runs."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import natstats
from natstats import Series, measure_series
from natstats.fits.options import FitOptions
from natstats.images import open_images
from natstats.law.law import OLDER_VERDICTS, VERDICTS
from natstats.measurement import MeasureOptions
from natstats.measurement.series_request import SeriesRequest
from natstats.networks.checkpoint_files import find_checkpoints, number_checkpoints, step_name
from natstats.networks.load_options import LoadOptions
from natstats.report.figures.series import (
    VERDICT_MARKS,
    is_logarithmic,
    plot_exponents,
    plot_slopes,
)
from natstats.report.pages.series import write_series_report
from natstats.report.pages.words import DOCS
from natstats.runs import store
from natstats.runs.comparison import compare
from natstats.runs.run import Run

N_LAYERS = 6


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(N_LAYERS))
    ).eval()


@pytest.fixture(scope="module")
def images():
    return np.float32(natstats.power_law_fields(54, 16, 16, 2.0, seed=0).reshape(18, 3, 16, 16))


def between(share):
    """Weights on the way from one random network to another."""
    first, last = (network(seed).state_dict() for seed in (0, 1))
    return {name: (1 - share) * first[name] + share * last[name] for name in first}


@pytest.fixture
def folder(tmp_path):
    """Four checkpoints of a training."""
    home = tmp_path / "ck"
    home.mkdir()
    for epoch in (0, 1, 2, 10):
        torch.save(between(epoch / 10), home / f"epoch_{epoch}.pth")
    return home


@pytest.fixture(scope="module")
def series(images, tmp_path_factory):
    """A whole series on disk; the pages of its runs, which are not the matter here, are empty."""
    home = tmp_path_factory.mktemp("series")
    for epoch in (0, 1, 8):
        torch.save(between(epoch / 8), home / f"epoch_{epoch}.pth")
    with pytest.MonkeyPatch.context() as patch:
        empty = lambda folder, _: (folder / "report.html").touch()  # noqa: E731
        patch.setattr("natstats.report.pages.run.write_report", empty)
        measure_series(network(), home / "epoch_*.pth", images, out=home / "out")
    return home / "out"


@pytest.fixture
def measured(monkeypatch):
    """Files whose checkpoints were measured, in order; the one named in `stop` interrupts."""
    import natstats.measurement.series_request as home

    real, seen = home.with_checkpoint, []

    def spy(given, path):
        if path.name == spy.stop:
            raise KeyboardInterrupt
        seen.append(path.name)
        return real(given, path)

    spy.stop = None
    monkeypatch.setattr(home, "with_checkpoint", spy)
    return spy, seen


# Which files, in what order


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["epoch_10", "epoch_2"], {"epoch_2": 2, "epoch_10": 10}),
        (["e1-v3", "e2-v3"], {"e1-v3": 1, "e2-v3": 2}),
        (["3", "12"], {"3": 3, "12": 12}),
        (["epoch_2", "epoch_10", "last"], {"epoch_2": 0, "epoch_10": 1, "last": 2}),
        (["e1_loss3", "e2_loss1"], {"e1_loss3": 0, "e2_loss1": 1}),
        (["e1", "e01"], {"e1": 0, "e01": 1}),
        (["first", "last"], {"first": 0, "last": 1}),
        (["last", "first"], {"last": 0, "first": 1}),
    ],
)
def test_the_number_that_differs_is_the_step_else_the_order_is(names, steps):
    found = number_checkpoints([Path(f"{name}.pth") for name in names])
    assert {one.name: one.step for one in found} == steps
    assert [one.step for one in found] == sorted(steps.values())


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["checkpoint-500/m.pt", "checkpoint-1000/m.pt"], ["checkpoint-500", "checkpoint-1000"]),
        (["m.pth", "m.pt"], ["m.pth", "m.pt"]),
        (["a/x/m.pt", "b/y/m.pt"], ["a_x", "b_y"]),
        (["m.pt", "old/m.pt"], ["m.pt", "old"]),
        (["figures.pt", "b.pt"], ["checkpoint-figures", "b"]),
        (["series.json.pt", "b.pt"], ["checkpoint-series.json", "b"]),
        ([".a.pt", "b.pt"], ["checkpoint-a", "b"]),
    ],
)
def test_files_are_called_by_what_tells_them_apart(paths, names):
    assert [one.name for one in number_checkpoints([Path(path) for path in paths])] == names


def test_files_that_cannot_be_told_apart_are_refused():
    with pytest.raises(natstats.UsageError, match="^checkpoint: expected files that"):
        number_checkpoints([Path("figures.pt"), Path("checkpoint-figures.pt")])


def test_patterns_folders_and_files_are_found_in_natural_order(folder, monkeypatch):
    names = ["epoch_0.pth", "epoch_1.pth", "epoch_2.pth", "epoch_10.pth"]
    (folder / "notes.txt").write_text("")
    (folder / ".hidden.pth").write_text("")
    (folder / "epoch_deep").mkdir()
    assert [path.name for path in find_checkpoints(folder / "epoch_*")] == names
    assert [path.name for path in find_checkpoints(folder)] == names
    chosen = [folder / "epoch_10.pth", folder / "epoch_?.pth", folder]
    assert [path.name for path in find_checkpoints(chosen)] == [names[3], *names[:3]]
    monkeypatch.setenv("HOME", str(folder.parent))
    assert len(find_checkpoints("~/ck/*.pth")) == 4
    (folder / "a[1].pth").write_text("")
    assert find_checkpoints(folder / "a[1].pth") == [folder / "a[1].pth"]
    assert find_checkpoints(folder / "none.pth") == [folder / "none.pth"]


@pytest.mark.parametrize("given", ["no_*.pth", "epoch_deep"])
def test_a_pattern_or_folder_without_files_is_a_mistake(folder, given):
    (folder / "epoch_deep").mkdir()
    with pytest.raises(natstats.UsageError, match=f"^checkpoint: expected a .*{re.escape(given)}"):
        find_checkpoints(folder / given)


def test_what_the_steps_count():
    assert step_name(["Epoch1", "Epoch2"]) == "epoch"
    assert step_name(["iter1", "iter2"]) == "iteration"
    assert step_name(["ck1", "ck2"]) == "step"
    assert step_name(["epoch1", "best"]) == "checkpoint"


# What a series holds


@pytest.mark.slow
def test_a_series_is_its_runs_and_their_paired_comparison(folder, images):
    model = network(5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = measure_series(model, folder / "*.pth", images)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert list(found.frame.step) == [0, 1, 2, 10]
    for row, run in zip(found.frame.to_dict("records"), found.runs, strict=True):
        alone = network()
        alone.load_state_dict(torch.load(row["file"], weights_only=True))
        single = natstats.measure(alone, images)
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
def test_weights_that_do_not_change_change_nothing(tmp_path, images):
    for epoch in (1, 2):
        torch.save(between(0.0), tmp_path / f"e{epoch}.pth")
    found = measure_series(network(3), tmp_path, images)
    assert found.frame.weights_digest.nunique() == 1
    assert (found.change.slope.value, found.change.mean.value) == (0.0, 0.0)
    assert "exactly those of e1" in found.sentence()


@pytest.mark.slow
def test_a_series_survives_the_disk(series, images):
    again = Series.open(series)
    whole = measure_series(network(), series.parent / "epoch_*.pth", images)
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
def test_a_checkpoint_without_a_law_is_a_gap_and_no_error(folder, images, tmp_path, quick):
    torch.save(
        {key: torch.full_like(value, np.nan) for key, value in between(0.0).items()},
        folder / "epoch_2.pth",
    )
    measure_series(network(), folder, images, out=tmp_path / "out")
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


# Never lose work


@pytest.mark.slow
def test_after_an_interruption_the_same_call_goes_on(folder, images, tmp_path, quick, measured):
    spy, seen = measured
    out = tmp_path / "out"
    spy.stop = "epoch_2.pth"
    with pytest.raises(KeyboardInterrupt):
        measure_series(network(), folder, images, out=out)
    assert seen == ["epoch_0.pth", "epoch_1.pth"]
    assert {path.name for path in out.iterdir()} == {"epoch_0", "epoch_1"}
    assert store.is_unfinished_series(out)
    with pytest.raises(natstats.UsageError, match="expected a finished series; .*where it stopped"):
        Series.open(out)
    before = (out / "epoch_0" / "run.json").read_bytes()
    spy.stop = None
    found = measure_series(network(), folder, images, out=out)
    assert seen[2:] == ["epoch_2.pth", "epoch_10.pth"]
    assert (out / "epoch_0" / "run.json").read_bytes() == before
    whole = measure_series(network(), folder, images)
    pd.testing.assert_frame_equal(found.frame, whole.frame)
    assert found.change.to_dict() == whole.change.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"cut short", "expected weights and plain data"),
        pytest.param({"w": torch.zeros(1), "hook": print}, "print", marks=pytest.mark.slow),
        pytest.param({"0.weight": torch.zeros(4, 3, 3, 3)}, "missing", marks=pytest.mark.slow),
    ],
)
def test_a_bad_checkpoint_costs_only_itself(
    folder, images, tmp_path, quick, measured, content, words
):
    good, bad, out = folder / "epoch_2.pth", tmp_path / "good.pth", tmp_path / "out"
    shutil.copy(good, bad)
    good.write_bytes(content) if isinstance(content, bytes) else torch.save(content, good)
    with pytest.raises(natstats.NatstatsError) as caught:
        measure_series(network(), folder, images, out=out)
    assert re.match(rf"checkpoint: .*1 of them .*epoch_2: .*({words})", str(caught.value), re.S)
    assert "3 finished runs are kept in" in str(caught.value)
    assert {path.name for path in out.iterdir()} == {"epoch_0", "epoch_1", "epoch_10"}
    with pytest.raises(natstats.NatstatsError, match="^checkpoint: "):
        measure_series(network(), folder, images)
    shutil.copy(bad, good)
    seen = measured[1]
    seen.clear()
    assert len(measure_series(network(), folder, images, out=out).frame) == 4
    assert seen == ["epoch_2.pth"]


def test_what_is_wrong_with_all_stops_at_once(folder, images, tmp_path, quick, measured):
    with pytest.raises(natstats.UsageError, match="^layers: "):
        measure_series(network(), folder, images, out=tmp_path / "out", layers="nothing")
    assert measured[1] == ["epoch_0.pth"]
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def two(images, tmp_path_factory):
    """Two checkpoints and a series of them."""
    home = tmp_path_factory.mktemp("two")
    for epoch in (1, 2):
        torch.save(between(epoch / 2), home / f"e{epoch}.pth")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("run.write_report", "series.write_series_report"):
            patch.setattr(f"natstats.report.pages.{name}", lambda *_: None)
        measure_series(network(), home / "e*.pth", images, out=home / "out")
    return home


@pytest.fixture
def small(two, tmp_path, images, quick):
    """Two checkpoints, measured; a function that measures them again."""
    shutil.copytree(two, tmp_path, dirs_exist_ok=True)

    def again(pictures=images, model=None, **options):
        chosen = {"out": tmp_path / "out", **options}
        return measure_series(model or network(), tmp_path / "e*.pth", pictures, **chosen)

    return again


@pytest.mark.slow
def test_nothing_is_measured_twice(small, measured):
    small(batch_size=5, workers=0)
    assert measured[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edges": "hann"}, "edges 'sine' in place of 'hann'"),
        ({"limit": 9}, "limit None in place of 9"),
        ({"seed": 1}, "seed 0 in place of 1"),
        ({"fit": natstats.FitOptions(estimator="ols")}, "estimator 'octave' in place of 'ols'"),
        ({"model": nn.Sequential(*network(), nn.ReLU())}, "model .* in place of"),
    ],
)
def test_runs_made_in_another_way_are_refused_or_replaced(small, tmp_path, measured, change, words):
    before = (tmp_path / "out" / "e1" / "run.json").read_bytes()
    with pytest.raises(natstats.UsageError, match=f"^out: .*e1 was made with {words}.*is kept"):
        small(**change)
    assert (tmp_path / "out" / "e1" / "run.json").read_bytes() == before
    assert measured[1] == []
    small(**change, overwrite=True)
    assert measured[1] == ["e1.pth", "e2.pth"]
    small(**change)
    assert len(measured[1]) == 2


@pytest.mark.slow
def test_the_same_in_another_spelling_is_the_same(small, measured):
    small(layers=[" weight "], layouts={}, control_seeds=5)
    assert measured[1] == []


def request_of(images, options=None):
    return SeriesRequest(
        network(), images, LoadOptions(), options or MeasureOptions(), FitOptions(), None, None
    )


def test_pixels_and_power_that_are_normalised_are_told_apart(series, images):
    """Both options are called `normalize`; a run was once taken for one with the other pixels."""
    run, request = Run.open(series / "epoch_0"), request_of(images)
    digest = run.info["series"]["digest"]
    assert request.difference(run, digest) is None
    run.info["series"]["asked"]["normalize"] = False
    assert request.difference(run, digest) == "made with normalize False in place of True"


def test_clips_of_the_same_length_are_looked_for(series, images, monkeypatch):
    run, asked = Run.open(series / "epoch_0"), []
    run.info["series"]["asked"]["frames"] = 4

    def opened(source, framing, limit, seed, frames):
        asked.append(frames)
        return open_images(source, framing, limit, seed)

    monkeypatch.setattr("natstats.measurement.series_request.open_images", opened)
    request = request_of(images, MeasureOptions(frames=4))
    assert request.difference(run, run.info["series"]["digest"]) is None
    assert asked == [4]


def test_other_images_are_not_taken_for_the_same(small, images):
    with pytest.raises(natstats.UsageError, match="^out: .*other images"):
        small(images[::-1].copy())


@pytest.mark.slow
def test_changed_photographs_are_not_taken_for_the_same(tmp_path, quick, measured):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    for place, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{place}.png")
    for epoch in (1, 2):
        torch.save(between(epoch / 2), tmp_path / f"e{epoch}.pth")
    given = (network(), tmp_path / "e*.pth", folder)
    options = {"size": 32, "out": tmp_path / "out"}
    measure_series(*given, **options)
    measure_series(*given, **options)
    assert len(measured[1]) == 2
    Image.new("RGB", (40, 40)).save(folder / "0.png")
    with pytest.raises(natstats.UsageError, match="other images"):
        measure_series(*given, **options)


@pytest.mark.slow
def test_another_version_or_checkpoint_is_not_the_same(small, tmp_path, monkeypatch, measured):
    torch.save(between(0.7), tmp_path / "e2.pth")
    with pytest.raises(natstats.UsageError, match="e2 was made from another checkpoint file"):
        small()
    small(overwrite=True)
    assert measured[1] == ["e2.pth"]
    monkeypatch.setattr("natstats.measurement.series_request.__version__", "99")
    with pytest.raises(natstats.UsageError, match="natstats .* in place of '99'"):
        small()


@pytest.mark.slow
def test_a_damaged_run_is_replaced_only_when_asked(small, tmp_path, measured):
    (tmp_path / "out" / "e1" / "spectra.npz").write_bytes(b"")
    with pytest.raises(natstats.UsageError, match="e1 was not a whole run"):
        small()
    small(overwrite=True)
    assert measured[1] == ["e1.pth"]


@pytest.mark.slow
def test_a_series_grows_and_does_not_shrink_unasked(small, tmp_path, measured):
    torch.save(between(0.3), tmp_path / "e3.pth")
    assert list(small().frame.step) == [1, 2, 3]
    assert measured[1] == ["e3.pth"]
    (tmp_path / "e3.pth").unlink()
    with pytest.raises(natstats.UsageError, match="^out: .*also has e3 and is kept"):
        small()
    assert list(small(overwrite=True).frame.step) == [1, 2]
    assert (tmp_path / "out" / "e3" / "run.json").is_file()


@pytest.mark.slow
def test_notes_beside_a_series_stay(small, tmp_path):
    (tmp_path / "out" / "notes.txt").write_text("mine")
    torch.save(between(0.3), tmp_path / "e3.pth")
    small()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_series_is_never_touched(small, tmp_path, images, overwrite, measured):
    plain = tmp_path / "plain"
    natstats.measure(network(), images).save(plain / "run", report=False)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("years of work")
    for target in (plain, plain / "run", thesis, thesis / "chapter1.tex"):
        with pytest.raises(natstats.UsageError, match="^out: .*is kept|^out: expected a place"):
            small(out=target, overwrite=overwrite)
    assert measured[1] == []
    assert {p.name for p in thesis.iterdir()} == {"chapter1.tex"}
    assert {p.name for p in plain.iterdir()} == {"run"}


@pytest.mark.slow
def test_a_run_never_overwrites_a_series_nor_the_other_way(small, tmp_path, images):
    run = natstats.measure(network(), images)
    for home in (tmp_path / "out", tmp_path / "out2"):
        if home.name == "out2":
            shutil.copytree(tmp_path / "out", home)
            (home / "series.json").unlink()
        with pytest.raises(natstats.UsageError, match="expected a run to overwrite"):
            run.save(home, overwrite=True, report=False)
    found = Series.open(tmp_path / "out")
    with pytest.raises(natstats.UsageError, match="exists and is kept"):
        found.save(tmp_path / "out2")
    found.save(tmp_path / "out2", overwrite=True)
    assert Series.open(tmp_path / "out2").frame.equals(found.frame)


@pytest.mark.slow
def test_what_a_killed_run_left_does_not_stand_in_the_way(small, tmp_path, measured):
    home = tmp_path / "killed"
    (home / ".e1.abc").mkdir(parents=True)
    assert len(small(out=home).frame) == 2
    assert (home / ".e1.abc").is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_tables_are_written_whole_or_not_at_all(small, tmp_path, monkeypatch, error):
    out = tmp_path / "out"
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    torch.save(between(0.3), tmp_path / "e3.pth")

    def fail(*_):
        raise error

    monkeypatch.setattr("natstats.report.pages.series.write_series_report", fail)
    with pytest.raises(error):
        small()
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"e1", "e2", "e3"}


def test_the_file_that_stands_for_the_whole_comes_last(tmp_path, monkeypatch):
    for name in ("a.csv", "series.json"):
        (tmp_path / name).write_text("old")
    real, moved = Path.replace, []

    def replace(self, target):
        moved.append((self.name, (tmp_path / "series.json").exists()))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with store.add_files(tmp_path, "series.json") as folder:
        for name in ("series.json", "z.csv", "a.csv"):
            (folder / name).write_text("new")
    assert [name for name, _ in moved] == ["a.csv", "z.csv", "series.json"]
    assert not any(there for _, there in moved)
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", "z.csv", "series.json"}


@pytest.mark.parametrize(
    ("record", "words"),
    [("{", "a whole series"), ("[]", "a whole series"), ('{"format": 99}', "a newer natstats"),
     ('{"format": 1, "runs": [{}]}', "a whole series")],
)  # fmt: skip
def test_a_damaged_series_says_why_it_does_not_open(small, tmp_path, record, words):
    (tmp_path / "out" / "series.json").write_text(record)
    with pytest.raises(natstats.NatstatsError, match=f"^series: .*{words}"):
        Series.open(tmp_path / "out")


def test_wrong_arguments_are_one_sentence(folder, images, tmp_path):
    with pytest.raises(natstats.UsageError, match="^checkpoints: expected two or more.*got 1"):
        measure_series(network(), folder / "epoch_1.pth", images)
    with pytest.raises(natstats.UsageError, match="^option: .*'edge'.*edges"):
        measure_series(network(), folder, images, edge="sine")
    with pytest.raises(natstats.NatstatsError, match="^checkpoint: expected a readable file"):
        measure_series(network(), [folder / "epoch_1.pth", folder / "none.pth"], images)
    with pytest.raises(natstats.UsageError, match="^series: expected a series; .*no series.json"):
        Series.open(tmp_path)
    with pytest.raises(natstats.UsageError, match="^runs: expected two runs or more"):
        Series.of([], [])


@pytest.mark.slow
def test_progress_counts_the_images_of_all_runs_to_come(folder, images, tmp_path, quick, measured):
    measured[0].stop = "epoch_1.pth"
    with pytest.raises(KeyboardInterrupt):
        measure_series(network(), folder, images, out=tmp_path / "out")
    measured[0].stop = None
    calls = []
    measure_series(
        network(), folder, images, out=tmp_path / "out", progress=lambda *now: calls.append(now)
    )
    assert calls[-1] == (3 * len(images), 3 * len(images))
    assert calls == sorted(calls)


# Figures and page


def test_exponents_are_a_line_a_layer_in_the_colour_of_depth(series):
    found = Series.open(series)
    lines = plot_exponents(found.report()).lines
    assert len(lines) == N_LAYERS + 1
    inner = found.exponents[found.exponents.kind != "input"]
    for line, (_, own) in zip(lines, inner.groupby("layer", sort=False), strict=False):
        assert list(line.get_xdata()) == [0, 1, 8]
        assert list(line.get_ydata()) == own.exponent.tolist()
    # The map of colours becomes lighter with depth, so that it can be read in print.
    colours = np.array([line.get_color()[:3] for line in lines[:-1]])
    assert (np.diff(colours @ [0.2126, 0.7152, 0.0722]) > 0).all()
    assert lines[-1].get_linestyle() == "--"
    assert set(lines[-1].get_ydata()) == {found.exponents.exponent.iloc[0]}


def test_slopes_are_drawn_with_verdicts_and_the_zero_line(series):
    found = Series.open(series)
    assert tuple(VERDICT_MARKS) == VERDICTS
    ax = plot_slopes(found.report())
    marked = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    assert sum(len(line.get_xdata()) for line in marked) == len(found.frame)
    assert any(set(line.get_ydata()) == {0.0} for line in ax.lines)
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {*found.frame.verdict, "95 % interval"}
    assert ax.get_xlabel() == "epoch (logarithmic axis)"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([0, 1, 2, 4, 8, 16, 32], True), ([1, 10, 100, 1000], True), (range(60), False),
     ([0, 10, 20], False), ([0, 5], False), ([100, 200, 300], False)],
)  # fmt: skip
def test_the_axis_of_steps_is_the_one_that_spreads_them(steps, expected):
    assert is_logarithmic(np.array(steps, dtype=float)) is expected


def test_both_figures_share_the_steps_when_drawn_together(series):
    upper, lower = Series.open(series).plot()
    assert upper.get_xlim() == lower.get_xlim()
    assert (upper.get_xlabel(), lower.get_xlabel() != "") == ("", True)


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.misnested, self.links, self.loads, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input", "br", "img", "source", "wbr"):
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:")):
                (self.links if tag == "a" else self.loads).append(value)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)


def test_the_page_is_whole_and_leads_to_every_run(series):
    text = (series / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == page.misnested == page.loads == []
    assert len(page.ids) == len(set(page.ids))
    pages = [f"epoch_{epoch}/report.html" for epoch in (0, 1, 8)]
    assert page.links[:3] == pages
    assert page.links[-1] == DOCS
    # Exponents lead to their layers.
    assert {link.partition("#layer=")[0] for link in page.links[3:-1]} <= {*pages}
    assert all("#layer=" in link for link in page.links[3:-1])
    assert len(page.links) > 4
    assert all((series / link).is_file() for link in pages)
    assert text.count("<img") == 2
    for verdict in Series.open(series).frame.verdict:
        assert f">{verdict}</td>" in text


def test_names_cannot_write_into_the_page(series, tmp_path):
    found = Series.open(series)
    evil = "<script>alert('x')</script>"
    found.frame["checkpoint"] = [evil, "b c#1", "c"]
    found.info["name"] = evil
    text = write_series_report(tmp_path, found.report()).read_text(encoding="utf-8")
    assert evil not in text
    assert Page(text).links[1] == "b%20c%231/report.html"
    assert Page(text).misnested == []


# The command line


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
    assert "Error: checkpoint: expected a pattern that some file matches" in error
    Path("epoch_2.pth").write_bytes(b"")
    error = call(*MEASURE, "epoch_2.pth", "--checkpoint", "epoch_9.pth", code=1).stderr
    assert "epoch_9.pth" in error
    assert not Path("runs").exists()
