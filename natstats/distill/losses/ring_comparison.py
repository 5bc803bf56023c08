"""Log ring spectra and exponents of two networks' maps, brought to common frequencies.

Ring spectra are compared at frequencies in cycles/image: maps of different sizes of one picture
share the low ones. The maps are never resized, as that would change their spectra. Where the sizes
are equal, the rings are equal too, and nothing is interpolated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from natstats import checks
from natstats.distill.method import TapPoint
from natstats.errors import UsageError
from natstats.fits.bands import band_of
from natstats.spectra.accumulator import power_spectrum
from natstats.spectra.edge_names import Edges
from natstats.spectra.edges import EDGES
from natstats.spectra.frequencies import NYQUIST, rings

__all__ = [
    "DEAD",
    "FLOOR",
    "WEIGHTINGS",
    "RingComparison",
    "exponent_of",
    "frequency_weights",
    "log_power",
    "ring_comparisons",
]

FLOOR = 1e-6
"""What is added to the ring power before the logarithm, as a share of an image's mean."""

DEAD = 1e-10
"""Power, as a share of what it is compared with, below which a map counts as silent."""

WEIGHTINGS = ("octave", "ring", "low", "high")
"""How frequencies can be weighted, see :func:`frequency_weights`."""

_TINY = 1e-30
"""Keeps the logarithm finite where both maps are constant."""


def log_power(power: Tensor, reference: Tensor | None = None) -> Tensor:
    """Natural logarithm of ring power, (N, ..., n_rings), with a floor by image.

    The floor is a share of the image's own mean, :data:`FLOOR`, so that the logarithm follows any
    gain, plus a smaller share of the mean of what it will be compared with, :data:`DEAD`. A
    constant map has the same logarithm at all rings; a nearly constant one has a gradient of
    limited size.

    Args:
        power: ring power.
        reference: power that it will be compared with, of the same images or of one for all; None
            for a floor from its own mean only.

    >>> log_power(torch.zeros(1, 3)).isfinite().all().item()
    True
    """
    floor = FLOOR * _mean(power) + _TINY
    if reference is not None:
        floor = floor + DEAD * _mean(reference)
    return (power + floor).log()


def _mean(power: Tensor) -> Tensor:
    """Mean over all but the images, detached, with its axes kept."""
    return power.detach().mean(dim=tuple(range(1, power.ndim)), keepdim=True)


def frequency_weights(frequency: np.ndarray, weighting: str = "octave") -> np.ndarray:
    """Weights of frequencies, of sum 1.

    Args:
        frequency: rising, (n,), in any unit.
        weighting: ``octave``, in proportion to 1 / f, so that every octave counts the same;
            ``ring``, all rings the same; ``low``, as octave but only below the geometric mean of
            the lowest and the highest; ``high``, only from there on. Low and high have two
            frequencies at least.

    Raises:
        UsageError: another weighting, or fewer than four frequencies for low and high.

    >>> frequency_weights(np.array([1.0, 2.0, 3.0, 4.0]), "low").round(3).tolist()
    [0.667, 0.333, 0.0, 0.0]
    """
    checks.one_of("weighting", weighting, WEIGHTINGS)
    weights = np.ones(len(frequency)) if weighting == "ring" else 1 / frequency
    if weighting in ("low", "high"):
        if len(frequency) < 4:
            raise UsageError(
                f"weighting: expected maps with four frequencies or more for {weighting}; got "
                f"{len(frequency)}"
            )
        below = int(np.sum(frequency < np.sqrt(frequency[0] * frequency[-1])))
        n_low = min(max(below, 2), len(frequency) - 2)
        is_low = np.arange(len(frequency)) < n_low
        weights = np.where(is_low == (weighting == "low"), weights, 0.0)
    return np.asarray(weights / weights.sum())


