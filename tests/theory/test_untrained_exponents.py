"""Exponents of a plain ReLU network with random weights, by depth."""

from __future__ import annotations

import numpy as np
import pytest

from natstats.errors import UsageError
from natstats.theory.untrained_exponents import random_exponents

# Two independent tries of the recursion on a 64 x 64 torus, fitted over 2 to 16 cycles with
# different weights, agree with these to 0.05.
DEPTHS = [0, 1, 2, 4, 8, 16, 32]
TABLE = {
    2.0: [1.96, 1.82, 1.71, 1.57, 1.39, 1.19, 0.96],
    3.0: [2.94, 2.84, 2.74, 2.56, 2.30, 2.00, 1.69],
}


@pytest.mark.parametrize("alpha", TABLE)
def test_the_table_by_depth(alpha):
    assert np.abs(random_exponents(alpha, DEPTHS) - TABLE[alpha]).max() < 0.05
    assert np.array_equal(random_exponents(alpha, 4), random_exponents(alpha, range(5)))


def test_every_layer_lowers_the_exponent_of_a_coloured_field_and_none_that_of_a_white_one():
    for alpha in (1.0, 2.0, 3.5):
        assert (np.diff(random_exponents(alpha, 12)) < 0).all()
    assert np.abs(random_exponents(0.0, 12)).max() < 1e-9


def test_finer_pixels_lose_less_in_the_same_band():
    # Neighbours are more alike, and what a rectifier takes grows with how unlike they are.
    small, large = (random_exponents(2.0, 8, size, band=(2, 16)) for size in (64, 128))
    assert abs(small[0] - large[0]) < 1e-9
    assert (large[1:] > small[1:]).all()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"alpha": float("nan"), "depth": 1}, "alpha"),
        ({"alpha": 2.0, "depth": -1}, "depth"),
        ({"alpha": 2.0, "depth": [1, -1]}, "depth"),
        ({"alpha": 2.0, "depth": 1, "size": 63}, "size"),
        ({"alpha": 2.0, "depth": 1, "size": 8}, "size"),
        ({"alpha": 2.0, "depth": 1, "band": (8, 2)}, "band"),
        ({"alpha": 2.0, "depth": 1, "band": (3.2, 3.4)}, "band"),
    ],
)
def test_mistakes_are_named(arguments, name):
    with pytest.raises(UsageError, match=rf"^{name}: expected"):
        random_exponents(**arguments)
