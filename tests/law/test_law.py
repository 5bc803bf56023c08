"""The law: what it says of lines, curves and nothing, and that it says no when it should."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

import natstats
from natstats.law.law import OPENINGS, SHAPES, VERDICTS, Law, fit_law, format_p
from natstats.law.regression import Design, LayerErrors, dummies
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


STEPS = np.repeat([1.0, 2.0, 1.4], 8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("curve", "verdict", "least"),
    [
        (1 + 0.05 * DEPTH, "linear law", 17),
        (1 + 0.004 * DEPTH**2, "rises", 17),
        (1 + 2 * (1 - np.exp(-DEPTH / 4)), "rises", 13),
        (3 - 0.05 * DEPTH, "falls", 17),
        (STEPS, "no trend", 17),
        (
            2 + 0 * DEPTH,
            "too little to tell",
            13,
        ),  # a slope of half the scatter cannot be ruled out
    ],
)
def test_verdicts(curve, verdict, least):
    laws = [law_of(curve, seed) for seed in range(20)]
    assert sum(law.verdict == verdict for law in laws) >= least
    assert all(law.verdict in VERDICTS and tuple(law.shapes) == SHAPES for law in laws)


@pytest.mark.slow
def test_flat_is_seldom_called_a_trend_and_a_line_seldom_bent():
    """Binomial bounds: at 5 %, more than 10 false alarms in 75 have a probability below 0.003."""
    flat = [law_of(2 + 0 * DEPTH, seed) for seed in range(75)]
    assert sum(law.verdict in ("linear law", "rises", "falls") for law in flat) <= 10
    assert sum(law.trend_p < 0.05 for law in flat) <= 10
    line = [law_of(1 + 0.05 * DEPTH, seed) for seed in range(75)]
    assert sum(law.lack_of_fit_p < 0.05 for law in line) <= 10
    assert sum(law.slope_low < 0.05 < law.slope_high for law in line) >= 75 - 10


@pytest.mark.slow
def test_no_trend_takes_layers_enough_to_rule_one_out():
    """It is said where no slope in the interval explains half of the variance, and only there."""
    for n, is_said in ((6, False), (120, True)):
        depth = np.arange(float(n))
        verdicts = []
        for seed in range(12):
            rng = np.random.default_rng(seed)
            noise, images = 0.3 * rng.standard_normal(n), 0.01 * rng.standard_normal((64, n))
            law = fit_law(depth, 2 + noise, images, ["28"] * n)
            verdicts.append(law.verdict)
            if law.verdict in ("no trend", "too little to tell"):
                farthest = max(-law.slope_low, law.slope_high) * np.std(depth)
                is_small = farthest**2 <= 0.5 * np.var(2 + noise)
                assert law.verdict == ("no trend" if is_small else "too little to tell")
        assert verdicts.count("no trend" if is_said else "too little to tell") >= 9


@pytest.mark.slow
def test_errors_that_layers_share_are_not_taken_for_a_trend():
    """A shared error whose size grows with depth tilts all layers at once, in every sample."""
    loading = np.linspace(0.05, 0.2, 24)
    covariance = np.outer(loading, loading) + 2.5e-3 * np.eye(24)
    verdicts = []
    for seed in range(60):
        draw = np.random.default_rng(seed).multivariate_normal(np.full(24, 2.0), covariance)
        verdicts.append(fit_law(DEPTH, draw, deviations(covariance), RESOLUTION).verdict)
    assert verdicts.count("no trend") + verdicts.count("too little to tell") >= 51


@pytest.mark.slow
def test_neighbours_that_are_alike_are_no_witnesses_of_their_own():
    """Flat exponents with phi 0.7: independent errors would call 40 % of them a trend."""
    found = 0
    for seed in range(100):
        noise = np.random.default_rng(seed).standard_normal(20)
        for place in range(1, 20):
            noise[place] = 0.7 * noise[place - 1] + np.sqrt(0.51) * noise[place]
        law = fit_law(DEPTH[:20], 2 + 0.3 * noise, 0.01 * DEVIATIONS[:, :20], ["28"] * 20)
        found += law.verdict in ("linear law", "rises", "falls")
    assert found <= 14  # at 6 %, more have a probability of 0.001


def test_one_layer_makes_no_law():
    """The last layer 30 sd off: the line is dragged along, the ranks are not."""
    rng = np.random.default_rng(4)
    exponent = 2 + 0.1 * rng.standard_normal(24)
    exponent[-1] += 3.0
    law = fit_law(DEPTH, exponent, DEVIATIONS, ["28"] * 24)
    assert law.rank_p > 0.05
    assert law.verdict in ("no trend", "too little to tell")


def test_few_groups_widen_the_interval_and_tell_too_little():
    exponent = 1 + 0.05 * DEPTH + 0.02 * GENERATOR.standard_normal(24)
    shared = np.outer(DEPTH, DEPTH) * 1e-4
    many = fit_law(DEPTH, exponent, deviations(shared, 64), RESOLUTION)
    few = fit_law(DEPTH, exponent, deviations(shared, 4), RESOLUTION)
    assert many.verdict == "linear law"
    assert few.verdict == "too little to tell"
    assert few.dof < 4 < many.dof
    assert few.slope_high - few.slope_low > many.slope_high - many.slope_low


def test_groups_without_images_are_none():
    exponent = 1 + 0.05 * DEPTH + 0.02 * GENERATOR.standard_normal(24)
    some = deviations(COVARIANCE, 12)
    padded = np.concatenate([some, np.zeros((116, 24))])
    law = fit_law(DEPTH, exponent, some, RESOLUTION)
    assert fit_law(DEPTH, exponent, padded, RESOLUTION).to_dict() == law.to_dict()


def test_the_numbers_are_those_of_the_regression():
    """What is tested in test_regression.py is what the law says."""
    exponent = 1 + 0.02 * DEPTH + 0.2 * GENERATOR.standard_normal(24)
    law = fit_law(DEPTH, exponent, DEVIATIONS, RESOLUTION, level=0.9)
    errors = LayerErrors(exponent, DEVIATIONS)
    line = np.column_stack([np.ones(24), DEPTH])
    fit = errors.regress(Design(line, DEPTH, RESOLUTION))
    slope = fit.coefficient(1)
    assert (law.slope, law.trend_p) == pytest.approx((slope.mean, slope.p()))
    assert (law.slope_low, law.slope_high) == pytest.approx(slope.interval(0.9))
    assert law.intercept == pytest.approx(fit.mean[0])
    assert np.array(law.covariance) == pytest.approx(fit.mean_covariance)
    assert law.between_layer_sd == pytest.approx(fit.scatter_sd)
    assert (law.correlation, law.stage_share) == pytest.approx((fit.correlation, fit.stage_share))
    assert (law.correlation_low, law.correlation_high) == fit.correlation_interval(0.9)
    assert law.dof == pytest.approx(fit.weight @ fit.dof[:, 1])
    levels = np.column_stack([DEPTH, dummies(RESOLUTION)])
    within = errors.regress(Design(levels, DEPTH)).coefficient(0)
    assert law.slope_within_resolution == pytest.approx(within.mean)
    ends = law.slope_within_resolution_low, law.slope_within_resolution_high
    assert ends == pytest.approx(within.interval(0.9))
    powers = np.polynomial.legendre.legvander((DEPTH - 12.5) / 11.5, 3)
    bent = errors.regress(Design(powers, DEPTH, RESOLUTION)).joint_p([2, 3])
    assert law.lack_of_fit_p == pytest.approx(bent)


@pytest.mark.slow
def test_without_the_other_shapes_of_the_errors_it_is_near_least_squares():
    """Independent scatter, no errors of images, one size of maps: not far from the textbook."""
    inside, widths = 0, []
    for seed in range(20):
        exponent = 1 + 0.05 * DEPTH + 0.1 * np.random.default_rng(seed).standard_normal(24)
        law = fit_law(DEPTH, exponent, 1e-6 * DEVIATIONS, ["28"] * 24)
        line = sm.OLS(exponent, sm.add_constant(DEPTH)).fit()
        low, high = line.conf_int()[1]
        inside += low < law.slope < high
        widths.append((law.slope_high - law.slope_low) / (high - low))
    assert inside == 20
    assert 1.0 < np.median(widths) < 2.0  # what it costs not to know phi


def test_errors_shared_unequally_leave_the_line_on_the_points():
    """Peelle's puzzle: the generalised least-squares line would leave most points on one side."""
    loading = np.linspace(0.05, 0.3, 24)
    covariance = np.outer(loading, loading) + 1e-4 * np.eye(24)
    exponent = 1.5 + 0.02 * DEPTH - 1.5 * loading
    law = fit_law(DEPTH, exponent, deviations(covariance), RESOLUTION)
    middle, low, high = law.predict(DEPTH)
    assert abs((exponent - middle).mean()) < 0.02
    assert ((low < exponent) & (exponent < high)).mean() > 0.9


