"""Tar archives as streams: what is in them, damage that is told, and memory that is bounded."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import random
import tarfile
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natstats.errors import NatstatsError
from natstats.images import tar_streams
from natstats.images.byte_sources import SourceError
from natstats.images.tar_streams import tar_items

BLOCK = 512


class Source:
    """Bytes that come in small pieces, and an error behind them where one is given."""

    def __init__(self, content: bytes, error: Exception | None = None, piece: int = 700) -> None:
        self._file, self._error, self._piece = io.BytesIO(content), error, piece

    def read(self, n: int, /) -> bytes:
        found = self._file.read(min(n, self._piece))
        if not found and self._error is not None:
            raise self._error
        return found

    def hurry(self) -> None:
        pass


def packed(members: dict[str, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=format) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return content.getvalue()


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """The header of a member that claims a size."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


def read(content: bytes, **how) -> list:
    return list(tar_items(Source(content, **how), "a.tar"))


MEMBERS = {
    "0.png": b"x" * 1000,
    "0.cls": b"7",
    "below/1.JPG": b"y" * 3,
    "below/.hidden.png": b"h",
    "2.heic": b"z",
    "3.png": b"",
}


def test_an_archive_without_its_end_mark_may_be_cut():
    content = packed({"0.png": b"x" * 1000, "1.png": b"y"}, tarfile.USTAR_FORMAT)
    end = 512 + 1024 + 2 * 512
    assert [one.reason for one in read(content)] == ["", ""]
    for n_bytes, names in ((end, ["0.png", "1.png"]), (512 + 1024, ["0.png"])):
        *found, last = read(content[:n_bytes])
        assert [one.name for one in found] == names
        assert last.is_last
        assert "has no end mark" in last.reason


@pytest.mark.parametrize("undone", [bytes, gzip.compress, bz2.compress])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_images_come_in_their_order_with_their_bytes(undone, format):
    members = {**MEMBERS, "long/" * 60 + "ünï.png": b"long"}
    if format == tarfile.USTAR_FORMAT:
        members = MEMBERS
    found = read(undone(packed(members, format)))
    images = [(one.name, one.data) for one in found if not one.is_other]
    has_own_name = [
        (name, data)
        for name, data in members.items()
        if name.lower().endswith(("png", "jpg")) and "/." not in name
    ]
    assert images == has_own_name
    assert [one.name for one in found if one.is_other] == ["2.heic"]


