"""``natstats compare``: what differs between two runs, and by more than chance."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from . import options, output
from .views import View, path_text, view_options


@click.command("compare", short_help="Compare two runs, layer by layer and as laws.")
@click.argument("run_a", type=options.PATH)
@click.argument("run_b", type=options.PATH)
@click.option(
    "--out",
    type=options.PATH,
    help="Folder for page, figures and tables.  [default: reports/compare-A-B; none with --json]",
)
@click.option("--overwrite", is_flag=True, help="Replace the comparison at --out.")
@options.debug_option
@view_options(can_be_quiet=False)
def command(run_a: Path, run_b: Path, out: Path | None, overwrite: bool, view: View) -> None:
    """Compare RUN_B with RUN_A: every layer by name, and the slopes of the two laws.

    Differences are B minus A. If both runs saw the same images they are paired, which makes the
    intervals shorter. The p of each layer is corrected for the number of layers by Holm's rule.
    """
    first, second = (path.resolve().name for path in (run_a, run_b))
    if out is not None or not view.as_json:
        out = output.report_target(out, f"compare-{first}-{second}", overwrite, "comparison")

    from natstats.runs.comparison import compare
    from natstats.runs.run import Run

    names = (first, second) if first != second else (str(run_a), str(run_b))
    if names[0] == names[1]:
        names = (f"{first} (A)", f"{first} (B)")
    found = compare(Run.open(run_a), Run.open(run_b), names)
    command = output.command_line()
    path = None if out is None else found.save(out, overwrite=overwrite, command=command)
    again = shlex.join(["natstats", "compare", path_text(run_a), path_text(run_b), "--all"])
    output.result(found, "comparison", view, path, "Comparison", again if path is None else "")
