"""One process at a time is at work in the folder of a training; what killed ones leave goes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from natstats.distill.run_folders import RECORD, STATE
from natstats.distill.training.out_folders import check_seeds_out, reserved, reserved_free
from natstats.errors import UsageError

LOCK = ".natstats-training"


def held_by(folder, pid):
    """Make a folder that a process is at work in."""
    (folder / LOCK).mkdir(parents=True)
    record = {"token": "0", "host": socket.gethostname(), "pid": pid, "born": None, "since": "now"}
    (folder / LOCK / "lock.json").write_text(json.dumps(record))


@pytest.fixture
def gone():
    """Number of a process that runs no more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_folder_is_made_and_goes_when_nothing_is_in_it(tmp_path):
    path = tmp_path / "runs" / "kd"
    with reserved(path):
        assert path.is_dir()
        with reserved(path):  # again, by the same process
            pass
        assert (path / LOCK).is_dir()
    assert not (tmp_path / "runs").exists()


def test_what_was_written_stays(tmp_path):
    with pytest.raises(ZeroDivisionError), reserved(tmp_path / "kd"):
        (tmp_path / "kd" / STATE).touch()
        raise ZeroDivisionError
    assert [entry.name for entry in (tmp_path / "kd").iterdir()] == [STATE]


@pytest.mark.parametrize("has_state", [False, True])
def test_where_another_process_is_at_work_is_no_place(tmp_path, has_state):
    held_by(tmp_path / "kd", os.getppid())
    if has_state:
        (tmp_path / "kd" / STATE).touch()
    for overwrite in (False, True):
        with pytest.raises(UsageError) as e, reserved(tmp_path / "kd", overwrite):
            pass
        expected = f"{tmp_path / 'kd'} is being written by process {os.getppid()} on "
        assert expected in str(e.value)
    assert (tmp_path / "kd" / LOCK / "lock.json").is_file()


def test_a_process_that_is_gone_keeps_nobody_out_and_is_cleared_after(tmp_path, gone):
    held_by(tmp_path / "kd", gone)
    for name in (STATE, f"{STATE}.partial", f"{STATE}.history"):
        (tmp_path / "kd" / name).touch()
    with reserved(tmp_path / "kd"):
        assert {e.name for e in (tmp_path / "kd").iterdir()} == {LOCK, STATE}


def test_a_run_that_came_to_its_end_meanwhile_is_kept(tmp_path):
    (tmp_path / "kd").mkdir()
    (tmp_path / "kd" / RECORD).write_text("{}")
    with pytest.raises(UsageError, match="exists and is kept"), reserved(tmp_path / "kd"):
        pass


def test_free_folders_are_those_where_nobody_is(tmp_path, gone):
    held_by(tmp_path / "kd", os.getppid())
    (tmp_path / "kd-2").mkdir()
    held_by(tmp_path / "kd-3", gone)
    with reserved_free(tmp_path / "kd") as path:
        assert path == tmp_path / "kd-3"


def test_seeds_of_others_may_be_at_work_beside(tmp_path):
    held_by(tmp_path / "kd" / "seed-1", os.getppid())
    check_seeds_out(tmp_path / "kd")
    with reserved(tmp_path / "kd" / "seed-2"):
        pass
    assert (tmp_path / "kd" / "seed-1").is_dir()


def test_the_command_refuses_before_its_work(call, tmp_path):
    held_by(tmp_path / "kd", os.getppid())
    # There are no such images, which the work would begin with.
    arguments = ["distill", "--student", "cifar_resnet8", "--data", "imagefolder:nothing"]
    result = call(*arguments, "--seed", "2", "--out", "kd", code=2)
    assert "kd is being written by process" in result.stderr
    assert [entry.name for entry in (tmp_path / "kd").iterdir()] == [LOCK]
