"""``natstats images``: the photographs themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options, output


@click.command("images")
@click.argument("source", type=options.PATH)
@options.image_options
@options.fit_options
@options.output_options
def command(
    source: Path,
    out: Path | None,
    overwrite: bool,
    groups: int,
    workers: int | None,
    **settings: Any,
) -> None:
    """Measure the exponent of images: a folder of photographs, or a .npy array (N, C, H, W).

    Photographs are cut to their central square, the largest up to 512 pixels that fits all of
    them, and not scaled unless --size is given. An array is taken as it is.
    """
    path = output.target(out, source.stem, overwrite)
    chosen = output.take_fit_options(settings)

    from natstats.measurement import measure_images
    from natstats.options import FitOptions

    fit = FitOptions(**chosen)

    with output.progress_bar() as progress:
        run = measure_images(
            source, n_groups=groups, workers=workers or 0, fit=fit, progress=progress, **settings
        )
    run.info["command"] = output.command_line()
    output.finish(run, path, overwrite=overwrite)
