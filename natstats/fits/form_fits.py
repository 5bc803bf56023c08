"""How the forms are fitted: least squares in log power, with the amplitude taken out.

The starts are a grid over the parameters of each form, whose predictions are kept.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from natstats.fits.form_rings import FormRings
from natstats.fits.forms import FORMS, Form

__all__ = ["FormFitter", "FormFitters", "fitters_of"]

Array = NDArray[np.float64]


class FormFitters:
    """All forms, ready to be fitted to the rings of one map size in a band.

    Attributes:
        rings: the rings and their bins.
        by_name: a fitter of each form, in the order of :data:`natstats.fits.forms.FORMS`.
    """

    def __init__(self, rings: FormRings) -> None:
        self.rings = rings
        self.by_name = {name: FormFitter(form, rings) for name, form in FORMS.items()}


class FormFitter:
    """A form with bounds on its parameters and a grid of starts, with what it predicts there."""

    def __init__(self, form: Form, rings: FormRings) -> None:
        search = form.search(rings)
        axes = np.meshgrid(*search.starts, indexing="ij")
        self._form, self._rings, self._average = form, rings, rings.average
        self._bounds = search.low, search.high
        self._starts = np.stack([axis.ravel() for axis in axes], axis=1)
        self._predicted = self._model(*self._starts.T)[0] @ rings.average.T

    def _model(self, *parameters: Array) -> tuple[Array, tuple[Array, ...]]:
        return self._form.model(self._rings, *parameters)

    def fit(self, log_power: Array, whiten: Array) -> tuple[Array, float]:
        """Parameters (p,) with the smallest chi^2 for log power in the bins (k,), and that chi^2.

        `whiten` (k, k) gives residuals unit variance and takes their common level away.
        """
        average = whiten @ self._average
        target = whiten @ log_power

        # The search asks for the derivative where it has just asked for the residuals.
        last: tuple[bytes, tuple[Array, ...]] = b"", ()

        def residuals(parameters: Array) -> Array:
            nonlocal last
            log_power, slopes = self._model(*parameters)
            last = parameters.tobytes(), slopes
            return np.asarray(average @ log_power - target)

        def jacobian(parameters: Array) -> Array:
            key, slopes = last
            if key != parameters.tobytes():
                slopes = self._model(*parameters)[1]
            return np.asarray(average @ np.stack(slopes, axis=1))

        distance = np.sum((self._predicted @ whiten.T - target) ** 2, axis=1)
        first = int(distance.argmin())
        # The second start differs in the last parameter, where there is more than one valley.
        elsewhere = self._starts[:, -1] != self._starts[first, -1]
        second = int(np.where(elsewhere, distance, np.inf).argmin())
        starts = [first, second] if self._starts.shape[1] > 2 else [first]
        found = [
            least_squares(
                residuals,
                self._starts[start],
                jacobian,
                bounds=self._bounds,
                ftol=1e-6,
                xtol=1e-6,
                gtol=1e-6,
            )
            for start in starts
        ]
        best = min(found, key=lambda one: float(one.cost))
        return np.asarray(best.x), 2 * float(best.cost)

    def power(self, log_power: Array, parameters: Array) -> Array:
        """What the form expects in the rings, at the mean level of log power in the bins, (n,)."""
        expected = self._model(*parameters)[0]
        level = np.mean(log_power - self._average @ expected)
        return np.asarray(np.exp(expected + level))

    def residual(self, log_power: Array, parameters: Array) -> Array:
        """What is left of log power in the bins, about its mean, (k,)."""
        left = log_power - self._average @ self._model(*parameters)[0]
        return np.asarray(left - left.mean())


@lru_cache(maxsize=256)
def fitters_of(
    height: int, width: int, edges: str, band: tuple[float, float], most: int
) -> FormFitters:
    """The forms for one map size and band, in at most `most` bins, prepared once and kept.

    >>> fitters_of(28, 28, "sine", (0.0, 0.5), 10).rings.n_bins
    10
    """
    return FormFitters(FormRings(height, width, edges, band, most))
