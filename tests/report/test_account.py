"""The account, drawn and on the page: what is shown is what was accounted for, and can be read."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from natstats import power_law_fields
from natstats.activations.trace import trace_calls
from natstats.errors import UsageError
from natstats.files.json_files import to_json
from natstats.files.ownership import KINDS
from natstats.fits.options import FitOptions
from natstats.law.differences import Estimate
from natstats.measurement.one_run import measure
from natstats.numbers import change, number
from natstats.report import AccountReport, draw_run
from natstats.report.figures.account import layers_of_trunk, plot_account
from natstats.report.figures.account_totals import plot_account_totals
from natstats.report.figures.causes import CAUSE_STYLES, cause_name
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
    account_contents,
    kernels_sentence,
    step_table,
    total_rows,
)
from natstats.report.pages.run import PLACED, write_report
from natstats.report.records import RunReport
from natstats.runs.accounts import account_dict, account_report
from natstats.runs.run import Run
from natstats.theory.account import CAUSES, Account
from natstats.theory.account_pass import AccountPass

nn = torch.nn
FIGURES = ("account", "account_totals", "kernels", "kernel_exponents")
EVIL = "<script>alert('x')</script>&\"'"


class Small(nn.Module):
    """Convolutions of every sort, norms, rectifiers and an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.wide = nn.Conv2d(6, 6, 1)
        self.down = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.last = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images)
        maps = maps + self.wide(torch.relu(self.deep(maps)))
        return self.last(torch.relu(self.down(maps)))


def images() -> np.ndarray:
    fields = power_law_fields(16, 32, 32, alpha=2.0, seed=1)
    noise = np.random.default_rng(0).standard_normal((16, 3, 32, 32))
    return np.float32(fields[:, None] + 0.1 * noise)


@pytest.fixture(scope="module")
def account() -> Account:
    torch.manual_seed(0)
    model, batch = Small().eval(), torch.from_numpy(images())
    trace = trace_calls(model, (batch[:1],))
    with AccountPass(model, (batch[:1],), trace, n_groups=16) as opened:
        model(batch)
    return Account(opened.compute(), FitOptions())


@pytest.fixture(scope="module")
def shown(account: Account) -> AccountReport:
    return account_report(account)


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    return measure(Small().eval(), images())


@pytest.fixture(scope="module")
def whole(shown: AccountReport) -> AccountReport:
    """The same with everything that may be found beside an account."""
    difference = shown.totals.rename(columns={"share": "trained"}).drop(columns="n_steps")
    difference = difference.assign(random=0.25, difference=difference.trained - 0.25)
    slopes = shown.totals.rename(columns={"share": "slope"}).drop(columns="n_steps")
    first = {"cause": "all", "slope": slopes.slope.sum(), "low": -1.0, "high": 1.0, "p": 0.5}
    slopes = pd.concat([pd.DataFrame([first]), slopes], ignore_index=True)
    names = ("shuffle-kernels", "same-rectifiers")
    return replace(
        shown,
        note=EVIL,
        slopes=slopes.assign(share=slopes.slope / slopes.slope[0]),
        slopes_sentence="These carry the slope.",
        counterfactuals=pd.DataFrame(
            {"layer": ["a", "b"], "depth": [1, 2], "exponent": [1.0, np.nan],
             names[0]: [0.5, 0.25], names[1]: [2.0, 3.0]}
        ),
        counterfactual_slopes=pd.DataFrame(
            {"name": ["measured", *names], "slope": [0.3, 0.1, 0.2], "low": [0.2, 0.0, 0.1],
             "high": [0.4, 0.2, 0.3], "difference": [np.nan, -0.2, -0.1],
             "difference_low": [np.nan, -0.3, -0.2], "difference_high": [np.nan, -0.1, 0.0],
             "p": [np.nan, 0.01, 0.04]}
        ),
        difference=difference,
        difference_sentence="This is what training did.",
    )  # fmt: skip


def deep(n_layers: int) -> AccountReport:
    """An account of many layers, each with three operations, of known shares."""
    rng = np.random.default_rng(0)
    at, rows = 2.0, []
    for depth in range(1, n_layers + 1):
        for cause, kind in (("norms", "normalization"), ("rectifiers", "rectifier"),
                            ("kernels", "convolution")):  # fmt: skip
            share = float(rng.normal(0.1 if cause == "kernels" else -0.05, 0.2))
            rows.append(
                {"step": f"block.{depth}.{kind}", "layer": f"block.{depth}.convolution",
                 "operation": "convolution 3x3", "kind": kind, "module": "", "depth": depth,
                 "trunk": True, "before": at, "after": at + share, "cause": cause, "part": "",
                 "share": share, "low": share - 0.1, "high": share + 0.1, "p": 0.5,
                 "kernel_exponent": 0.5, "shuffled_exponent": 0.4}
            )  # fmt: skip
            at += share
    frame = pd.DataFrame(rows)
    totals = frame.groupby("cause").share.sum().reset_index()
    totals = totals.assign(low=totals.share - 1, high=totals.share + 1, p=0.5, n_steps=n_layers)
    return AccountReport(frame, totals, Estimate(at - 2, at - 3, at - 1, 0.5), (2.0, at), "Known.")


