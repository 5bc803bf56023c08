"""The shards of a stream: from what a user names to what gives images one after the other."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from natstats.errors import UsageError
from natstats.images.byte_sources import (
    ByteSource,
    check_address,
    matching_addresses,
    opened_address,
    opened_command,
    opened_file,
)
from natstats.images.read_ahead import Abort
from natstats.images.shards import shard_paths
from natstats.images.tar_streams import StreamItem, tar_items
from natstats.text import printable

__all__ = [
    "COMMAND", "COMPRESSED", "MOST_SHARDS", "StreamShard", "TarShard", "command_shards",
    "is_address", "shards_at",
]  # fmt: skip

COMMAND = "pipe"
"""Prefix, before the colon, of a source that is a command."""

COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
"""Endings of local tar files that are read as streams."""

MOST_SHARDS = 1_000_000

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(://|::)")
_BRACES = re.compile(r"\{(?:(\d{1,18})\.\.(\d{1,18})|([^{}\s'\"$;|&]*,[^{}\s'\"$;|&]*))\}")
_QUOTED = r"\\.|'[^']*'|\"(?:[^\"\\]|\\.)*\""
_BRACES_OF_COMMANDS = re.compile(f"{_QUOTED}|{_BRACES.pattern}", re.DOTALL)
"""Braces as a shell reads them; text in quotes or behind a backslash matches without a group."""

_SHOWN = 120


class StreamShard(Protocol):
    """A part of a stream that is read from its beginning, one image after the other.

    Attributes:
        address: what tells it from others.
        name: what to call it, printable.
    """

    @property
    def address(self) -> str:
        """What tells it from others."""

    @property
    def name(self) -> str:
        """What to call it, printable."""

    def items(self, abort: Abort) -> Generator[StreamItem, None, None]:
        """Its images, in their order.

        Args:
            abort: ends what is waited for.

        Raises:
            NatstatsError: it cannot be opened, or its bytes stopped coming.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class TarShard:
    """A tar file from a command, an address or a local file.

    Attributes:
        kind: ``command``, ``address`` or ``file``.
        address: the command, the address or the path.
    """

    kind: str
    address: str

    @property
    def name(self) -> str:
        """What to call it, printable."""
        if self.kind == "file":
            return printable(Path(self.address).name)
        text = printable(f"{COMMAND}:{self.address}" if self.kind == "command" else self.address)
        # What tells shards apart is mostly at the end.
        half = _SHOWN // 2
        return text if len(text) <= _SHOWN else f"{text[:half]}...{text[-half:]}"

    def items(self, abort: Abort) -> Generator[StreamItem, None, None]:
        """Its images, in their order."""
        with self._opened(abort) as source:
            yield from tar_items(source, self.name)

    def _opened(self, abort: Abort) -> contextlib.AbstractContextManager[ByteSource]:
        if self.kind == "command":
            return opened_command(self.address, self.name, abort)
        if self.kind == "file":
            return opened_file(self.address, self.name)
        return opened_address(self.address, self.name)


def is_address(source: str) -> bool:
    """Whether a source is an address for fsspec.

    >>> is_address("s3://bucket/a.tar"), is_address("cifar10:~/data"), is_address("a.tar")
    (True, False, False)
    """
    return _ADDRESS.match(source) is not None


def command_shards(command: str) -> list[TarShard]:
    """The commands that braces stand for, each of which prints a tar file.

    Raises:
        UsageError: there is none, or the same one twice.

    >>> [one.address for one in command_shards("cat a-{08..10}.tar | awk '{print $1,$2}'")][1]
    "cat a-09.tar | awk '{print $1,$2}'"
    """
    if not command.strip():
        raise UsageError(f"images: expected a command behind {COMMAND}:, which prints a tar file")
    return _each_once([TarShard("command", one) for one in _bounded(_expanded(command, True))])


def shards_at(source: str) -> list[TarShard]:
    """The tar files at addresses with braces or ``*``, or compressed tar files on disk.

    Raises:
        UsageError: there is none, the same one twice, or nothing that can open it.
    """
    if not is_address(source):
        paths = shard_paths(source)
        return _each_once([TarShard("file", str(path)) for path in paths])
    found: list[str] = []
    for address in _bounded(_expanded(source)):
        if not found:
            check_address(address)
        # Only * is a wildcard: in an address ? begins a query, and brackets may be part of it.
        found += matching_addresses(address) if "*" in address else [address]
    return _each_once([TarShard("address", one) for one in found])


def _each_once(shards: list[TarShard]) -> list[TarShard]:
    seen: set[str] = set()
    for shard in shards:
        address = os.path.realpath(shard.address) if shard.kind == "file" else shard.address
        if address in seen:
            raise UsageError(f"images: expected every shard once; {shard.name} is named twice")
        seen.add(address)
    return shards


def _bounded(names: Iterator[str]) -> list[str]:
    found = list(itertools.islice(names, MOST_SHARDS + 1))
    if len(found) > MOST_SHARDS:
        raise UsageError(f"images: expected at most {MOST_SHARDS} shards; got more")
    return found


def _expanded(pattern: str, is_command: bool = False) -> Iterator[str]:
    """What braces stand for, as in a shell: ``{000..012}`` and ``{a,b}``, and no others.

    Other braces in a command, such as those of a program for awk, are left as they are, and so is
    what is within quotes.
    """
    parts: list[list[str]] = []
    end = 0
    for braces in (_BRACES_OF_COMMANDS if is_command else _BRACES).finditer(pattern):
        if not any(braces.groups()):
            continue
        parts.append([pattern[end : braces.start()]])
        end = braces.end()
        first, last, names = braces.groups()
        if names is not None:
            parts.append(names.split(","))
            continue
        step = 1 if int(first) <= int(last) else -1
        numbers = range(int(first), int(last) + step, step)
        if len(numbers) > MOST_SHARDS:
            raise UsageError(f"images: expected at most {MOST_SHARDS} shards; got {len(numbers)}")
        parts.append([f"{number:0{len(first)}d}" for number in numbers])
    parts.append([pattern[end:]])
    return map("".join, itertools.product(*parts))
