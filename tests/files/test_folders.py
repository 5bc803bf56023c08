"""Folders are put in place whole, and nothing that natstats did not write is ever removed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import natstats
from natstats.errors import NatstatsError, UsageError
from natstats.files import folders, placed
from natstats.files.ownership import foreign, own_files
from natstats.runs import store


def write(path, text="new", overwrite=True, **files):
    """A run without layers, whose command and other files are `text`."""
    with store.write_directory(path, overwrite) as folder:
        store.write_run(folder, {"command": text}, [], [])
        (folder / "figures").mkdir()
        for name, content in {"report.html": text, "figures/law.svg": text, **files}.items():
            (folder / name).write_text(content)
    return path


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text(errors="replace")
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(params=["exchange", "two steps"])
def way(request, monkeypatch):
    """With and without a system that can exchange folders."""
    if request.param == "two steps":
        monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    return request.param


def test_a_record_lists_the_files_that_were_written(tmp_path):
    path = write(tmp_path / "run")
    record = json.loads((path / "run.json").read_text())
    assert record["files"] == [
        "figures/law.svg", "report.html", "run.json", "spectra.npz",
    ]  # fmt: skip
    assert own_files(path, "run") == {*record["files"]}
    assert foreign(path, "run") == []


def test_what_is_replaced_is_gone_and_nothing_hidden_is_left(tmp_path, way):
    path = write(tmp_path / "run", "old", **{"layers.csv": "old"})
    write(path, "new")
    assert contents(path).keys() == {
        "run.json", "spectra.npz", "report.html", "figures/law.svg",
    }  # fmt: skip
    assert contents(path)["report.html"] == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize(
    "name", ["thesis.tex", "figures/mine.png", "control/notes", ".hidden", "layers.csv", "a/b/c.d"]
)
def test_a_folder_with_files_of_others_is_kept(tmp_path, name):
    """``layers.csv`` is a name of natstats, but this run was written without one."""
    path = write(tmp_path / "run", "old")
    (path / name).parent.mkdir(parents=True, exist_ok=True)
    (path / name).write_text("years of work")
    before = contents(path)
    with pytest.raises(UsageError, match=f"also holds {name}, which natstats did not write"):
        write(path)
    assert contents(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_some_of_many_files_are_named(tmp_path):
    path = write(tmp_path / "run", "old")
    for number in range(9):
        (path / f"note{number}").touch()
    with pytest.raises(UsageError, match="holds note0, note1, note2 and 6 more, which"):
        write(path)


@pytest.mark.parametrize("record", ["", "{", "[]", "{}", '{"format": true}', '{"format": -1}'])
def test_a_file_called_run_json_makes_no_run(tmp_path, record):
    path = tmp_path / "mine"
    path.mkdir()
    (path / "run.json").write_text(record)
    (path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="mine is something else and is kept .run.json is there"):
        write(path)
    (path / "thesis.tex").unlink()
    with pytest.raises(UsageError, match="is kept"):
        write(path)
    assert (path / "run.json").read_text() == record


def test_a_list_that_claims_the_files_of_others_is_not_believed(tmp_path):
    path = write(tmp_path / "run", "old")
    (path / "thesis.tex").write_text("years of work")
    record = json.loads((path / "run.json").read_text())
    for claimed in (["thesis.tex"], ["../other", "thesis.tex", 3, None], ["report.html"], "thesis"):
        (path / "run.json").write_text(json.dumps(record | {"files": claimed}))
        with pytest.raises(UsageError, match="which natstats did not write, and is kept"):
            write(path)
    assert (path / "thesis.tex").read_text() == "years of work"


def test_an_older_run_is_known_by_its_names(tmp_path):
    path = write(tmp_path / "run", "old", **{"layers.csv": "old"})
    record = json.loads((path / "run.json").read_text())
    del record["files"]
    (path / "run.json").write_text(json.dumps(record | {"format": 1}))
    (path / "figures" / "mine.svg").touch()
    with pytest.raises(UsageError, match="holds figures/mine.svg, which"):
        write(path)
    (path / "figures" / "mine.svg").unlink()
    assert contents(write(path))["report.html"] == "new"


def test_links_are_neither_followed_nor_removed(tmp_path):
    other = tmp_path / "photos"
    other.mkdir()
    (other / "law.svg").write_text("mine")
    path = write(tmp_path / "run", "old")
    shutil.rmtree(path / "figures")
    (path / "figures").symlink_to(other)
    with pytest.raises(UsageError, match="holds figures, which natstats did not write"):
        write(path)
    assert (other / "law.svg").read_text() == "mine"
    with (
        pytest.raises(NatstatsError, match="expected a folder or nothing at .*figures"),
        store.add_files(path, "table.json") as folder,
    ):
        (folder / "figures").mkdir()
        (folder / "figures" / "law.svg").write_text("theirs")
    assert (other / "law.svg").read_text() == "mine"


def test_a_link_to_a_run_stays_one(tmp_path, way):
    real = write(tmp_path / "disk" / "run", "old")
    (tmp_path / "run").symlink_to(real)
    write(tmp_path / "run", "new")
    assert (tmp_path / "run").is_symlink()
    assert contents(real)["report.html"] == "new"


@pytest.mark.parametrize("kind", ["run", "series", "law", "table"])
def test_a_path_over_a_folder_that_is_not_there_is_where_it_leads(tmp_path, kind):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    path = tmp_path / "missing" / ".." / "mine"
    with pytest.raises(UsageError, match="out: expected a path where nothing is"):
        store.check_target(path, False, kind)
    (tmp_path / "mine" / "run.json").write_text("{}")
    if kind != "table":  # whose files go beside others
        with pytest.raises(UsageError, match="is kept"):
            store.check_target(path, True, kind)


def test_a_file_that_comes_while_a_folder_is_written_is_kept(tmp_path, way, monkeypatch, caplog):
    path = write(tmp_path / "run", "old")
    real = folders.check_target
    calls = []

    def check(*arguments, **options):
        real(*arguments, **options)
        calls.append(1)
        if len(calls) == 2:  # right before it is put in place
            (path / "late.txt").write_text("mine")

    monkeypatch.setattr(folders, "check_target", check)
    write(path)
    assert contents(tmp_path)["run-kept/late.txt"] == "mine"
    assert contents(path)["report.html"] == "new"
    assert "what natstats had not written there is in" in caplog.text


# A run is put in place by a process that is killed at one step after the other.

KILLED = """
import os, signal, sys
from pathlib import Path
from natstats.files import folders
from natstats.runs import store

