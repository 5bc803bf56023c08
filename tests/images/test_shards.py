"""Tar files: found by pattern, indexed, read where they lie; damage is counted, not passed over."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

import natstats
from natstats.errors import UsageError
from natstats.images.shards import shard_paths
from natstats.images.sources import Framing, ImageFolder, batches, open_images


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "photos"
    place.mkdir()
    generator = np.random.default_rng(0)
    for i in range(9):
        pixels = generator.integers(0, 256, size=(24, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i:03d}.png")
    return place


def packed(path, files, **others):
    """A tar file of images, each with a label beside it."""
    with tarfile.open(path, "w", **others) as tar:
        for file in files:
            tar.add(file, file.name)
            label = tarfile.TarInfo(f"{file.stem}.cls")
            label.size = 1
            tar.addfile(label, io.BytesIO(b"7"))
    return path


@pytest.fixture
def shards(folder, tmp_path):
    files = sorted(folder.iterdir())
    return [packed(tmp_path / f"part-{i:02d}.tar", files[3 * i : 3 * i + 3]) for i in range(3)]


def pixels_of(images, workers=0):
    found = list(batches(images, 4, workers))
    return torch.cat([batch.images for batch in found if len(batch.index)])


def test_images_in_shards_are_those_of_the_folder(folder, shards):
    packed_images = open_images(str(shards[0].parent / "part-{00..02}.tar"), Framing(20))
    files = ImageFolder(folder, Framing(20))
    assert torch.equal(pixels_of(packed_images), pixels_of(files))
    assert torch.equal(pixels_of(packed_images, workers=1), pixels_of(files))
    assert packed_images.label(0) == f"part-{packed_images.places[0] // 3:02d}.tar/" + files.label(
        0
    )


def test_a_limit_is_a_random_sample_of_all_shards(shards):
    pattern = str(shards[0].parent / "*.tar")
    few, all_of = (open_images(pattern, Framing(20), limit=n, seed=2) for n in (4, None))
    assert torch.equal(pixels_of(few), pixels_of(all_of)[:4])
    assert few.digest() != all_of.digest()


@pytest.mark.slow
def test_the_same_photographs_are_paired_wherever_they_lie(folder, shards):
    """Numbered alike, for the sorted names are in the same order: one run can be taken from the
    other image by image, though neither names nor files are the same."""
    runs = [
        natstats.measure_images(source)
        for source in (folder, str(shards[0].parent / "part-{00..02}.tar"))
    ]
    assert runs[0].info["images"]["digest"] != runs[1].info["images"]["digest"]
    assert natstats.compare(*runs).is_paired
    other = natstats.measure_images(folder, seed=1)
    assert not natstats.compare(runs[0], other).is_paired


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_format_of_tar_with_long_and_odd_names(folder, tmp_path, format):
    path = tmp_path / "one.tar"
    with tarfile.open(path, "w", format=format) as tar:
        for i, file in enumerate(sorted(folder.iterdir())):
            tar.add(file, f"{'folder/' * 14}ünï {i}.PNG")
        tar.add(folder, "photos.png", recursive=False)
        tar.add(folder / "000.png", "._hidden.png")
    images = open_images(path, Framing(20))
    assert len(images) == 9
    assert len(pixels_of(images)) == 9


def bad(images):
    """Label and reason of what could not be read."""
    return {
        images.label(number): reason
        for batch in batches(images, 4)
        for number, reason in batch.unreadable
    }


def test_a_damaged_member_is_an_unreadable_image(folder, tmp_path):
    (folder / "004.png").write_bytes(b"not an image")
    (folder / "005.png").write_bytes(b"")
    images = open_images(packed(tmp_path / "a.tar", sorted(folder.iterdir())), Framing(20))
    assert set(bad(images)) == {"a.tar/004.png", "a.tar/005.png"}


def test_a_tar_file_that_is_cut_short_names_the_image_it_cuts(shards):
    whole = shards[0].read_bytes()
    with tarfile.open(shards[0]) as tar:
        second = tar.getmembers()[2]
    shards[0].write_bytes(whole[: second.offset_data + 100])
    images = open_images(shards[0], Framing(20))
    assert bad(images) == {"part-00.tar/001.png": "the tar file ends before the image does"}
    assert len(images) == 2


def test_a_tar_file_that_is_cut_between_two_images_is_told(shards):
    whole = shards[0].read_bytes()
    with tarfile.open(shards[0]) as tar:
        second = tar.getmembers()[2]
    shards[0].write_bytes(whole[: second.offset])
    assert list(bad(open_images(shards[0], Framing(20)))) == [f"part-00.tar/byte {second.offset}"]


@pytest.mark.parametrize("n_bytes", [300, 512])
def test_a_broken_header_is_told_and_not_taken_for_the_end(shards, n_bytes):
    """Python's tarfile stops there without a word."""
    whole = bytearray(shards[0].read_bytes())
    with tarfile.open(shards[0]) as tar:
        second = tar.getmembers()[2]
    whole[second.offset : second.offset + 512] = b"x" * n_bytes
    shards[0].write_bytes(whole)
    found = bad(open_images(shards[0], Framing(20)))
    assert found == {
        f"part-00.tar/byte {second.offset}": "the tar file is damaged here, and what follows is "
        "lost"
    }


