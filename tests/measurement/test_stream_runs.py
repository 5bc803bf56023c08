"""Measurements of streams: the numbers of files, shared out and put together; faults."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import natstats
from natstats.runs.run import Run
from tests.measurement.cut_runs import network
from tests.measurement.processes import torchrun
from tests.measurement.stream_set_up import N_IMAGES, PER_SHARD, SETTINGS, opened

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
def test_a_stream_has_the_numbers_of_the_folder(stream_photos, shards, stream):
    """With batches of one no sum depends on which images come together."""
    settings = {**SETTINGS, "batch_size": 1, "layers": "conv"}
    runs = [natstats.measure(network(), one, **settings) for one in (stream_photos, stream(shards))]
    for one, other in zip(runs[0].spectra, runs[1].spectra, strict=True):
        rows = [run.spectrum.image_power for run in (one, other)]
        rows = [np.sort(row[np.isfinite(row).all(1)], axis=0) for row in rows]
        np.testing.assert_array_equal(*rows)
        for name in ("power", "normalized", "offset", "count"):
            sums = [getattr(run.spectrum, name).sum(0) for run in (one, other)]
            np.testing.assert_allclose(*sums, rtol=1e-12)
    np.testing.assert_allclose(*(run.layers.exponent for run in runs), rtol=1e-12)
    ours, theirs = (run.info["images"] for run in runs[::-1])
    for name in ("n_images", "n_in_set", "n_unreadable", "size", "resize", "normalisation"):
        assert ours[name] == theirs[name]
    assert ours["unreadable"][0].endswith("/05.png: cannot identify an image of a format that "
                                          "is read")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("n_parts", [2, 3, 6])
def test_parts_add_up(tmp_path, shards, n_parts, stream):
    settings = {**SETTINGS, "batch_size": 1}
    source = stream(shards)
    whole = natstats.measure_images(source, **settings)
    for number in range(1, n_parts + 1):
        out = tmp_path / f"part_{number}"
        natstats.measure_images(source, shard=f"{number}/{n_parts}", out=out, **settings)
    merged = natstats.merge_parts(sorted(tmp_path.glob("part_*")))
    for one, other in zip(merged.spectra, whole.spectra, strict=True):
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=1e-12)
        np.testing.assert_array_equal(one.spectrum.image_power, other.spectrum.image_power)
    assert merged.info["images"] == whole.info["images"]
    assert merged.info["warnings"] == whole.info["warnings"]
    with pytest.raises(natstats.UsageError, match=r"images of .*part_1 are in .*part_1, too"):
        natstats.merge_parts([tmp_path / "part_1", tmp_path / "part_1"])
    some = natstats.merge_parts([tmp_path / "part_1"])
    assert some.info["images"]["n_in_set"] is None
    assert any("shards were read to their end" in one for one in some.info["warnings"])


@pytest.mark.slow
def test_a_stream_and_a_folder_are_put_together(tmp_path, shards, stream):
    """Each has numbers of its own; whichever comes first."""
    other = tmp_path / "other"
    other.mkdir()
    for number in range(17):
        pixels = np.random.default_rng(100 + number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(other / f"{number}.png")
    for name, source in (("stream", stream(shards)), ("folder", other)):
        natstats.measure_images(source, shard="1/1", out=tmp_path / name, **SETTINGS)
    parts = [tmp_path / "stream", tmp_path / "folder"]
    sums = [
        natstats.merge_parts(some).spectra[0].spectrum.power.sum(0)
        for some in (parts[:1], parts[1:], parts, parts[::-1])
    ]
    np.testing.assert_allclose(sums[2], sums[0] + sums[1], rtol=1e-12)
    np.testing.assert_allclose(sums[3], sums[0] + sums[1], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "last"), [(2, 3), (3, 3), (2, 0)])
def test_several_processes_give_the_run_of_one(tmp_path, shards, n, last, stream, assert_close):
    settings = ["--size", "32", "--crop", "32", "--batch-size", "5", "--groups", "16"]
    source, out = stream(shards).replace("0..3", f"0..{last}"), tmp_path / "run"
    done = torchrun(n, "-m", "natstats_cli", "images", source, *settings, "--out", str(out))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Run: ") == 1
    assert_close(Run.open(out), natstats.measure_images(source, **SETTINGS))


@pytest.mark.slow
def test_a_shard_that_is_cut_counts_until_then_and_is_refused_when_strict(shards, stream):
    path = shards / "1.tar"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    run = natstats.measure_images(stream(shards), **SETTINGS)
    facts = run.info["images"]
    assert any("the tar file ends" in one for one in facts["unreadable"])
    assert N_IMAGES - PER_SHARD < facts["n_in_set"] < N_IMAGES
    assert facts["n_images"] == facts["n_in_set"] - 2
    with pytest.raises(natstats.NatstatsError, match="expected readable images only"):
        natstats.measure_images(stream(shards), strict=True, **SETTINGS)


@pytest.mark.slow
def test_a_stream_without_images_is_an_error(tmp_path):
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            tar.addfile(tarfile.TarInfo("a.txt"))
    source = f"pipe:cat {tmp_path}/{{0..1}}.tar"
    with pytest.raises(natstats.NatstatsError, match="expected at least one image; got none in"):
        natstats.measure_images(source, size=32, out=tmp_path / "run", save_every=0.0)
    assert not (tmp_path / "run").exists()
    for images in (natstats.measure_images, lambda one, **how: natstats.measure(network(), one)):
        with pytest.raises(
            natstats.NatstatsError, match="expected at least one image; got none in"
        ):
            images(source, size=32)
    with pytest.raises(natstats.NatstatsError, match="expected readable images; got none in"):
        natstats.measure_images(source)


def test_shards_without_images_and_pictures_that_are_not_read_are_no_matter(shards, stream):
    with tarfile.open(shards / "2.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.heic"))
    run = natstats.measure_images(stream(shards), **SETTINGS)
    assert run.info["images"]["n_in_set"] == N_IMAGES - PER_SHARD
    assert any("1 file was left out" in one and ".heic" in one for one in run.info["warnings"])


@pytest.mark.slow
@pytest.mark.parametrize("of_network", [False, True])
def test_a_share_without_images_says_so_and_the_others_are_all(tmp_path, shards, of_network):
    """One shard of two images for three; and a shard that is empty."""

    def measured(source: str, **given):
        if of_network:
            return natstats.measure(network(), source, **SETTINGS, **given)
        return natstats.measure_images(source, **SETTINGS, **given)

    with tarfile.open(shards / "few.tar", "w") as tar, tarfile.open(shards / "0.tar") as whole:
        for member in whole.getmembers()[:2]:
            tar.addfile(member, whole.extractfile(member))
    tarfile.open(shards / "none.tar", "w").close()
    for source, n in ((f"pipe:cat {shards}/few.tar", 3), (f"pipe:cat {shards}/{{none,2}}.tar", 2)):
        n_empty = 0
        for number in range(1, n + 1):
            out = tmp_path / f"{n}-{number}"
            try:
                measured(source, shard=f"{number}/{n}", out=out, save_every=0.0)
            except natstats.UsageError as error:
                n_empty += 1
                said = str(error)
                assert f"shard: expected a share with images; {number}/{n} of pipe:" in said
                assert "`natstats merge` takes them without this one" in said
                assert not out.exists()
        assert n_empty == 1
        merged = natstats.merge_parts(sorted(tmp_path.glob(f"{n}-*")))
        whole = measured(source)
        for one, other in zip(merged.spectra, whole.spectra, strict=True):
            np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=3e-6)


def changed(path: Path, place: int) -> None:
    """Change an image of a shard."""
    with tarfile.open(path) as tar:
        at = tar.getmembers()[place].offset_data + 60
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def shortened(path: Path) -> None:
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset
    path.write_bytes(path.read_bytes()[:end] + bytes(1024))


def lengthened(path: Path) -> None:
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("more.png"))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: changed(path, 2), "is another"),
        (shortened, "a shard had 6 images, and has 5"),
        (lengthened, "was not there"),
    ],
)
def test_a_second_pass_ends_at_the_first_image_that_is_another(
    tmp_path, shards, change, words, workers, stream
):
    """No more shards are opened than one reads ahead, and none of the image's batch is measured."""
    log, settings = tmp_path / "log", {**SETTINGS, "batch_size": 2, "workers": workers}
    source = stream(shards, log)
    n_seen = []

    def progress(done: int, total: int) -> None:
        n_seen.append(done)
        if done == N_IMAGES and len(n_seen) == N_IMAGES // 2:
            first = opened(log)[-4]  # what comes first in every pass
            change(shards / f"{first}.tar")

    with pytest.raises(natstats.NatstatsError, match=f"same images each time .*{words}"):
        natstats.measure(
            network(), source, control="random-weights", control_seeds=2, progress=progress,
            **settings,
        )  # fmt: skip
    assert len(n_seen) < N_IMAGES // 2 + 4