steps = 0

def killing(function):
    def stepped(*arguments, **options):
        global steps
        for _ in range(2):  # right before the step, and right after it
            if steps == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            steps += 1
            if _ == 0:
                done = function(*arguments, **options)
        return done
    return stepped

for owner, name in ((Path, "rename"), (os, "rename"), (Path, "unlink"), (os, "rmdir"),
                    (Path, "rmdir"), (os, "unlink"), (Path, "mkdir")):
    setattr(owner, name, killing(getattr(owner, name)))
folders._exchange = killing(folders._exchange) if sys.argv[3] == "exchange" else lambda *_: False
with store.write_directory(Path(sys.argv[1]), True) as folder:
    store.write_run(folder, {"command": "new"}, [], [])
    (folder / "report.html").write_text("new")
print("done")
"""


def killed_at(step, path, way):
    """Whether the process was killed at this step, which it may never come to."""
    # A child of this process that loads little: what it needs has no torch.
    found = os.fork()
    if found == 0:  # pragma: no cover
        code = 1
        try:
            sys.argv = ["x", str(path), str(step), way]
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            exec(compile(KILLED, "killed", "exec"), {})
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(found, 0)
    assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
    return status != 0


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are killed")
@pytest.mark.parametrize("way", ["exchange", "two steps"])
def test_a_killed_process_never_loses_the_run(tmp_path, way, caplog):
    n_killed, found = 0, set()
    for step in range(40):
        home = tmp_path / str(step)
        path = write(home / "run", "old", **{"layers.csv": "old"})
        if not killed_at(step, path, way):
            break
        n_killed += 1
        there = path.is_dir()
        folders.restore(path)  # as every opening and writing does
        assert path.is_dir()
        text = json.loads((path / "run.json").read_text())["command"]
        assert contents(path)["report.html"] == text
        found.add((there, text))
        # What is there can be written again.
        assert contents(write(path, "newer"))["report.html"] == "newer"
    assert n_killed > 5
    assert {(True, "old"), (True, "new")} <= found
    if way == "two steps":
        assert (False, "old") in found  # between the two
        assert "a process that was killed had left it, and is back in its place" in caplog.text


def test_opening_and_writing_bring_a_run_back(tmp_path, caplog):
    def lose(path, hidden):
        home = path.with_name(hidden)
        home.mkdir()
        path.rename(home / "run")

    for hidden in (".run.natstats-old.abc", ".run.old.abc"):  # the second is of older versions
        path = write(tmp_path / "run")
        lose(path, hidden)
        with pytest.raises(UsageError, match="exists and is kept"):
            write(path, overwrite=False)
        lose(path, hidden)
        with pytest.raises(NatstatsError, match="layers: expected a layer"):  # it is there
            natstats.Run.open(path)
        lose(path, hidden)
        with pytest.raises(NatstatsError, match="layers: expected a layer"):
            natstats.Run.open(os.path.relpath(path))
        assert [p.name for p in tmp_path.iterdir()] == ["run"]
        assert caplog.text.count("is back in its place") == 3
        caplog.clear()
    lose(path, ".run.old.mine")
    (tmp_path / ".run.old.mine" / "run" / "run.json").write_text("mine")
    folders.restore(path)
    assert not path.exists()


def test_an_old_run_is_not_put_in_place_of_what_came_after(tmp_path):
    path = write(tmp_path / "run", "old")
    (tmp_path / ".run.natstats-old.abc").mkdir()
    path.rename(tmp_path / ".run.natstats-old.abc" / "run")
    path.mkdir()
    (path / "mine").touch()
    folders.restore(path)
    assert contents(tmp_path).keys() >= {"run/mine", ".run.natstats-old.abc/run/run.json"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_error_between_the_two_steps_takes_back_the_first(tmp_path, monkeypatch, error):
    monkeypatch.setattr(folders, "_exchange", lambda *_: False)
    path = write(tmp_path / "run", "old")
    real, calls = Path.rename, []

    def rename(self, target):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises((KeyboardInterrupt, NatstatsError)):
        write(path)
    assert contents(path)["report.html"] == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_long_name_and_one_that_is_no_text(tmp_path, way):
    for name in ("n" * 250, os.fsdecode(b"caf\xe9"), "a\nb"):
        path = write(tmp_path / name, "old")
        assert contents(write(path))["report.html"] == "new"
        home = tmp_path / f".{folders.hidden_name(name)}.natstats-old.x"
        home.mkdir()
        path.rename(home / "run")
        folders.restore(path)
        assert path.is_dir()
    with pytest.raises(UsageError, match="^out: expected a path for a folder; .*too long"):
        write(tmp_path / ("n" * 300))
    with pytest.raises(NatstatsError, match="^out: expected a"):
        write(tmp_path / "a\0b")


# Files that go beside others


def test_files_are_added_and_only_those_of_natstats_replaced(tmp_path):
    def add(**files):
        with store.add_files(tmp_path, "table.json") as folder:
            (folder / "table.json").write_text('{"format": 1, "kind": "table"}')
            for name, text in files.items():
                (folder / name.replace("_", ".")).write_text(text)

    (tmp_path / "notes").write_text("mine")
    add(table_csv="1", gains_csv="1")
    assert json.loads((tmp_path / "table.json").read_text())["files"] == [
        "gains.csv", "table.csv", "table.json",
    ]  # fmt: skip
    add(table_csv="2")  # what was written before is still natstats' own
    (tmp_path / "seeds.csv").write_text("mine")
    with pytest.raises(UsageError, match="holds seeds.csv, which it did not write, and is kept"):
        add(table_csv="3", seeds_csv="3")
    with pytest.raises(UsageError, match="holds seeds.csv, which natstats did not write"):
        store.check_target(tmp_path, True, "table")
    assert (tmp_path / "table.csv").read_text() == "2"
    (tmp_path / "seeds.csv").unlink()
    store.check_target(tmp_path, True, "table")
    add(table_csv="3", gains_csv="3")
    assert (tmp_path / "notes").read_text() == "mine"
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_an_interruption_waits_until_all_files_are_in_place(tmp_path, monkeypatch):
    real, calls = Path.replace, []

    def replace(self, target):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    placed.forget()
    with pytest.raises(KeyboardInterrupt), store.add_files(tmp_path, "table.json") as folder:
        for name in ("a.csv", "b.csv", "table.json"):
            (folder / name).write_text("{}")
    assert {p.name for p in tmp_path.iterdir()} == {"a.csv", "b.csv", "table.json"}
    assert placed.in_place() == [tmp_path]


def test_a_folder_where_a_file_goes_costs_nothing(tmp_path):
    (tmp_path / "table.json").write_text("{}")
    (tmp_path / "table.csv").mkdir()
    with (
        pytest.raises(NatstatsError, match="expected a file or nothing at .*table.csv"),
        store.add_files(tmp_path, "table.json") as folder,
    ):
        for name in ("a.csv", "table.csv", "table.json"):
            (folder / name).write_text("new")
    assert contents(tmp_path) == {"table.json": "{}"}


# What is said after an interruption


def test_what_is_in_place_is_known_at_any_time(tmp_path):
    placed.forget()
    assert placed.in_place() == []
    with pytest.raises(KeyboardInterrupt), store.write_directory(tmp_path / "a"):
        raise KeyboardInterrupt
    assert placed.in_place() == []
    write(tmp_path / "a")
    assert placed.in_place() == [tmp_path / "a"]
    with store.write_directory(tmp_path / "series", kind="series") as folder:
        write(folder / "e1")
        assert placed.in_place() == [tmp_path / "a", folder / "e1"]
        (folder / "series.json").write_text("{}")
    assert placed.in_place() == [tmp_path / "a", tmp_path / "series"]
    shutil.rmtree(tmp_path / "a")
    assert placed.in_place() == [tmp_path / "series"]
    placed.forget()
    assert placed.in_place() == []


def test_the_real_thing_is_killed_too(tmp_path):
    """SIGKILL in a process of its own, in the moment that only the restoring saves."""
    path = write(tmp_path / "run", "old")
    text = KILLED.replace("import os", "import natstats.files.ownership, os")
    command = [sys.executable, "-c", text, str(path), "5", "two steps"]
    assert subprocess.run(command, check=False).returncode in (0, -signal.SIGKILL)
    folders.restore(path)
    assert contents(path)["report.html"] in ("old", "new")


@pytest.mark.parametrize("what", ["mount", "parent"])
def test_what_cannot_be_replaced_is_refused_before_the_work(tmp_path, monkeypatch, what):
    path = write(tmp_path / "run")
    if what == "mount":
        monkeypatch.setattr(os.path, "ismount", lambda one: Path(one) == path)
    else:
        may = os.access
        monkeypatch.setattr(os, "access", lambda one, mode: one != tmp_path and may(one, mode))
    with pytest.raises(UsageError, match="out: expected a folder that can be replaced"):
        folders.check_target(path, overwrite=True)


def test_a_full_disk_is_a_sentence(tmp_path):
    with (
        pytest.raises(NatstatsError, match="out: expected room for what is written"),
        store.write_directory(tmp_path / "run"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not [*tmp_path.iterdir()]
