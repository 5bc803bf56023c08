"""Spectra that someone else has measured: frequencies, and the power of every image at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats import checks
from natstats.errors import UsageError
from natstats.fits.band_choice import FittedBand, ImageBand
from natstats.fits.bands import Band
from natstats.fits.options import FitOptions
from natstats.fits.rings_in_band import GRID
from natstats.spectra.edge_names import EDGES, Edges
from natstats.spectra.frequencies import rings
from natstats.spectra.records import Spectrum

__all__ = ["PlainBand", "PlainSpectrum", "arrays_of_layers", "spectrum_of_arrays"]

Array = NDArray[np.float64]

MOST_GROUPS = 128
"""Groups of images, unless others are asked for."""


class PlainBand(Band):
    """Frequencies at which a power law holds exactly: nothing is corrected for a finite map.

    All octaves count the same, whatever the spacing of the frequencies: each frequency has the
    weight of the step in log frequency that it stands for.

    Args:
        frequency: of the spectrum, (R,).
        inside: which of them are in the band, (R,).

    >>> band = PlainBand(np.arange(1, 9) / 16, np.ones(8, bool))
    >>> band.estimate((np.arange(1, 9.0) ** -2.5)[None], "octave").round(6).tolist()
    [2.5]
    """

    def __init__(self, frequency: Array, inside: NDArray[np.bool_]) -> None:
        self.inside = inside
        self.n_rings = int(inside.sum())
        if self.n_rings < 2:
            return
        self.log_frequency = np.log(frequency[inside])
        self.octave_weights = np.gradient(self.log_frequency)
        self.modes = np.ones(self.n_rings)
        self.grid = GRID
        self.log_expected = self.log_expected_power(GRID)
        self.octave_contrast = self._slope_contrast(self.octave_weights)
        self.straight_contrast = self._slope_contrast(np.ones(self.n_rings))
        self._calibrate()

    def log_expected_power(self, alpha: Array | float) -> Array:
        """Minus alpha log f, (..., n) for alpha of shape (...)."""
        return np.asarray(-np.multiply.outer(alpha, self.log_frequency))

    def log_expected_slope(self, alpha: float) -> Array:
        """Its derivative in alpha, (n,)."""
        return np.asarray(-self.log_frequency)

    def outer_shift(self, alpha: float, estimator: str = "octave") -> float:
        """0: without a map, no waves are longer than the map."""
        return 0.0


@dataclass(frozen=True, eq=False)
class PlainSpectrum(Spectrum):
    """A spectrum of no known map: height and width are 0, and every frequency counts once."""

    @property
    def n_members(self) -> NDArray[np.int64]:
        """One for every frequency, (R,)."""
        return np.ones(self.n_rings, np.int64)

    def held(self, band: FittedBand) -> tuple[float, float]:
        """The band in the unit of the frequencies; the default band stands for all of them.

        Raises:
            UsageError: it is in cycles/image.
        """
        if isinstance(band, ImageBand):
            raise UsageError(
                f"band: expected frequencies in the unit of the arrays; got {band} (cycles/image "
                "take a size)"
            )
        return (0.0, np.inf) if band == FitOptions.band else band

    def band(self, band: FittedBand) -> PlainBand:
        """The frequencies in a band."""
        low, high = self.held(band)
        inside = (self.frequency >= low - 1e-9) & (self.frequency <= high + 1e-9)
        return PlainBand(self.frequency, inside)


def spectrum_of_arrays(
    frequencies: Any,
    power: Any,
    size: tuple[int, int] | None = None,
    edges: Edges = "sine",
    n_groups: int | None = None,
) -> Spectrum:
    """A spectrum of plain arrays, see :func:`natstats.fit_spectrum` for them.

    Raises:
        UsageError: an array has the wrong shape or values; the message names it and what it has.

    >>> spectrum_of_arrays([0.1, 0.2], [[2, 1], [np.nan, 1]]).n_nonfinite
    1
    """
    frequency = _numbers("frequencies", frequencies)
    if frequency.ndim != 1 or len(frequency) < 2:
        raise UsageError(
            f"frequencies: expected two or more, (R,); got shape {frequency.shape} (a measured "
            "spectrum is a natstats.spectra.Spectrum)"
        )
    if not (np.isfinite(frequency).all() and frequency[0] > 0 and (np.diff(frequency) > 0).all()):
        raise UsageError("frequencies: expected rising numbers above 0; got others")
    if power is None:
        raise UsageError("power: expected the power of every image at the frequencies, (N, R)")
    values = _numbers("power", power)
    n = len(frequency)
    if values.ndim != 2 or values.shape[1] != n or not len(values):
        raise UsageError(
            f"power: expected the power of every image at {n} frequencies, (N, {n}); got shape "
            f"{values.shape}"
        )
    if (values < 0).any():
        raise UsageError(f"power: expected no negative values; got {np.nanmin(values):g}")
    default = min(len(values), MOST_GROUPS)
    groups = checks.positive_int(
        "n_groups", default if n_groups is None else n_groups, 1, checks.LARGEST["n_groups"]
    )
    checks.one_of("edges", edges, EDGES)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    kept = np.where(finite[:, None], values, 0.0)
    if size is None:
        return _without(PlainSpectrum(0, 0, "", frequency, *_sums(kept, groups, None)), finite)
    height, width = _checked_size(size, frequency)
    ring = rings(height, width)
    sums = _sums(kept, groups, ring.n_members)
    return _without(Spectrum(height, width, edges, ring.frequency, *sums), finite)


def _numbers(argument: str, values: Any) -> Array:
    if hasattr(values, "detach"):  # a tensor, on any device
        values = values.detach().cpu()
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{argument}: expected an array of numbers; {error}") from None


def _checked_size(size: Any, frequency: Array) -> tuple[int, int]:
    """Height and width of maps whose rings stand at these frequencies."""
    try:
        height, width = size
        found = rings(
            checks.positive_int("size", height), checks.positive_int("size", width)
        ).frequency
    except (TypeError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"size: expected height and width, pixels; got {size!r}") from None
    if found.shape != frequency.shape or not np.allclose(found, frequency, rtol=1e-3, atol=0):
        raise UsageError(
            f"frequencies: expected the {len(found)} of natstats.ring_frequencies({height}, "
            f"{width}), from {found[0]:.4g} to {found[-1]:.4g} cycles/pixel; got {len(frequency)} "
            f"from {frequency[0]:.4g} to {frequency[-1]:.4g} (without a size others will do)"
        )
    return height, width


def _sums(
    power: Array, n_groups: int, n_members: NDArray[np.int64] | None
) -> tuple[Array, Array, NDArray[np.int64], Array, NDArray[np.float32]]:
    """The other fields of a spectrum: group sums, plain and normalised, counts, offsets, images."""
    group = np.arange(len(power)) % n_groups
    mean = np.average(power, axis=1, weights=n_members)[:, None]
    own = np.divide(power, mean, out=np.zeros_like(power), where=mean > 0)
    sums = np.zeros((2, n_groups, power.shape[1]))
    np.add.at(sums[0], group, power)
    np.add.at(sums[1], group, own)
    count = np.bincount(group, minlength=n_groups)
    return sums[0], sums[1], count, np.zeros(n_groups), power.astype(np.float32)


def _without(spectrum: Spectrum, finite: NDArray[np.bool_]) -> Spectrum:
    """The spectrum without images that are not finite, which its sums hold as zeros."""
    if finite.all():
        return spectrum
    group = np.arange(len(finite)) % len(spectrum.count)
    kept = spectrum.image_power.copy()
    kept[~finite[: len(kept)]] = np.nan
    return type(spectrum)(
        **{
            **vars(spectrum),
            "count": np.bincount(group[finite], minlength=len(spectrum.count)),
            "image_power": kept,
            "n_nonfinite": int((~finite).sum()),
        }
    )


def arrays_of_layers(
    frequencies: Any, power: Any, sizes: Sequence[Any] | None
) -> tuple[list[Any], list[Array]]:
    """Frequencies and power of every layer.

    Raises:
        UsageError: there are not as many of one as of the other, or not the same images in all.

    >>> f, p = arrays_of_layers([0.1, 0.2], np.ones((3, 4, 2)), None)
    >>> len(f), len(p)
    (3, 3)
    """
    if isinstance(power, Mapping):
        raise UsageError(
            "power: expected an array (L, N, R), or a list of arrays (N, R); got a "
            f"{type(power).__name__}"
        )
    try:
        powers = [_numbers("power", one) for one in power]
    except TypeError:
        raise UsageError(
            f"power: expected an array (N, R) for every layer; got a {type(power).__name__}"
        ) from None
    for place, one in enumerate(powers):
        if one.ndim != 2 or len(one) != len(powers[0]):
            raise UsageError(
                "power: expected an array (N, R) for every layer, of the same images; layer "
                f"{place} has shape {one.shape}, layer 0 {powers[0].shape}"
            )
    is_one = np.ndim(frequencies[0]) == 0
    each = [frequencies] * len(powers) if is_one else list(frequencies)
    for argument, n in (
        ("frequencies", len(each)),
        ("sizes", len(each if sizes is None else sizes)),
    ):
        if n != len(powers):
            raise UsageError(f"{argument}: expected one for each of {len(powers)} layers; got {n}")
    return each, powers
