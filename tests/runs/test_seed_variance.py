"""The error of a control's seeds: what differs by chance alone is seldom told from them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from natstats.fits.intervals import effective_dof
from natstats.law.differences import Differences, ErrorSource
from natstats.law.seed_variance import effective_number, pooled_seeds, seeds_as_source


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 3, 10])
def test_a_network_that_learned_nothing_differs_by_chance_alone(n_seeds):
    """It is one more seed; the error of the mean of the seeds alone would find most of them."""
    generator = np.random.default_rng(n_seeds)
    repeats, found = 2000, 0
    images = ErrorSource(np.zeros((8, 1)))
    for _ in range(repeats):
        own, *others = generator.standard_normal((1 + n_seeds, 1))
        sources = [images, seeds_as_source(np.array(others))]
        found += Differences(own - np.mean(others, 0), sources, 0.95).each()[0].p < 0.05
    assert stats.binomtest(found, repeats, 0.05).pvalue > 1e-3, found


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [2, 3, 10])
def test_of_many_layers_seldom_one_is_told_from_the_seeds(n_seeds):
    """Twenty layers, images that matter less than seeds, Holm's correction: at most 5 % of runs.

    A seed variance that is small by chance must not borrow the many degrees of the images.
    """
    generator = np.random.default_rng(n_seeds)
    repeats, found = 300, 0
    for _ in range(repeats):
        images = 0.3 / np.sqrt(63) * generator.standard_normal((64, 20))
        own, *others = generator.standard_normal((1 + n_seeds, 20))
        value = own - np.mean(others, 0) + images.sum(0)
        sources = [ErrorSource(images), seeds_as_source(np.array(others))]
        p = np.array([one.p for one in Differences(value, sources, 0.95).each()])
        found += 20 * np.min(p) < 0.05  # Holm's rule for the smallest
    assert found <= 27  # at 5 %, more have a probability of 0.001


def networks(repeats, n_seeds, correlation, generator):
    """Exponents (n_seeds + 1, 20) of networks whose deeper layers differ more, and their sides."""
    side = np.repeat([32.0, 16.0, 8.0], [7, 7, 6])
    lag = np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    root = np.linalg.cholesky(correlation**lag) / side[:, None] ** 0.5
    for _ in range(repeats):
        yield generator.standard_normal((1 + n_seeds, 20)) @ root.T, side


@pytest.mark.slow
@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("n_seeds", [3, 5])
def test_pooled_variances_keep_the_level(n_seeds, correlation):
    """Also where layers hang together; pooling as if they did not would find twice as many.

    Of 500 networks 9 % is four standard errors above 5 %, where all layers of one hang together.
    """
    generator = np.random.default_rng(n_seeds + int(10 * correlation))
    repeats, layers, families = 500, 0.0, 0
    for exponents, side in networks(repeats, n_seeds, correlation, generator):
        value = exponents[0] - exponents[1:].mean(0)
        source = pooled_seeds(exponents[1:], side)
        t = np.abs(value) / np.sqrt(np.sum(source.deviations**2, axis=0))
        p = 2 * stats.t.sf(t, source.dof)
        layers += np.mean(p < 0.05)
        families += 20 * p.min() < 0.05
        assert n_seeds - 1 <= source.dof <= 20 * (n_seeds - 1)
    assert 0.025 < layers / repeats < 0.085
    assert families / repeats < 0.09


def test_three_seeds_find_what_is_clear_in_a_single_layer():
    """Ten standard deviations, which p of two degrees of freedom never survive among twenty."""
    generator = np.random.default_rng(0)
    found = []
    for exponents, side in networks(60, 3, 0.0, generator):
        p = []
        for source in (seeds_as_source(exponents[1:]), pooled_seeds(exponents[1:], side)):
            value = exponents[0, 3] - exponents[1:, 3].mean() + 10 / np.sqrt(32)
            error = np.sqrt(np.sum(source.deviations[:, 3] ** 2))
            p.append(2 * stats.t.sf(abs(value) / error, source.dof))
        found.append(np.array(p) < 0.05 / 20)
    own, pooled = np.mean(found, axis=0)
    assert own < 0.5
    assert pooled > 0.9


def test_the_moderated_variance_is_that_of_the_paper():
    """With equal variances in the limit s0^2 alone; with very different ones each its own."""
    generator = np.random.default_rng(1)
    alike = generator.standard_normal((5, 2000))
    side = np.full(2000, 8.0)
    source = pooled_seeds(alike, side)
    variances = np.sum(source.deviations**2, axis=0) / (1 + 1 / 5)
    np.testing.assert_allclose(variances, 1.0, atol=0.12)
    apart = alike * np.exp(3 * generator.standard_normal(2000))
    source = pooled_seeds(apart, side)
    ratio = np.sum(source.deviations**2, axis=0) / (1 + 1 / 5) / apart.var(0, ddof=1)
    assert 0.8 < np.median(ratio) < 1.3
    assert 4 <= source.dof < 4.7
    # Variances of a scaled inverse chi-square with 8 degrees of freedom, s0^2 = 4: d0 is found.
    drawn = alike * np.sqrt(4 * 8 / generator.chisquare(8, 2000))
    source = pooled_seeds(drawn, side)
    assert source.dof - 4 == pytest.approx(8, rel=0.25)
    whole = np.sum(source.deviations**2, axis=0) / (1 + 1 / 5)
    weight = (source.dof - 4) / source.dof
    prior = (whole - (1 - weight) * drawn.var(0, ddof=1)) / weight
    np.testing.assert_allclose(prior, prior[0])
    assert prior[0] == pytest.approx(4, rel=0.1)


@pytest.mark.slow
def test_the_effective_number_of_layers_follows_covariance():
    generator = np.random.default_rng(2)
    lag = np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    for correlation in (0.0, 0.9):
        covariance = correlation**lag
        truth = np.trace(covariance) ** 2 / np.sum(covariance**2)
        drawn = generator.standard_normal((4000, 20)) @ np.linalg.cholesky(covariance).T
        assert effective_number(drawn) == pytest.approx(truth, rel=0.1)
        few = [effective_number(drawn[k : k + 4]) for k in range(0, 4000, 4)]
        assert 0.5 * truth < np.median(few) < 2 * truth


def test_two_seeds_or_few_layers_are_not_pooled():
    exponents = np.random.default_rng(3).standard_normal((4, 20))
    exponents[:, 5:] = exponents[:1, 5:]  # fifteen layers that do not differ
    side = np.full(20, 8.0)
    for given, of in ((exponents[:2], side), (exponents[:, 1:], side[1:])):
        one, other = pooled_seeds(given, of), seeds_as_source(given)
        assert one.dof == other.dof
        assert np.array_equal(one.deviations, other.deviations)
    exponents[1, 7] = np.nan
    found = pooled_seeds(exponents, side)
    assert found.dof > 3
    assert np.isnan(found.deviations[:, 7]).any()
    assert np.isfinite(found.deviations[:, :5]).all()


def test_groups_without_images_are_no_degrees_of_freedom():
    """Three images in 128 groups have two of them, as in the fit of a layer."""
    deviations = np.zeros((128, 1))
    deviations[:3, 0] = 0.1, -0.2, 0.1
    (found,) = Differences(np.array([0.5]), [ErrorSource(deviations)], 0.95).each()
    assert found.dof == pytest.approx(float(effective_dof(deviations[:3, 0])))
    assert found.dof <= 2
