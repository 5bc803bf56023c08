"""Bands in cycles/image: which rings of a map they are, and which layers hold them.

A wave of F cycles along the shorter side of the image, S pixels, has F / S cycles per input pixel,
and F p / S cycles per pixel of a map whose rows lie p input pixels apart. Along the shorter side of
that map, M pixels, it has F p M / S = F c cycles: c = p M / S is the map's *span*, the share of
the image over which its pixels stand. It is 1 where a layer pads its borders by as much as its
windows take, and F is then the number of cycles along the map, whatever its size. Without padding
maps shrink at a stride that stays as it was: 388 rows that stand for 388 of 572 pixels have
c = 0.68, and a wave of 10 cycles/image has 6.8 cycles there. Where p could not be followed, and in
older runs, maps are taken to stand for the whole image, c = 1.

Ring k of a map holds the waves from k - 1/2 to k + 1/2 cycles along its shorter side, none beyond
its Nyquist frequency M / 2. A map *holds* a band when each end of it lies in one of its rings, and
the band is then all rings from the one end to the other. So the rings that are fitted have the same
numbers in all maps of one span, whatever their sizes; in maps of another span they are the nearest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from natstats import checks
from natstats.fits.band_choice import LONGEST, FittedBand, ImageBand, band_text
from natstats.spectra.frequencies import extent, rings
from natstats.spectra.records import LayerSpectrum, Spectrum

__all__ = ["NOWHERE", "band_sentence", "common_band", "held_band", "holds"]

NOWHERE = (0.0, 0.0)
"""A band without a ring, cycles/pixel."""

NEAR = 1e-4
"""Cycles along a map that count as rounding."""


def _ring_numbers(band: ImageBand, side: int, span: float) -> tuple[int, int] | None:
    """First and last ring of a map of this shorter side, from 1; None where it lacks an end."""
    low, high = band.low * span, band.high * span
    if low < 0.5 - NEAR or not high <= side / 2 + NEAR:
        return None
    first, last = math.floor(low + 0.5 + NEAR), math.ceil(high - 0.5 - NEAR)
    return first, max(first, last)


def held_band(
    band: FittedBand, spectrum: Spectrum, span: float = 1.0
) -> tuple[float, float] | None:
    """A band in cycles/pixel of a map; None where the map does not hold it.

    Args:
        band: what is asked for; a pair is in cycles/pixel already, and is returned as it is.
        spectrum: spectrum of the maps.
        span: share of the image's shorter side that the maps stand for.

    Returns:
        The frequencies at which the first and the last ring of the band stand, exactly.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(8, 14, 14, alpha=2.0)[:, None])
    >>> spectrum = run.spectra[0].spectrum
    >>> held = held_band(ImageBand(2, 7), spectrum)
    >>> [spectrum.frequency.tolist().index(end) + 1 for end in held]
    [2, 7]
    >>> held_band(ImageBand(2, 12), spectrum) is None
    True
    """
    if not isinstance(band, ImageBand):
        return band
    numbers = _ring_numbers(band, extent(spectrum.height, spectrum.width), span)
    if numbers is None:
        return None
    frequency = rings(spectrum.height, spectrum.width).frequency
    first, last = (float(frequency[number - 1]) for number in numbers)
    return first, last


def holds(measured: LayerSpectrum, band: FittedBand) -> bool:
    """Whether the maps of a layer hold the waves of a band; any map holds one in cycles/pixel."""
    return held_band(band, measured.spectrum, measured.span) is not None


def _reach(measured: LayerSpectrum) -> tuple[float, float]:
    """The waves that the maps of a layer hold, cycles/image."""
    side = extent(measured.spectrum.height, measured.spectrum.width)
    return max(LONGEST, 0.5 / measured.span), 0.5 * side / measured.span


def common_band(layers: Sequence[LayerSpectrum], min_rings: int = 4) -> tuple[float, float] | None:
    """The widest band in cycles/image that all layers hold with enough rings.

    Where there is no such band, some layers are given up, as a rule those with the smallest maps:
    it is then the band that most layers hold, and of several the widest in octaves. :func:`holds`
    says which layers these are.

    Args:
        layers: spectra of the layers; leave the images out where the layers are meant.
        min_rings: rings of every map in the band, at least.

    Returns:
        Lowest and highest frequency, cycles/image, as for :class:`ImageBand`; None where no layer
        has as many rings.

    Raises:
        UsageError: `min_rings` is no whole number of at least 2.

    >>> import natstats
    >>> def layer_of(side):
    ...     fields = natstats.power_law_fields(4, side, side, alpha=2.0)
    ...     return natstats.measure_images(fields[:, None]).spectra[0]
    >>> layers = [layer_of(side) for side in (56, 28, 14)]
    >>> common_band(layers)
    (1.0, 7.0)
    >>> common_band([*layers, layer_of(7)])  # whose three rings are too few
    (1.0, 7.0)
    """
    checks.positive_int("min_rings", min_rings, 2)
    # Layers of one size and span hold the same bands.
    kinds: dict[tuple[int, float], int] = {}
    for measured in layers:
        kind = extent(measured.spectrum.height, measured.spectrum.width), measured.span
        kinds[kind] = kinds.get(kind, 0) + 1
    ends = [_reach(measured) for measured in layers]
    lows, highs = ({end[side] for end in ends} for side in (0, 1))
    best, most = None, (0, 0.0)
    for low in lows:
        for high in highs:
            if not LONGEST < high > low:
                continue
            held = 0
            for (side, span), n_layers in kinds.items():
                numbers = _ring_numbers(ImageBand(low, high), side, span)
                if numbers is not None and numbers[1] - numbers[0] + 1 >= min_rings:
                    held += n_layers
            if held and (held, high / low) > most:
                best, most = (low, high), (held, high / low)
    return best


def band_sentence(spectra: Sequence[LayerSpectrum], band: FittedBand, unit: str = "pixel") -> str:
    """How many layers do not hold a band in cycles/image, in words; empty where all do.

    Args:
        spectra: spectra of all layers; the images count only where there is nothing else.
        band: the band.
        unit: see :func:`natstats.fits.band_choice.band_text`.

    >>> import natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(4, 14, 14, alpha=2.0)[:, None])
    >>> band_sentence(run.spectra, ImageBand(2, 12))
    'the images do not hold the band of 2 to 12 cycles per image; they hold 1 to 7'
    """
    layers = [measured for measured in spectra if measured.layer.kind != "input"]
    rows = layers or list(spectra)
    n_held = sum(holds(measured, band) for measured in rows)
    if n_held == len(rows):
        return ""
    words = f"the band of {band_text(band, unit)}"
    if n_held:
        held = "layers holds" if n_held == 1 else "layers hold"
        return (
            f"{n_held} of {len(rows)} {held} {words}; the maps of the others do not reach over "
            "it, so they have no exponent"
        )
    low, high = max(map(_reach, rows), key=lambda ends: ends[1])
    hold = f"hold {low:g} to {high:g}" if high > low else "hold none"
    if layers:
        return f"no layer holds {words}; the finest maps {hold}"
    return f"the images do not hold {words}; they {hold}"
