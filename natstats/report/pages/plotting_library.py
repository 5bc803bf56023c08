"""The plotting library that pages carry: plotly.js (basic bundle, MIT licence), as published.

It is compressed to a third of its size, both in the package and inside a page, whose script
decompresses it. ``natstats/report/plotly`` holds the file as npm has it, gzipped, and its licence.
"""

from __future__ import annotations

import base64
from functools import cache
from pathlib import Path

__all__ = ["LIBRARY", "VERSION", "packed_library"]

VERSION = "4.1.1"

LIBRARY = Path(__file__).parents[1] / "plotly" / f"plotly-basic-{VERSION}.min.js.gz"


@cache
def packed_library() -> str:
    """The gzipped library in base64, as a page holds it.

    >>> packed_library()[:4]
    'H4sI'
    """
    return base64.b64encode(LIBRARY.read_bytes()).decode("ascii")
