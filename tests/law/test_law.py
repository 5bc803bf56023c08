"""The law: what it says of lines, curves and nothing, and that it says no when it should."""

from __future__ import annotations

import json

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

import natstats
from natstats.law.law import SHAPES, VERDICTS, Law, fit_law, format_p
from natstats.runs.store import to_json

DEPTH = np.arange(1.0, 25.0)
RESOLUTION = ["56"] * 8 + ["28"] * 8 + ["14"] * 8
GENERATOR = np.random.default_rng(0)
LOADINGS = 0.02 * GENERATOR.standard_normal((24, 5))
COVARIANCE = LOADINGS @ LOADINGS.T + 1e-4 * np.eye(24)
MANY = 2000


def deviations(covariance, n_groups=MANY, seed=1):
    """What leaving out each of many groups gives for Gaussian errors of this covariance."""
    draws = np.random.default_rng(seed).multivariate_normal(
        np.zeros(len(covariance)), covariance, n_groups
    )
    return draws / np.sqrt(n_groups)


DEVIATIONS = deviations(COVARIANCE)


def law_of(curve, seed=0, scatter=0.05):
    generator = np.random.default_rng(seed)
    noise = generator.multivariate_normal(np.zeros(24), COVARIANCE)
    exponent = curve + noise + scatter * generator.standard_normal(24)
    return fit_law(DEPTH, exponent, DEVIATIONS, RESOLUTION)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curve", "verdict"),
    [
        (1 + 0.05 * DEPTH, "linear"),
        (1 + 0.004 * DEPTH**2, "rises, not linearly"),
        (1 + 2 * (1 - np.exp(-DEPTH / 4)), "rises, not linearly"),
        (3 - 0.05 * DEPTH, "falls"),
        (2 + 0 * DEPTH, "no trend"),
    ],
)
def test_verdicts(curve, verdict):
    laws = [law_of(curve, seed) for seed in range(20)]
    assert sum(law.verdict == verdict for law in laws) >= 17
    assert all(law.verdict in VERDICTS and tuple(law.shapes) == SHAPES for law in laws)


@pytest.mark.slow
def test_flat_is_seldom_called_a_trend_and_a_line_seldom_bent():
    """Binomial bounds: at 5 %, more than 10 false alarms in 75 have a probability below 0.003."""
    flat = [law_of(2 + 0 * DEPTH, seed) for seed in range(75)]
    assert sum(law.trend_p < 0.05 for law in flat) <= 10
    line = [law_of(1 + 0.05 * DEPTH, seed) for seed in range(75)]
    assert sum(law.lack_of_fit_p < 0.05 for law in line) <= 10
    assert sum(law.slope_low < 0.05 < law.slope_high for law in line) >= 75 - 10


@pytest.mark.slow
def test_errors_that_layers_share_are_not_taken_for_a_trend():
    """A shared error whose size grows with depth tilts all layers at once, in every sample."""
    loading = np.linspace(0.05, 0.2, 24)
    covariance = np.outer(loading, loading) + 2.5e-3 * np.eye(24)
    verdicts = []
    for seed in range(60):
        draw = np.random.default_rng(seed).multivariate_normal(np.full(24, 2.0), covariance)
        verdicts.append(fit_law(DEPTH, draw, deviations(covariance), RESOLUTION).verdict)
    assert verdicts.count("no trend") >= 51


def test_few_groups_widen_the_interval_and_leave_it_undecided():
    exponent = 1 + 0.05 * DEPTH + 0.02 * GENERATOR.standard_normal(24)
    shared = np.outer(DEPTH, DEPTH) * 1e-4
    many = fit_law(DEPTH, exponent, deviations(shared, 64), RESOLUTION)
    few = fit_law(DEPTH, exponent, deviations(shared, 4), RESOLUTION)
    assert many.verdict == "linear"
    assert few.verdict == "undecided"
    assert many.dof > 22
    assert few.dof < 4


def test_without_sampling_error_it_is_ordinary_least_squares():
    exponent = 1 + 0.05 * DEPTH + 0.1 * GENERATOR.standard_normal(24)
    law = fit_law(DEPTH, exponent, 1e-6 * deviations(np.eye(24)), RESOLUTION)
    line = sm.OLS(exponent, sm.add_constant(DEPTH)).fit()
    assert law.slope == pytest.approx(line.params[1], rel=1e-4)
    assert (law.slope_low, law.slope_high) == pytest.approx(tuple(line.conf_int()[1]), rel=1e-3)
    assert law.trend_p == pytest.approx(line.pvalues[1], rel=1e-2)
    assert law.between_layer_sd == pytest.approx(np.sqrt(line.scale), rel=1e-3)


