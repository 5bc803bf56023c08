"""The images of a tar archive that comes as a stream, in bounded memory, with damage reported.

The archive is read by Python's tarfile, which is given a file that can only be read forward. What
tarfile reads is bounded: no header takes more than a megabyte, whatever size it claims, and the
bytes of an image are read here. (The iteration of the webdataset library would read a member of any
size into memory, and end without a word at a header that is broken.)
"""

from __future__ import annotations

import bz2
import gzip
import tarfile
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, cast

from natstats.errors import NatstatsError
from natstats.images.byte_sources import ByteSource, SourceError
from natstats.images.formats import has_image_name, is_other_picture

__all__ = ["LARGEST_FILE", "NO_END", "StreamItem", "tar_items"]

LARGEST_FILE = 1 << 28
"""Bytes above which what is called an image is not read into memory."""

_LARGEST_HEADER = 1 << 20
_PIECE = 1 << 18
_MOST_AFTER_THE_END = 1 << 20

_GZIP, _BZIP2 = b"\x1f\x8b", b"BZh"
_UNREADABLE = {
    b"\xfd7zXZ\x00": ("xz", "xz -dc FILE"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -dc FILE"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -dc FILE"),
    b"PK\x03\x04": ("zip", "bsdtar -cf - @FILE"),
}

_CUT = "the tar file ends before the image does"
_DAMAGED = "the tar file is damaged here, and what follows is lost"
NO_END = "the tar file has no end mark, so it may have been cut between two members"
_MORE = "the tar file goes on after its end; what follows is not read (name every tar file)"


@dataclass(frozen=True)
class StreamItem:
    """What comes out of a shard: an image, or a place where one cannot be had.

    Attributes:
        name: name in the shard.
        data: bytes of the file of an image; None where it cannot be had.
        reason: why not.
        is_other: it is no image, but a picture of a format that is not read.
        is_last: what follows in the shard is lost.
    """

    name: str
    data: bytes | None = None
    reason: str = ""
    is_other: bool = False
    is_last: bool = False


class _DamageError(Exception):
    """An archive that cannot be read on."""


class _Buffered:
    """A source that is read in large pieces, and whose first bytes can be looked at beforehand."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._kept, self._place = b"", 0

    def peek(self, n: int) -> bytes:
        while len(self._kept) < n and (piece := self._source.read(_PIECE)):
            self._kept += piece
        return self._kept[:n]

    def read(self, n: int) -> bytes:
        if self._place == len(self._kept):
            self._kept, self._place = self._source.read(_PIECE), 0
        found = self._kept[self._place : self._place + n]
        self._place += len(found)
        return found


class _Forward:
    """A file that can only be read forward, and whose headers are read with a bound.

    Attributes:
        last: what was read last, as a header.
        allowance: bytes that may still be read as headers.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self.last = b""
        self.allowance = _LARGEST_HEADER

    def tell(self) -> int:
        return self._position

    def read(self, n: int) -> bytes:
        """The next bytes, as tarfile reads a header."""
        if not 0 <= n <= self.allowance:
            raise _DamageError("a header claims to be larger than any is")
        self.allowance -= n
        self.last = self.take(n)
        return self.last

    def seek(self, position: int) -> None:
        if position < self._position:
            raise _DamageError("a header leads back")
        self.skip(position)

    def skip(self, position: int) -> bool:
        """Read on to a position; False where the file ends before."""
        while self._position < position:
            if not self._some(min(_PIECE, position - self._position)):
                return False
        return True

    def take(self, n: int) -> bytes:
        """The next `n` bytes; fewer where the file ends before."""
        pieces, left = [], n
        while left and (piece := self._some(left)):
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _some(self, n: int) -> bytes:
        piece = self._file.read(n)
        self._position += len(piece)
        return piece


_BROKEN = (
    tarfile.TarError, _DamageError, EOFError, zlib.error, gzip.BadGzipFile, OSError, ValueError,
    OverflowError, RecursionError, LookupError, TypeError,
)  # fmt: skip
"""What tarfile and the decoders raise for bytes that are damaged."""