def test_what_webdataset_writes_is_read_as_webdataset_reads_it(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    path = tmp_path / "a.tar"
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for number in range(5):
            row = {"png": bytes([number]) * 700, "cls": b"1", "json": b"{}"}
            writer.write({"__key__": f"{number:03d}", **row})
    with path.open("rb") as file:
        rows = list(webdataset.tariterators.tar_file_iterator(file))
    theirs = [one["data"] for one in rows if one["fname"].endswith("png")]
    assert [one.data for one in read(path.read_bytes())] == theirs


def test_a_stream_that_is_cut_gives_what_came_before_and_says_so():
    whole = packed({f"{n}.png": bytes([n]) * 1000 for n in range(4)}, tarfile.GNU_FORMAT)
    for length in range(BLOCK + 1, 4 * 3 * BLOCK, 97):
        found = read(whole[:length])
        n_whole = min(4, (length - BLOCK - 1000) // (3 * BLOCK) + 1)
        assert [one.data for one in found if one.data is not None] == [
            bytes([n]) * 1000 for n in range(n_whole)
        ]
        is_between = length % (3 * BLOCK) == 0
        if not is_between:
            assert found[-1].is_last or n_whole == 4, length
            assert "ends" in found[-1].reason or "damaged" in found[-1].reason, length


@pytest.mark.parametrize("compress", [gzip.compress, lambda data: bz2.compress(data, 1)])
def test_compressed_streams_that_are_cut_or_changed_are_told(compress):
    generator = random.Random(0)
    whole = packed({f"{n}.png": generator.randbytes(3000) for n in range(100)})
    content = compress(whole)
    cut = read(content[: len(content) // 2])
    assert cut[-1].is_last
    assert cut[-1].reason
    changed = bytearray(content)
    changed[-6] ^= 1  # a checksum
    assert read(bytes(changed))[-1].is_last


def test_a_broken_header_is_told_and_not_taken_for_the_end():
    whole = bytearray(packed({f"{n}.png": b"x" * 10 for n in range(3)}, tarfile.GNU_FORMAT))
    whole[2 * BLOCK : 3 * BLOCK] = b"x" * BLOCK
    found = read(bytes(whole))
    assert [one.name for one in found] == ["0.png", f"byte {2 * BLOCK}"]
    assert found[-1].is_last


def test_several_archives_in_one_are_not_taken_for_one():
    found = read(packed({"0.png": b"x"}) + packed({"1.png": b"y"}))
    assert [one.data for one in found] == [b"x", None]
    assert "goes on after its end" in found[-1].reason


@pytest.mark.parametrize(
    "content",
    [packed({}), bytes(1 << 22), gzip.compress(bytes(1 << 24))],
    ids=["no members", "zeros", "packed zeros"],
)
def test_an_archive_without_images_has_none(content):
    assert read(content, piece=1 << 18) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"<html>404</html>" * 100, "expected a tar file"),
        (b"short", "expected a tar file"),
        (lzma.compress(packed(MEMBERS)), "is of xz .*pipe:xz -dc"),
        (b"PK\x03\x04" + bytes(1000), "is of zip"),
        (gzip.compress(b"no tar" * 500), "expected a tar file"),
        (b"\x1f\x8b" + bytes(100), "expected a tar file"),
    ],
    ids=["empty", "page", "short", "xz", "zip", "packed text", "packed nothing"],
)
def test_what_is_no_tar_file_is_refused(content, words):
    with pytest.raises(NatstatsError, match=f"images: .*{words}"):
        read(content)


def test_a_lost_connection_is_an_error_and_no_damage():
    whole = packed({f"{n}.png": b"x" * 1000 for n in range(4)})
    items = tar_items(Source(whole[:3000], SourceError("images: gone")), "a.tar")
    assert next(items).data == b"x" * 1000
    with pytest.raises(SourceError, match="gone"):
        list(items)


def test_a_link_is_no_image():
    link = tarfile.TarInfo("link.png")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (found,) = read(link.tobuf() + bytes(2 * BLOCK))
    assert found.reason == "a member that is no plain file"


@pytest.mark.parametrize(
    "start",
    [
        header("big.png", 1 << 40),
        header("big.bin", 1 << 40),
        header("long", 1 << 40, tarfile.GNUTYPE_LONGNAME),
        header("pax", 1 << 40, tarfile.XHDTYPE),
        header("pax", 1 << 40, tarfile.XGLTYPE),
        header("pax", 400, tarfile.XHDTYPE) * 5000,
        header("sparse.png", 1 << 40, tarfile.GNUTYPE_SPARSE)[:482] + b"\1" + bytes(29),
    ],
)
def test_memory_is_bounded_whatever_a_header_claims(monkeypatch, start):
    monkeypatch.setattr(tar_streams, "LARGEST_FILE", 1 << 20)
    content = gzip.compress(start + bytes(60 << 20), 1)
    tracemalloc.start()
    with contextlib.suppress(NatstatsError):
        for one in tar_items(Source(content, piece=1 << 16), "a.tar"):
            assert one.data is None
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20


def test_a_file_that_is_too_large_for_a_photograph_is_passed_over(monkeypatch):
    monkeypatch.setattr(tar_streams, "LARGEST_FILE", 1 << 20)
    found = read(packed({"0.png": bytes((1 << 20) + 1), "1.png": b"x"}), piece=1 << 18)
    assert "too many for a photograph" in found[0].reason
    assert found[1].data == b"x"


@given(st.binary(max_size=3000), st.integers(0, 6000), st.sampled_from([bytes, gzip.compress]))
@settings(deadline=None, max_examples=150)
def test_no_bytes_lead_to_anything_but_images_and_reasons(noise, place, compress):
    whole = packed(MEMBERS)
    content = compress(whole[:place] + noise + whole[place + len(noise) :])
    with contextlib.suppress(NatstatsError):
        for one in read(content):
            assert (one.data is None) == bool(one.reason or one.is_other)


@given(st.integers(0, BLOCK - 1), st.binary(min_size=1, max_size=40))
@settings(deadline=None, max_examples=150)
def test_no_header_leads_to_anything_but_images_and_reasons(place, noise):
    block = bytearray(packed(MEMBERS)[:BLOCK])
    block[place : place + len(noise)] = noise
    del block[BLOCK:]
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + sum(block[156:]) + 8 * 32)
    with contextlib.suppress(NatstatsError):
        read(bytes(block) + packed(MEMBERS)[BLOCK:])
