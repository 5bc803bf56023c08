"""Activation functions against torch, and their Hermite series against integrals done otherwise."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtr
from torch.nn import functional as F

from natstats.errors import UsageError
from natstats.theory.activation_functions import (
    Activation,
    activation,
    hermite_coefficients,
    second_moment,
)
from natstats.theory.activation_kinds import ACTIVATIONS

CHOICES = [
    ("relu", {}), ("relu6", {}), ("leaky_relu", {}), ("leaky_relu", {"negative_slope": 0.3}),
    ("prelu", {"weight": -0.4}), ("rrelu", {}), ("hardtanh", {}),
    ("hardtanh", {"min_val": -0.3, "max_val": 2.0}),
    ("threshold", {"threshold": 0.4, "value": 2.0}),
    ("hardshrink", {}), ("softshrink", {"lambd": 0.7}), ("hardsigmoid", {}), ("hardswish", {}),
    ("identity", {}), ("abs", {}), ("elu", {}), ("elu", {"alpha": 0.3}), ("celu", {"alpha": 0.1}),
    ("selu", {}), ("gelu", {}), ("gelu", {"approximate": "tanh"}), ("softplus", {}),
    ("softplus", {"beta": 5.0, "threshold": 10.0}), ("silu", {}), ("mish", {}), ("sigmoid", {}),
    ("logsigmoid", {}), ("tanh", {}), ("tanhshrink", {}), ("softsign", {}),
]  # fmt: skip
every = pytest.mark.parametrize(("name", "parameters"), CHOICES)


def density(z):
    return math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)


def hermite(k, z):
    series = np.polynomial.hermite_e.hermeval(z, [*[0.0] * k, 1.0])
    return series / math.sqrt(math.factorial(k))


def integral(function, mean, deviation, factor):
    """E[factor(z, phi(mean + deviation z))] by adaptive quadrature, split where phi bends."""
    ends = {(x - mean) / deviation for x in (*function.kinks, -3 * deviation, 0.0, 3 * deviation)}
    ends = [-13.0, *sorted(z for z in ends if -13 < z < 13), 13.0]

    def integrand(z):
        return factor(z, float(function(mean + deviation * z))) * density(z)

    return sum(
        quad(integrand, low, high, epsabs=1e-13, epsrel=1e-12, limit=200)[0]
        for low, high in pairwise(ends)
    )


def test_every_function_is_tried():
    assert {name for name, _ in CHOICES} == set(ACTIVATIONS)


@every
def test_the_functions_are_those_of_torch(name, parameters):
    x = torch.linspace(-30, 30, 4801, dtype=torch.float64)
    x = x[(x.abs() != 0.5)]  # an edge of hardshrink
    if name in ("identity", "abs"):
        expected = x if name == "identity" else x.abs()
    elif name == "prelu":
        expected = F.prelu(x, torch.tensor([parameters["weight"]], dtype=torch.float64))
    else:
        expected = getattr(F, name)(x, **parameters)
    found = activation(name, **parameters)(x.numpy())
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)


@every
def test_what_a_function_says_of_itself_is_true(name, parameters):
    function = activation(name, **parameters)
    x = np.linspace(-4, 4, 101) + 0.003
    same = np.allclose(function(3 * x), 3 * function(x), rtol=1e-12)
    assert function.is_homogeneous == same
    # Between kinks third differences vanish with the step; across a kink they do not.
    step = 1e-3
    x = np.arange(-10, 10, step) + step / 3
    rough = abs(np.diff(function(x), 3))[1:-1] > 1e-7
    near = [np.abs(x[2:-3] + 0.5 * step - kink).min() for kink in function.kinks]
    assert all(distance < step for distance in near) or not near or name == "softplus"
    for place in x[2:-3][rough]:
        assert min(abs(place - kink) for kink in function.kinks) < 5 * step


@pytest.mark.slow
@every
def test_coefficients_are_the_integrals(name, parameters):
    function = activation(name, **parameters)
    mean, deviation = np.array([[0.0, -0.7, 2.5]]), np.array([[0.8], [3.0]])
    found = hermite_coefficients(function, mean, deviation, 8)
    assert found.shape == (9, 2, 3)
    squares = second_moment(function, mean, deviation)
    for (i, j), square in np.ndenumerate(squares):
        at = float(mean[0, j]), float(deviation[i, 0])
        expected = [integral(function, *at, lambda z, y, k=k: y * hermite(k, z)) for k in range(9)]
        np.testing.assert_allclose(found[:, i, j], expected, atol=1e-10)
        np.testing.assert_allclose(square, integral(function, *at, lambda z, y: y * y), rtol=1e-9)


@every
def test_high_coefficients_are_the_integrals(name, parameters):
    function = activation(name, **parameters)
    found = hermite_coefficients(function, 0.4, 1.5)
    assert found.shape == (25,)
    expected = integral(function, 0.4, 1.5, lambda z, y: y * hermite(24, z))
    np.testing.assert_allclose(found[24], expected, atol=1e-9)


@every
def test_squares_of_the_coefficients_add_up_to_the_second_moment(name, parameters):
    function = activation(name, **parameters)
    mean, deviation = np.array([-2.0, 0.0, 1.0]), np.array([0.5, 2.0, 40.0])
    whole = second_moment(function, mean, deviation)
    missed = [
        whole - (hermite_coefficients(function, mean, deviation, n) ** 2).sum(0)
        for n in (8, 24, 96)
    ]
    assert (np.diff(missed, axis=0) < 1e-9 * whole).all()
    assert (missed[0] > -1e-9 * whole).all()
    # Squares fall off as k^(-5/2) for a bend, and as k^(-3/2) for a jump or what looks like one.
    assert (missed[2] < 0.06 * whole).all()


def test_a_rectifier_has_the_coefficients_of_the_books():
    t = np.linspace(-3, 3, 13)
    found = hermite_coefficients(activation("relu"), 2 * t, 2.0, 24)
    phi = np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(found[0], 2 * (t * ndtr(t) + phi), atol=1e-14)
    np.testing.assert_allclose(found[1], 2 * ndtr(t), atol=1e-14)
    for k in range(2, 25):
        series = np.polynomial.hermite_e.hermeval(-t, [*[0.0] * (k - 2), 1.0])
        np.testing.assert_allclose(
            found[k], 2 * phi * series / math.sqrt(math.factorial(k)), atol=1e-13
        )


def test_a_rectifier_of_values_without_mean_is_the_arc_cosine_kernel():
    """Cho and Saul 2009: E[relu(x) relu(x')] = (sin t + (pi - t) cos t) / 2 pi."""
    rho = np.linspace(-0.9, 0.9, 19)
    c = hermite_coefficients(activation("relu"), 0.0, 1.0, 60)
    t = np.arccos(rho)
    exact = (np.sin(t) + (np.pi - t) * np.cos(t)) / (2 * np.pi)
    np.testing.assert_allclose(np.polynomial.polynomial.polyval(rho, c**2), exact, atol=1e-6)


def test_a_line_has_two_coefficients():
    for function in (activation("identity"), activation("leaky_relu", negative_slope=1.0)):
        found = hermite_coefficients(function, -3.0, 2.0, 5)
        np.testing.assert_allclose(found, [-3.0, 2.0, 0, 0, 0, 0], atol=1e-14)
    assert second_moment(activation("identity"), -3.0, 2.0) == pytest.approx(13.0)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "abs"])
