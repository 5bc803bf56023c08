"""What goes wrong in the midst of a measurement: it is said, and changes nothing else."""

from __future__ import annotations

import os
import socket
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import natstats
from natstats.files import locks
from natstats.files.ownership import STATE
from natstats.images.arrays import ImageArray

pytestmark = pytest.mark.usefixtures("quick")

SETTINGS = {"size": 32, "crop": 32, "batch_size": 4, "n_groups": 16}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2)).eval()


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(20):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return folder


def sums(run):
    return [one.spectrum.power for one in run.spectra]


def counts(run):
    return {int(one.spectrum.count.sum()) for one in run.spectra}


# -- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["gone", "cut", "empty", "folder", "pipe", "forbidden"])
@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_image_that_is_lost_after_it_was_listed(photos, what, workers):
    """The first batch is measured, and then images are taken away under its hands."""
    lost = [photos / f"{number:02d}.png" for number in range(20)]

    def lose(done, total):
        if done != 4:
            return
        for file in lost[::2]:
            content = file.read_bytes()
            file.unlink()
            if what == "folder":
                file.mkdir()
            elif what == "pipe":
                os.mkfifo(file)
            elif what in ("cut", "empty"):
                file.write_bytes(content[: len(content) // 3 if what == "cut" else 0])
            elif what == "forbidden":
                file.symlink_to("/proc/1/mem")

    run = natstats.measure(network(), photos, progress=lose, workers=workers, **SETTINGS)
    facts = run.info["images"]
    assert facts["n_images"] + facts["n_unreadable"] == 20
    # Workers have read some before they are asked for.
    assert workers or facts["n_unreadable"]
    assert facts["n_unreadable"] <= 10
    assert counts(run) == {facts["n_images"]}
    assert all(line.split(": ", 1)[1] for line in facts["unreadable"])


def test_a_state_with_lost_images_says_so(photos, tmp_path):
    """What was measured was measured; that it is not there any more is a change of the images."""

    class StopError(Exception):
        pass

    def stop(done, total):
        if done == 12:
            raise StopError

    out = tmp_path / "run"
    with pytest.raises(StopError):
        natstats.measure(network(), photos, out=out, save_every=0.0, progress=stop, **SETTINGS)
    (photos / "07.png").unlink()
    with pytest.raises(natstats.UsageError, match="out: .*of other images"):
        natstats.measure(network(), photos, out=out, **SETTINGS)


def test_what_is_no_file_is_left_out_of_a_folder(photos):
    plain = natstats.measure_images(photos, **{**SETTINGS, "batch_size": 20})
    os.mkfifo(photos / "a.png")
    (photos / "b.png").mkdir()
    (photos / "c.png").symlink_to("/dev/zero")
    (photos / "d.png").symlink_to(photos / "d.png")
    (photos / "e").symlink_to(photos)
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(photos)  # names of sockets are short
    try:
        listening.bind("f.png")
    finally:
        os.chdir(here)
    run = natstats.measure_images(photos, **{**SETTINGS, "batch_size": 20})
    listening.close()
    assert counts(run) == counts(plain) == {20}
    reasons = "\n".join(run.info["images"]["unreadable"])
    for words in ("a named pipe", "a character device", "symbolic links"):
        assert words in reasons
    assert "f.png: " in reasons


# -- numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_an_image_that_is_not_finite_changes_no_other(bad):
    images = torch.rand(20, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    odd = images.clone()
    odd[5, 1, 3:9, 4:11] = bad
    run = natstats.measure(network(), odd, n_groups=20, batch_size=4)
    whole = natstats.measure(network(), images, n_groups=20, batch_size=4)
    others = np.arange(20) != ImageArray(images).places.index(5)
    for one, other in zip(run.spectra, whole.spectra, strict=True):
        assert one.spectrum.n_nonfinite == 1
        np.testing.assert_array_equal(one.spectrum.count, others)
        np.testing.assert_allclose(
            one.spectrum.power[others], other.spectrum.power[others], rtol=1e-5
        )
        assert not one.spectrum.power[~others].any()
    assert run.layers["flags"].str.contains("non-finite").all()


def test_a_network_that_is_not_finite_on_some_images():
    class Odd(nn.Module):
        def forward(self, maps):
            return torch.where(maps.mean((1, 2, 3), keepdim=True) > 0.5, torch.nan, maps)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), Odd(), nn.Conv2d(4, 4, 3)).eval()
    images = torch.rand(20, 3, 24, 24)
    images[:3] += 40  # so that their means are large
    run = natstats.measure(model, images, n_groups=20, batch_size=4)
    first, last = run.spectra[-2].spectrum, run.spectra[-1].spectrum
    assert first.n_nonfinite == 0
    assert 0 < last.n_nonfinite < 20
    assert last.count.sum() == 20 - last.n_nonfinite
    assert np.isfinite(last.power).all()
    assert "non-finite" in run.layers["flags"].iloc[-1]


def test_a_network_that_is_never_finite_says_so():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    with torch.no_grad():
        model[0].weight.fill_(float("nan"))
    run = natstats.measure(model, torch.rand(20, 3, 24, 24), n_groups=20, batch_size=4)
    assert run.spectra[-1].spectrum.n_nonfinite == 20
    assert run.layers["exponent"].iloc[-1] != run.layers["exponent"].iloc[-1]
    assert "non-finite" in run.layers["flags"].iloc[-1]
    assert run.law is not None


# -- memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"
        ),
    ],
    ids=["cuda", "host", "torch"],
)
def test_a_batch_that_does_not_fit_is_halved(photos, error):
    class Large(nn.Module):
        def forward(self, maps):
            if len(maps) > 2:
                raise error
            return maps

    model = nn.Sequential(*network(), Large())
    run = natstats.measure(model, photos, **SETTINGS)
    small = natstats.measure(network(), photos, **{**SETTINGS, "batch_size": 2})
    assert "batches of 4 did not fit into memory, and were measured in parts of 2" in "\n".join(
        run.info["warnings"]
    )
    for one, other in zip(sums(run), sums(small), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6)


