"""A measurement that is killed, stopped or refused room goes on, and ends with the same numbers."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from natstats_cli import output
from PIL import Image
from torch import nn

import natstats
from natstats.files.ownership import STATE
from natstats.files.state_files import write_state
from natstats.measurement import network_pass
from natstats.measurement.keeping import Keeper
from natstats.runs.run import Run

N_IMAGES = 40

pytestmark = pytest.mark.usefixtures("quick")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()
    ).eval()


@pytest.fixture
def photos(make_photos: Callable[[int], Path]) -> Path:
    return make_photos(N_IMAGES)


class CutError(Exception):
    """Ends a measurement in its midst."""


def cut_after(n_images: int):
    def progress(done: int, total: int) -> None:
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
def test_what_was_cut_goes_on_with_every_pass(tmp_path, photos, options, assert_same):
    settings = {"size": 32, "crop": 32, "batch_size": 6, **options, "save_every": 0.0}
    model = network()
    natstats.measure(model, photos, out=tmp_path / "whole", **settings)
    n_passes = 1 + 2 * ("control" in options) + 2 * ("explain" in options)
    for place in range(n_passes):
        with pytest.raises(CutError):
            cut = cut_after(N_IMAGES * place + 13)
            natstats.measure(model, photos, out=tmp_path / "cut", progress=cut, **settings)
        assert not (tmp_path / "cut" / "run.json").exists()
    run = natstats.measure(model, photos, out=tmp_path / "cut", **settings)
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert not (tmp_path / "cut" / STATE).exists()
    assert run.path == tmp_path / "cut"


@pytest.mark.slow
def test_batch_normalisation_is_estimated_once(tmp_path, photos, monkeypatch, assert_same):
    """Also where other batches would give other statistics when the pass goes on."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)).eval()
    settings = {"size": 32, "crop": 32, "batch_size": 6, "save_every": 0.0, **OPTIONS["explain"]}
    natstats.measure(model, photos, out=tmp_path / "whole", **settings)
    times = []
    estimate = network_pass.estimate_norms
    monkeypatch.setattr(
        network_pass, "estimate_norms", lambda *given: times.append(1) or estimate(*given)
    )
    for place in (2 * N_IMAGES + 13, 2 * N_IMAGES + 30, 4 * N_IMAGES):
        with contextlib.suppress(CutError):
            natstats.measure(
                model, photos, out=tmp_path / "cut", progress=cut_after(place), **settings
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


def test_other_batches_give_the_same_to_the_rounding_of_float32(tmp_path, photos):
    settings = {"size": 32, "crop": 32, "save_every": 0.0, "out": tmp_path / "run"}
    whole = natstats.measure_images(photos, size=32, crop=32)
    with pytest.raises(CutError):
        natstats.measure_images(photos, batch_size=7, progress=cut_after(20), **settings)
    again = natstats.measure_images(photos, batch_size=3, **settings)
    for one, other in zip(whole.spectra, again.spectra, strict=True):
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=2e-6)


@pytest.mark.parametrize("change", ["options", "images", "contents", "weights", "fewer"])
def test_what_is_not_the_same_is_refused_and_begins_anew_when_asked(tmp_path, photos, change):
    settings = {"size": 32, "crop": 32, "batch_size": 6, "save_every": 0.0}
    model, out = network(), tmp_path / "run"
    with pytest.raises(CutError):
        natstats.measure(model, photos, out=out, progress=cut_after(18), **settings)
    if change == "options":
        settings["edges"] = "hann"
    elif change == "images":
        (photos / "10.png").rename(photos / "10b.png")
    elif change == "contents":
        pixels = np.full((40, 48, 3), 9, np.uint8)
        for file in sorted(photos.glob("*.png")):
            size = file.stat().st_size
            if size > 100:
                Image.fromarray(pixels).save(file)
                file.write_bytes(file.read_bytes().ljust(size, b"\0"))
    elif change == "weights":
        model = network(1)
    else:
        (photos / "10.png").unlink()
    word = {"options": "edges", "weights": "weights"}.get(change, "images")
    with pytest.raises(natstats.UsageError, match=rf"out: .*{word}"):
        natstats.measure(model, photos, out=out, **settings)
    run = natstats.measure(model, photos, out=out, overwrite=True, **settings)
    assert run.info["images"]["n_images"] >= N_IMAGES - 2


