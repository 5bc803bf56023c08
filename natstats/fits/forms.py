"""The forms that a spectrum could have: a power law, and others that it is compared with.

    power law   A T_b(alpha)
    floor       A T_b(alpha) + B T_b(0),  B >= 0: a power law over white noise
    cut-off     A T_b(alpha) exp(-f / f_c): a power law that blur brings down
    broken      A T_b(alpha) max(1, f / f_0)^(alpha - beta): exponent alpha below f_0, beta above

T_b is the expected spectrum of a finite crop (:mod:`natstats.spectra.expected`). The first two
forms are exact: the spectrum of a sum of independent fields is the sum of theirs. In the other two
T_b is multiplied by the ratio of the form to f^-alpha at the frequency of the ring, which is an
approximation: the leakage is still that of the plain law.

To add a form, add a record to :data:`FORMS`: the comparison
(:mod:`natstats.fits.form_comparison`), its table and the page of a run read it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natstats.fits.form_rings import FormRings
from natstats.spectra.expected import EXPONENT_RANGE

__all__ = ["FORMS", "PLAIN", "Form", "Search", "flag_meanings"]

Array = NDArray[np.float64]

Model = Callable[..., tuple[Array, tuple[Array, ...]]]
"""From the rings and all parameters but the amplitude, (...) each, to log power in the rings,
(..., n), up to a constant, and its derivative in each parameter."""


@dataclass(frozen=True, eq=False)
class Search:
    """Where the parameters of a form are looked for.

    Attributes:
        low: smallest value of each parameter.
        high: largest value of each parameter.
        starts: values of each parameter; all combinations of them are tried first.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    starts: tuple[Array, ...]


@dataclass(frozen=True, eq=False)
class Form:
    """A form that the spectrum of a layer could have.

    Attributes:
        name: what tables call it.
        columns: columns of its exponent and its other parameters in ``forms.csv``.
        model: log power as a function of the parameters, the exponent first.
        search: where the parameters are looked for, given the rings.
        parameters: from the fitted parameters to what is reported beside the exponent, by name, in
            the order of `columns`.
        flag: what a layer is flagged with where this form is clearly better than a power law;
            empty for the power law itself.
        meaning: what the flag means.
    """

    name: str
    columns: tuple[str, ...]
    model: Model
    search: Callable[[FormRings], Search]
    parameters: Callable[[Array], dict[str, float]]
    flag: str = ""
    meaning: str = ""

    @property
    def tail(self) -> str:
        """End of the names of the columns that every form has, such as ``aicc_cut_off``."""
        return self.name.replace(" ", "_").replace("-", "_")


LOW, HIGH = EXPONENT_RANGE[0] + 0.01, EXPONENT_RANGE[1] - 0.01
"""Exponents between which forms are fitted."""

ALPHAS = np.arange(-2.75, 5.9, 0.25)
"""Exponents from which the fits start."""


def _power_law(rings: FormRings, alpha: Array) -> tuple[Array, tuple[Array, ...]]:
    return rings.expected(alpha), (rings.expected(alpha, 1),)


def _floor(rings: FormRings, alpha: Array, share: Array) -> tuple[Array, tuple[Array, ...]]:
    """`share` is that of the floor in the highest ring of the band."""
    law, slope = rings.expected(alpha), rings.expected(alpha, 1)
    law, slope = np.exp(law - law[..., -1:]), slope - slope[..., -1:]
    white = rings.expected(0.0)
    white = np.exp(white - white[-1])
    share = np.asarray(share)[..., None]
    total = (1 - share) * law + share * white
    return np.log(total), ((1 - share) * law * slope / total, (white - law) / total)


def _cut_off(rings: FormRings, alpha: Array, rate: Array) -> tuple[Array, tuple[Array, ...]]:
    """`rate` is one over the cut-off frequency."""
    law, slope = rings.expected(alpha), rings.expected(alpha, 1)
    return law - np.asarray(rate)[..., None] * rings.frequency, (slope, -rings.frequency)


def _broken(
    rings: FormRings, alpha: Array, change: Array, log_break: Array
) -> tuple[Array, tuple[Array, ...]]:
    """`change` is that of the exponent at the break."""
    law, slope = rings.expected(alpha), rings.expected(alpha, 1)
    above = np.maximum(rings.log_frequency - np.asarray(log_break)[..., None], 0.0)
    change = np.asarray(change)[..., None]
    return law - change * above, (slope, -above, change * (above > 0))


def _broken_search(rings: FormRings) -> Search:
    middles = rings.middles
    changes = np.array([-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0])
    breaks = 0.5 * (middles[1:-2] + middles[2:-1])
    low, high = (LOW, -12.0, middles[1]), (HIGH, 12.0, middles[-2])
    return Search(low, high, (ALPHAS, changes, breaks))


def _cut_off_frequency(rate: float) -> float:
    """Infinite where there is none."""
    return 1 / rate if rate > 1e-3 else np.inf


FORMS = {
    one.name: one
    for one in (
        Form(
            name="power law",
            columns=("exponent_power_law",),
            model=_power_law,
            search=lambda rings: Search((LOW,), (HIGH,), (ALPHAS,)),
            parameters=lambda found: {},
        ),
        Form(
            name="floor",
            columns=("exponent_floor", "floor_share"),
            model=_floor,
            search=lambda rings: Search(
                (0.01, 0.0),
                (HIGH, 0.999),
                (ALPHAS[ALPHAS > 0], np.array([0.03, 0.1, 0.3, 0.5, 0.7, 0.9])),
            ),
            parameters=lambda found: {"share": float(found[1])},
            flag="better with a floor",
            meaning="not a plain power law: one over white noise is clearly better",
        ),
        Form(
            name="cut-off",
            columns=("exponent_cut_off", "cut_off_frequency"),
            model=_cut_off,
            search=lambda rings: Search(
                (LOW, 0.0), (HIGH, 100.0), (ALPHAS, np.array([0.3, 1.0, 2.0, 4.0, 8.0, 16.0]))
            ),
            parameters=lambda found: {"frequency": _cut_off_frequency(float(found[1]))},
            flag="better with a cut-off",
            meaning="not a plain power law: one that falls off exponentially is better",
        ),
        Form(
            name="broken",
            columns=("exponent_below_break", "break_frequency", "exponent_above_break"),
            model=_broken,
            search=_broken_search,
            parameters=lambda found: {
                "frequency": float(np.exp(found[2])),
                "above": float(found[0]) + float(found[1]),
            },
            flag="better with a break",
            meaning="not a plain power law: two exponents with a break are clearly better",
        ),
    )
}
"""The forms by name, the power law first."""

PLAIN = FORMS["power law"]
"""What the others are compared with."""


def flag_meanings() -> dict[str, str]:
    """The flags of all forms with their meanings.

    >>> list(flag_meanings())
    ['better with a floor', 'better with a cut-off', 'better with a break']
    """
    return {form.flag: form.meaning for form in FORMS.values() if form.flag}