def tar_items(source: ByteSource, name: str) -> Iterator[StreamItem]:
    """The images of a tar archive, in their order, and places where one cannot be had.

    Members with the name of an image format are images; hidden ones and others are skipped, but
    pictures of formats that are not read are reported. Compression by gzip and bzip2 is undone.

    Args:
        source: gives the bytes.
        name: what to call the archive.

    Raises:
        NatstatsError: it is no tar archive, or of a compression that is not undone.
        SourceError: its bytes stopped coming.
    """
    buffered = _Buffered(source)
    file = _Forward(_decoded(buffered, name))
    try:
        with tarfile.open(fileobj=cast("BinaryIO", file), mode="r:") as tar:
            is_whole = yield from _members(tar, file)
    except _BROKEN as error:
        if file.tell() <= tarfile.BLOCKSIZE:  # the first header is none
            reason = " ".join(str(error).split()) or type(error).__name__
            raise NatstatsError(f"images: expected a tar file; {name}: {reason}") from None
        yield StreamItem(f"byte {file.tell()}", reason=_DAMAGED, is_last=True)
        return
    if is_whole:
        source.hurry()
        yield from _after_the_end(file)


def _decoded(buffered: _Buffered, name: str) -> BinaryIO:
    """The bytes of the archive itself.

    Raises:
        NatstatsError: it is compressed in another way.
    """
    start = buffered.peek(6)
    file = cast("BinaryIO", buffered)
    if start.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=file, mode="rb"))
    if start.startswith(_BZIP2):
        return cast("BinaryIO", bz2.BZ2File(file))
    for magic, (kind, command) in _UNREADABLE.items():
        if start.startswith(magic):
            raise NatstatsError(
                f"images: expected a tar file, plain or compressed by gzip or bzip2; {name} is of "
                f"{kind} (`pipe:{command}` reads it)"
            )
    if not start:
        raise NatstatsError(f"images: expected a tar file; {name} is empty")
    return file


def _members(tar: tarfile.TarFile, file: _Forward) -> Generator[StreamItem, None, bool]:
    """The images; returns whether nothing was wrong with the archive."""
    while (member := _next(tar, file)) is not None:
        name = member.name
        end = member.offset_data + (member.size if member.isreg() else 0)
        is_hidden = any(part.startswith(".") for part in PurePosixPath(name).parts if part != ".")
        if member.isdir() or is_hidden:
            pass
        elif not has_image_name(name):
            if is_other_picture(name):
                yield StreamItem(name, is_other=True)
        elif not member.isreg() or member.issparse():
            yield StreamItem(name, reason="a member that is no plain file")
        elif member.size > LARGEST_FILE:
            size = f"{member.size / 2**20:.0f} MiB"
            yield StreamItem(name, reason=f"{size} are too many for a photograph")
        elif member.size < 0:
            yield StreamItem(name, reason=_DAMAGED, is_last=True)
            return False
        else:
            data = file.take(member.size)
            if len(data) < member.size:
                yield StreamItem(name, reason=_CUT, is_last=True)
                return False
            yield StreamItem(name, data)
        if member.isreg() and not member.issparse() and not file.skip(end):
            yield StreamItem(name, reason="the tar file ends in the midst of it", is_last=True)
            return False
    if not file.last:
        yield StreamItem(f"byte {file.tell()}", reason=NO_END, is_last=True)
        return False
    if len(file.last) < tarfile.BLOCKSIZE or any(file.last):
        position = file.tell() - len(file.last)
        yield StreamItem(f"byte {position}", reason=_DAMAGED, is_last=True)
        return False
    return True


def _next(tar: tarfile.TarFile, file: _Forward) -> tarfile.TarInfo | None:
    """The next member; None at the end, and at a broken header."""
    file.allowance = _LARGEST_HEADER
    member = tar.next()
    tar.members = []  # type: ignore[attr-defined]  # kept by tarfile, for ever
    return member


def _after_the_end(file: _Forward) -> Iterator[StreamItem]:
    """Read on after the end mark, which also shows how a command ended and checks a checksum."""
    try:
        left = _MOST_AFTER_THE_END
        while left > 0 and (piece := file.take(min(_PIECE, left))):
            if any(piece):
                yield StreamItem(f"byte {file.tell()}", reason=_MORE, is_last=True)
                return
            left -= len(piece)
    except SourceError:
        raise
    except _BROKEN:
        yield StreamItem(f"byte {file.tell()}", reason=_DAMAGED, is_last=True)
