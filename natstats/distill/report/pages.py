"""HTML reports of distillation, one file each: of a single run, or of methods compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from natstats._version import __version__
from natstats.distill.report import method_tables
from natstats.distill.report.choosable_tables import (
    contrast_table,
    cost_table,
    gap_table,
    method_table,
    paired_table,
    training_table,
)
from natstats.distill.report.contrast_figures import plot_contrasts
from natstats.distill.report.contrast_tables import contrast_explanation, contrast_sentences
from natstats.distill.report.facts import facts_of
from natstats.distill.report.method_figures import (
    has_gaps,
    plot_accuracy,
    plot_gap_accuracy,
    plot_method_curves,
)
from natstats.distill.report.method_tables import percent
from natstats.distill.report.records import MethodTable
from natstats.distill.report.run_figures import plot_curves, plot_gaps, plot_gradients
from natstats.numbers import interval, number, short
from natstats.report.figures.style import save
from natstats.report.pages.html import drawn_twice, embedded, write_page

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from natstats.distill.results import DistillationRun

__all__ = ["write_run_report", "write_table_report"]

Drawn: TypeAlias = "tuple[str, str, str, Callable[[], Axes]]"
"""Name, title and caption of a figure, and what draws it."""


def write_run_report(folder: Path, run: DistillationRun) -> Path:
    """Write ``figures/`` and ``report.html`` of one training into `folder`.

    Args:
        folder: it must exist.
        run: what to report.

    Returns:
        The page.
    """
    drawn: list[Drawn] = []
    if len(run.history):
        drawn.append(("curves", "Training", _CURVES, lambda: plot_curves(run).axes[0]))
    if len(run.gradients):
        drawn.append(("gradients", "What pulls how hard", _GRADIENTS, lambda: plot_gradients(run)))
    if len(run.gap):
        drawn.append(("gap", "Spectral gap", _GAP, lambda: plot_gaps(run).axes[0]))
    return write_page(
        folder, "distill.html", {**_run_contents(run), "figures": _figures(drawn, folder)}
    )


def write_table_report(folder: Path, found: MethodTable, home: Path) -> Path:
    """Write ``figures/`` and ``report.html`` of a comparison of methods into `folder`.

    Args:
        folder: it must exist.
        found: what to report.
        home: where the folder will be, for links to the pages of the trainings.

    Returns:
        The page.
    """
    tasks = []
    for place, task in enumerate(found.tasks):
        end = f"-{place + 1}" if place else ""
        named = [
            (key + end, title, caption, plot)
            for key, title, caption, plot in _task_figures(found, place)
        ]
        tasks.append(_task_contents(found, place, task.title, _figures(named, folder), end))
    contents = {
        "title": _table_title(found),
        "over": "distillation methods compared",
        "sentences": method_tables.headlines(found),
        "notes": list(found.notes),
        "tasks": tasks,
        "trainings": training_table(found, home),
        "version": __version__,
    }
    return write_page(folder, "distill_table.html", contents)


def _task_figures(found: MethodTable, place: int) -> list[Drawn]:
    """The figures of a task: name, title, caption and what draws it."""
    drawn: list[Drawn] = [
        ("accuracy", "Accuracy", _ACCURACY, lambda: plot_accuracy(found, place)),
    ]
    contrasts = found.contrasts[found.contrasts.task == place]
    if contrasts.difference.notna().any():
        drawn.append(
            ("contrasts", "Planned contrasts", _CONTRASTS,
             lambda: plot_contrasts(contrasts, found.level))
        )  # fmt: skip
    # One point makes no curve: trainings may be evaluated only after their last epoch.
    if found.curves[found.curves.task == place].groupby("label").size().max() > 1:
        drawn.append(
            ("curves", "On the way", _METHOD_CURVES, lambda: plot_method_curves(found, place))
        )
    if has_gaps(found, place):
        drawn.append(
            ("gap", "Spectral gap and accuracy", _GAP_ACCURACY,
             lambda: plot_gap_accuracy(found, place).axes[0])
        )  # fmt: skip
    return drawn


_CURVES = (
    "Above: share of images classified correctly, epoch by epoch. The headline is the last epoch, "
    "whatever came before. Below: mean of every term, before its weight."
)
_GRADIENTS = (
    "Norm of the gradient of each weighted term in the parameters of the student, over that of the "
    "unweighted cross-entropy. At 1 a term pulls as hard as the labels."
)
_GAP = (
    "Above: exponents of the activation spectra, teacher and student. Below: root mean square "
    "difference of their log spectra, octaves weighted equally, their levels removed; 0 means one "
    "shape. Hollow: before training."
)
_ACCURACY = (
    "A dot is one training, the diamond the mean over seeds with its interval. Intervals that "
    "overlap do not say that methods are alike: the paired tests below see the same seeds and "
    "images on both sides."
)
_CONTRASTS = (
    "Planned contrasts: the pairs that were given, else each method with spectral terms over the "
    "same without them; hollow: gains that are known elsewhere, which show whether one could be "
    "seen here. Thick: for other seeds on these images, errors pooled over methods; thin: for "
    "other images, too."
)
_METHOD_CURVES = (
    "Mean over seeds of the accuracy on the evaluation images; the band spans the seeds."
)
_GAP_ACCURACY = (
    "How much of the gap to the teacher training closed, against accuracy. Large marks: methods; "
    "small ones: seeds. To the right of the line the gap got smaller."
)


def _figures(drawn: Sequence[Drawn], folder: Path) -> list[dict[str, Any]]:
    def draw(place: Path) -> list[Path]:
        return [path for key, _, _, plot in drawn for path in save(plot(), place, key)]

    pictures = drawn_twice(draw, folder)
    return [
        {"key": key, "title": title, "caption": caption, "image": embedded(title, *pictures[key])}
        for key, title, caption, _ in drawn
    ]


def _run_contents(run: DistillationRun) -> dict[str, Any]:
    info, data = run.info, run.data
    split = data.get("split") or "evaluation"
    low, high = run.interval()
    teacher = f" from {run.teacher}" if run.teacher else ""
    epochs = (info.get("costs") or {}).get("epochs")
    last = f"the last of {short(epochs)} epochs" if epochs and epochs > 1 else "the last epoch"
    sentence = (
        f"{run.student} trained by {run.method}{teacher} classifies {percent(run.accuracy)} % of "
        f"{len(run.outcomes.label)} {split} images correctly right after {last} (seed {run.seed}; "
        f"95 % interval over images {interval(100 * low, 100 * high, 1)}). Other seeds would give "
        "other numbers: natstats table compares methods over seeds."
    )
    failed = run.one_class_sentence()
    gaps = run.gap_means()
    best = info.get("best_accuracy")
    keys = [
        ("accuracy", f"{percent(run.accuracy)} %", interval(100 * low, 100 * high, 1)),
        ("teacher on the same images", _percent(run.teacher_accuracy), ""),
        ("classes predicted", _classes(run) if failed else "", ""),
        ("top 5", _percent(info.get("top5")), ""),
        ("same class as the teacher", _percent(run.outcomes.agreement), "of the images"),
        ("highest on the way", _percent(best), "for information only"),
        ("gap of the exponents", _way(gaps["gap_before"], gaps["gap_after"]), "before → after"),
        (
            "distance of the spectra",
            _way(gaps["distance_before"], gaps["distance_after"]),
            "before → after",
        ),
    ]
    title = f"{percent(run.accuracy)} % with {run.method}"
    return {
        "title": f"One class predicted with {run.method}" if failed else title,
        "over": f"{run.student}{teacher} · distillation",
        "sentence": f"{failed}. {sentence}" if failed else sentence,
        "keys": [key for key in keys if key[1]],
        "notes": [str(note) for note in info.get("notes") or []],
        "terms": _term_rows(run),
        "taps": _tap_rows(run),
        "gaps": gap_table(run.gap),
        "facts": facts_of(run),
        "command": str(info.get("command") or ""),
        "version": info.get("versions", {}).get("natstats", __version__),
    }


def _percent(share: float | None) -> str:
    return "" if share is None or not math.isfinite(share) else f"{percent(share)} %"


def _classes(run: DistillationRun) -> str:
    n = len(np.unique(run.outcomes.label))
    return f"{run.outcomes.n_predicted} of {n}"


def _way(before: float, after: float) -> str:
    if not math.isfinite(after):
        return ""
    return f"{number(before)} → {number(after)}"


def _term_rows(run: DistillationRun) -> list[tuple[str, ...]]:
    """Name, weight, stage, reduction, and the range of its gradient ratio."""
    ratios = run.gradient_ratios()
    rows: list[tuple[str, ...]] = []
    weight = run.info.get("ce_weight")
    listed = list(run.info.get("terms") or [])
    if weight is not None and not any(term.get("name") == "ce" for term in listed):
        listed.insert(0, {"name": "ce", "weight": weight, "stage": "main"})
        listed[0]["reduction"] = "cross-entropy with the labels, mean over images"
    for term in listed:
        stage = str(term.get("stage") or "main")
        own = ratios.ratio[(ratios.term == term.get("name")) & (ratios.stage == stage)]
        own = own[np.isfinite(own)]
        ends = list(dict.fromkeys(short(value, 2) for value in (own.min(), own.max())))
        reach = " to ".join(ends) if len(own) else "–"
        rows.append(
            (str(term.get("name")), _weight(term.get("weight")), stage,
             str(term.get("reduction") or "–").replace("^2", "²"), reach)
        )  # fmt: skip
    return rows


def _weight(weight: Any) -> str:
    if isinstance(weight, list | tuple):
        return " → ".join(short(value, 3) for value in weight)
    return short(weight) if isinstance(weight, int | float) else "–"


def _tap_rows(run: DistillationRun) -> list[tuple[str, ...]]:
    return [
        (
            str(tap.get("method") or run.method),
            str(tap.get("student")),
            _shape(tap.get("student_shape")),
            str(tap.get("teacher")),
            _shape(tap.get("teacher_shape")),
        )
        for tap in run.info.get("taps") or []
    ]


def _shape(shape: Any) -> str:
    return " × ".join(map(str, shape)) if isinstance(shape, list | tuple) else "–"


def _table_title(found: MethodTable) -> str:
    n = len(found.methods)
    runs = "1 training" if len(found.seeds) == 1 else f"{len(found.seeds)} trainings"
    return f"{n} {'method' if n == 1 else 'methods'}, {runs}"


def _task_contents(
    found: MethodTable, place: int, title: str, figures: list[dict[str, Any]], end: str
) -> dict[str, Any]:
    contrasts = found.contrasts[found.contrasts.task == place]
    return {
        "title": title,
        "end": end,
        "figures": figures,
        "methods": method_table(found, place, end),
        "contrasts": contrast_table(found, place, end),
        "planned": contrast_sentences(contrasts),
        "contrast_explanation": contrast_explanation(found.level),
        "costs": cost_table(found, place, end),
        "tests": paired_table(found, place, end),
        "explanation": " ".join(method_tables.explanations(found)),
        "cost_explanation": method_tables.cost_explanation(),
        "associations": [
            *method_tables.gap_sentences(found, place, named=False),
            method_tables.CAREFUL,
        ],
    }
