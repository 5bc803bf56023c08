"""The names of the edge treatments, apart from what they compute: the command line loads no numpy.

What each of them does is said, and done, in :mod:`natstats.spectra.edges`.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["EDGES", "Edges"]

Edges = Literal["sine", "hann", "none", "periodic"]
"""The same names for type checkers."""

EDGES = ("sine", "hann", "none", "periodic")
"""The names of the edge treatments, the default first."""
