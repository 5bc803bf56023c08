"""The command line: bad input is answered in one sentence."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import natstats
from natstats import demo

pytestmark = pytest.mark.usefixtures("quick")


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
            "model-arg: expected arguments of cifar_resnet20; got width=3: it takes num_c",
        ),
    ],
)
def test_bad_arguments_of_a_model(call, photographs, arguments, words):
    given = [part for one in arguments for part in ("--model-arg", one)]
    error = call(
        "measure", "cifar_resnet20", "--weights", "none", "--images", photographs, *given, code=2
    ).stderr
    assert words in " ".join(error.split())


@pytest.mark.slow
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
        ("--images {photos} --batch-size 0", 2, "batch-size: .*at least 1; got 0"),
        ("--images {photos} --groups 0", 2, "groups: .*at least 1; got 0"),
        ("--images {photos} --level 95", 2, "level: .*between 0 and 1; got 95"),
        ("--images {photos} --limit 0", 2, "limit: .*at least 1; got 0"),
        ("--images {photos} --edges hamming", 2, "--edges: expected one of sine, hann,"),
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

    monkeypatch.setattr("natstats.spectra.input_spectra.InputSpectra.update", interrupt)
    assert "interrupted; nothing was written" in call("images", photographs, code=130).stderr
    assert not Path("runs").exists()


def test_a_defect_is_said_to_be_one(call, photographs, monkeypatch):
    def defect(*arguments, **options):
        raise ZeroDivisionError("of the author")

    monkeypatch.setattr("natstats.spectra.input_spectra.InputSpectra.update", defect)
    error = call("images", photographs, code=1, is_defect=True).stderr
    assert "ZeroDivisionError: of the author" in error
    assert "--debug" in error


@pytest.mark.parametrize(
    "arguments",
    [
        ["measure", "cifar_resnet8", "--weights", "none", "--images", "{photos}", "--checkpoint"],
        ["images"], ["fit"], ["compare", "run"], ["plot"], ["law"], ["merge"], ["table"],
        ["measure", "cifar_resnet8", "--images"], ["images", "{photos}", "--out"],
    ],
    ids=lambda one: " ".join(one[:1] + one[-1:]),
)  # fmt: skip
def test_a_name_that_no_file_can_have(call, photographs, arguments):
    given = [photographs if one == "{photos}" else one for one in arguments]
    for name in ("x" * 300, "a/" + "x" * 5000, "a\u0430" * 200):
        assert call(*given, name, code=None).exit_code in (1, 2)


@pytest.mark.parametrize("code", ["EACCES", "EIO", "ESTALE", "ENOSPC", "ENAMETOOLONG"])
def test_what_a_disk_is_to_blame_for_is_no_defect(call, monkeypatch, code):
    number = getattr(errno, code)

    def refused(*given):
        raise OSError(number, os.strerror(number), "some/file")

    monkeypatch.setattr("natstats.runs.run.Run.open", refused)
    said = call("fit", "run", code=1).stderr
    assert os.strerror(number) in said
    assert said.startswith(("Error: files: expected", "Error: disk: expected room"))
