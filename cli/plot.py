"""``natstats plot``: figures of one run, or of several over each other."""

from __future__ import annotations

from pathlib import Path

import click

from . import options, output, series


@click.command("plot", short_help="Draw the figures of runs: SVG, PNG, PDF, for paper or talk.")
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--out", type=options.PATH, default=Path("figs"), show_default=True, help="Where they go."
)
@click.option("--overwrite", is_flag=True, help="Replace figures of the same names at --out.")
@options.debug_option
def command(runs: tuple[Path, ...], out: Path, overwrite: bool) -> None:
    """Draw exponent against depth, spectra, and the spread between images, as SVG and PNG.

    With several RUNS, also all of them over each other. Of a series: exponents and slope over
    training.
    """
    from natstats import report
    from natstats.files.paths import expanded
    from natstats.report.figures.placing import add_figures
    from natstats.runs.run import Run
    from natstats.runs.series import Series

    opened: dict[str, Run | Series] = {}
    for path in runs:
        name, number = path.resolve().name, 2
        while name in opened:
            name, number = f"{path.resolve().name}-{number}", number + 1
        opened[name] = Series.open(path) if series.is_series(path) else Run.open(path)
    out = expanded(out, "out")
    single = [(name, one) for name, one in opened.items() if isinstance(one, Run)]
    with add_figures(out, overwrite) as drawn:
        figures = (
            report.draw_overlay([(name, run.report()) for name, run in single], drawn)
            if len(single) > 1
            else []
        )
        for name, one in opened.items():
            folder = drawn if len(opened) == 1 else drawn / name
            if isinstance(one, Run):
                figures += report.draw_run(one.report(), folder)
            else:
                figures += report.draw_series(one.report(), folder)
        written = [out / path.relative_to(drawn) for path in figures]
    for path in written:
        output.say(path)
    if not written:
        output.say("There is nothing to draw: no layer has an exponent.", err=True)
