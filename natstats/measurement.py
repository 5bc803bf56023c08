"""The main job: images through a network into a run. Here, and only here, all stages meet."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from natstats import checks
from natstats.activations.hooks import undisturbed
from natstats.activations.trace import trace_calls
from natstats.errors import NatstatsError
from natstats.fits.options import FitOptions
from natstats.images.sources import (
    Batch,
    Photographs,
    batches,
    open_images,
    reframed,
    source_name,
)
from natstats.networks.input_forms import channels_hint, stills_note
from natstats.networks.load import Network
from natstats.networks.preprocessing import NORMALISED, Preprocessing, configured, spoken
from natstats.networks.random_weights import check_control, with_random_weights
from natstats.networks.wrappers import uncompiled
from natstats.preparation import (
    ImageSource,
    as_network,
    home_of,
    prepared_as,
    refuse_unused,
)
from natstats.runs.control import RandomWeights
from natstats.runs.provenance import Reading, circumstances, image_facts
from natstats.runs.run import Run
from natstats.spectra.collector import Collector
from natstats.spectra.input_spectra import InputSpectra

__all__ = ["Progress", "measure", "measure_images"]

Progress = Callable[[int, int], None]
"""Called after each batch with the images done and the images in all."""


def measure(
    model: nn.Module | Network | str,
    images: ImageSource,
    *,
    weights: str = "default",
    checkpoint: str | Path | None = None,
    checkpoint_key: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    takes: str | None = None,
    layers: str | Sequence[str] = "weight",
    layouts: Mapping[str, str] | None = None,
    temporal: bool = False,
    edges: str = "sine",
    n_groups: int = 128,
    fit: FitOptions | None = None,
    device: torch.device | str | None = None,
    batch_size: int = 16,
    workers: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    size: int | None = None,
    crop: int | None = None,
    normalize: bool = True,
    frames: int | None = None,
    amp: bool = False,
    strict: bool | None = None,
    control: str | None = None,
    control_seeds: int = 3,
    probe: bool = True,
    progress: Progress | None = None,
) -> Run:
    """Measure the exponents of a network's layers on images, and fit the law.

    Args:
        model: a module, a :class:`natstats.networks.load.Network`, or the name of one (see
            :func:`natstats.networks.load.load_network`, which also takes `weights`, `checkpoint`,
            `checkpoint_key`, `model_args` and `takes`). A bare module is given photographs at 224
            pixels with the normalisation of ImageNet, or what its ``pretrained_cfg`` says; pass a
            ``Network`` for another one. What data parallelism and ``torch.compile`` put around a
            module is taken off.
        images: photographs, or an array (N, C, H, W) that is given to the model as it is; see
            :func:`natstats.images.sources.open_images` for all that can be named.
        weights: for a named model.
        checkpoint: for a named model.
        checkpoint_key: for a named model.
        model_args: for a named model.
        takes: for a named model.
        layers: which layers, see :func:`natstats.activations.selection.select_modules`.
        layouts: of modules whose maps are not found by themselves, see
            :class:`natstats.spectra.collector.Collector`.
        temporal: of clips (N, C, T, H, W), measure the spectrum along time.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        n_groups: groups of images, the unit of resampling.
        fit: how to fit.
        device: where to run, and for a module where it is moved to; by default where the module
            is, or for a named model CUDA if there is any, else the CPU.
        batch_size: images per forward pass; the result does not depend on it.
        workers: processes that read images; by default none on the CPU, else one per processor.
        limit: at most this many images, a random sample.
        seed: of the sample, of the numbering of images, and of random weights.
        size: side of the square that enters the network, pixels, in place of its own; the
            photograph is scaled and cut in the network's proportions.
        crop: side of a square that is cut from the unscaled photograph; with `size`, the shorter
            side is scaled to `size` before.
        normalize: bring photographs to the mean and standard deviation that the network expects;
            without it they enter in [0, 1].
        frames: of a clip, for ``clips:ROOT``; 16 by default.
        amp: run the model in mixed precision; spectra stay in float32.
        strict: True to raise at the first image that cannot be read; False to load of a checkpoint
            what fits; by default such an image is left out, and a checkpoint must fit.
        control: ``random-weights`` to measure the same architecture untrained as well, see
            :mod:`natstats.runs.control`.
        control_seeds: how many times, with the random weights of `seed`, `seed` + 1 and so on.
        probe: prove where the maps of each layer are, see :mod:`natstats.activations.probe`; five
            passes of the first image.
        progress: called after each batch.

    Returns:
        The run, with a row for every layer.

    Raises:
        UsageError: an argument is out of range.
        NatstatsError: the weights do not fit, no image can be read, or the model fails.
    """
    checks.not_huge(
        n_groups=n_groups, batch_size=batch_size, workers=workers, limit=limit, seed=seed,
        size=size, crop=crop, frames=frames,
    )  # fmt: skip
    options = fit or FitOptions()
    loading = {
        "weights": weights,
        "checkpoint": checkpoint,
        "checkpoint_key": checkpoint_key,
        "model_args": model_args,
        "takes": takes,
    }
    # Before the network, whose weights may have to be downloaded, and which then says the size.
    source = open_images(images, Preprocessing().framing, limit, seed, frames)
    refuse_unused(source, images, size, crop, normalize)
    network = prepared_as(
        as_network(model, loading, strict is not False, seed, device), size, crop, normalize
    )
    if isinstance(source, Photographs) and source is not images:
        source = source.framed(network.preprocessing.framing)
    if control is not None:
        check_control(control, control_seeds, network, seed)
    n_passes = 1 if control is None else 1 + control_seeds
    place, dtype = home_of(network.model)
    if workers is None:
        workers = 0 if place.type == "cpu" else min(8, os.cpu_count() or 1)
    is_photographs = isinstance(source, Photographs)
    inputs = InputSpectra(edges, n_groups, temporal)
    reading = Reading(source)
    collector: Collector | None = None
    started = time.perf_counter()
    with uncompiled(network.model), undisturbed(network.model), torch.inference_mode():
        for batch in _read(
            reading, batch_size, workers, place, strict is True, _share(progress, 0, n_passes)
        ):
            prepared = batch.images
            if is_photographs:
                prepared = network.preprocessing.normalize(prepared)
            prepared = prepared.to(dtype)
            if prepared.data_ptr() == batch.images.data_ptr():
                prepared = prepared.clone()  # what the network writes into is not the data
            if collector is None:
                with _forward_errors(prepared), _autocast(place, amp):
                    trace = trace_calls(
                        network.model, network.arguments(prepared[:1]), layouts=layouts
                    )
                collector = Collector(
                    network.model,
                    layers,
                    edges=edges,
                    n_groups=n_groups,
                    trace=trace,
                    layouts=layouts,
                    temporal=temporal,
                    probe=probe,
                )
            inputs.update(batch.images, batch.index)
            collector.number_images(batch.index)
            with _forward_errors(prepared), collector, _autocast(place, amp):
                network.model(*network.arguments(prepared))
    assert collector is not None  # _read raises when there is no batch
    seconds = time.perf_counter() - started
    notes = spoken(network.notes, is_photographs, normalize)
    warnings = [*notes, *reading.warnings(), *stills_note(network.takes, batch.images)]
    if not collector.trace.followed:
        warnings.append(
            "depth counts weight layers in the order of execution, and receptive fields are not "
            "known: no path was traced"
        )
    warnings += collector.probed.warnings()
    is_guess = isinstance(model, nn.Module) and configured(network.model) is None
    warnings += reading.range_warnings(None if is_guess else network.preprocessing)
    if is_photographs and normalize and is_guess:
        warnings.append(NORMALISED)
    spectra = [*inputs.compute(), *collector.compute()]
    mean, std = network.preprocessing.mean, network.preprocessing.std
    normalisation = {"mean": list(mean), "std": list(std)} if is_photographs else None
    info = {
        "name": network.name,
        **circumstances(place, seconds, spectra[0].spectrum.n_images),
        "model": {
            "name": network.name,
            "weights": network.weights,
            "trained": network.trained,
            "digest": network.digest(),
        },
        "images": image_facts(reading, spectra, normalisation),
        "options": {
            "layers": layers if isinstance(layers, str) else list(layers),
            "layouts": dict(layouts or {}),
            "temporal": temporal,
            "probe": probe,
            "edges": edges,
            "n_groups": n_groups,
            "batch_size": batch_size,
            "workers": workers,
            "limit": limit,
            "seed": seed,
            "size": size,
            "crop": crop,
            "normalize": normalize,
            "frames": frames,
            "amp": amp,
            **({} if control is None else {"control": control, "control_seeds": control_seeds}),
        },
        "warnings": warnings,
    }
    run = Run(spectra, collector.skipped, info, options)
    warnings += reading.few_warnings(run)
    for number in range(1, n_passes):
        other = with_random_weights(network, seed + number - 1)
        again = measure(
            other,
            source,
            layers=layers,
            layouts=layouts,
            temporal=temporal,
            edges=edges,
            n_groups=n_groups,
            batch_size=batch_size,
            workers=workers,
            amp=amp,
            strict=strict,
            probe=probe,
            progress=_share(progress, number, n_passes),
        )
        run.random_weights.append(
            RandomWeights.of(seed + number - 1, again.info, again.spectra, again.skipped_layers)
        )
    return run


def _share(progress: Progress | None, number: int, n_passes: int) -> Progress | None:
    """The progress of one pass over the images as a part of all passes."""
    if progress is None:
        return None
    return lambda done, total: progress(number * total + done, n_passes * total)


def measure_images(
    images: ImageSource,
    *,
    edges: str = "sine",
    temporal: bool = False,
    n_groups: int = 128,
    fit: FitOptions | None = None,
    batch_size: int = 16,
    workers: int = 0,
    limit: int | None = None,
    seed: int = 0,
    size: int | None = None,
    crop: int | None = None,
    frames: int | None = None,
    strict: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Measure the images themselves: layer 0 alone.

    Photographs are cut to their central square without scaling, the largest that fits all of them
    up to 512 pixels; with `size` they are scaled to it first, which changes their spectrum.

    Args:
        images: see :func:`natstats.images.sources.open_images`.
        edges: see :func:`measure`, as for all that follow.
        temporal: of clips, measure the spectrum along time.
        n_groups: groups of images.
        fit: how to fit.
        batch_size: images at a time.
        workers: processes that read images.
        limit: at most this many images.
        seed: of the sample and the numbering.
        size: side of the square that is measured, pixels; the shorter side is scaled to it.
        crop: side of the square that is cut out, pixels, unscaled or after scaling to `size`.
        frames: of a clip, for ``clips:ROOT``; 16 by default.
        strict: raise at the first image that cannot be read.
        progress: called after each batch.

    Raises:
        UsageError: an argument is out of range.
        NatstatsError: no image can be read.

    >>> from natstats import power_law_fields
    >>> fields = power_law_fields(64, 32, 32, alpha=2.0, seed=0)[:, None]
    >>> run = measure_images(fields)
    >>> bool(abs(run.layers.exponent[0] - 2.0) < 0.1)
    True
    """
    checks.not_huge(
        n_groups=n_groups, batch_size=batch_size, workers=workers, limit=limit, seed=seed,
        size=size, crop=crop, frames=frames,
    )  # fmt: skip
    source = open_images(images, reframed(None, size, crop), limit, seed, frames)
    refuse_unused(source, images, size, crop)
    inputs = InputSpectra(edges, n_groups, temporal)
    reading = Reading(source)
    device = torch.device("cpu")
    started = time.perf_counter()
    for batch in _read(reading, batch_size, workers, device, strict, progress):
        inputs.update(batch.images, batch.index)
    spectra = inputs.compute()
    seconds = time.perf_counter() - started
    info = {
        "name": source_name(source.description),
        **circumstances(device, seconds, spectra[0].spectrum.n_images),
        "model": None,
        "images": image_facts(reading, spectra),
        "options": {
            "edges": edges,
            "temporal": temporal,
            "n_groups": n_groups,
            "batch_size": batch_size,
            "workers": workers,
            "limit": limit,
            "seed": seed,
            "size": size,
            "crop": crop,
            "frames": frames,
        },
        "warnings": reading.warnings(),
    }
    run = Run(spectra, (), info, fit or FitOptions())
    run.info["warnings"] += reading.few_warnings(run)
    return run


