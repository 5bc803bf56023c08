"""Making the run of a training that has ended: facts, tables and outcomes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import pandas as pd

from natstats.distill.record import (
    Asked,
    AskedNetwork,
    Costs,
    DataFacts,
    NetworkFacts,
    RunInfo,
    Tap,
    TeacherFacts,
    TeacherRun,
    Term,
)
from natstats.distill.results import GAP, GRADIENTS, HISTORY, DistillationRun, Outcomes
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import Evaluated
from natstats.distill.training.setup import Distillation
from natstats.distill.training.trained import Trained
from natstats.files.json_files import to_json
from natstats.files.paths import is_relative
from natstats.networks.load import Network
from natstats.runs.provenance import circumstances, device_facts
from natstats.text import printable

__all__ = ["Ending", "history_frame", "run_of"]

_SHARED_OUT = (
    "several processes shared each batch: the gradients of the terms were not measured, and batch "
    "norms saw a process's share"
)


@dataclass(frozen=True, eq=False)
class Ending:
    """What a training has given by its end, for its run.

    Attributes:
        trained: history, gradients and times.
        student: predictions of the student for the evaluation images, after the last epoch.
        teacher: predictions of the teacher; None without one.
        gap: a record for each pair of layers of the spectral gap.
        peak_memory: peak, MiB, and whose memory it is: ``device`` or ``process``.
        together: the processes that trained.
        command: the command line.
        options: options of :func:`natstats.distill.training.distillation.distill`, as it takes
            them; a repetition uses them too.
        notes: what else a reader must know, in clauses.
    """

    trained: Trained
    student: Evaluated
    teacher: Evaluated | None
    gap: list[dict[str, Any]]
    peak_memory: tuple[float, str]
    together: Processes
    command: str
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def run_of(setup: Distillation, identity: Mapping[str, Any], ending: Ending) -> DistillationRun:
    """The run of a training that has ended.

    Args:
        setup: what was trained.
        identity: all that was asked for, see :meth:`Distillation.identity`.
        ending: what came of it.
    """
    student, teacher = ending.student, ending.teacher
    outcomes = Outcomes(
        label=student.label.numpy(),
        predicted=student.predicted.numpy(),
        probability=student.probability.numpy(),
        image=np.array(setup.data.evaluation.names),
        teacher_predicted=None if teacher is None else teacher.predicted.numpy(),
    )
    return DistillationRun(
        _info(setup, identity, ending),
        history_frame(ending.trained),
        pd.DataFrame(ending.trained.gradients, columns=list(GRADIENTS)),
        outcomes,
        pd.DataFrame(ending.gap, columns=list(GAP)),
    )


def history_frame(trained: Trained) -> pd.DataFrame:
    """The history as a table, the columns of the terms in the middle."""
    frame = pd.DataFrame(trained.history)
    terms = [name for name in frame.columns if name not in HISTORY]
    # A training resumed from a state of an older version may lack columns.
    return frame.reindex(columns=[*HISTORY[:5], *sorted(terms), *HISTORY[5:]])


def _info(setup: Distillation, identity: Mapping[str, Any], ending: Ending) -> RunInfo:
    program, trained = setup.program, ending.trained
    n_all = len(setup.data.evaluation)
    curve = [  # only evaluations on all images: the best of many samples would be the luckiest
        row["eval_accuracy"]
        for row in trained.history
        if np.isfinite(row["eval_accuracy"]) and row.get("eval_images", n_all) == n_all
    ]
    n_images = sum(stage.epochs for stage in program.stages) * len(setup.data.train)
    came = circumstances(device_facts(ending.together.device), trained.seconds, n_images)
    final = ending.student
    # Field by field, so that what is not in the record is found before it is written.
    return {
        "created": came["created"],
        "versions": came["versions"],
        "timing": came["timing"],
        "device": came["device"],
        "command": ending.command,
        "method": program.method,
        "terms": cast(list[Term], program.terms_table()),
        "arguments": {name: dict(values) for name, values in program.arguments.items()},
        "ce_weight": program.stages[-1].ce_weight,
        "seed": setup.seed,
        "recipe": setup.recipe.to_dict(),
        "data": cast(DataFacts, setup.data.facts()),
        "student": _network_facts(setup.student),
        "teacher": _teacher_facts(setup.teacher, ending.teacher),
        "taps": cast(list[Tap], program.taps_table()),
        "teacher_run": cast(TeacherRun | None, program.teacher_run),
        "identity": dict(identity),
        "asked": _asked(setup, ending),
        "accuracy": final.accuracy,
        "best_accuracy": max(curve, default=final.accuracy),
        "top5": final.top5 if len(setup.data.classes) > 5 else None,
        "costs": _costs(setup, ending),
        "notes": [
            *program.notes,
            *setup.data.notes,
            *_notes_of("student before training", setup.student),
            *_notes_of("teacher", setup.teacher),
            *ending.notes,
            *([_SHARED_OUT] if ending.together.world > 1 else []),
        ],
    }


def _asked(setup: Distillation, ending: Ending) -> Asked:
    return {
        "student": _asked_network(setup.student),
        "teacher": None if setup.teacher is None else _asked_network(setup.teacher),
        "limit": setup.data.limit,
        "strict": setup.data.strict,
        "taps": [list(pair) for pair in setup.named_taps],
        "teacher_run": setup.run_path,
        "folder": _folder(setup),
        "options": {name: _as_json(value) for name, value in ending.options.items()},
    }


def _folder(setup: Distillation) -> str | None:
    """The current folder, if a path that was asked for is relative to it; None otherwise."""
    networks = [one.source for one in (setup.student, setup.teacher) if one is not None]
    paths = [None if one is None else one.checkpoint for one in networks]
    paths += [setup.run_path, setup.data.source.partition(":")[2]]
    if not any(is_relative(path) for path in paths if path):
        return None
    try:
        return printable(os.getcwd())
    except OSError:  # it was deleted meanwhile
        return None


def _asked_network(network: Network) -> AskedNetwork | None:
    if network.source is None:
        return None
    values = asdict(network.source)
    arguments = {name: _as_json(one) for name, one in values["model_args"].items()}
    return cast(AskedNetwork, {**values, "model_args": arguments})


def _costs(setup: Distillation, ending: Ending) -> Costs:
    epochs = [stage.epochs for stage in setup.program.stages]
    return {
        "ms_per_step": ending.trained.ms_per_step,
        "peak_memory_mib": ending.peak_memory[0],
        "memory_of": ending.peak_memory[1],
        "teacher_passes": setup.program.teacher_passes,
        "extra_parameters": setup.program.n_extra_parameters(),
        "epochs": epochs[-1],
        "epochs_before": sum(epochs[:-1]),
        "seconds": ending.trained.seconds,
        "sittings": ending.trained.n_sittings,
    }


def _teacher_facts(teacher: Network | None, evaluated: Evaluated | None) -> TeacherFacts | None:
    if teacher is None or evaluated is None:
        return None
    return {
        **_network_facts(teacher), "digest": teacher.digest(), "accuracy": evaluated.accuracy,
    }  # fmt: skip


def _network_facts(network: Network) -> NetworkFacts:
    arguments = {} if network.builder is None else dict(network.builder.arguments)
    return {
        "name": network.name,
        "arguments": {name: _as_json(value) for name, value in arguments.items()},
        "n_parameters": sum(p.numel() for p in network.model.parameters()),
        "weights": network.weights,
    }


def _as_json(value: Any) -> Any:
    """A value as it comes back from a JSON file; as text where JSON cannot hold it."""
    try:
        return json.loads(to_json(value))
    except (TypeError, ValueError):
        return repr(value)


def _notes_of(role: str, network: Network | None) -> list[str]:
    return [] if network is None else [f"{role}: {note}" for note in network.notes]
