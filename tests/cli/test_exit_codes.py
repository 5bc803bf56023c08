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
    result = call("show", "run", code=None)
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ") == (code != 0)


@pytest.mark.parametrize(
    "arguments", [("shwo",), ("show",), ("show", "x", "--bogus"), ("show", "x")]
)
def test_what_makes_no_sense_is_2(call, arguments):
    assert call(*arguments, code=2).stdout == ""


def test_the_table_has_all_codes_and_no_other(codes):
    assert {code for code, _ in ENDS} == {*codes}
    classes = {NatstatsError.exit_code, UsageError.exit_code, Interrupted().exit_code}
    assert classes <= {*codes}
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text(encoding="utf-8")
    assert [int(code) for code in re.findall(r"^\| (\d+) \|", page, re.M)] == [*codes]
