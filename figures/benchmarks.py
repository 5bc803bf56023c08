"""The table of docs/benchmarks.md, from what analyses/collector_overhead.py wrote.

Run `python analyses/collector_overhead.py --model NAME --json analyses/results/overhead_NAME.json`
for resnet50, vgg16 and mobilenet_v2 first, then `python figures/benchmarks.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- overhead: begin (figures/benchmarks.py) -->", "<!-- overhead: end -->"
AIMS = {"resnet50": 1.25, "vgg16": 1.15, "mobilenet_v2": 1.5}


def cell(row: dict[str, object]) -> str:
    """A ratio with the quartiles over rounds."""
    low, high = row["ratio_quartiles"]
    return f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"


def main() -> None:
    """Write the table between the markers."""
    lines = [
        "| network | plain, ms | natstats / plain | aim | straightforward / plain "
        "| peak MB: plain, natstats (allowed), straightforward |",
        "|---|---|---|---|---|---|",
    ]
    rounds = set()
    for name, aim in AIMS.items():
        record = json.loads((ROOT / "analyses" / "results" / f"overhead_{name}.json").read_text())
        plain, ours, simple = record["variants"].values()
        rounds.add(record["rounds"])
        allowed = 1.1 * plain["peak_mb"] + 64
        lines.append(
            f"| {name} | {plain['median_ms']:.0f} | {cell(ours)} | {aim:.2f} | {cell(simple)} "
            f"| {plain['peak_mb']:.0f}, {ours['peak_mb']:.0f} ({allowed:.0f}), "
            f"{simple['peak_mb']:.0f} |"
        )
    versions = record["versions"]
    lines += [
        "",
        f"{record['batch_size']} images, {record['size']} pixels a side, {record['device']}, "
        f"{record['threads']} threads, {' or '.join(map(str, sorted(rounds)))} interleaved rounds; "
        f"medians, with the "
        f"quartiles over rounds; torch {versions['torch']}, natstats {versions['natstats']}.",
    ]
    page = ROOT / "docs" / "benchmarks.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    text = "\n".join([BEGIN, *lines, END])
    page.write_text(before + text + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
