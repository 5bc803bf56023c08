"""Folders are reserved before the work; what killed processes leave is taken over or cleared."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from natstats.errors import NatstatsError, UsageError
from natstats.files import locks
from natstats.files.claims import claimed, claimed_free
from natstats.files.folders import write_directory
from natstats.files.ownership import STATE, is_reserved
from natstats.files.whole_files import whole_file


def elsewhere(code: str, *arguments: object) -> str:
    """What another process prints; it is killed if the code says so."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


HOLD = """
import os, signal, sys
from pathlib import Path
from natstats.files.claims import claimed
with claimed(Path(sys.argv[1])) as state:
    (state / "sums").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""

TRY = """
import sys
from pathlib import Path
from natstats.errors import UsageError
from natstats.files.claims import claimed
try:
    with claimed(Path(sys.argv[1])):
        print("had")
except UsageError as error:
    print(error)
"""


@pytest.mark.slow
def test_one_folder_has_one_owner_until_it_is_gone(tmp_path):
    out = tmp_path / "run"
    with claimed(out), claimed(out):
        said = elsewhere(TRY, out)
        assert said.startswith("out: expected a folder where nobody is at work")
        assert f"process {os.getpid()} on {socket.gethostname()}" in said
    assert not out.exists()
    elsewhere(HOLD, out)
    assert (out / STATE / "sums").read_text() == "half"
    with claimed(out) as state:
        assert (state / "sums").read_text() == "half"
    assert is_reserved(out)


def write_lock(out: Path, **changes: object) -> None:
    (out / STATE).mkdir(parents=True, exist_ok=True)
    record = {"token": "x", "host": socket.gethostname(), "pid": os.getpid(), "since": "now"}
    (out / STATE / "lock.json").write_text(json.dumps({**record, **changes}))


@pytest.mark.parametrize(
    ("changes", "is_free"),
    [
        ({"born": "another"}, True),  # the number of the process has come again
        ({"pid": 2**22 + 1}, True),
        ({"host": "elsewhere"}, False),
        ({}, False),
        ({"pid": None, "host": None}, False),
    ],
)
def test_a_lock_is_stale_where_that_can_be_known(tmp_path, changes, is_free):
    write_lock(tmp_path / "run", **changes)
    if is_free:
        with claimed(tmp_path / "run"):
            pass
        return
    with pytest.raises(UsageError, match="nobody is at work"), claimed(tmp_path / "run"):
        pass


def test_of_another_machine_only_a_long_silence_tells(tmp_path):
    write_lock(tmp_path / "run", host="elsewhere")
    lock = tmp_path / "run" / STATE / "lock.json"
    seen = lock.stat().st_mtime
    os.utime(lock, (seen - locks.SILENCE - 60,) * 2)
    with claimed(tmp_path / "run") as state:
        # Another that took it for gone and came later has it: this one must not go on.
        write_lock(tmp_path / "run", host="elsewhere")
        with pytest.raises(NatstatsError, match="alone at work"):
            locks.sign(state)


def test_signs_of_life_come_while_the_work_is_busy_and_cease_with_it(tmp_path, monkeypatch):
    """Whatever the work saves, and how seldom; never to the lock of another."""
    monkeypatch.setattr(locks, "SIGN_EVERY", 0.01)
    with claimed(tmp_path / "run") as state:
        lock = state / "lock.json"

        def is_signed() -> bool:
            os.utime(lock, (1, 1))
            end = time.monotonic() + 0.5
            while lock.stat().st_mtime == 1 and time.monotonic() < end:
                time.sleep(0.01)
            return lock.stat().st_mtime != 1

        assert is_signed()
        own = lock.read_text()
        write_lock(tmp_path / "run", host="elsewhere")
        time.sleep(0.1)
        assert not is_signed()
        lock.write_text(own)
        assert is_signed()
    write_lock(tmp_path / "run", host="elsewhere")
    assert not is_signed()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"x"', '{"pid": "a"}', "\0"])
def test_half_a_lock_is_none_that_hinders_for_ever(tmp_path, content):
    write_lock(tmp_path / "run")
    lock = tmp_path / "run" / STATE / "lock.json"
    lock.write_text(content)
    os.utime(lock, (1, 1))
    with claimed(tmp_path / "run"):
        pass


@pytest.mark.parametrize("is_run", [False, True])
@pytest.mark.parametrize("lock", [None, {"host": "another", "pid": 1, "token": "x", "since": "y"}])
def test_nothing_is_written_where_a_state_folder_that_is_a_link_leads(tmp_path, is_run, lock):
    """A folder may come from somebody else, and its state folder lead to one's own weights."""
    own, out = tmp_path / "own", tmp_path / "run"
    own.mkdir()
    (own / "weights.safetensors").write_bytes(b"precious")
    if lock is not None:
        (own / "lock.json").write_text(json.dumps(lock), encoding="utf-8")
    out.mkdir()
    if is_run:
        (out / "run.json").write_text('{"format": 1}', encoding="utf-8")
    (out / STATE).symlink_to(own)
    before = {file.name: file.stat().st_mtime_ns for file in [own, *own.iterdir()]}
    with (
        pytest.raises(UsageError, match=r"out: expected .*natstats-state is a link"),
        claimed(out, overwrite=True),
    ):
        pytest.fail("it was claimed")
    assert {file.name: file.stat().st_mtime_ns for file in [own, *own.iterdir()]} == before
    with claimed_free(out, lambda state: True) as other:
        assert other == tmp_path / "run-2"


