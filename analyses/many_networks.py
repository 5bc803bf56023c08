"""What the depth law is worth: every trained network that can be had, beside random controls.

    OMP_NUM_THREADS=1 python analyses/many_networks.py --photos PHOTOGRAPHS --weights WEIGHTS \
        --trained runs/families/trained --cifar CIFAR10/val --work runs/many

measures each network of analyses/trained_networks.py on unscaled crops of photographs, and those
of CIFAR on images of CIFAR-10, too, each with three seeds of random weights. Runs are kept below
--work and used again, so that an interruption loses nothing. Writes
analyses/results/many_networks.json, from which figures/many_networks.py makes the tables and
figures of docs/law.md.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from trained_networks import Trained, networks

import natstats

RESULT = Path(__file__).parent / "results" / "many_networks.json"
N_IMAGES = 64
SEEDS = 3


def measured(one: Trained, images: Path, folder: Path, args: argparse.Namespace) -> natstats.Run:
    """The run of a network: that which is kept, or a new one."""
    home = folder / re.sub(r"[^A-Za-z0-9]+", "-", one.name).strip("-").lower()
    if (home / "run.json").is_file():
        return natstats.Run.open(home)
    run = natstats.measure(
        one.load(),
        images,
        crop=one.crop,
        limit=args.limit,
        seed=0,
        control="random-weights",
        control_seeds=SEEDS,
    )
    run.info["name"] = one.name
    run.save(home, report=False)
    print(f"{home}: {run.info['timing']['seconds']:.0f} s", flush=True)
    return run


def main() -> None:
    """Measure what is missing, then analyse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--trained", type=Path)
    parser.add_argument("--cifar", type=Path, help="a folder of images of CIFAR-10")
    parser.add_argument("--work", type=Path, default=Path("runs/many"))
    parser.add_argument("--limit", type=int, default=N_IMAGES)
    args = parser.parse_args()
    for one in networks(args.weights, args.trained):
        measured(one, args.photos, args.work / "photographs", args)
        if one.training.startswith("CIFAR") and args.cifar is not None:
            measured(one, args.cifar, args.work / "cifar10", args)


if __name__ == "__main__":
    main()