def _lines(where: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Matrix (len(known), len(where)) of the linear interpolation from `known` to `where`."""
    rows = np.eye(len(known))
    return np.stack([np.interp(where, known, row) for row in rows])


class _Calibration(NamedTuple):
    """Piecewise linear calibration: the exponent of a finite, tapered map from its slope."""

    contrast: Tensor
    """Log ring spectrum times this is the slope."""

    ends: Tensor
    """Slopes at which one piece ends and the next begins."""

    slopes: Tensor
    """Slope at the beginning of each piece."""

    widths: Tensor
    """Range of slopes in each piece."""

    alphas: Tensor
    """Exponent at the beginning of each piece."""

    rises: Tensor
    """Rise of the exponent over each piece."""

    lowest: float
    highest: float


@lru_cache(maxsize=256)
def _calibration(
    height: int, width: int, edges: Edges, dtype: torch.dtype, device: torch.device
) -> _Calibration:
    """The calibration on its device, cached so that no step of a training waits for a copy."""
    arrays = band_of(height, width, edges, 0.0, NYQUIST).octave_calibration()
    with torch.inference_mode(False):  # usable in training, even if first asked for in inference
        contrast, slopes, alphas = (torch.tensor(array, dtype=dtype) for array in arrays)
        table = (contrast, slopes[1:-1], slopes[:-1], slopes.diff(), alphas[:-1], alphas.diff())
        pieces = [one.to(device).contiguous() for one in table]
    return _Calibration(
        contrast=pieces[0],
        ends=pieces[1],
        slopes=pieces[2],
        widths=pieces[3],
        alphas=pieces[4],
        rises=pieces[5],
        lowest=float(slopes[0]),
        highest=float(slopes[-1]),
    )


def exponent_of(log_spectrum: Tensor, height: int, width: int, edges: Edges = "sine") -> Tensor:
    """Exponent of every row of a log ring spectrum: closed form, debiased, differentiable.

    The estimator ``octave`` of :mod:`natstats.fits.estimators`: the slope over log frequency with
    octave weights, turned into alpha by the slope of the expected spectrum of a finite, tapered
    map. Beyond the range of that calibration the exponent stays at its end, and has no gradient.

    Args:
        log_spectrum: (N, n_rings), natural logarithm of ring power.
        height: H of the maps, pixels.
        width: W of the maps, pixels.
        edges: edge treatment of the spectra.

    Returns:
        (N,).

    >>> import natstats
    >>> fields = natstats.power_law_fields(64, 32, 32, alpha=2.0, seed=0)
    >>> power = power_spectrum(torch.tensor(fields.reshape(4, 16, 32, 32)).float())
    >>> round(float(exponent_of(log_power(power), 32, 32).mean()), 1)
    2.0
    """
    known = _calibration(height, width, edges, log_spectrum.dtype, log_spectrum.device)
    slope = -(log_spectrum @ known.contrast).clamp(-known.highest, -known.lowest)
    piece = torch.searchsorted(known.ends, slope.detach().contiguous())
    share = (slope - known.slopes[piece]) / known.widths[piece]
    return known.alphas[piece] + share * known.rises[piece]


class RingComparison(nn.Module):
    """Brings the log ring spectra of two sizes of maps to the frequencies that both have.

    Args:
        student: (H, W) of the student's maps, at least 5 pixels.
        teacher: (H, W) of the teacher's maps.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        weighting: of the frequencies, see :func:`frequency_weights`.

    Raises:
        UsageError: too few frequencies in common, or maps that are too small.

    >>> comparison = RingComparison((16, 16), (8, 8))
    >>> comparison.frequency.shape
    torch.Size([4])
    """

    frequency: Tensor
    """Common frequencies, cycles/image, rising, (n,)."""

    weights: Tensor
    """Weights of the frequencies, of sum 1, (n,)."""

    def __init__(
        self,
        student: tuple[int, int],
        teacher: tuple[int, int],
        edges: Edges = "sine",
        weighting: str = "octave",
    ) -> None:
        super().__init__()
        if edges not in EDGES:
            raise UsageError(f"edges: expected one of {', '.join(EDGES)}; got {edges!r}")
        self.edges = edges
        self.student_size, self.teacher_size = student, teacher
        mine, theirs = (rings(*size).cycles_per_image for size in (student, teacher))
        shorter = mine if mine[-1] <= theirs[-1] else theirs
        low = max(mine[0], theirs[0])
        common = shorter[shorter >= low - 1e-9]
        if len(common) < 2:
            raise UsageError(
                "taps: expected maps with two frequencies in common or more; got "
                f"{student[0]} x {student[1]} and {teacher[0]} x {teacher[1]} pixels"
            )
        for name, own in (("student", mine), ("teacher", theirs)):
            is_same = len(own) == len(common) and np.allclose(own, common)
            matrix = None if is_same else _lines(np.log(common), np.log(own))
            kept = None if matrix is None else torch.tensor(matrix, dtype=torch.float32)
            self.register_buffer(f"_{name}_matrix", kept, persistent=False)
        weights = frequency_weights(common, weighting)
        self.register_buffer("frequency", torch.tensor(common, dtype=torch.float32), False)
        self.register_buffer("weights", torch.tensor(weights, dtype=torch.float32), False)

    def spectrum(self, maps: Tensor, which: str, reference: Tensor | None = None) -> Tensor:
        """Log ring spectrum of each image, (N, n_rings), at the network's own frequencies.

        Args:
            maps: (N, C, H, W).
            which: ``student`` or ``teacher``, for the error.
            reference: log ring spectrum that it will be compared with, see :func:`log_power`.

        Raises:
            UsageError: the maps have another size than the comparison was made for.
        """
        size = self.student_size if which == "student" else self.teacher_size
        if maps.ndim != 4 or tuple(maps.shape[2:]) != size:
            raise UsageError(
                f"maps: expected {size[0]} x {size[1]} pixels of the {which}; "
                f"got {tuple(maps.shape)}"
            )
        double = {"dtype": maps.dtype} if maps.dtype == torch.float64 else {}
        power = power_spectrum(maps, self.edges, **double)
        return log_power(power, None if reference is None else reference.exp())

    def common(self, log_spectrum: Tensor, which: str) -> Tensor:
        """A log ring spectrum (N, n_rings) at the common frequencies, (N, n).

        The result is the power per (cycle/image)^2, which is the same on a finer grid over the same
        scene; per (cycle/pixel)^2 it is H W times that.
        """
        height, width = self.student_size if which == "student" else self.teacher_size
        matrix = cast("Tensor | None", getattr(self, f"_{which}_matrix"))
        known = log_spectrum if matrix is None else log_spectrum @ matrix.to(log_spectrum.dtype)
        return known - math.log(height * width)

    def exponent(self, log_spectrum: Tensor, which: str) -> Tensor:
        """Exponent of each row of a log ring spectrum (N, n_rings) of its own rings, (N,)."""
        size = self.student_size if which == "student" else self.teacher_size
        return exponent_of(log_spectrum, *size, self.edges)

    def distance(self, student: Tensor, teacher: Tensor, level: str = "kept") -> Tensor:
        """Squared distance of two log spectra at the common frequencies, (N, n) -> (N,).

        The weighted mean of the squared difference. With ``level="free"`` the weighted mean of the
        difference is subtracted first, which leaves the gain of the maps free. With ``"kept"`` both
        have :data:`FLOOR` of the mean power of the two added, so that a map without any power is
        (log FLOOR)^2, 191, from its partner, and not infinitely far.
        """
        weights = self.weights.to(torch.promote_types(student.dtype, teacher.dtype))
        if level == "kept":
            floor = math.log(FLOOR) + torch.logaddexp(_log_mean(student), _log_mean(teacher))
            student, teacher = torch.logaddexp(student, floor), torch.logaddexp(teacher, floor)
        difference = student - teacher
        if level == "free":
            difference = difference - (difference @ weights)[:, None]
        return difference.square() @ weights


def _log_mean(log_power: Tensor) -> Tensor:
    """Logarithm of the mean power, (N, n) -> (N, 1), detached."""
    log_sum = log_power.detach().logsumexp(dim=1, keepdim=True)
    return log_sum - math.log(log_power.shape[1])


def ring_comparisons(
    student: Sequence[TapPoint],
    teacher: Sequence[TapPoint],
    edges: Edges = "sine",
    weighting: str = "octave",
) -> nn.ModuleList:
    """A comparison for each pair of taps.

    Raises:
        UsageError: no pair, or taps without a partner.
    """
    if not student or len(student) != len(teacher):
        raise UsageError(
            "taps: expected one pair or more; got "
            f"{len(student)} in the student and {len(teacher)} in the teacher"
        )
    return nn.ModuleList(
        RingComparison((mine.height, mine.width), (theirs.height, theirs.width), edges, weighting)
        for mine, theirs in zip(student, teacher, strict=True)
    )
