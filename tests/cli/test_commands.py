"""The command line: every command runs, writes, and answers bad input in one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import natstats
from natstats import demo

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("natstats")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted(demo.photographs().glob("*.jpg"))[:5]:
        with Image.open(path) as image:
            image.resize((80, 64)).save(folder / f"{path.stem}.png")
    return folder


@pytest.fixture(scope="session")
def measured(group, photographs, tmp_path_factory):
    """A finished run."""
    path = tmp_path_factory.mktemp("runs") / "small"
    result = CliRunner().invoke(
        group,
        f"measure cifar_resnet20 --weights none --size 48 --images {photographs} --out {path}",
    )
    assert result.exit_code == 0, result.output
    return path, result


def test_measure_prints_a_table_and_a_verdict_and_writes_a_run(measured):
    path, result = measured
    assert "stage3.2.conv2" in result.stdout
    assert re.search(r"trend|exponent (rises|falls)|Undecided", result.stdout)
    assert "untrained" in result.stdout
    assert str(path / "report.html") in result.stdout
    assert "5 of 5 images" in result.stderr  # plain lines where there is no terminal
    run = natstats.Run.open(path)
    assert len(run.layers) == 21
    assert "natstats" in run.info["command"]


def test_without_out_a_new_run_is_made_every_time(call, photographs):
    arguments = ["images", photographs]
    assert f"runs/{photographs.name} " in call(*arguments).stdout
    assert f"runs/{photographs.name}-2 " in call(*arguments).stdout


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


def test_fit_puts_another_measure_of_depth_on_the_axis(call, measured):
    path, _ = measured
    out = call("fit", path, "--depth", "receptive-field", "--out", "fields").stdout
    fields = natstats.Run.open("fields")
    assert fields.law.sentence() in out
    assert (fields.options.depth, fields.law.depth) == ("receptive-field", "receptive-field")
    page = Path("fields/report.html").read_text()
    assert "side of the theoretical receptive field" in page
    assert ">receptive field</th>" in page
    assert json.loads(Path("fields/law.json").read_text())["depth"] == "receptive-field"


def test_plot_draws_one_run_or_several(call, measured):
    path, _ = measured
    call("plot", path, "--out", "figs")
    assert {p.name for p in Path("figs").iterdir()} == {
        f"{name}.{kind}"
        for name in ("law", "spectra", "spread", "sensitivity")
        for kind in ("svg", "png")
    }
    call("fit", path, "--estimator", "ols", "--out", "other")
    call("plot", path, "other", "--out", "both")
    assert {"compare.svg", "compare.png"} <= {p.name for p in Path("both").iterdir()}
    assert Path("both/small/law.svg").is_file()
    assert Path("both/other/law.svg").is_file()


def test_compare_prints_a_table_and_a_verdict_and_writes_only_when_asked(call, measured):
    path, _ = measured
    call("fit", path, "--out", "other")
    before = set(Path().iterdir())
    out = call("compare", path, "other").stdout
    assert "The exponents of other are exactly those of small." in out
    assert "Paired" in out
    assert "(6 of 19 layers not shown)" in out  # one of the two rows of the images is not, too
    assert set(Path().iterdir()) == before
    call("compare", path, "other", "--out", "diff")
    assert {"comparison.csv", "comparison.json", "difference.svg", "difference.png"} == {
        p.name for p in Path("diff").iterdir()
    }
    assert "exists and is kept" in call("compare", path, "other", "--out", "diff", code=2).stderr
    call("compare", path, path, "--out", "diff", "--overwrite")
    error = call("compare", path, path, "--out", "other", "--overwrite", code=2).stderr
    assert "expected a comparison to overwrite" in error


def test_runs_that_cannot_be_compared_are_one_sentence(call, measured):
    path, _ = measured
    assert "run: expected a run directory" in call("compare", path, "nowhere", code=2).stderr
    call("fit", path, "--band", "0.05:0.4", "--out", "other")
    error = call("compare", path, "other", code=2).stderr
    assert re.search(r"band: expected the same in both runs.*natstats fit", error)


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


def test_images_takes_an_array_as_it_is(call):
    fields = natstats.power_law_fields(200, 20, 16, 1.0, seed=0)[:, None]
    np.save("fields.npy", fields)
    call("images", "fields.npy", "--out", "run")
    exponent = natstats.Run.open("run").layers.exponent
    assert exponent.tolist() == pytest.approx([1.0], abs=0.1)


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


def test_how_images_enter_can_be_chosen_and_is_in_the_command(call, photographs):
    call(
        "measure", "cifar_resnet20", "--weights", "none", "--images", photographs, "--size", 56,
        "--crop", 48, "--no-normalize", "--equal-power", "--no-probe", "--out", "run",
    )  # fmt: skip
    run = natstats.Run.open("run")
    assert run.info["options"]["probe"] is False
    images = run.info["images"]
    assert (images["size"], images["resize"]) == (48, 56)
    assert images["normalisation"]["std"] == [1.0, 1.0, 1.0]
    assert run.options.normalize is True
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert "central 48 × 48 px, in [0, 1], not normalised" in page


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


def test_demo_runs_on_what_ships(call):
    result = call("demo")
    assert "runs/demo/report.html" in result.stdout
    run = natstats.Run.open("runs/demo")
    assert len(run.layers) == 21
    assert run.info["model"]["trained"]
    assert json.loads(Path("runs/demo/law.json").read_text())["n_layers"] == 19


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
    from natstats.networks import input_forms, random_weights
    from natstats.spectra import edges

    parameters = {p.name: p for p in group.get_command(None, "measure").params}
    assert tuple(parameters["edges"].type.choices) == edges.EDGES
    assert tuple(parameters["estimator"].type.choices) == options.ESTIMATORS
    assert tuple(parameters["interval"].type.choices) == options.INTERVALS
    assert tuple(parameters["depth"].type.choices) == options.DEPTHS
    assert tuple(parameters["control"].type.choices) == random_weights.CONTROLS
    assert tuple(parameters["takes"].type.choices) == input_forms.FORMS


class Hook:
    """Would run code when unpickled."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.fixture
