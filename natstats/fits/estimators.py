"""The estimators: from the ring power of many spectra of one map size to their exponents.

They read ring power S_b at ring frequencies f_b:

* ``octave`` (default): the slope of log S_b against log f_b with weights 1 / f_b, so that every
  octave counts the same, turned into alpha by the slope that the expected spectrum T_b(alpha) of
  :mod:`natstats.spectra.expected` has under the same weights. Unbiased for an ideal field of finite
  size.
* ``whittle``: the alpha that maximises the debiased Gamma likelihood
  -sum_b m_b (S_b / (A T_b(alpha)) + log A T_b(alpha)) / 2, m_b the independent modes of the ring
  (:func:`natstats.spectra.expected.independent_modes`), A profiled out. Efficient when the power
  law is exact, and the least biased for single images.
* ``ols``: minus the slope of the straight line through (log f_b, log S_b), with equal weights for
  all rings and without correction, as in most papers.

To add an estimator, add a record to :data:`ESTIMATORS`: the options, the command line, the tables
and the page of a run read it from there. numpy is imported inside the functions, since the command
line needs the names before there is anything to compute. The functions work with
:class:`natstats.fits.rings_in_band.RingsInBand`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from natstats.fits.rings_in_band import RingsInBand

    Array = NDArray[np.float64]

__all__ = ["ESTIMATORS", "Estimator"]

RESOLVABLE = 0.5
"""An exponent is beyond range where the measured slope follows it by less than this factor."""


@dataclass(frozen=True)
class Estimator:
    """An estimator of the exponent.

    Attributes:
        name: what options, tables and the command line call it.
        meaning: what it does, in words that go on after its name.
        estimate: alpha (R,) of a band and ring power in it, (R, n).
        gradient: derivative (R, n) of the estimates in the log of every ring's power, of a band,
            ring power (R, n) and the estimates (R,).
        log_shape: log power that it expects in the rings of a band for alpha, up to a constant:
            (n,) for a number, (R, n) for (R,).
        is_resolvable: whether the spectrum of a band tells an alpha from others; None for an
            estimator that does not allow for the finite map, and whose range is not known.
    """

    name: str
    meaning: str
    estimate: Callable[[RingsInBand, Array], Array]
    gradient: Callable[[RingsInBand, Array, Array], Array]
    log_shape: Callable[[RingsInBand, Array | float], Array]
    is_resolvable: Callable[[RingsInBand, float], bool] | None = None

    @property
    def column(self) -> str:
        """Its column in ``layers.csv``."""
        return f"exponent_{self.name}"


def _expected(band: RingsInBand, alpha: Array | float) -> Array:
    return band.log_expected_power(alpha)


def _octave(band: RingsInBand, power: Array) -> Array:
    import numpy as np

    return np.interp(-np.log(power) @ band.octave_contrast, *band.inverse)


def _octave_gradient(band: RingsInBand, power: Array, alpha: Array) -> Array:
    import numpy as np

    return -band.octave_contrast / np.interp(alpha, band.grid, band.follows)[:, None]


def _octave_resolves(band: RingsInBand, alpha: float) -> bool:
    """True where the slope still follows alpha, and no other alpha has the same slope."""
    import numpy as np

    place = int(np.searchsorted(band.grid, alpha))
    is_single = bool(band.is_single[place - 1 : place + 1].all())
    return is_single and float(np.interp(alpha, band.grid, band.follows)) >= RESOLVABLE


def _whittle(band: RingsInBand, power: Array) -> Array:
    import numpy as np

    grid = band.grid
    share = band.modes / band.modes.sum()
    power = power / np.exp(np.log(power) @ share)[:, None]
    # -log likelihood per mode with A profiled out, up to constants, on the grid.
    objective = np.log(power @ band.likelihood_weights.T)
    lowest = objective.argmin(axis=1)
    best = np.clip(lowest, 1, len(grid) - 2)
    rows = np.arange(len(power))
    left, middle, right = (objective[rows, best + step] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.where(bend > 0, 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    refined = grid[best] + np.clip(shift, -1, 1) * (grid[1] - grid[0])
    return np.asarray(np.where(lowest == best, refined, grid[lowest]))


def _whittle_gradient(band: RingsInBand, power: Array, alpha: Array) -> Array:
    import numpy as np

    grid = band.grid
    # Between two rows of the table a line is exact enough, and many times faster.
    place = np.clip((alpha - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1.001)
    below = place.astype(np.intp)
    rise = band.log_expected[below + 1] - band.log_expected[below]
    expected = band.log_expected[below] + (place - below)[:, None] * rise
    slope = rise / (grid[1] - grid[0])
    share = band.modes * power / np.exp(expected)
    share /= share.sum(axis=1, keepdims=True)
    # The score of the profiled likelihood is sum_b (m_b - share_b) dlog T_b / dalpha.
    centred = slope - np.sum(share * slope, axis=1, keepdims=True)
    information = np.sum(share * centred**2, axis=1, keepdims=True)
    return np.asarray(share * centred / information)


def _whittle_resolves(band: RingsInBand, alpha: float) -> bool:
    """True where the spectrum still follows alpha, over all modes."""
    import numpy as np

    share = band.modes / band.modes.sum()
    slope = band.log_expected_slope(alpha)
    ideal, found = (share @ (y - share @ y) ** 2 for y in (band.log_frequency, slope))
    return bool(np.sqrt(found / ideal) >= RESOLVABLE)


def _ols(band: RingsInBand, power: Array) -> Array:
    import numpy as np

    return np.asarray(-np.log(power) @ band.straight_contrast)


def _ols_gradient(band: RingsInBand, power: Array, alpha: Array) -> Array:
    import numpy as np

    return np.broadcast_to(-band.straight_contrast, power.shape)


def _ols_shape(band: RingsInBand, alpha: Array | float) -> Array:
    import numpy as np

    return -np.asarray(alpha)[..., None] * band.log_frequency


ESTIMATORS = {
    one.name: one
    for one in (
        Estimator(
            name="octave",
            meaning="the slope with every octave the same, corrected for the finite map",
            estimate=_octave,
            gradient=_octave_gradient,
            log_shape=_expected,
            is_resolvable=_octave_resolves,
        ),
        Estimator(
            name="whittle",
            meaning="the most likely exponent, every independent mode the same",
            estimate=_whittle,
            gradient=_whittle_gradient,
            log_shape=_expected,
            is_resolvable=_whittle_resolves,
        ),
        Estimator(
            name="ols",
            meaning="the straight line of most papers, every ring the same and no correction",
            estimate=_ols,
            gradient=_ols_gradient,
            log_shape=_ols_shape,
        ),
    )
}
"""The estimators by name, the default first."""
