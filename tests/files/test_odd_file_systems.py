"""File systems that cannot do what others can: lock, exchange, sync, remove what is open."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

import natstats
from natstats.errors import NatstatsError, UsageError
from natstats.files import folders, locks, ownership
from natstats.files.claims import claimed
from natstats.files.ownership import STATE
from natstats.files.state_files import read_state, write_state
from natstats.files.whole_files import PARTIAL, whole_file
from natstats.runs import store

pytestmark = pytest.mark.usefixtures("quick")


@pytest.fixture
def quick(monkeypatch):
    def page(folder, _):
        (folder / "report.html").touch()

    monkeypatch.setattr("natstats.report.pages.run.write_report", page)


def failing(code, real=None, at=lambda *given: True):
    """Fails with this code where asked to; else the real one."""

    def fail(*given, **named):
        if at(*given):
            raise OSError(code, os.strerror(code))
        return real(*given, **named)

    return fail


def measure(out, seed=0, **options):
    images = torch.rand(12, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return natstats.measure_images(images, n_groups=12, batch_size=4, out=out, **options)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks_of_the_system(tmp_path, monkeypatch, code):
    fcntl = pytest.importorskip("fcntl")
    monkeypatch.setattr(fcntl, "flock", failing(code))
    measure(tmp_path / "run")
    with claimed(tmp_path / "other") as state:
        held, locks._held = locks._held, {}
        try:
            with pytest.raises(UsageError, match="nobody is at work"), claimed(tmp_path / "other"):
                pass
        finally:
            locks._held = held
        assert state.is_dir()
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.ENOTSUP])
def test_without_syncing(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", failing(code))
    write_state(tmp_path / "s", {"n": 1})
    assert read_state(tmp_path / "s") == {"n": 1}
    assert measure(tmp_path / "run").path == tmp_path / "run"


def test_a_disk_that_fails_is_said(tmp_path, monkeypatch, caplog):
    measure(tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(NatstatsError, match="Input/output error"):
        measure(tmp_path / "run", seed=1, overwrite=True)
    assert (tmp_path / "run/run.json").read_bytes() == before
    with pytest.raises(OSError, match="Input/output"), whole_file(tmp_path / "f") as file:
        file.write(b"x")
    assert names(tmp_path) == ["run"]
    assert "could not be saved" in caplog.text


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ENOTEMPTY, errno.ESTALE, errno.EEXIST])
@pytest.mark.parametrize("at", [1, 2])
def test_a_folder_that_cannot_be_renamed_keeps_the_old_one(tmp_path, monkeypatch, code, at):
    measure(tmp_path / "run")
    before = (tmp_path / "run/run.json").read_bytes()
    real, n = Path.rename, []

    def rename(self, target):
        if Path(target).name == "run" or self.name == "run":
            n.append(target)
            if len(n) == at:
                raise OSError(code, os.strerror(code))
        return real(self, target)

    monkeypatch.setattr(folders, "_exchange", lambda first, second: False)
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(NatstatsError, match="out: expected a folder that can be put in place") as e:
        measure(tmp_path / "run", seed=1, overwrite=True)
    assert "`natstats fit" in str(e.value)
    assert (tmp_path / "run/run.json").read_bytes() == before
    monkeypatch.undo()
    again = measure(tmp_path / "run", seed=1, overwrite=True)
    assert natstats.Run.open(tmp_path / "run").info["images"] == again.info["images"]
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("code", [errno.EBUSY, errno.ESTALE, errno.EACCES])
def test_a_file_that_cannot_be_replaced_stays(tmp_path, monkeypatch, code):
    write_state(tmp_path / "s", {"n": 1})
    monkeypatch.setattr(Path, "replace", failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        write_state(tmp_path / "s", {"n": 2})
    monkeypatch.undo()
    assert read_state(tmp_path / "s") == {"n": 1}
    assert not [name for name in names(tmp_path) if PARTIAL in name]


def test_files_that_are_open_stay_for_a_while(tmp_path, monkeypatch):
    """As on NFS: what is removed while it is open gets another name, and its folder stays."""
    out = tmp_path / "run"
    measure(out)
    real = os.unlink

    def unlink(path, *given, **named):
        if not given and not named and Path(path).name == "spectra.npz":
            os.rename(path, Path(path).with_name(".nfs00000000deadbeef00000001"))
        else:
            real(path, *given, **named)

    monkeypatch.setattr(os, "unlink", unlink)
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: unlink(self))
    run = measure(out, seed=1, overwrite=True)
    assert natstats.Run.open(out).info["images"] == run.info["images"]
    assert not [name for name in names(tmp_path) if "kept" in name]


def test_what_was_removed_while_it_was_open_is_in_nobodys_way(tmp_path):
    measure(tmp_path / "run")
    (tmp_path / "run" / ".nfs00000000deadbeef00000001").write_bytes(b"x")
    assert not ownership.foreign(tmp_path / "run", "run")
    run = measure(tmp_path / "run", seed=1, overwrite=True)
    assert natstats.Run.open(tmp_path / "run").info["images"] == run.info["images"]
    (tmp_path / "new" / STATE).mkdir(parents=True)
    (tmp_path / "new" / ".nfs00000000deadbeef00000001").write_bytes(b"x")
    assert ownership.is_reserved(tmp_path / "new")
    (tmp_path / "new" / ".nfsx").write_bytes(b"a file of the user")
    assert not ownership.is_reserved(tmp_path / "new")


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(tmp_path, monkeypatch, code):
    seen = []
    at = lambda path, *given: "out" in str(path)  # noqa: E731
    monkeypatch.setattr(os, "mkdir", failing(code, os.mkdir, at))
    with pytest.raises(NatstatsError, match=rf"out: expected .*{os.strerror(code)}"):
        measure(tmp_path / "out", progress=lambda *given: seen.append(given))
    assert not seen
    with pytest.raises(NatstatsError), store.write_directory(tmp_path / "out" / "a"):
        seen.append(1)
    assert not seen
