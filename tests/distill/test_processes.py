"""Several processes train one student."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from natstats.distill.run_folders import STATE
from natstats.distill.training.distillation import WEIGHTS


def weights_of(path):
    return load_file(path / WEIGHTS)


PROCESSES = """
import sys, torch
from torch import nn
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import distill
from natstats.distill.training.distributed import processes
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation

folder, out = sys.argv[1:]
recipe = Recipe(epochs=2, batch_size=10, size=16, learning_rate=0.05)


def network(width, seed):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, 2, 1),
              nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3)]
    return nn.Sequential(*layers)


with processes("cpu") as together:
    data = open_labelled("imagefolder:" + folder, recipe)
    setup = Distillation.of(network(4, 0), data, "kd+spectral+at+fitnets", teacher=network(8, 1),
                            recipe=recipe, method_args={"at.weight": 10.0, "fitnets.weight": 1.0})
    run = distill(setup, out, together=together, report=False)
    print("accuracy", together.rank, run.accuracy)
"""


@pytest.mark.slow
def test_two_processes_train_the_same_student_as_one(tmp_path, folder, monkeypatch, capsys):
    """Without batch norm, whose statistics are those of a process's share of the batch.

    A stage of hints trains a part of the student, and must not wait for the rest.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESSES, str(folder), str(tmp_path / "2")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
        )
        for rank in ("0", "1")
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["-c", str(folder), str(tmp_path / "1")])
    exec(PROCESSES, {})
    assert capsys.readouterr().out.count("accuracy") == 1
    for process in started:
        out, errors = process.communicate(timeout=600)
        assert process.returncode == 0, errors[-2000:]
        assert out.count("accuracy") == 1
    one, two = (weights_of(tmp_path / str(number)) for number in (1, 2))
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=1e-5, msg=key)


ONE_FAILS = """
import sys
import time
import torch
from natstats.distill.training import trainer
from natstats.distill.training.data import open_labelled
from natstats.distill.training.distillation import distill
from natstats.distill.training.distributed import processes
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation, classifier
from natstats.errors import NatstatsError

recipe = Recipe(epochs=2, batch_size=6, size=16)
prepared = trainer.prepared
n_batches = 0


def failing(images, recipe, device):
    global n_batches
    n_batches += 1
    if n_batches == 3 and torch.distributed.get_rank() == 1:
        raise NatstatsError("image 7 cannot be read")
    return prepared(images, recipe, device)


trainer.prepared = failing
with processes("cpu") as together:
    data = open_labelled("imagefolder:" + sys.argv[1], recipe)
    setup = Distillation.of(classifier("cifar_resnet8", 3), data, "ce", recipe=recipe)
    distill(setup, sys.argv[2], together=together, report=False)
"""


@pytest.mark.slow
def test_an_error_in_one_process_ends_all(tmp_path, folder):
    script = tmp_path / "train.py"
    script.write_text(ONE_FAILS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), str(folder), str(tmp_path / "run")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=600,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "image 7 cannot be read" in done.stderr


@pytest.mark.slow
def test_a_killed_process_of_a_training_is_named_once(tmp_path, folder):
    """By hand, without an agent that would end the others."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [
        sys.executable, "-m", "natstats_cli", "distill", "--student", "cifar_resnet8",
        "--size", "16", "--data", f"imagefolder:{folder}", "--epochs", "1000", "--batch-size", "10",
        "--out", "run",
    ]  # fmt: skip
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first, second = (
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
            env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
        )
        for rank in ("0", "1")
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 600
        while not (tmp_path / "run" / "history.csv").exists():
            assert first.poll() is None, first.communicate()
            assert time.monotonic() < deadline, "no epoch has ended"
            time.sleep(0.1)
        second.kill()
        # By itself, long before its 1000 epochs are over.
        out, errors = first.communicate(timeout=300)
    finally:
        first.kill()
        second.kill()
    silent = second.communicate(timeout=60)
    assert first.returncode == 1
    said = errors.strip().splitlines()
    assert [line for line in said if line.startswith("Error: ")] == said[-1:]
    assert f"rank 1 (process {second.pid} on " in said[-1]
    assert "--workers 0" in said[-1]
    assert "defect" not in errors
    assert out.startswith("Student: ")
    assert silent == ("", "")
    assert {entry.name for entry in (tmp_path / "run").iterdir()} == {STATE, "history.csv"}
