"""When enough images were measured: every layer's interval is narrow enough.

Each look at the intervals is a chance to stop at one that is narrow by luck and misses the true
value. So there are few looks: the first is late, and the next one comes when the intervals should
be clearly narrow enough, as the width falls with the square root of the number of images. Most
measurements end with the second or third look. The rest of this effect is corrected: where images
were left, intervals are a tenth wider than for a fixed number of images
(:data:`natstats.fits.intervals.STOPPED`). How often an interval at which a measurement has stopped
still holds the true value is simulated in ``analyses/until_coverage.py``.

When to look depends on the looks before, which are kept with the sums: a measurement that was
interrupted looks after the same images as one that was not, and stops at the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from natstats.fits.exponents import fit_layers
from natstats.fits.options import FitOptions
from natstats.numbers import short
from natstats.runs.run import Run
from natstats.spectra.records import LayerSpectrum

__all__ = ["FIRST_LOOK", "Look", "Until", "next_look", "widest"]

FIRST_LOOK = 128
"""Images before the first look: with fewer, the width of an interval is too uncertain."""

_MORE = 1.6
"""Factor on the images that should be enough, so that the next look is usually the last."""

_LEAST, _MOST = 2.0, 4.0
"""Least and largest factor from the images so far to those at the next look."""


class Look(NamedTuple):
    """What a look at the intervals has found.

    Attributes:
        n_images: images by then.
        width: of the widest interval; NaN where there was none.
        layer: the layer that has it.
    """

    n_images: int
    width: float
    layer: str


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
        wanted: width that no layer's interval may exceed, including what is added for stopping.
        fit: how layers are fitted.
        least: fewest images, as others were measured on so many.
        first: images before the first look.
        next: images before the next look.
        look: the last one; None before.
    """

    wanted: float
    fit: FitOptions
    least: int = 0
    first: int = FIRST_LOOK
    next: int = 0
    look: Look | None = None

    def __post_init__(self) -> None:
        self.fit = replace(self.fit, stopped=True)
        self.take_up(self.look)

    def take_up(self, look: Look | None) -> None:
        """Go on from the last look, which may have been for another width.

        Args:
            look: of an earlier sitting, or of another process.
        """
        self.look = look
        if look is None:
            self.next = max(self.first, self.least)
        elif look.width <= self.wanted:
            self.next = max(look.n_images, self.least)
        else:
            self.next = max(next_look(look.n_images, look.width, self.wanted), self.least)

    def is_enough(self, n_images: int) -> bool:
        """Whether the last look found that so many images are enough.

        Args:
            n_images: images so far; fewer than at the look where the last of them were lost, and
                are measured again.
        """
        look = self.look
        if look is None or look.n_images < self.least:
            return False
        if n_images < look.n_images:
            self.next = look.n_images
            return False
        return bool(look.width <= self.wanted)

    def is_reached(self, n_images: int, spectra: Sequence[LayerSpectrum]) -> bool:
        """Look at the intervals, and return whether they are narrow enough.

        Args:
            n_images: images so far.
            spectra: of the layers, the images among them.
        """
        self.take_up(Look(n_images, *widest(spectra, self.fit)))
        return self.is_enough(n_images)

    def note_in(self, run: Run) -> None:
        """Add a note to a run that says whether its intervals are as narrow as was asked for."""
        images = run.info["images"]
        look = Look(images["n_images"], *widest(run.spectra, run.options))
        run.info["warnings"].append(self.sentence(look, images["n_in_set"]))

    def sentence(self, look: Look, n_all: int | None) -> str:
        """Whether the intervals became narrow enough, in words.

        Args:
            look: at the intervals of the run.
            n_all: images that there are; None where that is not known.
        """
        of_all = "" if n_all is None else f"of {n_all} "
        if look.width <= self.wanted:
            return (
                f"no interval is wider than {short(self.wanted)} after {look.n_images} {of_all}"
                f"images (the widest is {short(look.width, 3)}, of {look.layer})"
            )
        n_all = look.n_images if n_all is None else n_all
        if not look.layer:
            return f"no layer has an interval after all {n_all} images"
        return (
            f"the interval of {look.layer} is {short(look.width, 3)} wide after all {n_all} "
            f"images, where {short(self.wanted)} was asked for"
        )
