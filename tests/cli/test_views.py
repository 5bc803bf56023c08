"""What is printed of a result: as much as fits, all of it, as JSON, nothing; and again later."""

from __future__ import annotations

import json
import re
import sys
import webbrowser
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest

import natstats
from natstats.distill.comparison.compare import compare_runs
from natstats.distill.results import DistillationRun
from natstats.runs.text_columns import Column, fitted

COLUMNS = [
    Column("layer", True, cut="name"), Column("exponent"), Column("kind", True, rank=1),
    Column("R2", rank=2), Column("flags", True, cut="list"),
]  # fmt: skip
ROWS = [
    ["features.10.conv.very.deep.inside.0.0", "1.23", "conv", "0.99", "few rings; constant; odd"],
    ["a", "-", "depthwise", "-", ""],
]


@pytest.fixture
def network(made_networks, tmp_path):
    made_networks.save(tmp_path / "run", n_layers=20)
    return tmp_path / "run"


@pytest.mark.parametrize("width", [*range(34, 100, 7), None])
def test_a_table_is_never_wider_than_it_may_be(width):
    lines = fitted(COLUMNS, ROWS, width).splitlines()
    assert lines[3:] in ([], ["(flags: +1 stands for 1 more, which a wider terminal shows)"])
    assert bool(lines[3:]) == (not lines[1].endswith("odd"))
    lines = lines[:3]
    if width is None:
        assert "features.10.conv.very.deep.inside.0.0" in lines[1]
        assert lines[1].endswith("few rings; constant; odd")
        return
    assert max(map(len, lines)) <= width
    assert "exponent" in lines[0]
    assert "flags" in lines[0]
    assert ("R2" in lines[0]) <= ("kind" in lines[0])  # what matters least goes first


