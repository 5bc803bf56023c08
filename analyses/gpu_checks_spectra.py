"""Whether spectra on a device are those of the CPU: networks, maps, images, clips, the account.

Not a study by itself: analyses/gpu_check.py uses it.

What is allowed between a device and the CPU is ten times and more what was seen between two ways of
the CPU: 1e-5 of a ring between float32 and float64 in ResNet-50, 2e-2 of a ring in float16 (which
keeps as many bits as TF32) and 7e-2 in bfloat16, each of single images.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_checks_setting import (
    Case,
    Setting,
    Variant,
    WrongResultError,
    collected,
    difference,
    fields,
    plain_products,
    spectrum_difference,
)
from torch import Tensor, nn

import natstats
from natstats.spectra.records import LayerSpectrum, Spectrum
from natstats.theory.account_spectra import AccountSpectra

__all__ = ["networks_as_on_the_cpu", "parts_as_on_the_cpu"]

PLAIN = Variant("float32", 2e-3, 5e-4)
ALWAYS = (PLAIN, Variant("float32 channels_last", 2e-3, 5e-4, channels_last=True))
BFLOAT16 = Variant("bf16", 0.4, 0.2, autocast=torch.bfloat16)
ON_CUDA = (
    Variant("float32 with TF32", 0.1, 0.05, tf32=True),
    Variant("fp16", 0.1, 0.05, autocast=torch.float16),
    Variant("fp16 channels_last", 0.1, 0.05, autocast=torch.float16, channels_last=True),
    BFLOAT16,
)
SMALL = (("cifar_resnet8", 32, 8), ("small_vit", 60, 8))
LARGE = (
    ("resnet50", 224, 8), ("vit_b_16", 224, 4), ("mobilenet_v2", 224, 8),
    ("cifar_resnet56", 32, 32), ("swin_t", 224, 4), ("convnext_tiny", 224, 4),
    ("densenet121", 224, 4), ("vgg16_bn", 224, 4),
)  # fmt: skip
"""Name, side of the images, images."""

MAPS = 1e-4
"""Allowed of a ring for the same maps: both transforms are in float32."""


# -- whole networks -----------------------------------------------------------------------------


def networks_as_on_the_cpu(setting: Setting) -> list[Case]:
    """Every network in every way it can run, against float32 on the CPU."""
    cases: list[Case] = []
    variants = (*ALWAYS, *(ON_CUDA if setting.is_cuda else (BFLOAT16,)))
    for name, size, n_images in SMALL if setting.small else LARGE:

        @functools.cache
        def reference(name: str = name, size: int = size, n: int = n_images) -> Any:
            model, weights = setting.network(name, size)
            images = torch.from_numpy(fields(n, size, seed=1))
            return weights, images, collected(model, images, PLAIN)

        for variant in variants:
            run = functools.partial(_compared, setting, name, size, variant, reference)
            cases.append((f"{name}, {variant.name}", run))
    return cases


def _compared(
    setting: Setting, name: str, size: int, variant: Variant, reference: Callable[[], Any]
) -> dict[str, Any]:
    weights, images, expected = reference()
    model = copy.deepcopy(setting.network(name, size)[0]).to(setting.device)
    if variant.channels_last:
        model = model.to(memory_format=torch.channels_last)
    apart = difference(collected(model, images.to(setting.device), variant), expected)
    allowed = {"allowed_ring_difference": variant.rings, "allowed_exponent_difference":
               variant.exponents}  # fmt: skip
    record = {"weights": weights, "images": len(images), **apart.record(), **allowed}
    if apart.rings > variant.rings or apart.exponents > variant.exponents:
        raise WrongResultError(
            f"spectra: expected those of the CPU to {variant.rings:g} of a ring and "
            f"{variant.exponents:g} of an exponent; got {apart.rings:.2g} in {apart.layer} and "
            f"{apart.exponents:.2g}",
            record,
        )
    return record


# -- parts --------------------------------------------------------------------------------------


def parts_as_on_the_cpu(setting: Setting) -> list[Case]:
    """Accumulators with all their transforms, and what `measure` can do, against the CPU."""
    sides = [(8, 9), (16, 21), (40, 33), (56, 56), (112, 112)]
    sides += [] if setting.small else [(224, 224), (640, 512)]
    cases: list[Case] = [
        (f"maps of {height} x {width}", functools.partial(_maps, setting, height, width))
        for height, width in sides
    ]
    for run in (
        _strided_maps, _half_maps, _reduced_precision, _merged, _not_finite, _gradients, _measured,
        _measured_files, _mixed_precision, _frames, _temporal, _explained,
    ):  # fmt: skip
        name = (run.__doc__ or "").splitlines()[0].rstrip(".")
        cases.append((name, functools.partial(run, setting)))
    return cases


def _drawn(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    maps = torch.randn(*shape, generator=draw)
    # Not white, and with a mean, as activations are.
    return maps.cumsum(-1).cumsum(-2) / 10 + 1


def _summed(maps: Tensor, edges: str = "sine") -> Spectrum:
    accumulator = natstats.SpectrumAccumulator(
        maps.shape[2], maps.shape[3], edges, n_groups=4, device=maps.device
    )
    accumulator.update(maps)
    return accumulator.compute()


def _close(what: str, mine: Spectrum, other: Spectrum, allowed: float = MAPS) -> float:
    apart = spectrum_difference(mine, other)
    if apart > allowed:
        raise WrongResultError(
            f"{what}: expected those of the CPU to {allowed:g} of a ring; got {apart:.2g}",
            {"largest_ring_difference": apart},
        )
    return apart


def _maps(setting: Setting, height: int, width: int) -> dict[str, Any]:
    """All edge treatments; the sides choose between the three ways of the transform."""
    maps = _drawn(6, 5, height, width)
    found = {}
    for edges in ("sine", "hann", "none", "periodic"):
        other = _summed(maps.to(setting.device), edges)
        found[edges] = _close(f"edges {edges}", other, _summed(maps, edges))
        offset = np.abs(other.offset - _summed(maps, edges).offset).max()
        if offset > 1e-3:
            raise WrongResultError(
                f"offset: expected that of the CPU to 1e-3; it is {offset:.2g} apart"
            )
    return {"largest_ring_difference": found}


def _strided_maps(setting: Setting) -> dict[str, Any]:
    """Maps in other memory orders."""
    maps = _drawn(6, 8, 40, 36)
    expected = _summed(maps)
    there = maps.to(setting.device)
    wide = torch.zeros(6, 8, 80, 36, device=setting.device)
    wide[:, :, ::2] = there
    forms = {
        "channels_last": there.contiguous(memory_format=torch.channels_last),
        "every second row": wide[:, :, ::2],
        "turned": there.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    }
    return {name: _close(name, _summed(form), expected) for name, form in forms.items()}


def _half_maps(setting: Setting) -> dict[str, Any]:
    """Maps in float16, bfloat16 and float64."""
    record = {}
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        for side in (8, 20, 40):
            maps = _drawn(4, 6, side, side).to(dtype)
            name = f"{str(dtype).removeprefix('torch.')}, {side} pixels"
            record[name] = _close(name, _summed(maps.to(setting.device)), _summed(maps.float()))
    return record


def _reduced_precision(setting: Setting) -> dict[str, Any]:
    """Spectra of maps where TF32 and autocast are on."""
    record = {}
    for side in (8, 20, 40):
        maps = _drawn(4, 6, side, side)
        expected = _summed(maps)
        with plain_products(False), torch.autocast(setting.device.type, torch.bfloat16):
            record[f"{side} pixels"] = _close(
                f"{side} pixels", _summed(maps.to(setting.device)), expected
            )
    return record


def _merged(setting: Setting) -> dict[str, Any]:
    """Accumulators that change their device, are merged, kept and taken up again."""
    maps, index = _drawn(12, 4, 24, 24), torch.arange(12)
    expected = natstats.SpectrumAccumulator(24, 24, n_groups=4)
    expected.update(maps, index)

    def part(device: torch.device, some: slice) -> natstats.SpectrumAccumulator:
        made = natstats.SpectrumAccumulator(24, 24, n_groups=4, device=device)
        made.update(maps[some].to(device), index[some])
        return made

    cpu, device = torch.device("cpu"), setting.device
    first, second = slice(0, 5), slice(5, 12)
    kept = natstats.SpectrumAccumulator.from_state_dict(part(device, first).state_dict(), cpu)
    kept.update(maps[second], index[second])
    moved = part(cpu, first).to(device)
    moved.update(maps[second].to(device), index[second])
    found = {
        "device into CPU": part(cpu, first).merge(part(device, second)),
        "CPU into device": part(device, first).merge(part(cpu, second)),
        "kept on the device, taken up on the CPU": kept,
        "moved": moved,
    }
    return {name: _close(name, it.compute(), expected.compute()) for name, it in found.items()}


def _not_finite(setting: Setting) -> dict[str, Any]:
    """Images that are not finite are counted and left out."""
    maps = _drawn(6, 4, 24, 24)
    maps[1, 2, 3, 4], maps[4, 0, 0, 0] = torch.nan, torch.inf
    mine, other = _summed(maps.to(setting.device)), _summed(maps)
    if mine.n_nonfinite != 2:
        raise WrongResultError(f"n_nonfinite: expected 2; got {mine.n_nonfinite}")
    return {"largest_ring_difference": _close("the others", mine, other)}


def _gradients(setting: Setting) -> dict[str, Any]:
    """Gradients of spectra, first and second, against float64 on the CPU."""
    record = {}
    for side in (8, 20, 40):
        maps = _drawn(2, 3, side, side)
        record[f"{side} pixels"] = apart = [
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(
                _both_gradients(maps.to(setting.device), torch.float32),
                _both_gradients(maps.double(), torch.float64),
                strict=True,
            )
        ]
        if max(apart) > 1e-3:
            raise WrongResultError(
                f"gradients: expected those of the CPU to 1e-3; got {apart}", record
            )
    return record


def _both_gradients(maps: Tensor, dtype: torch.dtype) -> list[Tensor]:
    maps = maps.clone().requires_grad_(True)
    value = natstats.power_spectrum(maps, dtype=dtype).log().sum()
    (first,) = torch.autograd.grad(value, maps, create_graph=True)
    (second,) = torch.autograd.grad((first * maps.detach().sin()).sum(), maps)
    return [one.detach().double().cpu() for one in (first, second)]


# -- measure ------------------------------------------------------------------------------------


def _both(setting: Setting, images: Any, name: str = "cifar_resnet8", **options: Any) -> list[Any]:
    """The runs of a measurement on the device and on the CPU."""
    found = []
    for device in (setting.device, torch.device("cpu")):
        model = copy.deepcopy(setting.network(name, 32)[0])
        with plain_products():
            found.append(natstats.measure(model, images, device=device, **options))
    return found


def _runs_apart(mine: list[LayerSpectrum], other: list[LayerSpectrum], of: Variant) -> Any:
    apart = difference(mine, other)
    if apart.rings > of.rings or apart.exponents > of.exponents:
        raise WrongResultError(f"run: expected that of the CPU; {apart}", apart.record())
    return apart.record()


def _measured(setting: Setting) -> dict[str, Any]:
    """A run of measure on an array, input spectra included."""
    mine, other = _both(setting, fields(24, 32, seed=3), batch_size=9, workers=0)
    if mine.info["device"]["type"] != setting.device.type:
        raise WrongResultError(f"device: expected {setting.device.type}; got {mine.info['device']}")
    names = [one.layer.name for one in mine.spectra[:2]]
    if names != ["input.grey", "input.colour"]:
        raise WrongResultError(f"layers: expected the images first; got {names}")
    _runs_apart(mine.spectra[:2], other.spectra[:2], Variant("input", MAPS, MAPS))
    slopes = [float(one.law.slope) for one in (mine, other)]
    return {**_runs_apart(mine.spectra, other.spectra, PLAIN), "slopes": slopes}


def _measured_files(setting: Setting) -> dict[str, Any]:
    """A run of measure on files, read by workers."""
    from gpu_checks_speed import photographs

    folder = photographs(setting.folder / "few", 12, (48, 40))
    options = {"size": 32, "batch_size": 5, "workers": 0 if setting.small else 2}
    mine, other = _both(setting, folder, **options)
    return _runs_apart(mine.spectra, other.spectra, PLAIN)


def _mixed_precision(setting: Setting) -> dict[str, Any]:
    """A run of measure with amp."""
    mine, other = (
        natstats.measure(
            copy.deepcopy(setting.network("cifar_resnet8", 32)[0]),
            fields(16, 32, seed=3), device=device, amp=device == setting.device, workers=0,
        )
        for device in (setting.device, torch.device("cpu"))
    )  # fmt: skip
    return _runs_apart(mine.spectra, other.spectra, BFLOAT16)


def _clips(setting: Setting, **options: Any) -> dict[str, Any]:
    clips = np.stack([fields(6, 24, seed=seed).transpose(1, 0, 2, 3) for seed in range(6)])
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv3d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 4, 3, padding=1))
    found = []
    for device in (setting.device, torch.device("cpu")):
        with plain_products():
            own = copy.deepcopy(model).eval().to(device)
            network = natstats.Network(own, "two convolutions", "random", takes="clips")
            found.append(natstats.measure(network, clips, workers=0, **options))
    return _runs_apart(found[0].spectra, found[1].spectra, PLAIN)


def _frames(setting: Setting) -> dict[str, Any]:
    """Clips through a network, frame by frame."""
    return _clips(setting)


def _temporal(setting: Setting) -> dict[str, Any]:
    """Clips through a network, spectra along time."""
    return _clips(setting, temporal=True)


def _explained(setting: Setting) -> dict[str, Any]:
    """The account of a network (explain)."""
    mine, other = _both(setting, fields(16, 32, seed=3), explain=True, workers=0)
    a, b = mine.account_spectra, other.account_spectra
    _runs_apart(mine.spectra, other.spectra, PLAIN)
    return _accounts_apart(a, b)


def _accounts_apart(mine: AccountSpectra, other: AccountSpectra) -> dict[str, Any]:
    steps = [[(s.name, s.kind, *sorted(s.predictions)) for s in one.steps] for one in (mine, other)]
    if steps[0] != steps[1] or mine.note != other.note:
        raise WrongResultError("account: expected the steps of the CPU; got others")
    apart = [
        spectrum_difference(a.spectrum(), b.spectrum())
        for a, b in zip(mine.states, other.states, strict=True)
    ]
    gaussian = [
        float(np.abs(a.gaussian.after / b.gaussian.after - 1).max())
        for a, b in zip(mine.steps, other.steps, strict=True)
        if a.gaussian is not None and b.gaussian is not None
    ]
    kernels = [
        abs(a.kernel_exponent - b.kernel_exponent)
        for a, b in zip(mine.steps, other.steps, strict=True)
        if np.isfinite(b.kernel_exponent)
    ]
    record = {
        "steps": len(mine.steps),
        "states": len(apart),
        "largest_ring_difference": max(apart),
        "largest_difference_of_gaussian_parts": max(gaussian, default=0.0),
        "largest_difference_of_kernels": max(kernels, default=0.0),
    }
    if max(apart) > 5e-3 or max(gaussian, default=0) > 5e-3 or max(kernels, default=0) > 5e-3:
        raise WrongResultError("account: expected that of the CPU to 5e-3; got another", record)
    return record
