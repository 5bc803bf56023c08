"""The tables and figures of docs/distillation.md, from the methods and from what analyses/ wrote.

Run analyses/distill_overhead.py, and for every study analyses/distill_table.py with its parts and
then with --report, which draws the figures and writes analyses/results/distill_STUDY.md; then

    python figures/distillation.py

A study that was not run leaves its part empty.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from filling import fill

from natstats.distill.methods import METHODS
from natstats.numbers import change

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "analyses" / "results"
STUDIES = ("textures", "cifar10", "tiny40")
COLUMNS = {
    "textures": ("textures", "r8-r20"),
    "CIFAR-10, 2000 images": ("cifar10", "w10-r20-2k"),
    "CIFAR-10, 10 000 images": ("cifar10", "r8-r56-10k"),
    "Tiny ImageNet 40": ("tiny40", "r8-r20"),
}
"""The settings that the summary is about, by the heads of their columns."""
PLACES = {
    "none": "–",
    "groups": "end of every group",
    "middle": "end of the middle group",
    "last": "end of the last group",
    "sections": "first and last map of every group",
    "blocks": "every block",
}
WHERE = {
    "block": "as the last block returns it",
    "pre": "before the activation",
    "post": "after it",
}
PAIRS = (("wrn_16_2", "WRN-16-2 from WRN-28-4"), ("resnet18", "ResNet-18 from ResNet-34"))


def methods() -> str:
    """A row for every method."""
    lines = [
        "| method | what | taps | connectors | stages | weight | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in METHODS.values():
        taps = PLACES[method.place]
        if method.uses_images:
            taps = "the images"
        if method.place != "none":
            taps += f", {WHERE[method.activation]}"
        weight = method.defaults.get("weight")
        lines.append(
            f"| `{method.name}` | {method.title} | {taps} | {method.connectors} | "
            f"{', '.join(method.stages)} | {weight:g} | {method.paper} |"
        )
    return "\n".join(lines)


def oracles() -> str:
    """A row for everything that a loss was held to."""
    record = json.loads((RESULTS / "distill_oracles.json").read_text(encoding="utf-8"))
    lines = [
        "| method | variant | program | what was run | relative difference below |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{row['method']}` | {row['variant'] or 'defaults'} | {row['program']} | "
        f"{row['function']} | {row['difference_below']:.0e} |"
        for row in record["cases"]
    ]
    others = "; ".join(f"`{name}`: {what}" for name, what in record["without"].items())
    note = f"Without a program of others: {others}. `{record['command']}` writes this."
    return "\n".join([*lines, "", note])


def overhead() -> str:
    """A row for every method, a pair of columns for every pair of networks."""
    records = {
        student: json.loads(path.read_text(encoding="utf-8"))
        for student, _ in PAIRS
        if (path := RESULTS / f"distill_overhead_{student}.json").is_file()
    }
    if not records:
        return ""
    head = [f"{title}, {r['size']} px: ms | / kd" for student, title in PAIRS
            if (r := records.get(student))]  # fmt: skip
    lines = [
        f"| method | {' | '.join(head)} | passes of the teacher |",
        "|---" * (2 + 2 * len(records)) + "|",
    ]
    names = next(iter(records.values()))["methods"]
    for name in names:
        cells, passes = [], ""
        for record in records.values():
            row = record["methods"].get(name, {})
            if "ratio" not in row:
                cells += ["–", "–"]
                continue
            low, high = row["ratio_quartiles"]
            cells += [f"{row['ms']:.0f}", f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})"]
            passes = f"{row['teacher_passes']:g}"
        lines.append(f"| `{name}` | {' | '.join(cells)} | {passes} |")
    notes = [
        f"{record['student']}: batches of {record['batch']}, {record['rounds']} interleaved "
        f"rounds, {record['device']}, {record['threads']} threads, torch "
        f"{record['versions']['torch']}, natstats {record['versions']['natstats']}"
        for record in records.values()
    ]
    return "\n".join(
        [
            *lines,
            "",
            "One step of the main stage: passes, terms, gradient, optimiser. Medians, with the "
            "quartiles over rounds of the ratio to `kd` in the same round. A dash: the channels of "
            f"the networks differ, and FSP has no connector. {'; '.join(notes)}.",
        ]
    )


SUMMARY = (
    ("spectral", "ce", "spectral, over the student alone"),
    ("kd+spectral", "kd", "kd+spectral, over kd"),
    ("at+spectral", "at", "at+spectral, over at"),
    ("dkd+spectral", "dkd", "dkd+spectral, over dkd"),
    ("ofd+spectral", "ofd", "ofd+spectral, over ofd"),
)
"""The planned contrasts, and how the table calls them."""
LATER = (
    ("kd+spectral", "at", "kd with power spectra, over at"),
    ("kd+spectral", "ofd", "kd with power spectra, over ofd"),
    ("kd+both-coherence", "kd", "kd with the default since 0.14, over kd"),
    ("kd+both-coherence", "at", "the same, over at"),
    ("kd+both-coherence", "ofd", "the same, over ofd"),
    ("kd+both-coherence", "kd+ofd", "the same, over kd+ofd"),
    ("kd+both-coherence", "kd+fitnets", "the same, over kd+fitnets"),
    ("kd+both-coherence", "kd+spatial", "the same, over kd+spatial"),
    ("kd+both-coherence", "kd+spectral", "the same, over kd with power spectra"),
    ("kd+coherence", "kd+both-coherence", "coherence alone, over both"),
    ("kd+coherence", "kd+spatial", "coherence alone, over kd+spatial"),
)
"""What was tried after the plan."""


def summary() -> str:
    """The planned contrasts, then what was tried later, with a column for each setting."""
    lines = [
        f"| gain in points | {' | '.join(COLUMNS)} |",
        f"| --- |{' --- |' * len(COLUMNS)}",
        f"| **planned, corrected by Holm's rule** |{' |' * len(COLUMNS)}",
    ]
    planned = {head: _planned(*where) for head, where in COLUMNS.items()}
    later = {head: _later(*where) for head, where in COLUMNS.items()}
    for pairs, found in ((SUMMARY, planned), (LATER, later)):
        if found is later:
            lines.append(f"| **not planned, not corrected** |{' |' * len(COLUMNS)}")
        for arm, other, called in pairs:
            cells = " | ".join(own.get((arm, other), "–") for own in found.values())
            lines.append(f"| {called} | {cells} |")
    return "\n".join(lines)


def _planned(study: str, setting: str) -> dict[tuple[str, str], str]:
    """What came out of the planned contrasts of a setting, by their pairs."""
    frame = pd.read_csv(RESULTS / f"distill_{study}_contrasts.csv")
    own = frame[~frame.control & (frame.setting == setting)]
    found = {}
    for row in own.itertuples():
        told = _points(row.difference, row.low, row.high)
        found[row.label, row.reference_label] = f"{told}, {row.verdict}"
    return found


def _later(study: str, setting: str) -> dict[tuple[str, str], str]:
    """How arms that were not planned stand to others, by pairs both ways."""
    record = json.loads((RESULTS / f"distill_{study}.json").read_text(encoding="utf-8"))
    found = {}
    for one in record["goals"]:
        if one["setting"] == setting:
            value, low, high = (one[name] for name in ("difference", "low", "high"))
            found[one["arm"], one["over"]] = _points(value, low, high)
            found[one["over"], one["arm"]] = _points(-value, -high, -low)
    return found


def _points(value: float, low: float, high: float) -> str:
    return change(100 * value, 100 * low, 100 * high, 1)


def studies() -> str:
    """What the report of every study says, with its figures."""
    found = []
    for name in STUDIES:
        path = RESULTS / f"distill_{name}.md"
        if path.is_file():
            found.append(path.read_text(encoding="utf-8").strip())
            found += [
                f"![{title} of {name}](distillation/{file.name})"
                for kind, title in (("contrasts", "Contrasts"), ("curves", "Learning curves"))
                for file in sorted((ROOT / "docs" / "distillation").glob(f"{name}-*-{kind}.png"))
            ]
    if found:
        found.append(
            "Learning curves are means over seeds on a sample of the test images. Only the last "
            "point is on all of them, so a step there may be due to the images."
        )
    return "\n\n".join(found)


MARKED = {
    "summary": summary, "studies": studies, "methods": methods, "oracles": oracles,
    "overhead": overhead,
}  # fmt: skip
"""What stands between the markers of the page."""


def main() -> None:
    """Write every table between its markers."""
    page = ROOT / "docs" / "distillation.md"
    text = page.read_text(encoding="utf-8")
    # A page may have been rewritten without some of the parts.
    there = {
        name: (lambda make=make: [make()])
        for name, make in MARKED.items()
        if f"<!-- {name}: begin (figures/distillation.py) -->" in text
    }
    fill(page, "distillation.py", there)


if __name__ == "__main__":
    main()
