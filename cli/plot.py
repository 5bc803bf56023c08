"""``natstats plot``: figures of one run, or of several over each other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import options, output, series
from .views import path_text

if TYPE_CHECKING:
    from natstats.runs.run import Run
    from natstats.runs.series import Series

FORMATS, STYLES = ("svg", "png", "pdf"), ("paper", "talk")
"""Those of natstats.report.figures.printing, which loads what draws."""


def _formats(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Formats as they were repeated or separated by commas, each once."""
    named = [one.strip().lower() for value in values for one in value.split(",")]
    for one in named:
        if one not in FORMATS:
            raise click.BadParameter(f"expected {', '.join(FORMATS)}; got {one!r}", ctx, parameter)
    return tuple(dict.fromkeys(named))


def _draw_layers(one: Run | Series, layers: Sequence[str], folder: Path) -> list[Path]:
    """Write the spectrum of each of these layers into a folder that is called like it."""
    from natstats.errors import UsageError
    from natstats.report.figures.style import save
    from natstats.runs.series import Series

    if isinstance(one, Series):
        raise UsageError(
            "layer: expected runs; got a series, whose checkpoints are runs in its folder"
        )
    homes: dict[str, str] = {}
    for layer in dict.fromkeys(layers):
        one.layer(layer)  # unknown ones are told before anything is drawn
        home = re.sub(r"[^\w.+-]+", "_", layer).strip(".") or "layer"
        while home in homes.values():
            home += "_"
        homes[layer] = home
    return [
        path
        for layer, home in homes.items()
        for path in save(one.plot_spectrum(layer), folder / home, "spectra")
    ]


@click.command("plot", short_help="Draw the figures of runs: SVG, PNG, PDF, for paper or talk.")
@click.argument("runs", nargs=-1, required=True, type=options.PATH)
@click.option(
    "--out",
    type=options.PATH,
    default=Path("figs"),
    show_default=True,
    help="Folder for the figures.",
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace figures of the same names at --out, and say which.",
)
@click.option(
    "--format",
    "formats",
    multiple=True,
    default=("svg,png",),
    show_default=True,
    callback=_formats,
    metavar="FORMAT,...",
    help="Format: svg, png or pdf (with its fonts); may be repeated, or separated by commas.",
)
@click.option(
    "--width",
    help="Width with its unit, such as 3.4in, 8.6cm, 86mm or 245pt; text keeps its size.  "
    "[default: 7.2in, for a talk 10in]",
)
@click.option(
    "--style",
    type=click.Choice(STYLES),
    default="paper",
    show_default=True,
    help="Style for a paper, or with everything larger for a talk.",
)
@click.option(
    "--layer",
    "layers",
    multiple=True,
    help="Draw only the spectrum of this layer with its fit, into a folder of its name; may be "
    "repeated.",
)
@options.debug_option
def command(
    runs: tuple[Path, ...],
    out: Path,
    overwrite: bool,
    formats: tuple[str, ...],
    width: str | None,
    style: str,
    layers: tuple[str, ...],
) -> None:
    """Draw exponent against depth, spectra, and the spread between images.

    Several RUNS are also drawn over each other. Of a series, exponents and slope are drawn over
    training. What is at --out already stays; a figure of the same name is replaced only with
    --overwrite. With --layer, the spectrum of that layer is drawn, with its fit and what the fit
    leaves.
    """
    from natstats import report
    from natstats.files.paths import expanded
    from natstats.report.figures.placing import add_figures
    from natstats.report.figures.printing import printed
    from natstats.runs.run import Run
    from natstats.runs.series import Series

    with printed(formats, width, style):
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
                if len(single) > 1 and not layers
                else []
            )
            for name, one in opened.items():
                folder = drawn if len(opened) == 1 else drawn / name
                if layers:
                    figures += _draw_layers(one, layers, folder)
                elif isinstance(one, Run):
                    figures += report.draw_run(one.report(), folder)
                else:
                    figures += report.draw_series(one.report(), folder)
            written = [out / path.relative_to(drawn) for path in figures]
            replaced = [path for path in written if path.exists()]
    for path in written:
        output.say(path_text(path))
    if replaced:
        names = ", ".join(path_text(path) for path in replaced)
        output.tell(f"Replaced: {names}", err=True)
    if not written:
        output.tell("There is nothing to draw: no layer has an exponent.", err=True)
