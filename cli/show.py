"""``natstats show``: table and verdict of what was measured or compared before."""

from __future__ import annotations

from pathlib import Path

import click

from . import options, output
from .views import View, view_options


@click.command("show", short_help="Print table and verdict of a finished run.")
@click.argument("run", type=options.PATH)
@options.debug_option
@view_options()
def command(run: Path, view: View) -> None:
    """Print table and verdict of RUN, a folder that natstats has written.

    RUN can be a run, a series, a comparison (`natstats compare --out`), the laws of many networks
    (`natstats law --out`), a training or a table of trainings.
    """
    from natstats.files.paths import expanded

    from . import folders

    path = expanded(run, "run")
    kind = folders.kind_of(path)
    named = {"run": "Run", "distill": "Run", "law": "Law"}.get(kind, kind.capitalize())
    found = folders.opened(path, kind)
    output.result(found, kind, view, path, named)
    if kind == "run" and not view.quiet:
        for sentence in folders.doubts(found, path):
            output.tell(f"Note: {sentence}", err=view.as_json)
