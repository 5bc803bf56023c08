"""The forest plot and the page of many networks: all of it is there, in full, and readable."""

from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Polygon

from natstats import meta_analysis
from natstats.report.figures.forest import plot_forest
from natstats.report.figures.style import WIDTH, look
from natstats.report.pages.networks import write_networks_report
from tests.report.drawn import outside, overlapping

EVIL = "<script>alert('x')</script>$\\alpha$&\"'_\x1b[31m"
LONG = "a_name_that_is_longer_than_any_line_of_the_figure_and_goes_on_and_on_to_its_very_end"


@pytest.fixture(scope="module")
def four(made_networks):
    names = ("resnet20", LONG, "_hidden", EVIL)
    return meta_analysis({name: made_networks.run(k, 0.05) for k, name in enumerate(names)})


@pytest.fixture(scope="module")
def sixty(made_networks, four):
    """Four runs, each under fifteen names: fitting sixty would be the time of this file."""
    made = [made_networks.run(k, 0.02 * (k + 1), n_seeds=2, model=f"net{k % 2}") for k in range(4)]
    found = meta_analysis(made, by=["deep", "deep", "wide", "wide"])
    rows = found.networks.loc[np.repeat(range(4), 15)].reset_index(drop=True)
    rows["network"] = [f"network_{k}" for k in range(60)]
    object.__setattr__(found, "networks", rows)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("which", ["four", "sixty"])
def test_every_name_is_there_in_full(which, request):
    found = request.getfixturevalue(which)
    ax = plot_forest(found.report())
    shown = "".join(label.get_text() for label in ax.get_yticklabels()).replace("\n", "")
    for name in found.networks.network:
        assert name.replace("\x1b", "\\x1b") in shown
    assert overlapping(ax) == []
    assert outside(ax) == []


@pytest.mark.slow
def test_one_column_is_enough(made_networks):
    found = meta_analysis([made_networks.run(k) for k in range(5)])
    ax = Figure(figsize=(WIDTH["single"], 3.0), layout="constrained").add_subplot()
    with look():
        assert plot_forest(found.report(), ax) is ax
        assert overlapping(ax) == []
        assert outside(ax) == []


def test_squares_diamonds_and_the_next_network(four):
    report = four.report()
    ax = plot_forest(report)
    squares = [line for line in ax.lines if line.get_marker() == "s"]
    assert [line.get_xdata()[0] for line in squares] == pytest.approx(list(report.networks.value))
    sizes = np.array([line.get_markersize() for line in squares])
    assert list(np.argsort(sizes)) == list(np.argsort(report.networks.share))
    (diamond,) = (patch for patch in ax.patches if isinstance(patch, Polygon))
    corners = diamond.get_xy()[:, 0]
    mean = four.mean.mean
    assert (corners.min(), corners.max()) == pytest.approx((mean.low, mean.high))
    bar = next(line for line in ax.lines if line.get_linewidth() == 3.0)
    assert tuple(bar.get_xdata()) == pytest.approx((four.mean.next_low, four.mean.next_high))
    assert any(set(line.get_xdata()) == {0.0} for line in ax.lines)


def test_subgroups_and_controls_have_diamonds_of_their_own(sixty):
    ax = plot_forest(sixty.report())
    # Two groups, all networks, and trained, random weights and their difference.
    assert sum(isinstance(patch, Polygon) for patch in ax.patches) == 6
    labels = [label.get_text() for label in ax.get_yticklabels()]
    for name in ("deep", "wide", "random weights", "trained − random", "the next network"):
        assert name in labels


def test_two_networks_have_no_next(made_networks):
    found = meta_analysis([made_networks.run(k) for k in range(2)])
    labels = [label.get_text() for label in plot_forest(found.report()).get_yticklabels()]
    assert "the next network" not in labels


def page_of(found, folder):
    return write_networks_report(folder, found.report()).read_text(encoding="utf-8")


def test_the_page_says_what_the_terminal_does(sixty, tmp_path):
    text = page_of(sixty, tmp_path)
    for sentence in (*sixty.sentences(), *sixty.notes):
        assert sentence.replace("<", "&lt;") in text
    assert text.count("<tr>") == 60 + 1 + 2 * (1 + 6)
    assert re.search(r'<img src="data:image/svg', text)
    assert sixty.shape_sentence().replace("<", "&lt;") in text
    assert (tmp_path / "figures/forest.png").is_file()


def test_names_of_strangers_do_nothing_on_the_page(four, tmp_path):
    text = page_of(four, tmp_path)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert "\x1b" not in text
    assert LONG in text
