"""Distillation from end to end: a training that is set up goes in, a run directory comes out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from natstats import checks
from natstats.distill.record import (
    DataFacts,
    NetworkFacts,
    RunInfo,
    Tap,
    TeacherFacts,
    TeacherRun,
    Term,
)
from natstats.distill.results import GAP, GRADIENTS, HISTORY, DistillationRun, Outcomes
from natstats.distill.run_folders import RECORD, STATE, TABLE, TABLE_FILES, has_state, user_path
from natstats.distill.training.costs import PeakMemory
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import Evaluated, evaluate
from natstats.distill.training.gap import gap_pairs, gap_rows, mean_spectra
from natstats.distill.training.loading import LabelledBatch, TrainBatches, eval_batches, prepared
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import Distillation
from natstats.distill.training.state import TrainingState, refuse_other_settings
from natstats.distill.training.trainer import DTYPES, Trained, Trainer
from natstats.distill.training.weights import weights_file
from natstats.errors import UsageError
from natstats.files.csv_files import write_csv
from natstats.networks.load import Network
from natstats.runs import store
from natstats.runs.provenance import circumstances

__all__ = ["WEIGHTS", "check_out", "check_seeds_out", "distill", "finished"]

WEIGHTS = "student.safetensors"
"""File of the student's weights in the directory of a run."""

_GAP_IMAGES = 512
"""Evaluation images on which the spectral gap is measured, at most."""


_SHARED_OUT = (
    "several processes shared each batch: the gradients of the terms were not measured, and batch "
    "norms saw a process's share"
)


def check_out(path: Path, overwrite: bool) -> None:
    """Raise unless a run may be written to `path`: nothing is there, or a training that was cut.

    Raises:
        UsageError: something else is there, or a finished run and `overwrite` is not set.
    """
    if not path.is_dir() or (any(path.iterdir()) and not has_state(path)):
        store.check_target(path, overwrite, "distill")
    if path.is_dir() and not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"out: expected a place that can be written to; {path} is not")


def check_seeds_out(path: Path) -> None:
    """Raise unless the runs of several seeds may be written to folders in `path`.

    Raises:
        UsageError: something is there that is neither such runs nor their table.
    """
    if not path.exists():
        store.check_target(path, False, "table")
        return
    entries = list(path.iterdir()) if path.is_dir() else [path]
    is_single = (path / RECORD).is_file() or has_state(path)
    has_runs = any(
        re.fullmatch(r"seed-\d+", entry.name) and ((entry / RECORD).is_file() or has_state(entry))
        for entry in entries
    )
    has_other_table = TABLE not in (e.name for e in entries) and any(
        entry.name in TABLE_FILES for entry in entries
    )
    if is_single or (entries and (not has_runs or has_other_table)):
        what = "one training" if is_single else "other things"
        raise UsageError(
            f"out: expected a folder for the runs of several seeds; {path} holds {what} and is kept"
        )


