"""What Akaike's criterion, corrected for small samples, adds for the parameters of a model."""

from __future__ import annotations

import math

__all__ = ["aicc_charge"]


def aicc_charge(n_parameters: int, n: int) -> float:
    """What AICc adds to -2 log L: 2 k + 2 k (k + 1) / (n - k - 1) (Hurvich and Tsai 1989).

    Args:
        n_parameters: k, with those of the scatter.
        n: number of points that were fitted.

    Returns:
        The charge; infinite where the points are too few, n <= k + 1, so that such a model is never
        the best.

    >>> aicc_charge(2, 10), aicc_charge(2, 3)
    (5.714285714285714, inf)
    """
    spare = n - n_parameters - 1
    return 2 * n_parameters * (1 + (n_parameters + 1) / spare) if spare > 0 else math.inf
