"""The names of the edge treatments, kept apart so that the command line need not load numpy.

What each of them does is described and computed in :mod:`natstats.spectra.edges`.
"""

from __future__ import annotations

from typing import Literal

__all__ = ["EDGES", "Edges"]

Edges = Literal["sine", "hann", "none", "periodic"]
"""The names of the edge treatments for type checkers."""

EDGES = ("sine", "hann", "none", "periodic")
"""The names of the edge treatments, the default first."""
