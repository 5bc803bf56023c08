"""Any file that Pillow reads becomes 8-bit RGB; each is made with Pillow here."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, features

import natstats
from natstats.images.pixels import fingerprint, read_rgb, to_rgb

TEAL = (0, 128, 128)
RAMP = np.arange(400).reshape(20, 20)


def through(image, format, **options):
    """An image written to a file and read again."""
    file = io.BytesIO()
    image.save(file, format=format, **options)
    file.seek(0)
    return np.asarray(read_rgb(file))


@pytest.mark.parametrize(
    ("mode", "format"),
    [
        ("RGB", "PNG"), ("L", "PNG"), ("1", "PNG"), ("P", "PNG"), ("P", "GIF"), ("LA", "PNG"),
        ("RGBA", "PNG"), ("RGBA", "TIFF"), ("CMYK", "TIFF"), ("CMYK", "JPEG"), ("YCbCr", "TIFF"),
        ("L", "JPEG"), ("RGB", "BMP"), ("RGB", "PPM"), ("RGB", "TGA"), ("RGB", "JPEG"),
    ],
)  # fmt: skip
def test_every_mode_becomes_three_channels_of_the_same_colour(mode, format):
    flat = Image.new("RGB", (20, 20), TEAL)
    grey = 90  # the luma of teal, BT.601
    expected = {"L": (grey,) * 3, "LA": (grey,) * 3}.get(mode, TEAL)
    image = flat.quantize(4) if mode == "P" else flat.convert(mode)
    pixels = through(image, format)
    assert pixels.shape == (20, 20, 3)
    if mode == "1":  # dithered
        assert set(np.unique(pixels)) == {0, 255}
        assert pixels.mean() == pytest.approx(grey, abs=10)
    else:
        np.testing.assert_allclose(pixels[5, 5], expected, atol=3)


@pytest.mark.parametrize("codec", ["webp", "jpg_2000", "avif"])
def test_newer_formats_are_read_where_pillow_can(codec):
    if not features.check(codec):
        pytest.skip(f"this Pillow has no {codec}")
    format = {"jpg_2000": "JPEG2000"}.get(codec, codec.upper())
    pixels = through(Image.new("RGB", (32, 32), TEAL), format)
    np.testing.assert_allclose(pixels[16, 16], TEAL, atol=4)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(format):
    ramp = (RAMP * 164).astype(np.uint16)
    pixels = through(Image.fromarray(ramp), format)
    np.testing.assert_allclose(pixels[..., 0], ramp / 257, atol=0.51)


def test_big_endian_16_bit_grey_is_the_same():
    little = Image.fromarray((RAMP * 100).astype("<u2"))
    big = Image.frombytes("I;16B", (20, 20), (RAMP * 100).astype(">u2").tobytes())
    np.testing.assert_array_equal(to_rgb(little), to_rgb(big))


def test_a_floating_tiff_in_0_1_is_read_and_another_refused():
    ramp = Image.fromarray((RAMP / 399).astype(np.float32))
    np.testing.assert_allclose(through(ramp, "TIFF")[..., 0], RAMP / 399 * 255, atol=0.51)
    for bad in (RAMP / 2.0, -RAMP / 399, np.full((20, 20), np.nan)):
        with pytest.raises(natstats.NatstatsError, match="no known white: expected 0 to 1"):
            through(Image.fromarray(bad.astype(np.float32)), "TIFF")


def test_whole_numbers_beyond_16_bits_have_no_known_white():
    with pytest.raises(natstats.NatstatsError, match="from 0 to 399000 .*expected 0 to 65535"):
        through(Image.fromarray((RAMP * 1000).astype(np.int32)), "TIFF")


def test_what_is_transparent_is_laid_over_white():
    layer = Image.new("RGBA", (4, 1))
    for x, alpha in enumerate((0, 255, 128, 0)):
        layer.putpixel((x, 0), (200, 0, 0, alpha))
    pixels = through(layer, "PNG")[0].tolist()
    assert pixels[0] == pixels[3] == [255, 255, 255]
    assert pixels[1] == [200, 0, 0]
    np.testing.assert_allclose(pixels[2], [227, 127, 127], atol=1)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_transparent_colour_of_a_palette_is_white(format):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 1)
    pixels = through(image, format, transparency=0)
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[4, 4].tolist() == [255, 255, 255]
    assert through(image, format)[4, 4].tolist() == [10, 20, 30]


def test_an_opaque_image_is_the_same_with_and_without_alpha():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    np.testing.assert_array_equal(through(image.convert("RGBA"), "PNG"), pixels)


@pytest.mark.parametrize("format", ["GIF", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_taken(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("blue", "red", "lime")]
    pixels = through(frames[0], format, save_all=True, append_images=frames[1:])
    assert pixels[0, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_rotation_is_applied(format, orientation):
    """The way back for each of the eight orientations of the EXIF standard, by numpy."""
    upright = np.zeros((20, 30, 3), dtype=np.uint8)
    upright[:10, :15] = 255  # one bright corner
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.swapaxes(0, 1), 6: np.rot90(upright), 7: upright[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    image = Image.fromarray(np.ascontiguousarray(stored))
    np.testing.assert_array_equal(through(image, format, exif=exif, **options), upright)


def test_a_fingerprint_is_of_the_bytes_and_rewinds_the_file():
    # echo -n abc | sha256sum
    file = io.BytesIO(b"abc")
    assert fingerprint(file).hex().startswith("ba7816bf8f01cfea414140de5dae2223")
    assert file.tell() == 0
    one, other = Image.new("L", (4, 2)), Image.new("L", (2, 4))
    assert fingerprint(one) == fingerprint(one.copy()) != fingerprint(other)
