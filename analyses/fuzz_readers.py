"""Fuzz of everything that natstats reads: files that are damaged, or that mean harm.

For some minutes valid files of every kind are changed, in their bytes or in what they say, and read
again. The law for all: a NatstatsError with a sentence, or success; no code of the file is run,
nothing is written but where it may be, memory and time stay bounded. The same is checked with few
examples by tests/analyses/test_fuzz_readers.py. Usage::

    python analyses/fuzz_readers.py --minutes 10 --out analyses/results/fuzz_readers.json
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fuzz_changes
import matplotlib.font_manager  # noqa: F401  # which asks the system for fonts when it is imported
from fuzz_targets import TARGETS, Target

from natstats.errors import NatstatsError
from natstats.text import lines

__all__ = ["LawBrokenError", "Made", "check", "one_change"]

ROOM = 1 << 30
"""Bytes that reading a small file may take at most."""

PATIENCE = 20
"""Seconds that it may take at most."""


class LawBrokenError(AssertionError):
    """What happened that may not."""


class Made:
    """A valid target, kept to be copied and changed."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.folder = target, folder
        folder.mkdir(parents=True)
        target.make(folder)
        self.files = [(path.relative_to(folder), codecs) for path, codecs in target.files(folder)]

    def copied(self, to: Path) -> None:
        """A copy of it at another place."""
        shutil.copytree(self.folder, to)


def one_change(made: Made, folder: Path, choose: random.Random) -> str:
    """Change one file of a copy; what was done is returned in words."""
    name, codecs = choose.choice(made.files)
    path = folder / name
    content = path.read_bytes()
    codec = choose.choice([None, *codecs, *codecs, *codecs])
    if codec is None:
        path.write_bytes(fuzz_changes.bytes_changed(content, choose))
        return f"{name}: bytes"
    value = codec.taken(content)
    try:
        path.write_bytes(codec.made(fuzz_changes.values_changed(value, choose)))
    except Exception:  # cannot be written so, and so by nobody else
        path.write_bytes(fuzz_changes.bytes_changed(content, choose))
    return f"{name}: values"


_may_write: list[str] | None = None
_written: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _may_write is None:
        return
    if event in ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "socket.connect"):
        _written.append(f"{event} {arguments!r:.200}")
    paths: tuple[Any, ...] = ()
    if event == "open" and isinstance(arguments[0], str | bytes):
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        paths = arguments[:1] if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) else ()
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.symlink", "os.link", "shutil.rmtree"):
        paths = arguments[:1]
    elif event == "os.rename":
        paths = arguments[:2]
    handle = arguments[-1] if event in ("os.remove", "os.rmdir") else -1
    for path in paths:
        if isinstance(path, str | bytes):
            below = os.readlink(f"/proc/self/fd/{handle}") if handle >= 0 else os.getcwd()
            shown = os.path.normpath(os.path.join(below, os.fsdecode(path)))
            if not any(shown.startswith(one) for one in _may_write):
                _written.append(f"{event} {shown}")


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[None]:
    """Raise where something was written elsewhere, or a program was started."""
    global _may_write
    cache = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    _written.clear()
    _may_write = [str(folder.resolve()), cache, "/dev/null", "/dev/shm"]
    try:
        yield
    finally:
        _may_write = None
    if _written:
        raise LawBrokenError(f"wrote or started: {_written[:3]}")


def _used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def _bounded() -> Iterator[None]:
    """Raise where more memory or time is taken than may be."""

    def late(number: int, frame: object) -> None:
        raise LawBrokenError(f"it takes more than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, late)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_used() + ROOM, hard))
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def check(read: Callable[[Path], Any], folder: Path) -> str:
    """Read what is in a folder; "refused" or "read" is returned.

    Raises:
        LawBrokenError: what happened may not.
    """
    with _watched(folder), _bounded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            read(folder)
        except NatstatsError as error:
            said = lines(map(str, error.args))
            if not said.strip() or len(said) > 4000:
                raise LawBrokenError(f"said: {said[:300]!r}, {len(said)} characters") from error
            return "refused"
        except LawBrokenError:
            raise
        except BaseException as error:
            raise LawBrokenError(f"{type(error).__name__}: {str(error)[:300]}") from error
    return "read"


sys.addaudithook(_audit)


def _where(error: BaseException) -> str:
    """The last places of natstats in a traceback."""
    cause = error.__cause__ or error
    places = [
        f"{Path(one.filename).name}:{one.lineno}"
        for one in traceback.extract_tb(cause.__traceback__)
        if "natstats" in one.filename
    ]
    return " ".join(places[-4:])


def _fuzz(made: list[Made], minutes: float, seed: int, scratch: Path) -> dict[str, Any]:
    """Counts by target, and what was found, each place once."""
    counts = {one.target.name: {"read": 0, "refused": 0, "broken": 0} for one in made}
    found: dict[str, dict[str, Any]] = {}
    end = time.monotonic() + 60 * minutes
    number = 0
    while time.monotonic() < end:
        one = made[number % len(made)]
        number += 1
        folder = scratch / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        one.copied(folder)
        own = seed * 10**9 + number
        what = one_change(one, folder, random.Random(own))
        try:
            counts[one.target.name][check(one.target.read, folder)] += 1
        except LawBrokenError as error:
            counts[one.target.name]["broken"] += 1
            key = f"{one.target.name}: {str(error)[:60]} at {_where(error)}"
            if key not in found:
                print(key, "|", what, "|", own, flush=True)
            found.setdefault(key, {"what": what, "seed": own, "said": str(error), "n": 0})["n"] += 1
    return {"n": number, "targets": counts, "found": found}


def main() -> None:
    """Fuzz, say what was found, and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10**6)
    parser.add_argument("--only", default="", help="targets whose names begin so")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        made = [
            Made(target, Path(name) / target.name)
            for target in TARGETS
            if target.name.startswith(given.only)
        ]
        for one in made:
            warnings.simplefilter("ignore")
            shutil.rmtree(Path(name) / "copy", ignore_errors=True)
            one.copied(Path(name) / "copy")
            if check(one.target.read, Path(name) / "copy") != "read":
                raise SystemExit(f"{one.target.name}: a valid one is refused")
        record = _fuzz(made, given.minutes, given.seed, Path(name))
    record = {"minutes": given.minutes, "seed": given.seed, **record}
    for target, count in record["targets"].items():
        print(f"{target:20} {count}")
    if given.out is not None:
        given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
