"""The command line: every command runs and writes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import natstats
from natstats import demo

pytestmark = pytest.mark.usefixtures("quick")

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("natstats")


@pytest.mark.slow
def test_measure_prints_a_table_and_a_verdict_and_writes_a_run(measured):
    path, result = measured
    assert "stage3.2.conv2" in result.stdout
    assert "untrained" in result.stdout
    assert str(path / "report.html") in result.stdout
    assert "5 of 5 images" in result.stderr  # plain lines where there is no terminal
    run = natstats.Run.open(path)
    assert len(run.layers) == 21
    assert run.verdict.lines() == [
        line for line in result.stdout.splitlines() if line in run.verdict.lines()
    ]
    assert "natstats" in run.info["command"]


@pytest.mark.slow
def test_without_out_a_new_run_is_made_every_time(call, photographs):
    arguments = ["images", photographs]
    assert f"runs/{photographs.name} " in call(*arguments).stdout
    assert f"runs/{photographs.name}-2 " in call(*arguments).stdout


@pytest.mark.slow
def test_fit_makes_a_new_run_and_leaves_the_old(call, measured):
    path, _ = measured
    before = (path / "layers.csv").read_bytes()
    out = call("fit", path, "--band", "0.05:0.4", "--estimator", "whittle", "--out", "new").stdout
    assert "new" in out
    assert (path / "layers.csv").read_bytes() == before
    options = natstats.Run.open("new").options
    assert (options.band, options.estimator) == ((0.05, 0.4), "whittle")
    call("fit", "new", "--level", "0.9", "--out", "new", "--overwrite")
    assert natstats.Run.open("new").options.level == 0.9
    call("fit", "new")
    assert natstats.Run.open("new-fit").options.level == 0.9


@pytest.mark.slow
def test_compare_prints_a_verdict_and_writes_a_page(call, measured):
    path, _ = measured
    call("fit", path, "--out", "other")
    out = call("compare", path, "other").stdout
    assert "The exponents of other are exactly those of small." in out
    assert "Paired" in out
    assert "(6 of 19 layers not shown)" in out  # one of the two rows of the images is not, too
    written = {"comparison.csv", "comparison.json", "report.html", "figures"}
    home = Path("reports/compare-small-other")
    assert out.splitlines()[-1] == f"Comparison: {home}   Report: {home / 'report.html'}"
    assert {p.name for p in home.iterdir()} == written
    call("compare", path, "other")
    assert Path("reports/compare-small-other-2/report.html").is_file()
    call("compare", path, "other", "--out", "diff")
    assert {p.name for p in Path("diff").iterdir()} == written
    assert "exists and is kept" in call("compare", path, "other", "--out", "diff", code=2).stderr
    call("compare", path, path, "--out", "diff", "--overwrite")
    error = call("compare", path, path, "--out", "other", "--overwrite", code=2).stderr
    assert "expected a comparison to overwrite" in error


@pytest.mark.slow
def test_runs_that_cannot_be_compared_are_one_sentence(call, measured):
    path, _ = measured
    assert "run: expected a run directory" in call("compare", path, "nowhere", code=2).stderr
    call("fit", path, "--band", "0.05:0.4", "--out", "other")
    error = call("compare", path, "other", code=2).stderr
    assert re.search(r"band: expected the same in both runs.*natstats fit", error)


@pytest.mark.slow
def test_a_control_is_measured_and_said(call, photographs):
    out = call(
        "measure", "cifar_resnet20", "--size", "32", "--images", photographs, "--checkpoint",
        demo.photographs().with_name("cifar_resnet20_textures.safetensors"),
        "--control", "random-weights", "--control-seeds", "2", "--out", "run",
    )  # fmt: skip
    assert "2 networks of the same architecture with random weights" in out.stdout
    assert "15 of 15 images" in out.stderr
    run = natstats.Run.open("run")
    assert run.control.seeds == (0, 1)
    assert run.control.n_layers >= 15
    error = call(
        "measure", "cifar_resnet20", "--weights", "none", "--images", photographs,
        "--control", "random-weights", code=2,
    ).stderr  # fmt: skip
    assert "control: expected a trained network" in error


@pytest.mark.slow
def test_runs_of_the_same_name_are_kept_apart(call, measured):
    path, _ = measured
    for folder in ("a", "b"):
        call("fit", path, "--out", f"{folder}/same")
    call("plot", "a/same", "b/same", "--out", "figs")
    assert Path("figs/same/law.svg").is_file()
    assert Path("figs/same-2/law.svg").is_file()


def test_the_examples_in_the_help_stand_on_lines_of_their_own(call):
    lines = [line.strip() for line in call("--help").stdout.splitlines()]
    assert (
        sum(line.startswith(("natstats demo  ", "natstats measure resnet50")) for line in lines)
        == 2
    )


def test_one_icon_does_not_decide_the_size_of_the_photographs(call, photographs, tmp_path):
    folder = tmp_path / "mixed"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    Image.new("RGB", (3, 3)).save(folder / "icon.png")
    assert "is smaller than the crop of 64 x 64" in call("images", folder, "--out", "run").stdout
    assert natstats.Run.open("run").layers.height[0] == 64


@pytest.mark.slow
def test_images_takes_an_array_as_it_is(call):
    fields = natstats.power_law_fields(200, 20, 16, 1.0, seed=0)[:, None]
    np.save("fields.npy", fields)
    call("images", "fields.npy", "--out", "run")
    exponent = natstats.Run.open("run").layers.exponent
    assert exponent.tolist() == pytest.approx([1.0], abs=0.1)


@pytest.mark.slow
def test_images_takes_patterns_lists_shards_and_clips(call, photographs):
    files = sorted(photographs.iterdir())
    Path("list.txt").write_text("\n".join(map(str, files)))
    with tarfile.open("shard.tar", "w") as tar:
        for file in files:
            tar.add(file, file.name)
    (Path("frames") / "a").mkdir(parents=True)
    for file in files:
        (Path("frames") / "a" / file.name).write_bytes(file.read_bytes())
    for source, name in (
        (f"{photographs}/*.png", photographs.name),
        ("list.txt", "list"),
        ("shard.tar", "shard"),
    ):
        out = call("images", source, "--crop", 48).stdout
        assert f"runs/{name} " in out
    runs = [natstats.Run.open(path) for path in sorted(Path("runs").iterdir())]
    assert len({run.info["images"]["contents"] for run in runs}) == 1
    call("images", "clips:frames", "--frames", 3, "--out", "clip")
    assert natstats.Run.open("clip").info["images"]["frames"] == 3


@pytest.mark.slow
def test_small_photographs_that_are_enlarged_are_told(call, photographs):
    out = call("images", photographs, "--size", 100, "--out", "run").stdout
    assert "Note: 5 of 5 images were smaller than what they were scaled to" in out


def test_a_folder_whose_name_is_not_utf8(call, photographs, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["natstats", "images", os.fsdecode(b"caf\xe9")])
    try:
        folder = Path(os.fsdecode(b"caf\xe9"))
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for file in photographs.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    call("images", folder, "--out", "run")
    info = natstats.Run.open("run").info
    assert info["images"]["source"] == r"caf\xe9"
    assert info["command"] == r"natstats images 'caf\xe9'"


def test_every_command_has_help_and_is_in_the_readme(group, call):
    readme = (ROOT / "README.md").read_text()
    for name in group.list_commands(None):
        assert "Usage: " in call(name, "--help").stdout
        assert f"natstats {name}" in readme, name


def test_every_option_has_help(group):
    for name in group.list_commands(None):
        for parameter in group.get_command(None, name).params:
            if parameter.param_type_name == "option":
                assert parameter.help, (name, parameter.name)


def test_choices_on_the_command_line_are_those_of_the_library(group):
    from natstats.fits import options
    from natstats.measurement import options as measure_options
    from natstats.networks import input_forms
    from natstats.spectra import edges

    parameters = {p.name: p for p in group.get_command(None, "measure").params}
    assert tuple(parameters["edges"].type.choices) == edges.EDGES
    assert tuple(parameters["estimator"].type.choices) == options.ESTIMATORS
    assert tuple(parameters["interval"].type.choices) == options.INTERVALS
    assert tuple(parameters["depth"].type.choices) == options.DEPTHS
    assert tuple(parameters["control"].type.choices) == measure_options.NETWORK_CONTROLS
    assert tuple(parameters["takes"].type.choices) == input_forms.INPUT_FORMS


def test_help_imports_nothing_heavy():
    """What makes `natstats --help` quick: neither numpy nor torch nor matplotlib is touched."""
    code = (
        "import sys; from natstats_cli.main import natstats\n"
        "natstats(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_shell_completion_offers_commands_and_options():
    def complete(words):
        return subprocess.run(
            [COMMAND],
            env={"_NATSTATS_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": "1"}
            | ({"COMP_CWORD": "2"} if words.count(" ") == 2 else {}),
            capture_output=True,
            text=True,
            check=False,
        ).stdout

    assert "plain,measure" in complete("natstats me")
    assert "plain,--estimator" in complete("natstats fit --est")
