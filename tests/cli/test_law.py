"""``natstats law``: prints, writes, and answers bad input in a sentence."""

from __future__ import annotations

import csv
import io
import json
import shutil
from functools import partial
from pathlib import Path

import pytest


@pytest.fixture
def call(call):
    return partial(call, "law")


@pytest.fixture(scope="module")
def four(made_networks, tmp_path_factory):
    home = tmp_path_factory.mktemp("four")
    for k, model in enumerate(("resnet20", "resnet56", "vgg11", "vgg16_bn")):
        made_networks.save(home / f"{model}-cifar", seed=k, model=model, n_layers=8 + k)
    return home


@pytest.fixture
def runs(four, tmp_path):
    return Path(shutil.copytree(four, tmp_path / "runs"))


def test_a_short_table_and_three_sentences(call, runs):
    out = call(runs).stdout
    table, _, words = out.partition("\n\n")
    assert len(table.splitlines()) == 6
    assert table.splitlines()[0].split() == ["network", "slope", "interval", "weight"]
    assert table.splitlines()[-1].startswith("all networks")
    sentences = words.splitlines()
    assert len(sentences) == 4
    assert sentences[0].startswith("Over networks the exponent rises with depth: mean slope +0.0")
    assert sentences[1].startswith("The slope of the next network is expected in [")
    assert sentences[2].startswith("Networks ")
    assert sentences[3] == "Law: reports/law   Report: reports/law/report.html"


@pytest.mark.slow
def test_of_many_networks_some_are_shown(call, made_networks, tmp_path):
    for k in range(16):
        made_networks.save(tmp_path / f"many/net{k}", seed=k, n_layers=6)
    table = call("many").stdout.partition("\n\n")[0]
    assert "(2 of 16 networks not shown)" in table
    assert len(table.splitlines()) == 17


@pytest.mark.slow
def test_subgroups_by_column_and_by_pattern(call, runs):
    by_family = call(runs, "--by", "family").stdout
    assert "means by family" in by_family
    by_pattern = call(runs, "--group", "res=resnet*", "--group", "vgg=*vgg*").stdout
    assert by_pattern.replace(" res ", " resnet ").count("mean of 2") == 2
    assert "mean of 3" in call(runs, "--group", "a=resnet*", "--group", "a=vgg11*").stdout
    assert "got both" in call(runs, "--by", "family", "--group", "a=*", code=2).stderr
    assert "no network is left for a=alexnet" in call(runs, "--group", "a=alexnet", code=2).stderr
    assert "expected NAME=VALUE" in call(runs, "--group", "resnet*", code=2).stderr


@pytest.mark.slow
def test_options_of_the_fit(call, runs):
    out = call(runs, "--depth", "normalized", "--level", "0.8", "--estimator", "whittle").stdout
    assert "over the whole depth (80 % interval" in out


@pytest.mark.slow
def test_csv_and_nothing_else(call, runs):
    result = call(runs, "--csv", "--by", "family", "--out", "law")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["network"] for row in rows] == [
        "resnet20-cifar", "resnet56-cifar", "vgg11-cifar", "vgg16_bn-cifar",
    ]  # fmt: skip
    assert sum(float(row["weight"]) for row in rows) == pytest.approx(1)
    assert "Law: law   Report: law/report.html" in result.stderr


@pytest.mark.slow
def test_out_is_written_whole_and_kept(call, runs):
    assert "Law: law   Report: law/report.html" in call(runs, "--out", "law").stdout
    names = {path.name for path in Path("law").iterdir()}
    assert names == {
        "meta_analysis.json", "networks.csv", "subgroups.csv", "report.html", "figures",
    }  # fmt: skip
    assert "exists and is kept" in call("nowhere", "--out", "law", code=2).stderr
    call(runs, "--by", "family", "--out", "law", "--overwrite")
    assert json.loads(Path("law/meta_analysis.json").read_text())["by"] == "family"
    error = call(runs, "--out", runs / "vgg11-cifar", "--overwrite", code=2).stderr
    assert "expected" in error
    assert (runs / "vgg11-cifar/run.json").is_file()


def test_nothing_is_written_where_it_fails(call, runs):
    call(runs / "vgg11-cifar", "--out", "law", code=2)
    assert not Path("law").exists()


def changed(run, **fields):
    record = json.loads((run / "run.json").read_text())
    record |= fields
    (run / "run.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["nowhere"], "nowhere is not there"),
        (["runs/vgg11-cifar"], "expected two networks or more, for networks are the sample; got 1"),
        (["runs/vgg11-cifar", "runs/vgg11-cifar"], "are the same"),
        (["runs", "runs/copy"], "the weights in runs/copy and runs/vgg11-cifar are the same"),
        (["runs", "--level", "95"], "level: expected a number between 0 and 1"),
        (["runs", "--band", "wide"], "LOW:HIGH"),
        (["runs", "--by", "size"], "--by: expected one of family,"),
        (["runs", "--min-rings", "50"], "layers enough for a law; got 0 of 4"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_in_a_sentence(call, runs, given, words):
    if "runs/copy" in given:
        shutil.copytree(runs / "vgg11-cifar", runs / "copy")
    assert words in call(*given, code=2).stderr.replace("'copy'", "copy")


@pytest.mark.slow
def test_fits_that_differ_name_the_option(call, runs):
    record = json.loads((runs / "vgg11-cifar/run.json").read_text())
    changed(runs / "vgg11-cifar", fit={**record["fit"], "band": [0.1, 0.4]})
    error = call(runs, code=2).stderr
    assert "band: expected the same in all runs" in error
    assert "runs/vgg11-cifar" in error
    assert "(give --band to fit all alike)" in error
    call(runs, "--band", "0.1:0.4")


@pytest.mark.slow
def test_images_alone_and_few_layers(call, runs, made_networks):
    changed(runs / "vgg11-cifar", model=None)
    assert "of images alone" in call(runs / "vgg11-cifar", runs / "resnet20-cifar", code=2).stderr
    assert "vgg11-cifar is of images alone and left out" in call(runs).stdout
    made_networks.save(runs / "short", seed=9, n_layers=3)
    assert "Note: Too few layers for a law, and left out: " in call(runs).stdout


def test_names_of_strangers_move_no_cursor(call, made_networks, tmp_path):
    for k in range(2):
        made_networks.save(tmp_path / f"odd/\x1b[31m{k}\n", seed=k, model="\x1b[2Jnet")
    out = call("odd", "--by", "model").stdout
    assert "\x1b" not in out
    assert "\\x1b[31m0\\n" in out


def test_a_damaged_run_is_named(call, runs):
    (runs / "vgg11-cifar/run.json").write_text("{")
    assert "vgg11-cifar" in call(runs, code=1).stderr