@pytest.mark.parametrize(("scale", "noise"), [(100, 1), (1, 5), (1, 0.1)])
def test_the_interval_is_that_under_the_joint_covariance(scale, noise):
    """Var(slope) = c' V c with c the weights of the least-squares slope, V = S + tau^2 I.

    With less scatter than S would have, V is S scaled to the scatter, but by no less than a half.
    """
    drawn = np.random.default_rng(5).multivariate_normal(np.zeros(24), scale * COVARIANCE)
    exponent = 1 + 0.05 * DEPTH + noise * drawn
    used = deviations(scale * COVARIANCE)
    covariance = used.T @ used
    law = fit_law(DEPTH, exponent, used, RESOLUTION)
    line = stats.linregress(DEPTH, exponent)
    assert (law.slope, law.intercept) == pytest.approx((line.slope, line.intercept))
    weights = (DEPTH - DEPTH.mean()) / np.sum((DEPTH - DEPTH.mean()) ** 2)
    residual_maker = np.eye(24) - np.polynomial.polynomial.polyvander(DEPTH, 1) @ np.linalg.pinv(
        np.polynomial.polynomial.polyvander(DEPTH, 1)
    )
    found = exponent @ residual_maker @ exponent
    expected = np.trace(residual_maker @ covariance)
    assert law.between_layer_sd**2 == pytest.approx(max(found - expected, 0) / 22)
    whole = covariance * np.clip(found / expected, 0.5, 1) + law.between_layer_sd**2 * np.eye(24)
    reach = stats.t.ppf(0.975, law.dof) * np.sqrt(weights @ whole @ weights)
    assert law.slope_high - law.slope == pytest.approx(reach)


def test_errors_shared_unequally_leave_the_line_on_the_points():
    """Peelle's puzzle: the generalised least-squares line would leave most points on one side."""
    loading = np.linspace(0.05, 0.3, 24)
    covariance = np.outer(loading, loading) + 1e-4 * np.eye(24)
    exponent = 1.5 + 0.02 * DEPTH - 1.5 * loading
    law = fit_law(DEPTH, exponent, deviations(covariance), RESOLUTION)
    middle, low, high = law.predict(DEPTH)
    assert abs((exponent - middle).mean()) < 1e-6
    assert ((low < exponent) & (exponent < high)).mean() > 0.9


@pytest.mark.slow
def test_shapes_find_the_one_that_made_the_data():
    steps = np.repeat([1.0, 2.0, 1.4], 8)
    assert law_of(steps).best_shape == "step per resolution"
    assert law_of(1 + 2 * (1 - np.exp(-DEPTH / 4))).best_shape == "saturating"
    flat = [law_of(2 + 0 * DEPTH, seed).best_shape for seed in range(9)]
    assert flat.count("constant") >= 5


def test_slope_within_resolution_leaves_out_the_steps():
    """Steps down at each resolution hide a rise inside: Simpson's paradox, and both are told."""
    curve = 0.05 * DEPTH - np.repeat([0.0, 1.0, 2.0], 8)
    law = law_of(curve, scatter=0.02)
    assert law.slope < 0
    assert law.slope_within_resolution == pytest.approx(0.05, abs=0.01)
    assert law.slope_within_resolution_low > 0


def test_rank_correlation_is_kendalls():
    exponent = 1 + 0.05 * DEPTH + 0.3 * GENERATOR.standard_normal(24)
    law = fit_law(DEPTH, exponent, DEVIATIONS, RESOLUTION)
    assert law.rank_correlation == pytest.approx(stats.kendalltau(DEPTH, exponent).statistic)


