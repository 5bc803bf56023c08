"""Shards that the webdataset library writes are read as it reads them, and it reads what we do."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natstats.images.sources import Framing, ImageSet, batches, open_images
from natstats.images.streams import ImageStream

webdataset = pytest.importorskip("webdataset")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the library

N_SAMPLES = 11


def picture(seed: int, kind: str) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 27, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind)
    return content.getvalue()


def samples() -> list[dict[str, object]]:
    """Several images of a sample, of names with dots and folders, and what is no image."""
    return [
        {
            "__key__": f"part.{number % 2}/{number:04d}",
            "cls": number,
            "json": {"number": number, "name": "a.png"},
            "txt": "words",
            "left.png": picture(2 * number, "PNG"),
            "right.jpg": picture(2 * number + 1, "JPEG"),
            "npy": np.arange(4),
        }
        for number in range(N_SAMPLES)
    ]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Shards of four samples, by the library."""
    place = tmp_path / "shards"
    place.mkdir()
    pattern = str(place / "%06d.tar")
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0, mtime=0) as writer:
        for sample in samples():
            writer.write(sample)
    return place


def as_read_by_the_library(paths: list[Path]) -> list[bytes]:
    """Bytes of the images in the order in which it gives them."""
    urls = [str(path) for path in paths]
    found = webdataset.WebDataset(urls, shardshuffle=False, empty_check=False)
    return [
        value
        for sample in found
        for name, value in sample.items()
        if name.endswith(("png", "jpg")) and not name.startswith("__")
    ]


def contents(images: ImageSet) -> list[bytes]:
    """SHA-256 of the images that are read."""
    seen = []
    for batch in batches(images, 4):
        assert not batch.unreadable
        seen += [batch.contents[at : at + 32] for at in range(0, len(batch.contents), 32)]
    return seen


def digests(values: list[bytes]) -> list[bytes]:
    import hashlib

    return sorted(hashlib.sha256(one).digest() for one in values)


@pytest.mark.parametrize("how", ["index", "stream", "gz"])
def test_what_it_writes_is_read_as_it_reads_it(written, how):
    paths = sorted(written.glob("*.tar"))
    theirs = as_read_by_the_library(paths)
    assert len(theirs) == 2 * N_SAMPLES
    source = f"{written}/{{000000..000002}}.tar"
    if how == "stream":
        source = f"pipe:cat {source}"
    elif how == "gz":
        for path in paths:
            path.with_suffix(".tar.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        source = f"{written}/*.tar.gz"
        assert len(as_read_by_the_library(sorted(written.glob("*.tar.gz")))) == len(theirs)
    images = open_images(source, Framing(20))
    assert isinstance(images, ImageStream) == (how != "index")
    assert sorted(contents(images)) == digests(theirs)


def test_within_a_shard_images_have_its_order(written):
    path = written / "000000.tar"
    (shard,) = (images := open_images(f"pipe:cat {path}", Framing(20))).shards
    found = [item.data for item in images.items(images.part()) if hasattr(item, "data")]
    assert found == as_read_by_the_library([path])
    assert shard.name.endswith("000000.tar")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_it_reads_what_is_indexed_here(tmp_path, form):
    """Also of archives that are none of its own, with long names."""
    values = [picture(number, "PNG") for number in range(5)]
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for number, value in enumerate(values):
            stem = "d" * 60 + "/" + "n" * 60 + str(number) if number == 3 else f"{number}"
            for name, content in ((f"{stem}.cls", b"1"), (f"{stem}.png", value)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    assert sorted(contents(open_images(path, Framing(20)))) == digests(values)
    assert digests(as_read_by_the_library([path])) == digests(values)


def test_why_its_iteration_is_not_used(tmp_path):
    """A header that is broken ends a shard for it without a word; here it is told, with its place.

    What is lost so would be missing from a run, and numbers of images would not be those of the
    next time.
    """
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(3):
            value = picture(number, "PNG")
            member = tarfile.TarInfo(f"{number}.png")
            member.size = len(value)
            tar.addfile(member, io.BytesIO(value))
            if number == 0:
                place = tar.offset
    content = bytearray(path.read_bytes())
    content[place : place + 512] = b"x" * 512
    path.write_bytes(bytes(content))
    assert as_read_by_the_library([path]) == [picture(0, "PNG")]
    for source in (path, f"pipe:cat {path}"):
        reasons = [
            reason
            for batch in batches(open_images(source, Framing(20)), 4)
            for _, reason in batch.unreadable
        ]
        assert reasons == ["the tar file is damaged here, and what follows is lost"]
