"""``natstats plot``: figures of one run, or of several over each other."""

from __future__ import annotations

from pathlib import Path

import click

from . import options


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--out", type=options.PATH, default=Path("figs"), show_default=True, help="Where they go."
)
@options.debug_option
def command(runs: tuple[Path, ...], out: Path) -> None:
    """Draw exponent against depth, spectra, and the spread between images, as SVG and PNG.

    With several RUNS, also all of them over each other.
    """
    from natstats import plots
    from natstats.run import Run

    opened: dict[str, Run] = {}
    for path in runs:
        name, number = path.resolve().name, 2
        while name in opened:
            name, number = f"{path.resolve().name}-{number}", number + 1
        opened[name] = Run.open(path)
    written = []
    if len(opened) > 1:
        written += plots.draw_comparison(list(opened.items()), out)
    for name, run in opened.items():
        written += plots.draw_run(run, out if len(opened) == 1 else out / name)
    for path in written:
        click.echo(path)
    if not written:
        click.echo("There is nothing to draw: no layer has an exponent.", err=True)
