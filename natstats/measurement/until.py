"""When enough images were measured: every layer's interval is narrow enough.

Each look at the intervals is a chance to stop on one that is narrow by luck, and so to stop where
it misses the truth. So looks are few and far between, the first is late, and the next one is when
the intervals should be clearly narrow enough, as the width falls with the square root of the number
of images: most measurements end with the second or third look. What is left of the favour is made
up for: intervals are a tenth wider than of a number of images that was fixed
(:data:`natstats.fits.intervals.STOPPED`). How often an interval at which a measurement has stopped
still holds the truth is simulated in ``analyses/until_coverage.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from natstats.fits.exponents import fit_layers
from natstats.fits.options import FitOptions
from natstats.numbers import short
from natstats.spectra.records import LayerSpectrum

__all__ = ["FIRST_LOOK", "Until", "fit_until", "next_look", "widest"]

FIRST_LOOK = 128
"""Images before the first look: of fewer, the width of an interval says little."""

_MORE = 1.6
"""Times the images that should be enough, so that the next look ends it as a rule."""

_LEAST, _MOST = 2.0, 4.0
"""Times the images so far that there are at the next look."""


def fit_until(fit: FitOptions | None, wanted: float | None) -> FitOptions:
    """How to fit where images are measured until intervals are narrow enough, or all of them.

    Args:
        fit: how to fit; the defaults where it is None.
        wanted: width of the widest interval; None where all images are measured.

    >>> fit_until(None, 0.1).stopped, fit_until(FitOptions(stopped=True), None).stopped
    (True, False)
    """
    return replace(fit or FitOptions(), stopped=wanted is not None)


def widest(spectra: Sequence[LayerSpectrum], fit: FitOptions) -> tuple[float, str]:
    """Width of the widest interval of all layers that have one, and the name of the layer.

    Args:
        spectra: of the layers, the images among them.
        fit: how they are fitted.
    """
    fits = fit_layers(spectra, fit, is_brief=True).layers
    widths = np.array([one.high - one.low for one in fits])
    if not np.isfinite(widths).any():
        return np.nan, ""
    place = int(np.nanargmax(widths))
    return float(widths[place]), spectra[place].layer.name


def next_look(n_images: int, width: float, wanted: float) -> int:
    """Images before the next look.

    Args:
        n_images: images so far.
        width: of the widest interval now; NaN where there is none yet.
        wanted: the width that is wanted.

    >>> next_look(100, 0.15, 0.1), next_look(100, 0.101, 0.1), next_look(100, 5.0, 0.1)
    (360, 200, 400)
    """
    factor = _MORE * (width / wanted) ** 2 if np.isfinite(width) else 2.0
    return int(np.ceil(n_images * min(max(factor, _LEAST), _MOST)))


@dataclass
class Until:
    """Tells whether enough images were measured.

    Attributes:
        wanted: width that no layer's interval may exceed.
        fit: how layers are fitted.
        next: images before the next look.
        width: of the widest interval at the last look; NaN before.
        layer: whose it was.
    """

    wanted: float
    fit: FitOptions
    next: int = FIRST_LOOK
    width: float = float("nan")
    layer: str = ""

    def is_reached(self, n_images: int, spectra: Sequence[LayerSpectrum]) -> bool:
        """Look at the intervals.

        Args:
            n_images: images so far.
            spectra: of the layers, the images among them.
        """
        self.width, self.layer = widest(spectra, self.fit)
        self.next = next_look(n_images, self.width, self.wanted)
        return bool(self.width <= self.wanted)

    def sentence(self, n_images: int, n_all: int | None) -> str:
        """What came of it, in words.

        Args:
            n_images: images that were measured.
            n_all: images that there are; None where that is not known.
        """
        of_all = "" if n_all is None else f"of {n_all} "
        if self.width <= self.wanted:
            return (
                f"no interval is wider than {short(self.wanted)} after {n_images} {of_all}images "
                f"(the widest is {short(self.width, 3)}, of {self.layer})"
            )
        n_all = n_images if n_all is None else n_all
        return (
            f"the interval of {self.layer} is {short(self.width, 3)} wide after all {n_all} "
            f"images, where {short(self.wanted)} was asked for"
        )
