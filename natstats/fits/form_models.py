"""The forms that a spectrum could have, as functions of their parameters, and how they are fitted.

See :mod:`natstats.fits.forms` for what they are. All are least squares in log power with the
amplitude taken out; the starts are a grid over each form's parameters, whose predictions are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares

from natstats.fits.estimators import band_of
from natstats.spectra.expected import EXPONENT_RANGE, expected_spectrum, independent_modes

__all__ = ["FORMS", "FormModel", "FormModels", "form_models"]

FORMS = ("power law", "floor", "cut-off", "broken")
"""The forms that are compared."""

Array = NDArray[np.float64]

_SHARES = np.array([0.03, 0.1, 0.3, 0.5, 0.7, 0.9])
_RATES = np.array([0.3, 1.0, 2.0, 4.0, 8.0, 16.0])
_CHANGES = np.array([-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0])


Model = Callable[..., tuple[Array, tuple[Array, ...]]]
"""Parameters but the amplitude, (...) each, to log power in the rings of a band, (..., n), and its
derivative in each parameter, up to a constant."""


class FormModels:
    """The rings of one map size in a band, their bins, and the forms as functions of parameters.

    Args:
        height: H, pixels.
        width: W, pixels.
        edges: edge treatment.
        band: lowest and highest frequency, cycles/pixel; with five rings or more between them.
        most: bins at most, five or more.

    Attributes:
        frequency: of the rings in the band, cycles/pixel, (n,).
        average: takes rings to bins, a mean weighted by independent modes, (k, n).
        forms: by name, in the order of :data:`FORMS`.
    """

    def __init__(
        self, height: int, width: int, edges: str, band: tuple[float, float], most: int
    ) -> None:
        inside = band_of(height, width, edges, *band).inside
        table = expected_spectrum(height, width, edges)
        self.frequency = table.frequency[inside]
        self.log_frequency = np.log(self.frequency)
        # Cubic between exponents 1/15 apart: as exact as the table, and a tenth of its cost.
        grid = np.linspace(*EXPONENT_RANGE, 136)
        self.expected = CubicSpline(grid, table.log_power(grid)[:, inside])
        place = _evenly(self.log_frequency, most)
        modes = independent_modes(height, width, edges)[inside]
        average = (place == np.arange(place[-1] + 1)[:, None]) * modes
        self.average: Array = average / average.sum(axis=1, keepdims=True)
        middles = self.average @ self.log_frequency
        low, high = EXPONENT_RANGE[0] + 0.01, EXPONENT_RANGE[1] - 0.01
        alphas = np.arange(-2.75, 5.9, 0.25)
        breaks = 0.5 * (middles[1:-2] + middles[2:-1])
        self.forms = {
            "power law": FormModel(self, self.power_law, (low,), (high,), (alphas,)),
            "floor": FormModel(
                self, self.floor, (0.01, 0.0), (high, 0.999), (alphas[alphas > 0], _SHARES)
            ),
            "cut-off": FormModel(self, self.cut_off, (low, 0.0), (high, 100.0), (alphas, _RATES)),
            "broken": FormModel(
                self, self.broken, (low, -12.0, middles[1]), (high, 12.0, middles[-2]),
                (alphas, _CHANGES, breaks),
            ),
        }  # fmt: skip

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.average)

    def power_law(self, alpha: Array) -> tuple[Array, tuple[Array, ...]]:
        """The plain law."""
        return self.expected(alpha), (self.expected(alpha, 1),)

    def floor(self, alpha: Array, share: Array) -> tuple[Array, tuple[Array, ...]]:
        """`share` is that of the floor in the highest ring of the band."""
        law, slope = self.expected(alpha), self.expected(alpha, 1)
        law, slope = np.exp(law - law[..., -1:]), slope - slope[..., -1:]
        white = self.expected(0.0)
        white = np.exp(white - white[-1])
        share = np.asarray(share)[..., None]
        total = (1 - share) * law + share * white
        return np.log(total), ((1 - share) * law * slope / total, (white - law) / total)

    def cut_off(self, alpha: Array, rate: Array) -> tuple[Array, tuple[Array, ...]]:
        """`rate` is one over the cut-off frequency."""
        law, slope = self.expected(alpha), self.expected(alpha, 1)
        return law - np.asarray(rate)[..., None] * self.frequency, (slope, -self.frequency)

    def broken(
        self, alpha: Array, change: Array, log_break: Array
    ) -> tuple[Array, tuple[Array, ...]]:
        """`change` is that of the exponent at the break."""
        law, slope = self.expected(alpha), self.expected(alpha, 1)
        above = np.maximum(self.log_frequency - np.asarray(log_break)[..., None], 0.0)
        change = np.asarray(change)[..., None]
        return law - change * above, (slope, -above, change * (above > 0))


class FormModel:
    """A form with bounds on its parameters and a grid of starts, with what it predicts there."""

    def __init__(
        self,
        band: FormModels,
        model: Model,
        low: tuple[float, ...],
        high: tuple[float, ...],
        axes: tuple[Array, ...],
    ) -> None:
        self.average, self.model, self.bounds = band.average, model, (low, high)
        self.starts = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
        self.predicted = model(*self.starts.T)[0] @ band.average.T

    def fit(self, log_power: Array, whiten: Array) -> tuple[Array, float]:
        """Parameters (p,) with the smallest chi^2, and that, of log power in the bins (k,).

        `whiten` (k, k) gives residuals unit variance and takes their common level away.
        """
        average = whiten @ self.average
        target = whiten @ log_power

        def residuals(parameters: Array) -> Array:
            return np.asarray(average @ self.model(*parameters)[0] - target)

        def jacobian(parameters: Array) -> Array:
            return np.asarray(average @ np.stack(self.model(*parameters)[1], axis=1))

        distance = np.sum((self.predicted @ whiten.T - target) ** 2, axis=1)
        first = int(distance.argmin())
        # The second start differs in the last parameter, where there is more than one valley.
        elsewhere = self.starts[:, -1] != self.starts[first, -1]
        second = int(np.where(elsewhere, distance, np.inf).argmin())
        starts = [first, second] if self.starts.shape[1] > 2 else [first]
        found = [
            least_squares(
                residuals,
                self.starts[start],
                jacobian,
                bounds=self.bounds,
                ftol=1e-6,
                xtol=1e-6,
                gtol=1e-6,
            )
            for start in starts
        ]
        best = min(found, key=lambda one: float(one.cost))
        return np.asarray(best.x), 2 * float(best.cost)

    def residual(self, log_power: Array, parameters: Array) -> Array:
        """What is left of log power in the bins, about its mean, (k,)."""
        left = log_power - self.average @ self.model(*parameters)[0]
        return np.asarray(left - left.mean())


def _evenly(log_frequency: Array, most: int) -> NDArray[np.int64]:
    """The bin of each ring, (n,): at most `most` bins, evenly spaced, none empty.

    >>> _evenly(np.log(np.arange(1.0, 9.0)), 5).tolist()
    [0, 1, 2, 3, 3, 4, 4, 4]
    """
    n = len(log_frequency)
    if n <= most:
        return np.arange(n)
    position = (log_frequency - log_frequency[0]) / np.ptp(log_frequency)
    place = np.zeros(n, dtype=np.int64)
    # More cells fill more bins, until the low rings have one each and cells between stay empty.
    for n_cells in range(2, 50 * most):
        cell = np.minimum((position * n_cells).astype(np.int64), n_cells - 1)
        filled, finer = np.unique(cell, return_inverse=True)
        if len(filled) > most:
            break
        place = finer
    return place


@lru_cache(maxsize=256)
def form_models(
    height: int, width: int, edges: str, band: tuple[float, float], most: int
) -> FormModels:
    """Return the forms for one map size and band, in at most `most` bins, prepared once and kept.

    >>> form_models(28, 28, "sine", (0.0, 0.5), 10).n_bins
    10
    """
    return FormModels(height, width, edges, band, most)
