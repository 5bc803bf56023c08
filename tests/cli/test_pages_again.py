"""Pages of what was made of several runs, written again of the runs where they are now."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

import natstats

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(made_networks, tmp_path):
    """Three runs with pages, in a folder of theirs."""
    for seed, name in enumerate("abc"):
        made_networks.save(tmp_path / "runs" / name, seed=seed, n_layers=8)
        (tmp_path / "runs" / name / "report.html").write_text("<html>")
    return tmp_path / "runs"


def links(page: str | Path) -> set[str]:
    return set(re.findall(r'href="([^"#]+report\.html)', Path(page).read_text(encoding="utf-8")))


def test_the_page_of_a_comparison_is_the_one_that_was(call, runs):
    call("compare", "runs/a", "runs/b", "--out", "diff")
    before = Path("diff/report.html").read_bytes()
    assert links("diff/report.html") == {"../runs/a/report.html", "../runs/b/report.html"}
    shutil.rmtree("diff/figures")
    Path("diff/report.html").unlink()
    assert call("report", "diff").stdout == "Report: diff/report.html\n"
    assert Path("diff/report.html").read_bytes() == before
    assert Path("diff/figures/difference.svg").is_file()
    natstats.Comparison.open("diff").save("other", report=False)  # the numbers are whole


def test_the_page_of_a_law_keeps_its_command_and_its_links(call, runs):
    call("law", "runs/a", "runs/b", "runs/c", "--out", "reports/law")
    before = Path("reports/law/report.html").read_bytes()
    assert len(links("reports/law/report.html")) == 3
    call("report", "reports/law")
    assert Path("reports/law/report.html").read_bytes() == before
    shutil.rmtree("runs/b")
    result = call("report", "reports/law")
    assert "Note: runs/b is not there, and its row leads nowhere." in result.stderr
    assert links("reports/law/report.html") == {
        "../../runs/a/report.html", "../../runs/c/report.html",
    }  # fmt: skip


def test_what_was_moved_together_is_found_from_anywhere(call, runs, tmp_path, monkeypatch):
    call("compare", "runs/a", "runs/b", "--out", "diff")
    call("law", "runs", "--out", "law")
    before = {name: Path(name, "report.html").read_bytes() for name in ("diff", "law")}
    (tmp_path / "moved").mkdir()
    for name in ("runs", "diff", "law"):
        shutil.move(name, f"moved/{name}")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for name in ("diff", "law"):
        call("report", tmp_path / "moved" / name)
        assert (tmp_path / "moved" / name / "report.html").read_bytes() == before[name]


def test_a_run_that_is_gone_is_named_with_how_to_make_it(call, runs):
    record = runs / "b" / "run.json"
    kept = json.loads(record.read_text())
    record.write_text(json.dumps({**kept, "command": "natstats measure net --out runs/b"}))
    call("compare", "runs/a", "runs/b", "--out", "diff")
    before = Path("diff/report.html").read_bytes()
    shutil.move("runs/b", "hidden")
    error = call("report", "diff", code=2).stderr
    assert "runs/b is not there (`natstats measure net --out runs/b` made it" in error
    assert "runs/a" not in error
    assert Path("diff/report.html").read_bytes() == before
    shutil.rmtree("runs/a")
    both = call("report", "diff", code=2).stderr
    assert "runs/a is not there (natstats measure makes runs" in both
    assert "runs/b is not there" in both


def test_a_run_that_is_another_one_now_is_refused(call, runs, made_networks):
    call("compare", "runs/a", "runs/b", "--out", "diff")
    before = Path("diff/report.html").read_bytes()
    shutil.rmtree("runs/b")
    made_networks.save(runs / "b", seed=7, n_layers=8)
    error = call("report", "diff", code=2).stderr
    assert "they were measured or fitted again (natstats compare " in error
    assert "--out diff --overwrite" in error
    shutil.rmtree("runs/b")
    made_networks.save(runs / "b", seed=1, n_layers=9)
    assert "they have other layers now" in call("report", "diff", code=2).stderr
    call("fit", "runs/a", "--estimator", "ols", "--out", "ols")
    shutil.rmtree("runs/a")
    shutil.move("ols", "runs/a")
    assert "cannot be compared any more: estimator" in call("report", "diff", code=2).stderr
    assert Path("diff/report.html").read_bytes() == before


def test_runs_in_no_folder_cannot_come_back(call, made_networks):
    natstats.compare(made_networks.run(0), made_networks.run(1), ("a", "b")).save("diff")
    error = call("report", "diff", code=2).stderr
    assert "A was in no folder when it was compared" in error
    assert "B was in no folder" in error


def test_older_comparisons_have_the_paths_as_they_were_typed(call, runs):
    call("compare", "runs/a", "runs/b", "--out", "diff")
    before = Path("diff/report.html").read_bytes()
    file = Path("diff/comparison.json")
    record = json.loads(file.read_text())
    new = {"runs_from_here", "made_by"}
    assert new <= {*record}
    file.write_text(json.dumps({k: v for k, v in record.items() if k not in new}))
    call("report", "diff")
    assert Path("diff/report.html").read_bytes() == before


@pytest.mark.parametrize("name", ["runs", "runs_from_here", "made_by", "command"])
def test_damaged_paths_are_one_sentence(call, runs, name):
    call("compare", "runs/a", "runs/b", "--out", "diff")
    call("law", "runs", "--out", "law")
    for folder, file in (("diff", "comparison.json"), ("law", "meta_analysis.json")):
        record = json.loads(Path(folder, file).read_text())
        for odd in (-1, "x", [], ["x\0", None], [1, 2], {}, ["../" * 40 + "a", os.sep * 3]):
            Path(folder, file).write_text(json.dumps({**record, name: odd}))
            assert call("report", folder, code=None).exit_code in (0, 1, 2), odd
        Path(folder, file).write_text(json.dumps(record))
