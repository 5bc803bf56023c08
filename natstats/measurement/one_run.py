"""The main job: images through a network into a run."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from natstats.fits.options import FitOptions
from natstats.images.sources import (
    Batch,
    ImageSet,
    Photographs,
    open_images,
    reframed,
    source_name,
)
from natstats.measurement.image_loop import ImageLoop, Progress, earlier_sums, share_of
from natstats.measurement.keeping import KeptPass
from natstats.measurement.network_pass import NetworkPass
from natstats.measurement.options import (
    ImageSettings,
    MeasureOptions,
    NetworkSettings,
    chosen_options,
    keywords_shown,
)
from natstats.measurement.pass_sums import PassFacts, PassSums
from natstats.measurement.place import SAVE_EVERY, Place, kept_in
from natstats.measurement.preparation import (
    ImageSource,
    as_network,
    home_of,
    prepared_as,
    refuse_unused,
)
from natstats.networks.load import Network
from natstats.networks.preprocessing import Preprocessing, configured
from natstats.networks.random_weights import check_control, with_random_weights
from natstats.runs.control import RandomWeights
from natstats.runs.provenance import device_facts
from natstats.runs.reading import Reading, SourceFacts
from natstats.runs.run import Run
from natstats.spectra.input_spectra import InputSpectra

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Progress", "measure", "measure_images"]


@keywords_shown(NetworkSettings)
def measure(
    model: nn.Module | Network | str,
    images: ImageSource,
    *,
    options: MeasureOptions | None = None,
    fit: FitOptions | None = None,
    device: torch.device | str | None = None,
    strict: bool | None = None,
    progress: Progress | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
    command: str | None = None,
    **settings: Unpack[NetworkSettings],
) -> Run:
    """Measure the exponents of a network's layers on images, and fit the law.

    Args:
        model: a module, a :class:`natstats.Network`, or the name of one (see
            :func:`natstats.load_network`). A bare module is given photographs at 224 pixels with
            the normalisation of ImageNet, or what its ``pretrained_cfg`` says; pass a ``Network``
            for another one. What data parallelism and ``torch.compile`` put around a module is
            taken off.
        images: photographs, or an array (N, C, H, W) that is given to the model as it is; see
            :func:`natstats.images.sources.open_images` for all that can be named.
        options: how to measure; in its place its fields may be given by name.
        fit: how to fit.
        device: where to run, and for a module where it is moved to; by default where the module
            is, or for a named model CUDA if there is any, else the CPU.
        strict: True to raise at the first image that cannot be read; False to load from a
            checkpoint what fits. By default such an image is left out, and a checkpoint must fit.
        progress: called after each batch.
        out: the run is saved here, and while it is measured, what it has come to: the same call
            goes on from there after an interruption. Without it nothing is written.
        overwrite: replace the run that is at `out`, and begin anew where the state of another
            measurement is.
        save_every: seconds between two times that the state is saved; 0 for after every batch.
        command: what was typed, to be told in the report.
        **settings: the fields of :class:`natstats.MeasureOptions` (``layers``, ``limit``, ``seed``
            and others), and for a named model also those of
            :class:`natstats.networks.load_options.LoadOptions` (``weights``, ``checkpoint`` and
            others).

    Returns:
        The run, with a row for every layer.

    Raises:
        UsageError: an argument is out of range.
        NatstatsError: the weights do not fit, no image can be read, the model fails, or the run
            cannot be written.
        Interrupted: a signal came, and `out` keeps what was measured.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    >>> run = measure(model, torch.rand(8, 3, 16, 16), n_groups=8)
    >>> list(run.layers.layer)
    ['input.grey', 'input.colour', '0']
    """
    loading, chosen = chosen_options("measure", options, settings, NetworkSettings)
    # Before the network, whose weights may have to be downloaded, and which then says the size.
    framing = Preprocessing().framing
    source = open_images(images, framing, chosen.limit, chosen.seed, chosen.frames)
    refuse_unused(source, images, chosen)
    with kept_in(out, overwrite, save_every, command) as place:
        loaded = as_network(model, loading, strict is not False, chosen.seed, device)
        network = prepared_as(loaded, chosen)
        if isinstance(source, Photographs) and source is not images:
            source = source.framed(network.preprocessing.framing)
        if chosen.control is not None:
            check_control(network, chosen.seed)
        chosen = _with_workers(chosen, home_of(network.model)[0])
        place.identify(source, chosen.to_dict(), fit or FitOptions(), network)
        is_guess = isinstance(model, nn.Module) and configured(network.model) is None
        one = NetworkPass(
            network, source, chosen, fit or FitOptions(), strict is True, progress,
            is_guess=is_guess,
        )  # fmt: skip
        return place.finish(_with_controls(one, place))


def _with_controls(one: NetworkPass, place: Place) -> Run:
    """The run of a pass, with those of its untrained and of its shuffled networks."""
    options, progress = one.options, one.progress
    n_seeds = 0 if options.control is None else options.control_seeds
    n_parts = 1 + n_seeds + 2 * (options.counterfactual is not None)
    trained = replace(one, progress=share_of(progress, 0, n_parts), kept=place.of("trained"))
    run = trained.measured()
    for number in range(n_seeds):
        seed, share = options.seed + number, share_of(progress, 1 + number, n_parts)
        network = with_random_weights(one.network, seed)
        untrained = trained.of_control(network, share, place.of(f"seed-{seed}")).measured()
        run.random_weights.append(_as_control(seed, untrained))
    if options.counterfactual is not None:
        shares = [share_of(progress, 1 + n_seeds + part, n_parts) for part in (0, 1)]
        run.shuffled = trained.shuffled(
            options.counterfactual, options.seed, shares, place.of("shuffled")
        )
    return run


@keywords_shown(ImageSettings)
def measure_images(
    images: ImageSource,
    *,
    options: MeasureOptions | None = None,
    fit: FitOptions | None = None,
    strict: bool = False,
    progress: Progress | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
    command: str | None = None,
    **settings: Unpack[ImageSettings],
) -> Run:
    """Measure the images themselves: layer 0 alone.

    Photographs are cut to their central square without scaling, the largest that fits all of them
    up to 512 pixels; with `size` they are scaled to it first, which changes their spectrum.

    Args:
        images: see :func:`natstats.images.sources.open_images`.
        options: how to measure; in its place its fields may be given by name.
        fit: how to fit.
        strict: raise at the first image that cannot be read.
        progress: called after each batch.
        out: the run is saved here, and while it is measured, what it has come to: the same call
            goes on from there after an interruption. Without it nothing is written.
        overwrite: replace the run that is at `out`, and begin anew where the state of another
            measurement is.
        save_every: seconds between two times that the state is saved; 0 for after every batch.
        command: what was typed, to be told in the report.
        **settings: those fields of :class:`natstats.MeasureOptions` that images alone have.

    Raises:
        UsageError: an argument is out of range, or an option is given that only a network has.
        NatstatsError: no image can be read, or the run cannot be written.
        Interrupted: a signal came, and `out` keeps what was measured.

    >>> from natstats import power_law_fields
    >>> fields = power_law_fields(64, 32, 32, alpha=2.0, seed=0)[:, None]
    >>> run = measure_images(fields)
    >>> bool(abs(run.layers.exponent[0] - 2.0) < 0.1)
    True
    """
    _, chosen = chosen_options("measure_images", options, settings, ImageSettings)
    chosen = _with_workers(chosen, torch.device("cpu"))
    recorded = chosen.of_images()
    framing = reframed(None, chosen.size, chosen.crop)
    source = open_images(images, framing, chosen.limit, chosen.seed, chosen.frames)
    refuse_unused(source, images, chosen)
    with kept_in(out, overwrite, save_every, command) as place:
        place.identify(source, recorded, fit or FitOptions())
        sums = _images_alone(source, chosen, recorded, strict, progress, place.of("images"))
        return place.finish(sums.run(fit or FitOptions()))


def _images_alone(
    source: ImageSet,
    options: MeasureOptions,
    recorded: dict[str, Any],
    strict: bool,
    progress: Progress | None,
    kept: KeptPass | None,
) -> PassSums:
    """What is measured of images without a network."""
    device = torch.device("cpu")
    earlier = earlier_sums(kept, source)
    if earlier is not None:
        sums, _ = earlier
    else:
        facts = PassFacts(source_name(source.description), None, recorded, device_facts(device))
        inputs = InputSpectra(options.edges, options.n_groups, options.temporal)
        sums = PassSums(facts, Reading(SourceFacts.of(source)), inputs)
    if len(sums.reading.numbers) < len(source):
        ImageLoop(source, options, device, strict, progress, kept).run(_ImagesWork(sums))
    return sums


@dataclass
class _ImagesWork:
    """The work of images alone, as their loop asks for it."""

    sums: PassSums

    def measure(self, batch: Batch) -> None:
        self.sums.inputs.update(batch.images, batch.index)

    def finish(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return self.sums.state()


def _with_workers(options: MeasureOptions, device: torch.device) -> MeasureOptions:
    """Options with a number of workers: the one asked for, else what suits the device."""
    if options.workers is not None:
        return options
    return replace(options, workers=0 if device.type == "cpu" else min(8, os.cpu_count() or 1))


def _as_control(seed: int, run: Run) -> RandomWeights:
    return RandomWeights.of(seed, run.info, run.spectra, run.skipped_layers, run.account_spectra)
