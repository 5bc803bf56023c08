"""Names of strangers: shown on one line, never a formula, and the same when they are read back."""

from __future__ import annotations

import csv
import io
import itertools
import random

import numpy as np
import pandas as pd
import pytest

from natstats.files.csv_files import csv_text, read_csv, write_csv
from natstats.text import cell, from_cell, lines, printable

PIECES = [
    "'", "=", "+", "-", "@", "\uff1d", " ", "\u00a0", "\t", "\\", "x", "u", "U", "0", "4", "1b",
    "\x1b[31m", "\n", "\r", "\0", "\x7f", "\x85", "\u202e", "\u2028", "\udce9", "\ud800", "é",
    "\U0001f600", "\U000e0001", ",", '"', ";", "layer1.0.conv1",
]  # fmt: skip


def made_names(n=4000):
    rng = random.Random(0)
    names = ["".join(rng.choices(PIECES, k=rng.randint(0, 6))) for _ in range(n)]
    return [*map("".join, itertools.product(PIECES, repeat=2)), *names]


def test_a_cell_is_one_line_no_formula_and_gives_its_text_back():
    seen = {}
    for name in made_names():
        shown = cell(name)
        # What a spreadsheet takes for a formula, blanks in front of it or not.
        assert not shown.lstrip().startswith(("=", "+", "-", "@", "\uff1d"))
        assert shown == printable(shown)
        assert from_cell(shown) == name
        assert seen.setdefault(shown, name) == name  # two names never look alike


@pytest.mark.parametrize("name", ["conv1", "layer1.0 (x)", "C:\\new\\photos", "Ä.png", "a'b", ""])
def test_an_ordinary_name_stays_as_it_is(name):
    assert cell(name) == name


def test_printable_is_one_line_that_stays_the_same():
    for name in made_names(500):
        shown = printable(name)
        assert len(shown.splitlines()) <= 1
        assert "\x1b" not in shown
        assert printable(shown) == shown
        shown.encode("utf-8")
    assert lines(["a\nError: b", "c"]).splitlines() == ["a\\nError: b", "c"]


def test_a_table_is_read_as_it_was_written(tmp_path):
    names = [*made_names(500), "NA", "nan", "null", "1.0"]
    frame = pd.DataFrame(
        {
            "=layer": pd.Series(names, dtype=object),
            "x\x1b": np.linspace(0, 1, len(names)),
            "n": range(len(names)),
        }
    )
    write_csv(frame, tmp_path / "t.csv")
    again = read_csv(tmp_path / "t.csv")
    assert list(again.columns) == ["=layer", "x\x1b", "n"]
    assert list(again["=layer"]) == names
    assert [float(text) for text in again["x\x1b"]] == frame["x\x1b"].tolist()
    # By another reader: a line for every row, and no cell that is a formula.
    rows = list(csv.reader(io.StringIO((tmp_path / "t.csv").read_text(encoding="utf-8"))))
    assert len(rows) == len(names) + 1
    assert rows[0] == ["'=layer", "x\\x1b", "n"]
    assert not [row for row in rows if row[0].lstrip().startswith(("=", "+", "-", "@"))]


def test_numbers_and_gaps_are_written_as_pandas_does():
    frame = pd.DataFrame(
        {
            "name": ["a", None, "c, d"], "float": [-0.1, np.nan, 1e-300], "int": [-1, 2, 3],
            "bool": [True, False, True], "mixed": pd.Series([1, "b", -2.5], dtype=object),
        }
    )  # fmt: skip
    assert csv_text(frame) == frame.to_csv(index=False, lineterminator="\n")


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a,b\n1,2,3\n", b"a,b\n1,2\n1,2,3\n", b'a\n"b\n', b"\xff,b\n1,2\n"]
)
def test_what_is_no_table_is_a_value_error(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match="."):
        read_csv(tmp_path / "t.csv")
