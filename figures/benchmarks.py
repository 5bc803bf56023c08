r"""The tables of docs/benchmarks.md, from what analyses/collector_overhead.py wrote.

Run first, on a machine with nothing else to do::

    python analyses/collector_overhead.py --model NAME --json analyses/results/overhead_NAME.json
    python analyses/collector_overhead.py --model NAME --together --batch-size 8 \
        --json analyses/results/bound_NAME.json

for resnet50, vgg16 and mobilenet_v2, and the second for cifar_resnet56 (--batch-size 128 --size 32)
as well; analyses/startup.py for mobilenet_v2; and analyses/throughput.py for mobilenet_v2 and
resnet50. Then `python figures/benchmarks.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from filling import fill

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "analyses" / "results"
APART = {"resnet50": 1.25, "vgg16": 1.15, "mobilenet_v2": 1.5}
FROM_FILES = ("mobilenet_v2", "resnet50")
SAID = {"older": "before"}
TOGETHER = {"resnet50": 1.05, "vgg16": 1.05, "mobilenet_v2": 1.15, "cifar_resnet56": 1.15}


def cell(row: dict[str, Any], base: str) -> str:
    """A ratio with the quartiles over rounds."""
    low, high = row[f"of_{base}_quartiles"]
    return f"{row[f'of_{base}']:.2f} ({low:.2f} to {high:.2f})"


def apart() -> list[str]:
    """Time and memory of each variant in a process of its own."""
    lines = [
        "| network | plain, ms | natstats / plain | aim | straightforward / plain "
        "| peak MB: plain, natstats (allowed), straightforward |",
        "|---|---|---|---|---|---|",
    ]
    records = [json.loads((RESULTS / f"overhead_{name}.json").read_text()) for name in APART]
    for record, aim in zip(records, APART.values(), strict=True):
        plain, ours, simple = record["variants"].values()
        allowed = 1.1 * plain["peak_mb"] + 64
        lines.append(
            f"| {record['model']} | {plain['median_ms']:.0f} | {cell(ours, 'plain')} | {aim:.2f} "
            f"| {cell(simple, 'plain')} | {plain['peak_mb']:.0f}, {ours['peak_mb']:.0f} "
            f"({allowed:.0f}), {simple['peak_mb']:.0f} |"
        )
    return [*lines, "", said(records)]


def together() -> list[str]:
    """Time against the plain pass and against the bound, in one process."""
    lines = [
        "| network | images | plain, ms | bound / plain | natstats / plain | natstats / bound "
        "| aim |",
        "|---|---|---|---|---|---|---|",
    ]
    records = [json.loads((RESULTS / f"bound_{name}.json").read_text()) for name in TOGETHER]
    for record, aim in zip(records, TOGETHER.values(), strict=True):
        plain, bound, ours = record["variants"].values()
        lines.append(
            f"| {record['model']} | {record['batch_size']} of {record['size']} px "
            f"| {plain['median_ms']:.0f} | {cell(bound, 'plain')} | {cell(ours, 'plain')} "
            f"| {cell(ours, 'bound')} | {aim:.2f} |"
        )
    return [*lines, "", said(records)]


def said(records: list[dict[str, Any]]) -> str:
    """What and where it was measured."""
    rounds = " or ".join(map(str, sorted({record["rounds"] for record in records})))
    last = records[-1]
    return (
        f"{last['device']}, {last['threads']} threads, {rounds} interleaved rounds; medians, with "
        f"the quartiles over rounds; torch {last['versions']['torch']}, natstats "
        f"{last['versions']['natstats']}."
    )


def startup() -> list[str]:
    """Where each second of a measurement goes, stages of less than 50 ms together."""
    record = json.loads((RESULTS / "startup_mobilenet_v2.json").read_text())
    kinds = [name for name in ("older", "now") if name in record]
    head = " | ".join(f"{SAID.get(name, name)}: CPU, s | clock, s" for name in kinds)
    lines = [f"| stage | {head} |", "|---|" + "---|" * (2 * len(kinds))]
    stages = dict.fromkeys(name for kind in kinds for name in record[kind]["stages"])
    small: list[str] = []
    rows: list[tuple[str, list[list[float]]]] = [
        (f"**{name}**", [record[kind]["parts"][name] for kind in kinds])
        for name in record["now"]["parts"]
    ]
    for name in sorted(stages, key=lambda name: -record[kinds[0]]["stages"].get(name, [0.0])[0]):
        own = [record[kind]["stages"].get(name, [0.0, 0.0]) for kind in kinds]
        if max(cpu for cpu, _ in own) < 0.05:
            small.append(name)
        else:
            rows.append((name, own))
    left = [
        [sum(record[kind]["stages"].get(name, [0.0, 0.0])[n] for name in small) for n in (0, 1)]
        for kind in kinds
    ]
    for name, own in [*rows, (f"{len(small)} smaller ones", left)]:
        lines.append(f"| {name} | {' | '.join(f'{x:.2f}' for pair in own for x in pair)} |")
    versions = record["versions"]
    return [
        *lines,
        "",
        f"{record['machine']}, {record['processors']} processors, {record['threads']} threads, "
        "load "
        f"{record['load_before']} before; medians of {record['rounds']} processes in turn; python "
        f"{versions['python']}, torch {versions['torch']}, natstats {versions['natstats']}.",
    ]


def throughput() -> list[str]:
    """Images per second of measurements from files, and of their stages."""
    records = [json.loads((RESULTS / f"throughput_{name}.json").read_text()) for name in FROM_FILES]
    head = " | ".join(
        f"{one['network']}: images/s | of the slowest stage | of the processors" for one in records
    )
    lines = [f"| | {head} |", "|---|" + "---|" * (3 * len(records))]
    for name in records[0]["rows"]:
        cells = [name]
        for record in records:
            row = record["rows"][name]
            cells.append(f"{row['images_per_second']:.1f}")
            ratios = ("of_slowest", "of_processors")
            cells += [f"{row[key]:.2f}" if key in row else "" for key in ratios]
        lines.append(f"| {' | '.join(cells)} |")
    last = records[-1]
    images = " and ".join(
        f"{one['images']} images in batches of {one['batch_size']} ({one['network']}, load "
        f"{one['load_before']} before)"
        for one in records
    )
    return [
        *lines,
        "",
        f"{last['device']}, {last['processors']} processors, {last['threads']} threads; {images}; "
        f"medians of {last['rounds']} rounds; torch {last['versions']['torch']}, natstats "
        f"{last['versions']['natstats']}.",
    ]


if __name__ == "__main__":
    parts = {
        "overhead": apart, "bound": together, "throughput": throughput, "startup": startup,
    }  # fmt: skip
    fill(ROOT / "docs" / "benchmarks.md", "benchmarks.py", parts)
