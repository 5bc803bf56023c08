"""``--band 2:12/image`` on the command line, on the page and in the figures; and other units."""

from __future__ import annotations

import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import natstats
from natstats.fits.band_choice import ImageBand

pytestmark = [pytest.mark.usefixtures("quick"), pytest.mark.slow]


@pytest.fixture(scope="module")
def fitted(group, measured, tmp_path_factory):
    """Maps of 48, 24 and 12 pixels, of which the first two hold the band."""
    path = tmp_path_factory.mktemp("bands") / "new"
    result = CliRunner().invoke(
        group, ["fit", str(measured[0]), "--band", "2:10/image", "--out", str(path)]
    )
    assert result.exit_code == 0, result.output
    return path, result.stdout


def test_layers_that_hold_the_band_are_fitted_and_the_others_counted(fitted):
    path, said = fitted
    run = natstats.Run.open(path)
    assert run.options.band == ImageBand(2, 10)
    layers = run.layers[run.layers.kind != "input"]
    assert (layers.exponent.isna() == (layers.height == 12)).all()
    assert (layers.n_rings[layers.height > 12] == 9).all()
    lacking = layers[layers.height == 12]
    assert set(lacking["flags"]) == {"band not in this map"}
    n_held = len(layers) - len(lacking)
    assert f"Note: {n_held} of {len(layers)} layers hold the band of 2 to 10 cycles per" in said
    assert run.law.n_layers == n_held


def test_the_page_says_which_band_and_how_to_repeat_it(fitted):
    text = html.unescape((fitted[0] / "report.html").read_text(encoding="utf-8"))
    assert "2 to 10 cycles per image" in re.sub(r"<[^>]+>", "", text).split("How it was")[-1]
    assert "layers hold the band of 2 to 10 cycles per image" in text
    run = natstats.Run.open(fitted[0])
    del run.info["command"]
    from natstats.report.pages.provenance import repeat

    assert "FitOptions(band='2:10/image', estimator='octave')" in repeat(run.info, run.options)


def test_pixels_take_the_place_of_the_image_and_are_another_quantity(call, fitted):
    path, _ = fitted
    call("fit", path, "--level", "0.9", "--out", "kept")
    assert natstats.Run.open("kept").options.band == ImageBand(2, 10)
    call("fit", path, "--band", "0.05:0.4", "--out", "other")
    assert natstats.Run.open("other").options.band == (0.05, 0.4)
    error = call("compare", path, "other", code=2).stderr
    assert "band: expected the same in both runs" in error
    assert "'2:10/image'" in error
    call("compare", path, path)


def test_a_band_that_no_layer_holds_is_refused_before_anything_is_written(call, measured):
    said = call("fit", measured[0], "--band", "2:400/image", "--out", "new", code=2).stderr
    assert "no layer holds the band of 2 to 400 cycles per image; the finest maps" in said
    assert not Path("new").exists()


@pytest.mark.parametrize("band", ["12:2/image", "2:12/img", "0:0.5/image", "2:12"])
def test_a_band_that_is_none_is_one_sentence_before_the_work(call, photographs, band):
    error = call("images", photographs, "--band", band, code=2).stderr
    assert re.search(r"^Error: --band: expected .*got", error)
    assert len(error.strip().splitlines()) == 1


def test_images_alone_have_bands_too(call, photographs):
    call("images", photographs, "--size", "48", "--band", "2:12/image", "--out", "new")
    assert (natstats.Run.open("new").layers.n_rings == 11).all()
    said = call("images", photographs, "--size", "16", "--band", "2:12/image", "--out", "b").stdout
    assert "Note: the images do not hold the band of 2 to 12 cycles per image" in said


def test_an_older_run_opens_and_its_maps_stand_for_the_whole_image(measured, tmp_path):
    shutil.copytree(measured[0], tmp_path / "old")
    file = tmp_path / "old" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    for layer in record["layers"]:
        assert layer.pop("span") == 1  # all convolutions of the network are padded
    file.write_text(json.dumps(record), encoding="utf-8")
    old, new = natstats.Run.open(tmp_path / "old"), natstats.Run.open(measured[0])
    assert all(np.isnan(one.layer.span) for one in old.spectra)
    assert old.refit(band="2:10/image").layers.equals(new.refit(band="2:10/image").layers)


@pytest.mark.parametrize(
    ("value", "is_good"), [(None, True), (0.5, True), (0, False), ("1", False)]
)
def test_a_share_of_the_image_is_a_number_above_zero(measured, tmp_path, value, is_good):
    shutil.copytree(measured[0], tmp_path / "odd")
    file = tmp_path / "odd" / "run.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    record["layers"][0]["span"] = value
    file.write_text(json.dumps(record), encoding="utf-8")
    if is_good:
        assert natstats.Run.open(tmp_path / "odd").refit(band="1:6/image").layers is not None
        return
    with pytest.raises(natstats.NatstatsError, match=r"layers\[0\].span: expected"):
        natstats.Run.open(tmp_path / "odd")
