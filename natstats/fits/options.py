"""How spectra are fitted and the law is tested: the choices, checked once.

Nothing here imports numpy, so that the command line can read the names and defaults here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from natstats import checks
from natstats.checks import NYQUIST
from natstats.errors import UsageError
from natstats.fits import estimators
from natstats.fits.band_choice import FittedBand, ImageBand, as_band
from natstats.fits.depth_axes import DEPTH_AXES

__all__ = [
    "DEPTHS", "ESTIMATORS", "INTERVALS", "DepthName", "EstimatorName", "FitOptions", "IntervalName",
]  # fmt: skip

ESTIMATORS = tuple(estimators.ESTIMATORS)
"""Names of the estimators, the default first, see :mod:`natstats.fits.estimators`."""

INTERVALS = ("jackknife", "bootstrap")
"""Ways to an interval, the default first."""

DEPTHS = tuple(DEPTH_AXES)
"""Names of the measures of depth, the default first, see :mod:`natstats.fits.depth_axes`."""

EstimatorName = Literal["octave", "whittle", "ols"]
IntervalName = Literal["jackknife", "bootstrap"]
DepthName = Literal["layers", "order", "normalized", "receptive-field"]
"""The same names for type checkers."""


@dataclass(frozen=True)
class FitOptions:
    """How spectra are fitted and against what depth the law is tested.

    Attributes:
        band: lowest and highest frequency used, in cycles/pixel of every map; or in cycles/image,
            the same waves in all layers that hold them: an
            :class:`natstats.fits.band_choice.ImageBand`, for which ``"2:12/image"`` may be given.
        min_rings: layers with fewer rings than this in the band are not fitted.
        estimator: name of the estimator whose exponent heads the table, one of
            :data:`ESTIMATORS`.
        level: share of samples in which an interval holds the truth, such as 0.95.
        normalize: whether every image is given the same power before the mean is taken.
        interval: ``jackknife`` (Student's t with effective degrees of freedom) or ``bootstrap``
            (symmetric, studentised), see :mod:`natstats.fits.intervals`.
        resamples: number of resamples of the bootstrap.
        depth: name of what the law has on its axis, one of :data:`DEPTHS`.
        law_layers: which layers are in the law: ``hidden`` (all but the network's own output),
            ``all``, or kinds of layer and name patterns with commas between them, see
            :func:`natstats.law.law_layers.asked_for`.
        stopped: whether no more images were measured because intervals were narrow enough, which
            favours those that are narrow by luck. Deviations of exponents are then
            :data:`natstats.fits.intervals.STOPPED` times as large, and so are all intervals that
            are made of them. ``until`` of a measurement sets it, where images were left.

    Raises:
        UsageError: an argument is out of range.

    >>> FitOptions(band="2:12/image").band
    ImageBand(low=2.0, high=12.0)
    >>> FitOptions(level=95)
    Traceback (most recent call last):
    natstats.errors.UsageError: level: expected a number between 0 and 1; got 95
    """

    band: FittedBand = (0.0, NYQUIST)
    min_rings: int = 2
    estimator: EstimatorName = "octave"
    level: float = 0.95
    normalize: bool = False
    interval: IntervalName = "jackknife"
    resamples: int = 1000
    depth: DepthName = "layers"
    law_layers: str = "hidden"
    stopped: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "band", as_band(self.band))
        checks.positive_int("min_rings", self.min_rings, 2)
        checks.one_of("estimator", self.estimator, estimators.ESTIMATORS)
        checks.probability("level", self.level)
        checks.one_of("interval", self.interval, INTERVALS)
        checks.flag("normalize", self.normalize)
        checks.flag("stopped", self.stopped)
        checks.positive_int("resamples", self.resamples, 100, checks.LARGEST["resamples"])
        checks.one_of("depth", self.depth, DEPTH_AXES)
        object.__setattr__(self, "law_layers", _selection("law_layers", self.law_layers))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; a band in cycles/image is its spelling."""
        band = str(self.band) if isinstance(self.band, ImageBand) else self.band
        return {**asdict(self), "band": band}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitOptions:
        """Inverse of :meth:`to_dict`; options that an older run does not have get their defaults.

        Raises:
            UsageError: a value is out of range.
        """
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})


def refuse_resamples_unused(given: Iterable[str], options: FitOptions) -> None:
    """Raise where an option was given that does nothing beside the others.

    Args:
        given: names of the options that were given.
        options: all of them.

    Raises:
        UsageError: resamples without the bootstrap.

    >>> refuse_resamples_unused(["resamples"], FitOptions(resamples=500))
    Traceback (most recent call last):
    natstats.errors.UsageError: resamples: expected only with interval bootstrap; got 500
    """
    if "resamples" in given and options.interval != "bootstrap":
        raise UsageError(
            f"resamples: expected only with interval bootstrap; got {options.resamples}"
        )


def _selection(argument: str, value: Any) -> str:
    """A selection of layers in one spelling; whether any layers match it is checked later.

    Raises:
        UsageError: it is no text, or a part of it is empty.
    """
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [""]
    if not all(part.removeprefix("-").strip() for part in parts):
        raise UsageError(
            f"{argument}: expected hidden, all, or kinds of layer and name patterns with commas "
            f"between them, such as hidden,-features.0*; got {value!r}"
        )
    return ",".join(parts)
