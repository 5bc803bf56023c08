"""Options that several subcommands share, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from natstats.fits.band_choice import as_band
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.options import INTERVALS, FitOptions
from natstats.measurement.options import EDGES, MeasureOptions

__all__ = [
    "PATH",
    "Band",
    "Pair",
    "debug_option",
    "fit_options",
    "image_fit_options",
    "image_options",
    "law_layers_option",
    "output_options",
    "refit_options",
    "refit_options_of_parts",
    "refit_options_of_runs",
    "saving_options",
    "strict_images",
]

F = TypeVar("F", bound=Callable[..., Any])

PATH: click.Path[Path] = click.Path(path_type=Path)

DEPTHS = tuple(DEPTH_AXES)
FIT_OPTIONS = tuple(field.name for field in fields(FitOptions))


class Band(click.ParamType):
    """A band of frequencies, written LOW:HIGH, or LOW:HIGH/image."""

    name = "low:high"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the library makes of it, or its complaint, before anything is done."""
        return as_band(value)


class Pair(click.ParamType):
    """A name and a value, written NAME=VALUE."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return name and value."""
        if not isinstance(value, str):
            return value
        name, equals, text = value.partition("=")
        if not (name and equals):
            self.fail(f"expected NAME=VALUE; got {value!r}")
        return name, text


def _chain(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def apply(function: F) -> F:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    ctx.find_root().meta["natstats.debug"] = value


debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_debug,
    help="Show the traceback of an error.",
)


def _joined(ctx: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> str | None:
    """Values of an option that may be repeated as one text; None where it was not given."""
    return ",".join(value) if value else None


def _law_layers(default: str) -> Callable[[F], F]:
    return click.option(
        "--law-layers",
        multiple=True,
        callback=_joined,
        help="Layers in the law: hidden (all but the output), all, kinds, name patterns; - leaves "
        f"one out.{default}",
    )


def _fit_options(*, kept: str = "", has_depth: bool = True) -> Callable[[F], F]:
    """Options of a fit; a refit keeps what is not given as it was, and images have no depth."""

    def default(value: object) -> str:
        return f"  [default: {kept or value}]"

    depth = click.option(
        "--depth",
        type=click.Choice(DEPTHS),
        help=f"Measure of depth that the law uses.{default(FitOptions.depth)}",
    )
    law_layers = _law_layers(default(FitOptions.law_layers))
    return _chain(
        click.option(
            "--band",
            type=Band(),
            help="Frequencies to fit, in cycles/pixel of the map, or as 2:12/image in cycles/image."
            f"{default('all rings')}",
        ),
        click.option(
            "--estimator",
            type=click.Choice(tuple(ESTIMATORS)),
            help=f"Estimator whose exponents head the table.{default(FitOptions.estimator)}",
        ),
        click.option(
            "--level",
            type=float,
            help=f"Confidence level of the intervals.{default(FitOptions.level)}",
        ),
        click.option(
            "--min-rings",
            type=int,
            help="Layers with fewer rings in the band are not fitted."
            f"{default(FitOptions.min_rings)}",
        ),
        click.option(
            "--equal-power/--no-equal-power",
            "normalize",
            default=None,
            help="Give every image the same power before the mean over images."
            f"{default('no-equal-power')}",
        ),
        click.option(
            "--interval",
            type=click.Choice(INTERVALS),
            help="Jackknife (Student's t with effective degrees of freedom) or studentised "
            f"bootstrap.{default(FitOptions.interval)}",
        ),
        click.option(
            "--resamples",
            type=int,
            help=f"Number of resamples of the bootstrap.{default(FitOptions.resamples)}",
        ),
        *([depth, law_layers] if has_depth else []),
    )


fit_options = _fit_options()
refit_options = _fit_options(kept="as in RUN")
refit_options_of_runs = _fit_options(kept="as in each run")
refit_options_of_parts = _fit_options(kept="as in the first part")
image_fit_options = _fit_options(has_depth=False)
law_layers_option = _law_layers(f"  [default: {FitOptions.law_layers}]")

image_options = _chain(
    click.option(
        "--edges",
        type=click.Choice(EDGES),
        default=MeasureOptions.edges,
        show_default=True,
        help="How the edges of a map are treated before it is transformed.",
    ),
    click.option(
        "--groups",
        "n_groups",
        type=int,
        default=MeasureOptions.n_groups,
        show_default=True,
        help="Number of groups that the images are divided into; resampling takes whole groups.",
    ),
    click.option(
        "--batch-size",
        type=int,
        default=MeasureOptions.batch_size,
        show_default=True,
        help="Images per batch.",
    ),
    click.option(
        "--workers",
        type=int,
        help="Processes that read images.  [default: 0 on the CPU, else one per processor, at most "
        "8]",
    ),
    click.option(
        "--limit",
        type=int,
        help="Measure at most this many images: a random sample; of a stream, the first of every "
        "shard.",
    ),
    click.option(
        "--until",
        type=float,
        help="Read images until no layer's interval is wider than this, such as 0.05. To go on "
        "later, give a smaller width and the same --out.",
    ),
    click.option(
        "--seed",
        type=int,
        default=MeasureOptions.seed,
        show_default=True,
        help="Seed of the sample, of the numbering of images, and of a network's random weights.",
    ),
    click.option(
        "--size",
        type=int,
        help="Side of the square that enters, in pixels; photographs are scaled and cut to it.",
    ),
    click.option(
        "--crop",
        type=int,
        help="Cut a square of this side, in pixels, out of the photographs. They are not scaled "
        "unless --size is given, which is then their shorter side.",
    ),
    click.option("--frames", type=int, help="Frames per clip, for clips:ROOT.  [default: 16]"),
)

strict_images = click.option(
    "--strict", is_flag=True, help="Fail on an unreadable image instead of skipping it."
)

saving_options = _chain(
    click.option(
        "--save-every",
        type=float,
        default=60.0,
        show_default=True,
        help="Seconds from one save to the next; an interrupted measurement goes on with the same "
        "command.",
    ),
    click.option(
        "--shard",
        help="Measure one share of the images, such as 3/16, into a part at --out; "
        "`natstats merge` puts the parts together.",
    ),
)

output_options = _chain(
    click.option("--out", type=PATH, help="Folder of the run.  [default: a new one below runs/]"),
    click.option("--overwrite", is_flag=True, help="Replace the run at --out."),
    debug_option,
)
