"""Many trainings, each in a process of one thread; those that are finished are taken as they are.

Not a study by itself: analyses/distill_table.py uses it.
"""

from __future__ import annotations

import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from distill_studies import Network, digest

__all__ = ["Job", "Outcome", "Workers", "train"]

SEED = 0
"""Of what is held out, and of what a limit keeps."""

ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824"}
"""Memory that is given back at every step and asked for again costs a tenth of a training."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        out: directory of the run.
        data: as ``natstats distill --data`` takes it.
        method: a name, or several with +.
        student: the network.
        start: file of weights that the student begins from; None for random ones.
        teacher: its network; None for none.
        teacher_weights: its weights.
        teacher_key: how it was trained.
        arguments: METHOD.NAME and value.
        recipe: fields of the recipe.
        holdout: share of the training images to evaluate on; 0 for the test images.
        limit: training images; None for all.
        seed: of the training.
        options: what else :func:`natstats.distill.distill` takes, where it does.
    """

    out: Path
    data: str
    method: str
    student: Network
    start: Path | None = None
    teacher: Network | None = None
    teacher_weights: Path | None = None
    teacher_key: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    holdout: float = 0.0
    limit: int | None = None
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Whether the run is there."""
        return (self.out / "distill.json").is_file()

    @property
    def key(self) -> str:
        """A name for what is trained, wherever it is kept."""
        facts = asdict(self)
        for name in ("out", "data", "start", "teacher_weights", "options"):
            del facts[name]
        return digest(facts)


@dataclass(frozen=True)
class Outcome:
    """What came of a training.

    Attributes:
        accuracy: after the last epoch; NaN where it broke down.
        facts: what the table of rows holds beside it.
        curve: epoch, accuracy of each look on the way.
        error: why it broke down; empty if it did not.
    """

    accuracy: float
    facts: dict[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    error: str = ""


@lru_cache(maxsize=4)
def _data(source: str, size: int, holdout: float, limit: int | None) -> Any:
    from natstats.distill.training.data import open_labelled
    from natstats.distill.training.recipes import Recipe

    recipe = Recipe(size=size)
    return open_labelled(source, recipe, holdout=holdout, limit=limit, seed=SEED)


def train(job: Job) -> Outcome:
    """Train unless that was done, by this very training."""
    from natstats.distill.training.distillation import distill
    from natstats.distill.training.out_folders import finished
    from natstats.distill.training.recipes import Recipe
    from natstats.distill.training.setup import Distillation, classifier
    from natstats.distill.training.soundness import NotFiniteError
    from natstats.errors import UsageError

    recipe = Recipe.from_preset("default", **job.recipe)
    assert recipe.size is not None
    data = _data(job.data, recipe.size, job.holdout, job.limit)
    n_classes = len(data.classes)
    teacher = None
    if job.teacher is not None:
        teacher = classifier(
            job.teacher.name, n_classes, checkpoint=job.teacher_weights,
            model_args=job.teacher.arguments,
        )  # fmt: skip
    student = classifier(
        job.student.name, n_classes, checkpoint=job.start, model_args=job.student.arguments,
        seed=job.seed,
    )  # fmt: skip
    setup = Distillation.of(
        student,
        data,
        job.method,
        teacher=teacher,
        method_args=job.arguments,
        recipe=recipe,
        seed=job.seed,
    )
    run = finished(setup, job.out)
    if run is None:
        takes = inspect.signature(distill).parameters
        options = {name: value for name, value in job.options.items() if name in takes}
        options |= {"report": False, "command": " ".join(_COMMAND)}
        try:
            try:
                run = distill(setup, job.out, **options)
            except UsageError as error:
                if not str(error).startswith("teacher_cache:"):
                    raise
                # Not every method takes kept outputs.
                print(f"{job.out}: without kept outputs: {error}", flush=True)
                del options["teacher_cache"]
                run = distill(setup, job.out, **options)
        except NotFiniteError as error:
            return Outcome(float("nan"), error=str(error))
    return _outcome(run)


def _outcome(run: Any) -> Outcome:
    costs = run.info.get("costs") or {}
    rows = run.history[run.history.stage == "main"]
    rows = rows[rows.eval_accuracy.notna()]
    facts = {
        "n_train": run.data.get("n_train"),
        "n_eval": run.data.get("n_eval"),
        "split": run.data.get("split"),
        "teacher_accuracy": run.teacher_accuracy,
        "seconds": costs.get("seconds"),
        "ms_per_step": costs.get("ms_per_step"),
        "epochs": (costs.get("epochs") or 0) + (costs.get("epochs_before") or 0),
        "natstats": (run.info.get("versions") or {}).get("natstats"),
    }
    curve = tuple(zip(rows.epoch.tolist(), rows.eval_accuracy.tolist(), strict=True))
    return Outcome(float(run.accuracy), facts, curve)


_COMMAND: list[str] = []


def _begin(command: list[str], parent: int) -> None:
    import torch

    torch.set_num_threads(1)
    _COMMAND[:] = command
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when that of its parent ends, which may be killed without a word."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


class Workers:
    """Processes of one thread each, that train jobs; begun once, as their start takes seconds.

    Args:
        processes: at a time.
        command: the command line, for the records.
    """

    def __init__(self, processes: int, command: list[str]) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        for name, value in ALLOCATOR.items():
            os.environ.setdefault(name, value)
        begin = command, os.getpid()
        self._n = processes
        self._pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin, begin)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(
        self,
        jobs: Sequence[Job],
        done: Callable[[int, Outcome], None],
        deadline: float | None = None,
    ) -> bool:
        """Train all in their order.

        Args:
            jobs: what is trained; those that are finished are read.
            done: called with the place of a job and what came of it, as soon as it is known.
            deadline: time of ``time.monotonic`` after which none is begun.

        Returns:
            Whether all have come to an end. One that fails for another reason than that it broke
            down is told, and is begun again by the next call.
        """
        running: dict[Future[Outcome], int] = {}
        n_ended = 0
        for place, job in _until(iter(enumerate(jobs)), deadline):
            running[self._pool.submit(train, job)] = place
            while len(running) >= self._n:
                n_ended += _ended(running, jobs, done)
        while running:
            n_ended += _ended(running, jobs, done)
        return n_ended == len(jobs)


def _until(waiting: Iterator[tuple[int, Job]], deadline: float | None) -> Iterator[tuple[int, Job]]:
    for place, job in waiting:
        if deadline is not None and time.monotonic() > deadline:
            return
        yield place, job


def _ended(
    running: dict[Future[Outcome], int], jobs: Sequence[Job], done: Callable[[int, Outcome], None]
) -> int:
    """Wait for one; the number of those that came to an end."""
    n = 0
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        place = running.pop(future)
        try:
            outcome = future.result()
        except Exception as error:
            print(f"{jobs[place].out}: {type(error).__name__}: {error}", flush=True)
            continue
        done(place, outcome)
        n += 1
    return n