def checkpoint(tmp_path):
    def save(content):
        path = tmp_path / "c.pth"
        torch.save(content, path)
        return path

    return save


def test_unknown_model_names_near_ones(call, photographs):
    error = call("measure", "resnet5", "--images", photographs, code=2).stderr
    assert "resnet50" in error


def test_unknown_command_names_near_ones(call):
    assert "measure" in call("mesure", code=2).stderr


def test_a_checkpoint_that_does_not_fit(call, photographs, checkpoint):
    path = checkpoint({"conv1.weight": torch.zeros(1)})
    error = call(
        "measure", "resnet18", "--images", photographs, "--checkpoint", path, code=1
    ).stderr
    assert re.search(r"checkpoint: .*99 missing, 1 of another shape", error)
    assert "\n    conv1.weight: expected 64 x 3 x 7 x 7, in the file 1\n" in error


def test_a_checkpoint_with_code(call, photographs, checkpoint):
    path = checkpoint({"w": torch.zeros(1), "hook": Hook()})
    error = call(
        "measure", "resnet18", "--images", photographs, "--checkpoint", path, code=1
    ).stderr
    assert "needs builtins.print to be unpickled, and is refused" in error


def test_strict_has_three_states(call, photographs, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no")
    weights = demo.network().model.state_dict()
    torch.save(weights, tmp_path / "whole.pth")
    torch.save({k: v for k, v in weights.items() if "stage1.1" not in k}, tmp_path / "part.pth")

    def measure(file, *flags, code=0):
        return call(
            "measure", "cifar_resnet20", "--images", folder, "--size", 32, "--layers", "stage1.0.*",
            "--checkpoint", tmp_path / file, *flags, code=code,
        )  # fmt: skip

    assert "1 image could not be read" in measure("whole.pth").stdout
    assert "broken.png" in measure("whole.pth", "--strict", code=1).stderr
    for flags in ((), ("--strict",)):
        assert "missing" in measure("part.pth", *flags, code=1).stderr
    lenient = measure("part.pth", "--no-strict").stdout
    assert "10 are missing (stage1.1.conv1.weight" in lenient
    assert "1 image could not be read" in lenient


def test_a_factory_with_arguments(call, photographs, tmp_path):
    (tmp_path / "nets_of_cli_test.py").write_text(
        "from torch import nn\n"
        "def make(channels, text='x', shape=(1, 2), flag=True):\n"
        "    assert (channels, text, shape, flag) == (5, 'a=b', (3, 4), False)\n"
        "    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.ReLU())\n"
    )
    arguments = ["channels=5", "text=a=b", "shape=(3, 4)", "flag=false"]
    out = call(
        "measure", "nets_of_cli_test:make", "--images", photographs, "--size", 32,
        *(part for argument in arguments for part in ("--model-arg", argument)),
    ).stdout  # fmt: skip
    assert "whether the network is trained is not known" in out
    (run,) = Path("runs").iterdir()
    assert natstats.Run.open(run).info["model"]["name"] == "nets_of_cli_test:make"
    assert natstats.Run.open(run).info["model"]["trained"] is None
    assert ":" not in run.name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["depth"], "expected KEY=VALUE, such as num_classes=10; got 'depth'"),
        (["=3"], "expected KEY=VALUE"),
        (["a b=3"], "expected KEY=VALUE"),
        (["num_classes=2", "num_classes=3"], "expected each key once; got 'num_classes'"),
        (
            ["width=3"],
            "model_args: expected arguments of cifar_resnet20; got width=3: it takes num_c",
        ),
    ],
)
def test_bad_arguments_of_a_model(call, photographs, arguments, words):
    given = [part for one in arguments for part in ("--model-arg", one)]
    error = call(
        "measure", "cifar_resnet20", "--weights", "none", "--images", photographs, *given, code=2
    ).stderr
    assert words in " ".join(error.split())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("--images {empty}", 2, "images: expected at least one image"),
        ("--images nowhere", 2, "images: expected a folder"),
        ("--images cifr10:{empty}", 2, "images: expected a path or one of .*cifar10.*'cifr10'"),
        ("--images cifar10:{empty}", 2, "images: expected cifar-10-batches-py below .*empty"),
        ("--images {photos} --crop 48", 2, "crop: expected at most the size 32; got 48"),
        ("--images {photos} --frames 3", 2, "frames: expected only beside clips:ROOT; got 3"),
        ("--images {photos} --layers conv9", 2, "layers: .*nothing matched 'conv9'"),
        ("--images {photos} --band 0.4:0.1", 2, "band: expected two rising numbers"),
        ("--images {photos} --band wide", 2, "LOW:HIGH"),
        ("--images {photos} --batch-size 0", 2, "batch_size: .*at least 1; got 0"),
        ("--images {photos} --groups 0", 2, "n_groups: .*at least 1; got 0"),
        ("--images {photos} --level 95", 2, "level: .*between 0 and 1; got 95"),
        ("--images {photos} --limit 0", 2, "limit: .*at least 1; got 0"),
        ("--images {photos} --edges hamming", 2, "'hamming' is not one of"),
        ("--images {photos} --device warp", 2, "device: "),
        ("--images {photos} --device cuda:9", 2, "device: "),
        ("--images {photos} --seed -1", 2, "seed: .*at least 0; got -1"),
        ("--images {photos} --out {file}/run", 2, "out: expected a place"),
        ("", 2, "Missing option '--images'"),
    ],
)
def test_bad_input_is_one_sentence(call, photographs, tmp_path, arguments, code, words):
    (tmp_path / "empty").mkdir()
    given = arguments.format(
        empty=tmp_path / "empty", photos=photographs, file=next(photographs.iterdir())
    ).split()
    error = call(
        "measure", "cifar_resnet20", "--weights", "none", "--size", "32", *given, code=code
    ).stderr
    assert re.search(words, error), error
    assert not Path("runs").exists()


