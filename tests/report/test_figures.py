"""The figures: what is drawn is what was measured, and can be read."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from natstats import power_law_fields
from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.law import VERDICTS, Law, fit_law
from natstats.law.verdict import HEADLINES, headline
from natstats.measurement.one_run import measure, measure_images
from natstats.numbers import change, interval, number, share
from natstats.report import draw_overlay, draw_run
from natstats.report.figures.band_sensitivity import MOST as MOST_PANELS
from natstats.report.figures.band_sensitivity import plot_sensitivity
from natstats.report.figures.difference import plot_control
from natstats.report.figures.drawing import RUN_FIGURES
from natstats.report.figures.image_spread import plot_spread
from natstats.report.figures.law import plot_law
from natstats.report.figures.overlay import plot_overlay
from natstats.report.figures.spectra import MOST, plot_spectra
from natstats.report.figures.spectra import MOST_PANELS as MOST_SIZES
from natstats.report.figures.style import MARKERS, PALETTE, WIDTH, kind_marks, look
from natstats.runs.comparison import compare
from natstats.runs.run import Run

nn = torch.nn


def network() -> nn.Sequential:
    """Seven layers of three kinds at three sizes; the fifth gives constant maps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 6, 1),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.Conv2d(6, 6, 1),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
    )
    # The sixth layer sees its constant input through a border of zeros, and so has a spectrum.
    with torch.no_grad():
        model[4].weight.zero_()
        model[4].bias.fill_(1.0)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    fields = power_law_fields(18, 32, 32, alpha=2.0, seed=1)
    noise = np.random.default_rng(0).standard_normal((18, 3, 32, 32))
    return np.float32(fields[:, None] + 0.1 * noise)


@pytest.fixture(scope="module")
def run(images: np.ndarray) -> Run:
    return measure(network(), images)


@pytest.fixture(scope="module")
def images_run(images: np.ndarray) -> Run:
    return measure_images(images)


def law_of(slope: float, n: int = 12, noise: float = 0.01) -> tuple[Law, np.ndarray]:
    depth = np.arange(1, n + 1)
    exponent = 1 + slope * depth + noise * np.random.default_rng(0).standard_normal(n)
    return _law(depth, exponent, ["8"] * n), exponent


def _law(depth: np.ndarray, exponent: np.ndarray, sizes: list[str]) -> Law:
    deviations = 1e-3 * np.random.default_rng(1).standard_normal((64, len(depth)))
    return fit_law(depth, exponent, deviations, sizes)


def n_error_bars(ax: Axes) -> int:
    return sum(len(one.get_segments()) for one in ax.collections if isinstance(one, LineCollection))


def n_points(ax: Axes) -> int:
    return sum(
        len(line.get_xdata()) for line in ax.lines if line.get_marker() not in ("None", None, "")
    )


def drawn_texts(ax: Axes) -> list[tuple[str, Bbox]]:
    """Every text that is painted in the figure, with its box."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    unpainted = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    return [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unpainted
    ]


def overlapping(ax: Axes) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap by more than half a pixel."""
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(drawn_texts(ax), 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
    ]


def outside(ax: Axes) -> list[str]:
    """Texts that stick out of the figure by more than a pixel."""
    whole = ax.get_figure(root=True).bbox.padded(1)
    return [
        text
        for text, box in drawn_texts(ax)
        if not (whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1))
    ]


def all_plots(run: Run) -> list[Axes]:
    return [
        plot_law(run.layers, run.law),
        plot_spectra(run.spectra, run.fits),
        plot_spread(run.spectra, run.fits),
        plot_overlay([("one", run.layers, run.law), ("two", run.layers, run.law)]),
    ]


@pytest.mark.slow
def test_the_run_has_a_layer_without_an_exponent(run: Run) -> None:
    assert np.isnan(run.layers.exponent).sum() == 1
    assert "constant" in set(run.layers["flags"])


