"""The comparison: a teacher, the student alone, nine methods and kd with spectral, on real images.

    python analyses/distill_table.py --data imagefolder:DIR imagefolder:OTHER --work runs/table

For every data set: two teachers, one trained on the part of the training images that is left when
some are held out, one on all of them. The weight of every method is chosen on the held-out images,
with the first teacher, from the same number of candidates (factors on the default weight), with the
same seeds and shorter trainings. Then every method is trained on all training images with the
second teacher, with other seeds, and evaluated on the test images once, after the last epoch.

Trainings that are finished are taken as they are, so that the script goes on where it was cut.
Writes, below analyses/results, distill_table_NAME.json (choices, accuracies, costs),
distill_table_NAME.csv and .md (the comparison, as ``natstats table`` gives it). The runs stay in
--work.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distill_jobs import Job, common_options, recipe_of, run_jobs

from natstats._version import __version__
from natstats.distill.comparison.compare import MethodComparison, compare_runs
from natstats.distill.results import DistillationRun

ROOT = Path(__file__).parents[1]

FACTORS = (0.1, 1.0, 10.0)
"""On the default weight of a method: the candidates."""

WEIGHTS: dict[str, dict[str, float]] = {
    "ce": {},
    "kd": {"kd.weight": 0.9},
    "fitnets": {"fitnets.weight": 4.0},
    "at": {"at.weight": 1000.0},
    "fsp": {"fsp.weight": 1.0},
    "jacobian": {"jacobian.weight": 1.0},
    "ft": {"ft.weight": 500.0},
    "ab": {"ab.weight": 0.003},
    "ofd": {"ofd.weight": 0.001},
    "spectral": {"spectral.weight": 1.0},
    "kd+spectral": {"spectral.weight": 1.0},
}
"""What is chosen for each method, and its default."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare all methods.")
    parser.add_argument("--data", required=True, nargs="+", help="imagefolder:DIR, cifar100:ROOT")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--choosing-epochs", type=int, default=5)
    parser.add_argument("--teacher-epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--choosing-seeds", type=int, default=2)
    parser.add_argument("--limit", type=int, help="training images")
    parser.add_argument("--methods", nargs="+", default=list(WEIGHTS), choices=list(WEIGHTS))
    common_options(parser)
    return parser.parse_args()


def study(args: argparse.Namespace, data: str, command: list[str]) -> dict[str, Any]:
    """Teachers, choices and final trainings on one data set; the record of it."""
    name = Path(data.partition(":")[2]).name
    work = args.work / name
    shared = {"data": data, "limit": args.limit}
    teachers = [
        Job(
            work / f"teacher-{part}", method="ce", student=args.teacher, seed=1000,
            recipe=recipe_of(args, args.teacher_epochs), holdout=holdout, **shared,
        )
        for part, holdout in (("part", args.holdout), ("whole", 0.0))
    ]  # fmt: skip
    taught = run_jobs(teachers, args.processes, command)
    chosen, tried = choose(args, work, teachers[0], shared, command)
    jobs = [
        Job(
            work / "final" / method.replace("+", "_") / f"seed-{seed}", method=method,
            student=args.student, seed=seed, arguments=chosen[method],
            recipe=recipe_of(args, args.epochs), teacher="" if method == "ce" else args.teacher,
            teacher_weights=teachers[1].out / "student.safetensors", **shared,
        )
        for seed in range(args.seeds)
        for method in args.methods
    ]  # fmt: skip
    run_jobs(jobs, args.processes, command)
    runs = [DistillationRun.open(job.out) for job in jobs if job.is_done]
    found = compare_runs(runs)
    write(name, found)
    return {
        "data": runs[0].info["data"] | {"classes": len(runs[0].info["data"]["classes"])},
        "teacher": {"name": args.teacher, "held_out": taught[0], "test": taught[1]},
        "student": args.student,
        "chosen": chosen,
        "tried": tried,
        "failed": [str(job.out.relative_to(work)) for job in jobs if not job.is_done],
        "sentences": found.sentences(),
        "settings": {
            key: getattr(args, key)
            for key in ("epochs", "choosing_epochs", "teacher_epochs", "seeds", "choosing_seeds",
                        "holdout", "limit", "size")
        },
    }  # fmt: skip


def choose(
    args: argparse.Namespace, work: Path, teacher: Job, shared: dict[str, Any], command: list[str]
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """The weight of every method with the highest mean accuracy on the held-out images."""
    candidates = [
        (method, {key: factor * value for key, value in weights.items()})
        for method, weights in WEIGHTS.items()
        if method in args.methods and weights
        for factor in FACTORS
    ]
    # Seeds that the final trainings do not use.
    seeds = range(100, 100 + args.choosing_seeds)
    jobs = [
        Job(
            work / "choosing" / method.replace("+", "_") / _label(weights) / f"seed-{seed}",
            method=method, student=args.student, seed=seed, arguments=weights,
            recipe=recipe_of(args, args.choosing_epochs), holdout=args.holdout,
            teacher=args.teacher, teacher_weights=teacher.out / "student.safetensors", **shared,
        )
        for seed in seeds
        for method, weights in candidates
    ]  # fmt: skip
    accuracy = np.array(run_jobs(jobs, args.processes, command)).reshape(len(seeds), -1)
    # A candidate whose training broke down is none.
    means = np.where(np.isfinite(accuracy).all(0), accuracy.mean(0), -np.inf)
    chosen: dict[str, dict[str, float]] = {method: {} for method in args.methods}
    tried = []
    for place, (method, weights) in enumerate(candidates):
        tried.append({"method": method, **weights, "held_out": float(means[place])})
        others = [means[k] for k, (m, _) in enumerate(candidates) if m == method]
        if means[place] == max(others) and not chosen[method]:
            chosen[method] = weights
    return chosen, tried


def _label(weights: dict[str, float]) -> str:
    return "-".join(f"{value:g}" for value in weights.values())


def write(name: str, found: MethodComparison) -> None:
    """The tables of a comparison."""
    results = ROOT / "analyses" / "results"
    found.methods.to_csv(results / f"distill_table_{name}.csv", index=False)
    (results / f"distill_table_{name}.md").write_text(found.markdown() + "\n", encoding="utf-8")


def main() -> None:
    """Run the study on every data set and write what came out."""
    args = parse_arguments()
    command = ["python", *sys.argv]
    for data in args.data:
        began = time.monotonic()
        record = study(args, data, command)
        record["minutes"] = round((time.monotonic() - began) / 60, 1)
        record["command"] = " ".join(command)
        record["versions"] = {
            "natstats": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        }
        name = Path(data.partition(":")[2]).name
        path = ROOT / "analyses" / "results" / f"distill_table_{name}.json"
        path.write_text(json.dumps(record, indent=1, default=str) + "\n", encoding="utf-8")
        print("\n".join(record["sentences"]))


if __name__ == "__main__":
    main()
