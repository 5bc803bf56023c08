"""What cannot be written, and batches that fail or do not fit: nothing measured is lost."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.files.ownership import STATE
from natstats.files.state_files import read_state, write_state
from tests.measurement.cut_runs import N_PHOTOS, network

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def full_disk(monkeypatch):
    """What was measured can be kept, and no run can be written while the list is not empty."""
    write, is_full = np.savez_compressed, [True]

    def full(*given, **arrays):
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*given, **arrays)

    monkeypatch.setattr(np, "savez_compressed", full)
    return is_full


def test_where_the_run_cannot_be_written_its_spectra_are_kept(
    tmp_path, forty_photos, call, full_disk, assert_same
):
    options = ["--size", 32, "--crop", 32, "--band", "0.05:0.4"]
    full_disk.clear()
    call("images", forty_photos, *options, "--out", tmp_path / "whole")
    full_disk.append(True)
    out = tmp_path / "run"
    said = call("images", forty_photos, *options, "--out", out, code=1).stderr
    assert f"kept in {out}; `natstats fit {out}` finishes it when it can be written" in said
    full_disk.clear()
    call("fit", out)
    assert_same(tmp_path / "whole", out)
    assert (tmp_path / "whole/layers.csv").read_text() == (out / "layers.csv").read_text()


def test_a_run_that_was_finished_later_goes_on_to_a_smaller_width(tmp_path, call, full_disk):
    """It has the states and the note that the command would have left."""
    fields = natstats.power_law_fields(300, 24, 24, alpha=2.0, seed=0)
    np.save(tmp_path / "images.npy", np.float32(fields[:, None]))
    given = ["images", tmp_path / "images.npy", "--batch-size", 8, "--out", tmp_path / "run"]
    call(*given, "--until", 0.3, code=1)
    full_disk.clear()
    call("fit", tmp_path / "run")
    run = natstats.Run.open(tmp_path / "run")
    n_images = run.info["images"]["n_images"]
    assert f"no interval is wider than 0.3 after {n_images} of 300" in run.info["warnings"][-1]
    call(*given, "--until", 0.01)
    assert natstats.Run.open(tmp_path / "run").info["images"]["n_images"] == 300 > n_images


def test_a_run_of_a_series_that_was_finished_later_is_taken(tmp_path, full_disk, call):
    model = network()
    for epoch in (1, 2):
        torch.save(model.state_dict(), tmp_path / f"epoch_{epoch}.pth")
    images = torch.rand(12, 3, 24, 24)
    given = (model, f"{tmp_path}/epoch_*.pth", images)
    out, settings = tmp_path / "series", {"batch_size": 4, "save_every": 0.0}
    with pytest.raises(natstats.NatstatsError, match="kept in .*epoch_1; `natstats fit .*epoch_1`"):
        natstats.measure_series(*given, out=out, **settings)
    full_disk.clear()
    call("fit", out / "epoch_1")
    finished = natstats.Run.open(out / "epoch_1").info
    whole = natstats.measure_series(*given, out=tmp_path / "whole", **settings)
    for name in ("model", "warnings", "series"):
        assert finished[name] == whole.runs[0].info[name]
    seen: list[int] = []
    natstats.measure_series(
        *given, out=out, progress=lambda _, total: seen.append(total), **settings
    )
    assert set(seen) <= {12}  # the second alone, if it was not kept


def test_a_part_is_not_finished_as_if_it_were_a_run(tmp_path, forty_photos, call, full_disk):
    given = ["images", forty_photos, "--size", 32, "--shard", "1/2", "--out", tmp_path / "part"]
    call(*given)
    part, left = tmp_path / "part", tmp_path / "left" / STATE
    left.mkdir(parents=True)
    sums = read_state(part / "images.safetensors")
    record = json.loads((part / "part.json").read_text())
    labels = {name: record[name] for name in ("identity", "about")}
    write_state(left / "images.safetensors", {**sums, "format": 1, **labels})
    said = call("fit", left.parent, code=2).stderr
    assert "keeps the part 1/2 (the command that began it finishes it)" in said


def test_where_no_state_can_be_saved_it_goes_on_and_says_so(
    tmp_path, forty_photos, monkeypatch, caplog
):
    def full(path, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("natstats.measurement.keeping.write_state", full)
    run = natstats.measure_images(
        forty_photos, size=32, crop=32, out=tmp_path / "run", save_every=0.0
    )
    assert run.path == tmp_path / "run"
    assert "could not be saved" in caplog.text
    assert len(caplog.records) == 1


def test_an_error_in_the_midst_keeps_what_was_measured_and_says_so(tmp_path, forty_photos):
    class Fails(nn.Module):
        n = 0

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            Fails.n += len(images) > 1
            if Fails.n == 4 and len(images) > 1:
                raise RuntimeError("a cable came loose")
            return images * 2

    model = nn.Sequential(Fails(), *network()).eval()
    settings = {"size": 32, "crop": 32, "batch_size": 6, "out": tmp_path / "run"}
    settings["save_every"] = 0.0
    with pytest.raises(natstats.NatstatsError) as raised:
        natstats.measure(model, forty_photos, **settings)
    assert "a cable came loose" in str(raised.value)
    assert f"keeps what was measured of 18 of {N_PHOTOS} images" in str(raised.value)
    run = natstats.measure(model, forty_photos, **settings)
    assert run.info["images"]["n_images"] == N_PHOTOS - 1


def test_batches_that_do_not_fit_are_halved_once_and_for_all(forty_photos):
    sizes: list[int] = []

    class Small(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return images * 1

    settings = {"size": 32, "crop": 32, "batch_size": 12}
    run = natstats.measure(nn.Sequential(Small(), *network()).eval(), forty_photos, **settings)
    assert sizes.count(12) == sizes.count(6) == 1
    assert any("measured in parts of 3" in one for one in run.info["warnings"])
    whole = natstats.measure(network(), forty_photos, **settings)
    for one, other in zip(run.spectra[2:], whole.spectra[2:], strict=True):
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=3e-6)
        np.testing.assert_array_equal(one.spectrum.count, other.spectrum.count)


def test_one_image_that_does_not_fit_is_an_error(forty_photos):
    class Fullest(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 1 or len(sizes) > 8:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
            sizes.append(len(images))
            return images * 1

    sizes: list[int] = []
    with pytest.raises(natstats.NatstatsError, match="batch_size: a batch of 1 x 3 x 32 x 32"):
        natstats.measure(
            nn.Sequential(Fullest(), *network()).eval(), forty_photos, size=32, crop=32
        )


def test_a_part_of_a_batch_counts_once_where_another_part_fails(tmp_path, forty_photos):
    state = {"fails": True, "n": 0}

    class Unreliable(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            state["n"] += len(images) > 1
            if state["fails"] and state["n"] == 6:
                raise RuntimeError("a cable came loose")
            return images * 1

    model = nn.Sequential(Unreliable(), *network()).eval()
    settings = {"size": 32, "crop": 32, "batch_size": 6, "save_every": 0.0}
    with pytest.raises(natstats.NatstatsError, match="cable"):
        natstats.measure(model, forty_photos, out=tmp_path / "run", **settings)
    state["fails"] = False
    run = natstats.measure(model, forty_photos, out=tmp_path / "run", **settings)
    whole = natstats.measure(model, forty_photos, **settings)
    for one, other in zip(run.spectra, whole.spectra, strict=True):
        np.testing.assert_array_equal(one.spectrum.count, other.spectrum.count)
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=3e-6)
    assert run.info["images"] == whole.info["images"]


def test_strict_stays_strict_when_it_goes_on(tmp_path, forty_photos):
    settings = {"size": 32, "crop": 32, "batch_size": 6, "out": tmp_path / "run", "strict": True}
    for every in (60.0, 0.0, 0.0):
        settings["save_every"] = every
        with pytest.raises(natstats.NatstatsError, match="expected readable images only; 05.png"):
            natstats.measure_images(forty_photos, **settings)
        # What took no time to measure is not worth a folder.
        assert (tmp_path / "run").exists() == (every == 0.0)
    assert natstats.measure_images(forty_photos, **{**settings, "strict": False}).info["images"][
        "n_unreadable"
    ] == 1  # fmt: skip
