"""The disk is full from any file on: a sentence, what was there stays, what was measured is kept.

The system itself refuses the writing: from the k-th file that is opened on, no file may have any
byte. It is done for every k until a command comes to its end, or for every few of them where that
takes long.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import natstats
from natstats.files.ownership import STATE

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.slow]


class Disk:
    """Counts the files below a folder that are opened for writing; full from one of them on."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home, self.n, self.full_at = str(home), 0, None
        for module in (builtins, io):
            monkeypatch.setattr(module, "open", self._counting(open, lambda a, k: self._mode(a, k)))
        monkeypatch.setattr(
            os, "open", self._counting(os.open, lambda a, k: a[1] & (os.O_WRONLY | os.O_RDWR))
        )

    @staticmethod
    def _mode(given, named):
        mode = named.get("mode", given[1] if len(given) > 1 else "r")
        return any(letter in mode for letter in "wxa+")

    def _counting(self, real, is_writing):
        def opened(*given, **named):
            path = given[0] if given else named["file"]
            is_path = isinstance(path, str | os.PathLike) and is_writing(given, named)
            if is_path and os.path.abspath(path).startswith(self.home):
                self.n += 1
                if self.n == self.full_at:
                    self.fill()
            return real(*given, **named)

        return opened

    def fill(self):
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

    @contextlib.contextmanager
    def full_from(self, n):
        """Full from the n-th file on, until the context closes."""
        self.n, self.full_at = 0, n
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        try:
            yield
        finally:
            self.full_at = None
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def disk(tmp_path, monkeypatch):
    return Disk(tmp_path, monkeypatch)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(9):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def contents(folder):
    """Everything below a folder, but for the state of unfinished work."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and STATE not in path.parts
    }


def hidden(folder):
    """What no run should leave."""
    names = {path.name for path in folder.rglob("*")} - {STATE}
    return [name for name in names if "partial" in name or "natstats-new" in name]


def ends(disk, run, check, step=1):
    """Run with the disk full from the first file on, the next, ..., until it comes to its end."""
    for n in range(1, 400, step):
        with disk.full_from(n):
            result = run()
            is_reached = disk.n >= n
        if not is_reached:
            assert result.exit_code == 0, result.output
            return n
        check(n, result)
    raise AssertionError("it has no end")


def numbers(run):
    found = natstats.Run.open(run)
    spectra = found.spectra + [one for control in found.random_weights for one in control.spectra]
    return np.concatenate([one.spectrum.power.ravel() for one in spectra])


NETS = """
import torch
from torch import nn
def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2)).eval()
"""

COMMANDS = {
    "images": ["images", "photos"],
    "measure": ["measure", "nets_of_full_disk:make", "--images", "photos"],
    "control": [
        "measure", "nets_of_full_disk:make", "--images", "photos", "--control-seeds", "2",
        "--control", "random-weights",
    ],
    "explain": [
        "measure", "nets_of_full_disk:make", "--images", "photos", "--explain",
        "--counterfactual", "shuffle-kernels",
    ],
    "until": ["images", "photos", "--until", "0.0001"],
}  # fmt: skip
STEPS = {"images": 2, "measure": 7, "control": 11, "explain": 11, "until": 7}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_was_measured_is_kept_or_measured_again(disk, call, tmp_path, photos, name):
    (tmp_path / "nets_of_full_disk.py").write_text(NETS)
    command = [*COMMANDS[name], "--size", 32, "--crop", 32, "--batch-size", 4, "--save-every", 0]
    call(*command, "--out", "whole")
    expected = numbers(tmp_path / "whole")
    n_finished = 0

    def check(n, result):
        nonlocal n_finished
        out = tmp_path / "run"
        if result.exit_code == 0:  # what failed was not needed
            np.testing.assert_array_equal(numbers(out), expected)
            shutil.rmtree(out)
            return
        assert result.exit_code == 1, result.output
        assert not (out / "run.json").exists()
        assert not hidden(tmp_path)
        assert not out.exists() or any((out / STATE).iterdir())
        if f"`natstats fit {Path('run')}`" in result.stderr:
            n_finished += 1
            call("fit", "run")
        else:
            call(*command, "--out", "run")
        np.testing.assert_array_equal(numbers(out), expected)
        assert not (out / STATE).exists()
        shutil.rmtree(out)

    ends(disk, lambda: call(*command, "--out", "run", code=None), check, STEPS[name])
    assert n_finished


def test_a_part_is_kept_or_measured_again(disk, call, tmp_path, photos):
    command = ["images", photos, "--size", 32, "--crop", 32, "--save-every", 0, "--shard", "1/2"]
    call(*command, "--out", "whole")

    def check(n, result):
        assert result.exit_code in (0, 1), result.output
        if result.exit_code == 1:
            assert not (tmp_path / "part/part.json").exists()
            call(*command, "--out", "part")
        first, second = contents(tmp_path / "whole"), contents(tmp_path / "part")
        assert first.keys() == second.keys()
        shutil.rmtree(tmp_path / "part")

    ends(disk, lambda: call(*command, "--out", "part", code=None), check)


def make_others(call, tmp_path):
    """A run, two parts, runs of networks, and two trainings."""
    for number in (1, 2):
        call(
            "images", "photos", "--size", 32, "--crop", 32, "--shard", f"{number}/2",
            "--out", f"part_{number}",
        )  # fmt: skip
    for seed in (0, 1):
        call("images", "photos", "--size", 32, "--crop", 32, "--seed", seed, "--out", f"run_{seed}")


@pytest.mark.parametrize(
    ("command", "before"),
    [
        (["merge", "part_1", "part_2", "--out", "out"], ["merge", "part_1", "--out", "out"]),
        (
            ["compare", "run_0", "run_1", "--out", "out"],
            ["compare", "run_0", "run_0", "--out", "out"],
        ),
        (["plot", "run_0", "--out", "out"], ["plot", "run_1", "--out", "out"]),
        (["fit", "run_0", "--band", "0.1:0.4", "--out", "out"], ["fit", "run_0", "--out", "out"]),
    ],
    ids=["merge", "compare", "plot", "fit"],
)  # fmt: skip
def test_what_was_there_stays(disk, call, tmp_path, photos, command, before):
    make_others(call, tmp_path)
    out = tmp_path / "out"
    call(*before)
    old = contents(out)

    def check(n, result):
        assert result.exit_code == 1, result.output
        assert contents(out) == old, n
        assert not hidden(tmp_path)

    ends(disk, lambda: call(*command, "--overwrite", code=None), check, 3)
    assert contents(out) != old or command[0] == "plot"  # figures are blank here


def test_a_law_and_a_table(disk, call, tmp_path, made_networks, made_runs):
    for k in range(3):
        made_networks.save(tmp_path / "nets" / f"net{k}", seed=k, model=f"resnet{k}")
    made = made_runs()
    for method, accuracy in (("ce", 0.55), ("kd", 0.75)):
        for seed in range(2):
            made.save(
                tmp_path / "runs" / method / f"seed-{seed}",
                method=method, seed=seed, accuracy=accuracy,
            )  # fmt: skip
    for command in (["law", "nets", "--out", "out"], ["table", "runs", "--out", "out"]):

        def check(n, result):
            assert result.exit_code == 1, result.output
            assert not (tmp_path / "out").exists()

        ends(disk, lambda command=command: call(*command, code=None), check, 5)
        shutil.rmtree(tmp_path / "out")


def test_a_series_goes_on(disk, call, tmp_path, photos):
    (tmp_path / "nets_of_full_disk.py").write_text(NETS)
    for epoch in (0, 1):
        torch.manual_seed(epoch)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2))
        torch.save(model.state_dict(), tmp_path / f"epoch_{epoch}.pth")
    command = [
        *COMMANDS["measure"], "--checkpoint", "epoch_*.pth", "--size", 32, "--crop", 32,
        "--batch-size", 4, "--save-every", 0,
    ]  # fmt: skip
    call(*command, "--out", "whole")
    names = {*contents(tmp_path / "whole")}

    def check(n, result):
        assert result.exit_code in (0, 1), result.output
        if result.exit_code == 1:
            assert not (tmp_path / "out/series.json").exists()
            call(*command, "--out", "out")
        assert {*contents(tmp_path / "out")} == names
        shutil.rmtree(tmp_path / "out")

    ends(disk, lambda: call(*command, "--out", "out", code=None), check, 25)


def test_a_training_goes_on(disk, call, tmp_path):
    generator = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(4):
                pixels = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"{number}.png")
    command = [
        "distill", "--student", "cifar_resnet8", "--data", "imagefolder:data", "--epochs", "2",
        "--size", "16", "--batch-size", "8", "--out", "out",
    ]  # fmt: skip

    def check(n, result):
        assert result.exit_code == 1, result.output
        assert not (tmp_path / "out/distill.json").exists()
        assert not hidden(tmp_path)
        call(*command)
        shutil.rmtree(tmp_path / "out")

    ends(disk, lambda: call(*command, code=None), check, 4)
