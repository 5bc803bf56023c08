"""Several processes stop where one does, and go on later in another number."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.runs.run import Run
from tests.measurement.processes import torchrun

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.slow]

SETTINGS = {"batch_size": 8, "control": "random-weights", "control_seeds": 2}


def images() -> np.ndarray:
    return np.float32(natstats.power_law_fields(1200, 24, 24, alpha=2.0, seed=0)[:, None])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3)).eval()


WORKER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch, natstats
import natstats.report.pages.run as pages
from tests.measurement.test_until_together import SETTINGS, images, network

pages.write_report = lambda folder, report: (folder / "report.html").touch()
torch.set_num_threads(1)
stop, rank, n_batches = int(os.environ.get("STOP", "-1")), os.environ["RANK"], 0

class Network(torch.nn.Sequential):
    def forward(self, images):
        global n_batches
        n_batches += len(images) > 1
        if rank == "1" and n_batches == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(images)

run = natstats.measure(Network(*network()).eval(), images(), until=float(sys.argv[3]),
                       out=sys.argv[2], save_every=0.0, **SETTINGS)
os.write(1, f"rank {rank} {run.info['images']['n_images']}\\n".encode())
"""


def work(tmp_path: Path, n: int, until: float, **given: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    root = str(Path(__file__).parents[2])
    return torchrun(n, str(script), root, str(tmp_path / "run"), str(until), **given)


def assert_close(found: Run, whole: Run) -> None:
    assert found.info["images"] == whole.info["images"]
    assert found.info["warnings"] == whole.info["warnings"]
    assert found.options == whole.options
    pairs = [(found.spectra, whole.spectra)]
    pairs += [
        (one.spectra, other.spectra)
        for one, other in zip(found.random_weights, whole.random_weights, strict=True)
    ]
    for mine, theirs in pairs:
        for one, other in zip(mine, theirs, strict=True):
            np.testing.assert_array_equal(one.spectrum.count, other.spectrum.count)
            np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=3e-6)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_several_processes_stop_where_one_does_and_go_on(tmp_path, n):
    """Of two looks at least; then with a smaller width, in another number."""
    model, before = network(), 128
    for until, world in ((0.11, n), (0.08, n % 3 + 1)):
        done = work(tmp_path, world, until)
        assert done.returncode == 0, done.stderr[-2000:]
        alone = natstats.measure(
            model, images(), until=until, out=tmp_path / "alone", save_every=0.0, **SETTINGS
        )
        n_images = alone.info["images"]["n_images"]
        assert before < n_images < 1200
        ranks = [f"rank {rank} {n_images}" for rank in range(world)]
        assert sorted(done.stdout.splitlines()) == ranks
        assert_close(Run.open(tmp_path / "run"), alone)
        before = n_images


def test_after_a_rank_was_killed_they_stop_at_the_same_place(tmp_path):
    """Before the first look, and behind it: what was lost is measured again, and no more."""
    whole = natstats.measure(network(), images(), until=0.11, **SETTINGS)
    for stop in (3, 8):
        done = work(tmp_path, 2, 0.11, STOP=str(stop))
        assert done.returncode != 0
        assert not (tmp_path / "run" / "run.json").exists()
    done = work(tmp_path, 3, 0.11)
    assert done.returncode == 0, done.stderr[-2000:]
    assert_close(Run.open(tmp_path / "run"), whole)


@pytest.mark.parametrize("n", [2, 3])
def test_of_a_stream_they_stop_with_about_as_many(tmp_path, shards, stream, n):
    """Whole shards are dealt out, so that the images are others."""
    settings = ["--size", "32", "--crop", "32", "--batch-size", "2", "--groups", "16"]
    out, source = tmp_path / "run", stream(shards)
    script = tmp_path / "worker.py"
    script.write_text(
        "import runpy, natstats.measurement.until as until\n"
        "until.Until.first = 8\n"
        "until.Until.__init__.__defaults__ = (0, 8, 0, None)\n"
        "runpy.run_module('natstats_cli', run_name='__main__')\n"
    )
    given = ["images", source, *settings, "--out", str(out)]
    done = torchrun(n, str(script), *given, "--until", "50")
    assert done.returncode == 0, done.stderr[-2000:]
    run = Run.open(out)
    assert 8 <= run.info["images"]["n_images"] <= 8 + 2 * n
    assert run.options.stopped
    assert any("no interval is wider than 50" in one for one in run.info["warnings"])
    done = torchrun(n, str(script), *given, "--until", "1e-6")
    assert done.returncode == 0, done.stderr[-2000:]
    run = Run.open(out)
    whole = natstats.measure_images(source, size=32, crop=32, batch_size=2, n_groups=16)
    assert not run.options.stopped
    assert run.info["images"] == whole.info["images"]
    for one, other in zip(run.spectra, whole.spectra, strict=True):
        np.testing.assert_array_equal(one.spectrum.count, other.spectrum.count)
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=3e-6)
