"""Measure every network that torchvision lists: what is found, measured, and left out, and why.

    python analyses/zoo_coverage.py                          # all of them, about 20 minutes
    python analyses/zoo_coverage.py --models 'swin*' vit_b_16

Every builder runs in a process of its own: random weights, the smallest input at which its last
maps are large enough where that can be had, one batch. Writes analyses/results/zoo_coverage.csv;
`python figures/zoo.py` makes the tables of docs/networks.md from it.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd

RESULT = Path(__file__).parent / "results" / "zoo_coverage.csv"

# Side of the images by name pattern, the first that fits. A stride of 32 leaves 5 x 5 pixels of
# 160; some networks are built for one size; pyramids go down to a stride of 64 or 128.
SIDES = {
    "vit_*": 224,
    "maxvit_t": 224,
    "mvit_*": 224,
    "alexnet": 224,
    "*inception_v3": 224,
    "raft_*": 128,
    "retinanet_*": 640,
    "fcos_*": 640,
    "*rcnn_*": 320,
    "ssd300_*": 300,
    "ssdlite320_*": 320,
    "s3d": 224,
    "r3d_18": 80,
    "mc3_18": 80,
    "r2plus1d_18": 80,
    "*": 160,
}
ONE_IMAGE = ("regnet_y_128gf", "vit_h_14", "vit_l_*", "retinanet_*", "fcos_*", "*rcnn_resnet*")


def one(name: str) -> dict[str, object]:
    """Build and measure a network in this process."""
    import torch

    import natstats
    from natstats.activations import undisturbed
    from natstats.models import load_network

    started = time.perf_counter()
    network = load_network(name, weights="none")
    model = network.model
    side = next(side for key, side in SIDES.items() if fnmatch.fnmatch(name, key))
    if network.takes == "list" and "ssd" not in name:  # those have one fixed size
        model.transform.min_size, model.transform.max_size = (side,), side
    n_images = 1 if any(fnmatch.fnmatch(name, key) for key in ONE_IMAGE) else 2
    images = torch.rand(n_images, 3, side, side, generator=torch.Generator().manual_seed(0))
    built = time.perf_counter()
    collector = natstats.Collector(model)
    with undisturbed(model), torch.inference_mode(), collector:
        model(*network.arguments(images))
    seconds = time.perf_counter() - built
    measured, skipped = collector.compute(), collector.skipped
    reasons = Counter(kind_of(layer.reason) for layer in skipped)
    # Every weight layer must be in one list or the other.
    from natstats.selection import select_modules

    told = {m.layer.name for m in measured} | {layer.name for layer in skipped}
    untold = [n for n in select_modules(model, "weight") if n not in told]
    spatial = len(measured) + sum(n for kind, n in reasons.items() if kind not in NOT_SPATIAL)
    layouts = Counter(re.sub(r" \(.*\)", "", m.layer.layout) for m in measured)
    return {
        "network": name,
        "family": torchvision_family(name),
        "million_parameters": round(sum(p.numel() for p in model.parameters()) / 1e6, 1),
        "takes": network.takes,
        "images": n_images,
        "side": side,
        "calls": len(measured) + len(skipped),
        "measured": len(measured),
        "spatial": spatial,
        "share": round(len(measured) / spatial, 4),
        "untold": len(untold),
        **{kind: reasons.get(kind, 0) for kind in (*NOT_SPATIAL, *SPATIAL)},
        "layouts": "; ".join(f"{n} {layout}" for layout, n in layouts.most_common()),
        "depth": max((m.layer.depth for m in measured), default=0),
        "followed": collector.trace.followed,
        "seconds_build": round(built - started, 1),
        "seconds_measure": round(seconds, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "error": "",
    }


NOT_SPATIAL = ("no axes of maps", "1 x 1", "never called", "not of the images")
SPATIAL = ("too small", "other")


def kind_of(reason: str) -> str:
    """The reasons that come, in few words."""
    for text, kind in {
        "has no axes of maps": "no axes of maps",
        "maps of 1 x 1 pixels": "1 x 1",
        "never called": "never called",
        "does not depend on the images": "not of the images",
        "maps of ": "too small",
    }.items():
        if text in reason:
            return kind
    return "other"


def torchvision_family(name: str) -> str:
    """The torchvision module that a builder stands in, without its package."""
    import torchvision.models

    return torchvision.models.get_model_builder(name).__module__.split("models.")[1]


def main() -> None:
    """Measure the networks one after another, and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["*"], help="names or patterns")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print("\n" + json.dumps(one(arguments.one)))
        return
    import torchvision.models

    names = torchvision.models.list_models()
    chosen = [n for n in names if any(fnmatch.fnmatch(n, p) for p in arguments.models)]
    rows = {}
    if arguments.result.is_file() and chosen != names:
        rows = {row["network"]: row for row in pd.read_csv(arguments.result).to_dict("records")}
    for name in chosen:
        command = [sys.executable, "-W", "ignore", __file__, "--one", name]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
        try:
            rows[name] = json.loads(done.stdout.strip().splitlines()[-1])
        except (IndexError, json.JSONDecodeError):
            lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
            rows[name] = {"network": name, "family": torchvision_family(name), "error": lines[-1]}
        row = rows[name]
        print(
            name,
            row["error"]
            or f"{row['measured']} of {row['spatial']} spatial, {row['share']:.0%}, "
            f"{row['seconds_measure']} s, {row['peak_gb']} GB",
            flush=True,
        )
        ordered = [rows[n] for n in names if n in rows]
        pd.DataFrame(ordered).to_csv(arguments.result, index=False)
    frame = pd.DataFrame(list(rows.values()))
    good = frame[frame.error.fillna("") == ""]
    print(
        f"{len(good)} of {len(frame)} without an error; {good.measured.sum():.0f} of "
        f"{good.spatial.sum():.0f} spatial weight layers measured "
        f"({good.measured.sum() / good.spatial.sum():.1%}); lowest share {good.share.min():.1%} "
        f"({good.network[good.share.idxmin()]}); untold {good.untold.sum():.0f}"
    )


if __name__ == "__main__":
    main()
