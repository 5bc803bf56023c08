"""Distillation runs compared: accuracy of the methods, their gains, costs and spectral gaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from natstats import checks
from natstats.distill.comparison.association import Association, associate
from natstats.distill.comparison.contrasts import contrast_frame
from natstats.distill.comparison.gains import gains_frame, gains_over, with_gains
from natstats.distill.comparison.method_runs import ALONE, MethodRuns, Task, group_runs
from natstats.distill.comparison.task_contrasts import Pair, checked_contrasts, contrasts_of
from natstats.distill.report.method_tables import markdown_tables, sentences, text_tables
from natstats.distill.report.records import MethodTable
from natstats.distill.results import MAIN, DistillationRun
from natstats.distill.run_folders import TABLE
from natstats.files.csv_files import write_csv
from natstats.files.paths import expanded
from natstats.numbers import counted
from natstats.runs import store
from natstats.text import few

__all__ = ["FORMAT", "KIND", "REFERENCES", "MethodComparison", "compare_runs"]

FORMAT = 1
"""Number of the format of ``table.json``."""

KIND = "table"

REFERENCES = (ALONE, "kd")
"""Methods that gains are taken over by default, if present: the student alone, soft targets."""

COSTS = (
    "ms_per_step", "peak_memory_mib", "teacher_passes", "extra_parameters", "epochs",
    "epochs_before",
)  # fmt: skip
GAPS = ("gap_before", "gap_after", "distance_before", "distance_after")


@dataclass(frozen=True, eq=False, repr=False)
class MethodComparison(MethodTable):
    """Methods of distillation side by side, by task: see :class:`MethodTable` for its fields."""

    tasks: tuple[Task, ...]
    associations: tuple[tuple[int, str, Association], ...]

    def sentences(self) -> list[str]:
        """What was found, a sentence or two for each task."""
        return sentences(self)

    def __repr__(self) -> str:
        methods, runs = counted(len(self.methods), "method"), counted(len(self.seeds), "training")
        return f"<MethodComparison of {methods}, {runs}>"

    def table(self, rows: int | None = None, width: int | None = None, how: str = "") -> str:
        """The main columns as aligned text, a table for each task; always all rows of it."""
        return text_tables(self, width)

    def markdown(self) -> str:
        """Accuracy, gains, costs and gaps as Markdown tables, with notes on what they mean."""
        return markdown_tables(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the frames are tables of their own."""
        return {
            "kind": KIND,
            "format": FORMAT,
            "tasks": [task.title for task in self.tasks],
            "references": list(self.references),
            "level": self.level,
            "runs": [str(path) for path in self.seeds.path],
            "associations": [
                {"task": task, "teacher": teacher, **vars(found), "sentence": found.sentence()}
                for task, teacher, found in self.associations
            ],
            "contrasts": self.contrasts.replace({np.nan: None}).to_dict("records"),
            "sentences": self.sentences(),
            "notes": list(self.notes),
        }

    def write(self, folder: Path, *, home: Path, report: bool = True) -> None:
        """Write ``table.csv``, ``table.md``, the other tables, page and figures into `folder`.

        Args:
            folder: it must exist.
            home: where the folder will be, for links to the trainings.
            report: draw the figures and write the page.
        """
        for name, frame in (
            ("table", self.methods), ("gains", self.gains), ("contrasts", self.contrasts),
            ("terms", self.terms), ("seeds", self.seeds),
        ):  # fmt: skip
            write_csv(frame, folder / f"{name}.csv")
        (folder / "table.md").write_text(
            self.markdown(), encoding="utf-8", errors="backslashreplace"
        )
        if report:
            from natstats.distill.report.pages import write_table_report

            write_table_report(folder, self, home)
        (folder / TABLE).write_text(store.to_json(self.to_dict()), encoding="utf-8")

    def save(self, path: str | Path, *, overwrite: bool = False, report: bool = True) -> Path:
        """Write into the directory `path`; other things in it, such as runs, stay.

        Raises:
            UsageError: something is at `path`, and it is not a table or `overwrite` is not set.
            NatstatsError: it cannot be written.
        """
        path = expanded(path, "out")
        store.check_target(path, overwrite, KIND)
        with store.add_files(path, TABLE) as folder:
            self.write(folder, home=path, report=report)
        return path