def test_an_old_run_stays_until_the_new_one_is_there(tmp_path, photos):
    settings = {"size": 32, "crop": 32, "batch_size": 6, "save_every": 0.0}
    out = tmp_path / "run"
    natstats.measure_images(photos, out=out, seed=1, **settings)
    with pytest.raises(CutError):
        natstats.measure_images(
            photos, out=out, seed=2, overwrite=True, progress=cut_after(18), **settings
        )
    assert Run.open(out).info["options"]["seed"] == 1
    natstats.measure_images(photos, out=out, seed=2, overwrite=True, **settings)
    assert Run.open(out).info["options"]["seed"] == 2
    assert not (out / STATE).exists()


def test_a_failure_before_the_first_image_leaves_nothing(tmp_path):
    with pytest.raises(natstats.NatstatsError):
        natstats.measure(nn.Linear(3, 4), torch.rand(8, 3, 16, 16), out=tmp_path / "a" / "run")
    assert not (tmp_path / "a").exists()


def test_two_measurements_cannot_have_one_folder(tmp_path, photos):
    seen = []

    def progress(done: int, total: int) -> None:
        code = (
            "import sys, natstats\n"
            "try: natstats.measure_images(sys.argv[1], out=sys.argv[2])\n"
            "except natstats.UsageError as error: print(error)\n"
        )
        args = [sys.executable, "-c", code, str(photos), str(tmp_path / "run")]
        if not seen:
            seen.append(subprocess.run(args, capture_output=True, text=True, check=True).stdout)

    natstats.measure_images(photos, out=tmp_path / "run", progress=progress)
    assert f"being written by process {os.getpid()} on" in seen[0]