def with_account(run: Run, account: AccountReport | None) -> RunReport:
    return replace(run.report(), account=account)


# The record and its tables.


def test_the_account_has_every_sort_of_share(shown: AccountReport) -> None:
    assert {
        "kernels",
        "correlations",
        "borders",
        "strides",
        "rectifiers",
        "norms",
        "additions",
    } == {*shown.totals.cause}
    assert {*convolutions(shown.frame)["sort"]} == {"k × k", "k × k, depthwise", "1 × 1"}


def test_a_record_holds_what_the_account_has(account: Account, shown: AccountReport) -> None:
    assert shown.sentence == account.sentence()
    assert shown.ends == account.ends
    pd.testing.assert_frame_equal(shown.frame, account.frame)
    assert shown.trunk.step.iloc[-1] == account.steps[account.trunk[-1]].name
    assert account_report(account, slopes_sentence="More.").slopes_sentence == "More."


def test_the_json_has_every_table_but_the_shares(
    shown: AccountReport, whole: AccountReport
) -> None:
    assert account_dict(shown)["slopes"] is None
    kept = json.loads(to_json(account_dict(whole)))
    assert kept["sentence"] == whole.sentence
    assert kept["change"]["value"] == whole.change.value
    assert [row["share"] for row in kept["totals"]] == [*whole.totals.share]
    assert len(kept["counterfactuals"]) == 2
    assert kept["counterfactuals"][1]["exponent"] is None  # NaN, which JSON lacks
    assert {"slopes", "difference", "counterfactual_slopes"} <= {*kept}


def test_layers_of_the_trunk_add_up_and_join(account: Account, shown: AccountReport) -> None:
    layers = layers_of_trunk(shown.frame)
    assert [*layers.layer] == ["first.0", "deep", "wide", "down"]  # the last is the output
    assert [*layers.depth] == [1, 2, 3, 4]
    causes = [cause for cause in CAUSES if cause in layers]
    np.testing.assert_allclose(layers[causes].sum(axis=1), layers.after - layers.before)
    np.testing.assert_allclose(layers.before[1:], layers.after[:-1])
    assert (layers.before.iloc[0], layers.after.iloc[-1]) == shown.ends
    totals = shown.totals.set_index("cause").share
    np.testing.assert_allclose(layers[causes].sum()[totals.index], totals)


def test_predictions_of_convolutions_are_those_that_were_fitted(
    account: Account, shown: AccountReport
) -> None:
    found = convolutions(shown.frame).set_index("layer")
    steps = {step.name: step for step in account.steps if step.kind == "convolution"}
    assert [*found.index] == [*steps]
    for name, step in steps.items():
        before = account.exponent(step.before)
        row, states = found.loc[name], step.predictions
        last = states.get("strided", states["independent"])
        assert row.measured == pytest.approx(account.exponent(step.after) - before)
        assert row.independent == pytest.approx(account.exponent(last) - before)
        if "linear" in states:
            assert row.linear == pytest.approx(account.exponent(states["linear"]) - before)
        else:
            assert np.isnan(row.linear)
    assert np.isnan(found.linear["wide"])


def test_the_median_difference_is_over_what_was_predicted() -> None:
    found = pd.DataFrame({"measured": [1.0, 2.0, 3.0], "linear": [1.5, np.nan, 2.9]})
    assert median_difference(found, "linear") == (pytest.approx(0.3), 2)
    value, n = median_difference(found[1:2], "linear")
    assert np.isnan(value)
    assert n == 0


# The figures.


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
        ],
        columns=["x", "y", "height", "colour"],
    )  # fmt: skip


def test_bars_of_a_layer_start_where_the_last_has_ended_and_leave_it_at_the_next(
    shown: AccountReport,
) -> None:
    above, _ = plot_account(shown)
    layers, drawn = layers_of_trunk(shown.frame), bars(above)
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


