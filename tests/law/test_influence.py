"""What the trend hangs on: without a layer the fit is that of the others, and no other."""

from __future__ import annotations

import numpy as np
import pytest

from natstats.law.influence import leave_out
from natstats.law.law import fit_law
from natstats.law.trend import outcome_of, usable_layers

N = 14
DEPTH = np.arange(1.0, N + 1)
LABELS = ["28"] * 8 + ["14"] * 6
NAMES = [f"block.{place}" for place in range(N)]
DEVIATIONS = 0.01 * np.random.default_rng(1).standard_normal((40, N))
RISING = 1 + 0.1 * DEPTH + 0.05 * np.random.default_rng(2).standard_normal(N)


def layers_of(exponent):
    return usable_layers(DEPTH, exponent, DEVIATIONS, LABELS, NAMES)


def mask(*places):
    return np.isin(np.arange(N), places)


def test_it_is_the_law_of_the_layers_that_remain():
    groups = {
        ("layer", "block.3"): mask(3),
        ("stage", "the 6 layers with maps of 14"): mask(*range(8, 14)),
        ("kind", "the 7 act layers"): mask(*range(1, 14, 2)),
    }
    found = leave_out(layers_of(RISING), groups, "rises")
    assert [(one.what, one.name) for one in found] == list(groups)
    for one, left in zip(found, groups.values(), strict=True):
        keep = ~left
        law = fit_law(
            DEPTH[keep], RISING[keep], DEVIATIONS[:, keep],
            [label for label, use in zip(LABELS, keep, strict=True) if use],
        )  # fmt: skip
        assert one.n_layers == law.n_layers == keep.sum()
        numbers = (law.slope, law.trend_p, law.rank_p)
        assert (one.slope, one.p, one.rank_p) == pytest.approx(numbers)
        assert one.outcome == outcome_of(*numbers)
        assert one.is_changed == (one.outcome != "rises")


def test_a_layer_that_hides_a_rise_is_found():
    """The last layer writes the output, far below: without it, and only without it, all rises."""
    exponent = RISING.copy()
    exponent[-1] = -4.0
    groups = {("layer", name): mask(place) for place, name in enumerate(NAMES)}
    law = fit_law(DEPTH, exponent, DEVIATIONS, LABELS)
    outcome = outcome_of(law.slope, law.trend_p, law.rank_p)
    assert outcome == "no trend"
    found = leave_out(layers_of(exponent), groups, outcome)
    assert [one.name for one in found if one.is_changed] == ["block.13"]
    assert found[-1].outcome == "rises"


def test_a_clear_rise_hangs_on_no_single_layer():
    groups = {("layer", name): mask(place) for place, name in enumerate(NAMES)}
    found = leave_out(layers_of(RISING), groups, "rises")
    assert len(found) == N
    assert not any(one.is_changed for one in found)


@pytest.mark.parametrize(
    ("left", "is_fitted"),
    [(range(9), True), (range(10), False), ([*range(2, 14)], False), ([], True)],
)
def test_what_leaves_too_few_layers_is_passed_over(left, is_fitted):
    found = leave_out(layers_of(RISING), {("kind", "some"): mask(*left)}, "rises")
    assert bool(found) == is_fitted


def test_what_leaves_too_few_depths_is_passed_over():
    depth = np.array([1.0] * 6 + [2.0] * 6 + [3.0, 3.0])
    layers = usable_layers(depth, RISING, DEVIATIONS, LABELS, NAMES)
    assert leave_out(layers, {("kind", "deep"): mask(12, 13)}, "rises") == []
    assert len(leave_out(layers, {("layer", "one"): mask(12)}, "rises")) == 1
