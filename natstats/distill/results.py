"""A distillation run: what one training with one seed produced, written and read.

The trainer writes it when it is done::

    run = DistillationRun(info, history, gradients, outcomes, gap)
    with store.add_files(path, last=RECORD) as folder:
        save_file(weights, folder / "student.safetensors")
        run.write(folder)
        write_run_report(folder, run)

What the directory holds before that: :mod:`natstats.distill.run_folders`.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.distill.record import DataFacts, RunInfo, checked
from natstats.distill.run_files import (
    FORMAT,
    GAP,
    GRADIENTS,
    HISTORY,
    KIND,
    OUTCOMES,
    read_arrays,
    read_record,
    read_table,
    typed,
)
from natstats.distill.run_folders import RECORD, is_unfinished
from natstats.errors import NatstatsError, UsageError
from natstats.files.csv_files import write_csv
from natstats.files.paths import expanded
from natstats.numbers import interval
from natstats.runs import store
from natstats.runs.tables import left_out
from natstats.runs.text_columns import Column, fitted
from natstats.text import printable

__all__ = [
    "FORMAT", "GAP", "GRADIENTS", "HISTORY", "MAIN", "DistillationRun", "Outcomes",
]  # fmt: skip

MAIN = "main"
"""Name of the last stage, which every method has."""

Array = NDArray[Any]

_COLUMNS = (
    Column("stage", True, cut="name"), Column("epoch"), Column("loss", rank=-2),
    Column("accuracy", rank=-1), Column("eval loss", rank=2), Column("eval accuracy"),
    Column("learning rate", rank=1), Column("seconds", rank=3),
)  # fmt: skip


def _plain(value: Any) -> str:
    """A cell of the table of epochs.

    >>> _plain("main"), _plain(3), _plain(0.123456), _plain(math.nan)
    ('main', '3', '0.1235', '-')
    """
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.4g}"
    return str(value)


@dataclass(frozen=True, eq=False, repr=False)
class Outcomes(Brief):
    """The prediction for every evaluation image, in their fixed order.

    Attributes:
        label: true class, (n,), whole numbers.
        predicted: class with the highest score, (n,), whole numbers.
        probability: probability of the true class, (n,), float32.
        image: name of the image, (n,).
        teacher_predicted: the teacher's class, (n,), whole numbers; None without a teacher.

    Raises:
        UsageError: the arrays do not have one length, or there is no image.

    >>> label = np.array([0, 1])
    >>> Outcomes(label, np.array([0, 0]), np.array([0.9, 0.4]), np.array(["a", "b"])).accuracy
    0.5
    """

    label: Array
    predicted: Array
    probability: Array
    image: Array
    teacher_predicted: Array | None = None

    def __post_init__(self) -> None:
        kinds = {
            "label": np.int64, "predicted": np.int64, "probability": np.float32, "image": np.str_,
            "teacher_predicted": np.int64,
        }  # fmt: skip
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is None and name == "teacher_predicted":
                continue
            array = np.asarray(value, dtype=kind)
            if array.ndim != 1 or len(array) != len(self.label) or not len(array):
                raise UsageError(
                    f"outcomes: expected (n,) arrays of one length; {name} has shape {array.shape} "
                    f"beside {np.shape(self.label)} labels"
                )
            object.__setattr__(self, name, array)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each image was classified correctly, (n,)."""
        return np.asarray(self.predicted == self.label)

    @property
    def accuracy(self) -> float:
        """Share of the images that were classified correctly."""
        return float(self.correct.mean())

    @property
    def n_predicted(self) -> int:
        """Number of classes that are predicted for any image."""
        return len(np.unique(self.predicted))

    @property
    def is_of_one_class(self) -> bool:
        """Whether all images are put in one class, though they are of several.

        >>> label = np.array([0, 1])
        >>> Outcomes(label, np.array([0, 0]), np.ones(2), np.array(["a", "b"])).is_of_one_class
        True
        """
        return self.n_predicted == 1 and len(np.unique(self.label)) > 1

    @property
    def agreement(self) -> float:
        """Share of the images that student and teacher put in one class; NaN without a teacher."""
        if self.teacher_predicted is None:
            return math.nan
        return float((self.predicted == self.teacher_predicted).mean())

    @property
    def teacher_accuracy(self) -> float:
        """Share of the images that the teacher classifies correctly; NaN without one."""
        if self.teacher_predicted is None:
            return math.nan
        return float((self.teacher_predicted == self.label).mean())

    def arrays(self) -> dict[str, Array]:
        """The arrays that are kept in ``outcomes.npz``."""
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: value for name, value in kept.items() if value is not None}


