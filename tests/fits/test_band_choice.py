"""A band as it is asked for: in cycles/pixel or cycles/image, written, read, kept."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from natstats.errors import UsageError
from natstats.fits.band_choice import ImageBand, as_band, band_text
from natstats.fits.options import FitOptions


@pytest.mark.parametrize(
    ("given", "band"),
    [
        ((0.02, 0.4), (0.02, 0.4)),
        ([0, 0.5], (0.0, 0.5)),
        ("0.02:0.4", (0.02, 0.4)),
        ("0.02:0.4/pixel", (0.02, 0.4)),
        ("2:12/image", ImageBand(2, 12)),
        (" 2 : 12 / image ", ImageBand(2, 12)),
        ("1.5:1e2/image", ImageBand(1.5, 100)),
        (ImageBand(3, 4), ImageBand(3, 4)),
    ],
)
def test_a_band_is_read_in_either_unit(given, band):
    assert as_band(given) == FitOptions(band=given).band == band


@pytest.mark.parametrize("low", [0, 0.3, 1])
def test_no_wave_is_longer_than_the_image(low):
    assert as_band(f"{low}:12/image") == ImageBand(1, 12)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("12:2/image", "two rising numbers of cycles/image.*got 12.0 and 2.0"),
        ("2:2/image", "two rising numbers of cycles/image"),
        ("-1:4/image", "the first at least 0"),
        ("0:1/image", "the second above 1"),
        ("nan:4/image", "two rising numbers"),
        ("2:inf/image", "two rising numbers"),
        ("2:1e999/image", "two rising numbers"),
        ("2:12/img", "LOW:HIGH/image in cycles/image, such as 2:12/image; got '2:12/img'"),
        ("2:12/", "LOW:HIGH"),
        ("2:12/image/image", "LOW:HIGH"),
        ("2:4:12/image", "LOW:HIGH"),
        ("2/image", "LOW:HIGH"),
        ("", "LOW:HIGH"),
        ("wide", "LOW:HIGH in cycles/pixel, such as 0.02:0.4"),
        ((0.4, 0.1), "between 0 and 0.5; got \\(0.4, 0.1\\)$"),
        ((2, 12), "between 0 and 0.5; got \\(2, 12\\) \\(in cycles/image it is written 2:12/image"),
        ("2:12", "written 2:12/image"),
        (("a", "b"), "two rising numbers between 0 and 0.5"),
        (7, "two rising numbers between 0 and 0.5"),
        (None, "two rising numbers between 0 and 0.5"),
    ],
)
def test_anything_else_is_told_what_is_expected(given, words):
    with pytest.raises(UsageError, match=f"^band: expected .*{words}"):
        FitOptions(band=given)


@pytest.mark.parametrize(
    "ends", [(2, 12), (1, 7), (1, 3.4615384615384617), (2.5, 1e4), (1, 1e-9 + 1)]
)
def test_a_band_of_the_image_comes_back_from_json_to_the_last_digit(ends):
    options = FitOptions(band=ImageBand(*ends), estimator="whittle")
    kept = json.loads(json.dumps(options.to_dict()))
    assert isinstance(kept["band"], str)
    assert FitOptions.from_dict(kept) == options
    assert as_band(str(options.band)) == options.band


def test_a_band_of_pixels_is_kept_as_it_always_was():
    assert json.loads(json.dumps(FitOptions(band=(0.1, 0.3)).to_dict()))["band"] == [0.1, 0.3]
    assert FitOptions.from_dict({"band": [0.1, 0.3]}).band == (0.1, 0.3)


def test_one_unit_takes_the_place_of_the_other():
    of_image = replace(FitOptions(), band="2:12/image")
    assert replace(of_image, level=0.9).band == ImageBand(2, 12)
    assert replace(of_image, band=(0.1, 0.4)).band == (0.1, 0.4)


def test_words_name_the_unit():
    assert band_text((0.0, 0.25), "frame") == "0 to 0.25 cycles per frame"
    assert band_text(ImageBand(1, 6.5)) == "1 to 6.5 cycles per image"


@pytest.mark.slow
def test_a_band_is_read_without_numpy():
    code = "import sys, natstats.fits.band_choice; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