def test_a_link_in_a_tar_file_is_no_image(shards):
    with tarfile.open(shards[0], "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    found = bad(open_images(shards[0], Framing(20)))
    assert found == {"part-00.tar/link.png": "a member that is no plain file"}


def test_braces_and_wildcards(tmp_path):
    for name in ("a-08", "a-09", "a-10", "b-1", "c"):
        (tmp_path / f"{name}.tar").touch()

    def found(pattern):
        return [path.stem for path in shard_paths(str(tmp_path / pattern))]

    assert found("a-{08..10}.tar") == ["a-08", "a-09", "a-10"]
    assert found("a-{10..09}.tar") == ["a-10", "a-09"]
    assert found("{b-1,c}.tar") == ["b-1", "c"]
    assert found("a-*.tar") == ["a-08", "a-09", "a-10"]
    assert found("{a-*,c}.tar") == ["a-08", "a-09", "a-10", "c"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("s-{0..999999999999}.tar", "expected a tar file; there is none at .*s-0.tar"),
        ("none*.tar", "expected a tar file; nothing matches"),
        ("no.tar", "expected a tar file; there is none at"),
        ("text.tar", "expected an uncompressed tar file; .*text.tar"),
        ("zipped.tar", "expected an uncompressed tar file; .*zipped.tar"),
        ("empty.tar", "expected at least one image; got none in"),
        (
            "some.tar.zst",
            "expected a .tar, in which images can be found, or one compressed by gzip",
        ),
        ("some.tar.gz", "expected a tar file; there is none at"),
    ],
)
def test_errors_name_what_is_wrong(tmp_path, pattern, words):
    (tmp_path / "text.tar").write_text("not a tar file " * 100)
    with tarfile.open(tmp_path / "zipped.tar", "w:gz"):
        pass
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(natstats.UsageError, match=f"images: {words}"):
        open_images(tmp_path / pattern)


def _with_size(name, field):
    """The header of a member with this field in the place of its size."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = field
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:512]) + 8 * 32)
    return bytes(block)


@pytest.mark.parametrize(
    "field", [b"\x80" + (2**80).to_bytes(11, "big"), b"\xff" + (2**88 - 1024).to_bytes(11, "big")]
)
def test_a_member_of_an_impossible_size_is_unreadable(folder, tmp_path, field):
    path = packed(tmp_path / "a.tar", sorted(folder.iterdir()))
    with tarfile.open(path) as tar:
        end = tar.getmembers()[-1].offset_data + 512
    path.write_bytes(path.read_bytes()[:end] + _with_size("odd.png", field) + bytes(1024))
    images = open_images(path)
    found = [reason for batch in batches(images, 4) for _, reason in batch.unreadable]
    assert len(images) >= 10
    assert "the tar file ends before the image does" in found


def test_nonsense_in_an_extended_header_is_damage(folder, tmp_path):
    path = tmp_path / "a.tar"
    files = sorted(folder.iterdir())
    odd = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "b.png"}
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        tar.add(files[0], "0.png")
        member = tar.gettarinfo(files[1], "1.png")
        member.pax_headers = odd
        with files[1].open("rb") as file:
            tar.addfile(member, file)
    assert len(open_images(path)) >= 1


@pytest.mark.parametrize("pattern", ["{a,b}" * 3000, "{0.." + "9" * 5000 + "}"])
def test_braces_without_end_are_refused(pattern):
    with pytest.raises(UsageError, match="images: expected"):
        shard_paths(f"{pattern}.tar")


def test_a_pattern_comes_to_an_end_where_links_go_round(tmp_path):
    """Each file once, though two links to a folder above it double the ways at every step."""
    for name in ("a", "b.tar"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.tar").touch()
        (tmp_path / name / "up").symlink_to("..", target_is_directory=True)
    (tmp_path / "round").symlink_to("round")
    found = [tmp_path / name / "x.tar" for name in ("a", "b.tar")]
    assert shard_paths(f"{tmp_path}/**/*.tar") == found
    assert shard_paths(f"{tmp_path}/*/*.tar") == found
