"""The comparison: a teacher, the student alone, nine methods and kd with spectral, on real images.

    python analyses/distill_table.py --data imagefolder:DIR imagefolder:OTHER --work runs/table

For every data set: two teachers, one trained on the part of the training images that is left when
some are held out, one on all of them. The weights of every method are chosen on the held-out
images, with the first teacher, among three candidates, with the same seeds and shorter trainings;
kd+spectral takes the weights chosen for kd and chooses that of its spectral terms, so that six
candidates stand behind it. Then every
method is trained on all training images with the second teacher, with other seeds, and evaluated on
the test images once, after the last epoch.

Trainings that are finished are taken as they are, so that the script goes on where it was cut.
Writes, below analyses/results, distill_table_NAME.json (choices, accuracies, costs),
distill_table_NAME.csv, _terms.csv and .md (the comparison, as ``natstats table`` gives it). The
runs stay in --work. A few methods again, with seeds of their own:

    python analyses/distill_table.py --data imagefolder:DIR --work runs/again --ending _again \
        --methods ce kd ab spectral kd+spectral --first-seed 5 --seeds 6
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from distill_jobs import Job, common_options, recipe_of, run_jobs

from natstats._version import __version__
from natstats.distill.comparison.compare import MethodComparison, compare_runs
from natstats.distill.methods import METHODS
from natstats.distill.results import DistillationRun
from natstats.distill.run_folders import find_runs
from natstats.runs.store import to_json

ROOT = Path(__file__).parents[1]

FACTORS = (0.1, 1.0, 10.0)
"""On the default weight of a method: its candidates."""

Arguments = dict[str, Any]


def weights_of(method: str) -> list[float]:
    """Candidates for the weight of a method."""
    return [float(f"{factor * METHODS[method].defaults['weight']:.6g}") for factor in FACTORS]


CANDIDATES: dict[str, list[Arguments]] = {
    "ce": [{}],
    # Its second weight is that of the labels, which is 1 in all other methods.
    "kd": [
        {"kd.weight": 0.9, "kd.ce_weight": 0.1},
        {"kd.weight": 0.9, "kd.ce_weight": 1.0},
        {"kd.weight": 9.0, "kd.ce_weight": 1.0},
    ],
    **{
        name: [{f"{name}.weight": weight} for weight in weights_of(name)]
        for name in METHODS
        if name not in ("ce", "kd", "ab")
    },
    # As its authors train it there are no labels in its main stage; the other form has them.
    "ab": [
        {"ab.weight": 0.0003},
        {"ab.weight": 0.003},
        {"ab.weight": 0.003, "ab.form": "crd"},
    ],
    # Beside kd as it was chosen by itself.
    "kd+spectral": [{"spectral.weight": weight} for weight in weights_of("spectral")],
}
"""Arguments among which those of a method are chosen, equally many for all."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare all methods.")
    parser.add_argument("--data", required=True, nargs="+", help="imagefolder:DIR, cifar100:ROOT")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--choosing-epochs", type=int, default=5)
    parser.add_argument("--teacher-epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--choosing-seeds", type=int, default=2)
    parser.add_argument("--limit", type=int, help="training images")
    parser.add_argument("--ending", default="", help="of the names of the results, such as _again")
    parser.add_argument("--methods", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
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
    if not np.isfinite(taught).all():
        raise SystemExit("teachers: expected both to be trained; the lines above say what failed")
    chosen, tried = choose(args, work, teachers[0], shared, command)
    jobs = [
        Job(
            work / "final" / method.replace("+", "_") / f"seed-{seed}", method=method,
            student=args.student, seed=seed, arguments=chosen[method],
            recipe=recipe_of(args, args.epochs), teacher=args.teacher,
            teacher_weights=teachers[1].out / "student.safetensors", **shared,
        )
        for seed in range(args.first_seed, args.first_seed + args.seeds)
        for method in args.methods
    ]  # fmt: skip
    is_done = np.isfinite(run_jobs(jobs, args.processes, command))
    done = [job for job, is_one in zip(jobs, is_done, strict=True) if is_one]
    failed = [str(job.out.relative_to(work)) for job in jobs if job not in done]
    if failed:
        print(f"broke down: {', '.join(failed)}", flush=True)
    runs = [DistillationRun.open(job.out) for job in done]
    found = compare_runs(runs)
    write(name + args.ending, found)
    return {
        "data": runs[0].info["data"] | {"classes": len(runs[0].info["data"]["classes"])},
        "teacher": {"name": args.teacher, "held_out": taught[0], "test": taught[1]},
        "student": args.student,
        "chosen": chosen,
        "tried": tried,
        "failed": failed,
        "minutes": minutes(work, args.processes),
        "sentences": found.sentences(),
        "settings": {
            key: getattr(args, key)
            for key in ("epochs", "choosing_epochs", "teacher_epochs", "seeds", "choosing_seeds",
                        "holdout", "limit", "size", "processes", "first_seed")
        },
    }  # fmt: skip


def choose(
    args: argparse.Namespace, work: Path, teacher: Job, shared: dict[str, Any], command: list[str]
) -> tuple[dict[str, Arguments], list[dict[str, Any]]]:
    """The arguments of every method with the highest mean accuracy on the held-out images."""
    chosen: dict[str, Arguments] = {}
    tried: list[dict[str, Any]] = []
    combined = [method for method in args.methods if "+" in method]
    for methods in ([m for m in args.methods if m not in combined], combined):
        candidates = [
            (method, _beside(method, chosen) | arguments)
            for method in methods
            for arguments in CANDIDATES[method]
        ]
        found = _held_out(args, work, teacher, shared, command, candidates)
        for method in methods:
            own = [one for one in found if one["method"] == method]
            best = max(own, key=lambda one: one["held_out"])
            if not np.isfinite(best["held_out"]):
                raise SystemExit(f"{method}: expected one candidate that trains; all broke down")
            chosen[method] = best["arguments"]
        tried += [one for one in found if one["arguments"]]
    return chosen, tried


def _beside(method: str, chosen: dict[str, Arguments]) -> Arguments:
    """What was chosen for the parts of a combination that it does not choose anew."""
    kept: Arguments = {}
    for part in method.split("+")[:-1]:
        kept |= chosen.get(part, {})
    return kept


def _held_out(
    args: argparse.Namespace,
    work: Path,
    teacher: Job,
    shared: dict[str, Any],
    command: list[str],
    candidates: list[tuple[str, Arguments]],
) -> list[dict[str, Any]]:
    """Method, arguments and mean held-out accuracy of every candidate."""
    # Seeds that the final trainings do not use.
    seeds = range(100, 100 + args.choosing_seeds)
    several = [(method, arguments) for method, arguments in candidates if arguments]
    jobs = [
        Job(
            work / "choosing" / method.replace("+", "_") / _label(arguments) / f"seed-{seed}",
            method=method, student=args.student, seed=seed, arguments=arguments,
            recipe=recipe_of(args, args.choosing_epochs), holdout=args.holdout,
            teacher=args.teacher, teacher_weights=teacher.out / "student.safetensors", **shared,
        )
        for seed in seeds
        for method, arguments in several
    ]  # fmt: skip
    accuracy = np.array(run_jobs(jobs, args.processes, command)).reshape(len(seeds), -1)
    # A candidate whose training broke down is none.
    means = np.where(np.isfinite(accuracy).all(0), accuracy.mean(0), -np.inf).tolist()
    return [
        {
            "method": method,
            "arguments": arguments,
            "held_out": means.pop(0) if arguments else 0.0,  # nothing to choose, nothing trained
        }
        for method, arguments in candidates
    ]


def _label(arguments: Arguments) -> str:
    return "-".join(v if isinstance(v, str) else f"{v:g}" for v in arguments.values())


def minutes(work: Path, processes: int) -> float:
    """What all trainings took, in however many sittings."""
    runs = (DistillationRun.open(path) for path in find_runs([work]))
    seconds = sum(run.info["costs"]["seconds"] for run in runs)
    return round(float(seconds) / 60 / processes, 1)


def write(name: str, found: MethodComparison) -> None:
    """The tables of a comparison."""
    results = ROOT / "analyses" / "results"
    found.methods.to_csv(results / f"distill_table_{name}.csv", index=False)
    found.terms.to_csv(results / f"distill_table_{name}_terms.csv", index=False)
    (results / f"distill_table_{name}.md").write_text(found.markdown() + "\n", encoding="utf-8")


def main() -> None:
    """Run the study on every data set and write what came out."""
    args = parse_arguments()
    command = ["python", *sys.argv]
    for data in args.data:
        record = study(args, data, command)
        record["command"] = " ".join(command)
        record["versions"] = {
            "natstats": __version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        }
        name = Path(data.partition(":")[2]).name
        path = ROOT / "analyses" / "results" / f"distill_table_{name}{args.ending}.json"
        path.write_text(to_json(record), encoding="utf-8")
        print("\n".join(record["sentences"]))


if __name__ == "__main__":
    main()
