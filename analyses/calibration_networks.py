"""How far the law of many networks can be trusted; part of analyses/calibration.py.

Slopes of networks are drawn about a mean of zero, with a scatter between networks and with errors
of their own, which are as known as their number of layers lets them be: the variance of network i
is estimated with nu_i degrees of freedom, n_layers - 2 of its line. The unit is the error of a
network. Beside the interval that natstats gives stand those that are in use: three estimates of the
variance between networks, each with the normal interval, Hartung and Knapp's, and theirs where it
may not be shorter than the normal error ("modified").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats

from natstats.law.meta_analysis import compare_groups, pool
from natstats.law.shape_agreement import fit_shape, shapes_agree

ERRORS = {"alike": 0.0, "differ 4-fold": np.log(2), "differ 16-fold": np.log(4)}
"""Errors are exp of a uniform variable within plus and minus this."""

DOFS: dict[str, tuple[float, ...]] = {
    "known": (np.inf,),
    "16": (16.0,),
    "4": (4.0,),
    "3 to 53": (3.0, 6.0, 15.0, 24.0, 53.0),
}
"""Degrees of freedom of the errors, one of these for each network."""

HETEROGENEITY = (0.0, 0.5, 1.0, 2.0, 3.0)
"""Standard deviation between networks, in units of their error."""

GROUPS = ((3, 3), (5, 5), (10, 10), (2, 8), (3, 12), (3, 3, 3, 3), (2, 3, 6, 10))
"""Networks in each subgroup."""

Array = np.ndarray
Rows = list[dict[str, Any]]


def drawn(
    repeats: int, k: int, errors: str, dof: str, scatter: float, generator: np.random.Generator
) -> tuple[Array, Array, Array]:
    """Slopes, estimated variances and their degrees of freedom, (repeats, k) each."""
    reach = ERRORS[errors]
    true = np.exp(generator.uniform(-reach, reach, (repeats, k)))
    dofs = generator.choice(DOFS[dof], (repeats, k))
    finite = np.where(np.isfinite(dofs), dofs, 1.0)
    scale = np.where(np.isfinite(dofs), generator.chisquare(finite) / finite, 1.0)
    noise = generator.standard_normal((2, repeats, k))
    return scatter * noise[0] + true * noise[1], true**2 * scale, dofs


def paule_mandel(value: Array, variance: Array) -> Array:
    """Variance between networks, for each row."""
    tau2 = np.zeros(len(value))
    for _ in range(60):
        weight = 1 / (variance + tau2[:, None])
        mean = np.sum(weight * value, 1) / weight.sum(1)
        square = (value - mean[:, None]) ** 2
        excess = np.sum(weight * square, 1) - (value.shape[1] - 1)
        tau2 = np.maximum(tau2 + excess / np.sum(weight**2 * square, 1), 0.0)
    return tau2


def dersimonian_laird(value: Array, variance: Array) -> Array:
    """Variance between networks, for each row."""
    weight = 1 / variance
    total = weight.sum(1)
    mean = np.sum(weight * value, 1) / total
    q = np.sum(weight * (value - mean[:, None]) ** 2, 1)
    return np.maximum((q - value.shape[1] + 1) / (total - np.sum(weight**2, 1) / total), 0.0)


def reml(value: Array, variance: Array) -> Array:
    """Variance between networks by restricted likelihood, for each row."""
    tau2 = np.maximum(value.var(1, ddof=1) - variance.mean(1), 0.0)
    for _ in range(100):
        weight = 1 / (variance + tau2[:, None])
        mean = np.sum(weight * value, 1) / weight.sum(1)
        excess = np.sum(weight**2 * ((value - mean[:, None]) ** 2 - variance), 1)
        tau2 = np.maximum(excess / np.sum(weight**2, 1) + 1 / weight.sum(1), 0.0)
    return tau2


def in_use(value: Array, variance: Array) -> Iterator[tuple[str, float]]:
    """Coverage of the intervals that others use."""
    k = value.shape[1]
    reach = stats.t.ppf(0.975, k - 1)
    estimates = {"PM": paule_mandel, "DL": dersimonian_laird, "REML": reml}
    for name, estimate in estimates.items():
        weight = 1 / (variance + estimate(value, variance)[:, None])
        total = weight.sum(1)
        mean = np.sum(weight * value, 1) / total
        scale = np.sum(weight * (value - mean[:, None]) ** 2, 1) / (k - 1)
        ends = {
            "normal": stats.norm.ppf(0.975) * np.sqrt(1 / total),
            "Hartung-Knapp": reach * np.sqrt(scale / total),
            "modified": reach * np.sqrt(np.maximum(scale, 1) / total),
        }
        for interval, end in ends.items():
            yield f"{name}, {interval}", float(np.mean(np.abs(mean) < end))


def of_natstats(value: Array, variance: Array, dofs: Array) -> dict[str, Array]:
    """What ``pool`` gives for each row, all rows at once; the first rows are compared with it."""
    k = value.shape[1]
    tau2 = paule_mandel(value, variance)
    weight = 1 / (variance + tau2[:, None]) if k > 2 else np.ones_like(value)
    share = weight / weight.sum(1, keepdims=True)
    mean = np.sum(share * value, 1)
    factor = share**2 / (1 - share)
    spread = np.sum(factor * (value - mean[:, None]) ** 2, 1)
    own = factor * (1 / share - 1)
    square = np.sum(own**2, 1) + factor.sum(1) ** 2 - np.sum(factor**2, 1)
    reach = stats.t.ppf(0.975, own.sum(1) ** 2 / square) * np.sqrt(spread)
    ahead = np.full(len(value), np.nan)
    if k > 2:
        ahead = stats.t.ppf(0.975, k - 2) * np.sqrt(tau2 + spread)
    found = {
        "mean": mean,
        "reach": reach,
        "ahead": ahead,
        "tau": np.sqrt(tau2),
        "p": _homogeneity(value, variance, dofs),
    }
    for row in range(20):
        one = pool(value[row], np.sqrt(variance[row]), dofs[row])
        ends = one.mean.value, one.mean.high - one.mean.value, one.next_high - one.mean.value
        again = [found[name][row] for name in found]
        np.testing.assert_allclose([*ends, one.tau, one.q_p], again, rtol=1e-5, atol=1e-5)
    return found


def _homogeneity(value: Array, variance: Array, dofs: Array) -> Array:
    """P of Welch's test for each row; of chi-square where errors are known."""
    k = value.shape[1]
    weight = 1 / variance
    share = weight / weight.sum(1, keepdims=True)
    q = np.sum(weight * (value - np.sum(share * value, 1)[:, None]) ** 2, 1)
    doubt = np.sum((1 - share) ** 2 / dofs, 1)
    if not doubt.any():
        return np.asarray(stats.chi2.sf(q, k - 1))
    expected = (k - 1) * (1 + 2 * doubt * (k - 2) / (k**2 - 1))
    return np.asarray(stats.f.sf(q / expected, k - 1, (k**2 - 1) / (3 * doubt)))


