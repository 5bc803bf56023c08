"""What is done about the edges of a map before it is transformed.

A map is a finite crop: its left and right edges do not fit together, and the jump leaks power from
the low frequencies, where there is much, to the high ones, where there is little. The treatments:

* ``sine`` (default): w(t) = sin(pi (t + 1/2) / n) along each axis, weighted mean removed first;
* ``hann``: w(t) = sin^2(pi (t + 1/2) / n), weighted mean removed first;
* ``none``: the mean removed, nothing else;
* ``periodic``: the periodic component of Moisan (2011), the map less a smooth part that takes up
  the jumps at its border.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from natstats.spectra.edge_names import EDGES

__all__ = ["EDGES", "axis_taper", "boundary_laplacian"]


def axis_taper(n: int, edges: str) -> NDArray[np.float64]:
    """Weights of the taper along an axis of `n` pixels, (n,); ones where there is no taper.

    >>> axis_taper(4, "sine").round(3)
    array([0.383, 0.924, 0.924, 0.383])
    >>> axis_taper(3, "none")
    array([1., 1., 1.])
    """
    phase = np.pi * (np.arange(n) + 0.5) / n
    if edges == "sine":
        weights: NDArray[np.float64] = np.sin(phase)
    elif edges == "hann":
        weights = np.sin(phase) ** 2
    else:
        weights = np.ones(n)
    return weights


def boundary_laplacian(height: int, width: int) -> NDArray[np.float64]:
    """Transform of the discrete periodic Laplacian, (H, W) in FFT order, 1 in place of 0 at DC.

    The smooth component of Moisan (2011), "Periodic plus smooth image decomposition", JMIV 39,
    is the transform of the border jumps divided by this.
    """
    laplacian: NDArray[np.float64] = (
        2 * np.cos(2 * np.pi * np.fft.fftfreq(height))[:, None]
        + 2 * np.cos(2 * np.pi * np.fft.fftfreq(width))[None, :]
        - 4
    )
    laplacian[0, 0] = 1.0
    return laplacian
