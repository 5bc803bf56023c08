"""Commands on runs that others made, that are interrupted, or asked for the impossible."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

import natstats
from natstats import demo
from natstats.files.ownership import foreign, own_files
from natstats.report.figures.style import save
from natstats.runs.series import Series


def draw(run, folder):
    """One small figure in place of all, saved as they are."""
    return save(plt.figure(figsize=(1, 1)).add_subplot(), folder, "law")


def draw_series(series, folder):
    return save(plt.figure(figsize=(1, 1)).add_subplot(), folder, "slopes")


def report(folder, run):
    (folder / "report.html").write_text("page")
    (folder / "figures").mkdir()
    (folder / "figures" / "law.svg").write_text("figure")


def report_series(folder, series):
    (folder / "report.html").write_text("page")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Reports take most of the time, and are tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("natstats.report.pages.run.write_report", report)
        patch.setattr("natstats.report.pages.series.write_series_report", report_series)
        patch.setattr("natstats.report.draw_run", draw)
        patch.setattr("natstats.report.draw_series", draw_series)
        patch.setattr(
            "natstats.report.figures.difference.plot_difference",
            lambda *_: [plt.figure(figsize=(1, 1)).add_subplot()],
        )
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A series of two checkpoints, with a control in neither."""
    home = tmp_path_factory.mktemp("source")
    fields = natstats.power_law_fields(24, 16, 16, 2.0, seed=0).reshape(8, 3, 16, 16)
    np.save(home / "fields.npy", np.float32(fields))
    for epoch in (1, 2):
        torch.manual_seed(epoch)
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Conv2d(2, 2, 3))
        torch.save(model.state_dict(), home / f"e{epoch}.pth")
    natstats.measure_series(model, home / "e*.pth", np.load(home / "fields.npy"), out=home / "s")
    return home


@pytest.fixture
def series(source, tmp_path):
    return Path(shutil.copytree(source / "s", tmp_path / "s"))


@pytest.fixture
def run(series, tmp_path):
    return Path(shutil.copytree(series / "e1", tmp_path / "run"))


def edit(path, change):
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


# Names out of files


@pytest.mark.slow
@pytest.mark.parametrize("name", ["../ESC", "/tmp/ESC", "..", ".", "", "a/b", 3, None, ["e1"]])
def test_a_checkpoint_of_a_series_is_a_plain_name(call, series, name):
    before = sorted(p.as_posix() for p in Path().resolve().rglob("*"))
    edit(series / "series.json", lambda record: record["runs"][1].update(checkpoint=name))
    for command in (("fit", series, "--out", "new"), ("fit", series), ("plot", series)):
        error = call(*command, code=1).stderr
        assert "series.json, runs[1].checkpoint: expected a plain name; got " in error
    assert sorted(p.as_posix() for p in Path().resolve().rglob("*")) == before


@pytest.mark.parametrize("what", ["e2", "series.json", "change.csv", "e2/run.json"])
def test_a_link_out_of_a_series_is_not_followed(call, series, tmp_path, what):
    (series / what).rename(tmp_path / "elsewhere")
    (series / what).symlink_to(tmp_path / "elsewhere")
    error = call("fit", series, "--out", "new", code=1).stderr
    assert f"{Path(what).name!r} is a link that leads out of it" in error
    assert not Path("new").exists()


def test_a_link_out_of_a_series_is_not_measured_into(source, series, tmp_path):
    series.joinpath("e2").rename(tmp_path / "elsewhere")
    series.joinpath("e2").symlink_to(tmp_path / "elsewhere")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Conv2d(2, 2, 3))
    images = np.load(source / "fields.npy")
    for overwrite in (False, True):
        with pytest.raises(natstats.NatstatsError, match="'e2' is a link that leads out of it"):
            natstats.measure_series(
                model, source / "e*.pth", images, out=series, overwrite=overwrite
            )


