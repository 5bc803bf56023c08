"""``natstats table``: prints, writes, keeps what is there, and answers bad input in a sentence."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from natstats_cli.distill import _compare as over_seeds

from natstats.distill.run_folders import RECORD, STATE, TABLE_FILES


@pytest.fixture
def call(call):
    return partial(call, "table")


@pytest.fixture(scope="module")
def nine(made_runs, tmp_path_factory):
    home, made = tmp_path_factory.mktemp("nine"), made_runs()
    for method, accuracy in (("ce", 0.55), ("kd", 0.65), ("kd+spectral", 0.75)):
        for seed in range(3):
            place = home / method.replace("+", "_") / f"seed-{seed}"
            made.save(place, method=method, seed=seed, accuracy=accuracy)
    return home


@pytest.fixture
def runs(nine, tmp_path):
    return Path(shutil.copytree(nine, tmp_path / "runs"))


@pytest.mark.slow
def test_it_prints_accuracy_gain_and_p(call, runs):
    out = call(runs).stdout
    assert "small from large on made (400 test images)" in out
    assert "over ce" in out
    assert "over kd" in out
    assert out.splitlines()[2].startswith("kd+spectral")
    assert "corrected p" in out
    assert not (runs.parent / "figs").exists()


@pytest.mark.slow
def test_the_page_over_several_seeds_of_one_command_links_to_theirs(runs):
    """What ``natstats distill`` writes at the end."""
    for seed in range(3):
        (runs / f"kd/seed-{seed}/report.html").write_text("<html>")
    over_seeds(runs / "kd")
    page = (runs / "kd/report.html").read_text(encoding="utf-8")
    linked = set(re.findall(r'href="([^"#]+report\.html)', page))
    assert linked == {f"seed-{seed}/report.html" for seed in range(3)}


@pytest.mark.slow
def test_paths_may_overlap_and_be_single_runs(call, runs):
    whole = call(runs).stdout
    assert call(runs / "ce", runs / "kd/seed-0", runs, runs).stdout == whole
    one = call(runs / "kd/seed-0").stdout
    assert "images" in one
    assert "one seed" in one


@pytest.mark.slow
def test_reference_and_level(call, runs):
    out = call(runs, "--reference", "kd+spectral", "--level", "0.8").stdout
    assert "over kd+spectral" in out
    assert "over ce" not in out
    assert "80 % interval" in out


@pytest.mark.slow
def test_csv_and_markdown_print_nothing_else(call, runs):
    rows = list(csv.DictReader(io.StringIO(call(runs, "--csv").stdout)))
    assert [row["label"] for row in rows] == ["kd+spectral", "kd", "ce"]
    assert 0.5 < float(rows[0]["accuracy"]) < 0.9
    text = call(runs, "--markdown").stdout
    assert text.startswith("**small from large")
    assert "| kd+spectral | 3 |" in text
    error = call(runs, "--csv", "--markdown", code=2).stderr
    assert "--csv: expected --csv or --markdown; got both" in error


@pytest.mark.slow
def test_out_has_tables_page_and_figures(call, runs):
    result = call(runs / "ce", runs / "kd", "--out", "table")
    assert "Table: table   Report: table/report.html" in result.stdout
    assert {path.name for path in Path("table").iterdir()} == set(TABLE_FILES)
    assert "<img" in Path("table/report.html").read_text()


@pytest.mark.slow
def test_the_tables_are_those_that_are_printed(call, runs, quick):
    call(runs, "--out", "table")
    assert Path("table/table.csv").read_text() == call(runs, "--csv").stdout
    assert Path("table/table.md").read_text() == call(runs, "--markdown").stdout
    record = json.loads(Path("table/table.json").read_text())
    assert record["kind"] == "table"
    assert len(record["runs"]) == 9
    assert "exists and is kept" in call(runs, "--out", "table", code=2).stderr
    call(runs / "ce", "--out", "table", "--overwrite")
    assert len(json.loads(Path("table/table.json").read_text())["runs"]) == 3


@pytest.mark.slow
def test_a_table_beside_its_seeds_never_takes_them_away(call, runs, quick):
    """That is how a training with several seeds is laid out."""
    assert "something else" in call(runs, "--out", runs / "kd", "--overwrite", code=2).stderr
    call(runs, "--out", "table")
    Path("table/table.json").replace(runs / "kd/table.json")
    call(runs, "--out", runs / "kd", "--overwrite")
    assert (runs / "kd/seed-2" / RECORD).is_file()
    assert (runs / "kd/report.html").is_file()


@pytest.mark.slow
def test_unfinished_trainings_are_told(call, runs):
    (runs / "kd/seed-2" / RECORD).rename(runs / "kd/seed-2" / STATE)
    result = call(runs)
    assert "seed-2 is not finished and left out" in result.stderr
    assert "1 seed is in one of them only" in result.stdout


@pytest.mark.slow
def test_how_far_an_unfinished_training_is(call, runs, quick):
    folder = runs / "kd/seed-2"
    stages = [["hint", 2], ["main", 30]]
    torch.save({"identity": {"method": "kd", "seed": 2, "stages": stages}}, folder / STATE)
    (folder / RECORD).unlink()
    history = (folder / "history.csv").read_text().splitlines()
    (folder / "history.csv").write_text("\n".join(history[:4]) + "\n")
    result = call(runs, "--out", "table")
    assert "kd, seed 2, epoch 3 of 32" in result.stderr
    assert "% at the last look" in result.stderr
    assert "kd, seed 2, epoch 3 of 32" in Path("table/table.md").read_text().replace("\\", "")
    # It is nowhere among the finished ones.
    text = Path("table/table.csv").read_text()
    rows = {row["label"]: row for row in csv.DictReader(io.StringIO(text))}
    assert rows["kd"]["seeds"] == "0 1"
    # One that nothing can be read of is named all the same.
    (folder / STATE).write_bytes(b"")
    (folder / "history.csv").unlink()
    assert "seed-2 is not finished and left out." in call(runs).stderr
    # Where none is finished, how far they are is told, and that there is no table.
    only = call(folder, code=2).stderr
    assert "is not finished" in only


@pytest.mark.slow
def test_planned_contrasts(call, runs):
    out = call(runs).stdout
    assert "kd+spectral over kd" in out
    out = call(runs, "--contrast", "kd+spectral:ce").stdout
    assert "kd+spectral over ce" in out
    assert "kd+spectral over kd " not in out
    for text in ("kd", "kd:", ":kd", "a:b:c"):
        assert "expected METHOD:OVER" in call(runs, "--contrast", text, code=2).stderr
    assert "contrast: expected one of" in call(runs, "--contrast", "kd:kx", code=2).stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere is not there"),
        (["."], "reference: expected one of"),
        (["runs", "--reference", "kd+spectrl"], "did you mean kd+spectral?"),
        (["runs", "--level", "95"], "level: expected a number between 0 and 1"),
    ],
)
def test_bad_input_in_a_sentence(call, runs, arguments, sentence):
    if arguments == ["."]:
        arguments = [".", "--reference", "nonsense"]
    assert sentence in call(*arguments, code=2).stderr


def test_a_damaged_run_is_named(call, runs):
    (runs / "kd/seed-1/outcomes.npz").write_bytes(b"")
    assert "kd/seed-1" in call(runs, code=1).stderr