def test_slope_within_resolution_leaves_out_the_steps():
    """Steps down at each resolution hide a rise inside: Simpson's paradox.

    Where stages have something in common of their own, the law is that of the rise; with one label
    for all it is that of the fall.
    """
    curve = 0.05 * DEPTH - np.repeat([0.0, 1.0, 2.0], 8)
    law = law_of(curve, scatter=0.02)
    assert 0 < law.slope_low < 0.05 < law.slope_high
    assert law.stage_share > 0.8
    assert fit_law(DEPTH, curve, DEVIATIONS, ["28"] * 24).slope < 0
    assert law.slope_within_resolution == pytest.approx(0.05, abs=0.01)
    assert law.slope_within_resolution_low > 0


def test_rank_correlation_is_kendalls():
    exponent = 1 + 0.05 * DEPTH + 0.3 * GENERATOR.standard_normal(24)
    law = fit_law(DEPTH, exponent, DEVIATIONS, RESOLUTION)
    assert law.rank_correlation == pytest.approx(stats.kendalltau(DEPTH, exponent).statistic)


@pytest.mark.parametrize("depth", [np.repeat([1.0, 2.0, 3.0], 8), np.repeat([1.0, 2.0], 12)])
def test_equal_depths(depth):
    """Three depths carry a line and a square, two carry no law."""
    rng = np.random.default_rng(0)
    law = fit_law(depth, 1 + 0.3 * depth + 0.02 * rng.standard_normal(24), DEVIATIONS, ["28"] * 24)
    assert np.isfinite(law.slope) == np.isfinite(law.lack_of_fit_p) == (len(set(depth)) == 3)
    if len(set(depth)) == 2:
        assert law.verdict == "too little to tell"
        assert "at 3 depths or more" in law.sentence()


