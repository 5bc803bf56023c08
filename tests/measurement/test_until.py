"""Images are read until every interval is narrow enough, and more of them later."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.files.ownership import STATE
from natstats.files.state_files import read_state
from natstats.fits.options import FitOptions
from natstats.measurement.until import FIRST_LOOK, Until, next_look
from natstats.report.pages.provenance import measured as told
from natstats.runs.run import Run
from tests.measurement.cut_runs import CutError, cut_after

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    fields = natstats.power_law_fields(400, 24, 24, alpha=2.0, seed=0)
    return np.float32(fields[:, None])


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3)).eval()


def widths(run: Run) -> np.ndarray:
    return (run.layers.exponent_high - run.layers.exponent_low).to_numpy()


def test_it_stops_as_soon_as_a_look_finds_all_intervals_narrow_enough(tmp_path, images):
    loose = natstats.measure(network(), images, until=0.2, batch_size=8, out=tmp_path / "run")
    n_loose = loose.info["images"]["n_images"]
    assert FIRST_LOOK <= n_loose < 400
    assert np.nanmax(widths(loose)) <= 0.2
    assert any(
        f"no interval is wider than 0.2 after {n_loose} of 400 images" in one
        for one in loose.info["warnings"]
    )
    same = natstats.measure(network(), images, until=0.2, batch_size=8)
    assert same.info["images"]["n_images"] == n_loose
    closer = natstats.measure(network(), images, until=0.13, batch_size=8, out=tmp_path / "run")
    assert n_loose < closer.info["images"]["n_images"] <= 400
    at_once = natstats.measure(network(), images, until=0.13, batch_size=8)
    if at_once.info["images"]["n_images"] == closer.info["images"]["n_images"]:
        for one, other in zip(closer.spectra, at_once.spectra, strict=True):
            np.testing.assert_array_equal(one.spectrum.power, other.spectrum.power)
    assert Run.open(tmp_path / "run").info["options"]["until"] == 0.13


def test_intervals_that_decided_when_to_stop_are_wider(tmp_path, images):
    measured = natstats.measure_images(images, until=0.2, out=tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.options.stopped
    fixed = run.refit(stopped=False)
    np.testing.assert_allclose(widths(run), 1.1 * widths(fixed))
    np.testing.assert_array_equal(widths(run), widths(measured))
    assert run.layers.exponent.tolist() == fixed.layers.exponent.tolist()
    assert not natstats.measure_images(
        images, fit=natstats.FitOptions(stopped=True)
    ).options.stopped
    assert "wider by a tenth" in dict(told(run.info, run.options))["intervals"]


def test_where_all_images_are_not_enough_it_is_said(images):
    run = natstats.measure_images(images, until=1e-4)
    assert run.info["images"]["n_images"] == 400
    assert any("wide after all 400 images, where 0.0001 was asked for" in one
               for one in run.info["warnings"])  # fmt: skip


@pytest.mark.parametrize("n_images", [100, 128, 150])
def test_intervals_that_did_not_end_the_measurement_are_not_wider(tmp_path, images, n_images):
    """Fewer images than before the first look; as many; and none narrow enough."""
    few, out = images[:n_images], tmp_path / "run"
    natstats.measure_images(few, until=0.2 if n_images == 128 else 1e-4, batch_size=8, out=out)
    run, fixed = Run.open(out), natstats.measure_images(few, batch_size=8)
    assert not run.options.stopped
    np.testing.assert_array_equal(widths(run), widths(fixed))
    assert "wider" not in dict(told(run.info, run.options))["intervals"]


def test_a_run_that_was_stopped_and_then_read_to_the_end_is_not_wider(tmp_path, images):
    for width, is_stopped in ((0.2, True), (1e-4, False)):
        run = natstats.measure_images(images, until=width, batch_size=8, out=tmp_path / "run")
        assert run.options.stopped == is_stopped
    np.testing.assert_array_equal(
        widths(run), widths(natstats.measure_images(images, batch_size=8))
    )


def test_all_that_is_made_of_a_stopped_run_is_wider_alike(tmp_path, images):
    """Slopes, differences of runs, changes along a series: of a fit that was not widened."""
    model, other = network(), network()
    torch.nn.init.normal_(other[0].weight)
    settings = {"until": 0.2, "batch_size": 8, "control": "random-weights", "control_seeds": 2}
    ours, theirs = (natstats.measure(one, images, **settings) for one in (model, other))
    assert ours.options.stopped
    assert theirs.options.stopped
    plain = [run.refit(stopped=False) for run in (ours, theirs)]
    for how in ({"interval": "jackknife"}, {"interval": "bootstrap", "resamples": 100}):
        pair = [run.refit(**how) for run in (ours, plain[0])]
        np.testing.assert_allclose(widths(pair[0]), 1.1 * widths(pair[1]))

    def width(one) -> np.ndarray:
        return np.asarray(one.high - one.low)

    found, fixed = natstats.compare(ours, theirs), natstats.compare(*plain)
    np.testing.assert_allclose(width(found.layers), 1.1 * width(fixed.layers))
    np.testing.assert_allclose(width(found.mean), 1.1 * width(fixed.mean))
    np.testing.assert_allclose(found.layers.difference, fixed.layers.difference)
    for one, own in ((ours, plain[0]), (theirs, plain[1])):
        assert one.control is not None
        assert own.control is not None
        by_images = [run.fits.deviations for run in (one, own)]
        np.testing.assert_allclose(by_images[0], 1.1 * by_images[1])
        narrower = [run.sensitivity for run in (one, own)]
        reach = [frame.exponent_high - frame.exponent for frame in narrower]
        np.testing.assert_allclose(reach[0], 1.1 * reach[1])


@pytest.mark.parametrize(
    ("stop", "until"), [(40, 5.0), (40, 0.2), (128, 0.2), (128, 0.1), (136, 0.1), (260, 0.1)]
)
def test_one_that_was_cut_looks_after_the_same_images(tmp_path, images, stop, until):
    """Also where intervals were narrow enough when it was cut, and nobody had looked."""
    settings = {"until": until, "batch_size": 8, "out": tmp_path / "run", "save_every": 0.0}
    whole = natstats.measure_images(images, until=until, batch_size=8)

    with pytest.raises(CutError):
        natstats.measure_images(images, progress=cut_after(stop), **settings)
    run = natstats.measure_images(images, **settings)
    assert run.info["images"] == whole.info["images"]
    for one, other in zip(run.spectra, whole.spectra, strict=True):
        np.testing.assert_array_equal(one.spectrum.power, other.spectrum.power)


def test_a_look_counts_where_as_many_images_as_of_others_have_come(images):
    """One at fewer says nothing of those that came since; it was cut before the next."""
    spectra = natstats.measure_images(images).spectra
    until = Until(wanted=10.0, fit=FitOptions(), least=200)
    assert not until.is_reached(128, spectra)
    again = Until(wanted=10.0, fit=FitOptions(), least=200, look=until.look)
    assert not again.is_enough(200)
    assert again.next == 200
    assert again.is_reached(200, spectra)


def test_a_run_that_is_gone_on_with_is_not_whole_before_its_end(tmp_path, images):
    settings = {"batch_size": 8, "out": tmp_path / "run", "save_every": 0.0}
    natstats.measure_images(images, until=0.2, **settings)

    with pytest.raises(CutError):
        natstats.measure_images(images, until=1e-4, progress=cut_after(201), **settings)
    state = read_state(tmp_path / "run" / STATE / "images.safetensors")
    assert not state["is_whole"]


def test_where_there_is_no_room_for_the_state_of_a_run_it_stays_as_it_is(
    tmp_path, images, monkeypatch
):
    """The copies of all passes are there, or none; then the command goes on as before."""
    settings = {"batch_size": 8, "out": tmp_path / "run", "control": "random-weights"}
    settings |= {"control_seeds": 2}
    natstats.measure(network(), images, until=0.2, **settings)
    before = (tmp_path / "run" / "run.json").read_text()
    copy, times = shutil.copyfile, []

    def full(source: Path, target: Path) -> None:
        times.append(target)
        if len(times) == 2:
            Path(target).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(natstats.NatstatsError, match="room for the state of the run.*No space"):
        natstats.measure(network(), images, until=0.15, **settings)
    assert (tmp_path / "run" / "run.json").read_text() == before
    assert not (tmp_path / "run" / STATE).exists()
    seen = []
    natstats.measure(
        network(), images, until=0.15, progress=lambda done, _: seen.append(done), **settings
    )
    assert seen[0] > 128


def test_the_command_goes_on_with_a_smaller_width(tmp_path, images, call):
    np.save(tmp_path / "images.npy", images)
    command = ["images", tmp_path / "images.npy", "--batch-size", 8, "--out", tmp_path / "run"]
    n_images = 0
    for until in (0.2, 0.1):
        call(*command, "--until", until)
        run = Run.open(tmp_path / "run")
        assert n_images < run.info["images"]["n_images"] < 400
        n_images = run.info["images"]["n_images"]
    assert "exists and is kept" in call(*command, code=2).stderr
    assert "seed" in call(*command, "--until", 0.05, "--seed", 3, code=2).stderr
    assert Run.open(tmp_path / "run").info["images"]["n_images"] == n_images


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_runs_of_a_series_are_on_the_same_images(tmp_path, images, is_kept):
    """Those that need fewer go on to as many as the others take, and later to more."""
    model = network()
    for step in (1, 2, 3):
        torch.save(model.state_dict(), tmp_path / f"epoch_{step}.pth")
        torch.nn.init.normal_(model[0].weight, std=3.0)
        torch.nn.init.normal_(model[2].weight)
    given = model, tmp_path / "epoch_*.pth", images
    settings = {"batch_size": 8, "out": tmp_path / "series" if is_kept else None}
    alone = [
        natstats.measure(
            model, images, until=0.19, batch_size=8, checkpoint=None
        ).info["images"]["n_images"]
        for model in map(loaded, sorted(tmp_path.glob("epoch_*.pth")))
    ]  # fmt: skip
    assert len({*alone}) > 1
    seen = 0
    for until in (0.19, 0.115):
        series = natstats.measure_series(*given, until=until, **settings)
        facts = [run.info["images"] for run in series.runs]
        assert len({one["contents"] for one in facts}) == 1
        assert all(run.info["options"]["until"] == until for run in series.runs)
        assert all(np.nanmax(widths(run)) <= until for run in series.runs)
        assert series.change.is_paired
        assert facts[0]["n_images"] > seen
        seen = facts[0]["n_images"]
        if until == 0.19:
            assert seen == max(alone)
    if is_kept:  # nothing is left to do
        again = natstats.measure_series(*given, until=0.115, progress=None, **settings)
        assert [run.info["created"] for run in again.runs] == [
            run.info["created"] for run in series.runs
        ]


def loaded(path) -> nn.Module:
    model = network()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model


def test_controls_see_the_images_that_were_read(images):
    run = natstats.measure(
        network(), images, until=0.2, batch_size=8, control="random-weights", control_seeds=2
    )
    counts = {run.spectra[0].spectrum.n_images}
    counts |= {one.spectra[0].spectrum.n_images for one in run.random_weights}
    assert counts == {run.info["images"]["n_images"]}


def test_what_cannot_be_gone_on_with_is_refused(tmp_path, images):
    out = tmp_path / "run"
    natstats.measure(network(), images, until=0.2, batch_size=8, out=out)
    before = json.loads((out / "run.json").read_text())
    with pytest.raises(natstats.UsageError, match="with seed 0 in place of 1"):
        natstats.measure(network(), images, until=0.13, seed=1, out=out)
    with pytest.raises(natstats.UsageError, match="exists and is kept"):
        natstats.measure(network(), images, out=out)
    assert json.loads((out / "run.json").read_text()) == before
    with pytest.raises(natstats.UsageError, match="until: expected without shard"):
        natstats.measure_images(images, until=0.13, shard="1/2", out=tmp_path / "part")


@pytest.mark.parametrize("width", [0, -1.0, float("nan"), float("inf"), "0.1", None])
def test_a_width_that_is_none_is_refused(images, width):
    if width is None:
        assert "until" not in natstats.MeasureOptions(until=None).to_dict()
        return
    with pytest.raises(natstats.UsageError, match="until: expected"):
        natstats.measure_images(images, until=width)


def test_looks_come_later_where_much_is_missing():
    assert next_look(64, float("nan"), 0.1) == 128
    looks = [16]
    while looks[-1] < 10**6:
        looks.append(next_look(looks[-1], 100.0, 0.1))
    assert len(looks) < 12
