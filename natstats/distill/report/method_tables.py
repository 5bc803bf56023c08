"""The comparison of distillation methods in words: sentences, aligned text, Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from natstats.distill.report.contrast_tables import (
    CONTRAST_HEADS,
    contrast_cells,
    contrast_explanation,
    contrast_sentences,
)
from natstats.distill.report.records import MethodTable
from natstats.law.law import bare_p, format_p
from natstats.law.trend import SIGNIFICANCE
from natstats.numbers import change, counted, interval, number, short
from natstats.runs.text_columns import Column, fitted
from natstats.text import printable

__all__ = [
    "CAREFUL", "COST_HEADS", "accuracy_table", "cost_cells", "cost_explanation",
    "explanations", "gap_sentences", "headlines", "markdown", "markdown_tables", "percent",
    "planned_sentences", "reference_name", "sentences", "text_tables",
]  # fmt: skip

Row = Mapping[Any, Any]

COST_HEADS = (
    "method", "epochs", "ms per step", "peak memory, MiB", "teacher passes", "extra parameters",
    "gradient to cross-entropy", "gap of exponents", "gap of spectra",
)  # fmt: skip


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, with enough decimals that only a share of 1 reads as 100.

    >>> percent(0.8321), percent(0.9999), percent(1.0)
    ('83.2', '99.99', '100.0')
    """
    if not np.isfinite(share):
        return "–"
    while share < 1 and digits < 6 and float(f"{100 * share:.{digits}f}") >= 100:
        digits += 1
    return number(100 * share, digits)


def reference_name(reference: str) -> str:
    """A reference as the head of a column shows it."""
    return "the student alone" if reference == "ce" else reference


def sentences(found: MethodTable) -> list[str]:
    """For every task its best method and gains, the planned contrasts, and the spectral gap."""
    gaps = [text for place in range(len(found.tasks)) for text in gap_sentences(found, place)]
    if any(one.is_known for _, _, one in found.associations):
        gaps.append(CAREFUL)
    return [*headlines(found), *planned_sentences(found), *gaps]


def planned_sentences(found: MethodTable) -> list[str]:
    """What the planned contrasts of every task say."""
    texts = []
    for place, task in enumerate(found.tasks):
        own = contrast_sentences(found.contrasts[found.contrasts.task == place])
        start = f"{task.title}: " if len(found.tasks) > 1 else ""
        texts += [f"{start}{' '.join(own)}"] if own else []
    return texts


CAREFUL = (
    "These are associations: the methods differ in more than their gap, and no correlation says "
    "that closing it makes a student better."
)


def gap_sentences(found: MethodTable, place: int, *, named: bool = True) -> list[str]:
    """Whether closing the gap correlates with accuracy in a task, which is named where `named`."""
    own = [(teacher, one) for number, teacher, one in found.associations if number == place]
    known = [(teacher, one) for teacher, one in own if one.is_known]
    several = len({teacher for teacher, _ in own}) > 1
    title = found.tasks[place].title if named and len(found.tasks) > 1 else ""
    texts = []
    for teacher, one in known or own[:1]:
        start = ", ".join(filter(None, (title, f"teacher {teacher}" if several else "")))
        text = one.sentence()
        texts.append(f"{start}: {text[0].lower()}{text[1:]}" if start else text)
    return texts


def headlines(found: MethodTable) -> list[str]:
    """For every task its best method and its gains."""
    texts = []
    for place, task in enumerate(found.tasks):
        rows = found.methods[found.methods.task == place]
        best = rows.iloc[0]
        text = (
            f"{task.title}: {best.label} has the highest mean accuracy of {len(rows)}, "
            if len(rows) > 1
            else f"{task.title}: {best.label} has the accuracy "
        )
        text += f"{percent(best.accuracy)} % ({_over(best, found.level)})"
        for name in found.references:
            if np.isfinite(best.get(f"gain_{name}", np.nan)):
                ends = _gain(best, name)
                p = f"corrected p {format_p(best[f'gain_{name}_p_holm'])}"
                text += f", {ends} points over {reference_name(name)} ({p})"
        text += f". {_tested(found, place)}"
        texts.append(text.strip())
    return texts


