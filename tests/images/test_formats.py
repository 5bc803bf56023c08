"""Which formats are opened: by content, whatever a file is called, and none that runs anything."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
import zlib

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

import natstats
from natstats.distill.training.data import open_labelled
from natstats.distill.training.recipes import Recipe
from natstats.images.formats import FORMATS, opened
from natstats.images.sources import Framing, batches, open_images

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n"
    b"0 0 64 64 rectfill\nshowpage\n%%EOF\n"
)
HOSTILE = {
    "eps": EPS,
    "eps with a preview": struct.pack("<IIIIIIIH", 0xC6D3D0C5, 30, len(EPS), 0, 0, 0, 0, 0) + EPS,
    "pdf": b"%PDF-1.4\n1 0 obj << /Type /Catalog >> endobj\ntrailer << /Root 1 0 R >>\n%%EOF\n",
    "wmf": struct.pack("<IHhhhhHIH", 0x9AC6CDD7, 0, 0, 0, 64, 64, 72, 0, 0) + bytes(60),
    "emf": struct.pack("<II16x16xI", 1, 108, 0x464D4520) + bytes(64),
    "fits": b"".join(
        card.ljust(80).encode()
        for card in ("SIMPLE  =                    T", "BITPIX  =                    8",
                     "NAXIS   =                    2", "NAXIS1  =                   64",
                     "NAXIS2  =                   64", "END")
    ).ljust(2880) + bytes(64 * 64),
    "ole": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),  # FPX and MIC
    "grib": b"GRIB" + bytes(3) + b"\x01" + bytes(100),
    "bufr": b"BUFR" + bytes(100),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    "mpeg": b"\x00\x00\x01\xb3" + bytes(100),
    "icns": b"icns" + struct.pack(">I", 16) + b"ic09" + struct.pack(">I", 8),
    "xpm": b"/* XPM */\nstatic char *a[] = {\"2 1 1 1\", \"a c #000000\", \"aa\"};",
}  # fmt: skip


@pytest.fixture
def no_program(monkeypatch):
    """Any other program that is started, and any reader of PostScript, fails the test."""
    started = []

    def stop(*arguments, **options):
        started.append(arguments)
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess.Popen, "__init__", stop)
    monkeypatch.setattr(os, "system", stop)
    monkeypatch.setattr(os, "popen", stop)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", stop)
    # As where Ghostscript is installed.
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", "gs")
    Image.init()
    yield
    assert not started


def picture(seed=0, side=40):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))


def left_out(images):
    return {images.label(n): why for batch in batches(images, 4) for n, why in batch.unreadable}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_no_other_format_is_opened_whatever_its_name(tmp_path, no_program, content, ending):
    picture().save(tmp_path / "a.png")
    (tmp_path / f"b.{ending}").write_bytes(content)
    images = open_images(tmp_path)  # its size, too
    assert images.framing.size == 40
    assert set(left_out(images)) == {f"b.{ending}"}
    assert not any("0x" in why for why in left_out(images).values())


def test_nor_in_lists_patterns_tar_files_clips_and_alone(tmp_path, no_program):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for i in range(3):
            picture(i).save(tmp_path / folder / f"{i}.png")
    (tmp_path / "one" / "1.jpg").write_bytes(EPS)
    (tmp_path / "list.txt").write_text("one/0.png\none/1.jpg\n")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "one", "one")
    for source in (f"{tmp_path}/one/*", tmp_path / "list.txt", tmp_path / "s.tar"):
        assert [name.split("/")[-1] for name in left_out(open_images(source))] == ["1.jpg"]
    clips = open_images(f"clips:{tmp_path}", frames=4)
    assert left_out(clips) == {
        "one": "1.jpg: cannot identify an image of a format that is read",
        "two": "3 frames are fewer than 4",
    }
    with pytest.raises(natstats.UsageError, match="1.jpg: cannot identify"):
        natstats.measure_images(tmp_path / "one" / "1.jpg")


def test_nor_in_data_to_train_on_nor_by_torchvision(tmp_path, no_program):
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        for i in range(2):
            picture(i).save(tmp_path / place / f"{i}.png")
    (tmp_path / "train/a/x.jpg").write_bytes(EPS)
    for whole in ("none", "resized-crop"):
        recipe = Recipe(augmentation=whole, size=16)
        with pytest.raises(natstats.NatstatsError, match="x.jpg: cannot identify"):
            open_labelled(f"imagefolder:{tmp_path}", recipe)
    top = tmp_path / "caltech101" / "101_ObjectCategories"
    (top / "BACKGROUND_Google").mkdir(parents=True)
    (top / "ant").mkdir()
    picture().save(top / "ant" / "image_0001.jpg")
    (top / "ant" / "image_0002.jpg").write_bytes(EPS)
    found = left_out(open_images(f"caltech101:{tmp_path}"))
    assert list(found) == ["caltech101/101_ObjectCategories/ant/image_0002.jpg"]


def test_a_decompression_bomb_is_refused_from_its_header(tmp_path, no_program):
    picture().save(tmp_path / "a.png")
    content = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000)))):
        crc = struct.pack(">I", zlib.crc32(name + body))
        content += struct.pack(">I", len(body)) + name + body + crc
    (tmp_path / "b.png").write_bytes(content)
    found = left_out(open_images(tmp_path, Framing(32)))
    assert "decompression bomb" in found["b.png"]


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "TGA", "WEBP", "PCX"])
def test_ordinary_formats_are_opened_by_content(name):
    file = io.BytesIO()
    picture().save(file, name)
    file.seek(0)
    with opened(file) as image:
        assert (image.format, image.size) == (name, (40, 40))
    assert name in FORMATS


def test_what_calls_out_is_not_in_the_list():
    assert not {"EPS", "WMF", "FITS", "BUFR", "GRIB", "HDF5", "FPX", "MIC", "PDF"} & {*FORMATS}


def test_pillow_is_asked_to_open_in_one_place_only():
    """Or the list of formats could be gone round."""
    from pathlib import Path

    package = Path(natstats.__file__).parent
    places = [p.name for p in package.rglob("*.py") if "Image.open(" in p.read_text()]
    assert places == ["formats.py"]