def _read(
    reading: Reading,
    batch_size: int,
    workers: int,
    device: torch.device,
    strict: bool,
    progress: Progress | None,
) -> Iterator[Batch]:
    """Batches that hold at least one image; `reading` takes note of all that is found out.

    Raises:
        NatstatsError: an image cannot be read and `strict` is set, or none can be read.
    """
    done, source = 0, reading.source
    for batch in batches(source, batch_size, workers, device):
        reading.add(batch)
        if strict:
            reading.refuse(strict)
        done += len(batch.index) + len(batch.unreadable)
        if len(batch.index):
            yield batch
        if progress is not None:
            progress(done, len(source))
    reading.refuse(strict)


def _autocast(device: torch.device, enabled: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type) if enabled else contextlib.nullcontext()


@contextlib.contextmanager
def _forward_errors(images: Tensor) -> Iterator[None]:
    shape = " x ".join(str(side) for side in images.shape)
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NatstatsError(
            f"batch_size: a batch of {shape} does not fit into the device's memory; "
            "take a smaller --batch-size"
        ) from error
    except (
        RuntimeError, ValueError, TypeError, AssertionError, NotImplementedError,
        AttributeError, LookupError, ArithmeticError,
    ) as error:  # fmt: skip
        if isinstance(error, NatstatsError):
            raise
        reason = " ".join(str(error).split())[:200]
        if not isinstance(error, RuntimeError | ValueError):  # whose texts stand alone
            reason = f"{type(error).__name__}: {reason}"
        raise NatstatsError(
            f"model: expected to take images of shape {shape}; the forward pass failed: {reason}"
            + channels_hint(str(error))
        ) from error
