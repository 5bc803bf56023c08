"""Ctrl-C and SIGTERM to several processes: each ends its batch and saves, however long it takes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from natstats.files.ownership import STATE
from natstats.files.state_files import read_state
from natstats.measurement.pass_sums import PassSums

pytestmark = pytest.mark.slow

WORKER = """
import os, sys, time
sys.path.insert(0, sys.argv[1])
import torch, natstats
from tests.measurement.test_until_together import network

torch.set_num_threads(1)
rank, n_batches = os.environ["RANK"], 0

class Network(torch.nn.Sequential):
    def forward(self, images):
        global n_batches
        n_batches += len(images) > 1
        if rank in sys.argv[3] and n_batches == 2:
            open(f"{sys.argv[2]}.busy-{rank}", "w").close()
            time.sleep(4)  # longer than others wait for one that does not react
        return super().forward(images)

images = torch.rand(32, 1, 16, 16, generator=torch.Generator().manual_seed(0))
natstats.measure(Network(*network()).eval(), images, batch_size=4, out=sys.argv[2],
                 save_every=1000.0)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", ["0", "1", "01"])
def test_each_ends_its_batch_and_saves(tmp_path, busy, number):
    """The others are idle: they have measured all of theirs, and wait."""
    script, out = tmp_path / "worker.py", tmp_path / "run"
    script.write_text(WORKER)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
        str(script), str(Path(__file__).parents[2]), str(out), busy,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as started:
        marks = [tmp_path / f"run.busy-{rank}" for rank in busy]
        end = time.monotonic() + 90
        while not all(mark.exists() for mark in marks) and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1)  # for the others to be through
        started.send_signal(number)
        _, said = started.communicate(timeout=60)
    assert all(mark.exists() for mark in marks), said[-2000:]
    for rank in (0, 1):
        name = "trained.safetensors" if rank == 0 else "trained.rank-1.safetensors"
        reading = PassSums.from_state(read_state(out / STATE / name)).reading
        assert len(reading.numbers) == (8 if str(rank) in busy else 16)
    assert "keeps what was measured" in said, said[-3000:]
    assert "was killed" not in said
