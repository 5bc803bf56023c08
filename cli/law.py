"""``natstats law``: the laws of many networks taken together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from natstats.errors import UsageError
from natstats.runs.network_groups import COLUMNS

from . import options, output
from .views import View, path_text, view_options


@click.command("law", short_help="Take the laws of many networks together.")
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--by",
    type=click.Choice(COLUMNS),
    help="What divides the networks into subgroups.  [default: none]",
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    type=options.Pair(),
    metavar="NAME=PATTERN",
    help="Subgroup of networks whose path or name matches, such as cifar='*cifar*'; may be "
    "repeated, the first match counts.",
)
@options.refit_options_of_runs
@click.option(
    "--out",
    type=options.PATH,
    help="Folder for page, figure and tables.  [default: reports/law; none with --csv or --json]",
)
@click.option("--overwrite", is_flag=True, help="Replace the meta-analysis at --out.")
@click.option("--csv", "as_csv", is_flag=True, help="Print all columns as CSV, and nothing else.")
@options.debug_option
@view_options(can_be_quiet=False)
def command(
    runs: tuple[Path, ...],
    by: str | None,
    groups: tuple[tuple[str, str], ...],
    out: Path | None,
    overwrite: bool,
    as_csv: bool,
    view: View,
    **settings: Any,
) -> None:
    """Take the laws of many networks together: mean slope, the next network, how they differ.

    RUNS are runs, series (their last checkpoint counts), and folders that hold any of these. Each
    is one network of the sample. Options of the fit apply to all of them.
    """
    if by is not None and groups:
        raise UsageError("by: expected --by or --group; got both")
    if as_csv and view.as_json:
        raise UsageError("format: expected --csv or --json; got both")
    if out is not None or not (as_csv or view.as_json):
        out = output.report_target(out, "law", overwrite, "law")

    from natstats.files.csv_files import csv_text
    from natstats.runs.many_networks import meta_analysis

    patterns: dict[str, list[str]] = {}
    for name, pattern in groups:
        patterns.setdefault(name, []).append(pattern)
    found = meta_analysis(runs, by or patterns or None, **output.take_fit_options(settings))
    command = output.command_line()
    path = None if out is None else found.save(out, overwrite=overwrite, command=command)
    if not as_csv:
        again = f"natstats law {' '.join(map(path_text, runs))} --all" if len(runs) < 4 else "--all"
        output.result(found, "law", view, path, "Law", again if path is None else "")
        return
    output.say_lines(csv_text(found.networks))
    for note in found.notes:
        output.tell(f"Note: {note}", err=True)
    if path is not None:
        output.place("Law", path, err=True)