def test_law_draws_one_point_and_one_bar_per_exponent(run: Run) -> None:
    ax = plot_law(run.layers, run.law)
    assert n_points(ax) == np.isfinite(run.layers.exponent).sum()
    bounded = np.isfinite(run.layers.exponent_low) & np.isfinite(run.layers.exponent_high)
    assert n_error_bars(ax) == bounded.sum() > 5


@pytest.mark.slow
def test_law_bars_end_where_the_intervals_end(run: Run) -> None:
    ax = plot_law(run.layers, run.law)
    ends = sorted(
        tuple(segment[:, 1])
        for one in ax.collections
        if isinstance(one, LineCollection)
        for segment in one.get_segments()
    )
    rows = run.layers[np.isfinite(run.layers.exponent_low)]
    expected = sorted(zip(rows.exponent_low, rows.exponent_high, strict=True))
    np.testing.assert_allclose(ends, expected)


def test_missing_exponents_are_counted(run: Run) -> None:
    legend = plot_law(run.layers, run.law).get_legend()
    assert legend is not None
    assert any("1 row without" in text.get_text() for text in legend.get_texts())
    whole = run.layers[np.isfinite(run.layers.exponent)]
    legend = plot_law(whole, run.law).get_legend()
    assert legend is not None
    assert not any("without" in text.get_text() for text in legend.get_texts())


def test_flagged_layers_are_hollow(run: Run) -> None:
    layers = run.layers.copy()
    flagged = layers.index[np.isfinite(layers.exponent)][-1]
    layers["flags"] = ""
    layers.loc[flagged, "flags"] = "few rings"
    ax = plot_law(layers, run.law)
    hollow = {
        float(y)
        for line in ax.lines
        if line.get_marker() in MARKERS and line.get_marker() != "D"
        if to_rgba(line.get_markerfacecolor()) == to_rgba("white")
        for y in line.get_ydata()
    }
    assert hollow == {layers.exponent[flagged]}
    assert "hollow: few rings" in _labels(ax)


