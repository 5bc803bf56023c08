"""What is printed on terminals of 40 to 200 characters: all of it fits, and names differ."""

from __future__ import annotations

import itertools
import shutil

import pytest

import natstats
from natstats.distill.comparison.compare import compare_runs
from natstats.runs.text_columns import Column, fitted, shortened

WIDTHS = [40, 60, 80, 200]


@pytest.fixture(scope="module")
def folder(made_networks, tmp_path_factory):
    """A run, its like with other layers, and all that is made of such."""
    path = tmp_path_factory.mktemp("widths")
    for k in range(3):
        made_networks.save(path / f"network-number-{k}", seed=k, n_layers=20)
    return path


def lines_of(result, columns):
    """The lines of what was printed; all but a word that stands alone must fit."""
    lines = (result.stdout + result.stderr).splitlines()
    for line in lines:
        assert len(line) <= columns or " " not in line.strip() or "natstats " in line, line
    return lines


@pytest.fixture
def wide(call, folder, monkeypatch):
    """Call a command on a terminal of so many columns, in a folder with runs."""

    def run(columns, *arguments, code=0):
        for path in folder.iterdir():
            shutil.copytree(path, path.name, dirs_exist_ok=True)
        monkeypatch.setenv("COLUMNS", str(columns))
        return lines_of(call(*arguments, code=code), columns)

    return run


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_run_its_verdict_and_its_notes(wide, folder, columns):
    lines = wide(columns, "show", "network-number-0", "--all")
    run = natstats.Run.open(folder / "network-number-0")
    printed = " ".join(" ".join(lines).split())
    for sentence in run.verdict.lines():
        assert " ".join(sentence.split()) in printed
    assert [line for line in lines if line.startswith("layer20 ")]


@pytest.mark.slow
@pytest.mark.parametrize("columns", WIDTHS)
def test_all_other_commands(wide, made_runs, tmp_path, columns):
    names = [f"network-number-{k}" for k in range(3)]
    lines = wide(columns, "compare", *names[:2], "--out", "diff")
    assert "Comparison: diff" in lines[-1] or lines[-2] == "Comparison: diff"
    wide(columns, "law", *names, "--group", "a-long-name-of-a-group=*-0", "--out", "law")
    wide(columns, "fit", names[0], "--out", "again")
    assert wide(columns, "report", names[0]) == [f"Report: {names[0]}/report.html"]
    wide(columns, "plot", names[0], "--out", "figs", "--format", "svg")
    wide(columns, "plot", names[0], "--out", "figs", "--format", "svg", code=2)
    wide(columns, "show", "nothing-of-this-name", code=2)
    wide(columns, "models", "resnet18")
    made = made_runs(n_images=30)
    for method, seed in itertools.product(("ce", "kd", "kd+spectral"), (0, 1)):
        made.save(tmp_path / f"t/{method}/seed-{seed}", method=method, seed=seed)
    lines = wide(columns, "table", "t", "--out", "compared")
    assert [line for line in lines if line.startswith("kd+spectral ")]
    wide(columns, "show", "compared")
    wide(columns, "show", "t/kd/seed-0")


@pytest.mark.slow
@pytest.mark.parametrize("columns", WIDTHS)
def test_a_series(wide, made_networks, tmp_path, columns):
    from natstats.networks.checkpoint_files import CheckpointFile
    from natstats.runs.series import Series

    runs = [made_networks.run(seed=k) for k in range(3)]
    files = [CheckpointFile(f"epoch_{k}", k, tmp_path / f"epoch_{k}.pth") for k in range(3)]
    for file in files:
        file.path.touch()
    Series.of(runs, files).save(tmp_path / "series")
    assert [line for line in wide(columns, "show", "series") if line.startswith("epoch_2 ")]


@pytest.mark.parametrize("width", range(6, 60))
@pytest.mark.parametrize(
    "names",
    [
        [f"backbone.features.{k}.conv.{j}.0" for k in range(20) for j in range(2)],
        [f"stage_{k}_of_the_encoder.block_{j}.projection" for k in range(3) for j in range(12)],
        ["a", "a" * 50, "a" * 25 + "b" + "a" * 24, "a" * 40],
    ],
    ids=["numbers", "middles", "letters"],
)
def test_no_two_names_look_alike(names, width):
    found = shortened(names, width)
    assert list(found) == names
    assert max(map(len, found.values())) <= width
    shown = [text for text in found.values() if text]
    assert len(set(shown)) == len(shown)
    table = fitted([Column("layer", True, cut="name"), Column("n")],
                   [(name, "#") for name in names], width + 3)  # fmt: skip
    rows = table.split("\n")[1:]
    assert max(map(len, rows)) <= width + 3
    # What stands above a row, or in it, is different for each.
    blocks, block = [], []
    for row in rows:
        block.append(row.strip(" #"))
        if row.endswith("#"):
            blocks.append("".join(block))
            block = []
    assert len(set(blocks)) == len(names)


def test_a_number_is_never_cut():
    names = [f"features.{k}.conv" for k in range(8, 13)]
    for width in range(9, 16):
        for name, text in shortened(names, width).items():
            assert not text or text.rpartition("...")[2].lstrip(".").split(".")[0] in (
                name.split(".")
            )


def test_flags_are_counted_where_there_is_no_room_for_one():
    columns = [Column("layer", True, cut="name"), Column("flags", True, cut="list")]
    rows = [["features.10.conv.0.0", "outer scale; few images; few rings"]]
    assert fitted(columns, rows, 20).splitlines()[1].endswith("  3")
    assert fitted(columns, rows, 16).splitlines()[0] == "layer"


def test_the_table_of_trainings_keeps_method_accuracy_and_gain(made_runs):
    made = made_runs(n_images=30)
    found = compare_runs([
        made.run(method=method, seed=seed) for method in ("ce", "kd") for seed in (0, 1)
    ])  # fmt: skip
    heads = found.table(width=40).splitlines()[1].split("  ")
    assert {"method", "accuracy", "over ce"} <= {head.strip() for head in heads}
