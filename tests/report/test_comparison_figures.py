"""Figures of several runs: laws over each other, and differences."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.measurement.one_run import measure
from natstats.report.figures.difference import plot_control
from natstats.report.figures.law import plot_law
from natstats.report.figures.overlay import plot_overlay
from natstats.report.figures.style import PALETTE, WIDTH, look
from natstats.runs.comparison import compare
from natstats.runs.run import Run
from tests.report.drawn import drawn_texts, n_error_bars, outside, overlapping
from tests.report.small_networks import network


@pytest.fixture(scope="module")
def controlled(figure_images: np.ndarray) -> Run:
    return measure(network(), figure_images, control="random-weights", control_seeds=2)


@pytest.mark.slow
@pytest.mark.parametrize("width", ["double", "single"])
def test_differences_can_be_read_in_one_column_or_two(
    figure_run: Run, controlled: Run, figure_images: np.ndarray, width: str
) -> None:
    other = measure(
        network(), figure_images + 0.1 * np.random.default_rng(1).random(figure_images.shape)
    )
    for draw in (
        compare(figure_run, other, ("one", "another " * 9)).plot,
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
def test_layers_that_differ_are_filled(figure_run: Run, figure_images: np.ndarray) -> None:
    rough = np.random.default_rng(1).standard_normal(figure_images.shape)
    found = compare(figure_run, measure(network(), np.float32(rough)))
    layers = found.layers[np.isfinite(found.layers.difference)]
    filled = {
        float(y)
        for line in found.plot()[1].lines
        if line.get_marker() == "o" and to_rgba(line.get_markerfacecolor()) != to_rgba("white")
        for y in line.get_ydata()
    }
    assert filled == set(layers.difference[layers.p_corrected < 0.05])
    assert filled


@pytest.mark.parametrize("n", [0, len(PALETTE) + 1])
def test_too_many_runs_to_compare_are_refused(figure_run: Run, n: int) -> None:
    with pytest.raises(UsageError, match=rf"^runs: expected 1 to 8 runs.*; got {n}$"):
        plot_overlay([("run", figure_run.layers, figure_run.law)] * n)


@pytest.mark.slow
def test_eight_runs_have_eight_marks(figure_run: Run) -> None:
    names = [f"run {i}" for i in range(7)] + ["_hidden $x$"]
    ax = plot_overlay([(name, figure_run.layers, figure_run.law) for name in names])
    legend = ax.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    assert [label.partition(":")[0] for label in labels[:8]] == names
    marks = {(line.get_color(), line.get_marker()) for line in legend.get_lines()[:8]}
    assert len({colour for colour, _ in marks}) == len({marker for _, marker in marks}) == 8
    assert overlapping(ax) == []


MEASURE_WORDS = {
    "order": ("order of execution", "per layer"),
    "normalized": ("relative depth", "over the whole depth"),
    "receptive-field": ("input pixels", "per input pixel"),
}


@pytest.mark.slow
@pytest.mark.parametrize("measure", MEASURE_WORDS)
@pytest.mark.parametrize("width", ["single", "double"])
def test_law_and_comparison_are_over_the_measure_asked_for(
    figure_run: Run, measure: str, width: str
) -> None:
    other = figure_run.refit(depth=measure)
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
def test_runs_with_different_measures_do_not_share_an_axis(figure_run: Run) -> None:
    other = figure_run.refit(depth="receptive-field")
    with pytest.raises(UsageError, match="got layers, receptive-field"):
        plot_overlay([("one", figure_run.layers, figure_run.law), ("two", other.layers, other.law)])