def test_without_shared_errors_p_is_the_textbook_one():
    exponent = 1 + 0.01 * DEPTH + 0.2 * GENERATOR.standard_normal(24)
    law = fit_law(DEPTH, exponent, 1e-9 * np.eye(24), RESOLUTION)
    assert law.rank_p == pytest.approx(stats.kendalltau(DEPTH, exponent).pvalue, abs=0.03)


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_layers_are_undecided_with_no_numbers(n):
    law = fit_law(DEPTH[:n], DEPTH[:n], DEVIATIONS[:, :n], RESOLUTION[:n])
    assert law.verdict == "undecided"
    assert law.n_layers == n
    assert np.isnan(law.slope)
    assert f"there are {n} layers" in law.sentence()


def test_layers_without_exponent_or_interval_are_left_out():
    exponent = 1 + 0.05 * DEPTH
    exponent[3] = np.nan
    without = DEVIATIONS.copy()
    without[:, 5], without[:, 3] = 0.0, np.nan
    law = fit_law(DEPTH, exponent, without, RESOLUTION)
    assert law.n_layers == 22
    assert law.slope == pytest.approx(0.05)


def test_the_band_is_the_interval_of_the_line():
    law = law_of(1 + 0.05 * DEPTH)
    middle, low, high = law.predict(np.array([0.0, 10.0]))
    assert middle == pytest.approx([law.intercept, law.intercept + 10 * law.slope])
    assert (low < middle).all()
    assert (middle < high).all()
    assert high[0] - low[0] > high[1] - low[1]  # depth 0 lies outside the layers


def test_a_law_survives_json():
    for law in (law_of(1 + 0.05 * DEPTH), fit_law([], [], np.zeros((0, 0)), [])):
        again = Law.from_dict(json.loads(to_json(law.to_dict())))
        assert to_json(again.to_dict()) == to_json(law.to_dict())


def test_a_broken_law_is_refused():
    with pytest.raises(natstats.UsageError, match="law: expected the fields of a law"):
        Law.from_dict({"slope": 1.0})


def test_lengths_that_differ_are_named():
    with pytest.raises(natstats.UsageError, match="expected 24 layers"):
        fit_law(DEPTH, DEPTH[:3], DEVIATIONS, RESOLUTION)


def test_the_sentence_carries_the_numbers():
    law = law_of(1 + 0.05 * DEPTH)
    for part in (f"{law.slope:+.4f}", f"{law.slope_low:+.4f}", "24 layers", law.best_shape):
        assert part in law.sentence()


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("layers", ("linearly with depth", "] per weight layer (")),
        ("order", ("the order of layers", "] per layer in order of execution (")),
        ("normalized", ("relative depth", "] over the whole depth (")),
        ("receptive-field", ("the receptive field", "] per input pixel of receptive field (")),
    ],
)
def test_the_sentence_names_the_measure_of_depth(measure, words):
    law = fit_law(DEPTH, 1 + 0.05 * DEPTH, DEVIATIONS, RESOLUTION, measure=measure)
    assert law.depth == measure
    assert all(part in law.sentence() for part in words)


def test_the_unit_of_depth_changes_the_slope_and_nothing_else():
    exponent = 1 + 0.05 * DEPTH + 0.05 * np.random.default_rng(3).standard_normal(24)
    law = fit_law(DEPTH, exponent, DEVIATIONS, RESOLUTION)
    for unit in (0.001, 24.0):
        scaled = fit_law(DEPTH / unit, exponent, DEVIATIONS, RESOLUTION)
        assert scaled.slope == pytest.approx(law.slope * unit)
        assert (scaled.verdict, scaled.rank_p) == (law.verdict, law.rank_p)
        assert scaled.lack_of_fit_p == pytest.approx(law.lack_of_fit_p)
        assert list(scaled.shapes.values()) == pytest.approx(list(law.shapes.values()))


def test_a_small_slope_does_not_read_as_zero():
    pixels = 1000 * DEPTH
    law = fit_law(pixels, 1 + 1e-5 * pixels, DEVIATIONS, RESOLUTION, measure="receptive-field")
    assert "slope +0.0000100 [+0.0000" in law.sentence()


def test_an_unknown_measure_is_refused():
    with pytest.raises(natstats.UsageError, match="measure: expected one of layers, order"):
        fit_law(DEPTH, DEPTH, DEVIATIONS, RESOLUTION, measure="width")


@pytest.mark.parametrize(
    ("p", "text"), [(0.0499, "= 0.050"), (0.00049, "< 0.001"), (0.5, "= 0.50")]
)
def test_p_values_as_words(p, text):
    assert format_p(p) == text
