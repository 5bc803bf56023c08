"""Several exponents of the same layers on one design: the same numbers as one by one."""

from __future__ import annotations

import numpy as np
import pytest

from natstats.law.regression import Design, LayerErrors, regress_together
from natstats.law.trend import rank_p, rank_ps

RNG = np.random.default_rng(3)
DEPTH = np.arange(1.0, 19.0)
LINE = np.column_stack([np.ones(18), DEPTH])
STAGES = ["56"] * 7 + ["28"] * 6 + ["14"] * 5
SEVERAL = [
    LayerErrors(
        0.04 * DEPTH + RNG.standard_normal(18),
        size * RNG.standard_normal((n_groups, 18)) / np.sqrt(n_groups),
    )
    for size, n_groups in [(1e-6, 40), (0.1, 40), (0.3, 12), (5.0, 40)]
]


@pytest.mark.parametrize("stages", [STAGES, None])
@pytest.mark.parametrize("nuggets", [None, [0.4, 0.0, 0.4, 3.2]])
def test_several_exponents_at_once_are_regressed_as_each_by_itself(stages, nuggets):
    design = Design(LINE, DEPTH, stages)
    together = regress_together(design, SEVERAL, nuggets)
    for place, (one, found) in enumerate(zip(SEVERAL, together, strict=True)):
        alone = one.regress(design, None if nuggets is None else nuggets[place])
        for name, values in vars(alone).items():
            least = 1e-12 * np.abs(values).max()
            np.testing.assert_allclose(getattr(found, name), values, rtol=1e-9, atol=least)


def test_the_tests_by_ranks_are_those_of_each_by_itself():
    design = Design(LINE, DEPTH, STAGES)
    alone = [rank_p(one, design) for one in SEVERAL]
    np.testing.assert_allclose(rank_ps(SEVERAL, design), alone, rtol=1e-10)
