"""``natstats plot``: figures of one run, or of several over each other."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, type=options.FOLDER)
@click.option(
    "--out", type=options.FOLDER, default=Path("figs"), show_default=True, help="Where they go."
)
@options.debug_option
def command(runs: tuple[Path, ...], out: Path) -> None:
    """Draw exponent against depth, spectra, and the spread between images, as SVG and PNG.

    With several RUNS, also all of them over each other.
    """
    from natstats import plots
    from natstats.run import Run

    names = [path.resolve().name for path in runs]
    if len(set(names)) < len(names):
        names = ["-".join(path.resolve().parts[-2:]) for path in runs]
    opened = [(name, Run.open(path)) for name, path in zip(names, runs, strict=True)]
    written = []
    for name, run in opened:
        written += plots.draw_run(run, out if len(opened) == 1 else out / name)
    if len(opened) > 1:
        written += plots.draw_comparison(opened, out)
    for path in written:
        click.echo(path)
