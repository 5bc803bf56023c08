"""Distillation from end to end: a training that is set up goes in, a run directory comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from natstats import checks
from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import RECORD, STATE
from natstats.distill.training.costs import PeakMemory
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import Evaluated, evaluate
from natstats.distill.training.gap import GapMeasurement
from natstats.distill.training.loading import LabelledBatch, TrainBatches, eval_batches, prepared
from natstats.distill.training.out_folders import check_out
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.run_record import Ending, history_frame, run_of
from natstats.distill.training.setup import Distillation
from natstats.distill.training.state import TrainingState
from natstats.distill.training.trainer import DTYPES, Trained, Trainer
from natstats.distill.training.weights import weights_file
from natstats.files.csv_files import write_csv
from natstats.files.paths import expanded
from natstats.networks.load import Network
from natstats.runs import store

__all__ = ["WEIGHTS", "distill"]

WEIGHTS = "student.safetensors"
"""File of the student's weights in the directory of a run."""

_GAP_IMAGES = 512
"""Evaluation images on which the spectral gap is measured, at most."""


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
        command: the command line, for the record.
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
    path = expanded(out, "out")
    together = _alone(setup) if together is None else together
    device = together.device
    if together.is_first:
        check_out(path, overwrite)
    together.wait()
    _set_memory_format(setup)
    evaluation = _Evaluation(setup, device, workers)
    memory = PeakMemory(device)
    state = TrainingState(path, setup.identity(together.world), begins_again=overwrite)
    teacher = None if setup.teacher is None else setup.teacher.model
    gap = GapMeasurement(setup.student.model, teacher, lambda: evaluation.images(_GAP_IMAGES))

    def note(row: Mapping[str, Any]) -> None:
        _write_history(path, trainer.trained)
        if log is not None:
            log(row)

    trainer = Trainer(
        setup.student.model,
        teacher if setup.program.needs_teacher else None,
        setup.program,
        _batches(setup, workers, together),
        setup.recipe,
        evaluation.look,
        together=together,
        seed=setup.seed,
        state=state,
        keep_seconds=keep_seconds,
        evaluate_every=evaluate_every,
        progress=progress,
        log=note,
    )
    trained = trainer.train()
    together.wait()
    peak = memory.mebibytes()
    if together.is_first:
        options = {"evaluate_every": evaluate_every}
        ending = Ending(
            trained, evaluation.student(), evaluation.teacher(), gap.rows(), peak, together,
            command, options,
        )  # fmt: skip
        _write(path, setup, run_of(setup, state.identity, ending), report)
        state.remove()
    together.wait()
    return DistillationRun.open(path)


def _alone(setup: Distillation) -> Processes:
    parameters = setup.student.model.parameters()
    return Processes(0, 1, next((p.device for p in parameters), torch.device("cpu")))


def _set_memory_format(setup: Distillation) -> None:
    for network in (setup.student, setup.teacher):
        if setup.recipe.channels_last and network is not None:
            network.model.to(memory_format=torch.channels_last)


def _batches(setup: Distillation, workers: int, together: Processes) -> TrainBatches:
    return TrainBatches(
        setup.data.train,
        setup.recipe,
        setup.seed,
        workers,
        together.rank,
        together.world,
        pin_memory=together.device.type == "cuda",
    )


class _Evaluation:
    """Predictions of student and teacher for the evaluation images.

    Args:
        setup: the training.
        device: the device that it runs on.
        workers: processes that read images.
    """

    def __init__(self, setup: Distillation, device: torch.device, workers: int) -> None:
        self._setup, self._device, self._workers = setup, device, workers
        self._latest: Evaluated | None = None

    def _batches(self) -> Iterator[LabelledBatch]:
        return eval_batches(self._setup.data.evaluation, self._setup.recipe, self._workers)

    def _of(self, network: Network) -> Evaluated:
        recipe = self._setup.recipe
        return evaluate(network.model, self._batches, recipe, self._device, DTYPES[recipe.amp])

    def images(self, limit: int) -> Iterator[Tensor]:
        """The first images, at most `limit`, as the networks take them."""
        n_left = limit
        for batch in self._batches():
            yield prepared(batch.images[:n_left], self._setup.recipe, self._device)
            n_left -= len(batch.images)
            if n_left <= 0:
                return

    def look(self) -> tuple[float, float]:
        """Loss and accuracy of the student as it is now."""
        self._latest = self._of(self._setup.student)
        return self._latest.loss, self._latest.accuracy

    def student(self) -> Evaluated:
        """The student after the last epoch, by the last look if there was one in this sitting."""
        return self._latest or self._of(self._setup.student)

    def teacher(self) -> Evaluated | None:
        """The teacher; None without one."""
        return None if self._setup.teacher is None else self._of(self._setup.teacher)


def _write_history(path: Path, trained: Trained) -> None:
    # A finished run that is replaced is none from here on: this history is not its own.
    (path / RECORD).unlink(missing_ok=True)
    # Into a new file: what is at this name may be a link, or no file at all.
    partial = path / f"{STATE}.history"
    partial.unlink(missing_ok=True)
    write_csv(history_frame(trained), partial)
    partial.replace(path / "history.csv")


def _write(path: Path, setup: Distillation, run: DistillationRun, report: bool) -> None:
    """Write the weights of the student, the run and its page into the directory."""
    with store.add_files(path, last=RECORD) as folder:
        facts = {"natstats": "student", "network": setup.student.name}
        facts |= _normalisation(setup.recipe)
        weights = weights_file(setup.student.model.state_dict(), facts)
        # Through Python, as a file that the library writes can be read by its owner only.
        (folder / WEIGHTS).write_bytes(weights)
        run.write(folder)
        if report:
            from natstats.distill.report.pages import write_run_report

            write_run_report(folder, run)


def _normalisation(recipe: Recipe) -> dict[str, str]:
    """The normalisation, as :func:`natstats.networks.preprocessing.recorded` reads it."""
    named = {"mean": recipe.mean, "std": recipe.std}
    return {name: ",".join(f"{v:.6f}" for v in values) for name, values in named.items() if values}