def finished(setup: Distillation, out: str | Path, n_processes: int = 1) -> DistillationRun | None:
    """The run that this very training left in `out`; None where it has not come to its end.

    Args:
        setup: as :func:`distill` takes it, before the training.
        out: directory of the run.
        n_processes: processes that train.

    Raises:
        UsageError: a run of a training with other settings is there; they are named.
    """
    path = user_path(out, "out")
    if not (path / RECORD).is_file():
        return None
    run = DistillationRun.open(path)
    identity = _plain(setup.identity(n_processes))
    refuse_other_settings(run.info.get("identity", {}), identity, f"is in {path}")
    return run


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As a file of JSON gives them back."""
    return dict(json.loads(store.to_json(dict(values))))


def distill(
    setup: Distillation,
    out: str | Path,
    *,
    workers: int = 0,
    together: Processes | None = None,
    overwrite: bool = False,
    command: str = "",
    report: bool = True,
    keep_seconds: float = 300.0,
    evaluate_every: int = 1,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[Mapping[str, Any]], None] | None = None,
) -> DistillationRun:
    """Train a student and write what came of it into a directory.

    A training that was cut goes on where it stood when it is asked for again with the same
    settings, and ends with the same weights as if it had not been cut, bit for bit on a CPU.

    Args:
        setup: what is trained, on what and how; its student is trained in place.
        out: directory of the run.
        workers: processes that read images.
        together: the processes that train; this one alone if None.
        overwrite: begin again and replace what is at `out`, a run or a training that was cut.
        command: as it was typed, for the record.
        report: write figures and the page.
        keep_seconds: the state is kept after every epoch, and when this time has passed.
        evaluate_every: epochs between looks at the evaluation images; the last one counts.
        progress: called with the steps done and to do.
        log: called with each record of the history.

    Raises:
        UsageError: `out` holds something else, or a training with other settings.
        NatstatsError: a loss or a weight is not finite, or a file cannot be read or written.
    """
    checks.positive_int("evaluate_every", evaluate_every)
    path = user_path(out, "out")
    if together is None:
        device = next((p.device for p in setup.student.model.parameters()), torch.device("cpu"))
        together = Processes(0, 1, device)
    if together.is_first:
        check_out(path, overwrite)
    together.wait()
    student = setup.student.model
    recipe, device = setup.recipe, together.device
    if recipe.channels_last:
        for network in (setup.student, setup.teacher):
            if network is not None:
                network.model.to(memory_format=torch.channels_last)
    dtype = DTYPES[recipe.amp]

    def evaluation() -> Iterator[LabelledBatch]:
        return eval_batches(setup.data.evaluation, recipe, workers)

    memory = PeakMemory(device)
    state = TrainingState(path, setup.identity(together.world), begins_again=overwrite)
    gap = _Gap(setup, device, evaluation)

    latest: Evaluated | None = None

    def look() -> tuple[float, float]:
        nonlocal latest
        latest = evaluate(student, evaluation, recipe, device, dtype)
        return latest.loss, latest.accuracy

    def note(row: Mapping[str, Any]) -> None:
        # A finished run that is replaced is none from here on: this history is not its own.
        (path / RECORD).unlink(missing_ok=True)
        # Into a new file: what is at this name may be a link, or no file at all.
        partial = path / f"{STATE}.history"
        partial.unlink(missing_ok=True)
        write_csv(_history(trainer.trained), partial)
        partial.replace(path / "history.csv")
        if log is not None:
            log(row)

    trainer = Trainer(
        student,
        None if setup.teacher is None or not setup.program.needs_teacher else setup.teacher.model,
        setup.program,
        TrainBatches(
            setup.data.train, recipe, setup.seed, workers, together.rank, together.world,
            pin_memory=device.type == "cuda",
        ),
        recipe,
        look,
        together=together,
        seed=setup.seed,
        state=state,
        keep_seconds=keep_seconds,
        evaluate_every=evaluate_every,
        progress=progress,
        log=note,
    )  # fmt: skip
    trained = trainer.train()
    together.wait()
    peak = memory.mebibytes()
    if not together.is_first:
        together.wait()
        return DistillationRun.open(path)
    # The last look is after the last epoch, unless the training was cut behind it.
    final = latest or evaluate(student, evaluation, recipe, device, dtype)
    taught = None
    if setup.teacher is not None:
        taught = evaluate(setup.teacher.model, evaluation, recipe, device, dtype)
    run = _run(setup, state.identity, trained, final, taught, gap.rows(), command, together, peak)
    with store.add_files(path, last=RECORD) as folder:
        facts = {"natstats": "student", "network": setup.student.name, **_normalisation(recipe)}
        # Its own way to a file would be readable by none but its owner.
        (folder / WEIGHTS).write_bytes(weights_file(student.state_dict(), facts))
        run.write(folder)
        if report:
            from natstats.distill.report.pages import write_run_report

            write_run_report(folder, run)
    state.remove()
    together.wait()
    return DistillationRun.open(path)


class _Gap:
    """The spectral gap, of which the first half must be measured before the training."""

    def __init__(
        self, setup: Distillation, device: torch.device, evaluation: Callable[[], Iterator[Any]]
    ) -> None:
        self.setup, self.device, self.evaluation = setup, device, evaluation
        self.pairs: Any = ((), ())
        if setup.teacher is None:
            return
        image = next(iter(self._images()))[:1]
        self.pairs = gap_pairs(setup.student.model, setup.teacher.model, image)
        if self.pairs[0]:
            self.teacher = mean_spectra(setup.teacher.model, self.pairs[1], self._images())
            self.before = mean_spectra(setup.student.model, self.pairs[0], self._images())

    def _images(self) -> Iterator[Tensor]:
        n_left = _GAP_IMAGES
        for batch in self.evaluation():
            yield prepared(batch.images[:n_left], self.setup.recipe, self.device)
            n_left -= len(batch.images)
            if n_left <= 0:
                return

    def rows(self) -> list[dict[str, Any]]:
        if not self.pairs[0]:
            return []
        after = mean_spectra(self.setup.student.model, self.pairs[0], self._images())
        return gap_rows(self.pairs, self.teacher, self.before, after)


def _history(trained: Trained) -> pd.DataFrame:
    """The history with the terms' columns in the middle."""
    frame = pd.DataFrame(trained.history)
    terms = [name for name in frame.columns if name not in HISTORY]
    return frame[[*HISTORY[:5], *sorted(terms), *HISTORY[5:]]]


