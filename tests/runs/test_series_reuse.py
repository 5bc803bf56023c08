"""Which runs a series takes as they are, which it refuses, and what it never touches."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats import Series, measure_series
from natstats.fits.options import FitOptions
from natstats.images import open_images
from natstats.measurement import MeasureOptions
from natstats.measurement.series_request import SeriesRequest
from natstats.networks.load_options import LoadOptions
from natstats.runs.run import Run
from tests.runs.small_series import between, network


@pytest.mark.slow
def test_nothing_is_measured_twice(measure_again, measured):
    measure_again(batch_size=5, workers=0)
    assert measured[1] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"edges": "hann"}, "edges 'sine' in place of 'hann'"),
        ({"limit": 9}, "limit None in place of 9"),
        ({"seed": 1}, "seed 0 in place of 1"),
        ({"fit": natstats.FitOptions(estimator="ols")}, "estimator 'octave' in place of 'ols'"),
        ({"model": nn.Sequential(*network(), nn.ReLU())}, "model .* in place of"),
    ],
)
def test_runs_made_in_another_way_are_refused_or_replaced(
    measure_again, tmp_path, measured, change, words
):
    before = (tmp_path / "out" / "e1" / "run.json").read_bytes()
    with pytest.raises(natstats.UsageError, match=f"^out: .*e1 was made with {words}.*is kept"):
        measure_again(**change)
    assert (tmp_path / "out" / "e1" / "run.json").read_bytes() == before
    assert measured[1] == []
    measure_again(**change, overwrite=True)
    assert measured[1] == ["e1.pth", "e2.pth"]
    measure_again(**change)
    assert len(measured[1]) == 2


@pytest.mark.slow
def test_the_same_in_another_spelling_is_the_same(measure_again, measured):
    measure_again(layers=[" weight "], layouts={}, control_seeds=5)
    assert measured[1] == []


def request_of(images, options=None):
    return SeriesRequest(
        network(), images, LoadOptions(), options or MeasureOptions(), FitOptions(), None, None
    )


def test_pixels_and_power_that_are_normalised_are_told_apart(series, series_images):
    """Both options are called `normalize`; a run was once taken for one with the other pixels."""
    run, request = Run.open(series / "epoch_0"), request_of(series_images)
    digest = run.info["series"]["digest"]
    assert request.difference(run, digest) is None
    run.info["series"]["asked"]["normalize"] = False
    assert request.difference(run, digest) == "made with normalize False in place of True"


def test_clips_of_the_same_length_are_looked_for(series, series_images, monkeypatch):
    run, asked = Run.open(series / "epoch_0"), []
    run.info["series"]["asked"]["frames"] = 4

    def opened(source, framing, limit, seed, frames):
        asked.append(frames)
        return open_images(source, framing, limit, seed)

    monkeypatch.setattr("natstats.measurement.series_request.open_images", opened)
    request = request_of(series_images, MeasureOptions(frames=4))
    assert request.difference(run, run.info["series"]["digest"]) is None
    assert asked == [4]


def test_other_images_are_not_taken_for_the_same(measure_again, series_images):
    with pytest.raises(natstats.UsageError, match="^out: .*other images"):
        measure_again(series_images[::-1].copy())


@pytest.mark.slow
def test_changed_photographs_are_not_taken_for_the_same(tmp_path, quick, measured):
    from PIL import Image

    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (6, 40, 40, 3), dtype=np.uint8)
    for place, one in enumerate(pixels):
        Image.fromarray(one).save(folder / f"{place}.png")
    for epoch in (1, 2):
        torch.save(between(epoch / 2), tmp_path / f"e{epoch}.pth")
    given = (network(), tmp_path / "e*.pth", folder)
    options = {"size": 32, "out": tmp_path / "out"}
    measure_series(*given, **options)
    measure_series(*given, **options)
    assert len(measured[1]) == 2
    Image.new("RGB", (40, 40)).save(folder / "0.png")
    with pytest.raises(natstats.UsageError, match="other images"):
        measure_series(*given, **options)


@pytest.mark.slow
def test_another_version_or_checkpoint_is_not_the_same(
    measure_again, tmp_path, monkeypatch, measured
):
    torch.save(between(0.7), tmp_path / "e2.pth")
    with pytest.raises(natstats.UsageError, match="e2 was made from another checkpoint file"):
        measure_again()
    measure_again(overwrite=True)
    assert measured[1] == ["e2.pth"]
    monkeypatch.setattr("natstats.measurement.series_request.__version__", "99")
    with pytest.raises(natstats.UsageError, match="natstats .* in place of '99'"):
        measure_again()


@pytest.mark.slow
def test_a_damaged_run_is_replaced_only_when_asked(measure_again, tmp_path, measured):
    (tmp_path / "out" / "e1" / "spectra.npz").write_bytes(b"")
    with pytest.raises(natstats.UsageError, match="e1 was not a whole run"):
        measure_again()
    measure_again(overwrite=True)
    assert measured[1] == ["e1.pth"]


@pytest.mark.slow
def test_a_series_grows_and_does_not_shrink_unasked(measure_again, tmp_path, measured):
    torch.save(between(0.3), tmp_path / "e3.pth")
    assert list(measure_again().frame.step) == [1, 2, 3]
    assert measured[1] == ["e3.pth"]
    (tmp_path / "e3.pth").unlink()
    with pytest.raises(natstats.UsageError, match="^out: .*also has e3 and is kept"):
        measure_again()
    assert list(measure_again(overwrite=True).frame.step) == [1, 2]
    assert (tmp_path / "out" / "e3" / "run.json").is_file()


@pytest.mark.slow
def test_notes_beside_a_series_stay(measure_again, tmp_path):
    (tmp_path / "out" / "notes.txt").write_text("mine")
    torch.save(between(0.3), tmp_path / "e3.pth")
    measure_again()
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_a_series_is_never_touched(
    measure_again, tmp_path, series_images, overwrite, measured
):
    plain = tmp_path / "plain"
    natstats.measure(network(), series_images).save(plain / "run", report=False)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter1.tex").write_text("years of work")
    for target in (plain, plain / "run", thesis, thesis / "chapter1.tex"):
        with pytest.raises(natstats.UsageError, match="^out: .*is kept|^out: expected a place"):
            measure_again(out=target, overwrite=overwrite)
    assert measured[1] == []
    assert {p.name for p in thesis.iterdir()} == {"chapter1.tex"}
    assert {p.name for p in plain.iterdir()} == {"run"}


@pytest.mark.slow
def test_a_run_never_overwrites_a_series_nor_the_other_way(measure_again, tmp_path, series_images):
    run = natstats.measure(network(), series_images)
    for home in (tmp_path / "out", tmp_path / "out2"):
        if home.name == "out2":
            shutil.copytree(tmp_path / "out", home)
            (home / "series.json").unlink()
        with pytest.raises(natstats.UsageError, match="expected a run to overwrite"):
            run.save(home, overwrite=True, report=False)
    found = Series.open(tmp_path / "out")
    with pytest.raises(natstats.UsageError, match="exists and is kept"):
        found.save(tmp_path / "out2")
    found.save(tmp_path / "out2", overwrite=True)
    assert Series.open(tmp_path / "out2").frame.equals(found.frame)


@pytest.mark.parametrize(
    ("record", "words"),
    [("{", "a whole series"), ("[]", "a whole series"), ('{"format": 99}', "a newer natstats"),
     ('{"format": 1, "runs": [{}]}', "a whole series")],
)  # fmt: skip
def test_a_damaged_series_says_why_it_does_not_open(measure_again, tmp_path, record, words):
    (tmp_path / "out" / "series.json").write_text(record)
    with pytest.raises(natstats.NatstatsError, match=f"^series: .*{words}"):
        Series.open(tmp_path / "out")