def test_exponents_that_are_all_the_same_have_no_trend():
    law = fit_law(DEPTH, np.full(24, 2.0), DEVIATIONS, RESOLUTION)
    assert law.verdict in ("no trend", "too little to tell")
    assert law.slope == pytest.approx(0.0, abs=1e-12)
    assert law.rank_p == 1.0
    assert np.isnan(law.network.line_share)
    assert to_json(Law.from_dict(json.loads(to_json(law.to_dict()))).to_dict())


@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_layers_tell_too_little_and_no_numbers(n):
    law = fit_law(DEPTH[:n], DEPTH[:n], DEVIATIONS[:, :n], RESOLUTION[:n])
    assert law.verdict == "too little to tell"
    assert law.network is None
    assert np.isnan(list(law.shapes.values())).all()
    assert law.n_layers == n
    assert np.isnan(law.slope)
    said = {0: "has no layer with", 1: "has only 1 layer with"}.get(n, f"this network has {n}.")
    assert said in law.sentence()


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
    few = fit_law(DEPTH[:6], DEPTH[:6] ** 2, DEVIATIONS[:, :6], RESOLUTION[:6])
    for law in (law_of(1 + 0.05 * DEPTH), few, fit_law([], [], np.zeros((0, 0)), [])):
        again = Law.from_dict(json.loads(to_json(law.to_dict())))
        assert to_json(again.to_dict()) == to_json(law.to_dict())
        assert again.network == law.network or law is few  # whose shapes are partly NaN
        assert type(again.network) is type(law.network)
        assert again.sentence() == law.sentence()
    assert set(law.to_dict()) == {field.name for field in fields(Law)}


def test_a_broken_law_is_refused():
    with pytest.raises(natstats.UsageError, match="law: expected the fields of a law"):
        Law.from_dict({"slope": 1.0})
    whole = law_of(1 + 0.05 * DEPTH).to_dict()
    for broken in ({"tau": 1.0}, {"shapes": None}, {"covariance": 3}, {"network": {"slope": 1}}):
        with pytest.raises(natstats.UsageError, match="law: expected the fields of a law"):
            Law.from_dict(whole | broken)


def test_lengths_that_differ_are_named():
    with pytest.raises(natstats.UsageError, match="expected 24 layers"):
        fit_law(DEPTH, DEPTH[:3], DEVIATIONS, RESOLUTION)


def test_the_sentence_carries_the_numbers():
    law = law_of(1 + 0.05 * DEPTH)
    numbers = (
        f"{law.slope:+.4f} [{law.slope_low:+.4f}, {law.slope_high:+.4f}]",
        f"(95 % interval; p {format_p(law.trend_p)}, by ranks {format_p(law.rank_p)})",
        "over 24 layers",
        f"correlation {law.correlation:.2f}",
        f"best shape by AICc: {law.best_shape}",
    )
    for part in numbers:
        assert part in law.sentence()


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_begins_a_sentence_of_its_own(verdict):
    law = replace(law_of(1 + 0.05 * DEPTH), verdict=verdict)
    assert law.sentence().startswith(OPENINGS[verdict].format("depth"))
    assert ("lack of fit" in law.sentence()) == (verdict == "rises")
    assert law.sentence().count(".\n") == 0
    assert len(set(OPENINGS.values())) == len(VERDICTS) == len(OPENINGS)


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
        assert scaled.verdict == law.verdict
        assert scaled.rank_p == pytest.approx(law.rank_p)
        assert scaled.trend_p == pytest.approx(law.trend_p)
        assert scaled.network.departures[0].value == pytest.approx(law.network.departures[0].value)
        assert scaled.lack_of_fit_p == pytest.approx(law.lack_of_fit_p)
        assert list(scaled.shapes.values()) == pytest.approx(list(law.shapes.values()))


def test_a_small_slope_does_not_read_as_zero():
    pixels = 1000 * DEPTH
    law = fit_law(pixels, 1 + 1e-5 * pixels, DEVIATIONS, RESOLUTION, measure="receptive-field")
    assert "slope +0.000010 [+0.000006, +0.000014]" in law.sentence()


def test_an_unknown_measure_is_refused():
    with pytest.raises(natstats.UsageError, match="measure: expected one of layers, order"):
        fit_law(DEPTH, DEPTH, DEVIATIONS, RESOLUTION, measure="width")


@pytest.mark.parametrize(
    ("p", "text"), [(0.0499, "= 0.050"), (0.00049, "< 0.001"), (0.5, "= 0.50")]
)
def test_p_values_as_words(p, text):
    assert format_p(p) == text
