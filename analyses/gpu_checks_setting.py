"""What the checks of analyses/gpu_check.py share: device, networks, images, clocks, differences.

Not a study by itself.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import natstats
from natstats.spectra.records import LayerSpectrum, Spectrum

__all__ = [
    "Case", "Difference", "Setting", "Variant", "WrongResultError", "collected", "difference",
    "fields", "plain_products", "ratios", "settled", "spectrum_difference", "synchronise",
    "timed_in_turns",
]  # fmt: skip

Case = tuple[str, Callable[[], dict[str, Any]]]
"""The name of a case, and what runs it and gives its record."""

FLOOR = 1e-6
"""Share of a layer's largest ring below which power is compared with that share: rounding of the
activations is white, and where the power is smaller it is all there is."""


class WrongResultError(Exception):
    """A case that ran and whose result is not what it has to be.

    Args:
        sentence: what was expected and what came.
        record: what was measured all the same.
    """

    def __init__(self, sentence: str, record: Mapping[str, Any] | None = None) -> None:
        super().__init__(sentence)
        self.record = dict(record or {})


@dataclass
class Setting:
    """What all checks are told.

    Attributes:
        device: where what is checked runs.
        small: few images, small networks.
        weights: folder with checkpoints named after networks; None for random weights.
        folder: for files that a check writes.
        deadline: of the check that runs, in seconds of ``time.monotonic``; no case begins after it.
        patience_ends: when a program that a case started is taken to hang.
    """

    device: torch.device
    small: bool
    weights: Path | None
    folder: Path
    deadline: float = float("inf")
    patience_ends: float = float("inf")
    _networks: dict[tuple[str, int], tuple[nn.Module, str]] = field(default_factory=dict)

    @property
    def is_cuda(self) -> bool:
        """Whether the device is one of CUDA."""
        return self.device.type == "cuda"

    def left(self) -> float:
        """Seconds that the check still has."""
        return self.deadline - time.monotonic()

    def patience(self) -> float | None:
        """Seconds that a program may run; None where nothing but the end of all time ends it."""
        left = self.patience_ends - time.monotonic()
        return None if left == float("inf") else max(left, 1.0)

    def network(self, name: str, size: int) -> tuple[nn.Module, str]:
        """A network on the CPU in eval mode, and what its weights are; the same one every time.

        Without a checkpoint of its name its weights are random. The statistics of its batch norms
        are then those of some images: with the usual ones activations grow from layer to layer,
        beyond what float16 holds.
        """
        if (name, size) not in self._networks:
            file = self._checkpoint(name)
            if name == "small_vit":
                torch.manual_seed(0)
                model = _small_vit(size)
            else:
                how = {"weights": "none"} if file is None else {"checkpoint": file}
                model = natstats.load_network(name, seed=0, **how).model
            if file is None:
                settled(model, torch.from_numpy(fields(8, size, seed=7)))
            self._networks[name, size] = model, "random" if file is None else file.name
        return self._networks[name, size]

    def _checkpoint(self, name: str) -> Path | None:
        if self.weights is None:
            return None
        from natstats.networks.checkpoint_files import SUFFIXES

        found = [self.weights / f"{name}{suffix}" for suffix in sorted(SUFFIXES)]
        return next((path for path in found if path.is_file()), None)


def _small_vit(size: int) -> nn.Module:
    """A transformer for small images: twelve by twelve tokens of a few pixels, two blocks."""
    from torchvision.models import VisionTransformer

    return VisionTransformer(size, max(size // 12, 1), 2, 2, 32, 64, num_classes=10).eval()


def settled(model: nn.Module, images: Tensor) -> nn.Module:
    """Give batch norms the statistics of some images, and the model in eval mode."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms:
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        with torch.no_grad():
            model(images)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return model.eval()


def fields(n: int, size: int, seed: int = 0, channels: int = 3) -> np.ndarray[Any, Any]:
    """Images like photographs: random fields with power f^-2, (n, channels, size, size), float32.

    Their mean is 0 and their standard deviation about 1, as networks expect it.
    """
    made = natstats.power_law_fields(n * channels, size, size, alpha=2.0, outer_scale=2, seed=seed)
    made = (made - made.mean()) / made.std()
    return made.reshape(n, channels, size, size).astype(np.float32)


@contextlib.contextmanager
def plain_products(allowed: bool = True) -> Iterator[None]:
    """Products and convolutions of the network itself in full float32, or with TF32.

    Args:
        allowed: False for TF32, as most users have it.
    """
    precision, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest" if allowed else "high")
    torch.backends.cudnn.allow_tf32 = not allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = cudnn


def synchronise(device: torch.device) -> None:
    """Wait until all that was asked of a device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- spectra ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """A way to run a network whose spectra are compared with those of float32 on the CPU.

    Attributes:
        name: of the way.
        rings: largest allowed difference of the power of a ring, as a share of it.
        exponents: largest allowed difference of an exponent.
        autocast: type of mixed precision; None for none.
        channels_last: memory format of network and images.
        tf32: whether products may be rounded to TF32.
    """

    name: str
    rings: float
    exponents: float
    autocast: torch.dtype | None = None
    channels_last: bool = False
    tf32: bool = False


def collected(
    model: nn.Module,
    images: Tensor,
    variant: Variant,
    batch_size: int = 8,
    **arguments: Any,
) -> list[LayerSpectrum]:
    """Spectra of a network's layers, run on the device of the images."""
    form = torch.channels_last if variant.channels_last else torch.preserve_format
    kind = images.device.type
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(plain_products(not variant.tf32))
        collector = stack.enter_context(natstats.Collector(model, **arguments))
        if variant.autocast is not None:
            stack.enter_context(torch.autocast(kind, variant.autocast))
        for batch in images.split(batch_size):
            model(batch.contiguous(memory_format=form) if variant.channels_last else batch)
    return collector.compute()


