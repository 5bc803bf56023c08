"""Images are read until every interval is narrow enough, and more of them later."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.measurement.until import FIRST_LOOK, next_look
from natstats.report.pages.provenance import measured as told
from natstats.runs.run import Run

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
    with pytest.raises(natstats.UsageError, match="until: expected in one process"):
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
