"""The table of docs/training.md, from what analyses/training_series.py wrote.

Run that first, then `python figures/training.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from natstats.numbers import interval, number

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- series: begin (figures/training.py) -->", "<!-- series: end -->"


def main() -> None:
    """Write the table between the markers."""
    results = ROOT / "analyses" / "results"
    rows = pd.read_csv(results / "training_series.csv")
    record = json.loads((results / "training_series.json").read_text(encoding="utf-8"))
    lines = [
        "| step | training loss | validation accuracy | mean exponent | from, to | slope per layer "
        "| verdict | another form is better |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows.to_dict("records"):
        mean = interval(row["exponent_mean_low"], row["exponent_mean_high"])
        slope = interval(row["slope_low"], row["slope_high"], 4, sign=True)
        lines.append(
            f"| {row['step']} | {number(row['train_loss'])} | {number(row['val_accuracy'])} "
            f"| {number(row['exponent_mean'])} {mean} "
            f"| {number(row['exponent_min'])}, {number(row['exponent_max'])} "
            f"| {number(row['slope'], 4, sign=True)} {slope} | {row['verdict']} "
            f"| {row['n_better_form']} of {row['n_exponents']} |"
        )
    images, how, versions = (record[name] for name in ("images", "measured", "versions"))
    lines += [
        "",
        f"> {record['change']['sentence']}",
        "",
        f"{how['photographs']} photographs, {how['size']} pixels a side, exponent "
        f"{number(images['exponent'])} {interval(images['low'], images['high'])} (grey); training "
        f"loss is the mean since the row above; torch {versions['torch']}, natstats "
        f"{versions['natstats']}.",
    ]
    page = ROOT / "docs" / "training.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    text = "\n".join([BEGIN, *lines, END])
    page.write_text(before + text + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
