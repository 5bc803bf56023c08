"""What a run says of images that are small, few, or not there."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
from PIL import Image

import natstats
from natstats.images.framing import common_side
from natstats.images.sources import open_images, source_name

RNG = np.random.default_rng(0)


def put(folder, **sizes):
    """Photographs of noise by name, each (height, width)."""
    for name, (height, width) in sizes.items():
        pixels = RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def call(call, quick):
    return partial(call, code=None)


@pytest.mark.parametrize(
    ("sides", "side", "place"),
    [
        ([500, 400, 450], 400, None),
        ([500, 260, 450], 260, None),  # at least half of the median
        ([500] * 17 + [33], 500, None),
        ([90, 100, 40], 90, None),
        ([100, 40], 40, None),  # of two none is the odd one: half of the median is 35
        ([100, 33], 33, 1),
        ([500] * 20 + [100, 110], 500, None),  # two in twenty-two
        ([500] * 17 + [100, 110, 120], 100, 17),  # three in twenty: they are part of the set
        ([4000, 4000, 700], 512, None),  # beyond the largest nothing counts
        ([40] * 7 + [10], 40, None),
        ([10, 12], 10, None),
        ([300] * 50 + [200] * 50, 200, None),
    ],
)
def test_the_common_side_is_not_that_of_a_few_far_smaller(sides, side, place):
    assert common_side(sides, 512) == (side, place)
    turned = sides[::-1]
    assert common_side(turned, 512) == (side, None if place is None else turned.index(side))


@pytest.mark.slow
def test_a_strip_is_left_out_and_the_others_keep_their_size(tmp_path):
    put(tmp_path, **{f"photo{i}": (90 + i, 120) for i in range(12)})
    whole = natstats.measure_images(tmp_path)
    assert (whole.layers.height[0], whole.info["warnings"]) == (90, [])
    put(tmp_path, strip=(150, 40))
    run = natstats.measure_images(tmp_path)
    assert (run.layers.height[0], run.info["images"]["n_images"]) == (90, 12)
    assert run.info["warnings"] == [
        "1 of 13 images is smaller than the crop of 90 x 90 pixels and was left out: strip.png"
    ]
    assert run.info["images"]["unreadable"] == ["strip.png: 40 x 150 pixels are fewer than 90 x 90"]


def test_small_images_that_decide_are_named_with_their_size(tmp_path):
    put(tmp_path, a=(300, 310), b=(310, 320), thin=(40, 300), low=(300, 45))
    run = natstats.measure_images(tmp_path)
    assert run.layers.height[0] == 40
    assert run.info["warnings"] == [
        "all images are cut to 40 x 40 pixels because thin.png has only 300 x 40; half of them "
        "have 172 or more on their shorter side"
    ]
    assert natstats.measure_images(tmp_path, size=64).info["warnings"][0].startswith("2 of 4")


def test_a_crop_that_no_image_has_says_so(tmp_path, call):
    put(tmp_path, a=(60, 80), b=(70, 90))
    result = call("images", tmp_path, "--crop", 100)
    assert result.exit_code == 2
    assert (
        "crop: expected at most the shorter side of the images; all 2 are smaller than the crop of "
        "100 x 100 pixels"
    ) in result.output
    assert "unreadable" not in result.output
    (tmp_path / "broken.png").write_bytes(b"x")
    result = call("images", tmp_path, "--crop", 65, "--out", tmp_path / "run")
    assert "1 of 3 images is smaller than the crop of 65 x 65 pixels and was left out" in (
        result.output
    )
    assert "1 image could not be read" in result.output
    images = natstats.Run.open(tmp_path / "run").info["images"]
    assert (images["n_unreadable"], images["n_too_small"], images["n_images"]) == (2, 1, 1)


@pytest.mark.slow
def test_a_single_image_is_measured_and_says_what_it_can_tell(tmp_path, call):
    path = put(tmp_path, holiday=(64, 70)) / "holiday.png"
    result = call("images", path)
    assert result.exit_code == 0, result.output
    (note,) = re.findall(r"Note: (1 image was measured; .*)\.\n", result.output)
    assert "an interval needs at least 3, and no exponent is given without an interval" in note
    run = natstats.Run.open(tmp_path / "runs" / "holiday")
    assert run.layers["flags"][0] == "too few images"
    # The same photograph three times over has the exponent of the one, and more groups.
    pixels = np.asarray(Image.open(path))[:, 3:67].transpose(2, 0, 1)[None].repeat(3, 0) / 255
    own = natstats.measure_images(pixels.astype(np.float32)).layers.exponent[0]
    assert note.endswith(f"(by itself it has {own:.2f}, input.grey)")
    result = call("measure", "cifar_resnet20", "--weights", "none", "--images", path, "--layers",
                  "conv1", "--size", 32)  # fmt: skip
    assert result.exit_code == 1, result.output
    assert "1 image was measured" in result.output
    assert "expected an exponent of at least one layer; got none" in result.output


@pytest.mark.parametrize("n", [2, 3])
def test_two_images_have_the_note_and_three_an_interval(tmp_path, n):
    run = natstats.measure_images(put(tmp_path, **{f"p{i}": (64, 64) for i in range(n)}))
    assert bool(np.isfinite(run.layers.exponent[0])) == (n == 3)
    assert [w.split(";")[0] for w in run.info["warnings"]] == (
        ["2 images were measured"] if n == 2 else []
    )


@pytest.mark.parametrize(
    "source", ["/nope", "nope.jpg", "no/such/folder", "~nobodyhere/x", "~nobodyhere"]
)
def test_what_is_not_there_is_said_not_to_exist(call, source):
    for words in (("images", source), ("measure", "cifar_resnet20", "--images", source)):
        result = call(*words)
        assert result.exit_code == 2
        assert f"got {source!r}, which does not exist" in result.output


def test_a_file_whose_ending_is_no_image_is_said_to_be_none(tmp_path, call):
    (tmp_path / "a.heic").touch()
    result = call("images", "a.heic")
    assert "got 'a.heic', whose ending is not that of an image" in result.output


def test_no_images_are_not_those_of_the_current_folder(tmp_path, call):
    put(tmp_path, a=(64, 64))
    for words in (("images", ""), ("measure", "cifar_resnet20", "--images", "")):
        result = call(*words)
        assert result.exit_code == 2
        assert "images: expected a folder" in result.output
    assert not (tmp_path / "runs").exists()


def test_a_single_image_names_its_run(tmp_path):
    put(tmp_path, holiday=(8, 8))
    assert source_name(tmp_path / "holiday.png") == "holiday"
    assert source_name("photos/*.jpg") == "photos"
    assert len(open_images(tmp_path / "holiday.png")) == 1