def test_running_sums_end_at_the_totals(shown: AccountReport) -> None:
    above, below = plot_account(shown)
    totals = shown.totals.set_index("cause").share
    ends = {to_hex(line.get_color()).lower(): line.get_ydata()[-1] for line in below.lines[1:]}
    for cause, total in totals.items():
        assert ends[CAUSE_STYLES[str(cause)].colour.lower()] == pytest.approx(total)
    assert below.lines[-1].get_ydata()[-1] == pytest.approx(shown.change.value)
    legend = above.get_legend()
    assert legend is not None
    labels = [text.get_text() for text in legend.get_texts()]
    expected = [f"{cause_name(str(c))} {number(t, sign=True)}" for c, t in totals.items()]
    assert labels == [*expected, f"exponent {number(shown.change.value, sign=True)}"]


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


def test_totals_are_as_long_as_they_are(shown: AccountReport) -> None:
    ax = plot_account_totals(shown)
    widths = [one.get_width() for one in ax.patches]
    np.testing.assert_allclose(widths, [*shown.totals.share, shown.change.value])
    texts = {text.get_text() for text in ax.texts}
    for row in shown.totals.to_dict("records"):
        assert change(row["share"], row["low"], row["high"], 2) in texts
    ends = {tuple(s[:, 0]) for one in ax.collections for s in one.get_segments()}
    assert (shown.change.low, shown.change.high) in ends


def test_totals_stand_beside_those_of_random_weights(whole: AccountReport) -> None:
    ax = plot_account_totals(whole)
    assert whole.difference is not None
    widths = np.array([one.get_width() for one in ax.patches]).reshape(-1, 2)
    np.testing.assert_allclose(widths[:-1, 0], whole.totals.share)
    np.testing.assert_allclose(widths[:-1, 1], 0.25)
    assert widths[-1, 1] == pytest.approx(0.25 * len(whole.totals))
    texts = {text.get_text() for text in ax.texts}
    for row in whole.difference.to_dict("records"):
        assert change(row["difference"], row["low"], row["high"], 2) in texts


def test_a_cause_that_one_network_lacks_adds_nothing_there(whole: AccountReport) -> None:
    assert whole.difference is not None
    other = replace(whole, difference=whole.difference.iloc[1:])
    widths = np.array([one.get_width() for one in plot_account_totals(other).patches])
    assert widths.reshape(-1, 2)[0].tolist() == [whole.totals.share.iloc[0], 0.0]


def points(ax: Axes) -> set[tuple[float, float]]:
    return {
        (round(float(x), 9), round(float(y), 9))
        for line in ax.lines
        if line.get_linestyle() == "None"
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
        if np.isfinite(x + y)
    }


def test_kernels_are_drawn_against_what_was_measured(shown: AccountReport) -> None:
    found = convolutions(shown.frame)
    for ax, name in zip(plot_kernels(shown), ("independent", "linear"), strict=True):
        rows = found[np.isfinite(found[name])]
        expected = zip(rows[name].round(9), rows.measured.round(9), strict=True)
        assert points(ax) == {*expected}
        median, n = median_difference(found, name)
        assert f"median difference {number(median)} (n = {n})" in ax.get_title(loc="left")


def test_kernels_and_rectifiers_are_drawn_by_depth(shown: AccountReport) -> None:
    above, below = plot_kernel_exponents(shown)
    found = convolutions(shown.frame)
    own = found[found["sort"] != "1 × 1"]
    values = {*own.kernel_exponent.round(9), *own.shuffled_exponent.dropna().round(9)}
    assert {y for _, y in points(above)} == values
    rows = shown.frame[shown.frame.cause == "rectifiers"]
    measured = rows.groupby("step").share.sum()
    gaussian = rows.share[rows.part == "Gaussian"]
    assert len(gaussian) > 1
    assert {y for _, y in points(below)} == {*measured.round(9), *gaussian.round(9)}


def painted(ax: Axes) -> list[tuple[str, Any]]:
    """Every text that is painted in the figure, with its box; ticks beyond the axes are not."""
    figure = ax.get_figure(root=True)
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    unpainted = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in axis.get_major_ticks()
        if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        for label in (tick.label1, tick.label2)
    }
    return [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in unpainted
    ]