def test_the_seeds_of_a_control_are_in_the_run(call, run, tmp_path):
    (run / "control").symlink_to(tmp_path)
    assert "'control' is a link that leads" in call("fit", run, "--out", "new", code=1).stderr


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("format",), -1, "format: expected a format number of at least 1; got -1"),
        (("format",), True, "format: expected a format number of at least 1; got true"),
        (("runs", 0, "step"), "one", 'runs[0].step: expected a whole number of at least 0; got "o'),
        (("runs", 0, "slope"), "x", 'runs[0].slope: expected a number, or null; got "x"'),
        (("runs", 1, "verdict"), "good", "runs[1].verdict: expected one of "),
        (("runs",), [], "runs: expected a list of 2 items or more; got 0"),
        (("change", "names"), ["a"], "change.names: expected a list of 2 items; got 1"),
        (("change", "mean"), None, "change.mean: expected a mapping; got null"),
        (("change", "level"), 95, "change.level: expected a number between 0 and 1; got 95"),
        (("change", "depth"), "x", "change.depth: expected one of layers, "),
        (("options",), 3, "options: expected a mapping; got 3"),
    ],
)  # fmt: skip
def test_a_changed_series_names_the_field(call, series, place, value, words):
    def change(record):
        for name in place[:-1]:
            record = record[name]
        record[place[-1]] = value

    edit(series / "series.json", change)
    assert f"series.json, {words}" in call("plot", series, code=1).stderr


def test_changed_tables_of_a_series_name_the_column(call, series):
    frame = pd.read_csv(series / "exponents.csv")
    frame.astype({"exponent": str}).replace({"exponent": {str(frame.exponent[1]): "high"}}).to_csv(
        series / "exponents.csv", index=False
    )
    error = call("plot", series, code=1).stderr
    assert "exponents.csv, exponent, row 2: expected a number or nothing; got 'high'" in error
    frame[frame.checkpoint == "e1"].to_csv(series / "exponents.csv", index=False)
    assert "exponents.csv, checkpoint: expected rows of e2" in call("plot", series, code=1).stderr
    frame.drop(columns="low").to_csv(series / "exponents.csv", index=False)
    assert "exponents.csv, low: expected a column" in call("plot", series, code=1).stderr
    (series / "exponents.csv").unlink()
    os.mkfifo(series / "exponents.csv")
    assert "exponents.csv: a named pipe, not a file" in call("plot", series, code=1).stderr


@pytest.mark.slow
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_pipes_and_folders_in_place_of_records_are_a_sentence(call, series, make):
    (series / "e1" / "run.json").unlink()
    make(series / "e1" / "run.json")
    for command in ("fit", "plot"):
        assert "run.json" in call(command, series / "e1", code=1).stderr
    call("plot", series)  # of a series, the tables are enough
    (series / "series.json").unlink()
    make(series / "series.json")
    call("plot", series, code=1)


# What is there is kept


def test_whole_folders_hold_nothing_else(source, series, tmp_path):
    for kind, path in (("series", series), ("run", series / "e1")):
        assert foreign(path, kind) == []
        assert "report.html" in own_files(path, kind)
    (series / "series.json").unlink()
    assert foreign(series, "series") == []


@pytest.mark.slow
def test_overwrite_keeps_what_natstats_did_not_write(call, source, series, run, tmp_path):
    fields = source / "fields.npy"
    for folder in (run, series, series / "e1"):
        (folder / "thesis.tex").write_text("years of work")
    for command in (
        ("fit", run, "--out", run),
        ("images", fields, "--out", run),
        ("fit", series, "--out", series),
        ("compare", series / "e1", series / "e2", "--out", run),
        ("measure", "cifar_resnet20", "--weights", "none", "--images", fields, "--out", run),
        ("demo", "--out", run),
    ):
        error = call(*command, "--overwrite", code=2).stderr
        assert "thesis.tex" in error or "run is something else" in error
    (series / "thesis.tex").unlink()
    assert (
        "holds e1/thesis.tex, which"
        in call("fit", series, "--out", series, "--overwrite", code=2).stderr
    )
    (series / "series.json").unlink()  # an interrupted one
    assert (
        "holds e1/thesis.tex, which"
        in call("fit", run, "--out", "new").stderr
        + call("fit", source / "s", "--out", series, "--overwrite", code=2).stderr
    )
    for folder in (run, series / "e1"):
        assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_run_of_a_series_with_notes_is_not_measured_over(source, series):
    (series / "e1" / "notes").write_text("mine")
    (series / "e1" / "spectra.npz").write_bytes(b"")
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Conv2d(2, 2, 3))
    images = np.load(source / "fields.npy")
    with pytest.raises(natstats.UsageError, match="e1 also holds notes, which natstats did not"):
        natstats.measure_series(model, source / "e*.pth", images, out=series, overwrite=True)


