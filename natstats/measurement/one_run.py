"""The main job: measuring images that go through a network, or images alone, into a run."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from natstats.errors import UsageError
from natstats.fits.options import FitOptions
from natstats.images.sources import Photographs, open_images, reframed
from natstats.measurement.image_loop import Progress, share_of
from natstats.measurement.images_alone import sums_of_images
from natstats.measurement.network_pass import NetworkPass
from natstats.measurement.options import (
    ImageSettings,
    MeasureOptions,
    NetworkSettings,
    chosen_options,
    keywords_shown,
)
from natstats.measurement.parts import Shard
from natstats.measurement.place import SAVE_EVERY, Keeping, Place
from natstats.measurement.preparation import (
    ImageSource,
    as_network,
    home_of,
    prepared_as,
    refuse_photograph_options,
    refuse_unreadable,
)
from natstats.measurement.progress import shown_progress
from natstats.measurement.same_images import SameImages
from natstats.measurement.shared_pass import SharedPass
from natstats.measurement.until import Until
from natstats.networks.load import Network
from natstats.networks.load_options import LoadOptions
from natstats.networks.preprocessing import Preprocessing, configured
from natstats.networks.random_weights import check_control, with_random_weights
from natstats.processes.joining import Processes, joined
from natstats.runs.run import Run

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Progress", "measure", "measure_images", "measured"]


@keywords_shown(NetworkSettings)
def measure(
    model: nn.Module | Network | str,
    images: ImageSource,
    *,
    options: MeasureOptions | None = None,
    fit: FitOptions | None = None,
    device: torch.device | str | None = None,
    strict: bool | None = None,
    progress: Progress | bool | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
    shard: str | None = None,
    command: str | None = None,
    **settings: Unpack[NetworkSettings],
) -> Run:
    """Measure the exponents of a network's layers on images, and fit the law.

    Args:
        model: a module, a :class:`natstats.Network`, or the name of one (see
            :func:`natstats.load_network`). A bare module is given photographs at 224 pixels with
            the normalisation of ImageNet, or what its ``pretrained_cfg`` says; pass a ``Network``
            for another one. The wrappers of data parallelism and ``torch.compile`` are taken off a
            module.
        images: photographs, or an array (N, C, H, W) that is given to the model as it is; see
            :func:`natstats.images.sources.open_images` for all that can be named.
        options: how to measure; its fields may be given by name instead.
        fit: how to fit.
        device: where to run, and for a module where it is moved to; by default where the module
            is, or for a named model CUDA if there is any, else the CPU.
        strict: True to raise at the first image that cannot be read; False to load from a
            checkpoint what fits. By default such an image is left out, and a checkpoint must fit.
        progress: True for a bar (of tqdm; in a notebook there is one unless this is False), or a
            function that is called after each batch with the images done and those in all.
        out: folder where the run is saved, and its state while it is measured: after an
            interruption the same call goes on from there. Without it nothing is written.
        overwrite: replace the run that is at `out`, and begin anew if the state of another
            measurement is there.
        save_every: seconds between two saves of the state; 0 to save after every batch.
        shard: one share of the images, such as ``"3/16"``: `out` becomes a part, and
            :func:`natstats.merge_parts` puts parts together.
        command: what was typed, for the report.
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
    part = _shard_of(shard, out, chosen)
    keeping = Keeping(out, overwrite, save_every, command, part, may_go_on=chosen.until is not None)
    with shown_progress(progress) as shown:
        return measured(
            model, images, loading, chosen, fit or FitOptions(), keeping,
            device=device, strict=strict, progress=shown,
        )  # fmt: skip


def measured(
    model: nn.Module | Network | str,
    images: ImageSource,
    loading: LoadOptions,
    options: MeasureOptions,
    fit: FitOptions,
    keeping: Keeping,
    *,
    device: torch.device | str | None,
    strict: bool | None,
    progress: Progress | None,
    least: int = 0,
) -> Run:
    """What :func:`measure` does, with its arguments as records.

    Args:
        model: see :func:`measure`.
        images: see :func:`measure`.
        loading: how a named network is loaded.
        options: how to measure.
        fit: how to fit.
        keeping: where the run goes.
        device: see :func:`measure`.
        strict: see :func:`measure`.
        progress: see :func:`measure`.
        least: fewest images to measure, even if intervals are narrow enough before.
    """
    # Opened before the network, whose weights may have to be downloaded, and which sets the size.
    framing = Preprocessing().framing
    source = open_images(images, framing, options.limit, options.seed, options.frames)
    refuse_photograph_options(source, images, options)
    if isinstance(model, str):
        refuse_unreadable(source)
    with joined() as together, keeping.place(together) as place:
        own = _device_of(device, together)
        loaded = as_network(model, loading, strict is not False, options.seed, own)
        network = prepared_as(loaded, options)
        if isinstance(source, Photographs) and source is not images:
            source = source.framed(network.preprocessing.framing)
        if options.control is not None:
            check_control(network, options.seed)
        options = _with_workers(options, home_of(network.model)[0])
        place.identify(source, options.to_dict(), fit, network)
        is_guess = isinstance(model, nn.Module) and configured(network.model) is None
        numbers = None if keeping.shard is None else keeping.shard.images(source)
        shared = SharedPass(
            source,
            options,
            strict is True,
            progress,
            numbers=numbers,
            together=together,
            until=_until(options, fit, least),
            is_part=keeping.shard is not None,
        )
        return _with_controls(NetworkPass(network, shared, fit, is_guess), place)