def test_a_homogeneous_function_scales(name):
    one = hermite_coefficients(activation(name), 0.3, 1.0)
    np.testing.assert_allclose(hermite_coefficients(activation(name), 3.0, 10.0), 10 * one)


@every
def test_values_without_variance_stay_one_value(name, parameters):
    function = activation(name, **parameters)
    mean = np.array([0.0, 1.7])
    found = hermite_coefficients(function, mean, np.array([0.0, 0.0]), 3)
    np.testing.assert_allclose(found[0], function(mean))
    assert (found[1:] == 0).all()
    np.testing.assert_allclose(second_moment(function, mean, 0.0), function(mean) ** 2)


@every
def test_extreme_means_and_deviations_give_finite_numbers(name, parameters):
    function = activation(name, **parameters)
    mean, deviation = np.array([[-1e4], [0.0], [1e4]]), np.array([1e-8, 1e-3, 1e4])
    found = hermite_coefficients(function, mean, deviation)
    assert np.isfinite(found).all()
    square = second_moment(function, mean, deviation)
    assert ((found**2).sum(0) <= square * (1 + 1e-9) + 1e-12).all()


def test_a_slope_for_each_channel():
    slopes = np.array([0.0, 0.5, 1.0])
    function = activation("prelu", weight=slopes)
    np.testing.assert_allclose(function(np.full((2, 3), -2.0)), [[0, -1, -2]] * 2)
    found = hermite_coefficients(function, [0.1, 0.2, 0.3], 2.0)
    for i, slope in enumerate(slopes):
        one = hermite_coefficients(activation("prelu", weight=slope), (i + 1) / 10, 2.0)
        np.testing.assert_allclose(found[:, i], one)
    assert hermite_coefficients(function, 0.1, 2.0).shape == (25, 3)


def test_functions_of_ones_own():
    own = Activation("square", np.square)
    found = hermite_coefficients(own, 1.0, 2.0, 4)  # 1 + 4 z + 4 z^2
    np.testing.assert_allclose(found, [5, 4, 4 * math.sqrt(2), 0, 0], atol=1e-11)
    assert second_moment(own, 1.0, 2.0) == pytest.approx(1 + 6 * 4 + 3 * 16)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: activation("rleu"), r"function: .*\(did you mean relu"),
        (lambda: activation("relu", slope=1), "relu: expected parameters of none; got slope"),
        (lambda: activation("elu", beta=1), "elu: expected parameters of alpha; got beta"),
        (lambda: activation("threshold", value=1), "threshold: expected the parameter threshold"),
        (lambda: activation("hardtanh", min_val=2), "max_val: expected a number of at least min_v"),
        (lambda: activation("softplus", beta=0), "beta: expected a number that is above 0; got 0"),
        (lambda: activation("gelu", approximate=True), "approximate: expected one of none, tanh"),
        (lambda: hermite_coefficients(activation("relu"), 0, -1), "deviation: .* got -1"),
        (lambda: hermite_coefficients(activation("relu"), 0, math.nan), "deviation: .* got nan"),
        (lambda: second_moment(activation("relu"), [1, 2], [1, 2, 3]), "deviation: .* fits mean"),
        (lambda: hermite_coefficients(activation("relu"), 0, 1, -1), "n_terms: expected a whole"),
    ],
)
def test_what_cannot_be_is_named(call, words):
    with pytest.raises(UsageError, match=words):
        call()