@pytest.mark.slow
def test_a_comparison_keeps_what_else_is_there(call, series):
    command = ("compare", series / "e1", series / "e2", "--out", "diff")
    call(*command)
    assert foreign(Path("diff"), "comparison") == []
    call(*command, "--overwrite")
    Path("diff/notes").write_text("mine")
    assert "diff also holds notes" in call(*command, "--overwrite", code=2).stderr
    assert Path("diff/notes").read_text() == "mine"


@pytest.mark.slow
def test_plot_replaces_its_own_figures_and_only_when_asked(call, run, series):
    first = call("plot", run, "--out", "figs").stdout.split()
    assert first == [f"figs/{path.name}" for path in map(Path, first)]
    Path("figs/notes.svg").write_text("mine")
    before = {path.name: path.stat().st_ino for path in Path("figs").iterdir()}
    assert "which are kept (--overwrite" in call("plot", run, "--out", "figs", code=2).stderr
    assert {path.name: path.stat().st_ino for path in Path("figs").iterdir()} == before
    call("plot", run, "--out", "figs", "--overwrite")
    now = {path.name: path.stat().st_ino for path in Path("figs").iterdir()}
    assert now.keys() == before.keys()
    assert [name for name in now if now[name] == before[name]] == ["notes.svg"]
    call("plot", series, "--out", "figs")  # other names, beside them
    Path("figs/law.svg").write_text("<svg>drawn by hand</svg>")
    error = call("plot", run, "--out", "figs", "--overwrite", code=2).stderr
    assert "holds law.svg, which natstats did not draw" in error
    assert Path("figs/law.svg").read_text() == "<svg>drawn by hand</svg>"
    assert not list(Path("figs").glob(".*"))


# Interruptions


