"""Distillation from end to end: a training that is set up goes in, a run directory comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from natstats import checks
from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import RECORD, STATE
from natstats.distill.training.compiling import Compile, CompiledNetworks, compiled_networks
from natstats.distill.training.costs import PeakMemory
from natstats.distill.training.distributed import Processes
from natstats.distill.training.evaluation import (
    Evaluated,
    Looks,
    checked_looks,
    evaluate,
    usual_sample,
)
from natstats.distill.training.gap import GapMeasurement
from natstats.distill.training.loading import LabelledBatch, TrainBatches, eval_batches, prepared
from natstats.distill.training.out_folders import Takeover, reserved
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.run_record import Ending, history_frame, run_of
from natstats.distill.training.setup import Distillation
from natstats.distill.training.splits import limited
from natstats.distill.training.state import TrainingState
from natstats.distill.training.teacher_cache import CacheKey
from natstats.distill.training.teacher_evaluation import kept_evaluation
from natstats.distill.training.trained import Trained
from natstats.distill.training.trainer import Trainer
from natstats.distill.training.training_cache import cache_of, refuse_lone_limit, told_apart
from natstats.distill.training.weights import weights_file
from natstats.errors import NatstatsError, UsageError
from natstats.files.csv_files import write_csv
from natstats.files.paths import expanded
from natstats.networks.load import Network
from natstats.runs import store

__all__ = ["WEIGHTS", "distill", "looks_of"]

WEIGHTS = "student.safetensors"
"""File of the student's weights in the directory of a run."""

_SAMPLE = 0
"""Seed of the samples of evaluation images, for evaluations on the way and for the gap."""


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
    teacher_cache: str | Path | None = None,
    teacher_cache_limit: float | None = None,
    compile: Compile = "none",
    evaluate_every: int = 1,
    evaluate_on: int | None = None,
    gap: bool = True,
    gap_on: int | None = None,
    gradients: bool = True,
    progress: Callable[[int, int], None] | None = None,
    log: Callable[[Mapping[str, Any]], None] | None = None,
) -> DistillationRun:
    """Train a student and write the results into a directory.

    A training that was interrupted resumes where it stopped when it is called again with the same
    settings, and ends with the same weights as without the interruption, bit for bit on a CPU.

    Args:
        setup: what is trained, on what and how; its student is trained in place.
        out: directory of the run.
        workers: processes that read images.
        together: the processes that train; this one alone if None.
        overwrite: begin again and replace what is at `out`, a run or an unfinished training.
        command: the command line, for the record.
        report: write figures and the page.
        keep_seconds: the state is kept after every epoch, and whenever this time has passed.
        teacher_cache: folder in which the teacher's outputs are kept for this and other trainings,
            see :mod:`natstats.distill.training.teacher_cache`; None runs the teacher in each step.
        teacher_cache_limit: how large that folder may get, GiB, with what is in it already; None
            for as large as the disk allows, less one. For the epochs for which there is no room,
            the teacher runs in the steps. Scores and maps may differ in the last digits between a
            cache and a step, as the teacher sees other batches.
        compile: ``none``, or the network that runs compiled by torch in steps where no tap sits in
            it: ``student``, ``teacher`` or ``both``. The first steps take longer, for compiling,
            and values may round differently in the last digits. Measure first: a small network can
            be slower with it, as cifar_resnet8 was on a CPU.
        evaluate_every: epochs between evaluations; the accuracy of the run is that of the last one.
        evaluate_on: images of the evaluations before the last, a random sample with the shares of
            the classes, the same each time; None for an eighth of the number of training images,
            at least 64. The last evaluation is on all.
        gap: measure the spectral gap before and after the training.
        gap_on: images for the gap, such a sample too; None for a sixtieth of the images of all
            epochs of the main stage, at least 64 and at most 512.
        gradients: measure the gradients of the terms in the first epoch of a stage, and again each
            time after as many epochs as have 100 steps together.
        progress: called with the steps done and to do.
        log: called with each record of the history.

    Raises:
        UsageError: `out` holds something else, or a training with other settings; or the outputs of
            this teacher cannot be kept, or a network cannot be compiled, as taps sit in it.
        NatstatsError: a loss or a weight is not finite, a file cannot be read or written, or
            torch.compile cannot compile a network, perhaps for lack of a C++ compiler.
    """
    options = looks_of(
        setup, evaluate_every=evaluate_every, evaluate_on=evaluate_on, gap=gap, gap_on=gap_on,
        gradients=gradients,
    )  # fmt: skip
    options["compile"] = compile
    evaluate_on, gap_on = options["evaluate_on"], options["gap_on"]
    path = expanded(out, "out")
    refuse_lone_limit(teacher_cache, teacher_cache_limit)
    checks.flag("overwrite", overwrite)
    checks.flag("report", report)
    checks.finite("keep_seconds", keep_seconds, least=0)
    compiled = _compiled(compile, setup, teacher_cache)
    together = _alone(setup) if together is None else together
    device = together.device
    with reserved(path, overwrite) if together.is_first else contextlib.nullcontext():
        together.wait()
        _set_memory_format(setup)
        evaluation = _Evaluation(setup, device, workers, evaluate_on, teacher_cache)
        memory = PeakMemory(device)
        state = TrainingState(path, setup.identity(together.world), begins_again=overwrite)
        teacher = None if setup.teacher is None else setup.teacher.model
        gaps = GapMeasurement(
            setup.student.model,
            teacher if gap and together.is_first else None,
            lambda: evaluation.images(gap_on),
            setup.program.traces,
        )

        takeover = Takeover(path)

        def step(done: int, total: int) -> None:
            takeover.refuse()
            if progress is not None:
                progress(done, total)

        def note(row: Mapping[str, Any]) -> None:
            _write_history(path, trainer.trained)
            if log is not None:
                log(row)

        batches = _batches(setup, workers, together)
        cache = None
        if teacher_cache is not None:
            cache = cache_of(setup, batches, together, teacher_cache, teacher_cache_limit)
        trainer = Trainer(
            setup.student.model,
            teacher if setup.program.needs_teacher else None,
            setup.program,
            batches,
            setup.recipe,
            evaluation.looks(),
            together=together,
            seed=setup.seed,
            state=state,
            keep_seconds=keep_seconds,
            evaluate_every=evaluate_every,
            gradients_every=None if gradients else 0,
            n_classes=len(setup.data.classes),
            progress=step,
            log=note,
            cache=cache,
            compiled=compiled,
        )
        trained = trainer.train()
        together.wait()
        peak = memory.mebibytes()
        if together.is_first:
            ending = Ending(
                trained, evaluation.student(), evaluation.teacher(), gaps.rows(), peak, together,
                command, options, notes=() if cache is None else cache.notes,
            )  # fmt: skip
            _write(path, setup, run_of(setup, state.identity, ending), report)
            state.remove()
        together.wait()
        return DistillationRun.open(path)


