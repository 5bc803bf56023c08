"""The description of one network: a plain line, and intervals for other images alone."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy import stats

from natstats.fits.intervals import effective_dof
from natstats.law.description import MOST_DEPARTURES, Description, describe
from natstats.law.law import fit_law
from natstats.law.regression import LayerErrors
from natstats.law.shapes import compare_shapes
from natstats.runs.store import to_json

N = 20
RNG = np.random.default_rng(0)
DEPTH = np.arange(1.0, N + 1)
EXPONENT = 1 + 0.05 * DEPTH + 0.2 * RNG.standard_normal(N)
DEVIATIONS = 0.01 * (RNG.standard_normal((50, N)) + RNG.standard_normal((50, 1)))
LABELS = ["28"] * 10 + ["14"] * 10
NAMES = [f"block.{place}" for place in range(N)]


def described(exponent=EXPONENT, depth=DEPTH, names=NAMES, level=0.95):
    errors = LayerErrors(exponent, DEVIATIONS[:, : len(depth)])
    shapes = compare_shapes(errors, depth, LABELS[: len(depth)])
    return describe(errors, depth, shapes, names, level)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_slope_is_that_of_least_squares_with_the_errors_of_images(level):
    """Every group left out gives a slope of its own: its deviations are those of the slope."""
    found, line = described(level=level), stats.linregress(DEPTH, EXPONENT)
    assert found.slope == pytest.approx(line.slope)
    assert found.line_share == pytest.approx(line.rvalue**2)
    moved = [stats.linregress(DEPTH, EXPONENT + one).slope - line.slope for one in DEVIATIONS]
    dof = float(effective_dof(np.array(moved)))
    reach = stats.t.ppf(0.5 + level / 2, dof) * np.sqrt(np.sum(np.square(moved)))
    assert (found.slope_low, found.slope_high) == pytest.approx(
        (found.slope - reach, found.slope + reach)
    )


def test_the_interval_of_the_description_is_narrower_than_that_of_the_law():
    law = fit_law(DEPTH, EXPONENT, DEVIATIONS, LABELS, names=NAMES)
    own = law.network.slope_high - law.network.slope_low
    assert own < 0.3 * (law.slope_high - law.slope_low)
    assert law.network == described()


def test_departures_are_the_farthest_by_name_with_intervals():
    found, line = described(), stats.linregress(DEPTH, EXPONENT)
    rest = EXPONENT - line.intercept - line.slope * DEPTH
    order = np.argsort(-np.abs(rest))[:MOST_DEPARTURES]
    assert [one.layer for one in found.departures] == [NAMES[place] for place in order]
    assert [one.value for one in found.departures] == pytest.approx(list(rest[order]))
    for place, one in zip(order, found.departures, strict=True):
        moved = []
        for shift in DEVIATIONS:
            other = stats.linregress(DEPTH, EXPONENT + shift)
            moved.append((EXPONENT + shift - other.intercept - other.slope * DEPTH)[place])
        moved = np.array(moved) - rest[place]
        reach = stats.t.ppf(0.975, effective_dof(moved)) * np.sqrt(np.sum(moved**2))
        assert (one.low, one.high) == pytest.approx((one.value - reach, one.value + reach))


def test_other_images_of_the_same_sort_stay_in_the_intervals():
    """Layers fixed, images drawn again: the slope of the description covers, at 95 %."""
    curve = 1 + 0.05 * DEPTH + 0.3 * np.sin(DEPTH)
    truth, hits = stats.linregress(DEPTH, curve).slope, 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        images = 0.1 * (rng.standard_normal((64, N)) + rng.standard_normal((64, 1)) * DEPTH / 10)
        left_out = (images - images.mean(0)) / np.sqrt(64 * 63)
        errors = LayerErrors(curve + images.mean(0), left_out)
        found = describe(errors, DEPTH, {}, NAMES, 0.95)
        hits += found.slope_low < truth < found.slope_high
    assert 181 <= hits <= 199  # 95 % of 200; each end has a probability below 0.003


def test_shares_of_a_line_and_of_the_best_shape():
    steps = np.repeat([1.0, 2.0], 10) + 0.01 * RNG.standard_normal(N)
    found = described(steps)
    assert found.shape == "step per resolution"
    assert found.line_share == pytest.approx(stats.linregress(DEPTH, steps).rvalue ** 2)
    assert found.shape_share > 0.999 > found.line_share
    line = described(1 + DEPTH)
    assert line.line_share == pytest.approx(1.0)
    flat = described(2 + 0.1 * np.tile([1.0, -1.0], 10))
    assert flat.shape == "constant"
    assert flat.shape_share == 0.0
    assert 0 <= flat.line_share < 0.05


def test_values_of_the_shape_come_by_depth():
    shuffled = np.random.default_rng(1).permutation(N)
    errors = LayerErrors(EXPONENT[shuffled], DEVIATIONS[:, shuffled])
    depth, labels = DEPTH[shuffled], [LABELS[place] for place in shuffled]
    found = describe(errors, depth, compare_shapes(errors, depth, labels), NAMES, 0.95)
    depths, values = np.array(found.shape_values).T
    assert depths.tolist() == sorted(DEPTH)
    plain = described()
    assert found.shape == plain.shape
    assert values == pytest.approx([y for _, y in plain.shape_values])


def test_few_layers_and_no_shape():
    found = described(EXPONENT[:3], DEPTH[:3], NAMES[:3])
    assert (found.shape, found.shape_values) == ("", ())
    assert np.isnan(found.shape_share)
    assert len(found.departures) == 3


def test_exponents_without_variance_have_no_shares():
    found = described(np.full(N, 2.0))
    assert np.isnan([found.line_share, found.shape_share]).all()
    assert found.slope == pytest.approx(0.0, abs=1e-12)


def test_it_survives_json():
    for found in (described(), described(EXPONENT[:3], DEPTH[:3], NAMES[:3])):
        again = Description.from_dict(json.loads(to_json(asdict(found))))
        assert to_json(asdict(again)) == to_json(asdict(found))
    assert Description.from_dict(asdict(described())) == described()
