"""The figures of an account: what is drawn is what was accounted for, and can be read."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from natstats.errors import UsageError
from natstats.files.ownership import KINDS
from natstats.numbers import change, number
from natstats.report import AccountReport, draw_run
from natstats.report.figures.account import layers_of_trunk, plot_account
from natstats.report.figures.account_totals import plot_account_totals
from natstats.report.figures.causes import CAUSE_STYLES, cause_name, share_text, without_rounding
from natstats.report.figures.drawing import RUN_FIGURES
from natstats.report.figures.kernels import (
    convolutions,
    median_difference,
    plot_kernel_exponents,
    plot_kernels,
)
from natstats.report.figures.style import WIDTH, look
from natstats.report.pages.account import (
    MEANINGS,
)
from natstats.report.pages.run import PLACED
from natstats.runs.run import Run
from natstats.theory.account import CAUSES
from tests.report.account_reports import FIGURES, deep, with_account
from tests.report.drawn import unreadable


def test_every_cause_has_a_look_of_its_own_in_colours_and_in_grey() -> None:
    styles = [*CAUSE_STYLES.values()]
    assert [*CAUSE_STYLES] == [*CAUSES] == [*MEANINGS]
    for a, b in itertools.combinations(styles, 2):
        assert a.colour != b.colour
        assert a.marker != b.marker
        if a.hatch == b.hatch:
            greys = [float(np.dot(to_rgb(one.colour), (0.299, 0.587, 0.114))) for one in (a, b)]
            assert abs(greys[0] - greys[1]) > 0.04, (a, b)


def bars(ax: Axes) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (one.get_x() + one.get_width() / 2, one.get_y(), one.get_height(),
             to_hex(one.get_facecolor()).lower())
            for one in ax.patches
            if isinstance(one, Rectangle)
        ],
        columns=["x", "y", "height", "colour"],
    )  # fmt: skip


def test_bars_of_a_layer_start_where_the_last_has_ended_and_leave_it_at_the_next(
    shown_account: AccountReport,
) -> None:
    above, _ = plot_account(shown_account)
    layers, drawn = layers_of_trunk(shown_account.frame), bars(above)
    for row in layers.to_dict("records"):
        own = drawn[np.isclose(drawn.x, row["depth"] - 0.5)]
        assert own.height.sum() == pytest.approx(row["after"] - row["before"])
        up, down = own[own.height > 0], own[own.height < 0]
        assert up.empty or up.y.min() == pytest.approx(row["before"])
        assert down.empty or down.y.max() == pytest.approx(row["before"])
        for cause, style in CAUSE_STYLES.items():
            height = own.height[own.colour == style.colour.lower()].sum()
            assert height == pytest.approx(np.nan_to_num(row.get(cause, 0.0)), abs=1e-12)
    stairs = [line for line in above.lines if line.get_drawstyle() == "steps-post"]
    for line in stairs:
        np.testing.assert_allclose(line.get_xdata(), [0, *layers.depth])
        np.testing.assert_allclose(line.get_ydata(), [layers.before[0], *layers.after])


def test_running_sums_end_at_the_totals(shown_account: AccountReport) -> None:
    above, below = plot_account(shown_account)
    totals = shown_account.totals.set_index("cause").share
    ends = {to_hex(line.get_color()).lower(): line.get_ydata()[-1] for line in below.lines[1:]}
    for cause, total in totals.items():
        assert ends[CAUSE_STYLES[str(cause)].colour.lower()] == pytest.approx(total)
    assert below.lines[-1].get_ydata()[-1] == pytest.approx(shown_account.change.value)
    legend = above.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    expected = [
        f"{cause_name(str(c))} {number(without_rounding(t), sign=True)}" for c, t in totals.items()
    ]
    assert labels == [*expected, f"exponent {number(shown_account.change.value, sign=True)}"]


def test_layers_of_one_depth_are_drawn_in_order() -> None:
    made = deep(4)
    made = replace(made, frame=made.frame.assign(depth=[1] * 6 + [2] * 6))
    above, below = plot_account(made)
    assert sorted({*bars(above).x}) == [0.5, 1.5, 2.5, 3.5]
    assert "in order" in below.get_xlabel()


@pytest.mark.slow
def test_bars_too_narrow_for_hatching_have_none() -> None:
    with look():
        assert any(one.get_hatch() for one in plot_account(deep(40))[0].patches)
        assert not any(one.get_hatch() for one in plot_account(deep(150))[0].patches)


@pytest.mark.slow
def test_the_bars_of_a_cause_are_hatched_in_one_shape() -> None:
    """Printed pages keep a picture of the hatching for every shape that has one."""
    with look():
        ax, _ = plot_account(deep(40))
    hatched = [one for one in ax.patches if one.get_hatch()]
    assert 0 < len(hatched) <= len(CAUSE_STYLES)
    for shape in hatched:
        style = next(one for one in CAUSE_STYLES.values() if one.hatch == shape.get_hatch())
        drawn = bars(ax)
        own = drawn[drawn.colour == style.colour.lower()]
        corners = shape.get_path().vertices
        for row in own[own.height != 0].to_dict("records"):
            for y in (row["y"], row["y"] + row["height"]):
                assert np.isclose(corners, [row["x"] - 0.4, y]).all(axis=1).any()


def test_totals_are_as_long_as_they_are(shown_account: AccountReport) -> None:
    ax = plot_account_totals(shown_account)
    widths = [one.get_width() for one in ax.patches]
    np.testing.assert_allclose(widths, [*shown_account.totals.share, shown_account.change.value])
    texts = {text.get_text() for text in ax.texts}
    for row in shown_account.totals.to_dict("records"):
        assert share_text(row["share"], row["low"], row["high"]) in texts
    ends = {tuple(s[:, 0]) for one in ax.collections for s in one.get_segments()}
    assert (shown_account.change.low, shown_account.change.high) in ends


def test_totals_stand_beside_those_of_random_weights(whole_account: AccountReport) -> None:
    ax = plot_account_totals(whole_account)
    assert whole_account.difference is not None
    widths = np.array([one.get_width() for one in ax.patches]).reshape(-1, 2)
    np.testing.assert_allclose(widths[:-1, 0], whole_account.totals.share)
    np.testing.assert_allclose(widths[:-1, 1], 0.25)
    assert widths[-1, 1] == pytest.approx(0.25 * len(whole_account.totals))
    texts = {text.get_text() for text in ax.texts}
    for row in whole_account.difference.to_dict("records"):
        assert change(row["difference"], row["low"], row["high"], 2) in texts


def test_a_cause_that_one_network_lacks_adds_nothing_there(whole_account: AccountReport) -> None:
    assert whole_account.difference is not None
    other = replace(whole_account, difference=whole_account.difference.iloc[1:])
    widths = np.array([one.get_width() for one in plot_account_totals(other).patches])
    assert widths.reshape(-1, 2)[0].tolist() == [whole_account.totals.share.iloc[0], 0.0]


def points(ax: Axes) -> set[tuple[float, float]]:
    return {
        (round(float(x), 9), round(float(y), 9))
        for line in ax.lines
        if line.get_linestyle() == "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if np.isfinite(x + y)
    }


def test_kernels_are_drawn_against_what_was_measured(shown_account: AccountReport) -> None:
    found = convolutions(shown_account.frame)
    for ax, name in zip(plot_kernels(shown_account), ("independent", "linear"), strict=True):
        rows = found[np.isfinite(found[name])]
        expected = zip(rows[name].round(9), rows.measured.round(9), strict=True)
        assert points(ax) == {*expected}
        median, n = median_difference(found, name)
        assert f"median difference {number(median)} (n = {n})" in ax.get_title(loc="left")


def test_kernels_and_rectifiers_are_drawn_by_depth(shown_account: AccountReport) -> None:
    above, below = plot_kernel_exponents(shown_account)
    found = convolutions(shown_account.frame)
    own = found[found["sort"] != "1 × 1"]
    values = {*own.kernel_exponent.round(9), *own.shuffled_exponent.dropna().round(9)}
    assert {y for _, y in points(above)} == values
    rows = shown_account.frame[shown_account.frame.cause == "rectifiers"]
    measured = rows.groupby("step").share.sum()
    gaussian = rows.share[rows.part == "Gaussian"]
    assert len(gaussian) > 1
    assert {y for _, y in points(below)} == {*measured.round(9), *gaussian.round(9)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["small", "whole", "deep"])
def test_every_figure_can_be_read(
    kind: str, shown_account: AccountReport, whole_account: AccountReport
) -> None:
    made = {"small": shown_account, "whole": whole_account, "deep": deep(150)}[kind]
    with look():
        assert unreadable(plot_account(made)[0]) == []
        assert unreadable(plot_account_totals(made)) == []
        assert unreadable(plot_kernels(made)[0]) == []
        assert unreadable(plot_kernel_exponents(made)[0]) == []


@pytest.mark.slow
def test_one_column_is_enough(whole_account: AccountReport) -> None:
    def axes(n: int, height: float) -> Any:
        figure = Figure(figsize=(WIDTH["single"], height), layout="constrained")
        return figure.subplots(n, 1)

    with look():
        for draw, height in ((plot_account, 6.4), (plot_kernels, 6.4), (plot_kernel_exponents, 6)):
            pair = tuple(axes(2, height))
            assert draw(whole_account, pair) == pair
            assert unreadable(pair[0]) == []
        ax = axes(1, 5.0)
        assert plot_account_totals(whole_account, ax) is ax
        assert unreadable(ax) == []


@pytest.mark.slow
def test_without_an_account_there_is_no_figure_of_it(account_run: Run) -> None:
    assert all(RUN_FIGURES[name].draw(with_account(account_run, None)) is None for name in FIGURES)


def test_a_run_without_an_account_says_that_it_has_none(account_run: Run) -> None:
    for draw in (account_run.plot_account, account_run.plot_kernels):
        with pytest.raises(UsageError, match="run: expected one that was measured with an account"):
            draw()


@pytest.mark.slow
def test_the_figures_are_files_that_natstats_owns(
    account_run: Run, shown_account: AccountReport, tmp_path: Path
) -> None:
    names = [path.name for path in draw_run(with_account(account_run, shown_account), tmp_path)]
    for name in FIGURES:
        assert {f"{name}.svg", f"{name}.png"} <= {*names}
        assert KINDS["run"].known.fullmatch(f"figures/{name}.svg")
        assert name in PLACED
    for name in ("account.csv", "account.json", "account.npz", "control/seed-3/account.npz"):
        assert KINDS["run"].known.fullmatch(name)


@pytest.mark.slow
@pytest.mark.draws
def test_the_same_account_gives_the_same_small_files(
    shown_account: AccountReport, tmp_path: Path
) -> None:
    from natstats.report.figures.style import save

    for folder in ("one", "other"):
        save(plot_account(shown_account)[0], tmp_path / folder, "account")
    one, other = (tmp_path / folder / "account.svg" for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    assert one.stat().st_size < 200_000  # hatching must not cost more than the rest