@dataclass(frozen=True)
class Difference:
    """How far two sets of spectra are apart.

    Attributes:
        rings: largest difference of the power of a ring, as a share of it.
        layer: where it is.
        exponents: largest difference of an exponent.
        n_layers: how many layers were compared.
    """

    rings: float
    layer: str
    exponents: float
    n_layers: int

    def record(self) -> dict[str, Any]:
        """For the file of results."""
        return {
            "n_layers": self.n_layers,
            "largest_ring_difference": float(f"{self.rings:.3g}"),
            "in_layer": self.layer,
            "largest_exponent_difference": float(f"{self.exponents:.3g}"),
        }


def spectrum_difference(mine: Spectrum, other: Spectrum) -> float:
    """Largest difference of the power of a ring in any group of images, as a share of it.

    Raises:
        WrongResultError: they have other sizes, or images that were not finite.
    """
    for name in ("height", "width", "edges", "n_nonfinite"):
        if getattr(mine, name) != getattr(other, name):
            raise WrongResultError(
                f"{name}: expected {getattr(other, name)}, as on the CPU; got {getattr(mine, name)}"
            )
    if not np.array_equal(mine.count, other.count):
        raise WrongResultError(
            "count: expected as many images in each group as on the CPU; got others"
        )
    largest = 0.0
    for name in ("power", "normalized"):
        a, b = getattr(mine, name), getattr(other, name)
        if not np.isfinite(a).all():
            raise WrongResultError(f"{name}: expected finite sums; got others")
        scale = np.maximum(b, FLOOR * b.max(initial=0.0))
        gap = np.divide(np.abs(a - b), scale, out=np.zeros_like(b), where=scale > 0)
        largest = max(largest, float(gap.max(initial=0.0)))
    return largest


def difference(mine: Sequence[LayerSpectrum], other: Sequence[LayerSpectrum]) -> Difference:
    """How far the spectra of two passes of the same images are apart.

    Raises:
        WrongResultError: layers are missing, or were measured in another way.
    """
    names = [[one.layer.name for one in side] for side in (mine, other)]
    if names[0] != names[1]:
        odd = sorted(set(names[0]) ^ set(names[1]))
        raise WrongResultError(
            f"layers: expected those of the CPU; these are on one side only: {odd[:5]}"
        )
    apart = {}
    for one, its in zip(mine, other, strict=True):
        if its.spectrum.is_constant:
            continue
        try:
            apart[one.layer.name] = spectrum_difference(one.spectrum, its.spectrum)
        except WrongResultError as wrong:
            raise WrongResultError(f"layer {one.layer.name}: {wrong}") from None
    if not apart:
        raise WrongResultError("layers: expected some with power; there is none")
    from natstats.fits.exponents import fit_layers

    fits = [fit_layers(side, natstats.FitOptions()).exponents for side in (mine, other)]
    expected = np.isfinite(fits[1]) & ~np.array([its.spectrum.is_constant for its in other])
    if not np.isfinite(fits[0][expected]).all():
        raise WrongResultError("exponents: expected one wherever the CPU has one; some are missing")
    gaps = np.abs(fits[0] - fits[1])[expected]
    layer = max(apart, key=apart.__getitem__)
    return Difference(apart[layer], layer, float(gaps.max(initial=0.0)), len(apart))


# -- clocks -------------------------------------------------------------------------------------


def timed_in_turns(
    variants: Mapping[str, Callable[[], Any]],
    device: torch.device,
    *,
    rounds: int,
    seconds: float,
    passes: int = 1,
    least: int = 5,
    contexts: Mapping[str, Any] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each variant in every round; they take turns, and two rounds are not counted.

    The device is waited for before and after each.

    Args:
        variants: what to run, by name.
        device: what is waited for.
        rounds: at most so many.
        seconds: no round begins after so long.
        passes: runs of a variant in a round.
        least: rounds that are run even so.
        contexts: what is open while a variant runs, by its name; opening is not timed.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    ends = time.monotonic() + seconds
    for number in range(rounds + 2):
        if number >= least + 2 and time.monotonic() > ends:
            break
        for name, run in variants.items():
            with (contexts or {}).get(name, contextlib.nullcontext()):
                synchronise(device)
                began = time.perf_counter()
                for _ in range(passes):
                    run()
                synchronise(device)
                found[name].append((time.perf_counter() - began) / passes)
    return {name: times[2:] for name, times in found.items()}


def ratios(seconds: Mapping[str, Sequence[float]], name: str, base: str) -> dict[str, Any]:
    """Median and quartiles of the ratio of two variants within the rounds."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    low, middle, high = statistics.quantiles([one / other for one, other in pairs], n=4)
    return {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