def compare_runs(
    runs: Sequence[DistillationRun],
    reference: str | Sequence[str] | None = None,
    level: float = 0.95,
    contrasts: Sequence[Pair] | None = None,
) -> MethodComparison:
    """Compare distillation runs, by method, on the same seeds and images.

    Runs that differ only in their seed are one method; methods of the same name are told apart by
    what differs, in brackets. Student, images and split make a task: runs of different tasks are
    in different tables and never pooled, so held-out images are never mixed with test images.

    Args:
        runs: finished runs, in any order.
        reference: a method, or several, over which gains are taken; by default those of
            :data:`REFERENCES` that are present.
        level: level of the intervals.
        contrasts: pairs of methods, the first over the second, that were planned before anything
            was trained; by default every X+spectral over X. From six seeds on their errors are
            pooled over the methods of a task with the same recipe and teacher. Holm's rule counts
            the planned contrasts only, and in every task all that are given: one that a task
            cannot form has a row with the reason.

    Raises:
        UsageError: there is no run, two runs of a method have the same seed and differ, or a
            method is unknown.

    >>> import numpy as np, pandas as pd
    >>> from natstats.distill import results
    >>> empty = [pd.DataFrame(columns=c) for c in (results.HISTORY, results.GRADIENTS, results.GAP)]
    >>> def run(method, right):
    ...     n = np.zeros(4, int)
    ...     answers = results.Outcomes(n, 1 - np.array(right), n + 0.5, list("abcd"))
    ...     info = {"method": method, "seed": 0, "data": {}, "student": {"name": "net"}}
    ...     info["accuracy"] = answers.accuracy
    ...     return results.DistillationRun(info, empty[0], empty[1], answers, empty[2])
    >>> found = compare_runs([run("ce", [1, 0, 0, 0]), run("kd", [1, 1, 1, 0])])
    >>> found.methods[["label", "accuracy", "gain_ce"]].values.tolist()
    [['kd', 0.75, 0.5], ['ce', 0.25, nan]]
    """
    level = checks.probability("level", level)
    tasks, notes = group_runs(runs)
    references = _references(tasks, reference)
    pairs = None if contrasts is None else checked_contrasts(contrasts, tasks)
    frame, gained = _methods_and_gains(tasks, references, level)
    if reference is None:  # no gains over a method that is alone
        references = tuple(name for name in references if (gained.reference == name).any())
    contrasted = contrast_frame([
        row
        for number, task in enumerate(tasks)
        for row in contrasts_of(number, task, pairs, level)
    ])  # fmt: skip
    per_run = [(number, method) for number, task in enumerate(tasks) for method in task.methods]
    return MethodComparison(
        tasks=tuple(tasks),
        methods=with_gains(frame, gained, references),
        gains=gained,
        contrasts=contrasted,
        terms=pd.concat([_terms(number, method) for number, method in per_run], ignore_index=True),
        seeds=pd.DataFrame([row for one in per_run for row in _seed_rows(*one)]),
        curves=pd.concat([_curve(number, method) for number, method in per_run], ignore_index=True),
        associations=tuple(
            one for number, task in enumerate(tasks) for one in _associations(number, task)
        ),
        references=references,
        level=level,
        notes=(*notes, *_notes(frame, gained), *_contrast_notes(contrasted)),
    )


