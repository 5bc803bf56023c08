"""What in the spectral terms helps: terms, taps, levels, weights, and controls beside them.

Every variant trains the same student with the same seeds on the training part of the data and is
evaluated on the held-out part; the teacher was trained on the same part. The test images are not
opened.

    python analyses/distill_ablation.py --data imagefolder:DIR --work runs/ablation

writes analyses/results/distill_ablation_NAME.csv, NAME that of the data: a row for each variant,
with the gain over the student alone and its 95 % interval for other seeds and images. What does
best among many does so by luck, too; other seeds (--first-seed) are free of that, but for what the
images and the teacher did, and only the test images are free of it all.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from distill_jobs import Job, common_options, recipe_of, run_jobs

from natstats.distill.comparison.crossed import crossed_difference
from natstats.distill.results import DistillationRun

ROOT = Path(__file__).parents[1]

ONE_TERM = {"spectral.spectrum": 0.0, "spectral.exponent": 0.0}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("ce", {}),
    "spectral": ("spectral", {}),
    "spectrum alone": ("spectral", {"spectral.exponent": 0.0}),
    "exponent alone": ("spectral", {"spectral.spectrum": 0.0, "spectral.exponent": 1.0}),
    "level free": ("spectral", {"spectral.level": "free"}),
    "weight 1": ("spectral", {"spectral.weight": 1.0}),
    "weight 10": ("spectral", {"spectral.weight": 10.0}),
    "before the activation": ("spectral", {"spectral.activation": "pre"}),
    "channels": ("spectral", {**ONE_TERM, "spectral.channels": 1.0}),
    "amplitude": ("spectral", {**ONE_TERM, "spectral.amplitude": 1.0}),
    "phase": ("spectral", {**ONE_TERM, "spectral.phase": 1.0}),
    "coherence": ("spectral", {**ONE_TERM, "spectral.coherence": 1.0}),
    "spatial": ("spectral", {**ONE_TERM, "spectral.spatial": 1.0}),
}
"""Method and arguments of every variant by its name."""


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Variants of the spectral terms.")
    parser.add_argument("--data", required=True, help="labelled images, imagefolder:DIR")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--teacher-epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--limit", type=int, help="training images")
    common_options(parser)
    return parser.parse_args()


def summary(own: pd.DataFrame, alone: pd.DataFrame) -> dict[str, Any]:
    """The row of a variant: accuracy, and the gain over the student alone on seeds and images."""
    gains = own.accuracy.to_numpy() - alone.accuracy.to_numpy()
    row = {
        "method": own.method.iloc[0],
        "seeds": len(own),
        "accuracy": own.accuracy.mean(),
        "sd": own.accuracy.std(),
        "gain": gains.mean(),
        "gain_sd": gains.std(ddof=1) if len(own) > 1 else np.nan,
    }
    if len(own) > 1:
        mine, theirs = (
            np.stack([DistillationRun.open(path).outcomes.correct for path in runs.path])
            for runs in (own, alone)
        )
        found = crossed_difference(mine.astype(np.int8) - theirs.astype(np.int8))
        row |= {"gain_low": found.low, "gain_high": found.high, "gain_p": found.p}
    return row


def main() -> None:
    """Train the teacher and all variants, and write the table."""
    args = parse_arguments()
    name = Path(args.data.partition(":")[2]).name
    work = args.work / name
    shared = {"data": args.data, "holdout": args.holdout, "limit": args.limit}
    teacher = Job(
        work / "teacher", method="ce", student=args.teacher, seed=1000,
        recipe=recipe_of(args, args.teacher_epochs), **shared,
    )  # fmt: skip
    command = ["python", *sys.argv]
    (taught,) = run_jobs([teacher], 1, command)
    jobs, rows = [], []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for variant in dict.fromkeys(["ce", *args.variants]):
            method, arguments = VARIANTS[variant]
            folder = variant.replace(" ", "-").replace(",", "")
            jobs.append(
                Job(
                    work / folder / f"seed-{seed}", method=method, student=args.student, seed=seed,
                    arguments=arguments, recipe=recipe_of(args, args.epochs),
                    teacher=args.teacher, teacher_weights=teacher.out / "student.safetensors",
                    **shared,
                )
            )  # fmt: skip
            rows.append({"variant": variant, "method": method, "seed": seed})
    accuracy = run_jobs(jobs, args.processes, command)
    if not np.isfinite([taught, *accuracy]).all():
        raise SystemExit("expected all trainings to end well; the lines above say which did not")
    frame = pd.DataFrame(rows).assign(accuracy=accuracy, path=[job.out for job in jobs])
    variants = dict(iter(frame.groupby("variant", sort=False)))
    found = [{"variant": name, **summary(own, variants["ce"])} for name, own in variants.items()]
    table = pd.DataFrame(found).round(4)
    table["teacher"] = round(taught, 4)
    results = ROOT / "analyses" / "results"
    table.to_csv(results / f"distill_ablation_{name}.csv", index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
