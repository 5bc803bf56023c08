"""``natstats fit``: fit a run in another way, without images or network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, output, series
from .sections import Sectioned
from .views import View, view_options


@click.command("fit", cls=Sectioned, short_help="Fit the spectra of a run again, in another way.")
@click.argument("run", type=options.PATH)
@options.refit_options
@click.option(
    "--out", type=options.PATH, help="Folder of the new run.  [default: RUN-fit, beside RUN]"
)
@click.option(
    "--overwrite", is_flag=True, help="Replace the run at --out, which may be RUN itself."
)
@options.debug_option
@view_options()
def command(
    run: Path,
    out: Path | None,
    overwrite: bool,
    view: View,
    **settings: Any,
) -> None:
    """Fit the spectra of RUN again, in another way, into a new run.

    Options that are not given stay as they were in RUN, and RUN itself stays as it is. If RUN is a
    series, all its runs are fitted again into a new series. If all images of RUN were measured but
    the run could not be written, it is finished in its own folder.
    """
    from natstats.files.ownership import is_reserved
    from natstats.files.paths import expanded
    from natstats.measurement.finishing import finish_run
    from natstats.runs import store
    from natstats.runs.run import Run
    from natstats.runs.series import Series

    if is_reserved(expanded(run, "run")):
        finished = finish_run(expanded(run, "run"), output.take_fit_options(settings))
        output.show(finished, view)
        return
    many = series.is_series(run)

    if out is None:
        folder = expanded(run, "run").resolve()
        path = store.free_path(folder.parent / f"{folder.name}-fit")
    else:
        path = output.target(out, "", overwrite, "series" if many else "run")
    chosen = output.take_fit_options(settings)
    if many:
        again = Series.open(run).refit(**chosen)
        for one in (*again.runs, again):
            one.info["refit"] = output.command_line()
        again.save(path, overwrite=overwrite)
        series.finish(again, path, view)
        return
    opened = Run.open(run)
    refitted = opened.refit(**chosen)
    if not refitted.has_exponents and opened.has_exponents:
        from natstats.errors import UsageError

        raise UsageError(
            "fit: expected options with which at least one layer has an exponent; got none "
            f"({refitted.band_sentence() or refitted.hindrances()})"
        )
    refitted.info["refit"] = output.command_line()
    refitted.save(path, overwrite=overwrite)
    output.show(refitted, view)
