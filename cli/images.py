"""``natstats images``: the photographs themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from natstats.measurement.options import MeasureOptions

from . import options, output
from .sections import Sectioned
from .views import View, view_options


@click.command("images", cls=Sectioned, short_help="Measure the exponent of images themselves.")
@click.argument("source")
@click.option("--temporal", is_flag=True, help="Measure clips along time, not frame by frame.")
@options.image_options
@options.strict_images
@options.image_fit_options
@options.saving_options
@options.output_options
@view_options()
def command(
    source: str,
    out: Path | None,
    overwrite: bool,
    save_every: float,
    shard: str | None,
    strict: bool,
    view: View,
    **settings: Any,
) -> None:
    """Measure the exponent of images.

    SOURCE can be photographs: an image, a folder, a pattern in quotes, a .txt list of paths, .tar
    shards ('shards/{000..012}.tar'), a data set of torchvision on disk (cifar10:ROOT,
    imagenet:ROOT, stl10:ROOT:train and others), or clips:ROOT with a folder of frames for every
    clip. It can be an array (N, C, H, W) in a .npy or .pt file, which is taken as it is.

    It can also be a stream of tar shards that neither memory nor disk holds:
    'pipe:gsutil cat gs://b/{000..012}.tar' (a command for every shard), an address that fsspec
    opens ('s3://b/{000..012}.tar'), or .tar.gz files. Data sets of Hugging Face are hf:FOLDER
    (saved to disk, or parquet files) and hf-stream:NAME[:SPLIT].

    Photographs are cut to their central square, and not scaled unless --size is given. The square
    is the largest, up to 512 pixels, that fits all of them but a few far smaller ones.
    """
    from natstats.images.sources import source_name

    chosen = output.take_fit_options(settings)

    from natstats.fits.options import FitOptions, refuse_resamples_unused
    from natstats.measurement.one_run import measure_images

    fit, how = FitOptions(**chosen), MeasureOptions(**settings)
    refuse_resamples_unused(chosen, fit)

    name = source_name(source)
    with output.placed(out, name, overwrite, shard, view.quiet, how.until) as (path, progress):
        run = measure_images(
            source,
            options=how,
            fit=fit,
            strict=strict,
            progress=progress,
            out=path,
            overwrite=overwrite,
            save_every=save_every,
            shard=shard,
            command=output.command_line(),
        )
    if progress is not None:  # the first of several processes
        output.show(run, view, path, shard)
