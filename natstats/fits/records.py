"""The fit of a layer and those of all layers of a run, as records."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from natstats.brief import Brief
from natstats.fits.flags import is_known
from natstats.fits.intervals import FEWEST_GROUPS
from natstats.fits.options import FitOptions
from natstats.html_blocks import html_block, html_table
from natstats.numbers import estimate, number, share

__all__ = ["Fits", "LayerFit"]

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class LayerFit:
    """The exponent of one layer's mean spectrum. NaN wherever a number is not available.

    Attributes:
        exponent: alpha by the chosen estimator.
        standard_error: standard error of `exponent`, from the groups of images.
        dof: effective degrees of freedom of the standard error.
        low: lower end of the interval.
        high: upper end of the interval.
        by_estimator: alpha by every estimator.
        log_amplitude: log A of A T_b(alpha) (of A f^-alpha for ``ols``): the octave-weighted mean
            of log power less that of the shape.
        fitted_power: what the fit expects at every ring, NaN outside the band, (n_rings,).
        r2: share of the octave-weighted variance of log power that the fit explains.
        curvature: coefficient of (ln f)^2 in what the fit leaves of log power.
        curvature_p: p-value of the test that `curvature` is zero.
        n_rings: rings in the band.
        n_images: images in the mean.
        image_exponents: alpha of single images, for those that were kept and can be fitted.
        deviations: how the exponent deviates as each group is left out, scaled so that their
            squares sum to the squared standard error, (G,); 0 for a group without images.
        flags: what a reader must know, in words, see :data:`natstats.fits.flags.FIT_FLAGS`.
    """

    exponent: float
    standard_error: float
    dof: float
    low: float
    high: float
    by_estimator: dict[str, float]
    log_amplitude: float
    fitted_power: Array
    r2: float
    curvature: float
    curvature_p: float
    n_rings: int
    n_images: int
    image_exponents: Array
    deviations: Array
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert all(map(is_known, self.flags)), self.flags

    def __repr__(self) -> str:
        if not np.isfinite(self.exponent):
            return f"<LayerFit: no exponent, {'; '.join(self.flags)}>"
        return f"<LayerFit: exponent {estimate(self.exponent, self.low, self.high)}>"

    def _repr_html_(self) -> str:
        rows = [
            ("exponent α", estimate(self.exponent, self.low, self.high)),
            ("standard error", number(self.standard_error, 3)),
            *((f"by {name}", number(value)) for name, value in self.by_estimator.items()),
            ("R²", share(self.r2)),
            ("rings, images", f"{self.n_rings}, {self.n_images}"),
            ("own exponents of images", f"{number(self.image_mean)} ± {number(self.image_sd)}"),
            ("flags", "; ".join(self.flags) or "none"),
        ]
        return html_block("Fit of a layer", [], html_table([], rows))

    @property
    def image_mean(self) -> float:
        """Mean of three or more images' own exponents; not the exponent of the mean spectrum."""
        several = len(self.image_exponents) >= FEWEST_GROUPS
        return float(np.mean(self.image_exponents)) if several else np.nan

    @property
    def image_sd(self) -> float:
        """Standard deviation of the images' own exponents, of three or more."""
        several = len(self.image_exponents) >= FEWEST_GROUPS
        return float(np.std(self.image_exponents, ddof=1)) if several else np.nan


@dataclass(frozen=True, eq=False, repr=False)
class Fits(Brief):
    """The fits of all layers of a run, and how they vary together.

    Attributes:
        options: how they were fitted.
        layers: the fit of every layer, in the order of the run.
    """

    options: FitOptions
    layers: list[LayerFit] = field(default_factory=list)

    @property
    def exponents(self) -> Array:
        """The exponent of every layer, (L,)."""
        return np.array([fit.exponent for fit in self.layers])

    @property
    def deviations(self) -> Array:
        """Scaled deviations of all layers as each group is left out, (G, L); NaN without a fit."""
        return np.stack([fit.deviations for fit in self.layers], axis=1)

    @property
    def covariance(self) -> Array:
        """Covariance of the exponents, from groups left out jointly over layers, (L, L)."""
        deviations = np.nan_to_num(self.deviations)
        return np.asarray(deviations.T @ deviations)
