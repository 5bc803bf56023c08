"""``natstats table``: distillation runs compared, with intervals and paired tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from natstats.errors import UsageError

from . import options, output


@click.command("table", short_help="Compare trainings: accuracy, gains, tests on the same images.")
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--reference",
    "references",
    multiple=True,
    metavar="METHOD",
    help="Method, or label of a row, over which gains are taken; may be repeated.  "
    "[default: ce and kd, if they are there]",
)
@click.option(
    "--contrast",
    "contrasts",
    multiple=True,
    metavar="METHOD:OVER",
    help="Planned contrast, such as kd+spectral:kd; may be repeated. Its error is pooled over "
    "all methods.  [default: every X+spectral over X]",
)
@click.option(
    "--level",
    type=float,
    default=0.95,
    show_default=True,
    help="Confidence level of the intervals.",
)
@click.option(
    "--out", type=options.PATH, help="Folder for tables, page and figures.  [default: none]"
)
@click.option(
    "--overwrite", is_flag=True, help="Replace the table at --out; runs in that folder stay."
)
@click.option("--csv", "as_csv", is_flag=True, help="Print all columns as CSV, and nothing else.")
@click.option(
    "--markdown", "as_markdown", is_flag=True, help="Print Markdown tables, and nothing else."
)
@options.debug_option
def command(
    runs: tuple[Path, ...],
    references: tuple[str, ...],
    contrasts: tuple[str, ...],
    level: float,
    out: Path | None,
    overwrite: bool,
    as_csv: bool,
    as_markdown: bool,
) -> None:
    """Compare distillation RUNS: accuracy with its interval, gains, tests on the same images.

    Each of RUNS is one training, the folder of its seeds, or a folder that holds any of these.
    Trainings that differ only in their seed are one method. An unfinished training is left out, and
    a note says how far it has come. Gains are paired on seeds and images, and their p-values are
    corrected for the number of methods by Holm's rule.
    """
    if as_csv and as_markdown:
        raise UsageError("csv: expected --csv or --markdown; got both")
    pairs = [_pair(text) for text in contrasts]
    if out is not None:
        out = output.target(out, "", overwrite, "table")

    from natstats.distill.comparison.compare import compare_runs
    from natstats.distill.results import DistillationRun
    from natstats.distill.run_folders import find_runs, find_unfinished
    from natstats.files.csv_files import csv_text

    unfinished = _unfinished(find_unfinished(runs))
    for sentence in unfinished:
        output.tell(f"Note: {sentence}.", err=True)
    opened = [DistillationRun.open(path) for path in find_runs(runs)]
    found = compare_runs(opened, references or None, level, pairs or None)
    if as_csv:
        output.say_lines(csv_text(found.methods))
    elif as_markdown:
        output.say_lines(found.markdown())
    else:
        output.comparison(found)
    if out is not None:
        said = (f"{text[0].upper()}{text[1:]}." for text in unfinished)
        found = replace(found, notes=(*found.notes, *said))
        path = found.save(out, overwrite=overwrite)
        output.place("Table", path, err=as_csv or as_markdown)


def _unfinished(paths: Sequence[Path]) -> list[str]:
    """How far each training is that is in no table."""
    if not paths:
        return []
    from natstats.distill.training.unfinished import read_unfinished

    return [read_unfinished(path).sentence() for path in paths]


def _pair(text: str) -> tuple[str, str]:
    first, _, second = text.partition(":")
    if not first or not second or ":" in second:
        raise UsageError(f"contrast: expected METHOD:OVER, such as kd+spectral:kd; got {text!r}")
    return first, second
