"""The lines of a training on the terminal: what they know, and what they leave out."""

from __future__ import annotations

import importlib
import math
import sys

import pytest

LINES = importlib.import_module("natstats_cli.training_lines")
OUTPUT = importlib.import_module("natstats_cli.output")


def test_time_left_is_that_of_the_epochs_to_come():
    clock = iter([0.0, 10.0, 20.0, 60.0])
    lines = LINES.EpochLines([("hint", 2), ("main", 3)], now=lambda: next(clock))
    row = {"loss": 1.0, "eval_accuracy": math.nan}
    assert lines.line({"stage": "hint", "epoch": 2, **row}).endswith("  30 s left")
    assert lines.line({"stage": "main", "epoch": 1, **row}).endswith("  20 s left")
    assert lines.line({"stage": "main", "epoch": 3, **row}) == "main 3  loss 1.000"


def test_the_curve_has_the_last_looks():
    lines = LINES.EpochLines([("main", 99)], now=lambda: 0.0)
    row = {"stage": "main", "loss": 1.0}
    for epoch in range(1, 41):
        line = lines.line({**row, "epoch": epoch, "eval_accuracy": epoch / 100})
    assert "accuracy 40.00 %  ▁" in line
    assert line.count("█") + sum(line.count(bar) for bar in "▁▂▃▄▅▆▇") == 20


@pytest.mark.parametrize("begins", [1, 41])
def test_steps_of_an_earlier_sitting_do_not_count_for_the_rate(begins, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    clock = iter([0.0, 1.0, 20.0])
    monkeypatch.setattr(OUTPUT.time, "monotonic", lambda: next(clock))
    with OUTPUT.progress_bar("steps", 64) as progress:
        progress(begins, 100)
        progress(begins + 19, 100)
    left = 100 - begins - 19
    expected = f"{begins + 19} of 100 steps, 64 images/s, {left} s left\n"
    assert capsys.readouterr().err == expected


def test_progress_over_several_passes_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    clock = iter([0.0, 20.0])
    monkeypatch.setattr(OUTPUT.time, "monotonic", lambda: next(clock))
    with OUTPUT.progress_bar(within="in 4 passes") as progress:
        progress(40, 160)
    assert capsys.readouterr().err == "40 of 160 images in 4 passes, 2.0 images/s, 60 s left\n"
