"""The figures of a series, and its page."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

from natstats import Series
from natstats.law.law import VERDICTS
from natstats.report.figures.series import (
    VERDICT_MARKS,
    is_logarithmic,
    plot_exponents,
    plot_slopes,
)
from natstats.report.pages.series import write_series_report
from natstats.report.pages.words import DOCS
from tests.runs.small_series import N_LAYERS


def test_exponents_are_a_line_a_layer_in_the_colour_of_depth(series):
    found = Series.open(series)
    lines = plot_exponents(found.report()).lines
    assert len(lines) == N_LAYERS + 1
    inner = found.exponents[found.exponents.kind != "input"]
    for line, (_, own) in zip(lines, inner.groupby("layer", sort=False), strict=False):
        assert list(line.get_xdata()) == [0, 1, 8]
        assert list(line.get_ydata()) == own.exponent.tolist()
    # The map of colours becomes lighter with depth, so that it can be read in print.
    colours = np.array([line.get_color()[:3] for line in lines[:-1]])
    assert (np.diff(colours @ [0.2126, 0.7152, 0.0722]) > 0).all()
    assert lines[-1].get_linestyle() == "--"
    assert set(lines[-1].get_ydata()) == {found.exponents.exponent.iloc[0]}


def test_slopes_are_drawn_with_verdicts_and_the_zero_line(series):
    found = Series.open(series)
    assert tuple(VERDICT_MARKS) == VERDICTS
    ax = plot_slopes(found.report())
    marked = [line for line in ax.lines if line.get_marker() not in ("None", "")]
    assert sum(len(line.get_xdata()) for line in marked) == len(found.frame)
    assert any(set(line.get_ydata()) == {0.0} for line in ax.lines)
    labels = {text.get_text() for text in ax.get_legend().get_texts()}
    assert labels == {*found.frame.verdict, "95 % interval"}
    assert ax.get_xlabel() == "epoch (logarithmic axis)"


@pytest.mark.parametrize(
    ("steps", "expected"),
    [([0, 1, 2, 4, 8, 16, 32], True), ([1, 10, 100, 1000], True), (range(60), False),
     ([0, 10, 20], False), ([0, 5], False), ([100, 200, 300], False)],
)  # fmt: skip
def test_the_axis_of_steps_is_the_one_that_spreads_them(steps, expected):
    assert is_logarithmic(np.array(steps, dtype=float)) is expected


def test_both_figures_share_the_steps_when_drawn_together(series):
    upper, lower = Series.open(series).plot()
    assert upper.get_xlim() == lower.get_xlim()
    assert (upper.get_xlabel(), lower.get_xlabel() != "") == ("", True)


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.misnested, self.links, self.loads, self.ids = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "input", "br", "img", "source", "wbr"):
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href") and not value.startswith(("#", "data:")):
                (self.links if tag == "a" else self.loads).append(value)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)


def test_the_page_is_whole_and_leads_to_every_run(series):
    text = (series / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == page.misnested == page.loads == []
    assert len(page.ids) == len(set(page.ids))
    pages = [f"epoch_{epoch}/report.html" for epoch in (0, 1, 8)]
    assert page.links[:3] == pages
    assert page.links[-1] == DOCS
    # Exponents lead to their layers.
    assert {link.partition("#layer=")[0] for link in page.links[3:-1]} <= {*pages}
    assert all("#layer=" in link for link in page.links[3:-1])
    assert len(page.links) > 4
    assert all((series / link).is_file() for link in pages)
    assert text.count("<img") == 2
    for verdict in Series.open(series).frame.verdict:
        assert f">{verdict}</td>" in text


def test_names_cannot_write_into_the_page(series, tmp_path):
    found = Series.open(series)
    evil = "<script>alert('x')</script>"
    found.frame["checkpoint"] = [evil, "b c#1", "c"]
    found.info["name"] = evil
    text = write_series_report(tmp_path, found.report()).read_text(encoding="utf-8")
    assert evil not in text
    assert Page(text).links[1] == "b%20c%231/report.html"
    assert Page(text).misnested == []
