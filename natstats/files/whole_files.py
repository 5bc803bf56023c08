"""Writing single files so that each is there whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from natstats.files import locks
from natstats.files.leftovers import clear

__all__ = ["PARTIAL", "sync", "whole_file"]

PARTIAL = ".partial-"
"""Part of the name of a file that is being written, or that a killed process left."""


_CANNOT_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def sync(descriptor: int) -> None:
    """Have a file written to the disk, where its file system knows how.

    Raises:
        OSError: it cannot be written.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to; it replaces `path` when all is written, and is removed after an error.

    Until then it has a name that no other file has, so that several processes may write one path at
    once: the file of the last one stays.

    Raises:
        OSError: it cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(Path(folder) / "a") as file:
    ...         _ = file.write(b"all")
    ...     (Path(folder) / "a").read_bytes()
    b'all'
    """
    prefix = f"{path.name}{PARTIAL}"
    clear(path.parent, prefix)
    partial = path.with_name(f"{prefix}{locks.mark()}_{uuid.uuid4().hex}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            sync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