def test_an_existing_out_is_found_out_before_the_work(call, photographs, measured):
    path, _ = measured
    # The model does not exist either: the target is checked first, so nothing was built.
    error = call("measure", "nonsense", "--images", photographs, "--out", path, code=2).stderr
    assert "exists and is kept" in error


def test_strict_stops_at_an_unreadable_image(call, photographs, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in photographs.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.png").write_bytes(b"no")
    assert "1 image could not be read" in call("images", folder, "--size", 32).stdout
    assert "broken.png" in call("images", folder, "--size", 32, "--strict", code=1).stderr


def test_debug_shows_the_traceback(group, tmp_path):
    result = CliRunner().invoke(group, ["fit", str(tmp_path), "--debug"])
    assert isinstance(result.exception, natstats.NatstatsError)


def test_an_interrupt_says_so_and_leaves_nothing(call, photographs, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("natstats.measurement.InputSpectra.update", interrupt)
    assert "interrupted; nothing was written" in call("images", photographs, code=130).stderr
    assert not Path("runs").exists()


def test_a_defect_is_said_to_be_one(call, photographs, monkeypatch):
    def defect(*arguments, **options):
        raise ZeroDivisionError("of the author")

    monkeypatch.setattr("natstats.measurement.InputSpectra.update", defect)
    error = call("images", photographs, code=1).stderr
    assert "ZeroDivisionError: of the author" in error
    assert "--debug" in error


def test_help_imports_nothing_heavy():
    """What makes `natstats --help` quick: neither numpy nor torch nor matplotlib is touched."""
    code = (
        "import sys; from natstats_cli.main import natstats\n"
        "natstats(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


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
