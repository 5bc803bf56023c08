"""The charge of AICc, as another program has it, and with too few points.

What comparisons make of the latter is in test_forms.py (infinite) and tests/law/test_shapes.py
(NaN, as it is in the tables).
"""

from __future__ import annotations

import math

import pytest
from statsmodels.tools.eval_measures import aicc

from natstats.fits.aicc import aicc_charge


@pytest.mark.parametrize(("n_parameters", "n"), [(1, 3), (3, 10), (7, 9), (4, 1000)])
def test_it_is_what_another_program_adds_to_the_likelihood(n_parameters, n):
    added = aicc(-12.5, n, n_parameters) - 2 * 12.5
    assert aicc_charge(n_parameters, n) == pytest.approx(added)


@pytest.mark.parametrize(("n_parameters", "n"), [(1, 2), (4, 5), (4, 3), (2, 0)])
def test_too_few_points_cost_more_than_any_likelihood_gains(n_parameters, n):
    assert math.isinf(aicc_charge(n_parameters, n))
    assert aicc_charge(n_parameters, n) > 0
