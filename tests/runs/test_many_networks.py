"""The laws of many networks together: means, subgroups, verdicts, words and files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

import natstats
from natstats import UsageError, meta_analysis
from natstats.files.csv_files import read_csv
from natstats.law.meta_analysis import pool
from natstats.runs.network_groups import family_of


@pytest.mark.slow
def test_slopes_are_those_of_the_laws(six_networks, law_of_six):
    rows = law_of_six.networks.set_index("network")
    for name, run in six_networks.items():
        row, law = rows.loc[name], run.verdict.law
        assert row.slope == pytest.approx(law.slope)
        assert (row.slope_low, row.slope_high) == pytest.approx((law.slope_low, law.slope_high))
        assert row.slope_error == pytest.approx(np.sqrt(law.covariance[1][1]))
        assert row.deepest == run.layers.depth.max()
        assert row.slope_whole == pytest.approx(law.slope * row.deepest)
        assert (row.verdict, row.n_layers) == (law.verdict, law.n_layers)
    assert rows.weight.sum() == pytest.approx(1)
    assert rows.weight_whole.sum() == pytest.approx(1)


def test_the_mean_is_the_pooled_slope(law_of_six):
    rows = law_of_six.networks
    again = pool(rows.slope, rows.slope_error, rows.dof)
    assert law_of_six.mean.mean.value == pytest.approx(again.mean.value)
    assert law_of_six.verdict == "rises"
    assert law_of_six.mean.mean.low < 0.05 < law_of_six.mean.mean.high + 0.02


@pytest.mark.slow
def test_relative_depth_has_the_same_two_slopes(six_networks, law_of_six):
    other = meta_analysis(six_networks, by="family", depth="normalized")
    assert (law_of_six.unit, other.unit) == ("depth", "whole")
    for unit in ("depth", "whole"):
        first, second = law_of_six.pooled[unit].mean, other.pooled[unit].mean
        assert second.value == pytest.approx(first.value)
        assert (second.low, second.high) == pytest.approx((first.low, first.high))
    assert "over the whole depth (95" in other.sentence()
    assert "per weight layer (95" in law_of_six.sentence()


@pytest.mark.slow
@pytest.mark.parametrize("depth", ["order", "receptive-field"])
def test_other_measures_of_depth(six_networks, depth):
    found = meta_analysis(six_networks, depth=depth)
    assert found.verdict == "rises"
    assert found.per("depth") in found.sentence()


@pytest.mark.slow
def test_options_of_the_fit_are_given_to_all(six_networks):
    found = meta_analysis(six_networks, band=(0.1, 0.5), estimator="whittle", level=0.8)
    law = six_networks["net0"].refit(band=(0.1, 0.5), estimator="whittle", level=0.8).law
    assert found.networks.slope[0] == pytest.approx(law.slope)
    assert "80 % interval" in found.sentence()
    assert found.options.band == (0.1, 0.5)
    with pytest.raises(UsageError, match="option: expected one of band"):
        meta_analysis(six_networks, bands=(0.1, 0.5))


def test_subgroups(law_of_six):
    groups = law_of_six.subgroups[law_of_six.subgroups.unit == "depth"]
    assert list(groups.subgroup) == ["all networks", "resnet", "vgg", "cifar_wrn"]
    assert list(groups.n) == [6, 3, 2, 1]
    assert np.isfinite(law_of_six.contrast["depth"].p)
    alone = groups.iloc[3]
    assert np.isfinite(alone["mean"])
    assert np.isnan(alone.low)
    assert "One network makes no interval of a mean: cifar_wrn." in law_of_six.notes
    # Networks of a group stand beside each other.
    assert list(law_of_six.networks.subgroup) == ["resnet"] * 3 + ["vgg"] * 2 + ["cifar_wrn"]


@pytest.mark.slow
def test_subgroups_of_ones_own(six_networks):
    by_pattern = meta_analysis(six_networks, by={"deep": ["*110", "*56"], "all else": "*"})
    by_label = meta_analysis(
        six_networks, by=["deep" if k in (1, 5) else "all else" for k in range(6)]
    )
    for found in (by_pattern, by_label):
        assert set(found.networks.network[found.networks.subgroup == "deep"]) == {"net1", "net5"}
    assert by_pattern.contrast["depth"].p == pytest.approx(by_label.contrast["depth"].p)
    rest = meta_analysis(six_networks, by={"deep": ["*110", "*56"]})
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
def test_bad_subgroups(six_networks, by, words):
    with pytest.raises(UsageError, match=words):
        meta_analysis(six_networks, by=by)


@pytest.mark.slow
def test_labels_stay_with_their_runs_when_one_is_left_out(six_networks, made_networks):
    with_short = {"short": made_networks.run(50, n_layers=3), **six_networks}
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
def test_one_control_is_no_sample(made_networks, six_networks):
    found = meta_analysis({**six_networks, "x": made_networks.run(60, n_seeds=2)})
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


def test_the_words_are_three_sentences(law_of_six, six_networks):
    assert len(law_of_six.sentences()) == 3
    assert all(one.endswith(".") and ". " not in one for one in law_of_six.sentences())
    two = meta_analysis(dict(list(six_networks.items())[:2]))
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


def test_it_is_written_whole(law_of_six, tmp_path):
    path = law_of_six.save(tmp_path / "law")
    names = {str(one.relative_to(path)) for one in path.rglob("*") if one.is_file()}
    assert names == {
        "meta_analysis.json", "networks.csv", "subgroups.csv", "report.html",
        "figures/forest.svg", "figures/forest.png",
    }  # fmt: skip
    record = json.loads((path / "meta_analysis.json").read_text())
    assert (record["kind"], record["format"], record["verdict"]) == ("law", 1, "rises")
    assert record["pooled"]["depth"]["mean"]["value"] == law_of_six.mean.mean.value
    assert sorted(record["files"]) == sorted(names)
    rows = read_csv(path / "networks.csv")
    assert [float(text) for text in rows.slope] == law_of_six.networks.slope.tolist()
    assert len(read_csv(path / "subgroups.csv")) == len(law_of_six.subgroups)
    with pytest.raises(UsageError, match="exists and is kept"):
        law_of_six.save(path)
    (path / "mine.txt").touch()
    with pytest.raises(UsageError, match="mine.txt"):
        law_of_six.save(path, overwrite=True)
    (path / "mine.txt").unlink()
    law_of_six.save(path, overwrite=True)


def test_a_failure_leaves_nothing(law_of_six, tmp_path, monkeypatch):
    def defect(*_, **__):
        raise OSError("no space")

    monkeypatch.setattr("natstats.report.pages.networks.write_networks_report", defect)
    with pytest.raises((OSError, natstats.NatstatsError)):
        law_of_six.save(tmp_path / "law")
    assert not list(tmp_path.iterdir())


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
