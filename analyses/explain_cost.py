"""What the account costs: a measurement with it over one without, in one interleaved run.

    OMP_NUM_THREADS=2 python analyses/explain_cost.py PHOTOGRAPHS --images 128

Each round measures every network once without and once with the account, on the same images, and
the ratio of a network is the median over rounds. Weights are random: they do not change the work.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import click
import torch
from study import circumstances

import natstats

RESULT = Path(__file__).parent / "results" / "explain_cost.json"
NETWORKS = {"cifar_resnet20": 32, "resnet18": 224, "mobilenet_v2": 224, "vit_b_16": 224}


def seconds(network: natstats.Network, photos: Path, side: int, limit: int, explain: bool) -> float:
    """Seconds of a measurement."""
    started = time.perf_counter()
    natstats.measure(network, photos, crop=side, limit=limit, explain=explain)
    return time.perf_counter() - started


@click.command()
@click.argument("photos", type=click.Path(path_type=Path, exists=True))
@click.option("--images", default=128, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--networks", default=",".join(NETWORKS), show_default=True)
def main(photos: Path, images: int, rounds: int, networks: str) -> None:
    """Measure what the account costs on PHOTOS."""
    rows: list[dict[str, Any]] = []
    for name in networks.split(","):
        network = natstats.load_network(name, weights="none")
        times: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(rounds):
            for explain, own in times.items():
                own.append(seconds(network, photos, NETWORKS[name], images, explain))
        ratios = [one / other for one, other in zip(times[True], times[False], strict=True)]
        ratio = statistics.median(ratios)
        rows.append(
            {
                "network": name,
                "measure": statistics.median(times[False]),
                "explain": statistics.median(times[True]),
                "ratio": ratio,
                "ratios": ratios,
            }
        )
        print(
            f"{name}: {rows[-1]['measure']:.1f} s, with the account {ratio:.2f} times", flush=True
        )
    record = {
        "command": f"python analyses/explain_cost.py PHOTOGRAPHS --images {images} "
        f"--rounds {rounds}",
        **circumstances(),
        "threads": torch.get_num_threads(),
        "images": images,
        "networks": rows,
    }
    RESULT.write_text(json.dumps(record, indent=0) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    main()