def _tested(found: MethodTable, place: int) -> str:
    parts = []
    for name in found.references:
        own = found.gains[(found.gains.task == place) & (found.gains.reference == name)]
        own = own[np.isfinite(own.p_corrected)]
        if not len(own):
            continue
        clear = own[own.p_corrected < SIGNIFICANCE]
        better, worse = int((clear.difference > 0).sum()), int((clear.difference < 0).sum())
        part = f"{better} of {len(own)} {'is' if better == 1 else 'are'} better"
        part += f" and {worse} worse" if worse else ""
        parts.append(f"{part} than {reference_name(name)}")
    if not parts:
        return ""
    return f"After Holm's correction at {100 * SIGNIFICANCE:g} %, {' and '.join(parts)}."


def _over(row: Any, level: float) -> str:
    n = int(row.n_seeds)
    if not np.isfinite(row.low):
        return f"{counted(n, 'seed')} of one accuracy"
    ends = f"{100 * level:g} % interval {interval(100 * row.low, 100 * row.high, 1)}"
    return f"{ends} over {counted(n, 'seed')}" if n > 1 else f"{ends} over images, one seed"


def _seeds(row: Row) -> str:
    """How many seeds, and how many of them predict one class."""
    n, n_seeds = int(row.get("n_of_one_class") or 0), row["n_seeds"]
    if not n:
        return str(n_seeds)
    return (
        f"{n_seeds} (predicts one class)" if n_seeds == 1 else f"{n_seeds} ({n} predict one class)"
    )


def _gain(row: Any, name: str) -> str:
    value, low, high = (100 * row[f"gain_{name}{end}"] for end in ("", "_low", "_high"))
    return change(value, low, high, 1) if np.isfinite(low) else number(value, 1, sign=True)


def accuracy_table(
    rows: Sequence[Row], references: Sequence[str], level: float
) -> tuple[list[str], list[list[str]], list[int]]:
    """Heads, cells of every row, and the places of the columns of text.

    What the intervals are over (seeds or images) has its own column only where rows differ in it.
    """
    heads = ["method", "seeds", "accuracy, %", f"{100 * level:g} % interval", "over"]
    for name in references:
        heads += [f"over {reference_name(name)}", "p (Holm)"]
    cells = [_accuracy_cells(row, references) for row in rows]
    over = {row[4] for row in cells} - {"–"}
    if len(over) > 1:
        return heads, cells, [0, 4]
    heads[3] += " over images" if over == {"images"} else ""
    return [*heads[:4], *heads[5:]], [[*row[:4], *row[5:]] for row in cells], [0]


def _accuracy_cells(row: Row, references: Sequence[str], missing: str = "–") -> list[str]:
    """Method, seeds, accuracy, interval, what it is over, and gain with p for each reference."""
    cells = [
        str(row["label"]),
        _seeds(row),
        percent(row["accuracy"]),
        interval(100 * row["low"], 100 * row["high"], 1) if np.isfinite(row["low"]) else missing,
        str(row["interval_of"]) if np.isfinite(row["low"]) else missing,
    ]
    for name in references:
        known = np.isfinite(row[f"gain_{name}"])
        cells += [
            _gain(row, name) if known else missing,
            bare_p(row[f"gain_{name}_p_holm"], missing),
        ]
    return cells


def cost_cells(row: Row, terms: pd.DataFrame) -> list[str]:
    """Cells under :data:`COST_HEADS`."""

    def plain(name: str, digits: int = 1) -> str:
        return short(row[name], digits) if np.isfinite(row[name]) else "–"

    before = row["epochs_before"]
    epochs = plain("epochs_total", 4)
    if np.isfinite(before) and before > 0:
        epochs += f" ({short(before)} before)"
    own = terms[(terms.task == row["task"]) & (terms.label == row["label"]) & (terms.term != "ce")]
    ratios = [
        f"{one.term} {short(one.ratio, 2)}" for one in own.itertuples() if np.isfinite(one.ratio)
    ]
    return [
        str(row["label"]),
        epochs,
        plain("ms_per_step", 3),
        plain("peak_memory_mib"),
        plain("teacher_passes", 4),
        plain("extra_parameters"),
        ", ".join(ratios) or "–",
        *(
            f"{number(row[f'{name}_before'])} → {number(row[f'{name}_after'])}"
            if np.isfinite(row[f"{name}_after"])
            else "–"
            for name in ("gap", "distance")
        ),
    ]


