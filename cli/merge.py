"""``natstats merge``: the parts of a measurement, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, output
from .sections import Sectioned
from .views import View, view_options


@click.command(
    "merge", cls=Sectioned, short_help="Put the parts of a measurement together into a run."
)
@click.argument("parts", nargs=-1, required=True, type=options.PATH)
@options.refit_options_of_parts
@options.output_options
@view_options()
def command(
    parts: tuple[Path, ...], out: Path | None, overwrite: bool, view: View, **settings: Any
) -> None:
    """Put PARTS together into a run, as if they had been measured at once.

    PARTS are folders that `natstats measure --shard 3/16 --out PART` has written, or the same with
    `natstats images`: shares of one set of images, measured in the same way, on any machines. The
    run is the one that a single process would give. Parts of several sets can be put together, too.
    A part that is given twice, or an image that is in two parts, is refused.
    """
    chosen = output.take_fit_options(settings)
    first = parts[0].resolve().name.rstrip("0123456789").rstrip("-_.") or "merged"
    with output.reserved(out, first, overwrite) as path:
        from natstats.measurement.parts import merge_parts

        run = merge_parts(
            parts, path, overwrite=overwrite, fit=chosen, command=output.command_line()
        )
    output.show(run, view)