def test_what_is_cut_says_so():
    line, _ = fitted(COLUMNS, ROWS[:1], 52).splitlines()[1:]
    assert "..." in line
    assert re.search(r"\+\d$", line)


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_the_terminal_decides_the_width_of_the_table(call, network, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    table, _, rest = call("show", "run").stdout.partition("\n(")
    assert max(map(len, table.splitlines())) <= columns
    assert len(table.splitlines()) == 15
    told = ["7 of 20 layers not shown)", "All of them: natstats show run --all"]
    assert rest.startswith("   ".join(told) if columns > 66 else "\n".join(told))
    whole = call("show", "run", "--all").stdout
    assert "layer20" in whole
    assert "not shown" not in whole
    assert [line for line in whole.splitlines() if line.startswith("layer")] == sorted(
        (line for line in whole.splitlines() if line.startswith("layer")),
        key=lambda line: int(re.sub(r"\D", "", line.split()[0]) or -1),
    )


def test_the_verdict_is_there_and_the_paths_are_short(call, network):
    out = call("show", network).stdout
    lines = natstats.Run.open(network).verdict.lines()
    assert [line for line in out.splitlines() if line in lines] == lines
    assert out.splitlines()[-1] == "Run: run"  # it has no page


def test_json_has_law_and_layers_and_nothing_else_is_printed(call, network):
    result = call("show", "run", "--json")
    found = json.loads(result.stdout)
    assert (found["format"], found["kind"], found["path"]) == (1, "run", "run")
    assert len(found["layers"]) == 21
    run = natstats.Run.open(network)
    assert found["law"]["slope"] == run.law.slope
    assert found["law"]["verdict"] == run.verdict.word
    assert [row["exponent"] for row in found["layers"]] == run.layers.exponent.tolist()
    assert "NaN" not in result.stdout
    assert found["control"] is None


@pytest.mark.slow
def test_measurements_are_quiet_or_speak_json(call, quick, tmp_path):
    np.save("a.npy", np.float32(natstats.power_law_fields(16, 16, 16, 2.0, seed=0)[:, None]))
    result = call("images", "a.npy", "--out", "one", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")
    result = call("images", "a.npy", "--out", "two", "--json", "--quiet")
    assert json.loads(result.stdout)["path"] == "two"
    assert result.stderr == ""
    assert json.loads(call("fit", "two", "--json").stdout)["law"] is None
    assert "got both" in call("fit", "two", "--all", "--quiet", code=2).stderr
    assert "expected" in call("images", "missing", "--quiet", code=2).stderr
    part = call("images", "a.npy", "--shard", "1/2", "--out", "part", "--json")
    assert json.loads(part.stdout)["n_images"] == 8
    error = call("show", "part", code=2).stderr
    assert "a part of one (natstats merge" in error


@pytest.mark.slow
def test_every_kind_of_folder_is_shown(call, network, made_networks, made_runs, tmp_path):
    made_networks.save(tmp_path / "other", seed=1, n_layers=20)
    call("compare", "run", "other", "--out", "diff")
    assert call("show", "diff").stdout.splitlines()[-1] == (
        "Comparison: diff   Report: diff/report.html"
    )
    assert json.loads(call("show", "diff", "--json").stdout)["kind"] == "comparison"
    made_networks.save(tmp_path / "third", seed=2, n_layers=20)
    printed = call("law", "run", "other", "third", "--out", "law", "--all").stdout
    assert call("show", "law", "--all").stdout == printed
    found = json.loads(call("show", "law", "--json").stdout)
    assert len(found["networks"]) == 3
    Path("law/report.html").unlink()
    assert call("report", "law").stdout == "Report: law/report.html\n"
    made = made_runs(n_images=30)
    runs = [made.save(tmp_path / f"t/{m}/seed-{s}", method=m, seed=s)
            for m in ("ce", "kd") for s in (0, 1)]  # fmt: skip
    out = call("show", "t/kd/seed-0").stdout
    assert "Accuracy on the test images" in out
    summary = json.loads(call("show", "t/kd/seed-0", "--json").stdout)
    assert summary["accuracy_low"] < summary["accuracy"] < summary["accuracy_high"]
    compare_runs([DistillationRun.open(run) for run in runs], level=0.9).save("table")
    assert "90" in call("show", "table").stdout
    assert len(json.loads(call("show", "table", "--json").stdout)["methods"]) == 2


@pytest.mark.slow
def test_what_is_opened_again_is_what_was_saved(made_networks, tmp_path):
    runs = [made_networks.save(tmp_path / f"net{k}", seed=k, n_layers=8, n_seeds=2)
            for k in range(4)]  # fmt: skip
    law = natstats.meta_analysis(runs, {"a": ["net0", "net1"], "b": ["*"]})
    law.save(tmp_path / "law", report=False)
    again = natstats.MetaAnalysis.open(tmp_path / "law")
    assert again.table() == law.table()
    assert again.sentences() == law.sentences()
    assert again.shape_sentence() == law.shape_sentence()
    assert json.dumps(again.to_dict()) == json.dumps(law.to_dict())
    found = natstats.compare(*map(natstats.Run.open, runs[:2]))
    found.save(tmp_path / "diff")
    again = natstats.Comparison.open(tmp_path / "diff")
    assert again.table() == found.table()
    assert again.sentence() == found.sentence()
    pd.testing.assert_frame_equal(again.layers, found.layers, check_dtype=False)
    for place, name in (("law", "networks.csv"), ("diff", "comparison.csv")):
        (tmp_path / place / name).unlink()
        opened = natstats.MetaAnalysis if place == "law" else natstats.Comparison
        with pytest.raises(natstats.NatstatsError, match="expected a whole"):
            opened.open(tmp_path / place)
    with pytest.raises(natstats.UsageError, match=r"holds no comparison\.json"):
        natstats.Comparison.open(tmp_path / "law")


def damage(value, place):
    """The JSON values that a hostile file may have in place of one."""
    return [None, "x", -1, [], {}, {place: value}]


@pytest.mark.slow
def test_damaged_results_are_one_sentence(call, network, made_networks, tmp_path):
    made_networks.save(tmp_path / "other", seed=1, n_layers=20)
    call("compare", "run", "other", "--out", "diff")
    call("law", "run", "other", "--out", "law")
    for folder, record in (("diff", "comparison.json"), ("law", "meta_analysis.json")):
        file = tmp_path / folder / record
        whole = file.read_text()
        for field, value in json.loads(whole).items():
            for odd in damage(value, field):
                file.write_text(json.dumps({**json.loads(whole), field: odd}))
                assert call("show", folder, code=None).exit_code in (0, 1, 2), (field, odd)
        file.write_text(whole)


@pytest.mark.slow
def test_the_page_is_written_again_or_opened(call, network, monkeypatch):
    before = {p.name: p.read_bytes() for p in network.iterdir() if p.is_file()}
    assert call("report", "run").stdout == "Report: run/report.html\n"
    assert (network / "figures" / "law.svg").is_file()
    now = {p.name: p.read_bytes() for p in network.iterdir() if p.is_file()}
    assert {name for name in before if before[name] != now[name]} <= {"run.json"}
    assert "figures/law.svg" in json.loads((network / "run.json").read_text())["files"]
    natstats.Run.open(network)
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda place: opened.append(place) or True)
    (network / "report.html").write_text("as it is")
    call("report", "run", "--open")
    assert opened == [(network / "report.html").as_uri()]
    assert (network / "report.html").read_text() == "as it is"
    (network / "report.html").unlink()
    call("report", "run", "--open")
    assert "<html" in (network / "report.html").read_text()
    monkeypatch.setattr(webbrowser, "open", lambda place: False)
    assert "expected a browser" in call("report", "run", "--open", code=1).stderr
    # The folder can be written over as before.
    natstats.Run.open(network).save(network, overwrite=True, report=False)


def test_what_is_no_folder_of_natstats_is_refused(call, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for place, why in (
        ("gone", "not there"),
        ("empty", "holds none of run.json"),
        ("file", "is a file"),
    ):
        for command in ("show", "report"):
            assert why in call(command, place, code=2).stderr


def test_help_is_grouped_and_never_cut(call, group, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = call("--help").stdout.splitlines()
    assert not [line for line in lines[1:] if line.rstrip().endswith("...")]
    assert max(map(len, lines[lines.index("Measure:") :])) <= 80
    listed = [line.split()[0] for line in lines[lines.index("Measure:") :] if line.startswith("  ")]
    assert listed == group.list_commands(None)
    for name in group.list_commands(None):
        short = group.get_command(None, name).short_help
        assert short.endswith("."), name
        assert f"  {name} " in "\n".join(lines)


def test_help_is_short_and_fits(group):
    """At 100 characters no line is wider, and the text of an option has at most two lines."""
    parent = group.make_context("natstats", [], resilient_parsing=True)
    assert parent.max_content_width == 100
    for name in ["", *group.list_commands(None)]:
        command = group.get_command(None, name) if name else group
        # Click leaves two characters free.
        own = click.Context(command, info_name=name, parent=parent, terminal_width=98)
        lines = command.get_help(own).splitlines()
        assert max(map(len, lines)) <= 100, name
        assert not [line for line in lines[1:] if line.rstrip().endswith("...")], name
        blocks = re.split(r"\n(?=  -)|\n\n", "\n".join(lines))
        for block in (block for block in blocks if block.startswith("  -")):
            # The names of an option that are too long stand on a line of their own.
            own = 0 if re.search(r"^  \S.*\S {2,}\S", block) else 1
            assert len(block.splitlines()) - own <= 2, (name, block)


@pytest.mark.parametrize("name", ["measure", "explain", "images", "merge", "fit"])
def test_every_option_is_in_a_section(group, name):
    sections = sys.modules[f"{type(group).__module__.rpartition('.')[0]}.sections"].MEASURING
    known = [parameter for names in sections.values() for parameter in names]
    assert len(known) == len(set(known))
    options = [p for p in group.get_command(None, name).params if isinstance(p, click.Option)]
    assert {p.name for p in options} - {"debug"} <= {*known}
