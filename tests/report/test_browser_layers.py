"""The page of a run with a control in a real browser: its steepest layer, what training did."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from natstats.report.pages.run import write_report
from natstats.runs.run import Run
from tests.report.chromium import NEEDS_CHROMIUM
from tests.report.test_browser import Seen, visible_heads

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def run(made_networks: Any) -> Run:
    made: Run = made_networks.run(n_layers=9, n_seeds=3)
    return made


@pytest.fixture(scope="module")
def report(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("run"), run.report())


@pytest.fixture
def seen(browser: Any, report: Path) -> Iterator[Seen]:
    one = Seen(browser, report)
    yield one
    one.context.close()
    assert one.wrong == []


@pytest.mark.parametrize("width", [390, 1280])
def test_the_steepest_layer_is_named_and_its_link_opens_it(
    browser: Any, report: Path, run: Run, width: int
) -> None:
    one = Seen(browser, report, viewport={"width": width, "height": 844})
    inner = run.layers[run.layers.kind != "input"]
    ends = inner.exponent.idxmax(), inner.exponent.idxmin()
    for place, told in zip(ends, one.page.locator(".extreme").all(), strict=True):
        layer = inner.layer[place]
        link = told.locator("a").first
        assert link.text_content() == layer
        assert link.get_attribute("href") == f"#layer={layer}"
        assert f"α = {inner.exponent[place]:.2f}" in str(told.text_content())
        link.click()
        one.wait_for(layer)
        assert one.page.url.endswith(f"#layer={layer}")
        one.page.wait_for_function(
            "document.querySelector('#layer h3').getBoundingClientRect().bottom < innerHeight"
        )
        one.page.evaluate("scrollTo(0, 0)")
    one.context.close()
    assert one.wrong == []


def test_what_training_did_is_in_the_table_and_in_its_file(seen: Seen, run: Run) -> None:
    found = run.control.layers.set_index("layer")
    seen.page.click("#layer-choosable .columns summary")
    for label in ("trained − random", "p, Holm"):
        seen.page.locator("#layer-choosable").get_by_label(label, exact=True).check()
    assert {"trained − random", "p, Holm"} < {*visible_heads(seen)}
    seen.page.locator("#layer-table th[data-key='trained − random'] button").click()
    rows = seen.rows()
    assert rows[:-1] == list(found.difference.sort_values(kind="stable").index)
    assert rows[-1] == "input"  # no difference is known of the images
    with seen.page.expect_download() as started:
        seen.page.click("#layer-choosable .download")
    assert started.value.suggested_filename == "layers.csv"
    text = Path(started.value.path()).read_text(encoding="utf-8")
    head, *lines = csv.reader(text.splitlines())
    own = ["difference", "difference_low", "difference_high", "difference_p_corrected"]
    assert head == [*run.layers.columns]
    assert {*own} < {*head}
    for line in lines[:-1]:
        told = dict(zip(head, line, strict=True))
        row = found.loc[told["layer"]]
        assert [float(told[name]) for name in own] == pytest.approx(
            [row.difference, row.low, row.high, row.p_corrected]
        )


def test_a_filter_that_leaves_nothing_says_so(seen: Seen) -> None:
    opened, none = seen.opened(), seen.page.locator("#layer-choosable .none")
    standing = seen.page.locator("#layer .standing")
    assert not none.is_visible()
    assert not standing.is_visible()
    seen.page.fill("[name=name]", "zzzz")
    assert seen.rows() == []
    assert none.is_visible()
    assert seen.opened() == opened
    assert standing.text_content() == "The filters leave out this layer."
    steps = [seen.page.locator(f"[data-step='{by}']") for by in (-1, 1)]
    assert [one.get_attribute("aria-disabled") for one in steps] == ["true", "true"]
    seen.page.click("#clear")
    assert not none.is_visible()
    assert not standing.is_visible()


def test_no_button_leads_nowhere(seen: Seen, run: Run) -> None:
    seen.page.focus("#law-plot")
    for key, off in (("End", "1"), ("Home", "-1")):
        seen.page.keyboard.press(key)
        for by in ("1", "-1"):
            button = seen.page.locator(f"[data-step='{by}']")
            assert button.get_attribute("aria-disabled") == ("true" if by == off else "false")
    assert seen.opened() == run.layers.layer.iloc[0]


def test_a_layer_that_is_not_there_is_named(browser: Any, report: Path, run: Run) -> None:
    one = Seen(browser, report, "#layer=<i>nosuch")
    standing = one.page.locator("#layer .standing")
    assert standing.text_content() == "This page has no layer called <i>nosuch."
    one.page.click("#layer-table tbody tr:nth-child(4)")
    assert one.opened() == run.layers.layer.iloc[3]
    assert not one.page.locator("#layer .standing").is_visible()
    one.context.close()
    assert one.wrong == []


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(1, 3, [1, 2, 3]), (1.1, 6.9, [2, 3, 5]), (1, 112, [1, 10, 100]), (2, 40, [3, 10, 30]),
     (0.011, 0.4, [0.03, 0.1, 0.3]), (0.02, 0.11, [0.02, 0.05, 0.1])],
)  # fmt: skip
def test_logarithmic_axes_have_three_whole_ticks(
    seen: Seen, low: float, high: float, ticks: list[float]
) -> None:
    script = (
        Path(write_report.__code__.co_filename).parents[1] / "templates/plotting.js"
    ).read_text(encoding="utf-8")
    found = seen.page.evaluate(f"(() => {{ {script}; return logTicks([{low}, {high}]); }})()")
    assert found["tickvals"] == ticks
    assert found["ticktext"] == [f"{tick:g}" for tick in ticks]


@pytest.mark.parametrize(
    ("values", "ticks"),
    [([0.28, 2.9], [0.33, 1, 2]), ([0.34, 1.02], [0.5, 1]), ([0.99, 1.15], [1, 1.1]),
     ([0.999, 1.001], [0.99, 1, 1.01]), ([0.009, 120], [0.01, 1, 100])],
)  # fmt: skip
def test_factors_have_ticks_on_each_side_that_has_room(
    seen: Seen, values: list[float], ticks: list[float]
) -> None:
    script = (
        Path(write_report.__code__.co_filename).parents[1] / "templates/plotting.js"
    ).read_text(encoding="utf-8")
    call = f"factorAxis({{}}, '', {values}, {{}})"
    found = seen.page.evaluate(f"(() => {{ {script}; return {call}; }})()")
    assert found["tickvals"] == ticks
    low, high = np.array(found["range"]) * np.log(10)
    assert low < np.log(min(values))
    assert np.log(max(values)) < high


def test_the_plot_has_the_whole_band_and_the_unit_of_sizes(browser: Any, report: Path) -> None:
    one = Seen(browser, report, viewport={"width": 390, "height": 844})
    band, low, high, sizes = one.page.evaluate(
        """(() => {
            const plot = document.getElementById("law-plot"), law = plot.data.slice(0, 2);
            const range = plot._fullLayout.yaxis.range;
            return [law.flatMap(one => Array.from(one.y)), range[0], range[1],
                    plot.layout.annotations.map(one => one.text)];
        })()"""
    )
    assert low < min(band)
    assert max(band) < high
    assert sizes[0] == "12 px"
    one.context.close()


def test_on_paper_brief_details_are_open_and_no_row_is_marked(seen: Seen) -> None:
    brief = seen.page.locator("details.brief table").first
    assert not brief.is_visible()
    seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    seen.page.emulate_media(media="print")
    assert brief.is_visible()
    row = seen.page.locator("#layer-table tr.chosen > *").first
    assert row.evaluate("one => getComputedStyle(one).backgroundColor") == "rgba(0, 0, 0, 0)"
    seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not seen.page.locator("details.brief").first.evaluate("one => one.open")
