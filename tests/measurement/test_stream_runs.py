"""Measurements of streams: the numbers of files, resumed, shared out, put together; faults."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from natstats_cli import output
from PIL import Image
from torch import nn

import natstats
from natstats.files.ownership import STATE
from natstats.measurement.until import Until
from natstats.runs.run import Run

N_IMAGES, PER_SHARD = 22, 6

pytestmark = pytest.mark.usefixtures("quick")

SETTINGS = {"size": 32, "crop": 32, "batch_size": 5, "n_groups": 16}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()
    ).eval()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """22 photographs, one of which cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(N_IMAGES):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def shards(photos: Path, tmp_path: Path) -> Path:
    """Shards of 6, 6, 6 and 4 of them."""
    place = tmp_path / "shards"
    place.mkdir()
    files = sorted(photos.iterdir())
    for shard in range(4):
        with tarfile.open(place / f"{shard}.tar", "w") as tar:
            for file in files[PER_SHARD * shard : PER_SHARD * (shard + 1)]:
                tar.add(file, file.name)
    return place


def stream(shards: Path, log: Path | None = None) -> str:
    """The shards as a stream, which may write down which of them is opened."""
    note = "" if log is None else f"echo $s >> {log}; "
    return f"pipe:s={{0..3}}; {note}cat {shards}/$s.tar"


def opened(log: Path) -> list[str]:
    found = log.read_text().split()
    log.unlink()
    return found


def arrays(run: Path) -> dict[str, np.ndarray]:
    found = {}
    for file in sorted(run.rglob("*.npz")):
        with np.load(file) as content:
            for name in content.files:
                found[f"{file.relative_to(run)}/{name}"] = content[name]
    return found


def assert_same(first: Path, second: Path) -> None:
    """To the last bit."""
    ours, theirs = arrays(first), arrays(second)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)
    for name in ("images", "model", "options", "warnings"):
        records = [json.loads((run / "run.json").read_text())[name] for run in (first, second)]
        assert records[0] == records[1]


def assert_close(first: Run, second: Run) -> None:
    """As sums of transforms of other batches are."""
    for one, other in zip(first.spectra, second.spectra, strict=True):
        assert one.layer == other.layer
        mine, theirs = one.spectrum, other.spectrum
        np.testing.assert_array_equal(mine.count, theirs.count)
        for name in ("power", "normalized", "offset", "image_power"):
            np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=3e-6)
    assert first.info["images"] == second.info["images"]


@pytest.mark.slow
def test_a_stream_has_the_numbers_of_the_folder(photos, shards):
    """With batches of one no sum depends on which images come together."""
    settings = {**SETTINGS, "batch_size": 1, "layers": "conv"}
    runs = [natstats.measure(network(), one, **settings) for one in (photos, stream(shards))]
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


class CutError(Exception):
    """Ends a measurement in its midst."""


def cut_after(n_images: int):
    def progress(done: int, total: int) -> None:
        assert total == 0
        if done >= n_images:
            raise CutError

    return progress


