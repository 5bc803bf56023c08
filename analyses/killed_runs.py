"""A long measurement that is killed, and one that is not: are their numbers the same?

    python analyses/killed_runs.py cifar_resnet20 imagefolder:CIFAR10/train --checkpoint FILE \
        --kills 5 --model-arg shortcut=conv

The command line measures the same network on the same images twice: once in one sitting, once with
SIGKILL at random moments, each time with the same command; options that are not known here are
passed on. Printed: seconds of both, the images that were measured by each kill, and the largest
relative difference of any sum of any layer.

Writes analyses/results/killed_runs.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from natstats._version import __version__
from natstats.files.ownership import STATE
from natstats.files.state_files import read_state

RESULTS = Path(__file__).parent / "results" / "killed_runs.json"


def images_kept(out: Path) -> int:
    """Images that the state in a folder is of."""
    try:
        return len(read_state(out / STATE / "trained.safetensors")["reading"]["numbers"])
    except FileNotFoundError:
        return 0


def largest_difference(first: Path, second: Path) -> float:
    """The largest relative difference of two runs' sums; 0 where all bits are equal."""
    worst = 0.0
    with np.load(first / "spectra.npz") as mine, np.load(second / "spectra.npz") as theirs:
        if mine.files != theirs.files:
            return np.inf
        for name in mine.files:
            one, other = (values[name].astype(np.float64) for values in (mine, theirs))
            if np.array_equal(one, other, equal_nan=True):
                continue
            scale = np.maximum(np.abs(other), np.finfo(np.float64).tiny)
            worst = max(worst, float(np.nanmax(np.abs(one - other) / scale)))
    return worst


def main() -> None:
    """Run both, print and write the comparison."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("images")
    parser.add_argument("--checkpoint", required=True)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--save-every", type=float, default=10.0)
    args, others = parser.parse_known_args()
    command = [
        sys.executable, "-m", "natstats_cli", "measure", args.model, "--images", args.images,
        "--checkpoint", args.checkpoint, "--batch-size", str(args.batch_size),
        "--save-every", str(args.save_every), *others, "--out",
    ]  # fmt: skip
    random.seed(0)
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        started = time.monotonic()
        subprocess.run([*command, str(whole)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        n_images = json.loads((whole / "run.json").read_text())["images"]["n_images"]
        print(f"one sitting: {n_images} images in {seconds:.0f} s", flush=True)
        kept, started = [], time.monotonic()
        while len(kept) < args.kills:
            wanted = n_images * (len(kept) + random.uniform(0.5, 1)) / (args.kills + 1)
            with subprocess.Popen([*command, str(cut)], stdout=subprocess.DEVNULL) as process:
                while process.poll() is None and images_kept(cut) < wanted:
                    time.sleep(0.5)
                time.sleep(random.uniform(0, args.save_every))  # anywhere between two savings
                process.send_signal(signal.SIGKILL)
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"killed_runs: it ended by itself, with {process.returncode}")
            kept.append(images_kept(cut))
            print(f"killed: {kept[-1]} images are kept", flush=True)
        subprocess.run([*command, str(cut)], check=True, stdout=subprocess.DEVNULL)
        found = {
            "natstats": __version__,
            "machine": platform.machine(),
            "model": args.model,
            "n_images": n_images,
            "seconds_whole": round(seconds),
            "seconds_killed": round(time.monotonic() - started),
            "images_kept": kept,
            "largest_relative_difference": largest_difference(cut, whole),
        }
    print(json.dumps(found, indent=1))
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