@pytest.mark.slow
def test_an_interruption_tells_what_is_in_place(call, run, series, source, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as at:
        at.setattr("natstats.runs.tables.text_table", stop)
        error = call("fit", run, "--out", "new", code=130).stderr
        assert "Error: interrupted; new is written and whole" in error
        assert len(natstats.Run.open("new").layers) == 4
        error = call("images", source / "fields.npy", code=130).stderr
        assert "interrupted; runs/fields is written and whole" in error
    with monkeypatch.context() as at:
        at.setattr(Series, "table", stop)
        error = call("fit", series, "--out", "again", code=130).stderr
        assert "interrupted; again is written and whole" in error
        assert len(Series.open("again").frame) == 2
    with monkeypatch.context() as at:
        at.setattr("natstats.report.pages.run.write_report", stop)
        error = call("fit", run, "--out", "third", code=130).stderr
        assert "interrupted; nothing was written" in error
        assert not Path("third").exists()
    with monkeypatch.context() as at:
        at.setattr("natstats.files.folders.move_in", stop)
        at.setattr("natstats.report.figures.placing.move_in", stop)
        assert "nothing was written" in call("plot", run, "--out", "figs", code=130).stderr
        assert not Path("figs").exists()


@pytest.mark.slow
def test_an_interruption_while_figures_are_put_in_place(call, run, monkeypatch):
    real, calls = Path.replace, []

    def replace(self, target):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    error = call("plot", run, "--out", "figs", code=130).stderr
    assert "interrupted; figs is written and whole" in error
    assert {path.suffix for path in Path("figs").iterdir()} == {".svg", ".png"}


def test_a_run_that_was_left_hidden_is_brought_back_and_told(call, run):
    Path(".run.natstats-old.x").mkdir()
    run.rename(Path(".run.natstats-old.x") / "run")
    call("fit", "run", "--out", "new")
    assert run.is_dir()
    assert not Path(".run.natstats-old.x").exists()


# Numbers that are too large, and places that are none


@pytest.mark.parametrize(
    ("option", "most"),
    [("--groups", 10_000), ("--batch-size", 16_384), ("--seed", 2**32 - 1), ("--limit", 10**9),
     ("--workers", 256), ("--resamples", 100_000), ("--size", 32_768), ("--frames", 10_000)],
)  # fmt: skip
@pytest.mark.parametrize("value", [10**12, 10**60, 2**63, 2**64])
def test_the_largest_numbers_are_said(call, source, option, most, value):
    error = call("images", source / "fields.npy", option, value, code=2).stderr
    assert f"Error: {option}: expected a whole number of at most {most}; got {value}" in error
    assert not Path("runs").exists()


@pytest.mark.parametrize("option", ["--groups", "--batch-size", "--limit", "--resamples"])
def test_negative_numbers_are_refused(call, source, option):
    assert (
        "expected a whole number of at least 1"
        in call("images", source / "fields.npy", option, -5, code=2).stderr
    )


def test_seeds_of_a_control_have_limits(call, source):
    for value, words in ((10**9, "at most 1000"), (-1, "at least 2"), (1, "at least 2")):
        error = call(
            "measure", "cifar_resnet20", "--images", source / "fields.npy", "--checkpoint",
            demo.photographs().with_name("cifar_resnet20_textures.safetensors"),
            "--control", "random-weights", "--control-seeds", value, code=2,
        ).stderr  # fmt: skip
        assert f"--control-seeds: expected a whole number of {words}" in error


@pytest.mark.slow
def test_more_groups_than_images_are_ordinary(call, source):
    call("images", source / "fields.npy", "--groups", 10_000, "--out", "run")
    few = natstats.measure_images(np.load(source / "fields.npy"), n_groups=8)
    assert natstats.Run.open("run").layers.exponent.tolist() == few.layers.exponent.tolist()


def test_many_groups_and_many_resamples_are_too_much_together(call, source):
    rng = np.random.default_rng(0)
    np.save("many.npy", np.float32(rng.standard_normal((1000, 1, 8, 8))))
    call("images", "many.npy", "--groups", 1000, "--out", "run")
    error = call("fit", "run", "--interval", "bootstrap", "--resamples", 100_000, code=2).stderr
    # 2^26 / 1000
    assert "resamples: expected at most 67108 with 1000 groups of images; got 100000" in error


def test_the_home_of_nobody_is_a_sentence(call, run, source):
    for command in (
        ("fit", run, "--out", "~nobody-of-this-name/x"),
        ("fit", "~nobody-of-this-name/run"),
        ("plot", "~nobody-of-this-name/run"),
        ("plot", run, "--out", "~nobody-of-this-name"),
        ("images", source / "fields.npy", "--out", "~nobody-of-this-name/x"),
        ("compare", run, run, "--out", "~nobody-of-this-name/x"),
    ):
        assert "expected the home of a user behind ~; got ~nobody" in call(*command, code=2).stderr


def test_too_little_memory_is_a_sentence(call, run, monkeypatch):
    for error in (MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: x")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr("natstats.runs.run.fit_layers", fail)
        assert "memory: expected work that fits into it" in call("fit", run, code=1).stderr


def test_a_run_is_saved_beside_what_came_in_the_meantime(tmp_path, caplog):
    images = np.random.default_rng(0).normal(size=(4, 1, 16, 16))
    out = tmp_path / "a"

    def come(done: int, total: int) -> None:
        (out / "notes.txt").write_text("of somebody else")

    run = natstats.measure_images(images, out=out, progress=come)
    assert run.path == tmp_path / "a-2"
    assert (tmp_path / "a-2/run.json").is_file()
    assert [path.name for path in out.iterdir()] == ["notes.txt"]
    assert "what was measured goes to" in caplog.text


def test_fit_of_the_root_is_a_sentence(call):
    assert "holds no run.json" in call("fit", "/", code=2).output