OPTIONS = {
    "plain": {},
    "control": {"control": "random-weights", "control_seeds": 2},
    "explain": {"explain": True, "counterfactual": "shuffle-kernels"},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_was_cut_goes_on_to_the_same_bits(tmp_path, shards, options):
    settings = {**SETTINGS, **options, "save_every": 0.0}
    model, log = network(), tmp_path / "log"
    source = stream(shards, log)
    natstats.measure(model, source, out=tmp_path / "whole", **settings)
    log.unlink()
    for n_images in (13, 3, 6):
        with pytest.raises(CutError):
            natstats.measure(
                model, source, out=tmp_path / "cut", progress=cut_after(n_images), **settings
            )
        assert not (tmp_path / "cut" / "run.json").exists()
    log.unlink()
    natstats.measure(model, source, out=tmp_path / "cut", **settings)
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert not (tmp_path / "cut" / STATE).exists()
    if options == {}:
        # The example that the network is traced with, and what was not measured yet.
        assert len(opened(log)) < 1 + 4


@pytest.mark.slow
def test_shards_that_were_measured_are_not_opened_again(tmp_path, shards):
    log, out = tmp_path / "log", tmp_path / "run"
    source = stream(shards, log)
    natstats.measure_images(source, out=tmp_path / "whole", **SETTINGS)
    order = opened(log)
    settings = {**SETTINGS, "save_every": 0.0, "out": out}
    with pytest.raises(CutError):
        natstats.measure_images(source, progress=cut_after(20), **settings)
    opened(log)
    natstats.measure_images(source, **settings)
    assert opened(log) == order[20 // PER_SHARD :]
    assert_same(tmp_path / "whole", out)


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_image_that_changed_is_refused_or_begins_anew(tmp_path, shards, overwrite):
    out, source = tmp_path / "run", stream(shards)
    settings = {**SETTINGS, "save_every": 0.0, "out": out}
    with pytest.raises(CutError):
        natstats.measure_images(source, progress=cut_after(10), **settings)
    for shard in range(4):
        path = shards / f"{shard}.tar"
        with tarfile.open(path) as tar:
            place = tar.getmembers()[0].offset_data + 60
        content = bytearray(path.read_bytes())
        content[place] ^= 1
        path.write_bytes(content)
    if overwrite:
        run = natstats.measure_images(source, overwrite=True, **settings)
        assert run.info["images"]["n_in_set"] == N_IMAGES
        whole = natstats.measure_images(source, **SETTINGS)
        assert_close(run, whole)
        return
    with pytest.raises(natstats.UsageError, match="keeps one of other images .*was another before"):
        natstats.measure_images(source, **settings)
    assert (out / STATE).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["edges", "shards", "seed"])
def test_what_is_not_the_same_is_refused(tmp_path, shards, change):
    settings = {**SETTINGS, "save_every": 0.0, "out": tmp_path / "run"}
    source = stream(shards)
    with pytest.raises(CutError):
        natstats.measure_images(source, progress=cut_after(10), **settings)
    if change == "edges":
        settings["edges"] = "hann"
    elif change == "seed":
        settings["seed"] = 3
    else:
        source = source.replace("0..3", "0..2")
    with pytest.raises(natstats.UsageError, match="out: expected an unfinished measurement of the"):
        natstats.measure_images(source, **settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, shards, call, monkeypatch, number, code):
    command = ["images", stream(shards), "--size", 32, "--crop", 32, "--batch-size", 6, "--out"]

    @contextlib.contextmanager
    def progress_bar():
        yield lambda done, total: signal.raise_signal(number) if 12 <= done < 18 else None

    monkeypatch.setattr(output, "progress_bar", progress_bar)
    found = call(*command, tmp_path / "run", code=code)
    assert "keeps what was measured of 12 images, and the same command" in found.stderr
    assert "keeps 12 images" in call("fit", tmp_path / "run", code=2).stderr
    call(*command, tmp_path / "run")
    natstats.measure_images(stream(shards), size=32, crop=32, batch_size=6, out=tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("n_parts", [2, 3, 6])
def test_parts_add_up(tmp_path, shards, n_parts):
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
def test_a_stream_and_a_folder_are_put_together(tmp_path, shards):
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


def torchrun(n: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n), "--standalone",
        "-m", "natstats_cli", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.slow
@pytest.mark.parametrize(("n", "last"), [(2, 3), (3, 3), (2, 0)])
def test_several_processes_give_the_run_of_one(tmp_path, shards, n, last):
    settings = ["--size", "32", "--crop", "32", "--batch-size", "5", "--groups", "16"]
    source, out = stream(shards).replace("0..3", f"0..{last}"), tmp_path / "run"
    done = torchrun(n, ["images", source, *settings, "--out", str(out)])
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Run: ") == 1
    assert_close(Run.open(out), natstats.measure_images(source, **SETTINGS))


@pytest.mark.slow
def test_what_one_process_began_several_go_on_with(tmp_path, shards):
    source, out = stream(shards), tmp_path / "run"
    with pytest.raises(CutError):
        natstats.measure_images(source, out=out, progress=cut_after(8), save_every=0.0, **SETTINGS)
    settings = ["--size", "32", "--crop", "32", "--batch-size", "5", "--groups", "16"]
    done = torchrun(2, ["images", source, *settings, "--out", str(out)])
    assert done.returncode == 0, done.stderr[-2000:]
    assert_close(Run.open(out), natstats.measure_images(source, **SETTINGS))


KILLED = """
import os, random, signal, shutil, sys, time
import natstats
import natstats.report.pages.run as pages

pages.write_report = lambda folder, report: (folder / "report.html").touch()
source, out, n_kills = sys.argv[1], sys.argv[2], int(sys.argv[3])
settings = dict(size=32, crop=32, batch_size=2, n_groups=16, save_every=0.0)

def measure(out):
    natstats.measure_images(source, out=out, **settings)

measure(out + "-whole")
started = time.monotonic()
measure(out)
length = time.monotonic() - started
shutil.rmtree(out)
generator, kills = random.Random(0), 0
while True:
    child = os.fork()
    if child == 0:
        try:
            measure(out)
        except BaseException as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    if kills < n_kills:
        time.sleep(generator.uniform(0, length))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
        continue
    assert status == 0, status
    if kills >= n_kills:
        break
    shutil.rmtree(out)
print(kills)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, shards):
    args = [stream(shards), str(tmp_path / "run"), "8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *args], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == 8
    assert_same(tmp_path / "run-whole", tmp_path / "run")


@pytest.mark.slow
def test_a_command_that_fails_in_the_midst_keeps_what_was_measured(tmp_path, shards):
    flag = tmp_path / "broken"
    flag.touch()
    source = f"{stream(shards)}; test $s != 1 || test ! -e {flag}"
    settings = {**SETTINGS, "out": tmp_path / "run", "save_every": 0.0, "batch_size": 2}
    with pytest.raises(natstats.NatstatsError) as caught:
        natstats.measure_images(source, **settings)
    assert "ended with status 1; " in str(caught.value)
    assert "keeps what was measured of" in str(caught.value)
    flag.unlink()
    natstats.measure_images(source, **settings)
    natstats.measure_images(source, **{**settings, "out": tmp_path / "whole"})
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_shard_that_is_cut_counts_until_then_and_is_refused_when_strict(shards):
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
    for images in (natstats.measure_images, lambda one, **how: natstats.measure(network(), one)):
        with pytest.raises(
            natstats.NatstatsError, match="expected at least one image; got none in"
        ):
            images(source, size=32)
    with pytest.raises(natstats.NatstatsError, match="expected readable images; got none in"):
        natstats.measure_images(source)


def test_shards_without_images_and_pictures_that_are_not_read_are_no_matter(shards):
    with tarfile.open(shards / "2.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("a.heic"))
    run = natstats.measure_images(stream(shards), **SETTINGS)
    assert run.info["images"]["n_in_set"] == N_IMAGES - PER_SHARD
    assert any("1 file was left out" in one and ".heic" in one for one in run.info["warnings"])


@pytest.mark.slow
def test_a_stream_that_gives_other_images_the_second_time_is_refused(tmp_path, shards):
    count = tmp_path / "count"
    which = f"$(test $(wc -l < {count}) -le 1 && echo 0 || echo 2)"
    source = f"pipe:echo >> {count}; cat {shards}/{which}.tar"
    with pytest.raises(natstats.NatstatsError, match="the same images each time it is read"):
        natstats.measure(network(), source, control="random-weights", control_seeds=2, **SETTINGS)


@pytest.mark.slow
def test_until_stops_early_says_of_what_and_goes_on(tmp_path, shards, monkeypatch):
    def first_look_at_8(options, fit):
        return None if options.until is None else Until(options.until, fit, next=8)

    monkeypatch.setattr("natstats.measurement.one_run._until", first_look_at_8)
    settings = {**SETTINGS, "out": tmp_path / "run", "batch_size": 2}
    run = natstats.measure_images(stream(shards), until=50.0, **settings)
    assert run.info["images"]["n_images"] == 8
    assert run.info["images"]["n_in_set"] is None
    said = " ".join(run.info["warnings"])
    assert "after 8 images" in said
    assert "of 4 shards were read to their end" in said
    run = natstats.measure_images(stream(shards), until=1e-6, **settings)
    assert run.info["images"]["n_in_set"] == N_IMAGES
    whole = natstats.measure_images(stream(shards), **{**settings, "out": None})
    for one, other in zip(run.spectra, whole.spectra, strict=True):
        np.testing.assert_array_equal(one.spectrum.power, other.spectrum.power)


def test_a_limited_stream_says_what_it_is_a_sample_of(shards):
    run = natstats.measure_images(stream(shards), limit=8, **SETTINGS)
    assert run.info["images"]["n_in_set"] == 8
    assert "the first ones of every shard: no random sample" in run.info["warnings"][0]


@pytest.mark.slow
def test_a_series_reads_its_stream_for_every_checkpoint_and_takes_what_is_there(tmp_path, shards):
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
def test_what_a_run_or_a_part_says_of_its_images_is_never_run(tmp_path, shards, call):
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