@dataclass(frozen=True, eq=False, repr=False)
class DistillationRun:
    """One training of a student with one seed.

    Attributes:
        info: what ``distill.json`` holds, see :class:`natstats.distill.record.RunInfo`.
        history: a row per epoch, :data:`HISTORY` and a column per term.
        gradients: a row per epoch and term, :data:`GRADIENTS`: norms of the gradients in the
            parameters of the student.
        outcomes: outcome of every image of the evaluation, right after the last epoch.
        gap: a row per pair of layers, :data:`GAP`; no rows without a teacher.
        path: directory that it was read from.

    Raises:
        UsageError: a fact or a column is missing or invalid, or the accuracy is not that of the
            outcomes.

    >>> info = {"method": "ce", "seed": 0, "data": {}, "student": {"name": "net"}, "accuracy": 0.5}
    >>> outcomes = Outcomes([0, 1], [0, 0], [0.9, 0.4], ["a.png", "b.png"])
    >>> empty = [pd.DataFrame(columns=names) for names in (HISTORY, GRADIENTS, GAP)]
    >>> run = DistillationRun(info, empty[0], empty[1], outcomes, empty[2])
    >>> run.method, run.seed, len(run.gap)
    ('ce', 0, 0)
    """

    info: RunInfo
    history: pd.DataFrame
    gradients: pd.DataFrame
    outcomes: Outcomes
    gap: pd.DataFrame
    path: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "info", checked(self.info))
        for name, columns in (("history", HISTORY), ("gradients", GRADIENTS), ("gap", GAP)):
            object.__setattr__(self, name, typed(getattr(self, name), columns, name))
        if not isinstance(self.outcomes, Outcomes):
            raise UsageError(f"outcomes: expected Outcomes; got {type(self.outcomes).__name__}")
        if not math.isclose(self.info["accuracy"], self.outcomes.accuracy, abs_tol=1e-6):
            raise UsageError(
                f"accuracy: expected that of the outcomes, {self.outcomes.accuracy:.6f}; got "
                f"{self.info['accuracy']}"
            )

    @property
    def method(self) -> str:
        """Name of the method, such as ``kd+spectral``."""
        return self.info["method"]

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return int(self.info["seed"])

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly right after the last epoch."""
        return self.outcomes.accuracy

    @property
    def student(self) -> str:
        """Name of the student."""
        return self.info["student"]["name"]

    @property
    def teacher(self) -> str | None:
        """Name of the teacher; None without one."""
        teacher = self.info.get("teacher")
        return teacher["name"] if teacher else None

    @property
    def data(self) -> DataFacts:
        """Facts about the images: name, digest, classes, n_train, n_eval, split, size."""
        return self.info["data"]

    @property
    def terms(self) -> list[str]:
        """Names of the terms in the history, in their order."""
        return [str(name) for name in self.history.columns if name not in HISTORY]

    @property
    def teacher_accuracy(self) -> float:
        """Accuracy of the teacher on the same images; NaN without one."""
        teacher = self.info.get("teacher")
        known = teacher.get("accuracy") if teacher else None
        return self.outcomes.teacher_accuracy if known is None else float(known)

    def one_class_sentence(self) -> str:
        """A sentence that it predicts one class only, and which; empty where it predicts more."""
        if not self.outcomes.is_of_one_class:
            return ""
        place, names = int(self.outcomes.predicted[0]), self.data.get("classes")
        known = isinstance(names, list) and 0 <= place < len(names)
        name = printable(str(names[place])) if known and names else f"number {place}"
        n = len(self.outcomes.label)
        return (
            f"It predicts one class: all {n} images are put in {name}, and the accuracy is the "
            "share of images that are of that class"
        )

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Interval of the accuracy for other images of the same sort, with this trained student.

        It is Wilson's interval for a share (1927, Journal of the American Statistical Association
        22).
        """
        from statsmodels.stats.proportion import proportion_confint

        n = len(self.outcomes.label)
        n_right = int(self.outcomes.correct.sum())
        low, high = proportion_confint(n_right, n, alpha=1 - level, method="wilson")
        return float(low), float(high)

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the training, in clauses."""
        found = [str(note) for note in self.info.get("notes") or []]
        return [*found, *filter(None, [self.one_class_sentence()])]

    def sentences(self) -> list[str]:
        """The result in words."""
        low, high = self.interval()
        split = self.data.get("split", "evaluation")
        found = f"{100 * self.accuracy:.2f} {interval(100 * low, 100 * high, 2)} %"
        text = f"Accuracy on the {split} images after the last epoch: {found}"
        if self.teacher is not None:
            text += f" (teacher {100 * self.teacher_accuracy:.2f} %)"
        return [text]

    def __repr__(self) -> str:
        told = f"accuracy {100 * self.accuracy:.2f} %"
        return f"<DistillationRun of {printable(self.method)}, seed {self.seed}: {told}>"

    def table(self, rows: int | None = None, width: int | None = None, how: str = "") -> str:
        """The epochs as aligned text; where there are more than `rows`, the last ones.

        Args:
            rows: most rows to show; None for all.
            width: width of the terminal; None for as wide as it takes.
            how: how to see the epochs that are left out, for the last line.
        """
        shown = self.history if rows is None else self.history.tail(rows)
        cells = [
            [_plain(row[one.head.replace(" ", "_")]) for one in _COLUMNS]
            for row in shown.to_dict("records")
        ]
        total = len(self.history)
        return fitted(_COLUMNS, cells, width, left_out(total - len(shown), total, "epochs", how))

    def gradient_ratios(self) -> pd.DataFrame:
        """Norm of each weighted term's gradient over that of the cross-entropy, every epoch.

        Returns:
            stage, epoch, term, ratio, cosine.
        """
        rows = self.gradients
        ratio = rows.norm / rows.ce_norm.where(rows.ce_norm > 0)
        return rows[["stage", "epoch", "term", "cosine"]].assign(ratio=ratio)

    def gap_means(self) -> dict[str, float]:
        """The spectral gap, averaged over the layers, before and after training.

        Returns:
            gap_before and gap_after, the mean |exponent of student minus that of teacher|,
            and distance_before and distance_after, the mean distance of their spectra; NaN where
            no gap was measured.
        """
        rows = self.gap
        found = {}
        for when in ("before", "after"):
            apart = (rows[f"exponent_{when}"] - rows.exponent_teacher).abs()
            found[f"gap_{when}"] = float(apart.mean())
            found[f"distance_{when}"] = float(rows[f"distance_{when}"].mean())
        return found

    def write(self, folder: Path) -> None:
        """Write all but the weights of the student and the page into `folder`.

        Args:
            folder: a folder from :func:`natstats.runs.store.add_files` or
                :func:`natstats.runs.store.write_directory`.
        """
        write_csv(self.history, folder / "history.csv")
        rows = store.to_json(self.history.to_dict("records"))  # for those who read no CSV
        (folder / "history.json").write_text(rows, encoding="utf-8")
        write_csv(self.gradients, folder / "gradients.csv")
        write_csv(self.gap, folder / "gap.csv")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.outcomes.arrays())  # type: ignore[arg-type]
        (folder / OUTCOMES).write_bytes(buffer.getvalue())
        own = {"kind": KIND, "format": FORMAT}
        record = {**own, **self.info, **own}
        (folder / RECORD).write_text(store.to_json(record), encoding="utf-8")

    @classmethod
    def open(cls, path: str | Path) -> DistillationRun:
        """Read a run.

        Raises:
            UsageError: `path` is not a distillation run, or its training is not finished.
            NatstatsError: the run is damaged, or was written by a newer natstats.
        """
        path = expanded(path, "run")
        if is_unfinished(path):
            raise UsageError(
                f"run: expected a finished training; {printable(path)} holds the state of one that "
                f"is not (no {RECORD}): the command that began it goes on where it stopped"
            )
        if not (path / RECORD).is_file():
            raise UsageError(
                f"run: expected a distillation run; {printable(path)} holds no {RECORD}"
            )
        try:
            run = cls(
                read_record(path),
                read_table(path / "history.csv", HISTORY),
                read_table(path / "gradients.csv", GRADIENTS),
                outcomes=Outcomes(**read_arrays(path / OUTCOMES)),
                gap=read_table(path / "gap.csv", GAP),
            )
        except (OSError, ValueError) as error:
            reason = _reason(error)
            raise NatstatsError(
                f"run: expected a whole run in {printable(path)}; {reason}"
            ) from error
        return replace(run, path=path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{printable(Path(error.filename).name)}: {error.strerror}"
    return str(error)
