"""Single files that are there whole or not at all."""

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
"""In the name of a file that is being written; what is left of it when a process was killed."""


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
    """A file to write to; it takes the place of `path` when all is written, and else is gone.

    Its name until then is nobody else's, so that several processes may write one path at once: the
    last one's file stays.

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
