"""The regression against the same thing computed plainly, point by point, with dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats

from natstats.fits.intervals import effective_dof
from natstats.law.regression import NUGGETS, STAGE_SD, Design, LayerErrors, dummies
from natstats.law.trend import line_of, outcome_of, rank_p, usable_layers

N = 18
DEPTH = np.arange(1.0, N + 1)
STAGES = ["56"] * 7 + ["28"] * 6 + ["14"] * 5
LINE = np.column_stack([np.ones(N), DEPTH])
STAGE_PRIOR = np.array([1.5, 1, 1, 1, 1.5, 2, 2, 1.5])
"""Flat in the standard deviation by the trapezoid rule, with more at zero and at the far end."""


def scatter(phi, n=N, seed=0):
    """Noise of unit variance whose neighbours have the correlation phi."""
    noise = np.random.default_rng(seed).standard_normal(n)
    for place in range(1, n):
        noise[place] = phi * noise[place - 1] + np.sqrt(1 - phi**2) * noise[place]
    return noise


def deviations(size, n=N, n_groups=40, seed=1):
    """Deviations of groups of images, half of which the layers share."""
    draw = np.random.default_rng(seed)
    shared = draw.standard_normal((n_groups, 1)) * np.linspace(0.5, 1.5, n)
    return size / np.sqrt(n_groups) * (shared + draw.standard_normal((n_groups, n)))


EXPONENT = 1.0 + 0.04 * DEPTH + 0.2 * scatter(0.6)
IMAGES = {"none": 1e-9, "some": 0.06, "many": 2.0}


def plain(columns, exponent, order, stages, left_out, nugget, phi, stage_sd):
    """Coefficients, covariance, restricted likelihood and r < e at one point, by the formulas."""
    n, p = columns.shape
    place = np.empty(n)
    place[np.argsort(order, kind="stable")] = np.arange(n)
    z = dummies(stages)
    own = phi ** np.abs(place[:, None] - place) + stage_sd**2 * z @ z.T
    inverse = np.linalg.inv(own + nugget * np.eye(n))
    spread = np.linalg.inv(columns.T @ inverse @ columns)
    rows = spread @ columns.T @ inverse
    taken = inverse - inverse @ columns @ rows
    images = left_out.T @ left_out
    found, expected = exponent @ taken @ exponent, np.trace(taken @ images)
    if found >= expected:
        variance = (found - expected) / np.trace(taken @ own)
        covariance = rows @ (images + variance * own) @ rows.T
    else:
        covariance = rows @ (images * max(found / expected, 0.5)) @ rows.T
    log_det = np.linalg.slogdet(own + nugget * np.eye(n))[1]
    log_det += np.linalg.slogdet(columns.T @ inverse @ columns)[1]
    return rows @ exponent, covariance, -log_det / 2 - (n - p) / 2 * np.log(found), found < expected


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("order", ["by depth", "shuffled"])
def test_every_point_of_the_grid_is_generalised_least_squares(images, order):
    depth = DEPTH if order == "by depth" else np.random.default_rng(3).permutation(DEPTH)
    columns = np.column_stack([np.ones(N), depth])
    left_out = deviations(IMAGES[images])
    errors, design = LayerErrors(EXPONENT, left_out), Design(columns, depth, STAGES)
    nugget = errors.nugget(design)
    fit = errors.regress(design)
    likelihoods, is_small = [], []
    for place, (phi, stage_sd) in enumerate(zip(fit.phi, fit.stage_sd, strict=True)):
        value, covariance, likelihood, small = plain(
            columns, EXPONENT, depth, STAGES, left_out, nugget, phi, stage_sd
        )
        assert fit.coefficients[place] == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose(fit.covariance[place], covariance, rtol=1e-5, atol=1e-12)
        likelihoods.append(likelihood)
        is_small.append(small)
    assert any(is_small) == (images == "many")
    # The grid is even in arcsin(phi), where the prior has the Jacobian cos(arcsin(phi)).
    prior = (1 - fit.phi**2) ** (-1 / 4) * np.cos(np.arcsin(fit.phi))
    stage = dict(zip(STAGE_SD, STAGE_PRIOR, strict=True))
    log_weight = np.array(likelihoods) + np.log(prior)
    log_weight += np.log([stage[sd] for sd in fit.stage_sd])
    weight = np.exp(log_weight - log_weight.max())
    np.testing.assert_allclose(fit.weight, weight / weight.sum(), rtol=1e-5, atol=1e-12)


def test_the_grid_is_even_in_the_arcsine_of_phi():
    phi = np.unique(LayerErrors(EXPONENT, deviations(0.1)).regress(Design(LINE, DEPTH)).phi)
    assert (phi[0], phi[-1]) == pytest.approx((-0.5, 0.98))
    steps = np.diff(np.arcsin(phi))
    assert steps == pytest.approx(np.full(len(steps), steps[0]))


@pytest.mark.parametrize("place", [0, 7, 15])
def test_without_errors_of_images_a_point_is_that_of_statsmodels(place):
    errors = LayerErrors(EXPONENT, 1e-9 * deviations(1.0))
    fit = errors.regress(Design(LINE, DEPTH))
    correlation = fit.phi[place] ** np.abs(DEPTH[:, None] - DEPTH)
    other = sm.GLS(EXPONENT, LINE, sigma=correlation).fit()
    assert fit.coefficients[place] == pytest.approx(other.params)
    assert fit.covariance[place] == pytest.approx(other.cov_params())
    assert fit.dof[place] == pytest.approx(N - 2, rel=1e-6)


def test_degrees_of_freedom_are_those_of_the_residuals_and_of_the_images():
    """Residuals tell n - p, less one for each stage but the first; images their effective ones."""
    alone = LayerErrors(EXPONENT, 1e-9 * deviations(1.0)).regress(Design(LINE, DEPTH, STAGES))
    assert alone.dof[alone.stage_sd == 0] == pytest.approx(N - 2, rel=1e-6)
    assert alone.dof[alone.stage_sd > 0] == pytest.approx(N - 2 - 2, rel=1e-6)
    # A shared error that goes with depth is seen in no residual, and makes up all of the error.
    tilt = np.random.default_rng(2).standard_normal((7, 1)) * DEPTH
    shared = LayerErrors(0.01 * EXPONENT, tilt).regress(Design(LINE, DEPTH))
    assert shared.dof[:, 1] == pytest.approx(float(effective_dof(tilt @ LINE)[1]), rel=1e-3)


def test_the_interval_and_p_are_those_of_the_mixture():
    """By the distribution function of every part from another library, and by drawing."""
    fit = LayerErrors(EXPONENT, deviations(0.1)).regress(Design(LINE, DEPTH, STAGES))
    slope = fit.coefficient(1)
    error = np.sqrt(fit.covariance[:, 1, 1])

    def below(x):
        return fit.weight @ stats.t.cdf(x, fit.dof[:, 1], fit.coefficients[:, 1], error)

    for level in (0.5, 0.95, 0.99):
        ends = slope.interval(level)
        assert [below(end) for end in ends] == pytest.approx([0.5 - level / 2, 0.5 + level / 2])
    assert slope.p() == pytest.approx(2 * min(below(0.0), 1 - below(0.0)))
    rng = np.random.default_rng(0)
    part = rng.choice(len(fit.weight), 200_000, p=fit.weight)
    drawn = fit.coefficients[part, 1] + error[part] * rng.standard_t(fit.dof[part, 1])
    assert slope.interval(0.9) == pytest.approx(tuple(np.quantile(drawn, [0.05, 0.95])), rel=0.03)
    assert slope.mean == pytest.approx(drawn.mean(), rel=0.02)
    assert slope.mean == pytest.approx(fit.mean[1])


def test_the_grid_is_fine_enough():
    """The ends of the interval are those of an integral over two thousand values of phi."""
    exponent = 1 + 0.2 * scatter(0.6)
    fit = LayerErrors(exponent, 1e-9 * deviations(1.0)).regress(Design(LINE, DEPTH))
    fine = np.linspace(-0.5, 0.98, 2001)
    log_weight, value, error = [], [], []
    for phi in fine:
        own = phi ** np.abs(DEPTH[:, None] - DEPTH)
        gls = sm.GLS(exponent, LINE, sigma=own).fit()
        rest = gls.scale * (N - 2)
        log_det = np.linalg.slogdet(own)[1] + np.linalg.slogdet(gls.normalized_cov_params)[1] * -1
        log_weight.append(-log_det / 2 - (N - 2) / 2 * np.log(rest) - np.log1p(-(phi**2)) / 4)
        value.append(gls.params[1])
        error.append(gls.bse[1])
    weight = np.exp(np.array(log_weight) - max(log_weight))
    weight /= weight.sum()
    low, high = fit.coefficient(1).interval(0.95)
    reach = (high - low) / 2
    for end, share in ((low, 0.025), (high, 0.975)):
        there = weight @ stats.t.cdf(end, N - 2, np.array(value), np.array(error))
        assert there == pytest.approx(share, abs=0.005)
    assert fit.mean[1] == pytest.approx(weight @ value, abs=0.02 * reach)
    assert fit.correlation == pytest.approx(weight @ fine, abs=0.02)


@pytest.mark.parametrize("images", IMAGES)
def test_the_order_in_which_layers_are_given_is_nothing(images):
    left_out = deviations(IMAGES[images])
    shuffled = np.random.default_rng(4).permutation(N)
    fit = LayerErrors(EXPONENT, left_out).regress(Design(LINE, DEPTH, STAGES))
    other = LayerErrors(EXPONENT[shuffled], left_out[:, shuffled]).regress(
        Design(LINE[shuffled], DEPTH[shuffled], [STAGES[place] for place in shuffled])
    )
    assert other.coefficient(1).interval(0.95) == pytest.approx(fit.coefficient(1).interval(0.95))
    assert other.coefficient(1).p() == pytest.approx(fit.coefficient(1).p())
    assert other.mean_rows == pytest.approx(fit.mean_rows[:, shuffled])


@pytest.mark.parametrize("images", IMAGES)
def test_units_scale_the_slope_and_an_added_line_moves_it(images):
    left_out = deviations(IMAGES[images])
    slope = LayerErrors(EXPONENT, left_out).regress(Design(LINE, DEPTH, STAGES)).coefficient(1)
    ends = np.array(slope.interval(0.95))
    louder = LayerErrors(10 * EXPONENT, 10 * left_out).regress(Design(LINE, DEPTH, STAGES))
    assert louder.coefficient(1).interval(0.95) == pytest.approx(tuple(10 * ends), rel=1e-5)
    longer = Design(np.column_stack([np.ones(N), 50 * DEPTH]), 50 * DEPTH, STAGES)
    scaled = LayerErrors(EXPONENT, left_out).regress(longer).coefficient(1)
    assert scaled.interval(0.95) == pytest.approx(tuple(ends / 50), rel=1e-5)
    assert louder.coefficient(1).p() == pytest.approx(scaled.p()) == pytest.approx(slope.p())
    tilted = LayerErrors(EXPONENT + 3 - 0.7 * DEPTH, left_out).regress(Design(LINE, DEPTH, STAGES))
    assert tilted.coefficient(1).mean == pytest.approx(slope.mean - 0.7)
    assert tilted.coefficient(1).interval(0.95) == pytest.approx(tuple(ends - 0.7), rel=1e-5)


def test_weights_of_layers_give_the_line_and_its_deviations():
    fit = LayerErrors(EXPONENT, deviations(0.1)).regress(Design(LINE, DEPTH, STAGES))
    assert fit.mean_rows @ LINE == pytest.approx(np.eye(2), abs=1e-9)
    assert fit.mean_rows @ EXPONENT == pytest.approx(fit.mean)
    assert fit.mean_covariance[1, 1] == pytest.approx(fit.coefficient(1).variance, rel=1e-4)


def test_layers_of_one_depth_keep_their_order():
    """Equal depths make a line as any others do; a neighbour is then the one that came before."""
    depth = np.repeat(np.arange(1.0, 7.0), 3)
    columns = np.column_stack([np.ones(N), depth])
    fit = LayerErrors(EXPONENT, deviations(1e-9)).regress(Design(columns, depth))
    for place in (0, 9, 15):
        value, covariance, _, _ = plain(
            columns, EXPONENT, np.arange(N), ["one"] * N, deviations(1e-9), 0.0, fit.phi[place], 0
        )
        assert fit.coefficients[place] == pytest.approx(value)
        assert fit.covariance[place] == pytest.approx(covariance)


def test_one_stage_or_a_stage_for_every_layer_is_as_none():
    plainly = LayerErrors(EXPONENT, deviations(0.1)).regress(Design(LINE, DEPTH))
    for stages in (["28"] * N, [str(place) for place in range(N)]):
        fit = LayerErrors(EXPONENT, deviations(0.1)).regress(Design(LINE, DEPTH, stages))
        assert fit.mean == pytest.approx(plainly.mean)
        assert fit.stage_share == 0


def test_two_stages_that_differ_are_no_evidence_for_a_line():
    """With two levels the rise may be a step: only inside the stages can depth be told from it."""
    stages = ["28"] * 9 + ["14"] * 9
    step = np.repeat([1.0, 2.0], 9) + 0.02 * scatter(0.0, seed=5)
    errors = LayerErrors(step, deviations(0.01))
    alone = errors.regress(Design(LINE, DEPTH))
    fit = errors.regress(Design(LINE, DEPTH, stages))
    assert alone.coefficient(1).p() < 0.1
    assert fit.coefficient(1).p() > 0.3
    assert fit.stage_share > 0.8
    layers = usable_layers(DEPTH, step, deviations(0.01), stages, stages)
    assert rank_p(errors, line_of(layers)) > 0.05


@pytest.mark.parametrize("nugget", NUGGETS)
def test_the_nugget_is_the_noise_of_images_in_units_of_the_scatter(nugget):
    """On average e / (r - e) is nu where images add nu of the scatter to every layer."""
    size = np.sqrt(nugget)
    found = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        left_out = size * rng.standard_normal((200, N)) / np.sqrt(200)
        exponent = rng.standard_normal(N) + size * rng.standard_normal(N)
        found.append(LayerErrors(exponent, left_out).nugget(Design(LINE, DEPTH)))
    assert set(found) <= set(NUGGETS)
    near = NUGGETS.index(nugget)
    assert NUGGETS[max(near - 2, 0)] <= np.median(found) <= [*NUGGETS, np.inf][near + 1]


def test_with_a_nugget_and_no_images_the_whole_scatter_is_that_of_the_layers():
    """As for ranks: V + nu I takes the place of V, and what images did is not taken off."""
    design = Design(LINE, DEPTH)
    fit = LayerErrors(EXPONENT, deviations(5.0)).regress(design, nugget=0.4)
    for place in (0, 8, 15):
        own = fit.phi[place] ** np.abs(DEPTH[:, None] - DEPTH) + 0.4 * np.eye(N)
        other = sm.GLS(EXPONENT, LINE, sigma=own).fit()
        assert fit.coefficients[place] == pytest.approx(other.params)
        assert fit.covariance[place] == pytest.approx(other.cov_params())
    assert fit.dof == pytest.approx(N - 2)


def test_an_exact_line_has_a_slope_and_no_scatter():
    fit = LayerErrors(1 + 0.5 * DEPTH, deviations(1e-6)).regress(Design(LINE, DEPTH, STAGES))
    slope = fit.coefficient(1)
    assert slope.mean == pytest.approx(0.5)
    assert fit.scatter_sd < 1e-5
    assert 0 <= slope.p() < 1e-6


def test_neighbours_that_are_alike_have_a_correlation_near_theirs():
    found = {}
    for phi in (0.0, 0.6, 0.9):
        fits = [
            LayerErrors(0.3 * scatter(phi, 120, seed), deviations(1e-6, 120)).regress(
                Design(np.ones((120, 1)), np.arange(120.0))
            )
            for seed in range(10)
        ]
        found[phi] = np.median([fit.correlation for fit in fits])
        inside = [low <= phi <= high for low, high in (f.correlation_interval(0.95) for f in fits)]
        assert sum(inside) >= 8
    assert found == pytest.approx({0.0: 0.0, 0.6: 0.6, 0.9: 0.9}, abs=0.12)


def test_a_trend_takes_both_tests_and_numbers():
    assert outcome_of(0.1, 0.04, 0.04) == "rises"
    assert outcome_of(-0.1, 0.04, 0.04) == "falls"
    for p in ((0.06, 0.01), (0.01, 0.06), (np.nan, 0.01), (0.01, np.nan)):
        assert outcome_of(0.1, *p) == "no trend"


def test_ranks_know_no_units_and_no_single_layer():
    layers = usable_layers(DEPTH, EXPONENT, deviations(1e-9), STAGES, STAGES)
    design = line_of(layers)
    plainly = rank_p(LayerErrors(EXPONENT, deviations(1e-9)), design)
    assert rank_p(LayerErrors(np.exp(3 * EXPONENT), deviations(1e-9)), design) == plainly
    flat = 0.1 * scatter(0.0, seed=7)
    ends = [rank_p(LayerErrors(flat + far * (DEPTH == N), deviations(1e-9)), design)
            for far in (5.0, 500.0)]  # fmt: skip
    assert ends[0] == ends[1] > 0.05
    assert rank_p(LayerErrors(0 * DEPTH, deviations(1.0)), design) == 1.0


@pytest.mark.parametrize("seed", range(3))
def test_layers_of_equal_exponents_share_a_rank(seed):
    """The order in which they are given must make no trend of them."""
    rng = np.random.default_rng(seed)
    tied = np.round(2 + 0.3 * rng.standard_normal(N), 1)
    assert len(set(tied)) < N - 3
    ranks = stats.rankdata(tied)
    scores = stats.norm.ppf((ranks - 0.375) / (N + 0.25))
    errors, design = LayerErrors(tied, deviations(0.01)), Design(LINE, DEPTH)
    own = LayerErrors(scores, deviations(0.01)).regress(design, errors.nugget(design))
    assert rank_p(errors, design) == pytest.approx(own.coefficient(1).p())


def test_every_design_has_a_nugget_of_its_own():
    """Designs that are gone leave nothing behind for those that come to stand in their place."""
    left_out = deviations(0.05)
    errors = LayerErrors(EXPONENT, left_out)
    wide = np.polynomial.legendre.legvander(np.linspace(-1, 1, N), 12)
    nuggets = set()
    for k in (1, 2, 6, 12, 2, 12, 1):
        found = errors.regress(Design(wide[:, :k], DEPTH)).mean
        fresh = LayerErrors(EXPONENT, left_out)
        design = Design(wide[:, :k], DEPTH)
        nuggets.add(fresh.nugget(design))
        assert found == pytest.approx(fresh.regress(design).mean)
    assert len(nuggets) > 1


def rates(n, phi, seed, repeats=400, images=0.05, stages=None):
    """Shares of flat exponents with a slope, with a trend by both tests, with 0 in the interval."""
    depth = np.arange(n, dtype=float)
    design = Design(np.column_stack([np.ones(n), depth]), depth, stages)
    rng = np.random.default_rng(seed)
    slopes, trends, covered = 0, 0, 0
    for repeat in range(repeats):
        left_out = images * rng.standard_normal((64, n)) / 8
        noise = 0.3 * scatter(phi, n, [seed, repeat]) + images * rng.standard_normal(n)
        errors = LayerErrors(2 + noise, left_out)
        slope = errors.regress(design).coefficient(1)
        low, high = slope.interval(0.95)
        slopes += slope.p() < 0.05
        trends += outcome_of(slope.mean, slope.p(), rank_p(errors, design)) != "no trend"
        covered += low < 0 < high
        assert (slope.p() < 0.05) == (not low < 0 < high)
    return slopes / repeats, trends / repeats, covered / repeats


@pytest.mark.slow
@pytest.mark.parametrize(("n", "phi"), [(20, 0.0), (20, 0.7), (52, 0.5)])
def test_flat_exponents_are_seldom_called_a_trend(n, phi):
    """At a rate of 6 %, 10 % of 400 or more have a probability of 0.0015; independent tests
    would call 40 % of those with phi = 0.7 a trend."""
    slopes, trends, covered = rates(n, phi, seed=n)
    assert max(slopes, trends) < 0.10
    assert trends <= slopes
    assert covered > 0.90


@pytest.mark.slow
def test_steps_between_stages_are_seldom_called_a_trend():
    """Levels of four stages, 2 sd of what is left, beside it."""
    n, rng = 24, np.random.default_rng(0)
    labels = [str(place // 6) for place in range(n)]
    depth = np.arange(n, dtype=float)
    design = Design(np.column_stack([np.ones(n), depth]), depth, labels)
    found = 0
    for _ in range(400):
        levels = np.repeat(2 * rng.standard_normal(4), 6)
        errors = LayerErrors(levels + rng.standard_normal(n), 1e-3 * rng.standard_normal((64, n)))
        found += errors.regress(design).coefficient(1).p() < 0.05
    assert found < 40


@pytest.mark.slow
def test_a_rise_is_found():
    """A total rise of 6 sd over 52 layers, phi 0.5: found in nearly all."""
    depth = np.arange(52.0)
    design = Design(np.column_stack([np.ones(52), depth]), depth)
    found = 0
    for repeat in range(60):
        exponent = 6 * depth / 51 + scatter(0.5, 52, repeat)
        errors = LayerErrors(exponent, deviations(0.01, 52, seed=repeat))
        slope = errors.regress(design).coefficient(1)
        found += outcome_of(slope.mean, slope.p(), rank_p(errors, design)) == "rises"
    assert found >= 50
