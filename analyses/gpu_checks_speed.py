"""What measuring costs on a device: time, memory, images per second from end to end.

Not a study by itself: analyses/gpu_check.py uses it. Nothing here is right or wrong, so that a case
fails only where it cannot be run; but memory that grows with the number of images is an error.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_checks_setting import (
    Case,
    Setting,
    WrongResultError,
    fields,
    ratios,
    synchronise,
    timed_in_turns,
)
from PIL import Image
from torch import Tensor, nn

import natstats
from natstats.activations.hooks import parts_of
from natstats.activations.layouts import Layout
from natstats.activations.selection import call_name
from natstats.images.sources import batches, open_images
from natstats.networks.preprocessing import Preprocessing

__all__ = ["memory", "overhead", "photographs", "throughput"]

SMALL = (("cifar_resnet8", 32, 16), ("small_vit", 60, 8))
LARGE = (
    ("resnet50", 224, 64), ("mobilenet_v2", 224, 64), ("vit_b_16", 224, 64),
    ("cifar_resnet56", 32, 512),
)  # fmt: skip
"""Name, side of the images, images in a batch."""

SHORTEST = 0.03
"""Seconds of the plain passes in a round, on a device that is faster than its clock is read."""

MOST_GROWTH = 1.02
"""Peak memory of many batches, over that of a few."""


def _network(setting: Setting, name: str, size: int, channels_last: bool) -> nn.Module:
    model = copy.deepcopy(setting.network(name, size)[0]).to(setting.device)
    return model.to(memory_format=torch.channels_last) if channels_last else model


def _images(setting: Setting, n: int, size: int, channels_last: bool) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, size, size, generator=draw).to(setting.device)
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


# -- time ---------------------------------------------------------------------------------------


def overhead(setting: Setting) -> list[Case]:
    """A pass with the collector, beside the plain pass and beside the FFTs alone."""
    chosen = SMALL if setting.small else LARGE
    ways = (False, True) if setting.is_cuda else (False,)
    order = [(one, amp) for amp in ways for one in chosen]
    cases: list[Case] = []
    for place, ((name, size, n_images), amp) in enumerate(order):
        share = len(order) - place
        run = functools.partial(_overhead, setting, name, size, n_images, amp, share)
        cases.append((f"{name}, {'fp16 channels_last' if amp else 'float32'}", run))
    return cases


def _overhead(
    setting: Setting, name: str, size: int, n_images: int, amp: bool, share: int
) -> dict[str, Any]:
    """Median times, and ratios within the rounds; TF32 is on or off as torch has it by default."""
    model, images = _network(setting, name, size, amp), _images(setting, n_images, size, amp)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        collector = natstats.Collector(model)
        stack.enter_context(_autocast(setting, amp))
        with collector:
            model(images)
        layouts = _layouts(collector)
        maps = _kept_maps(model, images, layouts)
        sums = [natstats.SpectrumAccumulator(*m.shape[2:], device=m.device) for m in maps]

        def transforms() -> None:
            for accumulator, one in zip(sums, maps, strict=True):
                accumulator.transform(one)

        variants: dict[str, Callable[[], Any]] = {
            "plain": lambda: model(images),
            "bound": functools.partial(_with_transforms, model, images, layouts),
            "natstats": lambda: model(images),
            "cufft_alone": lambda: [torch.fft.rfft2(one.float()) for one in maps],
            "transforms_alone": transforms,
        }
        for name_of, run in variants.items():
            with collector if name_of == "natstats" else contextlib.nullcontext():
                run()  # plans of FFTs and choices of algorithms are made once
        once = timed_in_turns(
            {"plain": variants["plain"]}, setting.device, rounds=1, seconds=0, least=1
        )
        passes = 1
        if setting.is_cuda:
            passes = min(max(round(SHORTEST / once["plain"][0]), 1), 50)
        seconds = timed_in_turns(
            variants, setting.device, rounds=5 if setting.small else 21, passes=passes,
            seconds=0.0 if setting.small else max(setting.left() / share - 3, 2.0),
            contexts={"natstats": collector},
        )  # fmt: skip
    return {
        "images": n_images, "size": size, "layers": len(maps), "rounds": len(seconds["plain"]),
        "passes": passes,
        "ms": {key: round(1e3 * statistics.median(t), 3) for key, t in seconds.items()},
        "bound_of_plain": ratios(seconds, "bound", "plain"),
        "natstats_of_plain": ratios(seconds, "natstats", "plain"),
        "natstats_of_bound": ratios(seconds, "natstats", "bound"),
        "transforms_of_cufft": ratios(seconds, "transforms_alone", "cufft_alone"),
    }  # fmt: skip


def _autocast(setting: Setting, amp: bool) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(setting.device.type) if amp else contextlib.nullcontext()


def _layouts(collector: natstats.Collector) -> dict[str, Layout]:
    """Where the maps are in each output that is measured, by the name of the layer."""
    calls = collector.trace.by_name
    names = [one.layer.name for one in collector.compute()]
    return {name: layout for name in names if isinstance(layout := calls[name].layout, Layout)}


@contextlib.contextmanager
def _hooked(
    model: nn.Module, layouts: dict[str, Layout], use: Callable[[Tensor], Any]
) -> Iterator[None]:
    """Give the maps of the first call of each layer to a function as they come."""

    def hook_for(module_name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for part, tensor in parts_of(output):
                layout = layouts.get(call_name(module_name, 0, part))
                if layout is not None:
                    use(layout.maps(tensor))

        return hook

    handles = [
        module.register_forward_hook(hook_for(name))
        for name, module in model.named_modules()
        if any(layer.startswith(name) for layer in layouts) and name
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _kept_maps(model: nn.Module, images: Tensor, layouts: dict[str, Layout]) -> list[Tensor]:
    found: list[Tensor] = []
    with _hooked(model, layouts, lambda maps: found.append(maps.clone())):
        model(images)
    return found


def _with_transforms(model: nn.Module, images: Tensor, layouts: dict[str, Layout]) -> None:
    """The least that an exact measurement costs: the pass, and the FFT of all maps."""
    with _hooked(model, layouts, lambda maps: torch.fft.rfft2(maps.float())):
        model(images)


def _in_context(context: Any, model: nn.Module, images: Tensor) -> None:
    with context:
        model(images)


# -- memory -------------------------------------------------------------------------------------


def memory(setting: Setting) -> list[Case]:
    """Peak memory of a device with and without the collector."""
    chosen = SMALL[:1] if setting.small else LARGE
    return [(name, functools.partial(_memory, setting, name, size, n)) for name, size, n in chosen]


def _memory(setting: Setting, name: str, size: int, n_images: int) -> dict[str, Any]:
    if not setting.is_cuda:
        return {"not_measured": "only CUDA tells the peak of what was allocated"}
    model, images = _network(setting, name, size, False), _images(setting, n_images, size, False)

    def peak(run: Callable[[], Any], times: int) -> float:
        """MB above what is held before; one run comes first, whose workspaces stay."""
        synchronise(setting.device)
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(setting.device)
        before = torch.cuda.memory_allocated(setting.device)
        for _ in range(times):
            run()
        synchronise(setting.device)
        return (torch.cuda.max_memory_allocated(setting.device) - before) / 1e6

    with torch.inference_mode():
        model(images)
        plain = peak(lambda: model(images), 2)
        collector = natstats.Collector(model)
        run = functools.partial(_in_context, collector, model, images)
        first = peak(run, 1)
        few, many = peak(run, 4), peak(run, 16)
    record = {
        "images": n_images,
        "plain_mb": round(plain, 1),
        "natstats_mb": round(max(few, many), 1),
        "natstats_first_batch_mb": round(first, 1),
        "allowed_mb": round(1.1 * plain + 64, 1),
    }
    if many > MOST_GROWTH * few + 8:
        raise WrongResultError(
            f"memory: expected no growth with images; {few:.0f} MB to {many:.0f}", record
        )
    return record


# -- from end to end ----------------------------------------------------------------------------


def throughput(setting: Setting) -> list[Case]:
    """Images per second of `measure`, on arrays and on files, beside plain passes."""
    if setting.small:
        chosen = [("cifar_resnet8", 32, 24, 8)]
    else:
        chosen = [("resnet50", 224, 1024, 64), ("mobilenet_v2", 224, 1024, 64)]
    cases: list[Case] = []
    for name, size, n_images, batch in chosen:
        for kind in ("files", "array"):
            run = functools.partial(_throughput, setting, name, size, n_images, batch, kind)
            cases.append((f"{name}, {kind}", run))
    return cases


def _throughput(
    setting: Setting, name: str, size: int, n_images: int, batch: int, kind: str
) -> dict[str, Any]:
    """The plain pass takes its images from the same loader, with as many workers."""
    model = _network(setting, name, size, False)
    workers = 0 if setting.small else min(8, os.cpu_count() or 1)
    side = max(round(size * 256 / 224), size)
    if kind == "files":
        source: Any = photographs(setting.folder / "many", n_images, (side * 5 // 4, side))
    else:
        draw = np.random.default_rng(0)
        source = draw.standard_normal((n_images, 3, size, size), dtype=np.float32)
    options = {"size": size} if kind == "files" else {}

    def measured() -> natstats.Run:
        return natstats.measure(
            model, source, batch_size=batch, workers=workers, device=setting.device, **options
        )

    def plain() -> None:
        preprocessing = Preprocessing()
        framing = natstats.images.sources.reframed(preprocessing.framing, size, None)
        images = open_images(source, framing)
        with torch.inference_mode():
            for part in batches(images, batch, workers, setting.device):
                pixels = part.images
                model(preprocessing.normalize(pixels) if kind == "files" else pixels)

    seconds: dict[str, list[float]] = {"plain": [], "natstats": []}
    timing = []
    plain()  # files in the page cache, workers' modules read
    for _ in range(1 if setting.small else 3):
        seconds["plain"].append(_clock(plain, setting))
        seconds["natstats"].append(_clock(lambda: timing.append(measured().info), setting))
        if setting.left() < 2 * (seconds["plain"][-1] + seconds["natstats"][-1]):
            break
    speed = {key: n_images / statistics.median(times) for key, times in seconds.items()}
    return {
        "images": n_images, "batch": batch, "workers": workers, "repetitions": len(timing),
        "plain_images_per_second": round(speed["plain"], 1),
        "measure_images_per_second": round(speed["natstats"], 1),
        "own_images_per_second": timing[-1]["timing"]["images_per_second"],
        "of_plain": round(speed["natstats"] / speed["plain"], 3),
        "aim": 0.8,
    }  # fmt: skip


def _clock(run: Callable[[], Any], setting: Setting) -> float:
    synchronise(setting.device)
    began = time.perf_counter()
    run()
    synchronise(setting.device)
    return time.perf_counter() - began


DISTINCT = 32
"""Different photographs; the others repeat them with other pixels in a corner."""


def photographs(folder: Path, n_images: int, size: tuple[int, int]) -> Path:
    """JPEG files of random fields, made once; returns the folder.

    Args:
        folder: where they are put.
        n_images: how many.
        size: width and height, pixels.
    """
    if folder.is_dir() and len(list(folder.iterdir())) == n_images:
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    side = max(size)
    made = fields(min(n_images, DISTINCT), side, seed=5)
    pixels = np.clip(127 + 40 * made, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    for number in range(n_images):
        image = pixels[number % len(pixels), : size[1], : size[0]].copy()
        image[:4, :4] = number % 256, number // 256 % 256, 128
        Image.fromarray(image).save(folder / f"{number:05d}.jpg", quality=90)
    return folder
