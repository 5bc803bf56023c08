"""The names of the edge treatments, apart from what they compute: the command line loads no numpy.

What each of them does is said, and done, in :mod:`natstats.spectra.edges`.
"""

from __future__ import annotations

__all__ = ["EDGES"]

EDGES = ("sine", "hann", "none", "periodic")
"""The names of the edge treatments, the default first."""