def _methods_and_gains(
    tasks: Sequence[Task], references: Sequence[str], level: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row for every method, the most accurate of a task first, and its gains."""
    methods: list[dict[str, Any]] = []
    gains: list[dict[str, Any]] = []
    for number, task in enumerate(tasks):
        own = [_method_row(number, task, method, level) for method in task.methods]
        order = np.argsort([-row["accuracy"] for row in own], kind="stable")
        methods += [own[place] for place in order]
        ordered = [task.methods[place] for place in order]
        for name in references:
            gains += gains_over(number, task, ordered, name, level)
    return pd.DataFrame(methods), gains_frame(gains)


def _references(tasks: Sequence[Task], given: str | Sequence[str] | None) -> tuple[str, ...]:
    names = [
        name for task in tasks for method in task.methods for name in (method.name, method.label)
    ]
    if given is None:
        return tuple(name for name in REFERENCES if name in names)
    asked = [given] if isinstance(given, str) else list(given)
    return tuple(checks.one_of("reference", name, list(dict.fromkeys(names))) for name in asked)


def _method_row(number: int, task: Task, method: MethodRuns, level: float) -> dict[str, Any]:
    accuracy, first = method.accuracies, method.runs[0]
    n = len(accuracy)
    mean, sd = float(accuracy.mean()), float(accuracy.std(ddof=1)) if n > 1 else np.nan
    low = high = np.nan
    interval_of = "seeds" if n > 1 else "images"
    if n == 1:
        low, high = first.interval(level)
    elif sd > 1e-12:  # equal accuracies differ from their mean by rounding
        reach = float(stats.t.ppf(0.5 + level / 2, n - 1)) * sd / np.sqrt(n)
        low, high = max(mean - reach, 0.0), min(mean + reach, 1.0)
    costs = pd.DataFrame([run.info.get("costs") or {} for run in method.runs])
    median = {
        name: float(pd.to_numeric(costs[name]).median()) if name in costs else np.nan
        for name in COSTS
    }
    of = set(costs["memory_of"].dropna()) if "memory_of" in costs else set()
    gaps = pd.DataFrame([run.gap_means() for run in method.runs]).mean()
    top5 = [run.info.get("top5") for run in method.runs]
    return {
        "task": number,
        "student": task.student,
        "teacher": first.teacher or "",
        "data": task.data,
        "split": task.split,
        "label": method.label,
        "method": method.name,
        "n_seeds": n,
        "seeds": " ".join(map(str, method.seeds)),
        "n_of_one_class": sum(run.outcomes.is_of_one_class for run in method.runs),
        "n_images": len(first.outcomes.label),
        "accuracy": mean,
        "sd": sd,
        "low": low,
        "high": high,
        "interval_of": interval_of,
        "teacher_accuracy": float(np.mean([run.teacher_accuracy for run in method.runs])),
        "top5": float(np.mean([np.nan if one is None else one for one in top5])),
        "agreement": float(np.mean([run.outcomes.agreement for run in method.runs])),
        **median,
        "memory_of": "/".join(sorted(map(str, of))),
        "epochs_total": median["epochs"] + np.nan_to_num(median["epochs_before"]),
        **{name: float(gaps[name]) for name in GAPS},
        **_closed(gaps),
    }


def _closed(gaps: Any) -> dict[str, float]:
    """By how much each of the two gaps got smaller."""
    return {
        "closed_exponent": float(gaps["gap_before"] - gaps["gap_after"]),
        "closed_distance": float(gaps["distance_before"] - gaps["distance_after"]),
    }


def _terms(number: int, method: MethodRuns) -> pd.DataFrame:
    found = []
    for run in method.runs:
        rows = run.gradient_ratios().assign(weight=run.gradients.weight)
        rows = rows[rows.stage == MAIN]
        found.append(rows.groupby("term", sort=False)[["weight", "ratio", "cosine"]].median())
    joined = pd.concat(found).groupby(level=0, sort=False).median().reset_index()
    return pd.DataFrame(joined.assign(task=number, label=method.label))


def _seed_rows(number: int, method: MethodRuns) -> list[dict[str, Any]]:
    rows = []
    for run in method.runs:
        gaps = run.gap_means()
        rows.append(
            {
                "task": number,
                "label": method.label,
                "method": method.name,
                "seed": run.seed,
                "accuracy": run.accuracy,
                "n_predicted": run.outcomes.n_predicted,
                "is_of_one_class": run.outcomes.is_of_one_class,
                **gaps,
                **_closed(gaps),
                "path": "" if run.path is None else str(run.path),
            }
        )
    return rows


def _curve(number: int, method: MethodRuns) -> pd.DataFrame:
    rows = pd.concat([run.history[run.history.stage == MAIN] for run in method.runs])
    rows = rows[np.isfinite(rows.eval_accuracy)]
    by_epoch = rows.groupby("epoch").eval_accuracy.agg(["mean", "min", "max"]).reset_index()
    by_epoch.columns = pd.Index(["epoch", "accuracy", "low", "high"])
    return pd.DataFrame(by_epoch.assign(task=number, label=method.label))


def _associations(number: int, task: Task) -> list[tuple[int, str, Association]]:
    """One association for each teacher and measure, as a gap is measured against one teacher."""
    by_teacher: dict[tuple[str, str], list[MethodRuns]] = {}
    for method in task.methods:
        first = method.runs[0]
        if len(first.gap) and first.teacher:
            taught = first.info.get("teacher")
            digest = (taught.get("digest") if taught else None) or ""
            by_teacher.setdefault((first.teacher, digest), []).append(method)
    found = []
    for (teacher, _), methods in by_teacher.items():
        for measure, name in (("exponent", "gap"), ("distance", "distance")):
            gaps = [[run.gap_means() for run in method.runs] for method in methods]
            closed = [
                np.array([one[f"{name}_before"] - one[f"{name}_after"] for one in own])
                for own in gaps
            ]
            accuracy = [method.accuracies for method in methods]
            found.append((number, teacher, associate(measure, closed, accuracy)))
    return found


def _contrast_notes(contrasts: pd.DataFrame) -> list[str]:
    """Notes on contrasts whose error needs a comment; sentences name those that are not tested."""
    is_said = ~contrasts.control & ~np.isfinite(contrasts.p_corrected)
    said = contrasts[(contrasts["reason"] != "") & ~is_said]
    notes = []
    for reason in dict.fromkeys(map(str, said["reason"])):
        own = said[said["reason"] == reason]
        pairs = [f"{row.label} over {row.reference_label}" for row in own.itertuples()]
        if (own.error == "own").all() and not reason.startswith("all seeds"):
            notes.append(f"Not pooled is the error of {len(own)} of the contrasts: {reason}.")
        else:
            notes.append(f"Contrast {few(pairs)}: {reason}.")
    return notes


def _notes(methods: pd.DataFrame, gains: pd.DataFrame) -> list[str]:
    notes = []
    for row in methods[methods.n_of_one_class > 0].to_dict("records"):
        n, all_of = row["n_of_one_class"], row["n_seeds"]
        which = "the training" if all_of == 1 else f"{n} of {all_of} trainings"
        puts = "puts" if n == 1 else "put"
        notes.append(
            f"{row['label']}: {which} {puts} all images in one class; that is a training which "
            "failed, not an accuracy."
        )
    untested = gains[gains["reason"] != ""]
    for (name, reason), own in untested.groupby(["reference", "reason"], sort=False):
        notes.append(f"Not tested over {name}: {few([*own.label])}; {reason}.")
    for row in gains[(gains["reason"] == "") & (gains.n_left_out > 0)].to_dict("records"):
        seeds = "seed is" if row["n_left_out"] == 1 else "seeds are"
        notes.append(
            f"{row['label']} over {row['reference_label']}: {row['n_left_out']} {seeds} in one of "
            "them only and left out."
        )
    if (gains.test == "images").any():
        notes.append(
            "Where one seed is in both, the test (McNemar, exact) and its interval speak of these "
            "trained networks only, not of the methods."
        )
    if ((gains.n_seeds == 2) & (gains.test == "seeds and images")).any():
        notes.append(
            "Two seeds are few: where seeds differ much, intervals of gains cover about 89 % in "
            "place of 95 %."
        )
    if ((methods.n_seeds > 1) & methods.low.isna()).any():
        notes.append("Where all seeds have one accuracy there is no spread to take an interval of.")
    if methods.memory_of[methods.memory_of != ""].nunique() > 1:
        notes.append("Peak memory is that of the device in some rows and of the process in others.")
    return notes
