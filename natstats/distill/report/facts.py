"""How a distillation run was trained, as its page shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from natstats.numbers import count, short

if TYPE_CHECKING:
    from natstats.distill.record import TeacherFacts
    from natstats.distill.results import DistillationRun

__all__ = ["facts_of"]


def facts_of(run: DistillationRun) -> list[tuple[str, str]]:
    """How the run was trained: pairs of label and value, without what is not known."""
    info, data, costs = run.info, run.data, run.info.get("costs") or {}
    student, teacher = info["student"], info.get("teacher")
    classes = data.get("classes")
    arguments = info.get("arguments") or {}
    memory = costs.get("peak_memory_mib")
    rows = [
        ("student", student.get("name")),
        ("its parameters", _count(student.get("n_parameters"))),
        ("it started from", student.get("weights")),
        *(_teacher_facts(teacher) if teacher else []),
        ("teacher run, for targets", _pairs(info.get("teacher_run"))),
        ("images", data.get("name")),
        ("digest of the images", data.get("digest")),
        ("classes", len(classes) if isinstance(classes, list) else None),
        ("images for training", _count(data.get("n_train"))),
        ("images for evaluation", _count(data.get("n_eval"))),
        ("split", data.get("split")),
        ("size", data.get("size")),
        ("seed", info.get("seed")),
        *((f"arguments of {name}", _pairs(own)) for name, own in arguments.items()),
        ("recipe", _pairs(info.get("recipe"))),
        ("epochs of the main stage", costs.get("epochs")),
        ("epochs of stages before", costs.get("epochs_before")),
        ("time of a step", _unit(costs.get("ms_per_step"), "ms")),
        (f"peak memory ({costs.get('memory_of') or 'process'})", _unit(memory, "MiB")),
        ("passes of the teacher, a step", costs.get("teacher_passes")),
        ("extra parameters", _count(costs.get("extra_parameters"))),
        ("time", _unit(costs.get("seconds"), "s")),
        ("ended", info.get("created")),
        ("machine", _pairs(info.get("device"))),
        ("versions", _pairs(info.get("versions"))),
    ]  # fmt: skip
    return [(label, str(value)) for label, value in rows if value not in (None, "")]


def _teacher_facts(teacher: TeacherFacts) -> list[tuple[str, str | None]]:
    return [
        ("teacher", teacher["name"]),
        ("parameters of the teacher", _count(teacher.get("n_parameters"))),
        ("weights of the teacher", teacher.get("weights")),
        ("digest of the teacher", teacher.get("digest")),
    ]


def _count(value: Any) -> str | None:
    return count(value) if value is not None else None


def _unit(value: Any, unit: str) -> str | None:
    return None if value is None else f"{short(value)} {unit}"


def _pairs(values: Any) -> str:
    if not isinstance(values, Mapping):
        return "" if values is None else str(values)
    return ", ".join(f"{key} {_plain(value)}" for key, value in values.items() if value is not None)


def _plain(value: Any) -> str:
    """A value in short form, with six digits."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    return short(value, 6) if isinstance(value, float) else str(value)
