"""``natstats measure``: a network on photographs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from natstats.activations.declared_layouts import declarable
from natstats.errors import UsageError
from natstats.measurement.options import MEASURED_COUNTERFACTUALS, NETWORK_CONTROLS, MeasureOptions
from natstats.networks.load_options import LoadOptions

from . import options, output, series
from .model_options import model_options
from .sections import Sectioned
from .views import View, view_options

__all__ = ["command", "counterfactual_option", "measure_network", "network_options"]

F = TypeVar("F", bound=Callable[..., Any])

HELP = """Measure the exponent of every layer of MODEL on images, and test the depth law.

MODEL is one of

\b
resnet50                 a network of torchvision, or of natstats: `natstats models` lists them
timm:convnext_tiny       one of timm (pip install 'natstats[timm]')
package.module:factory   what a function or class of yours returns, found from
                         the current directory; --model-arg gives it arguments

Without --checkpoint the newest published weights are downloaded once and kept. The network of a
function or class of yours is measured as it is returned.

Several checkpoints of one training (a pattern in quotes, a folder, --checkpoint more than once)
give a series: a run for each, and the exponents and the slope of the law over training. Every run
is kept as soon as it is finished. After an interruption the same command goes on where it stopped.
"""

_OPTIONS = (
    click.argument("model"),
    click.option(
        "--images",
        required=True,
        help="Images: a folder, a pattern in quotes, a list, an array, a data set or a stream; see "
        "`natstats images --help`.",
    ),
    click.option(
        "--no-normalize",
        is_flag=True,
        help="Give the network pixels in [0, 1], not normalised as it expects them.",
    ),
    model_options,
    click.option(
        "--layers",
        multiple=True,
        default=(MeasureOptions.layers,),
        show_default=True,
        help="Layers to measure: weight, conv, act, block, stage or name patterns; separate "
        "several by commas.",
    ),
    click.option(
        "--layout",
        "layouts",
        multiple=True,
        type=options.Pair(),
        help=f"Layout of the output of a module: {', '.join(declarable())}; for tokens see "
        "docs/networks.md.",
    ),
    click.option(
        "--no-probe",
        is_flag=True,
        help="Do not check where the maps of each layer are; saves five passes of one image.",
    ),
    click.option("--temporal", is_flag=True, help="Measure clips along time, not frame by frame."),
    click.option(
        "--device",
        help="Device of the network, such as cpu, cuda or cuda:1.  [default: cuda if there is one]",
    ),
    click.option(
        "--amp", is_flag=True, help="Run the network in mixed precision; spectra stay float32."
    ),
    click.option(
        "--control",
        type=click.Choice(NETWORK_CONTROLS),
        help="Also measure the same architecture with random weights, to see what training did.",
    ),
    click.option(
        "--control-seeds",
        type=int,
        default=MeasureOptions.control_seeds,
        show_default=True,
        help="Number of seeds for --control, at least 2 (10 for a finding); each costs as much as "
        "the measurement.",
    ),
    options.image_options,
    options.fit_options,
    options.saving_options,
    options.output_options,
    view_options(),
)


def network_options(function: F) -> F:
    """Everything that can be said of a measurement of networks on images."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


counterfactual_option = click.option(
    "--counterfactual",
    type=click.Choice(MEASURED_COUNTERFACTUALS),
    help="Also measure a copy with shuffled kernels or input channels, beside what the account "
    "predicts of it.",
)


@click.command(
    "measure",
    help=HELP,
    cls=Sectioned,
    short_help="Measure the exponent of every layer of a network; test the law.",
)
@network_options
@counterfactual_option
@click.option(
    "--explain",
    is_flag=True,
    help="Also measure every operation, to say where the exponents come from (see `natstats "
    "explain`).",
)
def command(**settings: Any) -> None:
    """Measure a network on photographs."""
    measure_network(**settings)


def measure_network(
    model: str,
    images: str,
    no_normalize: bool,
    no_probe: bool,
    checkpoint: tuple[Path, ...],
    layers: tuple[str, ...],
    layouts: tuple[tuple[str, str], ...],
    out: Path | None,
    overwrite: bool,
    view: View,
    **settings: Any,
) -> None:
    """Measure a network, or the checkpoints of a training, and write what was found."""
    asked = click.get_current_context().get_parameter_source("control_seeds")
    if settings["control"] is None and asked is not ParameterSource.DEFAULT:
        raise UsageError(
            f"control_seeds: expected only beside --control; got {settings['control_seeds']}"
        )

    # Before files are looked for and a folder is reserved; each network is checked again.
    LoadOptions(
        settings["weights"], checkpoint[0] if checkpoint else None, settings["checkpoint_key"]
    ).refuse_contradictions()

    from natstats.images.sources import source_name
    from natstats.networks.checkpoint_files import find_checkpoints

    found = find_checkpoints(checkpoint)
    name = f"{model.replace(':', '-').replace('/', '-')}-{source_name(images)}"
    chosen = output.take_fit_options(settings)

    from natstats.fits.options import FitOptions, refuse_resamples_unused
    from natstats.measurement.one_run import measure

    settings["fit"] = FitOptions(**chosen)
    refuse_resamples_unused(chosen, settings["fit"])
    settings["options"] = MeasureOptions(
        layers=",".join(layers),
        layouts=dict(layouts),
        normalize=not no_normalize,
        probe=not no_probe,
        **output.take_measure_options(settings),
    )
    shard = settings.pop("shard")
    if len(found) > 1:
        if shard is not None:
            raise UsageError(f"shard: expected with one checkpoint; got {len(found)}")
        series.measure(model, found, images, out, overwrite, name, view, **settings)
        return

    one = found[0] if found else None
    how = settings["options"]
    with output.placed(out, name, overwrite, shard, view.quiet, how.until, how.n_passes) as (
        path,
        progress,
    ):
        run = measure(
            model,
            images,
            checkpoint=one,
            progress=progress,
            out=path,
            overwrite=overwrite,
            shard=shard,
            command=output.command_line(),
            **settings,
        )
    if progress is not None:  # the first of several processes
        output.show(run, view, path, shard)
