"""A process that is killed: where that is said, and in what words."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from natstats.errors import NatstatsError
from natstats.images import image_sets
from natstats.images.workers import from_workers

KILLED = "one of them was killed, perhaps for lack of memory (take fewer --workers, or --workers 0)"

pytestmark = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="workers are not forked here"
)


@pytest.fixture(autouse=True)
def _forked(monkeypatch):
    # torch looks after its workers every 5 s; a test has no time for that.
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.3,))
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("fork", force=True)
    yield
    multiprocessing.set_start_method(before, force=True)


class Numbers(Dataset):
    def __init__(self, kills_at=None, raises=None):
        self.kills_at, self.raises = kills_at, raises

    def __len__(self):
        return 12

    def __getitem__(self, number):
        if number == self.kills_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 3 and self.raises is not None:
            raise self.raises
        return number


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 5])
def test_a_killed_worker_is_said(at):
    with pytest.raises(NatstatsError) as e:
        list(from_workers(DataLoader(Numbers(kills_at=at), batch_size=2, num_workers=2)))
    assert KILLED in str(e.value)


def test_a_lost_worker_is_said_only_where_a_batch_is_asked_for():
    """torch raises it in a signal handler, in whatever runs, such as an import."""
    before = signal.getsignal(signal.SIGCHLD)
    batches = from_workers(DataLoader(Numbers(), batch_size=1, num_workers=1, prefetch_factor=2))
    others = {*multiprocessing.active_children()}
    assert next(batches).tolist() == [0]
    (worker,) = {*multiprocessing.active_children()} - others
    worker.kill()
    worker.join()
    for _ in range(1000):  # a handler runs between any two of these
        time.sleep(1e-5)
    with pytest.raises(NatstatsError) as e:
        list(batches)
    assert KILLED in str(e.value)
    after = signal.getsignal(signal.SIGCHLD)
    # torch's own stays set for others, ours does not.
    assert after == before or "natstats" not in after.__module__


def test_what_there_is_comes_in_order_with_and_without_workers():
    for workers in (0, 2):
        loader = DataLoader(Numbers(), batch_size=5, num_workers=workers)
        found = [batch.tolist() for batch in from_workers(loader)]
        assert found == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "one of them had too little"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), "too little"),
    ],
)
def test_too_little_memory_in_a_worker_is_said(error, words):
    with pytest.raises(NatstatsError, match=words):
        list(from_workers(DataLoader(Numbers(raises=error), num_workers=1)))


@pytest.mark.parametrize("error", [ZeroDivisionError(), EOFError(), ConnectionResetError("mine")])
def test_other_errors_stay_what_they_are(error):
    """Also those of an image that would be those of a pipe whose worker is gone."""
    with pytest.raises(type(error)):
        list(from_workers(DataLoader(Numbers(raises=error), num_workers=1)))


@pytest.mark.parametrize("error", [EOFError, ConnectionRefusedError, ConnectionResetError])
def test_the_end_of_a_pipe_is_that_of_its_worker(monkeypatch, error):
    """A worker can be killed while the maps that it shares are fetched from it."""

    def fetch(self):
        raise error

    monkeypatch.setattr("multiprocessing.resource_sharer.DupFd.detach", fetch)
    with pytest.raises(NatstatsError) as e:
        list(from_workers(DataLoader(Numbers(), batch_size=2, num_workers=1)))
    assert KILLED in str(e.value)


@pytest.fixture
def killing(monkeypatch):
    """Reading an image kills the worker that does so, as a system without memory would."""

    read = image_sets.read_rgb

    def kill(*given):
        if multiprocessing.parent_process() is None:
            return read(*given)  # measure looks for a readable image before it begins
        return os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(image_sets, "read_rgb", kill)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["images", "measure", "distill"])
def test_every_command_says_so(call, tmp_path, killing, command):
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a", "b") * 4):
        for split in ("train", "val"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    arguments = {
        "images": ["images", "data"],
        "measure": ["measure", "cifar_resnet8", "--weights", "none", "--images", "data"],
        "distill": ["distill", "--student", "cifar_resnet8", "--data", "imagefolder:data",
                    "--epochs", "1", "--size", "32", "--batch-size", "4"],
    }[command]  # fmt: skip
    result = call(*arguments, "--workers", "1", "--out", "r", code=1)
    assert KILLED in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: --workers: expected")
    assert not (tmp_path / "r").exists()
