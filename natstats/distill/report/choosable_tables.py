"""Sortable tables on the pages of distillation: their columns, sort keys and CSV files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from natstats.distill.report.contrast_tables import CONTRAST_HEADS, contrast_cells
from natstats.distill.report.method_tables import (
    COST_HEADS,
    accuracy_table,
    cost_cells,
    percent,
    reference_name,
)
from natstats.distill.report.records import MethodTable
from natstats.law.law import bare_p
from natstats.numbers import interval, number
from natstats.report.pages.html import link_to
from natstats.report.pages.page_tables import Cell, Column, First, Table, number_cell

__all__ = [
    "contrast_table", "cost_table", "gap_table", "method_table", "paired_table", "training_table",
]  # fmt: skip

Row = Mapping[Any, Any]


@dataclass(frozen=True)
class _Field:
    """A column: its head and meaning, when it is shown, and the field of the row it sorts by."""

    label: str
    meaning: str
    first: First = "wide"
    value: str = ""

    @property
    def column(self) -> Column:
        return Column(self.label, self.meaning, bool(self.value), self.first)


def _table(
    key: str,
    name: str,
    fields: Sequence[_Field],
    cells: Iterable[Sequence[str]],
    frame: pd.DataFrame,
    file: str,
) -> Table:
    """A table from finished texts, with the numbers that they are sorted by."""
    rows = []
    for texts, record in zip(cells, frame.to_dict("records"), strict=True):
        values = [_known(record[one.value]) if one.value else None for one in fields]
        rows.append([Cell(text, value) for text, value in zip(texts, values, strict=True)])
    return Table(key, name, [one.column for one in fields], rows, frame, file)


def _known(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _of(frame: pd.DataFrame, place: int) -> pd.DataFrame:
    """The rows of a task."""
    return frame[frame.task == place].reset_index(drop=True)


def method_table(found: MethodTable, place: int, end: str) -> Table:
    """The methods of a task, the most accurate first."""
    frame = _of(found.methods, place)
    rows = frame.to_dict("records")
    heads, cells, texts = accuracy_table(rows, found.references, found.level)
    fields = [
        _Field("method", "with what tells it from others of that name", "always"),
        _Field("seeds", "trainings", value="n_seeds"),
        _Field(heads[2], "right after the last epoch, mean over seeds", "always", "accuracy"),
        _Field(heads[3], "of the accuracy; sorted by its lower end", "always", "low"),
        *([_Field("over", "what the interval is over")] if 4 in texts else []),
    ]
    several = len(found.references) > 1
    for name in found.references:
        called = reference_name(name)
        after = f", over {called}" if several else ""
        fields += [
            _Field(f"over {called}", "gain in points, with its interval", "wide", f"gain_{name}"),
            _Field(
                f"p (Holm){after}", "that there is no gain; corrected for the number of methods",
                "wide", f"gain_{name}_p_holm",
            ),
        ]  # fmt: skip
    # Columns hidden at first, which readers often ask for next.
    more = [
        _Field("sd, points", "standard deviation of the accuracy over seeds", "", "sd"),
        _Field("top 5, %", "images whose class is among the five highest scores", "", "top5"),
        _Field("as the teacher, %", "images that both put in one class", "", "agreement"),
        _Field("teacher", "its name", ""),
        _Field("teacher, %", "its accuracy on the same images", "", "teacher_accuracy"),
        _Field("images", "that the accuracy is over", "", "n_images"),
    ]
    beside = [
        [
            *(percent(row[name]) for name in ("sd", "top5", "agreement")),
            str(row["teacher"] or "–"),
            percent(row["teacher_accuracy"]),
            str(row["n_images"]),
        ]
        for row in rows
    ]
    both = [[*one, *other] for one, other in zip(cells, beside, strict=True)]
    return _table(f"methods{end}", "methods", [*fields, *more], both, frame, "table.csv")


_COSTS = (
    ("name of the method", "always", ""),
    ("of all stages", "wide", "epochs_total"),
    ("median over seeds", "always", "ms_per_step"),
    ("at its peak", "wide", "peak_memory_mib"),
    ("of the teacher in a step", "wide", "teacher_passes"),
    ("that are trained beside the student's", "wide", "extra_parameters"),
    ("norm of each term's gradient over that of the cross-entropy", "wide", ""),
    ("before and after training; sorted by the latter", "wide", "gap_after"),
    ("before and after training; sorted by the latter", "wide", "distance_after"),
)
"""Meaning, when it is shown, and what it is sorted by, under each of the heads of costs."""


def cost_table(found: MethodTable, place: int, end: str) -> Table:
    """What the methods of a task cost, and the gap that they leave."""
    frame = _of(found.methods, place)
    fields = [_Field(head, *one) for head, one in zip(COST_HEADS, _COSTS, strict=True)]  # type: ignore[arg-type]
    cells = [cost_cells(row, found.terms) for row in frame.to_dict("records")]
    return _table(f"costs{end}", "costs and gaps", fields, cells, frame, "table.csv")


_CONTRASTS = (
    ("one method over another", "always", ""),
    ("and interval for other seeds on these images", "always", "difference"),
    ("for other seeds; corrected for all planned contrasts", "always", "p_corrected"),
    ("what was found", "wide", ""),
    ("interval of the points; sorted by its lower end", "wide", "low_images"),
    ("for other seeds and images; corrected", "wide", "p_images_corrected"),
    ("where the error is from", "wide", ""),
    ("of the test", "wide", "dof"),
    ("that both have", "wide", "n_seeds"),
)
"""The same for each of the heads of contrasts."""


def contrast_table(found: MethodTable, place: int, end: str) -> Table:
    """The planned contrasts of a task, then the controls."""
    frame = _of(found.contrasts, place)
    heads = list(CONTRAST_HEADS)
    heads[5] += ", seeds and images"
    fields = [_Field(head, *one) for head, one in zip(heads, _CONTRASTS, strict=True)]  # type: ignore[arg-type]
    cells = contrast_cells(frame.to_dict("records"))
    return _table(f"contrasts{end}", "planned contrasts", fields, cells, frame, "contrasts.csv")


def paired_table(found: MethodTable, place: int, end: str) -> Table:
    """The paired tests of a task that could be made."""
    frame = _of(found.gains[found.gains["reason"] == ""], place)
    level = f"{100 * found.level:g} %"
    fields = [
        _Field("pair", "a method over another", "always"),
        _Field("points", "difference of the accuracies", "always", "difference"),
        _Field(f"{level} interval", "sorted by its lower end", "always", "low"),
        _Field("p", "that there is no difference", "wide", "p"),
        _Field("p (Holm)", "corrected for the methods beside one reference", "wide", "p_corrected"),
        _Field("seeds", "that both have", "wide", "n_seeds"),
        _Field("allows for other", "what the test rests on"),
    ]
    cells = [_test_cells(row) for row in frame.to_dict("records")]
    return _table(f"tests{end}", "paired tests", fields, cells, frame, "gains.csv")


def _test_cells(row: Row) -> list[str]:
    return [
        f"{row['label']} over {row['reference_label']}",
        number(100 * row["difference"], 1, sign=True),
        interval(100 * row["low"], 100 * row["high"], 1, sign=True),
        *(bare_p(row[name]) for name in ("p", "p_corrected")),
        str(row["n_seeds"]),
        str(row["test"]) if row["test"] != "images" else "images (McNemar, exact)",
    ]


def training_table(found: MethodTable, home: Path) -> Table:
    """Every training; its name links to its page where it has one.

    Args:
        found: the methods.
        home: where the page will be.
    """
    several = len(found.tasks) > 1
    fields = [
        _Field("training", "method and seed; it leads to its page", "always"),
        *([_Field("task", "student, images and split")] if several else []),
        _Field("accuracy, %", "right after the last epoch", "always", "accuracy"),
        _Field("classes", "that an image is put in", "wide", "n_predicted"),
        _Field("gap before", "of the exponents, before training", "wide", "gap_before"),
        _Field("gap after", "of the exponents, after training", "wide", "gap_after"),
        _Field("distance before", "of the spectra, before training", "", "distance_before"),
        _Field("distance after", "of the spectra, after training", "", "distance_after"),
        _Field("folder", "of the run"),
    ]
    frame = found.seeds.reset_index(drop=True)
    cells = [
        [
            f"{row['label']}, seed {row['seed']}",
            *([found.tasks[row["task"]].title] if several else []),
            percent(row["accuracy"]),
            str(row["n_predicted"]),
            *(
                number(row[f"{name}_{when}"])
                for name in ("gap", "distance")
                for when in ("before", "after")
            ),
            str(row["path"] or "–"),
        ]
        for row in frame.to_dict("records")
    ]
    table = _table("trainings", "trainings", fields, cells, frame, "seeds.csv")
    links = [link_to(Path(str(path)) if path else None, home) for path in frame.path]
    rows = [
        [replace(row[0], link=link), *row[1:]] for row, link in zip(table.rows, links, strict=True)
    ]
    return replace(table, rows=rows)


def gap_table(gap: pd.DataFrame) -> Table:
    """The gap of a training, a row for every pair of layers."""
    columns = [
        Column("layer of the student", "module name", is_number=False, first="always"),
        Column("layer of the teacher", "that it is compared with", False, "wide"),
        Column("size", "of the maps, height × width, pixels", first="wide"),
        Column("teacher α", "exponent of the teacher's layer", first="wide"),
        Column("before", "exponent of the student's layer before training", first="wide"),
        Column("after", "exponent of the student's layer after training", first="always"),
        Column("distance before", "of the spectra, before training", first="wide"),
        Column("distance after", "of the spectra, after training", first="always"),
    ]
    rows = [
        [
            Cell(str(row["student_layer"])),
            Cell(str(row["teacher_layer"])),
            Cell(f"{row['height']} × {row['width']}", float(row["height"] * row["width"])),
            *(
                number_cell(float(row[name]) if row[name] is not None else np.nan)
                for name in (
                    "exponent_teacher", "exponent_before", "exponent_after", "distance_before",
                    "distance_after",
                )
            ),
        ]
        for row in gap.to_dict("records")
    ]  # fmt: skip
    return Table("layers", "gap of the layers", columns, rows, gap, "gap.csv")
