"""The tables of docs/benchmarks.md of a GPU, from what analyses/gpu_check.py wrote.

Run `python analyses/gpu_check.py` first, on a machine with a GPU, and then this without arguments.
The page stays as it is where the results are not those of one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filling import fill

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "analyses" / "results" / "gpu_check.json"


def cases_of(record: dict[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """The cases of a check that came to their end."""
    for check in record["checks"]:
        if check["name"] == name:
            yield from (case for case in check["cases"] if "problem" not in case)


def ratio(case: dict[str, Any], key: str) -> str:
    """A ratio with the quartiles over rounds."""
    low, high = case[key]["quartiles"]
    return f"{case[key]['median']:.2f} ({low:.2f} to {high:.2f})"


def where(record: dict[str, Any]) -> str:
    """What it was measured on."""
    on, versions = record["device"], record["versions"]
    parts = [on["name"], f"{on['processors']} processors", f"torch {versions['torch']}"]
    parts += [f"{key} {versions[key]}" for key in ("driver", "natstats") if versions.get(key)]
    return f"{', '.join(parts)}; {record['created'][:10]}."


def overhead_lines(record: dict[str, Any]) -> list[str]:
    """Time of a pass with the collector, beside the plain pass and beside FFTs alone."""
    lines = [
        "| network | images | plain, ms | with FFTs / plain | natstats / plain "
        "| natstats / with FFTs | transforms / FFTs, both alone | rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    keys = ("bound_of_plain", "natstats_of_plain", "natstats_of_bound", "transforms_of_cufft")
    for case in cases_of(record, "overhead"):
        cells = [
            case["case"], f"{case['images']} of {case['size']} px", f"{case['ms']['plain']:.1f}",
            *(ratio(case, key) for key in keys), str(case["rounds"]),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, "", f"Medians, with the quartiles over interleaved rounds. {where(record)}"]


def difference_lines(record: dict[str, Any]) -> list[str]:
    """How far spectra and exponents are from those of float32 on the CPU."""
    lines = [
        "| network | layers | largest difference of a ring (allowed) "
        "| of an exponent (allowed) | weights |",
        "|---|---|---|---|---|",
    ]
    for case in cases_of(record, "networks"):
        of_ring, of_exponent = (
            f"{case[f'largest_{key}_difference']:.1e} ({case[f'allowed_{key}_difference']:g})"
            for key in ("ring", "exponent")
        )
        cells = [case["case"], str(case["n_layers"]), of_ring, of_exponent, case["weights"]]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def memory_lines(record: dict[str, Any]) -> list[str]:
    """Peak memory, and images per second from end to end."""
    lines = ["| network | images | peak MB: plain, natstats | first batch |", "|---|---|---|---|"]
    for case in cases_of(record, "memory"):
        if "plain_mb" in case:
            peaks = f"{case['plain_mb']:.0f}, {case['natstats_mb']:.0f}"
            lines.append(
                f"| {case['case']} | {case['images']} | {peaks} "
                f"| {case['natstats_first_batch_mb']:.0f} |"
            )
    lines += ["", "| from end to end | workers | plain, images/s | measure, images/s | of plain |"]
    lines.append("|---|---|---|---|---|")
    for case in cases_of(record, "throughput"):
        lines.append(
            f"| {case['case']} | {case['workers']} | {case['plain_images_per_second']:.0f} "
            f"| {case['measure_images_per_second']:.0f} | {case['of_plain']:.2f} |"
        )
    return lines


def checks_lines(record: dict[str, Any]) -> list[str]:
    """What was checked: cases that were good, that failed, and that were left out."""
    lines = ["| check | what is seen | good | failed | left out | s |", "|---|---|---|---|---|---|"]
    for check in record["checks"]:
        n_failed = sum("problem" in case for case in check["cases"])
        cells = [
            check["name"], check["title"], len(check["cases"]) - n_failed, n_failed,
            len(check["left_out"]), f"{check['seconds']:.0f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    failed = [f"- {text}" for text in record["failed"]]
    return [*lines, *(["", "What failed:", "", *failed] if failed else [])]


def tables(record: dict[str, Any]) -> list[str]:
    """All tables, with what each says before it."""
    return [
        *overhead_lines(record), "",
        *memory_lines(record), "",
        "Spectra of the same images and weights, against float32 on the CPU; a ring counts with at "
        "least 1e-6 of the layer's largest:", "",
        *difference_lines(record), "",
        *checks_lines(record),
    ]  # fmt: skip


def main() -> None:
    """Fill the page."""
    if not RESULT.is_file():
        sys.exit(f"{RESULT}: expected the results of analyses/gpu_check.py; there are none")
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    if record["device"]["type"] != "cuda":
        sys.exit(f"{RESULT}: expected results of CUDA; got those of {record['device']['type']}")
    fill(ROOT / "docs" / "benchmarks.md", Path(__file__).name, {"gpu": lambda: tables(record)})


if __name__ == "__main__":
    main()