KILLED = textwrap.dedent(
    """
    import os, random, shutil, signal, sys, time
    sys.path.insert(0, sys.argv[1])
    from tests.measurement.test_resume import network
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
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, photos, assert_same):
    root = Path(__file__).parents[2]
    args = [str(root), str(photos), str(tmp_path / "run"), "20"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *args], env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) == 20
    assert_same(tmp_path / "run-whole", tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "run", "run-whole"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
def test_a_signal_saves_says_how_to_go_on_and_has_its_code(
    tmp_path, photos, call, monkeypatch, number, code, assert_same
):
    command = ["images", photos, "--size", 32, "--crop", 32, "--batch-size", 6, "--out"]

    @contextlib.contextmanager
    def progress_bar(quiet=False):
        yield lambda done, total: signal.raise_signal(number) if 12 <= done < 18 else None

    monkeypatch.setattr(output, "progress_bar", progress_bar)
    found = call(*command, tmp_path / "run", code=code)
    assert found.stderr.splitlines()[-1] == (
        f"Error: interrupted; {tmp_path}/run keeps what was measured of 12 of {N_IMAGES} images, "
        f"and the same command, with --out {tmp_path}/run, goes on from there"
    )
    assert "not finished" in call("fit", tmp_path / "run", code=2).stderr
    call(*command, tmp_path / "run")
    natstats.measure_images(photos, size=32, crop=32, batch_size=6, out=tmp_path / "whole")
    assert_same(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"]
)
@pytest.mark.parametrize("where", ["fits", "norms", "twice"])
def test_a_signal_that_cannot_wait_says_what_is_kept(
    tmp_path, photos, call, monkeypatch, number, code, where
):
    """In the midst of fits, between two passes, and the second one in the midst of a batch."""
    command = ["images", photos, "--size", 32, "--crop", 32, "--batch-size", 6]
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        if where == "twice":

            @contextlib.contextmanager
            def progress_bar(quiet=False):
                def twice(done, total):
                    for _ in range(2 if done == 12 else 0):
                        signal.raise_signal(number)

                yield twice

            patched.setattr(output, "progress_bar", progress_bar)
            command += ["--save-every", 0]
        elif where == "fits":
            patched.setattr(Run, "save", lambda *given, **named: signal.raise_signal(number))
        else:
            command[:2] = ["measure", "cifar_resnet20", "--weights", "none", "--images", photos]
            command += ["--explain", "--counterfactual", "shuffle-kernels"]
            patched.setattr(
                network_pass, "estimate_norms", lambda *given: signal.raise_signal(number)
            )
        found = call(*command, "--out", out, code=code)
    assert found.stderr.splitlines()[-1] == (
        f"Error: interrupted; {out} keeps what was measured, and the same command, with --out "
        f"{out}, goes on from there"
    )
    if where == "fits":
        call("fit", out)
        assert (out / "run.json").exists()


def test_a_second_signal_does_not_wait(tmp_path, photos):
    def progress(done: int, total: int) -> None:
        if done == 12:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        natstats.measure_images(photos, batch_size=6, out=tmp_path / "run", progress=progress)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_the_run_cannot_be_written_its_spectra_are_kept(
    tmp_path, photos, call, monkeypatch, assert_same
):
    options = ["--size", 32, "--crop", 32, "--band", "0.05:0.4"]
    call("images", photos, *options, "--out", tmp_path / "whole")
    write, is_full = np.savez_compressed, [True]

    def full(*given, **arrays):
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(*given, **arrays)

    monkeypatch.setattr(np, "savez_compressed", full)
    out = tmp_path / "run"
    said = call("images", photos, *options, "--out", out, code=1).stderr
    assert f"kept in {out}; `natstats fit {out}` finishes it when it can be written" in said
    is_full.clear()
    call("fit", out)
    assert_same(tmp_path / "whole", out)
    assert (tmp_path / "whole/layers.csv").read_text() == (out / "layers.csv").read_text()


def test_where_no_state_can_be_saved_it_goes_on_and_says_so(tmp_path, photos, monkeypatch, caplog):
    def full(path, state):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("natstats.measurement.keeping.write_state", full)
    run = natstats.measure_images(photos, size=32, crop=32, out=tmp_path / "run", save_every=0.0)
    assert run.path == tmp_path / "run"
    assert "could not be saved" in caplog.text
    assert len(caplog.records) == 1


def test_an_error_in_the_midst_keeps_what_was_measured_and_says_so(tmp_path, photos):
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
        natstats.measure(model, photos, **settings)
    assert "a cable came loose" in str(raised.value)
    assert f"keeps what was measured of 18 of {N_IMAGES} images" in str(raised.value)
    run = natstats.measure(model, photos, **settings)
    assert run.info["images"]["n_images"] == N_IMAGES - 1


def test_batches_that_do_not_fit_are_halved_once_and_for_all(photos):
    sizes: list[int] = []

    class Small(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return images * 1

    settings = {"size": 32, "crop": 32, "batch_size": 12}
    run = natstats.measure(nn.Sequential(Small(), *network()).eval(), photos, **settings)
    assert sizes.count(12) == sizes.count(6) == 1
    assert any("measured in parts of 3" in one for one in run.info["warnings"])
    whole = natstats.measure(network(), photos, **settings)
    for one, other in zip(run.spectra[2:], whole.spectra[2:], strict=True):
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=3e-6)
        np.testing.assert_array_equal(one.spectrum.count, other.spectrum.count)


def test_one_image_that_does_not_fit_is_an_error(photos):
    class Fullest(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            if len(images) > 1 or len(sizes) > 8:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")
            sizes.append(len(images))
            return images * 1

    sizes: list[int] = []
    with pytest.raises(natstats.NatstatsError, match="batch_size: a batch of 1 x 3 x 32 x 32"):
        natstats.measure(nn.Sequential(Fullest(), *network()).eval(), photos, size=32, crop=32)


def test_a_part_of_a_batch_counts_once_where_another_part_fails(tmp_path, photos):
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
        natstats.measure(model, photos, out=tmp_path / "run", **settings)
    state["fails"] = False
    run = natstats.measure(model, photos, out=tmp_path / "run", **settings)
    whole = natstats.measure(model, photos, **settings)
    for one, other in zip(run.spectra, whole.spectra, strict=True):
        np.testing.assert_array_equal(one.spectrum.count, other.spectrum.count)
        np.testing.assert_allclose(one.spectrum.power, other.spectrum.power, rtol=3e-6)
    assert run.info["images"] == whole.info["images"]


def test_strict_stays_strict_when_it_goes_on(tmp_path, photos):
    settings = {"size": 32, "crop": 32, "batch_size": 6, "out": tmp_path / "run", "strict": True}
    for every in (60.0, 0.0, 0.0):
        settings["save_every"] = every
        with pytest.raises(natstats.NatstatsError, match="expected readable images only; 05.png"):
            natstats.measure_images(photos, **settings)
        # What took no time to measure is not worth a folder.
        assert (tmp_path / "run").exists() == (every == 0.0)
    assert natstats.measure_images(photos, **{**settings, "strict": False}).info["images"][
        "n_unreadable"
    ] == 1  # fmt: skip