def looks_of(setup: Distillation, **options: Any) -> dict[str, Any]:
    """Options of evaluation, gap and gradients, with open numbers of images filled in.

    Args:
        setup: what is trained.
        options: those of :func:`distill` from ``evaluate_every`` to ``gradients``, by name.

    Raises:
        UsageError: an option is invalid.
    """
    checked_looks(options)
    usual = {"evaluate_on": usual_sample(len(setup.data.train)), "gap_on": _gap_images(setup)}
    sizes = {n: _sample_size(n, options.get(n), setup, usual[n]) for n in usual}
    return {**options, **sizes}


def _sample_size(name: str, asked: int | None, setup: Distillation, usual: int) -> int:
    """Images of a sample: at least as many as there are classes, at most all."""
    n_images, n_classes = len(setup.data.evaluation), len(setup.data.classes)
    if asked is None:
        return min(max(usual, n_classes), n_images)
    if checks.positive_int(name, asked) < n_classes:
        raise UsageError(f"{name}: expected at least the {n_classes} classes; got {asked}")
    return min(asked, n_images)


def _gap_images(setup: Distillation) -> int:
    """Images of the usual gap, which takes two passes of the student and one of the teacher."""
    n_trained = len(setup.data.train) * setup.program.stages[-1].epochs
    return min(max(64, n_trained // 60), 512)


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


def _compiled(
    chosen: str, setup: Distillation, teacher_cache: str | Path | None
) -> CompiledNetworks:
    teacher = None if setup.teacher is None else setup.teacher.model
    return compiled_networks(
        chosen, setup.student.model, teacher, setup.program, is_cached=teacher_cache is not None
    )


class _Evaluation:
    """Predictions of student and teacher for the evaluation images.

    Args:
        setup: the training.
        device: the device that it runs on.
        workers: processes that read images.
        n_sample: images of an evaluation before the last.
        cache: folder of a cache of the teacher's outputs; None for none.
    """

    def __init__(
        self,
        setup: Distillation,
        device: torch.device,
        workers: int,
        n_sample: int,
        cache: str | Path | None = None,
    ) -> None:
        self._setup, self._device, self._workers = setup, device, workers
        self._n_sample = n_sample
        self._cache = None if cache is None else expanded(cache, "teacher_cache")
        self._latest: Evaluated | None = None

    def _sample(self, n_images: int) -> NDArray[np.int64]:
        """Places of a random sample with the shares of the classes, the same at every call."""
        return limited(self._setup.data.evaluation.labels.numpy(), n_images, _SAMPLE)

    def _batches(self, n_images: int | None = None) -> Iterator[LabelledBatch]:
        data, recipe = self._setup.data.evaluation, self._setup.recipe
        places = None if n_images is None else self._sample(n_images)
        return eval_batches(data, recipe, self._workers, places=places)

    def _of(self, network: Network, n_images: int | None = None) -> Evaluated:
        return evaluate(
            network.model, lambda: self._batches(n_images), self._setup.recipe, self._device
        )

    def images(self, n_images: int) -> Iterator[Tensor]:
        """A sample of images as the networks take them."""
        for batch in self._batches(n_images):
            yield prepared(batch.images, self._setup.recipe, self._device)

    def looks(self) -> Looks:
        """The evaluations of the student: on all images, and on a sample on the way."""
        return Looks(self.look, len(self._setup.data.evaluation), self.glance, self._n_sample)

    def glance(self) -> tuple[float, float]:
        """Loss and accuracy of the student as it is now, on a sample."""
        found = self._of(self._setup.student, self._n_sample)
        return found.loss, found.accuracy

    def look(self) -> tuple[float, float]:
        """Loss and accuracy of the student as it is now."""
        self._latest = self._of(self._setup.student)
        return self._latest.loss, self._latest.accuracy

    def student(self) -> Evaluated:
        """Predictions of the student after the last epoch, from a look in this sitting if any."""
        return self._latest or self._of(self._setup.student)

    def teacher(self) -> Evaluated | None:
        """Predictions of the teacher; None without one."""
        teacher = self._setup.teacher
        if teacher is None or self._cache is None:
            return None if teacher is None else self._of(teacher)
        images = self._setup.data.evaluation
        key = CacheKey.of(told_apart(teacher), images.digest(), self._setup.recipe, 0)
        return kept_evaluation(self._cache, key, len(images), lambda: self._of(teacher))


def _write_history(path: Path, trained: Trained) -> None:
    # Into a new file: what is at the final name may be a link, or not a regular file.
    partial = path / f"{STATE}.history"
    try:
        partial.unlink(missing_ok=True)
        write_csv(history_frame(trained), partial)
        partial.replace(path / "history.csv")
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise NatstatsError(
            f"out: expected a place for {path / 'history.csv'}; {error.strerror or error} (the "
            "state of the training is kept, and the same command goes on from there)"
        ) from error


def _write(path: Path, setup: Distillation, run: DistillationRun, report: bool) -> None:
    """Write the weights of the student, the run and its page into the directory."""
    with store.add_files(path, last=RECORD) as folder:
        facts = {"natstats": "student", "network": setup.student.name}
        facts |= _normalisation(setup.recipe)
        weights = weights_file(setup.student.model.state_dict(), facts)
        # Written by Python, as the library makes files that only their owner can read.
        (folder / WEIGHTS).write_bytes(weights)
        run.write(folder)
        if report:
            from natstats.distill.report.pages import write_run_report

            write_run_report(folder, run)


def _normalisation(recipe: Recipe) -> dict[str, str]:
    """The normalisation, as :func:`natstats.networks.preprocessing.recorded` reads it."""
    named = {"mean": recipe.mean, "std": recipe.std}
    return {name: ",".join(f"{v:.6f}" for v in values) for name, values in named.items() if values}
