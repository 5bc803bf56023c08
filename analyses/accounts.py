"""The account of every trained network that can be had, beside random controls.

    OMP_NUM_THREADS=1 python analyses/accounts.py --photos PHOTOGRAPHS --weights WEIGHTS \
        --trained runs/families/trained --cifar CIFAR10/val --work runs/accounts

explains each network of analyses/trained_networks.py on unscaled crops of photographs, those of
CIFAR on images of CIFAR-10, and some with three seeds of random weights. Runs are kept below --work
and used again, so that an interruption loses nothing. Writes analyses/results/accounts.json, from
which figures/theory.py makes tables and figures of docs/theory.md; `python analyses/theory.py
trained` reads the same runs.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from study import circumstances
from trained_networks import Trained, networks

import natstats
from natstats.runs.store import to_json

RESULT = Path(__file__).parent / "results" / "accounts.json"
N_IMAGES = 64
SEEDS = 3
WITH_CONTROL = ("ResNet-20", "ResNet-56", "MobileNetV2", "SqueezeNet 1.1", "DnCNN, sigma 25")
"""Networks that are measured with random weights, too."""

Row = dict[str, Any]


def measured(one: Trained, photos: Path, cifar: Path | None, work: Path, limit: int) -> Any:
    """The run of a network with its account; measured now unless it is kept."""
    is_cifar = one.training.startswith("CIFAR") and cifar is not None
    path = work / re.sub(r"[^a-z0-9]+", "-", one.name.lower()).strip("-")
    if (path / "run.json").is_file():
        return natstats.Run.open(path)
    print(f"{one.name}: measuring", flush=True)
    images, crop = (cifar, None) if is_cifar else (photos, one.crop)
    run = natstats.measure(
        one.load(),
        images,
        crop=crop,
        limit=limit,
        n_groups=limit,
        control="random-weights" if one.name in WITH_CONTROL else None,
        control_seeds=SEEDS,
        explain=True,
    )
    run.info["name"] = one.name
    run.save(path, report=False)
    return run


def row_of(one: Trained, run: natstats.Run) -> Row:
    """Everything that is said of one network."""
    account, explanation = run.account, run.explanation
    assert account is not None
    assert explanation is not None
    frame, difference = account.frame, explanation.difference
    kernels = frame[(frame.cause == "kernels") & frame.trunk]
    return {
        "network": one.name,
        "family": one.family,
        "training": one.training,
        "n_images": int(run.spectra[0].spectrum.n_images),
        "n_steps": len(account.trunk),
        "ends": account.ends,
        "sentence": account.sentence(),
        "totals": account.totals.to_dict("records"),
        "verdict": run.verdict.law.verdict,
        "slopes": explanation.law.slopes.to_dict("records"),
        "slopes_sentence": explanation.law.sentence(),
        "difference": None if difference is None else difference.totals.to_dict("records"),
        "difference_slopes": None if difference is None else difference.slopes.to_dict("records"),
        "difference_sentence": None if difference is None else difference.sentence(),
        "kernels": kernels[["step", "depth", "kernel_exponent", "share"]].to_dict("records"),
    }


def main() -> None:
    """Measure what is missing, then write what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--cifar", type=Path, help="a folder of images of CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/accounts"))
    parser.add_argument("--limit", type=int, default=N_IMAGES)
    parser.add_argument("--only", help="a pattern of names of networks")
    args = parser.parse_args()
    rows = []
    for one in networks(args.weights, args.trained):
        if args.only is None or re.search(args.only, one.name):
            run = measured(one, args.photos, args.cifar, args.work, args.limit)
            rows.append(row_of(one, run))
            print(f"{one.name}: {rows[-1]['sentence']}", flush=True)
    if args.only is not None:
        return
    record = {
        "command": "python analyses/accounts.py --photos ... --weights ... --trained ... "
        f"--cifar ... --limit {args.limit}",
        **circumstances(),
        "networks": rows,
    }
    RESULT.write_text(json.dumps(json.loads(to_json(record)), indent=0) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    main()
