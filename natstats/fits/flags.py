"""What the fit of a layer may be flagged with, and what each flag means.

Flags of forms that fit better than a power law are with their forms, see
:mod:`natstats.fits.forms`.
"""

from __future__ import annotations

__all__ = ["FIT_FLAGS", "LAYOUT_FLAGS", "OWN_OUTPUT", "is_known"]

OWN_OUTPUT = "own output"
"""Flag of what the network returns, see :mod:`natstats.activations.own_output`."""

FIT_FLAGS = {
    "few rings": "fewer than four frequencies carry the fit; two of them decide the slope",
    "few images": "at most 16 images; a 95 % interval then covers the truth in 90 to 95 % of cases",
    "beyond range": "the measured slope hardly follows the exponent here; not part of the law",
    "outer scale": "so steep that waves far longer than the map, of unknown power, decide",
    "constant": "the maps do not vary beyond rounding, so there is no exponent",
    "non-finite": "some images gave values that are not finite and were left out here",
    "few groups": "at most 16 groups of images; the interval may be too narrow",
    "few images decide": "a few images have most of the power, and the interval rests on them",
    "images do not differ": "every image gives the same, so the interval says nothing",
    "too few groups for the bootstrap": "too many resamples have no spread; use the jackknife",
    "no images": "no image gave finite values",
    "too few images": "an interval takes three images at least, and so does an exponent",
    "too few groups": "an interval takes three groups of images at least",
    "power from one group only": "without that group nothing is left to resample",
    "band not in this map": "the maps are too coarse for the band, or show too little of the image",
    "too few rings in band": "the band leaves fewer frequencies at this map size than asked for",
    "no power in a ring": "the power is zero at some frequency, so it has no logarithm",
}
"""Meaning of every flag of a fit; counts may follow a flag in parentheses."""

LAYOUT_FLAGS = {
    "quantized": "the maps were turned back from whole numbers, whose steps add noise",
    "regions": "maps of the regions that a detector found; an image is the mean over its regions",
    OWN_OUTPUT: "what the network returns, not an activation: no weight layer and no nonlinearity "
    "follows; by itself not part of the law",
    "layout by rule": "where the maps are was taken from shapes; changing the image proved nothing",
}
"""Meaning of the flags that come from the layout of a layer, and from its place in the network."""


def is_known(flag: str) -> bool:
    """Whether a flag is in the table.

    >>> is_known("non-finite (3 images left out)"), is_known("odd")
    (True, False)
    """
    return flag.partition(" (")[0] in FIT_FLAGS
