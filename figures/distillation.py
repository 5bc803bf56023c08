"""The tables and figures of docs/distillation.md, from the methods and from what analyses/ wrote.

Run analyses/distill_overhead.py, analyses/distill_ablation.py and analyses/distill_table.py --work
WORK first, then

    python figures/distillation.py --runs WORK

A study that was not run leaves its part empty. Without --runs the figures stay as they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from natstats.distill import DistillationRun, compare_runs
from natstats.distill.methods import METHODS
from natstats.distill.report.method_figures import plot_accuracy
from natstats.distill.run_folders import find_runs
from natstats.numbers import change
from natstats.report.figures.style import save

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "analyses" / "results"
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


def results() -> str:
    """The comparison on every data set that was run."""
    parts = []
    for number, path in enumerate(sorted(RESULTS.glob("distill_table_*.json"))):
        record = json.loads(path.read_text(encoding="utf-8"))
        parts += comparison(path, record, is_first=number == 0)
    return "\n\n".join(parts)


def variants() -> str:
    """The ablation on every data set that was run."""
    paths = sorted(RESULTS.glob("distill_ablation_*.csv"))
    return "\n\n".join(part for path in paths for part in ablation(path))


def comparison(path: Path, record: dict[str, Any], is_first: bool) -> list[str]:
    """One data set: the table, what it says, how weights were chosen; costs with the first."""
    settings, teacher = record["settings"], record["teacher"]
    _, table, costs, *rest = path.with_suffix(".md").read_text(encoding="utf-8").split("\n\n")
    chosen = "; ".join(
        f"{method}: {', '.join(f'{key} {value}' for key, value in values.items())}"
        for method, values in record["chosen"].items()
        if values
    )
    file = f"../analyses/results/{path.stem}.md"
    others = "" if is_first else f" Costs and gaps are in [{path.stem}.md]({file})."
    name = path.stem.removeprefix("distill_table_")
    drawn = (ROOT / "docs" / "distillation" / f"{name}.png").is_file()
    # The teachers and choices of a second round are those of the first.
    took = (
        ""
        if name.endswith("_again")
        else (
            f"; {record['minutes']:g} minutes of training by two processes on two cores, at times "
            "beside other work"
        )
    )
    failed = record["failed"]
    broken = [f"Broke down and are left out: {', '.join(failed)}."] if failed else []
    return [
        f"### {name.replace('_again', ', other seeds')}",
        f"`{record['command']}`: {record['student']} from {teacher['name']} "
        f"({100 * teacher['test']:.1f} % on the test images), {record['data']['n_train']} training "
        f"and {record['data']['n_eval']} test images of {settings['size']} pixels in "
        f"{record['data']['classes']} classes, {settings['epochs']} epochs, {settings['seeds']} "
        f"seeds{took}.",
        *([f"![Accuracy of every method on {name}](distillation/{name}.png)"] if drawn else []),
        table,
        *([costs, *(part.strip() for part in rest)] if is_first else []),
        " ".join([*record["sentences"], *broken]) + others,
        f"Chosen on {100 * settings['holdout']:.0f} % of the training images, with "
        f"{settings['choosing_seeds']} seeds and {settings['choosing_epochs']} epochs: {chosen}.",
    ]


def ablation(path: Path) -> list[str]:
    """One data set: a row for each variant."""
    frame = pd.read_csv(path)
    lines = [
        "| variant | method | accuracy | gain over the student alone, 95 % interval |",
        "|---|---|---:|---:|",
    ]
    for row in frame.to_dict("records"):
        ends = [100 * row[name] for name in ("gain", "gain_low", "gain_high")]
        gain = "–" if row["variant"] == "ce" else change(*ends, 1)
        accuracy = f"{100 * row['accuracy']:.1f}"
        lines.append(f"| {row['variant']} | `{row['method']}` | {accuracy} | {gain} |")
    name = path.stem.removeprefix("distill_ablation_")
    n_seeds = int(frame.seeds.min())
    return [
        "\n".join(lines),
        f"Percent of the held-out images of {name}, mean over {n_seeds} seeds; the teacher has "
        f"{100 * frame.teacher.iloc[0]:.1f} %. The intervals allow for other seeds and other "
        "images; they are not corrected for the number of variants.",
    ]


MARKED = {
    "methods": methods,
    "oracles": oracles,
    "overhead": overhead,
    "results": results,
    "variants": variants,
}
"""What stands between the markers of the page."""


def draw(work: Path, ending: str) -> None:
    """The figure of every data set whose runs are below a folder."""
    for final in sorted(work.glob("*/final")):
        found = compare_runs([DistillationRun.open(path) for path in find_runs([final])])
        save(plot_accuracy(found), ROOT / "docs" / "distillation", final.parent.name + ending)


def main() -> None:
    """Draw the figures, and write every table between its markers."""
    parser = argparse.ArgumentParser(description="Tables and figures of docs/distillation.md.")
    parser.add_argument("--runs", type=Path, help="the --work of analyses/distill_table.py")
    parser.add_argument("--ending", default="", help="of the names of the results, such as _again")
    args = parser.parse_args()
    if args.runs is not None:
        draw(args.runs, args.ending)
    page = ROOT / "docs" / "distillation.md"
    text = page.read_text(encoding="utf-8")
    for name, make in MARKED.items():
        begin = f"<!-- {name}: begin (figures/distillation.py) -->"
        end = f"<!-- {name}: end -->"
        if begin not in text:
            continue
        before, rest = text.split(begin)
        _, after = rest.split(end)
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