def text_tables(found: MethodTable, width: int | None = None) -> str:
    """The accuracy and the gains as aligned text, a table for each task.

    Args:
        found: the methods.
        width: width of the terminal; None for as wide as it takes.
    """
    blocks = []
    columns = [
        Column("method", True, cut="name"), Column("seeds", rank=1), Column("accuracy"),
        Column("interval", rank=-4), Column("over", True, rank=2),
    ]  # fmt: skip
    for place, name in enumerate(found.references):
        columns += [Column(f"over {name}", rank=-2 if place else 0), Column("p", rank=-3)]
    columns.append(Column("ms/step", rank=3))
    for place, task in enumerate(found.tasks):
        rows = found.methods[found.methods.task == place].to_dict("records")
        cells = [[*_accuracy_cells(row, found.references, "-"), _ms(row)] for row in rows]
        teacher = _teacher_line(rows)
        table = fitted(columns, cells, width)
        blocks.append(f"{printable(task.title + teacher)}\n{table}")
    return "\n\n".join(blocks)


def _ms(row: Row) -> str:
    return short(row["ms_per_step"], 3) if np.isfinite(row["ms_per_step"]) else "-"


def _teacher_line(rows: Sequence[Row]) -> str:
    known = {row["teacher"]: row["teacher_accuracy"] for row in rows if row["teacher"]}
    parts = [f"{name} {percent(value)} %" for name, value in known.items() if np.isfinite(value)]
    return f"; teacher: {', '.join(parts)}" if parts else ""


def explanations(found: MethodTable) -> list[str]:
    """Explanations of the numbers in the tables, in sentences."""
    level = f"{100 * found.level:g} %"
    texts = [
        "Accuracy is that right after the last epoch, in the mean over seeds. Its interval is "
        "Student's t over seeds, on these images, or, for one seed, Wilson's over images.",
    ]
    if found.references:
        texts.append(
            "Gains over a method are in percentage points and paired on the same seeds and "
            f"images; their {level} intervals and tests "
            "allow for other seeds and other images at once (two-way clustered). p is corrected "
            "for the number of methods by Holm's rule; the intervals are not, and that of the "
            "best method is of one that was picked for its mean."
        )
    return texts


def cost_explanation() -> str:
    """An explanation of the table of costs."""
    return (
        "Epochs are all that the student was trained for, with the stages before the main one. "
        "Gradient to cross-entropy is the norm of a weighted term's gradient over that of the "
        "unweighted cross-entropy, in the median over the main stage. The gap of exponents is the "
        "mean over layers of |student − teacher|, that of spectra the mean distance of their "
        "logarithms to base 10, before → after training."
    )


def markdown_tables(found: MethodTable) -> str:
    """Tables for each task (accuracy, costs, planned contrasts) and explanations of the numbers."""
    parts = []
    for place, task in enumerate(found.tasks):
        rows = found.methods[found.methods.task == place].to_dict("records")
        parts.append(f"**{_escaped(task.title)}**{_escaped(_teacher_line(rows))}")
        parts.append(markdown(*accuracy_table(rows, found.references, found.level)))
        costs = [cost_cells(row, found.terms) for row in rows]
        parts.append(markdown(COST_HEADS, costs, [0, 6]))
        contrasts = found.contrasts[found.contrasts.task == place].to_dict("records")
        if contrasts:
            parts.append(markdown(CONTRAST_HEADS, contrast_cells(contrasts), [0, 3, 6]))
    texts = [*explanations(found), cost_explanation()]
    texts += [contrast_explanation(found.level)] if len(found.contrasts) else []
    parts.append(" ".join(texts))
    if found.notes:
        parts.append("\n".join(f"- {_escaped(note)}" for note in found.notes))
    return "\n\n".join(parts) + "\n"


def markdown(heads: Sequence[str], cells: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """A Markdown table; `left` holds the places of the columns of text, which are left-aligned."""
    rule = ["---" if place in left else "---:" for place in range(len(heads))]
    lines = [list(map(_in_cell, heads)), rule]
    lines += [[_escaped(row[0]), *map(_in_cell, row[1:])] for row in cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_SIGNS = "\\|*_`[]<>&~#!$"


def _escaped(text: str) -> str:
    """A name with every sign escaped that Markdown would read as more than text."""
    text = printable(" ".join(text.split()))
    return "".join(f"\\{sign}" if sign in _SIGNS else sign for sign in text)


_READ = re.compile(r"[\\|`&]|<(?=[A-Za-z/!?])|\](?=\()")
"""What Markdown reads as more than text wherever it stands in a cell."""


def _in_cell(text: str) -> str:
    """The text of a cell, escaped where Markdown would end the cell or read more than text."""
    return _READ.sub(lambda sign: f"\\{sign[0]}", printable(text))
