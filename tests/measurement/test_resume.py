"""A measurement that is cut or killed goes on, and ends with the same numbers."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import natstats
from natstats.files.ownership import STATE
from natstats.files.state_files import write_state
from natstats.measurement import network_pass
from natstats.measurement.keeping import Keeper
from natstats.runs.run import Run
from tests.measurement.cut_runs import N_PHOTOS, OPTIONS, CutError, cut_after, network

pytestmark = pytest.mark.usefixtures("quick")


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_what_was_cut_goes_on_with_every_pass(tmp_path, forty_photos, options, assert_same):
    settings = {"size": 32, "crop": 32, "batch_size": 6, **options, "save_every": 0.0}
    model = network()
    natstats.measure(model, forty_photos, out=tmp_path / "whole", **settings)
    n_passes = 1 + 2 * ("control" in options) + 2 * ("explain" in options)
    for place in range(n_passes):
        with pytest.raises(CutError):
            cut = cut_after(N_PHOTOS * place + 13)
            natstats.measure(model, forty_photos, out=tmp_path / "cut", progress=cut, **settings)
        assert not (tmp_path / "cut" / "run.json").exists()
    run = natstats.measure(model, forty_photos, out=tmp_path / "cut", **settings)
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert not (tmp_path / "cut" / STATE).exists()
    assert run.path == tmp_path / "cut"


@pytest.mark.slow
def test_batch_normalisation_is_estimated_once(tmp_path, forty_photos, monkeypatch, assert_same):
    """Also where other batches would give other statistics when the pass goes on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()
    settings = {"size": 32, "crop": 32, "batch_size": 6, "save_every": 0.0, **OPTIONS["explain"]}
    natstats.measure(model, forty_photos, out=tmp_path / "whole", **settings)
    times = []
    estimate = network_pass.estimate_norms
    monkeypatch.setattr(
        network_pass, "estimate_norms", lambda *given: times.append(1) or estimate(*given)
    )
    for place in (2 * N_PHOTOS + 13, 2 * N_PHOTOS + 30, 4 * N_PHOTOS):
        with contextlib.suppress(CutError):
            natstats.measure(
                model, forty_photos, out=tmp_path / "cut", progress=cut_after(place), **settings
            )
        assert len(times) == 1
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_statistics_that_are_not_there_are_named(tmp_path):
    keeper = Keeper(tmp_path, {"seed": 0}, 0.0, tmp_path)
    found = {"a": np.ones(2)}
    assert keeper.of("shuffled").once("norms", lambda: found) is found
    np.testing.assert_array_equal(keeper.of("shuffled").once("norms", dict)["a"], found["a"])
    for damage in ({}, {"norms": 3}, {"norms": None}):
        write_state(tmp_path / "shuffled-norms.safetensors", keeper.labelled(damage))
        with pytest.raises(natstats.NatstatsError, match="has no norms .--overwrite"):
            keeper.of("shuffled").once("norms", dict)
        anew = replace(keeper, overwrite=True)
        assert anew.of("shuffled").once("norms", lambda: found) is found


def test_other_batches_give_the_same_to_the_rounding_of_float32(tmp_path, forty_photos):
    settings = {"size": 32, "crop": 32, "save_every": 0.0, "out": tmp_path / "run"}
    whole = natstats.measure_images(forty_photos, size=32, crop=32)
    with pytest.raises(CutError):
        natstats.measure_images(forty_photos, batch_size=7, progress=cut_after(20), **settings)
    again = natstats.measure_images(forty_photos, batch_size=3, **settings)
    for one, other in zip(whole.spectra, again.spectra, strict=True):
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=2e-6)


