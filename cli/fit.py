"""``natstats fit``: fit a run in another way, without images or network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, output


@click.command("fit")
@click.argument("run", type=options.PATH)
@options.fit_options
@click.option("--out", type=options.PATH, help="The new run.  [default: RUN-fit, beside RUN]")
@click.option(
    "--overwrite", is_flag=True, help="Replace the run at --out, which may be RUN itself."
)
@options.debug_option
def command(
    run: Path,
    out: Path | None,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Fit the spectra of RUN again, in another way, into a new run.

    What is not given stays as it was in RUN, which is left as it is.
    """
    from natstats import store
    from natstats.run import Run

    if out is None:
        folder = run.resolve()
        path = store.free_path(folder.with_name(f"{folder.name}-fit"))
    else:
        path = output.target(out, "", overwrite)
    refitted = Run.open(run).refit(**output.take_fit_options(settings))
    refitted.info["refit"] = output.command_line()
    output.finish(refitted, path, overwrite=overwrite)