def unreadable(ax: Axes) -> list[Any]:
    """Texts that overlap, or that stick out of the figure."""
    whole = ax.get_figure(root=True).bbox.padded(1)  # type: ignore[union-attr]
    texts = painted(ax)
    cut = [t for t, b in texts if not (whole.contains(b.x0, b.y0) and whole.contains(b.x1, b.y1))]
    return cut + [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(texts, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 0.5 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.5
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["small", "whole", "deep"])
def test_every_figure_can_be_read(kind: str, shown: AccountReport, whole: AccountReport) -> None:
    made = {"small": shown, "whole": whole, "deep": deep(150)}[kind]
    with look():
        assert unreadable(plot_account(made)[0]) == []
        assert unreadable(plot_account_totals(made)) == []
        assert unreadable(plot_kernels(made)[0]) == []
        assert unreadable(plot_kernel_exponents(made)[0]) == []


@pytest.mark.slow
def test_one_column_is_enough(whole: AccountReport) -> None:
    def axes(n: int, height: float) -> Any:
        figure = Figure(figsize=(WIDTH["single"], height), layout="constrained")
        return figure.subplots(n, 1)

    with look():
        for draw, height in ((plot_account, 6.4), (plot_kernels, 6.4), (plot_kernel_exponents, 6)):
            pair = tuple(axes(2, height))
            assert draw(whole, pair) == pair
            assert unreadable(pair[0]) == []
        ax = axes(1, 5.0)
        assert plot_account_totals(whole, ax) is ax
        assert unreadable(ax) == []


@pytest.mark.slow
def test_without_an_account_there_is_no_figure_of_it(run: Run) -> None:
    assert all(RUN_FIGURES[name].draw(with_account(run, None)) is None for name in FIGURES)


def test_a_run_without_an_account_says_that_it_has_none(run: Run) -> None:
    for draw in (run.plot_account, run.plot_kernels):
        with pytest.raises(UsageError, match="run: expected one that was measured with an account"):
            draw()


@pytest.mark.slow
def test_an_account_without_a_way_from_the_images_is_told_in_words(
    run: Run, shown: AccountReport, tmp_path: Path
) -> None:
    nothing = replace(shown, frame=shown.frame[:0], totals=shown.totals[:0], sentence="No way.")
    report = with_account(run, nothing)
    assert all(RUN_FIGURES[name].draw(report) is None for name in FIGURES)
    assert kernels_sentence(nothing.frame) == ""
    assert total_rows(nothing) == []
    text = write_report(tmp_path, report).read_text(encoding="utf-8")
    assert "<p>No way.</p>" in text
    assert 'id="account_totals"' not in text


@pytest.mark.slow
def test_the_figures_are_files_that_natstats_owns(
    run: Run, shown: AccountReport, tmp_path: Path
) -> None:
    names = [path.name for path in draw_run(with_account(run, shown), tmp_path)]
    for name in FIGURES:
        assert {f"{name}.svg", f"{name}.png"} <= {*names}
        assert KINDS["run"].known.fullmatch(f"figures/{name}.svg")
        assert name in PLACED
    for name in ("account.csv", "account.json", "account.npz", "control/seed-3/account.npz"):
        assert KINDS["run"].known.fullmatch(name)


@pytest.mark.slow
@pytest.mark.draws
def test_the_same_account_gives_the_same_small_files(shown: AccountReport, tmp_path: Path) -> None:
    from natstats.report.figures.style import save

    for folder in ("one", "other"):
        save(plot_account(shown)[0], tmp_path / folder, "account")
    one, other = (tmp_path / folder / "account.svg" for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()
    assert one.stat().st_size < 200_000  # hatching must not cost more than the rest


# The page.


def section(text: str, name: str) -> str:
    start = text.index(f'<section id="{name}">')
    return text[start : text.index("</section>", start)]


@pytest.fixture(scope="module")
def page(run: Run, whole: AccountReport, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = write_report(tmp_path_factory.mktemp("page"), with_account(run, whole))
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_tells_the_account(page: str, whole: AccountReport) -> None:
    account = section(page, "account")
    assert whole.sentence in account
    assert "docs/theory.md" in account
    assert "abstract" in account
    for cause in whole.totals.cause:
        assert f"<strong>{cause_name(cause)}</strong>" in account
    for row in total_rows(whole):
        assert row[1] in section(page, "account_totals")
    assert whole.difference_sentence in section(page, "account_difference")
    assert whole.slopes_sentence in section(page, "account_slopes")
    if_so = section(page, "counterfactuals")
    named = "every rectifier had the same share"
    for text in (named, change(0.1, 0.0, 0.2), change(-0.1, -0.2, 0.0)):
        assert text in if_so
    assert kernels_sentence(whole.frame) in section(page, "kernels")
    assert section(page, "account_steps").count("<tr>") == 1 + len(whole.frame)


@pytest.mark.slow
def test_what_is_shown_is_escaped(page: str) -> None:
    assert EVIL not in page
    assert "&lt;script&gt;" in section(page, "account")


@pytest.mark.slow
def test_figures_have_captions_and_descriptions(page: str, run: Run, whole: AccountReport) -> None:
    report = with_account(run, whole)
    for name in FIGURES:
        own = section(page, name)
        described = RUN_FIGURES[name].description(report)
        assert described.split(":")[0] in own
        caption = re.search(r"<figcaption>(.+?)<span", own, re.DOTALL)
        assert caption is not None
        assert len(caption[1].split()) > 20


@pytest.mark.slow
def test_parts_that_were_not_found_have_no_section(
    run: Run, shown: AccountReport, tmp_path: Path
) -> None:
    text = write_report(tmp_path, with_account(run, shown)).read_text(encoding="utf-8")
    for name in ("account_difference", "account_slopes", "counterfactuals"):
        assert f'id="{name}"' not in text
    assert "What to know" not in text
    text = write_report(tmp_path, with_account(run, None)).read_text(encoding="utf-8")
    assert 'id="account' not in text


def test_totals_name_their_parts_which_add_up(shown: AccountReport) -> None:
    rows = {row[0]: row for row in total_rows(shown)}
    gaussian, rest = re.fullmatch(r"Gaussian (\S+), rest (\S+)", rows["rectifiers"][3]).groups()  # type: ignore[union-attr]
    whole = shown.totals.set_index("cause").share["rectifiers"]
    added = sum(float(text.replace("−", "-")) for text in (gaussian, rest))
    assert added == pytest.approx(whole, abs=0.011)
    assert rows["kernels"][3] == ""
    assert [*rows][-1] == "whole change"
    n_steps = len(shown.trunk.drop_duplicates("step"))
    assert rows["whole change"][4] == str(n_steps)


def test_what_is_zero_but_for_rounding_has_no_interval(shown: AccountReport) -> None:
    table = step_table(shown.frame, FitOptions())
    rows, place = table.rows, {column.label: i for i, column in enumerate(table.columns)}
    (own,) = (
        row for row in rows if row[0].text == "deep" and row[place["cause"]].text == "correlations"
    )  # depthwise: no channel comes together with another
    assert own[place["share"]].text == "+0.00"
    assert own[place["95 % interval"]].text == own[place["p"]].text == "–"
    assert len(rows) == len(shown.frame)


def test_the_worst_prediction_is_named(shown: AccountReport) -> None:
    found = convolutions(shown.frame).dropna(subset="linear")
    apart = (found.linear - found.measured).abs()
    worst = found.layer[apart.idxmax()]
    assert f"farthest off is {worst}, by {number(apart.max())}" in kernels_sentence(shown.frame)


HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0">
<iframe style="width:390px;height:800px;border:0" srcdoc="{page}"></iframe><pre id="result"></pre>
<script>
document.querySelector("iframe").addEventListener("load", function (event) {{
  const page = event.target.contentDocument, seen = {{}};
  const rows = name => Array.from(page.querySelectorAll(name + " tbody tr"))
    .filter(row => !row.hidden).length;
  page.querySelectorAll("details").forEach(one => {{ one.open = true; }});
  seen.scroll = Math.max(page.documentElement.scrollWidth, page.body.scrollWidth);
  const steps = page.getElementById("account_steps");
  const input = steps.querySelector("input");
  input.value = "rectifiers gaussian";
  input.dispatchEvent(new Event("input"));
  seen.steps = rows("#account_steps");
  seen.layers = rows("#layers");
  seen.count = steps.querySelector("output").textContent;
  const head = Array.from(steps.querySelectorAll("thead th")).find(h => h.textContent === "share");
  head.querySelector("button").click();
  seen.first = steps.querySelector("tbody tr th").textContent;
  document.getElementById("result").textContent = JSON.stringify(seen);
}});
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium in the path")
def test_the_page_fits_a_phone_and_each_table_has_its_own_filter(
    page: str, run: Run, whole: AccountReport, tmp_path: Path
) -> None:
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.format(page=html.escape(page)), encoding="utf-8")
    shown = subprocess.run(
        [
            "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-sync",
            "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}",
            "--virtual-time-budget=5000", "--dump-dom", harness.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    found = re.search(r'<pre id="result">(.+?)</pre>', shown, re.DOTALL)
    assert found is not None
    seen = json.loads(html.unescape(found[1]))
    frame = whole.frame
    n = int(((frame.cause == "rectifiers") & (frame.part == "Gaussian")).sum())
    assert seen["scroll"] <= 390
    assert seen["steps"] == n > 0
    assert seen["count"] == f"{n} of {len(frame)} rows"
    assert seen["layers"] == len(run.layers)
    assert seen["first"] == frame.step[frame.share.idxmin()]


def test_contents_without_an_account() -> None:
    assert account_contents(None, FitOptions()) == {"account": None}
