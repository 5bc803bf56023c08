"""The figure of the law: points, bars, its line and its best shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.law import VERDICTS, Law, fit_law
from natstats.law.verdict import HEADLINES, headline
from natstats.numbers import share
from natstats.report.figures.law import plot_law
from natstats.report.figures.overlay import plot_overlay
from natstats.report.figures.style import MARKERS, WIDTH, look
from natstats.runs.run import Run
from tests.report.drawn import drawn_texts, n_error_bars, n_points, outside, overlapping


def law_of(slope: float, n: int = 12, noise: float = 0.01) -> tuple[Law, np.ndarray]:
    depth = np.arange(1, n + 1)
    exponent = 1 + slope * depth + noise * np.random.default_rng(0).standard_normal(n)
    return _law(depth, exponent, ["8"] * n), exponent


def _law(depth: np.ndarray, exponent: np.ndarray, sizes: list[str]) -> Law:
    deviations = 1e-3 * np.random.default_rng(1).standard_normal((64, len(depth)))
    return fit_law(depth, exponent, deviations, sizes)


def _rows(exponent: np.ndarray):
    n = len(exponent)
    return pd.DataFrame(
        {
            "layer": [f"l{i}" for i in range(n)],
            "kind": "conv",
            "depth": np.arange(1, n + 1),
            "height": 8,
            "width": 8,
            "exponent": exponent,
            "exponent_low": exponent - 0.1,
            "exponent_high": exponent + 0.1,
            "flags": "",
        }
    )


def _labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.slow
def test_the_run_has_a_layer_without_an_exponent(figure_run: Run) -> None:
    assert np.isnan(figure_run.layers.exponent).sum() == 1
    assert "constant" in set(figure_run.layers["flags"])


def test_law_draws_one_point_and_one_bar_per_exponent(figure_run: Run) -> None:
    ax = plot_law(figure_run.layers, figure_run.law)
    assert n_points(ax) == np.isfinite(figure_run.layers.exponent).sum()
    bounded = np.isfinite(figure_run.layers.exponent_low) & np.isfinite(
        figure_run.layers.exponent_high
    )
    assert n_error_bars(ax) == bounded.sum() > 5


@pytest.mark.slow
def test_law_bars_end_where_the_intervals_end(figure_run: Run) -> None:
    ax = plot_law(figure_run.layers, figure_run.law)
    ends = sorted(
        tuple(segment[:, 1])
        for one in ax.collections
        if isinstance(one, LineCollection)
        for segment in one.get_segments()
    )
    rows = figure_run.layers[np.isfinite(figure_run.layers.exponent_low)]
    expected = sorted(zip(rows.exponent_low, rows.exponent_high, strict=True))
    np.testing.assert_allclose(ends, expected)


def test_missing_exponents_are_counted(figure_run: Run) -> None:
    legend = plot_law(figure_run.layers, figure_run.law).get_legend()
    assert legend is not None
    assert any("1 row without" in text.get_text() for text in legend.get_texts())
    whole = figure_run.layers[np.isfinite(figure_run.layers.exponent)]
    legend = plot_law(whole, figure_run.law).get_legend()
    assert legend is not None
    assert not any("without" in text.get_text() for text in legend.get_texts())


def test_flagged_layers_are_hollow(figure_run: Run) -> None:
    layers = figure_run.layers.copy()
    flagged = layers.index[np.isfinite(layers.exponent)][-1]
    layers["flags"] = ""
    layers.loc[flagged, "flags"] = "few rings"
    ax = plot_law(layers, figure_run.law)
    hollow = {
        float(y)
        for line in ax.lines
        if line.get_marker() in MARKERS and line.get_marker() != "D"
        if to_rgba(line.get_markerfacecolor()) == to_rgba("white")
        for y in line.get_ydata()
    }
    assert hollow == {layers.exponent[flagged]}
    assert "hollow: few rings" in _labels(ax)


@pytest.mark.slow
def test_layers_that_were_not_asked_for_are_hollow_and_beside_the_line(figure_run: Run) -> None:
    other = figure_run.refit(law_layers="conv")
    left_out = other.layers[other.layers["law"] == "not asked for"]
    assert len(left_out) > 1
    ax = plot_law(other.layers, other.law)
    hollow = {
        float(y)
        for line in ax.lines
        if line.get_marker() in "os^" and to_rgba(line.get_markerfacecolor()) == to_rgba("white")
        for y in line.get_ydata()
    }
    assert set(left_out.exponent.dropna()) <= hollow
    assert any("not in the law" in label for label in _labels(ax))
    assert not any(
        "not in the law" in label for label in _labels(plot_law(figure_run.layers, figure_run.law))
    )


@pytest.mark.slow
def test_lines_end_where_the_layers_of_their_law_end(figure_run: Run) -> None:
    other = figure_run.refit(law_layers="conv")
    depths = other.layers.depth[other.layers["law"] == "yes"]
    law = replace(law_of(0.1)[0], depth="layers")
    overlay = plot_overlay([("one", other.layers, law)])
    for ax in (overlay, plot_law(other.layers, law)):
        (line,) = (line for line in ax.lines if (line.get_linestyle(), line.zorder) == ("-", 2))
        assert [*line.get_xdata()[[0, -1]]] == [depths.min(), depths.max()]
        assert depths.min() > 0
    assert any("not in the law" in label for label in _labels(overlay))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_line_is_solid_only_for_a_linear_law(verdict: str) -> None:
    law, exponent = law_of(0.1)
    assert law.verdict == "linear law"
    ax = plot_law(_rows(exponent), replace(law, verdict=verdict))
    (line,) = (line for line in ax.lines if line.get_linestyle() != "None")
    assert line.get_linestyle() == ("-" if verdict == "linear law" else "--")
    np.testing.assert_allclose(line.get_ydata()[[0, -1]], law.predict(np.array([1.0, 12.0]))[0])
    assert ("line of the law" in _labels(ax)) == (verdict == "linear law")


DEEP = np.arange(1.0, 25.0)
STAGES = ["32"] * 8 + ["16"] * 8 + ["8"] * 8
CURVES = {
    "quadratic": 1 + 0.01 * (DEEP - 12) ** 2,
    "saturating": 1 + 2 * (1 - np.exp(-(DEEP - 1) / 4)),
    "step per resolution": np.repeat([1.0, 2.5, 1.7], 8),
}


@pytest.mark.parametrize("shape", CURVES)
def test_the_best_shape_goes_through_its_values_and_says_what_it_explains(shape: str) -> None:
    noise = 0.05 * np.random.default_rng(0).standard_normal(24)
    law = _law(DEEP, CURVES[shape] + noise, STAGES)
    assert law.network is not None
    assert law.network.shape == shape
    ax = plot_law(_rows(CURVES[shape] + noise), law)
    line, dotted = (line for line in ax.lines if line.get_marker() == "None" and _is_long(line))
    assert line.get_linestyle() == "--"
    depth, value = np.array(law.network.shape_values).T
    x, y = dotted.get_data()
    if shape.startswith("step"):
        assert set(y) == set(value)  # flat, and half way between layers from one to the next
        for one, own in zip(depth, value, strict=True):
            assert own in y[np.abs(x - one) <= 0.5]
    else:
        np.testing.assert_allclose(np.interp(depth, x, y), value, atol=0.02)
        assert y.min() >= value.min() - 0.02
        assert y.max() <= value.max() + 0.02
    told = f"best shape here:\n{shape}\n({share(law.network.shape_share)} of the variance)"
    assert told in _labels(ax)


def _is_long(line) -> bool:
    return len(line.get_xdata()) > 10


def test_a_straight_line_has_no_shape_beside_it() -> None:
    law, exponent = law_of(0.1)
    assert law.best_shape == "linear"
    assert not any("shape" in label for label in _labels(plot_law(_rows(exponent), law)))


def test_a_wide_band_does_not_press_the_points_together() -> None:
    exponent = np.array([1.0, 1.3, 0.9, 1.2, 1.1])
    law = replace(_law(np.arange(1.0, 6), exponent, ["8"] * 5), covariance=((90, 0), (0, 9)))
    low, high = plot_law(_rows(exponent), law).get_ylim()
    assert high - low == pytest.approx(3 * 0.6)


@pytest.mark.slow
@pytest.mark.parametrize("measure", DEPTH_AXES)
@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("width", WIDTH)
def test_no_verdict_is_cut(verdict: str, measure: str, width: str) -> None:
    law, exponent = law_of(0.1)
    law = replace(law, verdict=verdict, depth=measure, slope=-0.123456, slope_low=-0.2)
    rows = _rows(exponent).assign(order=np.arange(1, 13), receptive_field=np.arange(3.0, 15))
    with look():
        ax = Figure(figsize=(WIDTH[width], 4.0), layout="constrained").add_subplot()
        plot_law(rows, law, ax=ax)
        title = ax.get_title(loc="left")
        assert headline(law) in title.replace("\n", " ")
        assert "−0.1235 [" in title
        assert len(title.split("\n")) <= (2 if width == "double" else 3)
        assert outside(ax) == overlapping(ax) == []


def test_every_verdict_has_a_headline() -> None:
    assert set(HEADLINES) == set(VERDICTS)


def test_no_line_without_a_law() -> None:
    law, exponent = law_of(0.1, n=3)
    ax = plot_law(_rows(exponent), law)
    assert not [line for line in ax.lines if line.get_linestyle() != "None"]
    assert "too few layers" in ax.get_title(loc="left")


@pytest.mark.slow
def test_layers_without_a_receptive_field_are_counted_not_drawn(figure_run: Run) -> None:
    other = figure_run.refit(depth="receptive-field")
    layers = other.layers.copy()
    before = n_points(plot_law(layers, other.law))
    layers.loc[layers.index[-1], "receptive_field"] = np.nan
    ax = plot_law(layers, other.law)
    assert n_points(ax) == before - 1
    assert any("without a\nknown depth" in text for text, _ in drawn_texts(ax))
