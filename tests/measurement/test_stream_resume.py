"""Measurements of streams that were cut go on to the same numbers, and refuse other images."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from natstats_cli import output

import natstats
from natstats.files.ownership import STATE
from natstats.measurement.until import Until
from natstats.runs.run import Run
from tests.measurement.cut_runs import OPTIONS, CutError, cut_after, network
from tests.measurement.processes import torchrun
from tests.measurement.stream_set_up import N_IMAGES, PER_SHARD, SETTINGS, opened

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_was_cut_goes_on_to_the_same_bits(tmp_path, shards, options, stream, assert_same):
    settings = {**SETTINGS, **options, "save_every": 0.0}
    model, log = network(), tmp_path / "log"
    source = stream(shards, log)
    natstats.measure(model, source, out=tmp_path / "whole", **settings)
    log.unlink()
    for n_images in (13, 3, 6):
        with pytest.raises(CutError):
            natstats.measure(
                model,
                source,
                out=tmp_path / "cut",
                progress=cut_after(n_images, total=0),
                **settings,
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
def test_shards_that_were_measured_are_not_opened_again(tmp_path, shards, stream, assert_same):
    log, out = tmp_path / "log", tmp_path / "run"
    source = stream(shards, log)
    natstats.measure_images(source, out=tmp_path / "whole", **SETTINGS)
    order = opened(log)
    settings = {**SETTINGS, "save_every": 0.0, "out": out}
    with pytest.raises(CutError):
        natstats.measure_images(source, progress=cut_after(20, total=0), **settings)
    opened(log)
    natstats.measure_images(source, **settings)
    assert opened(log) == order[20 // PER_SHARD :]
    assert_same(tmp_path / "whole", out)


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_an_image_that_changed_is_refused_or_begins_anew(
    tmp_path, shards, overwrite, stream, assert_close
):
    out, source = tmp_path / "run", stream(shards)
    settings = {**SETTINGS, "save_every": 0.0, "out": out}
    with pytest.raises(CutError):
        natstats.measure_images(source, progress=cut_after(10, total=0), **settings)
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
def test_what_is_not_the_same_is_refused(tmp_path, shards, change, stream):
    settings = {**SETTINGS, "save_every": 0.0, "out": tmp_path / "run"}
    source = stream(shards)
    with pytest.raises(CutError):
        natstats.measure_images(source, progress=cut_after(10, total=0), **settings)
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
def test_a_signal_saves_and_says_how_to_go_on(
    tmp_path, shards, call, monkeypatch, number, code, stream, assert_same
):
    command = ["images", stream(shards), "--size", 32, "--crop", 32, "--batch-size", 6, "--out"]

    @contextlib.contextmanager
    def progress_bar(quiet=False, within=""):
        yield lambda done, total: signal.raise_signal(number) if 12 <= done < 18 else None

    monkeypatch.setattr(output, "progress_bar", progress_bar)
    found = call(*command, tmp_path / "run", code=code)
    assert "keeps what was measured of 12 images, and the same command" in found.stderr
    assert "keeps 12 images" in call("fit", tmp_path / "run", code=2).stderr
    call(*command, tmp_path / "run")
    natstats.measure_images(stream(shards), size=32, crop=32, batch_size=6, out=tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_polite_kill_ends_a_stream_that_waits_for_images(tmp_path, shards, workers):
    note, shard = tmp_path / "pid", shards / "0.tar"
    source = f"pipe:echo $$ > {note}; head -c {shard.stat().st_size // 2} {shard}; sleep 200"
    out = tmp_path / "run"
    child = subprocess.Popen(
        [
            sys.executable, "-m", "natstats_cli", "images", source, "--size", "32", "--crop", "32",
            "--batch-size", "1", "--workers", str(workers), "--save-every", "0", "--out", str(out),
        ],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    # With workers a batch is held back until those that they are to have next were read.
    kept, end = f"{STATE}/*.safetensors" if not workers else f"{STATE}*", time.monotonic() + 60
    while not (note.exists() and list(out.glob(kept))):
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1.0 if not workers else 5.0)
    child.send_signal(signal.SIGTERM)
    _, said = child.communicate(timeout=30)
    assert child.returncode == 143, said
    assert "interrupted" in said
    assert workers or "goes on from there" in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.slow
def test_what_one_process_began_several_go_on_with(tmp_path, shards, stream, assert_close):
    source, out = stream(shards), tmp_path / "run"
    with pytest.raises(CutError):
        natstats.measure_images(
            source, out=out, progress=cut_after(8, total=0), save_every=0.0, **SETTINGS
        )
    settings = ["--size", "32", "--crop", "32", "--batch-size", "5", "--groups", "16"]
    done = torchrun(2, "-m", "natstats_cli", "images", source, *settings, "--out", str(out))
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
    if os.WIFSIGNALED(status) and not os.path.exists(out + "/run.json"):
        kills += 1
        continue
    if os.WIFSIGNALED(status):  # it had just been finished
        status = 0
    assert status == 0, status
    if kills >= n_kills:
        break
    shutil.rmtree(out)
print(kills)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, shards, stream, assert_same):
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
def test_a_command_that_fails_in_the_midst_keeps_what_was_measured(
    tmp_path, shards, stream, assert_same
):
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
def test_until_stops_early_says_of_what_and_goes_on(tmp_path, shards, monkeypatch, stream):
    def first_look_at_8(options, fit, least=0):
        return None if options.until is None else Until(options.until, fit, least, first=8)

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