def _mean_cell(
    k: int, errors: str, dof: str, scatter: float, repeats: int, generator: np.random.Generator
) -> dict[str, Any]:
    """Coverage of the mean's interval and of the next network's, and how often Q is too large."""
    value, variance, dofs = drawn(repeats, k, errors, dof, scatter, generator)
    found = of_natstats(value, variance, dofs)
    following = scatter * generator.standard_normal(repeats)
    return {
        "study": "mean",
        "networks": k,
        "errors": errors,
        "dof": dof,
        "heterogeneity": scatter,
        "repeats": repeats,
        "natstats": float(np.mean(np.abs(found["mean"]) < found["reach"])),
        **dict(in_use(value, variance)),
        "next": float(np.mean(np.abs(found["mean"] - following) < found["ahead"])),
        "told apart": float(np.mean(found["p"] < 0.05)),
        "tau": float(np.median(found["tau"])),
    }


def _group_cell(
    sizes: tuple[int, ...], errors: str, dof: str, scatter: float, repeats: int, seed: int
) -> dict[str, Any]:
    """How often groups without a difference are told apart."""
    k = sum(sizes)
    generator = np.random.default_rng([seed, 5, *sizes, int(10 * scatter)])
    value, variance, _ = drawn(repeats, k, errors, dof, scatter, generator)
    labels = [str(place) for place, size in enumerate(sizes) for _ in range(size)]
    tests = [compare_groups(*row, labels).p for row in zip(value, np.sqrt(variance), strict=True)]
    return {
        "study": "subgroups",
        "sizes": list(sizes),
        "errors": errors,
        "dof": dof,
        "heterogeneity": scatter,
        "repeats": repeats,
        "told apart": float(np.mean(np.array(tests) < 0.05)),
    }


def _shape_cell(k: int, layers: tuple[int, ...], repeats: int, seed: int) -> dict[str, Any]:
    """How often networks of one shape, with scatter of layers, are said to differ in shape."""
    generator = np.random.default_rng([seed, 9, k, *layers])
    p = []
    for _ in range(repeats):
        shapes = []
        for n in generator.choice(layers, k):
            depth = np.arange(1, n + 1) / n
            exponent = 1 + depth**2 + 0.1 * generator.standard_normal(n)
            shape = fit_shape(depth, exponent, 0.02 * generator.standard_normal((32, n)) / 32**0.5)
            assert shape is not None
            shapes.append(shape)
        p.append(shapes_agree(shapes, 0.95).p)
    return {
        "study": "shapes",
        "networks": k,
        "layers": list(layers),
        "repeats": repeats,
        "told apart": float(np.mean(np.array(p) < 0.05)),
    }


def rates(repeats: int, seed: int) -> Rows:
    """Coverage of the mean and of the next network, and rates of the tests where nothing is."""
    rows = []
    for k in (2, 3, 5, 10, 20):
        for place, errors in enumerate(ERRORS):
            for other, dof in enumerate(DOFS):
                if k < 5 and (errors != "differ 4-fold" or dof not in ("known", "3 to 53")):
                    continue
                for scatter in HETEROGENEITY:
                    generator = np.random.default_rng([seed, k, place, other, int(10 * scatter)])
                    rows.append(_mean_cell(k, errors, dof, scatter, repeats, generator))
                    _say(rows[-1])
    for sizes in GROUPS:
        for errors, dof in (("differ 4-fold", "known"), ("differ 4-fold", "3 to 53")):
            for scatter in (0.0, 1.0, 3.0):
                rows.append(_group_cell(sizes, errors, dof, scatter, repeats, seed))
                _say(rows[-1])
    for k in (2, 5, 20):
        for layers in ((9,), (17,), (9, 17, 26, 55)):
            rows.append(_shape_cell(k, layers, repeats, seed))
            _say(rows[-1])
    return rows


def _say(row: dict[str, Any]) -> None:
    print({k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
