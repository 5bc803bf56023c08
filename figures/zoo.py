"""The tables of docs/networks.md, from what analyses/zoo_coverage.py wrote.

Run `python analyses/zoo_coverage.py` first, then `python figures/zoo.py`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- zoo: begin (figures/zoo.py) -->", "<!-- zoo: end -->"
LEFT_OUT = {
    "no axes of maps": "no maps",
    "1 x 1": "1 × 1",
    "never called": "never called",
    "not of the images": "not of the images",
    "too small": "below 5 × 5",
    "wrong place": "answers in the wrong place",
    "other": "other",
}


def reasons(row: pd.Series) -> str:
    """Numbers of layers that were left out, by reason."""
    parts = [f"{row[key]:.0f} {text}" for key, text in LEFT_OUT.items() if row[key]]
    return "; ".join(parts) or "none"


def input_of(row: pd.Series) -> str:
    """What was given to a network."""
    shape = f"{row.images:.0f} × {row.side:.0f} px"
    return shape if row.takes == "images" else f"{shape}, {row.takes}"


def answers_of(row: pd.Series) -> str:
    """What the probe of the layouts said of the layers."""
    parts = {
        "proved": row.proved,
        "read otherwise": row["read otherwise"],
        "refused": row.refused,
        "by rule": row["by rule"],
    }
    return "; ".join(f"{n:.0f} {text}" for text, n in parts.items() if n) or "none"


def probe_summary(good: pd.DataFrame) -> str:
    """What the probe found, library by library, in a paragraph."""
    sentences = []
    for library, group in good.groupby(good.network.str.startswith("timm:"), sort=True):
        sums = group[["proved", "read otherwise", "refused", "by rule", "spatial"]].sum()
        sentences.append(
            f"In {len(group)} networks of {'timm' if library else 'torchvision'}, "
            f"{sums.proved:.0f} layers were proved, {sums['read otherwise']:.0f} are read in a "
            f"layout other than that of the rules, {sums.refused:.0f} were refused, and "
            f"{sums['by rule']:.0f} that were measured say that only a rule speaks for them."
        )
    passes = good.passes
    sentences.append(
        "The probe took as long as "
        f"{passes.median():.1f} plain passes of one image in the median over networks, two at a "
        f"time (quartiles {passes.quantile(0.25):.1f} and {passes.quantile(0.75):.1f}, "
        f"largest {passes.max():.1f})."
    )
    return " ".join(sentences)


def main() -> None:
    """Write the summary and the table of all networks between the markers."""
    frame = pd.read_csv(ROOT / "analyses" / "results" / "zoo_coverage.csv")
    failed = frame[frame.error.notna()]
    good = frame[frame.error.isna()]
    measured, spatial = good.measured.sum(), good.spatial.sum()
    lines = [
        f"**{len(good)} of {len(frame)} networks were measured without an error, and "
        f"{measured:.0f} of their {spatial:.0f} spatial weight layers "
        f"({100 * measured / spatial:.1f} %).** In {(good.share >= 0.95).sum()} networks the share "
        f"is at least 95 %; the others are "
        + ", ".join(
            f"{r.network} ({100 * r.share:.0f} %)" for r in good[good.share < 0.95].itertuples()
        )
        + f". Weight layers that are in neither list: {good.untold.sum():.0f}. The paths of the "
        f"data were followed in {good.followed.sum():.0f} of them.",
        "",
        probe_summary(good),
        "",
    ]
    lines += [f"- {row.network}: {row.error}" for row in failed.itertuples()]
    lines += [
        "| family | networks | calls | spatial | measured | left out | layouts | probe |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for family, group in good.groupby("family"):
        probed = ["proved", "read otherwise", "refused", "by rule"]
        sums = group[["calls", "spatial", "measured", *LEFT_OUT, *probed]].sum()
        layouts: dict[str, int] = {}
        for text in group.layouts:
            for part in str(text).split("; "):
                n, _, name = part.partition(" ")
                layouts[name] = layouts.get(name, 0) + int(n)
        listed = ", ".join(
            f"{name} {n}" for name, n in sorted(layouts.items(), key=lambda i: -i[1])
        )
        lines.append(
            f"| {family} | {len(group)} | {sums.calls:.0f} | {sums.spatial:.0f} "
            f"| {sums.measured:.0f} | {reasons(sums)} | {listed} | {answers_of(sums)} |"
        )
    lines += [
        "",
        "<details><summary>All networks</summary>",
        "",
        "| network | million parameters | input | spatial | measured | left out | probe "
        "| passes | depth | s to build | s to measure | peak GB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.network} | {row.million_parameters} | {input_of(row)} | {row.spatial:.0f} "
        f"| {row.measured:.0f} | {reasons(row)} | {answers_of(row)} | {row.passes} "
        f"| {row.depth:.0f} | {row.seconds_build} "
        f"| {row.seconds_measure} | {row.peak_gb} |"
        for _, row in good.iterrows()
    ]
    lines += ["", "</details>"]
    page = ROOT / "docs" / "networks.md"
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    text = "\n".join([BEGIN, *lines, END])
    page.write_text(before + text + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
