"""Runs grouped into methods (differing in their seed alone) and into tasks to compare them in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from natstats.distill.older_arguments import completed
from natstats.distill.results import DistillationRun
from natstats.errors import UsageError

__all__ = ["MethodRuns", "Task", "group_runs"]

ALONE = "ce"
"""The method that trains a student without a teacher."""


@dataclass(frozen=True, eq=False)
class Task:
    """What all methods of a table share: student, images and split.

    Attributes:
        student: name of the student.
        teachers: names of the teachers, sorted.
        data: name of the images.
        split: ``test`` or ``held-out``.
        n_images: number of evaluation images.
        methods: the methods, in the order in which they came.
        apart: what tells it from others of the same words, in words; empty where nothing has to.
    """

    student: str
    teachers: tuple[str, ...]
    data: str
    split: str
    n_images: int
    methods: tuple[MethodRuns, ...]
    apart: str = ""

    @property
    def title(self) -> str:
        """The task in words."""
        teacher = f" from {', '.join(self.teachers)}" if self.teachers else ""
        images = f"{self.n_images} {self.split} images"
        told = f"{images}; {self.apart}" if self.apart else images
        return f"{self.student}{teacher} on {self.data} ({told})"


@dataclass(frozen=True, eq=False)
class MethodRuns:
    """Trainings of one method that differ in their seed alone.

    Attributes:
        name: name of the method.
        label: the name, with what tells it from others of this name in brackets.
        facts: everything that defines the method, by name, each as JSON text.
        runs: sorted by seed, each seed once.
    """

    name: str
    label: str
    facts: dict[str, str]
    runs: tuple[DistillationRun, ...]

    @property
    def seeds(self) -> list[int]:
        """Seeds in rising order."""
        return [run.seed for run in self.runs]

    @property
    def accuracies(self) -> np.ndarray:
        """Share of images classified correctly, one for each seed."""
        return np.array([run.accuracy for run in self.runs])

    def shares(self, other: MethodRuns, prefix: str) -> bool:
        """Whether both have the same facts of this prefix."""
        names = {name for name in (*self.facts, *other.facts) if name.startswith(prefix)}
        return all(self.facts.get(name) == other.facts.get(name) for name in names)


def group_runs(runs: Sequence[DistillationRun]) -> tuple[list[Task], list[str]]:
    """Gather runs by task and method.

    Args:
        runs: finished runs, in any order.

    Returns:
        The tasks, in the order in which they came, and notes on runs that were left out.

    Raises:
        UsageError: there is no run, or two different trainings of a method have the same seed.
    """
    if not runs:
        raise UsageError("runs: expected one training or more; got none")
    notes: list[str] = []
    tasks: dict[str, dict[str, list[DistillationRun]]] = {}
    changed = _changed(runs)
    for run in runs:
        of_task = tasks.setdefault(_text(_task_facts(run, changed)), {})
        of_task.setdefault(_text([run.method, _method_facts(run)]), []).append(run)
    found, facts = [], []
    for key, members in tasks.items():
        gathered = [_once(own, notes) for own in members.values()]
        first = gathered[0][0]
        methods = _labelled(gathered)
        facts.append(json.loads(key))
        teachers = {run.teacher for method in methods for run in method.runs if run.teacher}
        found.append(
            Task(
                student=first.student,
                teachers=tuple(sorted(teachers)),
                data=str(first.data.get("name") or "images"),
                split=str(first.data.get("split") or "test"),
                n_images=len(first.outcomes.label),
                methods=methods,
            )
        )
    return _told_apart(found, facts), notes


def _told_apart(tasks: Sequence[Task], facts: Sequence[Mapping[str, Any]]) -> list[Task]:
    """The tasks, those of the same words with the facts that they differ in."""
    words: dict[str, list[dict[str, str]]] = {}
    for task, own in zip(tasks, facts, strict=True):
        words.setdefault(task.title, []).append(_task_words(own))
    told = {title: iter(_differing(alike)) for title, alike in words.items()}
    return [replace(task, apart=next(told[task.title])) for task in tasks]


def _differing(words: Sequence[Mapping[str, str]]) -> list[str]:
    """Of each, the words that not all have; a digest only where the others do not tell them all."""
    names = [name for name in words[0] if len({one[name] for one in words}) > 1]
    plain = [name for name in names if name != "digest"]
    told = [", ".join(one[name] for name in plain) for one in words]
    if len(set(told)) == len(words):
        return told
    return [", ".join(one[name] for name in names) for one in words]


def _task_words(facts: Mapping[str, Any]) -> dict[str, str]:
    """What may tell two tasks of the same student and images apart, each in words."""
    images, arguments = facts["data"], facts["arguments"] or {}
    return {
        "n_train": f"{images['n_train']} training images",
        "size": f"{images['size']} pixels",
        "arguments": _text(arguments),
        "digest": f"digest {str(images['digest'])[:8]}",
    }


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _changed(runs: Sequence[DistillationRun]) -> set[str]:
    """Listings of images under which runs have recorded different contents."""
    known: dict[str, set[str]] = {}
    for run in runs:
        if listing := run.data.get("listing"):
            known.setdefault(listing, set()).add(str(run.data.get("digest")))
    return {listing for listing, digests in known.items() if len(digests) > 1}


def _task_facts(run: DistillationRun, changed: set[str]) -> dict[str, Any]:
    student, data = run.info["student"], run.data
    images = {name: data.get(name) for name in ("digest", "split", "n_train", "n_eval", "size")}
    # Runs before 0.5.0 call digest what later runs call listing.
    if data.get("listing") and data["listing"] not in changed:
        images["digest"] = data["listing"]
    if images["digest"] is None:
        images["name"] = data.get("name")
    return {"student": student.get("name"), "arguments": student.get("arguments"), "data": images}


def _method_facts(run: DistillationRun) -> dict[str, str]:
    """All that tells one method from another besides its name, by a key that a label can show."""
    info = run.info
    teacher, student = info.get("teacher"), info["student"]
    facts: dict[str, Any] = {}
    given = {method: of or {} for method, of in (info.get("arguments") or {}).items()}
    for method, arguments in completed(given).items():
        for name, value in arguments.items():
            facts[f"argument.{method}.{name}"] = value
    for name, value in (info.get("recipe") or {}).items():
        facts[f"recipe.{name}"] = value
    facts["ce_weight"] = info.get("ce_weight")
    facts["start"] = re.sub(r"[,(]?\s*seed\s*=?\s*\d+\)?", "", str(student.get("weights") or ""))
    if info.get("method") != ALONE:  # it ignores a teacher, even where one is given
        if teacher:
            facts["teacher.name"] = teacher["name"]
            facts["teacher.arguments"] = teacher.get("arguments")
            facts["teacher.digest"] = teacher.get("digest")
        taps = info.get("taps") or []
        targets = info.get("teacher_run")
        facts["targets"] = targets.get("spectra") if targets else None
        facts["taps"] = [[tap.get("student"), tap.get("teacher")] for tap in taps]
    return {name: _text(value) for name, value in facts.items() if value not in (None, "", [], {})}


def _once(runs: Sequence[DistillationRun], notes: list[str]) -> list[DistillationRun]:
    """Sorted by seed, each seed once."""
    by_seed: dict[int, DistillationRun] = {}
    for run in runs:
        other = by_seed.setdefault(run.seed, run)
        if other is run:
            continue
        ours, theirs = run.outcomes.arrays(), other.outcomes.arrays()
        if ours.keys() != theirs.keys() or any(
            not np.array_equal(ours[name], theirs[name]) for name in ours
        ):
            raise UsageError(
                f"runs: expected each seed of {run.method} once; {_place(other)} and {_place(run)} "
                f"both have the seed {run.seed}"
            )
        notes.append(f"{_place(run)} repeats {_place(other)} exactly and is left out.")
    return [by_seed[seed] for seed in sorted(by_seed)]


def _place(run: DistillationRun) -> str:
    return str(run.path) if run.path is not None else f"a run of {run.method}"


def _labelled(gathered: Sequence[Sequence[DistillationRun]]) -> tuple[MethodRuns, ...]:
    facts = [_method_facts(runs[0]) for runs in gathered]
    names = [runs[0].method for runs in gathered]
    methods = []
    for runs, own, name in zip(gathered, facts, names, strict=True):
        alike = [other for other, method in zip(facts, names, strict=True) if method == name]
        differ = [
            key
            for key in dict.fromkeys(key for other in alike for key in other)
            if len({other.get(key) for other in alike}) > 1
        ]
        shown = ", ".join(_shown(key, own.get(key), name) for key in _short(differ))
        label = f"{name} ({shown})" if shown else name
        methods.append(MethodRuns(name, label, own, tuple(runs)))
    return tuple(methods)


def _short(differ: list[str]) -> list[str]:
    """Without facts that others imply: digests of named teachers, weights set by arguments."""
    if "teacher.name" in differ:
        differ = [key for key in differ if not key.startswith("teacher.") or key == "teacher.name"]
    if any(key.endswith(".ce_weight") or key == "argument.ce.weight" for key in differ):
        differ = [key for key in differ if key != "ce_weight"]
    return differ


def _shown(key: str, value: str | None, method: str) -> str:
    name = key.removeprefix("recipe.").removeprefix("argument.").removeprefix(f"{method}.")
    name = name.removesuffix(".name")
    text = "none" if value is None else value.strip('"')
    if key == "taps":
        return f"taps {text}"
    return f"{name}={text[:10] if key == 'teacher.digest' else text}"
