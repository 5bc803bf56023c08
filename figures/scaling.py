"""Fill the tables of docs/scaling.md from the results that are committed.

python figures/scaling.py
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filling import fill

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "analyses" / "results"
ENDS = ("", "_low", "_high")

SETS = {"ImageNet, validation": 50_000, "ImageNet, training": 1_281_167, "a billion": 10**9}
BYTES_OF_A_FILE = 110_000
"""Of an image of ImageNet on average."""


@dataclass(frozen=True)
class Device:
    """What the maker says of a GPU.

    Attributes:
        float32: operations a second, in float32.
        tf32: the same of products of matrices in TF32, dense.
        bandwidth: bytes a second, from and to its memory.
    """

    float32: float
    tf32: float
    bandwidth: float

    def seconds(self, network: dict[str, float], spectra: dict[str, float], tf32: bool) -> float:
        """Time of an image at best; spectra are float32 in any case."""
        peak = self.tf32 if tf32 else self.float32
        return max(network["flops"] / peak, network["bytes"] / self.bandwidth) + max(
            spectra["flops"] / self.float32, spectra["bytes"] / self.bandwidth
        )


# From the data sheets of the A100 80 GB SXM and of the H100 SXM.
DEVICES = {"A100": Device(19.5e12, 156e12, 2.039e12), "H100": Device(67e12, 494.7e12, 3.35e12)}


def until() -> list[str]:
    """How often intervals hold the truth where a measurement stops by itself."""
    lines = [
        "| layers | `--until` | images, median | stopped as soon as it could, % | "
        "as many images without looking, % | trials |",
        "|---|---|---|---|---|---|",
    ]
    for row in pd.read_csv(RESULTS / "until_coverage.csv").to_dict("records"):
        shares = [
            "{:.1f} ({:.1f} to {:.1f})".format(*(100 * row[f"{how}{end}"] for end in ENDS))
            for how in ("stopped", "fixed")
        ]
        lines.append(
            f"| {row['layers']} | {row['until']:g} | {row['images_median']} | {shares[0]} "
            f"| {shares[1]} | {row['trials']} |"
        )
    return lines


def failures() -> list[str]:
    """What failures and slow machines cost."""
    lines = [
        "| | torchrun | by the formula | array, 20 parts each | by the formula "
        "| best interval for torchrun, s |",
        "|---|---|---|---|---|---|",
    ]
    for row in pd.read_csv(RESULTS / "scaling_simulation.csv").to_dict("records"):
        cells = [row["case"]]
        for way in ("torchrun", "array"):
            median, high, formula = (row[f"{way}_{name}"] for name in ("median", "95", "formula"))
            cells.append("never ends" if pd.isna(median) else f"{median:.2f} ({high:.2f})")
            cells.append(f"{formula:.2f}" if formula < 1e6 else "–")
        lines.append(f"| {' | '.join(cells)} | {row['best_interval']:.0f} |")
    return lines


def _paper() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / "cost_on_paper.json").read_text())["rows"]
    return found


def paper() -> list[str]:
    """What an image costs, and how many a device can measure at best."""
    lines = [
        "| network | layers | GFLOP: network, spectra | MB: network, spectra "
        "| A100: images/s in float32, in TF32 | H100 | weights, MB | state, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in _paper().items():
        parts = row["network"], row["spectra"]
        cells = [name, str(row["layers"])]
        cells.append(", ".join(f"{one['flops'] / 1e9:.2f}" for one in parts))
        cells.append(", ".join(f"{one['bytes'] / 1e6:,.0f}" for one in parts))
        for device in DEVICES.values():
            rates = (1 / device.seconds(*parts, tf32) for tf32 in (False, True))
            cells.append(", ".join(f"{rate:,.0f}" for rate in rates))
        cells += [f"{row['weights'] / 1e6:,.0f}", f"{row['state'] / 1e6:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def sets() -> list[str]:
    """How long whole sets take at best, and what it takes to feed a device."""
    lines = [
        "| network on one H100, TF32 | " + " | ".join(SETS) + " | cores that decode | read, MB/s |",
        "|---|" + "---|" * (len(SETS) + 2),
    ]
    stages = json.loads((RESULTS / "throughput_mobilenet_v2.json").read_text())["rows"]
    a_core = 1 / sum(1 / stages[name]["images_per_second"] for name in ("decode", "transform"))
    for name in ("mobilenet_v2", "resnet50", "vit_b_16", "vit_h_14", "regnet_y_128gf"):
        row = _paper()[name]
        seconds = DEVICES["H100"].seconds(row["network"], row["spectra"], True)
        cells = [name, *(_duration(n * seconds) for n in SETS.values())]
        cells += [f"{1 / seconds / a_core:.0f}", f"{BYTES_OF_A_FILE / seconds / 1e6:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _duration(seconds: float) -> str:
    """Seconds, in the unit that suits them."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    parts = {"until": until, "failures": failures, "paper": paper, "sets": sets}
    fill(ROOT / "docs" / "scaling.md", "scaling.py", parts)
