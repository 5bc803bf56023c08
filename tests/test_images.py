"""Sources of images: numbered, framed, hostile files left out and named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

import natstats
from natstats.images import Framing, ImageFolder, batches, native_size, open_images


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for i in range(7):
        pixels = generator.integers(0, 256, size=(40, 60, 3), dtype=np.uint8)
        (tmp_path / f"part{i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"part{i % 2}" / f"{i}.png")
    return tmp_path


def all_of(images, batch_size=3, workers=0):
    found = list(batches(images, batch_size, workers))
    return torch.cat([b.images for b in found if len(b.index)]), torch.cat([b.index for b in found])


def test_numbers_do_not_depend_on_batches_or_workers(folder):
    images = ImageFolder(folder, Framing(32))
    reference, index = all_of(images, 7)
    assert index.tolist() == list(range(7))
    for batch_size, workers in ((1, 0), (3, 0), (4, 1)):
        other, again = all_of(images, batch_size, workers)
        assert torch.equal(other, reference)
        assert torch.equal(again, index)


def test_a_seed_decides_the_numbering_and_a_limit_takes_its_beginning(folder):
    one, two = (ImageFolder(folder, Framing(32), seed=seed) for seed in (0, 1))
    assert one.paths != two.paths
    assert sorted(one.paths) == sorted(two.paths)
    assert ImageFolder(folder, Framing(32), limit=3).paths == one.paths[:3]
    assert one.digest() == ImageFolder(folder, Framing(32)).digest() != two.digest()


def test_pixels_are_the_central_ones_unscaled_in_0_1(folder):
    images = ImageFolder(folder, Framing(32))
    pixels, _ = all_of(images)
    with Image.open(images.paths[0]) as image:
        expected = np.asarray(image)[4:36, 14:46]
    np.testing.assert_allclose(pixels[0].permute(1, 2, 0), expected / 255, rtol=1e-6)


def test_framing_scales_the_shorter_side():
    framed = Framing(16, 20, "bicubic")(Image.new("RGB", (90, 45)))
    assert framed.size == (16, 16)


def test_native_size_is_the_largest_that_fits_all(folder):
    assert native_size(folder) == 40
    assert native_size(folder, largest=24) == 24


def test_unreadable_images_are_left_out_and_named(folder):
    (folder / "broken.jpg").write_bytes(b"not an image")
    (folder / "cut.png").write_bytes((folder / "part0" / "0.png").read_bytes()[:200])
    Image.new("RGB", (10, 10)).save(folder / "small.png")
    images = ImageFolder(folder, Framing(32))
    found = list(batches(images, 4))
    bad = {images.label(number): reason for b in found for number, reason in b.unreadable}
    assert set(bad) == {"broken.jpg", "cut.png", "small.png"}
    assert "10 x 10 pixels are fewer than 32 x 32" in bad["small.png"]
    assert sum(len(b.index) for b in found) == 7


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "I;16", "1"])
def test_every_mode_becomes_three_channels(tmp_path, mode):
    suffix = "tiff" if mode in ("CMYK", "I;16") else "png"
    if mode == "I;16":
        ramp = (np.arange(400, dtype=np.uint16) * 100).reshape(20, 20)
        Image.fromarray(ramp).save(tmp_path / f"image.{suffix}")
    else:
        Image.new("RGB", (20, 20), "teal").convert(mode).save(tmp_path / f"image.{suffix}")
    pixels, _ = all_of(open_images(tmp_path, Framing(20)))
    assert pixels.shape == (1, 3, 20, 20)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    if mode == "I;16":
        assert float(pixels[0, 0].max()) == pytest.approx(
            39900 / 65535, abs=0.01
        )  # a ramp stays a ramp, it is not clipped to white


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (30, 20), "black")
    image.paste("white", (0, 0, 15, 20))  # the left half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    pixels, _ = all_of(open_images(tmp_path, Framing(20)))
    assert pixels[0, :, 4, :].min() > 0.9  # the left half has become the upper one
    assert pixels[0, :, 16, :].max() < 0.1


def test_an_array_is_taken_as_it_is(tmp_path):
    array = np.random.default_rng(0).normal(5, 100, size=(6, 2, 9, 11))
    np.save(tmp_path / "fields.npy", array)
    for source in (array, torch.from_numpy(array), tmp_path / "fields.npy"):
        images = open_images(source)
        pixels, _ = all_of(images)
        np.testing.assert_allclose(pixels, array[images.places], rtol=1e-6)


def test_hidden_files_and_other_files_are_passed_over(folder):
    (folder / ".trash").mkdir()
    Image.new("RGB", (40, 40)).save(folder / ".trash" / "old.png")
    (folder / "notes.txt").write_text("not an image")
    assert len(ImageFolder(folder, Framing(32))) == 7


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: open_images(p / "nowhere"), "images: expected a folder .*nowhere"),
        (lambda p: open_images(p), "images: expected at least one image; got none"),
        (lambda p: open_images(np.zeros((3, 8, 8))), r"shape \(N, C, H, W\); got .*\(3, 8, 8\)"),
        (lambda p: open_images(np.zeros((3, 1, 4, 8))), "at least 5 x 5 pixels; got 4 x 8"),
        (lambda p: open_images(np.zeros((0, 1, 8, 8))), "images: expected real numbers"),
        (lambda p: open_images(np.zeros((3, 1, 8, 8)), limit=0), "limit: .*at least 1; got 0"),
        (lambda p: open_images(p / "bad.npy"), "images: expected a readable .npy file"),
        (lambda p: Framing(32, 20), "resize: expected at least the size 32; got 20"),
        (lambda p: Framing(32, 40, "box"), "interpolation: expected one of"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path, call, words):
    with pytest.raises(natstats.UsageError, match=words):
        call(tmp_path)


def test_a_pickled_array_is_refused(tmp_path):
    np.save(tmp_path / "bad.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(natstats.UsageError, match="images: expected a readable .npy file"):
        open_images(tmp_path / "bad.npy")
