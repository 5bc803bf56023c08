"""The laws of many networks: what runs make a sample, and what comes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import natstats
from natstats import Run, UsageError, meta_analysis
from natstats.files.csv_files import read_csv
from natstats.law.meta_analysis import pool
from natstats.runs.network_groups import family_of
from natstats.runs.run_folders import find_runs, short_names


@pytest.fixture(scope="module")
def runs(made_networks):
    """Six networks of three families, of three depths."""
    models = ("resnet20", "resnet56", "vgg16_bn", "vgg11", "cifar_wrn_16_2", "resnet110")
    return {
        f"net{k}": made_networks.run(k, 0.04 + 0.005 * k, (8, 10, 14)[k % 3], model)
        for k, model in enumerate(models)
    }


@pytest.fixture(scope="module")
def found(runs):
    return meta_analysis(runs, by="family")


@pytest.fixture(scope="module")
def folder(made_networks, tmp_path_factory):
    """Three runs on disk."""
    home = tmp_path_factory.mktemp("sample")
    for k in range(3):
        made_networks.save(home / f"net{k}", seed=k, model=("resnet20", "vgg16", "vgg11")[k])
    return home


@pytest.fixture
def sample(folder, tmp_path):
    return Path(shutil.copytree(folder, tmp_path / "sample"))


@pytest.mark.slow
def test_slopes_are_those_of_the_laws(runs, found):
    rows = found.networks.set_index("network")
    for name, run in runs.items():
        row, law = rows.loc[name], run.law
        assert row.slope == pytest.approx(law.slope)
        assert (row.slope_low, row.slope_high) == pytest.approx((law.slope_low, law.slope_high))
        assert row.slope_error == pytest.approx(np.sqrt(law.covariance[1][1]))
        assert row.deepest == run.layers.depth.max()
        assert row.slope_whole == pytest.approx(law.slope * row.deepest)
        assert (row.verdict, row.n_layers) == (law.verdict, law.n_layers)
    assert rows.weight.sum() == pytest.approx(1)
    assert rows.weight_whole.sum() == pytest.approx(1)


def test_the_mean_is_the_pooled_slope(found):
    rows = found.networks
    again = pool(rows.slope, rows.slope_error, rows.dof)
    assert found.mean.mean.value == pytest.approx(again.mean.value)
    assert found.verdict == "rises"
    assert found.mean.mean.low < 0.05 < found.mean.mean.high + 0.02


@pytest.mark.slow
def test_relative_depth_has_the_same_two_slopes(runs, found):
    other = meta_analysis(runs, by="family", depth="normalized")
    assert (found.unit, other.unit) == ("depth", "whole")
    for unit in ("depth", "whole"):
        first, second = found.pooled[unit].mean, other.pooled[unit].mean
        assert second.value == pytest.approx(first.value)
        assert (second.low, second.high) == pytest.approx((first.low, first.high))
    assert "over the whole depth (95" in other.sentence()
    assert "per weight layer (95" in found.sentence()


@pytest.mark.slow
@pytest.mark.parametrize("depth", ["order", "receptive-field"])
def test_other_measures_of_depth(runs, depth):
    found = meta_analysis(runs, depth=depth)
    assert found.verdict == "rises"
    assert found.per("depth") in found.sentence()


@pytest.mark.slow
def test_options_of_the_fit_are_given_to_all(runs):
    found = meta_analysis(runs, band=(0.1, 0.5), estimator="whittle", level=0.8)
    law = runs["net0"].refit(band=(0.1, 0.5), estimator="whittle", level=0.8).law
    assert found.networks.slope[0] == pytest.approx(law.slope)
    assert "80 % interval" in found.sentence()
    assert found.options.band == (0.1, 0.5)
    with pytest.raises(UsageError, match="option: expected one of band"):
        meta_analysis(runs, bands=(0.1, 0.5))


def test_subgroups(found):
    groups = found.subgroups[found.subgroups.unit == "depth"]
    assert list(groups.subgroup) == ["all networks", "resnet", "vgg", "cifar_wrn"]
    assert list(groups.n) == [6, 3, 2, 1]
    assert np.isfinite(found.contrast["depth"].p)
    alone = groups.iloc[3]
    assert np.isfinite(alone["mean"])
    assert np.isnan(alone.low)
    assert "One network makes no interval of a mean: cifar_wrn." in found.notes
    # Networks of a group stand beside each other.
    assert list(found.networks.subgroup) == ["resnet"] * 3 + ["vgg"] * 2 + ["cifar_wrn"]


@pytest.mark.slow
def test_subgroups_of_ones_own(runs):
    by_pattern = meta_analysis(runs, by={"deep": ["*110", "*56"], "all else": "*"})
    by_label = meta_analysis(runs, by=["deep" if k in (1, 5) else "all else" for k in range(6)])
    for found in (by_pattern, by_label):
        assert set(found.networks.network[found.networks.subgroup == "deep"]) == {"net1", "net5"}
    assert by_pattern.contrast["depth"].p == pytest.approx(by_label.contrast["depth"].p)
    rest = meta_analysis(runs, by={"deep": ["*110", "*56"]})
    assert set(rest.networks.subgroup) == {"deep", "other"}


@pytest.mark.parametrize(
    ("by", "words"),
    [
        ("famly", "by: expected one of family, .*did you mean family"),
        ({}, "by: expected a group or more; got none"),
        ({"a": "*alexnet*"}, "no network is left for a=\\*alexnet"),
        ({"a": "*", "b": "net*"}, "no network is left for b=net"),
        (["x", "y"], "by: expected a label for each of 6 networks; got 2"),
    ],
)
def test_bad_subgroups(runs, by, words):
    with pytest.raises(UsageError, match=words):
        meta_analysis(runs, by=by)


@pytest.mark.slow
def test_labels_are_in_the_order_of_runs_and_paths(runs, folder, tmp_path):
    mixed = [folder / "net1", runs["net3"], folder / "net0", runs["net4"]]
    found = meta_analysis(mixed, by=["a", "b", "a", "b"])
    of_run = found.networks.set_index("path").subgroup
    is_path = np.array([Path(path).is_dir() for path in of_run.index])
    assert set(of_run[is_path]) == {"a"}
    assert set(of_run[~is_path]) == {"b"}
    # Runs that were in no folder cannot be named in a call.
    page = (found.save(tmp_path / "law") / "report.html").read_text()
    assert "natstats.meta_analysis(\n    runs,\n" in page
    assert "<code>runs</code> stands for the runs that were passed" in page


@pytest.mark.slow
def test_labels_stay_with_their_runs_when_one_is_left_out(runs, made_networks):
    with_short = {"short": made_networks.run(50, n_layers=3), **runs}
    found = meta_analysis(with_short, by=["x", "a", "a", "a", "b", "b", "b"])
    assert dict(zip(found.networks.network, found.networks.subgroup, strict=True)) == {
        f"net{k}": "a" if k < 3 else "b" for k in range(6)
    }


@pytest.mark.slow
def test_trained_against_random(made_networks):
    runs = {
        f"net{k}": made_networks.run(k, 0.05, 10 + k, n_seeds=3, random_slope=0.02)
        for k in range(4)
    }
    found = meta_analysis(runs)
    rows = found.subgroups[found.subgroups.unit == "depth"].set_index("subgroup")
    names = ["control: trained", "control: random weights", "control: trained − random"]
    assert list(rows.index) == ["all networks", *names]
    trained, random, difference = (rows.loc[name, "mean"] for name in names)
    assert difference == pytest.approx(trained - random, abs=0.003)
    assert rows.loc[names[2], "low"] < 0.03 < rows.loc[names[2], "high"]
    assert "trained minus random weights +0.0" in found.sentence()
    for place, run in enumerate(runs.values()):
        assert found.networks.difference[place] == pytest.approx(run.control.slope.value)
        assert found.networks.n_seeds[place] == 3


@pytest.mark.slow
def test_one_control_is_no_sample(made_networks, runs):
    found = meta_analysis({**runs, "x": made_networks.run(60, n_seeds=2)})
    assert not found.trained
    assert "1 network has a control with random weights to compare with." in found.notes


@pytest.mark.slow
def test_verdicts(made_networks):
    def verdict(slopes):
        return meta_analysis([made_networks.run(k, s) for k, s in enumerate(slopes)]).verdict

    assert verdict([0.05, 0.06, 0.055, 0.05]) == "rises"
    assert verdict([-0.05, -0.06, -0.055, -0.05]) == "falls"
    assert verdict([0.004, -0.004, 0.002, -0.002]) == "no trend"
    assert verdict([0.05, -0.06, 0.02, -0.03]) == "too little to tell"
    assert verdict([0.05, 0.05]) == "too little to tell"


def test_the_words_are_three_sentences(found, runs):
    assert len(found.sentences()) == 3
    assert all(one.endswith(".") and ". " not in one for one in found.sentences())
    two = meta_analysis(dict(list(runs.items())[:2]))
    assert "takes three networks" in two.sentence()


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("resnet20", "resnet"),
        ("cifar_resnet20", "cifar_resnet"),
        ("wide_resnet50_2", "wide_resnet"),
        ("mobilenet_v3_small", "mobilenet"),
        ("efficientnet_b0", "efficientnet"),
        ("efficientnet_lite0", "efficientnet_lite"),
        ("vgg16_bn", "vgg"),
        ("squeezenet1_1", "squeezenet"),
        ("convnext_tiny", "convnext"),
        ("swin_t", "swin"),
        ("regnet_y_400mf", "regnet"),
        ("timm:resnet50.a1_in1k", "resnet"),
        ("my_nets:make", "make"),
        ("/a/b/DnCNN", "dncnn"),
        ("alexnet", "alexnet"),
        ("3d", "3d"),
        ("", ""),
    ],
)
def test_families(model, family):
    assert family_of(model) == family


def refused(runs, words, **fit):
    with pytest.raises(UsageError) as caught:
        meta_analysis(runs, **fit)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_makes_no_sample(made_networks, runs):
    make, first = made_networks.run, runs["net0"]
    refused([], ["expected two networks or more", "got none"])
    refused({"only": first}, ["expected two networks or more", "got 1 (only)"])
    refused({"a": first, "b": make(0)}, ["each network once", "in a and b are the same"])
    refused([first, 3], ["expected runs or their paths; got int"])
    refused({"a": first, "b": "path"}, ["expected runs or their paths; got str"])
    images = make(9, model="photos")
    images.info["model"] = None
    refused({"a": first, "i": images}, ["runs of networks; i is of images alone"])
    short = {k: make(20 + k, n_layers=3) for k in range(2)}
    refused(short, ["layers enough for a law; got 0 of 2", "0, 1"])
    refused({"a": first, "b": make(9, n_layers=3)}, ["got 1 of 2 (too few layers: b)"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("band", (0.1, 0.5), "--band"),
        ("estimator", "ols", "--estimator"),
        ("depth", "order", "--depth"),
        ("normalize", True, "--equal-power"),
        ("level", 0.9, "--level"),
        ("min_rings", 3, "--min-rings"),
    ],
)
def test_runs_that_were_fitted_in_other_ways(made_networks, runs, name, value, option):
    mixed = {"a": runs["net0"], "b": made_networks.run(9, fit={name: value})}
    refused(mixed, [f"{name}: expected the same", "in a and", "in b (", f"give {option} to fit"])
    assert meta_analysis(mixed, **{name: value}).mean.n == 2


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("layers", {"layers": "conv", "edges": "sine"}),
        ("layers", {"layers": ["weight", "act"], "edges": "sine"}),
        ("temporal", {"layers": "weight", "temporal": True}),
    ],
)
def test_runs_that_were_measured_in_other_ways(made_networks, runs, name, asked):
    other = made_networks.run(9, options=asked)
    refused({"a": runs["net0"], "b": other}, [f"{name}: expected the same", "measure one of them"])


def test_one_selection_may_be_written_in_many_ways(made_networks):
    spelled = ["conv,linear", ["linear", "conv"], ("conv", "linear"), None]
    made = [made_networks.run(k, options={"layers": one}) for k, one in enumerate(spelled)]
    assert meta_analysis(made).mean.n == 4


def test_edges_are_compared(made_networks, runs):
    other = made_networks.run(9)
    for measured in other.spectra:
        object.__setattr__(measured.spectrum, "edges", "hann")
    refused({"a": runs["net0"], "b": other}, ["edges: expected the same", "sine in a and hann"])


@pytest.mark.slow
def test_what_is_told_and_not_refused(made_networks, runs):
    other = made_networks.run(9, images={"source": "more", "contents": "others"}, trained=False)
    found = meta_analysis({**runs, "x": other, "short": made_networks.run(10, n_layers=3)})
    told = " ".join(found.notes)
    assert "Too few layers for a law, and left out: short." in told
    assert "different images" in told
    assert "Trained networks and networks with random weights are in one mean" in told
    assert "in one mean" not in " ".join(meta_analysis({**runs, "x": other}, by="trained").notes)
    assert not meta_analysis(runs).notes


def test_runs_of_one_name_are_told_apart(made_networks):
    found = meta_analysis([made_networks.run(k) for k in range(3)])
    assert list(found.networks.network) == ["resnet20", "resnet20 (2)", "resnet20 (3)"]


@pytest.mark.slow
def test_paths_and_runs_give_the_same(sample):
    paths = sorted(sample.iterdir())
    whole = meta_analysis(sample)
    for given in (paths, [str(one) for one in paths], [Run.open(one) for one in paths]):
        again = meta_analysis(given)
        assert again.networks.slope.tolist() == whole.networks.slope.tolist()
    assert list(whole.networks.network) == ["net0", "net1", "net2"]


def test_folders_are_searched_and_runs_counted_once(sample, made_networks):
    made_networks.save(sample / "deeper/net3", seed=3, n_seeds=2)
    made_networks.save(sample / ".hidden/net4", seed=4)
    runs, notes = find_runs([sample, sample])
    assert [one.path.name for one in runs] == ["net3", "net0", "net1", "net2"]
    assert not notes
    assert len(find_runs([sample / "net0", sample])[0]) == 4
    # A run that is named twice is one network twice.
    refused([sample / "net0", sample / "net0"], ["the weights in", "are the same"])


def test_images_in_a_folder_are_passed_over(sample, made_networks):
    shutil.copytree(sample / "net0", sample / "photos")
    record = json.loads((sample / "photos/run.json").read_text())
    record["model"] = None
    (sample / "photos/run.json").write_text(json.dumps(record))
    found = meta_analysis(sample)
    assert found.mean.n == 3
    assert "photos is of images alone and left out" in found.notes[0]
    refused([sample, sample / "photos"], ["photos is of images alone"])


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("nowhere", "nowhere is not there"),
        ("file", "file is a file"),
        ("empty", "holds no run.json"),
    ],
)
def test_paths_without_runs(tmp_path, place, words):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=words):
        find_runs([tmp_path / place])


def test_a_damaged_run_is_named(sample):
    (sample / "net1/spectra.npz").write_bytes(b"")
    with pytest.raises(natstats.NatstatsError, match="net1"):
        meta_analysis(sample)


@pytest.mark.slow
def test_of_a_series_the_last_checkpoint_counts(sample, made_networks, tmp_path, quick):
    from natstats.networks.checkpoint_files import CheckpointFile
    from natstats.runs.series import Series

    runs = [made_networks.run(80 + k, 0.01 * k) for k in range(3)]
    files = [CheckpointFile(f"epoch_{k}", k, Path(f"epoch_{k}.pth")) for k in range(3)]
    for run, file in zip(runs, files, strict=True):
        run.info["series"] = {"checkpoint": file.name, "digest": "0", "file": "x"}
    Series.of(runs, files).save(sample / "training")
    found = meta_analysis(sample)
    assert "training/epoch_2" in list(found.networks.network)
    assert "the last checkpoint counts, epoch_2" in found.notes[0]
    assert meta_analysis([sample / "training", sample / "net0"]).mean.n == 2
    (sample / "training/series.json").unlink()
    for table in sample.glob("training/*.*"):
        table.unlink()
    assert "is not finished and left out" in meta_analysis(sample).notes[0]


def test_short_names():
    paths = [Path("/r/a/x"), Path("/r/b/x"), Path("/s/b/x"), Path("/r/y")]
    assert short_names(paths, [1, 1, 1, 2]) == ["a/x", "r/b/x", "s/b/x", "r/y"]
    assert short_names([Path("/x"), Path("/x")], [1, 1]) == ["//x", "//x"]


def test_it_is_written_whole(found, tmp_path):
    path = found.save(tmp_path / "law")
    names = {str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()}
    assert names == {
        "meta_analysis.json", "networks.csv", "subgroups.csv", "report.html",
        "figures/forest.svg", "figures/forest.png",
    }  # fmt: skip
    record = json.loads((path / "meta_analysis.json").read_text())
    assert (record["kind"], record["format"], record["verdict"]) == ("law", 1, "rises")
    assert record["pooled"]["depth"]["mean"]["value"] == found.mean.mean.value
    assert sorted(record["files"]) == sorted(names)
    rows = read_csv(path / "networks.csv")
    assert [float(text) for text in rows.slope] == found.networks.slope.tolist()
    assert len(read_csv(path / "subgroups.csv")) == len(found.subgroups)
    with pytest.raises(UsageError, match="exists and is kept"):
        found.save(path)
    (path / "mine.txt").touch()
    with pytest.raises(UsageError, match="mine.txt"):
        found.save(path, overwrite=True)
    (path / "mine.txt").unlink()
    found.save(path, overwrite=True)


def test_a_failure_leaves_nothing(found, tmp_path, monkeypatch):
    def defect(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr("natstats.report.pages.networks.write_networks_report", defect)
    with pytest.raises((OSError, natstats.NatstatsError)):
        found.save(tmp_path / "law")
    assert not list(tmp_path.iterdir())


def test_a_run_is_never_overwritten_by_a_law(found, sample):
    with pytest.raises(UsageError):
        found.save(sample / "net0", overwrite=True)
    assert (sample / "net0/run.json").is_file()


def test_fits_are_brief_and_the_same(made_networks):
    from natstats.fits.exponents import fit_layers

    run = made_networks.run(5)
    brief = fit_layers(run.spectra, run.options, is_brief=True)
    np.testing.assert_array_equal(brief.exponents, run.fits.exponents)
    np.testing.assert_array_equal(brief.deviations, run.fits.deviations)
    assert [fit.flags for fit in brief.layers] == [fit.flags for fit in run.fits.layers]
    assert np.isnan(brief.layers[1].curvature)


def test_the_law_needs_no_forms(made_networks, monkeypatch):
    def forms(*_):
        raise AssertionError("forms take most of the time, and the law has no use for them")

    monkeypatch.setattr("natstats.runs.run.forms_frame", forms)
    assert isinstance(
        meta_analysis([made_networks.run(k) for k in range(2)]).networks, pd.DataFrame
    )
    assert made_networks.run(3).law.n_layers == 10
