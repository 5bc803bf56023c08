"""The rows of a study: one for each training, written as they come, and its learning curve.

Not a study by itself: analyses/distill_table.py uses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from distill_jobs import Outcome

from natstats.files.csv_files import read_csv, write_csv

__all__ = ["CURVES", "ROWS", "Rows"]

ROWS = (
    "part", "setting", "arm", "method", "seed", "split", "key", "accuracy", "teacher_accuracy",
    "epochs", "n_train", "n_eval", "seconds", "ms_per_step", "natstats", "arguments", "error",
)  # fmt: skip
"""Columns of the rows; `arguments` is JSON, and `key` names the training."""

CURVES = ("setting", "arm", "seed", "key", "epoch", "accuracy")
"""Columns of the learning curves: accuracy on the way, on a sample of the evaluation images."""

NUMBERS = {
    "accuracy", "teacher_accuracy", "epochs", "n_train", "n_eval", "seconds", "ms_per_step",
}  # fmt: skip
WHOLE = {"seed", "epoch"}
_KEY = ["setting", "key", "seed"]


class Rows:
    """Rows and curves in two files, that are whole at any time.

    Args:
        folder: they are written there; what is there already is kept.
        name: of the study.
        committed: folder that is given the same files, with the rows that it has already; None
            for no such folder.
    """

    def __init__(self, folder: Path, name: str, committed: Path | None = None) -> None:
        self._places = [
            (place / f"distill_{name}_rows.csv", place / f"distill_{name}_curves.csv")
            for place in (folder, committed)
            if place is not None
        ]
        folder.mkdir(parents=True, exist_ok=True)
        rows = [_read(rows, ROWS) for rows, _ in reversed(self._places)]
        curves = [_read(curves, CURVES) for _, curves in reversed(self._places)]
        self.rows = _latest(rows, _KEY)
        self.curves = _latest(curves, [*_KEY, "epoch"])

    def has(self, setting: str, key: str, seed: int) -> bool:
        """Whether there is a row of this training."""
        own = self.rows
        return bool(((own.setting == setting) & (own.key == key) & (own.seed == seed)).any())

    def add(self, facts: Mapping[str, Any], outcome: Outcome) -> None:
        """Add what came of a training, in place of what is there, and write."""
        row = {**dict.fromkeys(ROWS), **facts, **outcome.facts}
        row |= {"accuracy": outcome.accuracy, "error": outcome.error}
        row["arguments"] = json.dumps(facts["arguments"], sort_keys=True)
        self.rows = _latest([self.rows, _typed(pd.DataFrame([row], columns=list(ROWS)))], _KEY)
        if outcome.curve:
            own = pd.DataFrame(outcome.curve, columns=["epoch", "accuracy"])
            own = own.assign(**{name: facts[name] for name in ("setting", "arm", "seed", "key")})
            self.curves = _latest([self.curves, _typed(own[list(CURVES)])], [*_KEY, "epoch"])
        self.write()

    def write(self) -> None:
        """Write both files; a cut leaves the old ones."""
        order = ["part", "setting", "arm", "seed", "key"]
        for rows, curves in self._places:
            _write(self.rows.sort_values(order), rows)
            _write(self.curves.sort_values([*order[1:], "epoch"]), curves)


def _read(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    if not path.is_file():
        return _typed(pd.DataFrame(columns=list(columns)))
    return _typed(read_csv(path)[list(columns)])


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    kinds = {
        name: "float64" if name in NUMBERS else "int64" if name in WHOLE else "str"
        for name in frame.columns
    }
    filled = {
        name: pd.to_numeric(frame[name]) if name in NUMBERS | WHOLE else frame[name].fillna("")
        for name in frame.columns
    }
    return pd.DataFrame(filled).astype(kinds)


def _latest(frames: list[pd.DataFrame], key: list[str]) -> pd.DataFrame:
    whole = [frame for frame in frames if len(frame)] or frames[:1]
    return pd.concat(whole, ignore_index=True).drop_duplicates(key, keep="last", ignore_index=True)


def _write(frame: pd.DataFrame, path: Path) -> None:
    partial = path.with_suffix(".partial")
    write_csv(frame, partial)
    partial.replace(path)