# -- the clock --------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-(10**9), -3600, 3600, 10**9])
def test_a_clock_that_is_set_changes_nothing(photos, tmp_path, monkeypatch, jump):
    plain = natstats.measure(network(), photos, **SETTINGS)
    clock, clock_ns, n_saved = time.time, time.time_ns, []
    is_set = []
    monkeypatch.setattr(time, "time", lambda: clock() + jump * bool(is_set))
    monkeypatch.setattr(time, "time_ns", lambda: clock_ns() + jump * 10**9 * bool(is_set))
    out = tmp_path / "run"

    def progress(done, total):
        if done == 8:
            is_set.append(True)
        state = out / STATE / "trained.safetensors"
        n_saved.append(state.exists())
        # Nobody takes the folder in the meantime, whatever the time is.
        with pytest.raises(natstats.UsageError, match="nobody is at work"):
            claim_of_another(out)

    run = natstats.measure(
        network(), photos, out=out, save_every=0.0, progress=progress, **SETTINGS
    )
    assert n_saved == [False, True, True, True, True]
    for one, other in zip(sums(run), sums(plain), strict=True):
        np.testing.assert_array_equal(one, other)
    assert 0 <= run.info["timing"]["seconds"] < 100
    assert natstats.measure(network(), photos, **SETTINGS).info["images"] == plain.info["images"]


def claim_of_another(out):
    """What another process would be told."""
    held, locks._held = locks._held, {}
    try:
        locks.lock(out / STATE, out)
    finally:
        locks._held = held


def test_a_clock_that_is_set_while_nothing_is_saved(photos, tmp_path, monkeypatch):
    """The time between two savings is measured by a clock that nobody sets."""
    saved = []
    write = natstats.measurement.keeping.write_state
    monkeypatch.setattr(
        "natstats.measurement.keeping.write_state",
        lambda path, state: (saved.append(path), write(path, state)),
    )
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 10**6 * len(saved) + 10**7)
    natstats.measure(network(), photos, out=tmp_path / "run", save_every=3600.0, **SETTINGS)
    assert len(saved) == 1  # at the end
