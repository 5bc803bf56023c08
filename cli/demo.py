"""``natstats demo``: everything, on what ships in the package."""

from __future__ import annotations

from pathlib import Path

import click

from natstats.fits.options import FitOptions

from . import options, output
from .views import View, path_text, view_options


@click.command("demo", short_help="Measure a small network on photographs that ship with natstats.")
@options.law_layers_option
@options.output_options
@view_options()
def command(out: Path | None, overwrite: bool, view: View, law_layers: str | None) -> None:
    """Measure a small trained network on the photographs that ship with natstats.

    Works offline. The network is a ResNet-20 trained on 24 classes of texture. The photographs are
    under free licences; LICENSES.md beside them names the licence of each.
    """
    fit = FitOptions() if law_layers is None else FitOptions(law_layers=law_layers)

    command = "natstats demo" if law_layers is None else output.command_line()
    with (
        output.reserved(out, "demo", overwrite) as path,
        output.progress_bar(quiet=view.quiet) as progress,
    ):
        from natstats import demo
        from natstats.measurement.one_run import measure

        run = measure(
            demo.network(),
            demo.photographs(),
            fit=fit,
            progress=progress,
            out=path,
            overwrite=overwrite,
            command=command,
        )
    output.show(run, view)
    if not (view.quiet or view.as_json):
        output.say(f"Photographs and their licences: {path_text(demo.photographs())}")
