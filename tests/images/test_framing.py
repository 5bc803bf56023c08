"""Scaling and cutting: what --size and --crop mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import natstats
from natstats.images.framing import Framing, reframed

PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8))


def test_framing_scales_the_shorter_side():
    framed = Framing(16, 20, "bicubic")(Image.new("RGB", (90, 45)))
    assert framed.size == (16, 16)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("sides", [(130, 90), (131, 90), (89, 127), (40, 33), (77, 77)])
def test_scaling_is_that_of_torchvisions_transforms(interpolation, sides):
    """The preset of published weights: Resize, then CenterCrop, on a PIL image."""
    photo = PHOTO.resize(sides)
    from torchvision.transforms import v2

    mode = v2.InterpolationMode(interpolation)
    for resize, size in ((45, 33), (46, 33), (33, 33)):
        preset = v2.Compose([v2.Resize(resize, interpolation=mode), v2.CenterCrop(size)])
        framed = Framing(size, resize, interpolation)(photo)
        np.testing.assert_array_equal(framed, preset(photo))


def test_without_scaling_the_pixels_are_those_of_the_photograph():
    np.testing.assert_array_equal(Framing(50)(PHOTO), np.asarray(PHOTO)[20:70, 40:90])


@pytest.mark.parametrize(
    ("usual", "size", "crop", "expected"),
    [
        (Framing(224, 256), None, None, Framing(224, 256)),
        (Framing(224, 256), 112, None, Framing(112, 128)),
        (Framing(224, 256, "bicubic"), None, 96, Framing(96, None, "bicubic")),
        (Framing(224, 256), 256, 224, Framing(224, 256)),
        (Framing(224), 112, None, Framing(112, 112)),
        (None, None, None, None),
        (None, 64, None, Framing(64, 64, "bicubic")),
        (None, None, 64, Framing(64, None, "bicubic")),
    ],
)
def test_size_keeps_the_proportions_and_crop_does_not_scale(usual, size, crop, expected):
    assert reframed(usual, size, crop) == expected


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Framing(32, 20), "resize: expected at least the size 32; got 20"),
        (lambda: Framing(32, 40, "box"), "interpolation: expected one of"),
        (lambda: reframed(None, 200, 224), "crop: expected at most the size 200; got 224"),
        (lambda: reframed(None, None, 4), "crop: expected a whole number of at least 5; got 4"),
        (lambda: reframed(None, 0, None), "size: expected a whole number of at least 5; got 0"),
    ],
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(natstats.UsageError, match=words):
        call()


def test_a_strip_that_would_fill_the_memory_is_refused():
    with pytest.raises(natstats.NatstatsError, match="1 x 9000 pixels would be scaled to 224 x"):
        Framing(224, 224)(Image.new("L", (1, 9000)))


@pytest.fixture
def folder(tmp_path):
    """Four photographs of 90 x 130 and one that is smaller."""
    for i in range(4):
        PHOTO.rotate(90 * (i % 2) * 2).save(tmp_path / f"{i}.png")
    PHOTO.crop((0, 0, 40, 30)).save(tmp_path / "small.png")
    return tmp_path


def network():
    return natstats.load_network("cifar_resnet20", weights="none")


@pytest.mark.slow
def test_the_run_says_how_photographs_were_prepared(folder):
    run = natstats.measure(network(), folder, size=48)
    images = run.info["images"]
    assert (images["size"], images["resize"]) == (48, 48)
    assert images["interpolation"] == "bilinear"
    assert images["n_enlarged"] == 1
    assert images["normalisation"]["mean"][0] == pytest.approx(0.485)
    assert any("1 of 5 images was smaller than what it" in w for w in run.info["warnings"])


@pytest.mark.slow
def test_a_crop_is_not_scaled_and_nothing_is_enlarged(folder):
    run = natstats.measure(network(), folder, crop=48)
    images = run.info["images"]
    assert (images["size"], images["resize"], images["interpolation"]) == (48, None, None)
    assert images["n_enlarged"] == 0
    assert images["unreadable"] == ["small.png: 40 x 30 pixels are fewer than 48 x 48"]
    assert not any("scaled to" in w for w in run.info["warnings"])
    assert any("smaller than the crop of 48 x 48" in w for w in run.info["warnings"])
    alone = natstats.measure_images(folder, crop=48)
    assert alone.layers.exponent.tolist() == run.layers.exponent[:2].tolist()
    assert natstats.measure_images(folder, size=64, crop=48).info["images"]["resize"] == 64


def test_without_normalisation_the_network_sees_0_to_1(folder):
    class Seen(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)
            self.lowest, self.highest = np.inf, -np.inf

        def forward(self, x):
            self.lowest = min(self.lowest, float(x.min()))
            self.highest = max(self.highest, float(x.max()))
            return self.conv(x)

    model = Seen()
    run = natstats.measure(model, folder, crop=24, normalize=False)
    assert 0 <= model.lowest < model.highest <= 1
    assert run.info["images"]["normalisation"] == {"mean": [0.0] * 3, "std": [1.0] * 3}
    assert not any("ImageNet's is used" in w for w in run.info["warnings"])
    natstats.measure(model, folder, crop=24)
    assert model.lowest < -1.5


@pytest.mark.parametrize("given", [{"size": 16}, {"crop": 16}, {"normalize": False}])
def test_an_array_is_not_prepared_and_asking_for_it_is_an_error(given):
    (name,) = given
    with pytest.raises(natstats.UsageError, match=f"{name}: expected only for photographs; array"):
        natstats.measure(network(), np.zeros((4, 3, 32, 32)), **given)


@pytest.mark.slow
def test_the_report_says_how_photographs_were_prepared(folder, tmp_path):
    run = natstats.measure(network(), folder, size=64, crop=48, normalize=False)
    run.save(tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "shorter side to 64 px (bilinear), central 48 × 48 px, in [0, 1], not normalised" in page
    assert "enlarged images" in page
    assert "crop=48" in page
    assert "normalize=False" in page