@pytest.mark.parametrize("explain", [False, True])
def test_a_file_that_changed_between_passes_is_told(stream_photos, explain):
    """A control and a shuffled copy are measured on the images of the run, or not at all."""
    which = {"explain": True, "counterfactual": "shuffle-kernels"}
    if not explain:
        which = {"control": "random-weights", "control_seeds": 2}
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()
    n_seen = []

    def progress(done: int, total: int) -> None:
        n_seen.append(done)
        if done == N_IMAGES:
            file = stream_photos / "03.png"
            pixels = np.full((40, 48, 3), 9, np.uint8)
            Image.fromarray(pixels).save(file)

    with pytest.raises(natstats.NatstatsError, match=r"same images each time .*03.png is another"):
        natstats.measure(model, stream_photos, progress=progress, **which, **SETTINGS)
    assert max(n_seen) < 2 * N_IMAGES


def test_a_limited_stream_says_what_it_is_a_sample_of(shards, stream):
    run = natstats.measure_images(stream(shards), limit=8, **SETTINGS)
    assert run.info["images"]["n_in_set"] == 8
    assert "the first ones of every shard: no random sample" in run.info["warnings"][0]


@pytest.mark.slow
def test_a_series_reads_its_stream_for_every_checkpoint_and_takes_what_is_there(
    tmp_path, shards, stream
):
    log = tmp_path / "log"
    model = network()
    for step in (1, 2):
        torch.save(model.state_dict(), tmp_path / f"epoch_{step}.pth")
    settings = {**SETTINGS, "out": tmp_path / "series"}
    for n_opened in (8, 0):
        series = natstats.measure_series(
            model, tmp_path / "epoch_*.pth", stream(shards, log), **settings
        )
        assert len(series.checkpoints) == 2
        assert len(opened(log) if log.exists() else ()) == n_opened


@pytest.mark.slow
def test_what_a_run_or_a_part_says_of_its_images_is_never_run(tmp_path, shards, call, stream):
    log = tmp_path / "log"
    source = stream(shards, log)
    options = ["--size", 32, "--crop", 32]
    call("images", source, *options, "--out", tmp_path / "run")
    call("images", source, *options, "--shard", "1/1", "--out", tmp_path / "part")
    opened(log)
    call("fit", tmp_path / "run")
    call("merge", tmp_path / "part", "--out", tmp_path / "merged")
    call("compare", tmp_path / "run", tmp_path / "merged")
    assert not log.exists()
    assert "pipe:" in json.loads((tmp_path / "run" / "run.json").read_text())["images"]["source"]