@pytest.mark.parametrize("change", ["options", "images", "contents", "weights", "fewer"])
def test_what_is_not_the_same_is_refused_and_begins_anew_when_asked(tmp_path, forty_photos, change):
    settings = {"size": 32, "crop": 32, "batch_size": 6, "save_every": 0.0}
    model, out = network(), tmp_path / "run"
    with pytest.raises(CutError):
        natstats.measure(model, forty_photos, out=out, progress=cut_after(18), **settings)
    if change == "options":
        settings["edges"] = "hann"
    elif change == "images":
        (forty_photos / "10.png").rename(forty_photos / "10b.png")
    elif change == "contents":
        pixels = np.full((40, 48, 3), 9, np.uint8)
        for file in sorted(forty_photos.glob("*.png")):
            size = file.stat().st_size
            if size > 100:
                Image.fromarray(pixels).save(file)
                file.write_bytes(file.read_bytes().ljust(size, b"\0"))
    elif change == "weights":
        model = network(1)
    else:
        (forty_photos / "10.png").unlink()
    word = {"options": "edges", "weights": "weights"}.get(change, "images")
    with pytest.raises(natstats.UsageError, match=rf"out: .*{word}"):
        natstats.measure(model, forty_photos, out=out, **settings)
    run = natstats.measure(model, forty_photos, out=out, overwrite=True, **settings)
    assert run.info["images"]["n_images"] >= N_PHOTOS - 2


def test_an_old_run_stays_until_the_new_one_is_there(tmp_path, forty_photos):
    settings = {"size": 32, "crop": 32, "batch_size": 6, "save_every": 0.0}
    out = tmp_path / "run"
    natstats.measure_images(forty_photos, out=out, seed=1, **settings)
    with pytest.raises(CutError):
        natstats.measure_images(
            forty_photos, out=out, seed=2, overwrite=True, progress=cut_after(18), **settings
        )
    assert Run.open(out).info["options"]["seed"] == 1
    natstats.measure_images(forty_photos, out=out, seed=2, overwrite=True, **settings)
    assert Run.open(out).info["options"]["seed"] == 2
    assert not (out / STATE).exists()


def test_a_failure_before_the_first_image_leaves_nothing(tmp_path):
    with pytest.raises(natstats.NatstatsError):
        natstats.measure(nn.Linear(3, 4), torch.rand(8, 3, 16, 16), out=tmp_path / "a" / "run")
    assert not (tmp_path / "a").exists()


def test_two_measurements_cannot_have_one_folder(tmp_path, forty_photos):
    seen = []

    def progress(done: int, total: int) -> None:
        code = (
            "import sys, natstats\n"
            "try: natstats.measure_images(sys.argv[1], out=sys.argv[2])\n"
            "except natstats.UsageError as error: print(error)\n"
        )
        args = [sys.executable, "-c", code, str(forty_photos), str(tmp_path / "run")]
        if not seen:
            seen.append(subprocess.run(args, capture_output=True, text=True, check=True).stdout)

    natstats.measure_images(forty_photos, out=tmp_path / "run", progress=progress)
    assert f"being written by process {os.getpid()} on" in seen[0]


KILLED = textwrap.dedent(
    """
    import os, random, shutil, signal, sys, time
    sys.path.insert(0, sys.argv[1])
    from tests.measurement.cut_runs import network
    import natstats, torch
    import natstats.report.pages.run as pages

    pages.write_report = lambda folder, report: (folder / "report.html").touch()
    torch.set_num_threads(1)
    photos, out, n_kills = sys.argv[2], sys.argv[3], int(sys.argv[4])
    settings = dict(size=32, crop=32, batch_size=2, save_every=0.0, control="random-weights",
                    control_seeds=2)

    def run(path, pause):
        model = network()
        def progress(done, total):
            time.sleep(pause)
        natstats.measure(model, photos, out=path, progress=progress, **settings)

    started = time.monotonic()
    if os.fork() == 0:
        run(out + "-whole", 0.002)
        os._exit(0)
    assert os.wait()[1] == 0
    length = time.monotonic() - started
    random.seed(0)
    kills = 0
    while True:
        child = os.fork()
        if child == 0:
            run(out, 0.002)
            os._exit(0)
        if kills < n_kills:
            time.sleep(random.uniform(0.02, 0.3) * length)
            os.kill(child, signal.SIGKILL)
        code = os.waitpid(child, 0)[1]
        kills += code == signal.SIGKILL
        assert code in (0, signal.SIGKILL), code
        if code == 0 and kills >= n_kills:
            break
        if code == 0:  # faster than the kill: once more
            shutil.rmtree(out)
    print(kills)
    """
)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, forty_photos, assert_same):
    root = Path(__file__).parents[2]
    args = [str(root), str(forty_photos), str(tmp_path / "run"), "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *args], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == 20
    assert_same(tmp_path / "run-whole", tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run", "run-whole"]
