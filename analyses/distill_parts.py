"""The parts of a study as lists of trainings, and the weights that one part chooses for the next.

Not a study by itself: analyses/distill_table.py runs them.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distill_jobs import Job
from distill_studies import Arm, Setting, Study, Teacher, digest

from natstats.distill.methods import METHODS, arguments_of, parse_method
from natstats.distill.training.distillation import WEIGHTS
from natstats.distill.training.recipes import Recipe
from natstats.errors import UsageError

__all__ = ["PARTS", "Planned", "Work", "available", "candidates"]

PARTS = ("teacher", "weights", "main", "ablation", "budget")
"""In the order in which they depend on each other."""

TEACHER_SEED = 1000

MOST_WIDER = 3
"""How often a grid goes on beyond its ends."""

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Planned:
    """A training with its place in the study.

    Attributes:
        job: what is trained.
        part: of the study.
        setting: name of the setting, or of the teacher.
        arm: name of the arm.
    """

    job: Job
    part: str
    setting: str
    arm: str

    def facts(self) -> dict[str, Any]:
        """What a row says of it before it is trained."""
        return {
            "part": self.part, "setting": self.setting, "arm": self.arm, "method": self.job.method,
            "seed": self.job.seed, "key": self.job.key, "arguments": self.job.arguments,
        }  # fmt: skip


def available(arm: Arm) -> str:
    """Why an arm cannot be trained by this natstats; empty if it can."""
    names = arm.method.split("+")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        return f"there is no method {unknown[0]}"
    try:
        arguments_of(parse_method(arm.method), arm.arguments)
    except UsageError as error:
        return str(error)
    return ""


def candidates(arm: Arm, factors: Sequence[float]) -> list[Arguments]:
    """The values of its tuned argument among which that of an arm is chosen; none without one."""
    method, _, name = arm.tuned.partition(".")
    default = METHODS[method].defaults.get(name) if method else None
    if default is None:
        return []
    return [{arm.tuned: float(f"{factor * default:.6g}")} for factor in factors]


@dataclass(frozen=True)
class Work:
    """Where and how a study is trained.

    Attributes:
        study: what.
        data: source of the images.
        folder: the runs go below.
        weights: folder of published weights.
        checkpoints: trained teachers by name, in place of those of part teacher.
        cache: whether what teachers return is kept.
    """

    study: Study
    data: str
    folder: Path
    weights: Path | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    cache: bool = True

    # What is trained.

    def teachers(self) -> list[Planned]:
        """Trainings of all teachers that no checkpoint brings."""
        return [
            self._teacher(name, is_part)
            for name, teacher in self.study.teachers.items()
            if name not in self.checkpoints
            for is_part in ((True, False) if teacher.has_part else (False,))
        ]

    def need_starts(self, teachers: Iterable[Planned]) -> None:
        """Stop where the weights that teachers begin from are not there."""
        for one in teachers:
            start = one.job.start
            if start is not None and (self.weights is None or not start.is_file()):
                raise SystemExit(
                    f"--weights: expected a folder with {start.name}, from which the teacher "
                    f"{one.setting} begins; got {self.weights}"
                )

    def choosing(
        self, setting: Setting, arms: Iterable[Arm], chosen: Mapping[str, Arguments],
        rows: pd.DataFrame, part: str,
    ) -> list[Planned]:  # fmt: skip
        """Trainings on the held-out images that choose the weights of arms, seed by seed.

        Args:
            setting: where.
            arms: those with something to choose are taken.
            chosen: what was chosen for arms that others stand beside.
            rows: of the study; where a grid goes on depends on them.
            part: that asks for it.
        """
        share = self.study.holdout
        return [
            self._planned(setting, arm, self._beside(arm, chosen) | one, seed, part, share)
            for seed in self.study.choosing_seeds
            for arm in arms
            for one, _ in self.grid(setting, arm, chosen, rows, part)
        ]

    def final(
        self, setting: Setting, arms: Sequence[Arm], chosen: Mapping[str, Arguments],
        seeds: Iterable[int], part: str, holdout: float = 0.0,
    ) -> list[Planned]:  # fmt: skip
        """Trainings by the arms as they were chosen, seed by seed."""
        return [
            self._planned(setting, arm, chosen[arm.name], seed, part, holdout)
            for seed in seeds
            for arm in arms
            if arm.name in chosen
        ]

    # What was chosen.

    def chosen(
        self, setting: Setting, arms: Sequence[Arm], rows: pd.DataFrame, part: str
    ) -> tuple[dict[str, Arguments], list[dict[str, Any]]]:
        """The arguments of every arm with the highest mean accuracy on the held-out images.

        Args:
            setting: where they were tried.
            arms: of the study.
            rows: of the study.
            part: that tried them.

        Returns:
            Arguments by arm, without arms some of whose candidates were not tried yet, and a row
            for each candidate.
        """
        found: dict[str, Arguments] = {}
        tried: list[dict[str, Any]] = []
        for arm in arms:  # an arm stands behind those that it is beside
            if arm.beside and arm.beside not in found:
                continue
            grid = self.grid(setting, arm, found, rows, part)
            own = self._beside(arm, found)
            if not grid:
                found[arm.name] = own
                continue
            where = {"setting": setting.name, "part": part, "arm": arm.name}
            tried += [{**where, "arguments": own | one, "held_out": mean} for one, mean in grid]
            place = _best([mean for _, mean in grid])
            if place is not None:
                found[arm.name] = own | grid[place][0]
        return found, tried

    def grid(
        self, setting: Setting, arm: Arm, chosen: Mapping[str, Arguments], rows: pd.DataFrame,
        part: str,
    ) -> list[tuple[Arguments, float | None]]:  # fmt: skip
        """The candidates of an arm in their order, each with its accuracy on the held-out images.

        Where a setting says so, a grid goes on by factors of ten while its end is best, and the
        root of ten is tried where the next factor breaks down. Of equal ones the smallest counts as
        best, and a grid does not go on from there.

        Returns:
            Candidates with their means over the seeds that choose: NaN where one broke down, None
            where one was not tried yet. Nothing for an arm without a grid.
        """
        factors = sorted(self.study.factors)
        is_wider = setting.is_wider and part == "weights"
        n_beyond = 0
        while True:
            tried = self._tried(setting, arm, factors, chosen, rows, part)
            further = _further(factors, [mean for _, mean in tried]) if is_wider else None
            if further is None:
                return tried
            is_beyond = not factors[0] < further < factors[-1]
            if is_beyond and n_beyond == MOST_WIDER:
                return tried
            n_beyond += is_beyond
            factors = sorted([*factors, further])

    def _tried(
        self, setting: Setting, arm: Arm, factors: Sequence[float],
        chosen: Mapping[str, Arguments], rows: pd.DataFrame, part: str,
    ) -> list[tuple[Arguments, float | None]]:  # fmt: skip
        return [
            (one, self._held_out(setting, arm, one, chosen, rows, part))
            for one in candidates(arm, factors)
        ]

    def _held_out(
        self, setting: Setting, arm: Arm, one: Arguments, chosen: Mapping[str, Arguments],
        rows: pd.DataFrame, part: str,
    ) -> float | None:  # fmt: skip
        """Mean accuracy of a candidate; NaN where one broke down, None where one is not there."""
        arguments, share = self._beside(arm, chosen) | one, self.study.holdout
        planned = [
            self._planned(setting, arm, arguments, seed, part, share)
            for seed in self.study.choosing_seeds
        ]
        values = []
        for each in planned:
            own = rows[(rows.setting == setting.name) & (rows.key == each.job.key)]
            if not len(own):
                return None
            values.append(float(own.accuracy.iloc[0]))
        return float(np.mean(values))

    def _beside(self, arm: Arm, chosen: Mapping[str, Arguments]) -> Arguments:
        kept = chosen[arm.beside] if arm.beside else {}
        names = arm.method.split("+")
        own = {key: value for key, value in kept.items() if key.partition(".")[0] in names}
        return own | arm.arguments

    # One training.

    def _teacher(self, name: str, is_part: bool) -> Planned:
        teacher = self.study.teachers[name]
        start = (self.weights or Path()) / teacher.start if teacher.start else None
        job = Job(
            self.folder / "teachers" / f"{name}-{'part' if is_part else 'whole'}-"
            f"{self._teacher_key(teacher)}",
            self.data, "ce", teacher.network, start,
            recipe=self._recipe(teacher.epochs, teacher.recipe),
            holdout=self.study.holdout if is_part else 0.0, limit=teacher.limit, seed=TEACHER_SEED,
            options=self._options(teacher.epochs),
        )  # fmt: skip
        return Planned(job, "teacher", name, "part" if is_part else "whole")

    def _teacher_key(self, teacher: Teacher) -> str:
        facts = {
            "teacher": dataclasses.asdict(teacher),
            "recipe": self._recipe(teacher.epochs, teacher.recipe),
        }
        return digest(facts, 6)

    def _planned(
        self, setting: Setting, arm: Arm, arguments: Arguments, seed: int, part: str, holdout: float
    ) -> Planned:
        is_alone = not any(METHODS[name].needs_teacher for name in arm.method.split("+"))
        taught = {} if is_alone else self._taught_by(setting.teacher, bool(holdout))
        job = Job(
            self.folder, self.data, arm.method, setting.student,
            arguments=arguments, recipe=self._recipe(setting.epochs, {}), holdout=holdout,
            limit=setting.limit, seed=seed, options=self._options(setting.epochs), **taught,
        )  # fmt: skip
        place = f"{arm.name.replace('+', '_')}-{replace(job, seed=0).key[:6]}"
        split = f"{'held-out' if holdout else 'test'}-{setting.epochs}"
        # What has no teacher is trained once for all settings that differ in theirs.
        out = self.folder / ("alone" if is_alone else setting.name) / split / place / f"seed-{seed}"
        return Planned(replace(job, out=out), part, setting.name, arm.name)

    def _taught_by(self, name: str, is_held_out: bool) -> dict[str, Any]:
        """The teacher of a job."""
        teacher, given = self.study.teachers[name], self.checkpoints.get(name)
        is_part = is_held_out and teacher.has_part
        return {
            "teacher": teacher.network,
            "teacher_weights": given or self._teacher(name, is_part).job.out / WEIGHTS,
            "teacher_key": _contents(given) if given else self._teacher_key(teacher),
        }

    def _recipe(self, epochs: int, changes: Arguments) -> Arguments:
        own = {**self.study.recipe, "size": self.study.size, "epochs": epochs, **changes}
        known = {one.name for one in dataclasses.fields(Recipe)}
        # An older natstats draws other changes of the images for every seed.
        optional = {"augmentation_seed", "draws"} - known
        return {name: value for name, value in own.items() if name not in optional}

    def _options(self, epochs: int) -> Arguments:
        found: Arguments = {
            "evaluate_every": max(1, round(epochs / self.study.looks)),
            "evaluate_on": self.study.look_images,
            # No part of what the study asks, and passes of both networks.
            "gap": False,
            "gradients": False,
        }
        return found | ({"teacher_cache": self.folder / "cache"} if self.cache else {})


def _best(means: Sequence[float | None]) -> int | None:
    """The place of the largest; None where one is missing, or none is finite."""
    known = [-np.inf if mean is None or np.isnan(mean) else mean for mean in means]
    if None in means or not known or not np.isfinite(max(known)):
        return None
    return int(np.argmax(known))


def _further(factors: Sequence[float], means: list[float | None]) -> float | None:
    """The factor that is to be tried beside these, in their order; None for no more."""
    place = _best(means)
    if place is None:
        return None
    if place == 0:
        return factors[0] / 10 if means.count(means[0]) == 1 else None
    if place == len(factors) - 1:
        return factors[-1] * 10
    # Where the next one is less than five times as large, one in between was tried.
    following = means[place + 1]
    is_broken = following is not None and np.isnan(following)
    is_far = factors[place + 1] > 5 * factors[place]
    return factors[place] * 10**0.5 if is_broken and is_far else None


def _contents(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
