"""Photographs in tar files on disk, read in place.

An index of all members gives every image its number before any is read. So numbers do not depend on
the number of workers, and a limited run has a random sample of all shards, which reading one shard
after another could not give. Python's tarfile makes the index from the headers alone; nothing is
unpacked.
"""

from __future__ import annotations

import glob
import io
import itertools
import os
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import open_regular
from natstats.images.contents import Identity, identify
from natstats.images.folder_walk import left_out_note, paths_matching
from natstats.images.formats import has_image_name, is_other_picture
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs, reason_of
from natstats.images.tar_streams import NO_END
from natstats.text import printable

__all__ = ["Shards", "shard_paths"]

_BLOCK = 512
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_BRACES = 100


@dataclass(frozen=True, slots=True)
class _Member:
    """Where an image lies: shard, bytes, name; `reason` says why it cannot be read, if so."""

    shard: int
    name: str
    start: int
    size: int
    reason: str = ""


class Shards(Photographs):
    """The photographs in tar files.

    Members with the name of an image format are images; others, such as labels, are skipped, and
    pictures of formats that are not read are counted.

    Args:
        paths: paths of the tar files, uncompressed.
        framing: how each photograph is brought to size; by default the largest square of at most
            512 pixels that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from, for people.

    Raises:
        UsageError: a file is no tar file, or there is no image in any.
    """

    def __init__(
        self,
        paths: list[Path],
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
        description: str = "shards",
    ) -> None:
        self.paths = paths
        left_out: list[str] = []
        self._members = [
            member for shard, path in enumerate(paths) for member in _index(shard, path, left_out)
        ]
        notes = [left_out_note(left_out)] if left_out else []
        if not self._members:
            raise UsageError(
                f"images: expected at least one image; got none in {printable(description)!r}"
                + "".join(f" ({note})" for note in notes)
            )
        super().__init__(len(self._members), framing, limit, seed, description, notes)

    def open(self, number: int) -> BinaryIO:
        """The bytes of an image."""
        member = self._members[self.places[number]]
        if member.reason:
            raise NatstatsError(member.reason)
        with open_regular(self.paths[member.shard]) as file:
            length = os.fstat(file.fileno()).st_size
            if member.size < 0 or member.start + member.size > length:
                raise NatstatsError("the tar file ends before the image does")
            file.seek(member.start)
            return io.BytesIO(file.read(member.size))

    def identities(self, number: int) -> tuple[Identity, ...]:
        """The identity of the member: that of the tar file, and its place in it."""
        member = self._members[self.places[number]]
        return identify(self.paths[member.shard], member.start, member.size)

    def n_bytes(self, number: int) -> int:
        """Size of the member."""
        return self._members[self.places[number]].size

    def label(self, number: int) -> str:
        """Name of the tar file and of the member in it."""
        member = self._members[self.places[number]]
        return printable(f"{self.paths[member.shard].name}/{member.name}")


def _index(shard: int, path: Path, left_out: list[str]) -> Iterator[_Member]:
    """Every image of a tar file; also a place where the archive is damaged counts as one.

    Names of pictures that are not read are added to `left_out`.
    """
    try:
        with open_regular(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = 0
            for member in _headers(tar):
                end = member.offset_data + max(member.size, 0)
                name = member.name
                hidden = any(part.startswith(".") for part in Path(name).parts if part != ".")
                if member.isdir() or hidden:
                    continue
                if not has_image_name(name):
                    left_out += [name] if is_other_picture(name) else []
                    continue
                reason = ""
                if not member.isreg() or member.issparse():
                    reason = "a member that is no plain file"
                yield _Member(shard, name, member.offset_data, member.size, reason)
            damaged = _damage(path, tar.offset, end)
            if damaged:
                yield _Member(shard, f"byte {tar.offset}", tar.offset, 0, damaged)
    except (OSError, tarfile.TarError) as error:
        raise UsageError(
            f"images: expected an uncompressed tar file; {printable(path)}: {reason_of(error)}"
        ) from None


def _headers(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while True:
        try:
            member = tar.next()
        # The last member is cut short, which reading it will tell; or a header holds nonsense.
        except (tarfile.ReadError, ValueError, OverflowError):
            return
        if member is None:
            return
        tar.members = []  # type: ignore[attr-defined]  # kept by tarfile, for ever
        yield member


def _damage(path: Path, offset: int, end: int) -> str:
    """What is wrong where tarfile stopped, which is silent at a broken header; empty if nothing.

    Args:
        path: path of the file.
        offset: where tarfile stopped.
        end: the byte behind the last member. If the file ends before it, reading that member will
            say so.
    """
    with open_regular(path) as file:
        if offset >= os.fstat(file.fileno()).st_size:
            return NO_END if end <= os.fstat(file.fileno()).st_size else ""
        file.seek(offset)
        block = file.read(_BLOCK)
    if any(block):
        return "the tar file is damaged here, and what follows is lost"
    return ""


def shard_paths(pattern: str) -> list[Path]:
    """The tar files that are meant by a path with braces or wildcards.

    ``{00000..00012}`` stands for every number from the first to the last, with leading zeros as
    in the first; ``{a,b}`` for either; ``*``, ``?`` and ``[...]`` for what is there.

    Raises:
        UsageError: a file is not there, or nothing matches.
    """
    if len(_BRACES.findall(pattern)) > _MOST_BRACES:
        raise UsageError(f"images: expected a path with at most {_MOST_BRACES} braces; got more")
    paths: list[Path] = []
    for name in _expanded(pattern):
        if glob.has_magic(name) and not os.path.exists(name):
            paths += sorted(paths_matching(name))
        elif os.path.exists(name):
            paths.append(Path(name))
        else:
            raise UsageError(f"images: expected a tar file; there is none at {printable(name)}")
    if not paths:
        raise UsageError(f"images: expected a tar file; nothing matches {printable(pattern)!r}")
    return paths


def _whole(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:  # Python takes no more than some thousand digits
        raise UsageError(
            f"images: expected numbers of shards in braces; got one of {len(digits)} digits"
        ) from None


def _expanded(pattern: str) -> Iterator[str]:
    braces = _BRACES.search(pattern)
    if braces is None:
        yield pattern
        return
    numbers = _RANGE.fullmatch(braces[1])
    if numbers is None:
        parts: Iterator[str] = iter(braces[1].split(","))
    else:
        first, last = (_whole(number) for number in numbers.groups())
        step = 1 if first <= last else -1
        width = len(numbers[1])
        parts = (f"{number:0{width}d}" for number in range(first, last + step, step))
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    yield from itertools.chain.from_iterable(_expanded(f"{head}{part}{tail}") for part in parts)
