"""Image files that others write and Pillow does not, made from what TIFF 6.0 and PNG specify.

Expected values come by numpy from what was stored.
"""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest

import natstats
from natstats.images.pixels import read_rgb


def tiff(pixels, photometric, *, planar=1, order="<", bits=None, width=None, extra=()):
    """An uncompressed TIFF of pixels (H, W) or (H, W, C); `bits` and `width` for packed bytes."""
    pixels = np.asarray(pixels)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    height, own_width, channels = pixels.shape
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.astype(pixels.dtype.newbyteorder(order))
    planes = [data] if planar == 1 else [data[..., k] for k in range(channels)]
    blocks = [plane.tobytes() for plane in planes]
    tags = [
        (256, "I", [width or own_width]), (257, "I", [height]),
        (258, "H", [bits or 8 * pixels.dtype.itemsize] * channels), (259, "H", [1]),
        (262, "H", [photometric]), (273, "I", [0] * len(blocks)), (277, "H", [channels]),
        (278, "I", [height]), (279, "I", [len(block) for block in blocks]), (284, "H", [planar]),
        *([(338, "H", list(extra))] if extra else []), (339, "H", [kind] * channels),
    ]  # fmt: skip
    head = 8 + 2 + 12 * len(tags) + 4
    apart = sum(n for _, t, v in tags if (n := struct.calcsize(t) * len(v)) > 4)
    starts = np.cumsum([head + apart, *(len(block) for block in blocks[:-1])]).tolist()
    fields, behind = b"", b""
    for tag, form, values in tags:
        values = starts if tag == 273 else values
        raw = struct.pack(order + form * len(values), *values)
        if len(raw) > 4:
            place, behind = struct.pack(order + "I", head + len(behind)), behind + raw
        else:
            place = raw.ljust(4, b"\0")
        fields += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[form], len(values)) + place
    start = {"<": b"II", ">": b"MM"}[order] + struct.pack(order + "HIH", 42, 8, len(tags))
    return start + fields + bytes(4) + behind + b"".join(blocks)


def png(rows, bits, colour, transparent=None):
    """A PNG of rows of bytes as they are stored; `transparent` is the content of tRNS."""

    def chunk(name, content):
        crc = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)

    rows = np.asarray(rows, dtype=np.uint8)
    channels = {0: 1, 2: 3}[colour]
    width = rows.shape[1] * 8 // (bits * channels)
    header = struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    mark = b"" if transparent is None else chunk(b"tRNS", transparent)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + mark + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def decoded(content):
    return np.asarray(read_rgb(io.BytesIO(content))).astype(int)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colour_is_right_interleaved_and_refused_planar(order, channels):
    values = np.random.default_rng(1).integers(0, 65536, (11, 14, channels)).astype(np.uint16)
    values[..., 3:] = 65535  # opaque
    extra = [2] * (channels - 3)
    found = decoded(tiff(values, 2, order=order, extra=extra))
    # Pillow keeps the upper byte: at most one level below the rounded value.
    np.testing.assert_allclose(found, np.round(values[..., :3] / 257), atol=1)
    with pytest.raises(natstats.NatstatsError, match="16 bits a channel .*planar"):
        decoded(tiff(values, 2, planar=2, order=order, extra=extra))


@pytest.mark.parametrize("order", "<>")
def test_8_bit_planar_colour_is_right(order):
    values = np.random.default_rng(2).integers(0, 256, (9, 13, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(tiff(values, 2, planar=2, order=order)), values)


def test_16_bit_planar_cmyk_is_refused():
    values = np.random.default_rng(3).integers(0, 65536, (9, 13, 4)).astype(np.uint16)
    with pytest.raises(natstats.NatstatsError, match="planar"):
        decoded(tiff(values, 5, planar=2))


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16, 32])
def test_white_is_zero_is_turned_over_at_every_depth(photometric, bits):
    """32 stands for floating values; a photometric interpretation of 0 says that 0 is white."""
    rng, width = np.random.default_rng(bits), 24
    if bits == 32:
        stored, white = rng.random((10, width)).astype(np.float32), 1.0
        content = tiff(stored, photometric)
    else:
        stored, white = rng.integers(0, 2**bits, (10, width)), 2.0**bits - 1
        if bits == 16:
            content = tiff(stored.astype(np.uint16), photometric)
        else:  # the bits of all values of a row, highest first
            flat = (stored[..., None] >> np.arange(bits)[::-1]) & 1
            packed = np.packbits(flat.reshape(10, -1).astype(np.uint8), axis=1)
            content = tiff(packed, photometric, bits=bits, width=width)
    light = stored / white if photometric == 1 else 1 - stored / white
    try:
        found = decoded(content)
    except natstats.NatstatsError:
        assert (bits, photometric) == (12, 0)  # this Pillow reads no such file
        return
    np.testing.assert_allclose(found, np.round(255 * light)[..., None].repeat(3, 2), atol=0.51)


def test_signed_bytes_have_no_known_white():
    with pytest.raises(natstats.NatstatsError, match="signed bytes"):
        decoded(tiff(np.zeros((8, 8), dtype=np.int8), 1))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_a_png_is_white_at_every_depth(bits):
    rng, width = np.random.default_rng(bits), 16
    stored, mark = rng.integers(0, 2**bits, (6, width)), 0 if bits == 1 else 1
    stored[2, 3] = mark
    flat = (stored[..., None] >> np.arange(bits)[::-1]) & 1
    packed = np.packbits(flat.reshape(6, -1).astype(np.uint8), axis=1)
    found = decoded(png(packed, bits, 0, mark.to_bytes(2, "big")))
    expected = np.where(stored == mark, 255, np.round(stored * 255 / (2**bits - 1)))
    np.testing.assert_allclose(found, expected[..., None].repeat(3, 2), atol=0.51)
    plain = decoded(png(packed, bits, 0))[..., 0]
    np.testing.assert_allclose(plain, np.round(stored * 255 / (2**bits - 1)), atol=0.51)


def test_16_bit_colour_is_right_and_refused_with_transparency():
    values = np.random.default_rng(5).integers(0, 65536, (6, 8, 3)).astype(">u2")
    rows = np.frombuffer(values.tobytes(), np.uint8).reshape(6, -1)
    np.testing.assert_allclose(decoded(png(rows, 16, 2)), np.round(values / 257.0), atol=1)
    with pytest.raises(natstats.NatstatsError, match="PNG of 16 bits .*transparent"):
        decoded(png(rows, 16, 2, bytes(6)))
