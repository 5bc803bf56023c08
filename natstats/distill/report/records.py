"""The data that tables, figures and pages of compared methods are made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import pandas as pd

from natstats.brief import Brief

__all__ = ["KNOWN_GAINS", "AssociationResult", "MethodTable", "TitledTask"]

KNOWN_GAINS = (("kd", "ce"), ("at", "ce"))
"""Positive controls: gains that are known from the literature. Where none of them is seen, the
trainings were too few or too short to show any gain."""


class TitledTask(Protocol):
    """What methods are compared on: student, images and split."""

    @property
    def title(self) -> str:
        """The task in words."""


class AssociationResult(Protocol):
    """Whether closing a spectral gap correlates with accuracy."""

    @property
    def is_known(self) -> bool:
        """Whether there were enough methods or seeds to say."""

    def sentence(self) -> str:
        """The result in words."""


@dataclass(frozen=True, eq=False, repr=False)
class MethodTable(Brief):
    """Methods of distillation side by side, by task.

    Attributes:
        tasks: student, images and split of each table; nothing is pooled across them.
        methods: a row per task and method, the most accurate first: task (its number), student,
            teacher, data, split, label, method, n_seeds, seeds, n_of_one_class (seeds whose student
            predicts one class), n_images, accuracy (mean), sd (over seeds), low, high, interval_of
            (``seeds`` or ``images``), teacher_accuracy, top5, agreement (with the teacher), for
            every reference gain_REF with _low, _high, _p and _p_holm, costs, epochs_total, the gaps
            before and after, closed_exponent and closed_distance.
        gains: a row per method and reference: task, label, method, reference, reference_label,
            difference, low, high, p, p_corrected (Holm, over the methods of a task and reference),
            dof, n_seeds, n_left_out, n_images, test, reason (why there is none).
        contrasts: a row per planned contrast, then the positive controls: task, label,
            reference_label, control (whether it is one), difference, low, high, p and p_corrected
            (Holm, over the planned contrasts of a task) for other seeds on these images, dof, se
            (standard error), n_seeds, n_left_out, n_pooled (methods in the pooled variance), error
            (``pooled``, or ``own`` where seeds are few or the variances differ), low_images,
            high_images, p_images and p_images_corrected for other seeds and other images, verdict,
            reason (why it could not be formed, or what to know about its error).
        terms: a row per method and term: task, label, term, weight, ratio (median over the main
            stage and seeds of the norm of its gradient to that of cross-entropy), cosine.
        seeds: a row per run: task, label, method, seed, accuracy, n_predicted (classes that are
            predicted), is_of_one_class (only one is, though images are of several), the gaps,
            closed_exponent, closed_distance, path.
        curves: a row per method and epoch of the main stage: task, label, epoch, accuracy (mean),
            low and high (smallest and largest over the seeds).
        associations: task, teacher, and whether closing a gap correlates with accuracy.
        references: methods over which gains were taken.
        level: level of all intervals.
        notes: what a reader must know, in sentences.
    """

    tasks: tuple[TitledTask, ...]
    methods: pd.DataFrame
    gains: pd.DataFrame
    contrasts: pd.DataFrame
    terms: pd.DataFrame
    seeds: pd.DataFrame
    curves: pd.DataFrame
    associations: tuple[tuple[int, str, AssociationResult], ...]
    references: tuple[str, ...]
    level: float
    notes: tuple[str, ...]
