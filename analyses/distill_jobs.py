"""Many trainings, each in a process of its own core; those that are finished are taken as they are.

Not a study by itself: analyses/distill_table.py and analyses/distill_ablation.py use it.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

SEED = 0
"""Of what is held out."""


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        out: directory of the run.
        data: as ``natstats distill --data`` takes it.
        method: a name, or several with +.
        student: name of the network.
        teacher: name of the teacher's network; empty for none. Beside the method ce it trains
            nothing, and the run tells how far from its spectra the student ends by itself.
        teacher_weights: its weights.
        arguments: METHOD.NAME and value.
        recipe: fields of the recipe.
        holdout: share of the training images to evaluate on; 0 for the test images.
        limit: training images; None for all.
        seed: of the training.
    """

    out: Path
    data: str
    method: str
    student: str
    teacher: str = ""
    teacher_weights: Path | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    holdout: float = 0.0
    limit: int | None = None
    seed: int = 0

    @property
    def is_done(self) -> bool:
        """Whether the run is there."""
        return (self.out / "distill.json").is_file()


@lru_cache(maxsize=4)
def _data(source: str, size: int, holdout: float, limit: int | None) -> Any:
    from natstats.distill.training.data import open_labelled
    from natstats.distill.training.recipes import Recipe

    recipe = Recipe(size=size)
    return open_labelled(source, recipe, holdout=holdout, limit=limit, seed=SEED)


def train(job: Job) -> float:
    """Train unless that was done, by this very training; return the accuracy."""
    from natstats.distill.training.distillation import distill
    from natstats.distill.training.out_folders import finished
    from natstats.distill.training.recipes import Recipe
    from natstats.distill.training.setup import Distillation, classifier

    recipe = Recipe.from_preset("default", **job.recipe)
    data = _data(job.data, recipe.size, job.holdout, job.limit)
    n_classes = len(data.classes)
    teacher = None
    if job.teacher:
        teacher = classifier(job.teacher, n_classes, checkpoint=job.teacher_weights)
    setup = Distillation.of(
        classifier(job.student, n_classes, seed=job.seed),
        data,
        job.method,
        teacher=teacher,
        method_args=job.arguments,
        recipe=recipe,
        seed=job.seed,
    )
    run = finished(setup, job.out)
    if run is None:
        run = distill(
            setup,
            job.out,
            report=False,
            evaluate_every=recipe.epochs,  # every epoch's look would only cost time
            command=" ".join(_COMMAND),
        )
    return float(run.accuracy)


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


def run_jobs(jobs: list[Job], processes: int, command: list[str]) -> list[float]:
    """Train all, `processes` at a time; the accuracies in the order of the jobs.

    One that fails is reported, and counts as NaN.
    """
    found = [float("nan")] * len(jobs)
    started = time.monotonic()
    todo = sum(not job.is_done for job in jobs)
    os.environ["OMP_NUM_THREADS"] = "1"
    begin = command, os.getpid()
    with ProcessPoolExecutor(processes, get_context("spawn"), _begin, begin) as pool:
        futures = {pool.submit(train, job): place for place, job in enumerate(jobs)}
        n_done = 0
        for future in as_completed(futures):
            place = futures[future]
            try:
                found[place] = future.result()
            except Exception as error:
                print(f"{jobs[place].out}: {type(error).__name__}: {error}", flush=True)
                continue
            n_done += 1
            if todo:
                minutes = (time.monotonic() - started) / 60
                out = jobs[place].out
                print(
                    f"{n_done} of {len(jobs)}, {minutes:.1f} min: {out.parent.name}/{out.name} "
                    f"{100 * found[place]:.2f} %",
                    flush=True,
                )
    return found


def common_options(parser: argparse.ArgumentParser) -> None:
    """Options of both studies."""
    parser.add_argument("--work", type=Path, required=True, help="the runs go below")
    parser.add_argument("--teacher", default="cifar_resnet20")
    parser.add_argument("--student", default="cifar_resnet8")
    parser.add_argument("--size", type=int, default=32, help="side of the images, pixels")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--holdout", type=float, default=0.2, help="share that chooses weights")


def recipe_of(args: argparse.Namespace, epochs: int) -> dict[str, Any]:
    """Fields of the recipe that all trainings share; half precision, as a CPU is twice as fast."""
    return {
        "epochs": epochs,
        "size": args.size,
        "learning_rate": 0.1,
        "amp": "bf16",
        "channels_last": True,
    }