def test_the_first_free_folder_is_claimed(tmp_path):
    first = tmp_path / "run"
    with claimed_free(first, lambda _: True) as one, claimed_free(first, lambda _: True) as two:
        assert (one.name, two.name) == ("run", "run-2")
    (first / STATE).mkdir(parents=True)
    with claimed_free(first, lambda _: False) as path:
        assert path.name == "run-2"
    with claimed_free(first, lambda _: True) as path:
        assert path.name == "run"


def test_what_nobody_writes_any_more_is_cleared(tmp_path):
    gone = elsewhere("from natstats.files import locks; print(locks.mark())")
    alive = locks.mark()
    for mark in (gone, alive):
        (tmp_path / f".run.natstats-new.{mark}_x").mkdir()
        (tmp_path / f".run.natstats-new.{mark}_x" / "half").touch()
        (tmp_path / f"file.partial-{mark}_x").touch()
    (tmp_path / ".run.natstats-new.other").mkdir()
    with write_directory(tmp_path / "run") as folder:
        (folder / "run.json").write_text("{}")
    with whole_file(tmp_path / "file") as file:
        file.write(b"all")
    assert {path.name for path in tmp_path.iterdir()} == {
        "run", "file", f".run.natstats-new.{alive}_x", f"file.partial-{alive}_x",
        ".run.natstats-new.other",
    }  # fmt: skip


def test_a_reserved_folder_is_refused_to_all_else(tmp_path):
    with claimed(tmp_path / "run"):
        pass
    (tmp_path / "run" / STATE).mkdir(parents=True)
    (tmp_path / "run" / STATE / "sums").touch()
    with (
        pytest.raises(UsageError, match="state of work that is not finished"),
        write_directory(tmp_path / "run", overwrite=True),
    ):
        pass
    assert (tmp_path / "run" / STATE / "sums").exists()


@pytest.mark.parametrize("name", ["n" * 248, "n" * 255, "é" * 120, "a b\n"])
def test_names_of_any_length_that_a_folder_can_have(tmp_path, name):
    with claimed(tmp_path / name), write_directory(tmp_path / name) as folder:
        (folder / "run.json").write_text("{}")
    assert (tmp_path / name / "run.json").exists()


def test_a_name_that_no_folder_can_have_is_refused_at_once(tmp_path):
    with pytest.raises(NatstatsError, match="out: expected"), claimed(tmp_path / ("n" * 256)):
        pass
    assert not list(tmp_path.iterdir())
