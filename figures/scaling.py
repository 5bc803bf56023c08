"""Fill the tables of docs/scaling.md from the results that are committed.

python figures/scaling.py
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from filling import fill

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "analyses" / "results"
ENDS = ("", "_low", "_high")


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


if __name__ == "__main__":
    parts = {"until": until, "failures": failures}
    fill(ROOT / "docs" / "scaling.md", "scaling.py", parts)