def _labels(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.slow
def test_layers_that_were_not_asked_for_are_hollow_and_beside_the_line(run: Run) -> None:
    other = run.refit(law_layers="conv")
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
    assert not any("not in the law" in label for label in _labels(plot_law(run.layers, run.law)))


@pytest.mark.slow
def test_lines_end_where_the_layers_of_their_law_end(run: Run) -> None:
    other = run.refit(law_layers="conv")
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


def test_every_verdict_has_a_headline() -> None:
    assert set(HEADLINES) == set(VERDICTS)


def test_no_line_without_a_law() -> None:
    law, exponent = law_of(0.1, n=3)
    ax = plot_law(_rows(exponent), law)
    assert not [line for line in ax.lines if line.get_linestyle() != "None"]
    assert "too few layers" in ax.get_title(loc="left")


def test_axes_are_labelled_with_units(run: Run) -> None:
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in all_plots(run)]
    for x, y in (labels[0], labels[2], labels[3]):
        assert "weight layers" in x
        assert "exponent" in y
    assert "cycles per image" in all_plots(run)[1].figure.get_supxlabel()
    assert "relative" in labels[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("place", range(4))
def test_no_text_overlaps_or_is_cut(run: Run, place: int) -> None:
    ax = all_plots(run)[place]
    assert overlapping(ax) == []
    assert outside(ax) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", range(4))
def test_one_column_is_enough(run: Run, place: int) -> None:
    ax = Figure(figsize=(WIDTH["single"], 3.8), layout="constrained").add_subplot()
    draw = [
        lambda: plot_law(run.layers, run.law, ax=ax),
        lambda: plot_spectra(run.spectra, run.fits, ax=ax),
        lambda: plot_spread(run.spectra, run.fits, ax=ax),
        lambda: plot_overlay([("one", run.layers, run.law), ("two", run.layers, run.law)], ax=ax),
    ][place]
    with look():
        draw()
        assert overlapping(ax) == []
        assert outside(ax) == []


@pytest.fixture(scope="module")
def controlled(images: np.ndarray) -> Run:
    return measure(network(), images, control="random-weights", control_seeds=2)


@pytest.mark.slow
@pytest.mark.parametrize("width", ["double", "single"])
def test_differences_can_be_read_in_one_column_or_two(
    run: Run, controlled: Run, images: np.ndarray, width: str
) -> None:
    other = measure(network(), images + 0.1 * np.random.default_rng(1).random(images.shape))
    for draw in (
        compare(run, other, ("one", "another " * 9)).plot,
        lambda axes: plot_control(controlled.control, axes),
    ):
        figure = Figure(figsize=(WIDTH[width], 5.2), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        with look():
            assert draw((above, below)) == (above, below)
            assert overlapping(above) == []
            assert outside(above) == []


def test_differences_are_drawn_as_they_are(controlled: Run) -> None:
    control = controlled.control
    assert control is not None
    above, below = plot_control(control)
    rows = control.layers[np.isfinite(control.layers.difference)]
    assert len(rows) == len(control.layers) - 1  # constant maps have none
    drawn = [y for line in below.lines if line.get_marker() == "o" for y in line.get_ydata()]
    np.testing.assert_allclose(sorted(drawn), sorted(rows.difference))
    assert n_error_bars(below) == len(rows)
    dashes = [y for line in above.lines if line.get_marker() == "_" for y in line.get_ydata()]
    seeds = control.layers[["seed_0", "seed_1"]].to_numpy().T.ravel()
    np.testing.assert_allclose(dashes, seeds[np.isfinite(seeds)])


@pytest.mark.slow
def test_layers_that_differ_are_filled(run: Run, images: np.ndarray) -> None:
    rough = np.random.default_rng(1).standard_normal(images.shape)
    found = compare(run, measure(network(), np.float32(rough)))
    layers = found.layers[np.isfinite(found.layers.difference)]
    filled = {
        float(y)
        for line in found.plot()[1].lines
        if line.get_marker() == "o" and to_rgba(line.get_markerfacecolor()) != to_rgba("white")
        for y in line.get_ydata()
    }
    assert filled == set(layers.difference[layers.p_corrected < 0.05])
    assert filled


def test_overlap_is_found() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    ax.text(0.5, 0.5, "one")
    ax.text(0.51, 0.5, "other")
    assert ("one", "other") in overlapping(ax)
    ax.text(1.3, 0.5, "far away")
    assert outside(ax) == ["far away"]


def test_images_alone_can_be_drawn(images_run: Run) -> None:
    ax = plot_spread(images_run.spectra, images_run.fits)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["input, grey", "input, colour"]
    assert overlapping(ax) == []
    assert overlapping(plot_spectra(images_run.spectra, images_run.fits)) == []


def test_given_axes_are_used_and_returned(run: Run) -> None:
    for draw in (
        lambda ax: plot_law(run.layers, run.law, ax=ax),
        lambda ax: plot_spectra(run.spectra, run.fits, ax=ax),
        lambda ax: plot_spread(run.spectra, run.fits, ax=ax),
        lambda ax: plot_overlay([("one", run.layers, run.law)], ax=ax),
    ):
        ax = Figure().add_subplot()
        assert draw(ax) is ax
        assert ax.lines


@pytest.mark.slow
def test_pyplot_and_its_settings_are_left_alone(run: Run) -> None:
    before = dict(plt.rcParams)
    all_plots(run)
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def panels_of(ax: Axes) -> tuple[list[Axes], list[Axes]]:
    """Panels of spectra, and those of what their fits leave."""
    axes = [one for one in ax.figure.axes if one.get_label() != "<colorbar>"]
    return [one for one in axes if one.get_title("left")], [
        one for one in axes if not one.get_title("left")
    ]


def curves_of(ax: Axes) -> list[Line2D]:
    """Curves of layers; those of the images are dashed."""
    return [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]


def test_every_map_size_has_a_panel_in_which_spectra_begin_at_one(run: Run) -> None:
    upper, lower = panels_of(plot_spectra(run.spectra, run.fits))
    drawn = [
        (measured, fit) for measured, fit in zip(run.spectra, run.fits.layers, strict=True)
        if measured.layer.kind != "input" and not measured.spectrum.is_constant
    ]  # fmt: skip
    sizes = sorted({m.spectrum.height for m, _ in drawn}, reverse=True)
    assert len(upper) == len(lower) == len(sizes) > 1
    for size, above, below in zip(sizes, upper, lower, strict=True):
        own = [pair for pair in drawn if pair[0].spectrum.height == size]
        counted = f"{size} × {size} px · {len(own)} layer{'' if len(own) == 1 else 's'}"
        assert above.get_title("left") == counted
        assert len(above.lines) == len(curves_of(above)) + 2  # the images, in grey and colour
        for line, (measured, _) in zip(curves_of(above), own, strict=True):
            power = measured.spectrum.mean_power
            np.testing.assert_allclose(line.get_ydata(), power / power[0])
            np.testing.assert_allclose(line.get_xdata(), measured.cycles_per_image)
        for line, (measured, fit) in zip(curves_of(below), own, strict=True):
            rest = measured.spectrum.mean_power / fit.fitted_power
            np.testing.assert_allclose(line.get_ydata(), rest[np.isfinite(rest)])
            low, high = below.get_ylim()
            assert low < np.nanmin(rest)
            assert high > np.nanmax(rest)


def of_sizes(run: Run, sizes: list[int]) -> Run:
    """Layers of these sizes, with spectra of noise."""
    layer = run.spectra[2].layer
    spectra = []
    for place, size in enumerate(sizes):
        fields = power_law_fields(8, size, size, alpha=1.5, seed=place)[:, None]
        own = measure_images(np.float32(fields)).spectra[0].spectrum
        named = {**vars(layer), "name": f"layer{place}", "depth": place + 1}
        spectra.append(type(run.spectra[2])(type(layer)(**named), own))
    return Run(spectra)


@pytest.mark.slow
def test_many_map_sizes_share_panels_with_those_nearest(run: Run) -> None:
    many = of_sizes(run, [64, 62, 48, 40, 32, 24, 20, 16, 12, 10, 8])
    upper, _ = panels_of(plot_spectra(many.spectra, many.fits))
    titles = [ax.get_title("left") for ax in upper]
    assert len(titles) == MOST_SIZES
    assert titles[0] == "64 × 64 to 62 × 62 px\n2 layers"
    assert sum(len(curves_of(ax)) for ax in upper) == 11
    for ax in (plot_spectra(many.spectra, many.fits),):
        assert overlapping(ax) == []
        assert outside(ax) == []


@pytest.mark.slow
def test_of_very_many_layers_some_of_every_size_are_drawn_and_it_is_said(run: Run) -> None:
    few = of_sizes(run, [32, 16])
    spectra = [few.spectra[0], *few.spectra[1:] * (MOST + 20)]
    many = Run(spectra)
    ax = plot_spectra(many.spectra, many.fits)
    upper, _ = panels_of(ax)
    n_drawn = [len(curves_of(one)) for one in upper]
    assert n_drawn[0] == 1
    assert MOST - 2 <= sum(n_drawn) <= MOST
    said = ax.figure.legends[0].get_texts()[0].get_text()
    assert said == f"layer ({sum(n_drawn)} of {MOST + 21}, evenly spaced)"
    assert upper[1].get_title("left").endswith(f"{MOST + 20} layers")


def test_one_axes_holds_all_sizes(run: Run) -> None:
    ax = Figure().add_subplot()
    assert plot_spectra(run.spectra, run.fits, ax=ax) is ax
    starts = [line.get_ydata()[0] for line in ax.lines]
    assert len(starts) == len(run.spectra) - 1  # one is constant
    np.testing.assert_allclose(starts, 1.0)


def test_spread_shows_the_quantiles_of_the_images(run: Run) -> None:
    ax = plot_spread(run.spectra, run.fits)
    bars = [one.get_segments()[0][:, 1] for one in ax.collections]
    fits = [fit for fit in run.fits.layers if len(fit.image_exponents)]
    expected = [
        np.quantile(fit.image_exponents, q) for fit in fits for q in ([0.05, 0.95], [0.25, 0.75])
    ]
    np.testing.assert_allclose(bars, expected)
    dashes = next(line for line in ax.lines if line.get_marker() == "_")
    exponents = run.fits.exponents
    np.testing.assert_allclose(dashes.get_ydata(), exponents[np.isfinite(exponents)])


@pytest.mark.slow
def test_sensitivity_draws_what_was_fitted_layer_by_layer(run: Run) -> None:
    frame = run.sensitivity
    figure = plot_sensitivity(frame)
    inner = frame[~frame.layer.str.startswith("input") & frame.duplicated(["layer", "side"])]
    names = ["input.grey", *inner.layer.unique()]
    assert 5 < len(figure.axes) == len(names) <= MOST_PANELS
    for ax, name in zip(figure.axes, names, strict=True):
        rows = frame[frame.layer == name]
        for side, marker in (("low", "o"), ("high", "s")):
            own = rows[rows.side == side]
            line = next(line for line in ax.lines if line.get_marker() == marker)
            np.testing.assert_allclose(line.get_xdata(), own[f"band_{side}"])
            np.testing.assert_allclose(line.get_ydata(), own.exponent)
    assert "cycles per pixel" in figure.get_supxlabel()
    assert overlapping(figure.axes[0]) == outside(figure.axes[0]) == []


@pytest.mark.slow
@pytest.mark.parametrize("n_layers", [1, 3, 30])
@pytest.mark.parametrize("width", WIDTH.values())
def test_sensitivity_fits_any_number_of_layers(run: Run, n_layers: int, width: float) -> None:
    one = run.sensitivity[run.sensitivity.layer == "0"]
    frame = pd.concat(one.assign(layer=f"$stage_{i}$." + i * "long.") for i in range(n_layers))
    given = Figure(figsize=(width, 6.5), layout="constrained")
    figure = plot_sensitivity(frame, given)
    assert figure is given
    assert len(figure.axes) == min(n_layers, MOST_PANELS)
    assert overlapping(figure.axes[0]) == outside(figure.axes[0]) == []
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any(f"{MOST_PANELS} of {n_layers} rows" in text for text in texts) == (n_layers > 8)


@pytest.mark.parametrize("n", [0, len(PALETTE) + 1])
def test_too_many_runs_to_compare_are_refused(run: Run, n: int) -> None:
    with pytest.raises(UsageError, match=rf"^runs: expected 1 to 8 runs.*; got {n}$"):
        plot_overlay([("run", run.layers, run.law)] * n)


@pytest.mark.slow
def test_eight_runs_have_eight_marks(run: Run) -> None:
    names = [f"run {i}" for i in range(7)] + ["_hidden $x$"]
    ax = plot_overlay([(name, run.layers, run.law) for name in names])
    legend = ax.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert [label.partition(":")[0] for label in labels[:8]] == names
    marks = {(line.get_color(), line.get_marker()) for line in legend.get_lines()[:8]}
    assert len({colour for colour, _ in marks}) == len({marker for _, marker in marks}) == 8
    assert overlapping(ax) == []


def test_kinds_keep_their_marks_and_never_share_one() -> None:
    assert kind_marks(["conv", "act"])["act"] == kind_marks(["act"])["act"]
    kinds = [f"Kind{i}" for i in range(20)]
    marks = kind_marks(kinds)
    assert len(set(marks.values())) == 20


@pytest.mark.draws
@pytest.mark.slow
def test_files_are_written_and_reproducible(run: Run, tmp_path: Path) -> None:
    first = draw_run(run.report(), tmp_path / "a")
    second = draw_run(run.report(), tmp_path / "b")
    names = ["law", "specifications", "spectra", "spread", "sensitivity"]
    assert [p.name for p in first] == [f"{n}.{s}" for n in names for s in ("svg", "png")]
    for one, other in zip(first, second, strict=True):
        assert one.parent == tmp_path / "a"
        assert one.read_bytes() == other.read_bytes()
    assert first[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<text" not in first[0].read_text(encoding="utf-8")


def test_what_has_no_data_is_left_out(images_run: Run, tmp_path: Path) -> None:
    names = [path.stem for path in draw_run(images_run.report(), tmp_path) if path.suffix == ".svg"]
    assert names == ["spectra", "spread", "sensitivity"]


def test_a_name_in_another_script_is_no_error(run: Run, tmp_path: Path) -> None:
    files = draw_overlay([("残差", run), ("a" * 200, run)], tmp_path)
    assert [path.name for path in files] == ["compare.svg", "compare.png"]


def test_importing_the_package_does_not_load_matplotlib() -> None:
    code = "import sys, natstats.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("low", "high"), [(-1e-5, 0.02), (1e-7, 0.5), (-0.3, -1e-9), (-0.1, 0.1)])
def test_rounding_does_not_move_an_interval_across_zero(low: float, high: float) -> None:
    shown = interval(low, high).strip("[]").replace("\N{MINUS SIGN}", "-").split(", ")
    assert [np.sign(float(end)) for end in shown] == [np.sign(low), np.sign(high)]
    assert len({len(end.partition(".")[2]) for end in shown}) == 1
    assert interval(low, high, 4, sign=True) in change((low + high) / 2, low, high)


def test_numbers_that_are_missing_say_so() -> None:
    assert number(float("nan")) == number(float("inf")) == "–"
    assert change(0.1, float("nan"), 0.2) == "+0.1000 no interval"


MEASURE_WORDS = {
    "order": ("order of execution", "per layer"),
    "normalized": ("relative depth", "over the whole depth"),
    "receptive-field": ("input pixels", "per input pixel"),
}


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURE_WORDS)
@pytest.mark.parametrize("width", ["single", "double"])
def test_law_and_comparison_are_over_the_measure_asked_for(
    run: Run, measure: str, width: str
) -> None:
    other = run.refit(depth=measure)
    runs = [("one", other.layers, other.law), ("two", other.layers, other.law)]
    for draw in (plot_law, plot_overlay):
        ax = Figure(figsize=(WIDTH[width], 4.0), layout="constrained").add_subplot()
        with look():
            _ = draw(other.layers, other.law, ax=ax) if draw is plot_law else draw(runs, ax=ax)
            assert overlapping(ax) == []
            assert outside(ax) == []
        axis, per = MEASURE_WORDS[measure]
        assert axis in ax.get_xlabel()
        said = [text for text, _ in drawn_texts(ax)]
        assert width == "single" or draw is plot_overlay or any(per in text for text in said)
        deepest = float(DEPTH_AXES[measure].values(other.layers).max())
        drawn = max(max(line.get_xdata()) for line in ax.lines if line.get_marker() == "o")
        assert drawn == pytest.approx(deepest, rel=0.05)


@pytest.mark.slow
def test_layers_without_a_receptive_field_are_counted_not_drawn(run: Run) -> None:
    other = run.refit(depth="receptive-field")
    layers = other.layers.copy()
    before = n_points(plot_law(layers, other.law))
    layers.loc[layers.index[-1], "receptive_field"] = np.nan
    ax = plot_law(layers, other.law)
    assert n_points(ax) == before - 1
    assert any("without a\nknown depth" in text for text, _ in drawn_texts(ax))


@pytest.mark.slow
def test_runs_with_different_measures_do_not_share_an_axis(run: Run) -> None:
    other = run.refit(depth="receptive-field")
    with pytest.raises(UsageError, match="got layers, receptive-field"):
        plot_overlay([("one", run.layers, run.law), ("two", other.layers, other.law)])


@pytest.mark.slow
def test_another_figure_is_one_record(tmp_path, monkeypatch):
    """It is drawn, stands on the page, and is the run's own when the run is replaced."""
    other = replace(
        RUN_FIGURES["spectra"],
        name="another",
        title="Another view",
        description=lambda run: "seen anew",
    )
    monkeypatch.setitem(RUN_FIGURES, "another", other)
    run = measure_images(power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    for _ in range(2):
        run.save(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "figures" / "another.svg").is_file()
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Another view</h2>" in page
    assert 'alt="seen anew"' in page
