"""What the commands end with: every code of the table, and none beside it."""

from __future__ import annotations

import errno
import importlib
import re
import signal
from pathlib import Path

import pytest

import natstats
from natstats.errors import Interrupted, NatstatsError, UsageError

ROOT = Path(__file__).parents[2]


def raising(error):
    def run(*_, **__):
        raise error

    return run


def signalling(number):
    def run(*_, **__):
        signal.raise_signal(number)
        raise AssertionError("the signal came to nobody")

    return run


ENDS = [
    (0, None),
    (1, raising(NatstatsError("run: expected a whole one"))),
    (1, raising(OSError(errno.ENOSPC, "No space left on device"))),
    (1, raising(MemoryError())),
    (1, raising(ZeroDivisionError("a defect"))),
    (2, raising(UsageError("run: expected a run"))),
    (130, signalling(signal.SIGINT)),
    (143, signalling(signal.SIGTERM)),
]


@pytest.fixture
def codes(group):
    package = type(group).__module__.rpartition(".")[0]
    return importlib.import_module(f"{package}.exit_codes").EXIT_CODES


@pytest.mark.parametrize(("code", "opened"), ENDS)
def test_a_command_ends_with(call, made_networks, monkeypatch, tmp_path, code, opened):
    made_networks.save(tmp_path / "run")
    if opened is not None:
        monkeypatch.setattr(natstats.Run, "open", opened)
    is_defect = (code, opened) == ENDS[4]
    result = call("show", "run", code=None, is_defect=is_defect)
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ") == (code != 0)


@pytest.mark.parametrize("line", ["shwo", "show", "show x --bogus", "show x", "plot x --style y"])
def test_what_makes_no_sense_is_2(call, line):
    assert call(*line.split(), code=2).stdout == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("images run --groups 0", "groups: expected a whole number"),
        ("fit nowhere", "nowhere is not there"),
        ("fit file", "file is a file"),
        ("plot diff", "diff is a comparison"),
        ("compare run diff", "diff is a comparison"),
        ("merge run", "run is a run"),
        ("merge nowhere", "nowhere is not there"),
        ("fit .", "holds no run.json"),
    ],
)
def test_a_wrong_folder_is_called_what_it_is(call, made_networks, tmp_path, line, said):
    made_networks.save(tmp_path / "run")
    (tmp_path / "diff").mkdir()
    (tmp_path / "diff" / "comparison.json").touch()
    (tmp_path / "file").touch()
    assert f"{said}" in call(*line.split(), code=2).stderr


def test_the_table_has_all_codes_and_no_other(codes):
    assert {code for code, _ in ENDS} == {*codes}
    classes = {NatstatsError.exit_code, UsageError.exit_code, Interrupted().exit_code}
    assert classes <= {*codes}
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)] == [*codes]
