"""The picture and the table of the README, from the demo.

    python figures/readme.py

Runs `natstats demo`, draws docs/demo/law.png, and puts the table and the verdict between the
markers of README.md.
"""

from __future__ import annotations

import platform
from pathlib import Path

import natstats
from natstats import demo
from natstats.report.figures.style import save
from natstats.runs.tables import text_table

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- demo: begin (figures/readme.py) -->", "<!-- demo: end -->"


def main() -> None:
    """Measure, draw, and write the text."""
    run = natstats.measure(demo.network(), demo.photographs())
    save(run.plot_law(), ROOT / "docs" / "demo", "law")
    versions = run.info["versions"]
    text = "\n".join(
        [
            BEGIN,
            "```text",
            text_table(run.layers),
            "",
            *run.verdict.lines(),
            run.forms_sentence(),
            "```",
            "",
            f"natstats {versions['natstats']}, torch {versions['torch']}, Python "
            f"{versions['python']}, {platform.machine()}, CPU.",
            END,
        ]
    )
    readme = ROOT / "README.md"
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    readme.write_text(before + text + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