def _shard_of(shard: str | None, out: str | Path | None, options: MeasureOptions) -> Shard | None:
    """The share of the images that is measured; None for all of them.

    Raises:
        UsageError: there is no `out`, or an option is given that does not go with parts.
    """
    if shard is None:
        return None
    if out is None:
        raise UsageError("shard: expected only with out, where the part is saved")
    if options.until is not None:
        raise UsageError(
            "until: expected without shard, as one part cannot tell how wide the intervals of all "
            "images are (several processes under torchrun do that)"
        )
    if options.counterfactual is not None:
        raise UsageError(
            "counterfactual: expected without shard, as batch normalisation is estimated anew on "
            "all images before the first is measured (several processes under torchrun do that)"
        )
    return Shard.parsed(shard)


def _device_of(device: torch.device | str | None, together: Processes) -> torch.device | str | None:
    """The device that was asked for; by default each of several processes has a GPU of its own."""
    if device is None and together.world > 1 and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device


def _with_controls(one: NetworkPass, place: Place) -> Run:
    """The run of a pass, with those of its untrained and of its shuffled networks."""
    options, progress = one.options, one.images.progress
    n_seeds = 0 if options.control is None else options.control_seeds
    n_parts = options.n_passes
    images = replace(one.images, progress=share_of(progress, 0, n_parts), kept=place.of("trained"))
    trained = replace(one, images=images)
    passes = {"trained": trained.sums()}
    place.refuse_empty(passes["trained"])
    run = passes["trained"].run(one.fit)
    if images.until is not None:
        # The others see the same images.
        seen = replace(images, numbers=passes["trained"].reading.numbers, until=None)
        trained = replace(trained, images=seen)
        images.until.note_in(run)
    expected = SameImages.of(images.source, passes["trained"].reading)
    trained = replace(trained, images=replace(trained.images, expected=expected))
    for number in range(n_seeds):
        seed, share = options.seed + number, share_of(progress, 1 + number, n_parts)
        network, name = with_random_weights(one.network, seed), f"seed-{seed}"
        passes[name] = trained.of_control(network, share, place.of(name)).sums()
        run.random_weights.append(passes[name].as_control(seed))
    if options.counterfactual is not None:
        shares = [share_of(progress, 1 + n_seeds + part, n_parts) for part in (0, 1)]
        run.shuffled = trained.shuffled(
            options.counterfactual, options.seed, shares, place.of("shuffled")
        )
    return place.finish(run, passes)


@keywords_shown(ImageSettings)
def measure_images(
    images: ImageSource,
    *,
    options: MeasureOptions | None = None,
    fit: FitOptions | None = None,
    strict: bool = False,
    progress: Progress | bool | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    save_every: float = SAVE_EVERY,
    shard: str | None = None,
    command: str | None = None,
    **settings: Unpack[ImageSettings],
) -> Run:
    """Measure the images themselves: layer 0 alone.

    Photographs are cut to their central square without scaling, the largest that fits all of them
    up to 512 pixels; with `size` they are scaled to it first, which changes their spectrum.

    Args:
        images: see :func:`natstats.images.sources.open_images`.
        options: how to measure; its fields may be given by name instead.
        fit: how to fit.
        strict: raise at the first image that cannot be read.
        progress: True for a bar (of tqdm; in a notebook there is one unless this is False), or a
            function that is called after each batch with the images done and those in all.
        out: folder where the run is saved, and its state while it is measured: after an
            interruption the same call goes on from there. Without it nothing is written.
        overwrite: replace the run that is at `out`, and begin anew if the state of another
            measurement is there.
        save_every: seconds between two saves of the state; 0 to save after every batch.
        shard: one share of the images, such as ``"3/16"``: `out` becomes a part, and
            :func:`natstats.merge_parts` puts parts together.
        command: what was typed, for the report.
        **settings: those fields of :class:`natstats.MeasureOptions` that images alone have.

    Returns:
        The run, with rows for the images alone.

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
    refuse_photograph_options(source, images, chosen)
    part = _shard_of(shard, out, chosen)
    numbers = None if part is None else part.images(source)
    keeping = Keeping(out, overwrite, save_every, command, part, may_go_on=chosen.until is not None)
    fit = fit or FitOptions()
    with (
        shown_progress(progress) as shown,
        joined() as together,
        keeping.place(together) as place,
    ):
        place.identify(source, recorded, fit)
        shared = SharedPass(
            source,
            chosen,
            strict,
            shown,
            place.of("images"),
            numbers,
            together,
            _until(chosen, fit),
        )
        sums = sums_of_images(shared)
        place.refuse_empty(sums)
        run = sums.run(fit)
        if shared.until is not None:
            shared.until.note_in(run)
        return place.finish(run, {"images": sums})


def _until(options: MeasureOptions, fit: FitOptions, least: int = 0) -> Until | None:
    return None if options.until is None else Until(options.until, fit, least)


def _with_workers(options: MeasureOptions, device: torch.device) -> MeasureOptions:
    """Options with the number of workers that was asked for, or else one that suits the device."""
    if options.workers is not None:
        return options
    return replace(options, workers=0 if device.type == "cpu" else min(8, os.cpu_count() or 1))