def _normalisation(recipe: Recipe) -> dict[str, str]:
    """The normalisation, as :func:`natstats.networks.preprocessing.recorded` reads it."""
    named = {"mean": recipe.mean, "std": recipe.std}
    return {name: ",".join(f"{v:.6f}" for v in values) for name, values in named.items() if values}


def _notes_of(role: str, network: Network | None) -> list[str]:
    return [] if network is None else [f"{role}: {note}" for note in network.notes]


def _as_json(value: Any) -> Any:
    """An argument of a builder as a file of JSON gives it back; what it cannot hold as text."""
    try:
        return json.loads(store.to_json(value))
    except (TypeError, ValueError):
        return repr(value)


def _facts(network: Network) -> NetworkFacts:
    arguments = {} if network.builder is None else dict(network.builder.arguments)
    return {
        "name": network.name,
        "arguments": {name: _as_json(value) for name, value in arguments.items()},
        "n_parameters": sum(p.numel() for p in network.model.parameters()),
        "weights": network.weights,
    }


def _run(
    setup: Distillation,
    identity: Mapping[str, Any],
    trained: Trained,
    final: Evaluated,
    taught: Evaluated | None,
    gap: list[dict[str, Any]],
    command: str,
    together: Processes,
    peak: tuple[float, str],
) -> DistillationRun:
    program = setup.program
    curve = [r["eval_accuracy"] for r in trained.history if np.isfinite(r["eval_accuracy"])]
    epochs = [stage.epochs for stage in program.stages]
    teacher: TeacherFacts | None = None
    if setup.teacher is not None and taught is not None:
        teacher = {
            **_facts(setup.teacher),
            "digest": setup.teacher.digest(),
            "accuracy": taught.accuracy,
        }
    n_images = sum(epochs) * len(setup.data.train)
    came = circumstances(together.device, max(trained.seconds, 1e-9), n_images)
    info: RunInfo = {
        # Field by field, so that what is not in the record is found before it is written.
        "created": came["created"],
        "versions": came["versions"],
        "timing": came["timing"],
        "device": came["device"],
        "command": command,
        "method": program.method,
        "terms": cast(list[Term], program.terms_table()),
        "arguments": {name: dict(values) for name, values in program.arguments.items()},
        "ce_weight": program.stages[-1].ce_weight,
        "seed": setup.seed,
        "recipe": setup.recipe.to_dict(),
        "data": cast(DataFacts, setup.data.facts()),
        "student": _facts(setup.student),
        "teacher": teacher,
        "taps": cast(list[Tap], program.taps_table()),
        "teacher_run": cast(TeacherRun | None, program.teacher_run),
        "identity": dict(identity),
        "accuracy": final.accuracy,
        "best_accuracy": max(curve, default=final.accuracy),
        "top5": final.top5 if len(setup.data.classes) > 5 else None,
        "costs": {
            "ms_per_step": trained.ms_per_step,
            "peak_memory_mib": peak[0],
            "memory_of": peak[1],
            "teacher_passes": program.teacher_passes,
            "extra_parameters": program.n_extra_parameters(),
            "epochs": epochs[-1],
            "epochs_before": sum(epochs[:-1]),
            "seconds": trained.seconds,
            "sittings": trained.n_sittings,
        },
        "notes": [
            *program.notes,
            *setup.data.notes,
            *_notes_of("student before training", setup.student),
            *_notes_of("teacher", setup.teacher),
            *([_SHARED_OUT] if together.world > 1 else []),
        ],
    }
    outcomes = Outcomes(
        label=final.label.numpy(),
        predicted=final.predicted.numpy(),
        probability=final.probability.numpy(),
        image=np.array(setup.data.evaluation.names),
        teacher_predicted=None if taught is None else taught.predicted.numpy(),
    )
    gradients = pd.DataFrame(trained.gradients, columns=list(GRADIENTS))
    return DistillationRun(
        info, _history(trained), gradients, outcomes, pd.DataFrame(gap, columns=list(GAP))
    )
