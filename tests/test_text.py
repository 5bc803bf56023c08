"""Names of strangers on the terminal and in tables."""

import pytest

from natstats.text import cell, printable


@pytest.mark.parametrize(
    "text",
    ["\x1b[2J", "a\rb", "a\nError: b", "\x9b31m", "\u202egnp.exe", "a\u2028b", "\x00", "\x7f"],
)
def test_what_is_shown_does_nothing(text):
    shown = printable(text)
    assert shown.isprintable()
    assert shown != text


@pytest.mark.parametrize("text", ["layer1.0.conv1", "café", "写真.png", "α − β", "👩.png"])
def test_what_can_be_read_stays(text):
    assert printable(text) == text


@pytest.mark.parametrize("text", ["=1+1", "+A1", "-A1", "@SUM(A1)", "  =1", "\t=1"])
def test_a_cell_is_no_formula(text):
    assert not cell(text).lstrip().startswith(("=", "+", "-", "@", "\t"))


def test_other_cells_stay():
    assert cell("a=b") == "a=b"
