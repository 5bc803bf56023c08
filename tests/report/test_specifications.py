"""The specification curve, and what the page says of the verdict."""

from __future__ import annotations

import html
import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from natstats import power_law_fields
from natstats.law.influence import LeftOut
from natstats.law.law import Law, fit_law
from natstats.law.specifications import CHOICES, Specification, Specifications
from natstats.law.trend import OUTCOMES
from natstats.law.verdict import Verdict
from natstats.measurement.one_run import measure
from natstats.report.figures.drawing import RUN_FIGURES
from natstats.report.figures.specifications import (
    CHOICE_NAMES,
    LONGEST_VALUE,
    OUTCOME_MARKS,
    choice_value,
    plot_specifications,
)
from natstats.report.figures.style import WIDTH, look, save
from natstats.report.pages import verdict as page
from natstats.report.pages.run import write_report
from natstats.runs.run import Run

nn = torch.nn


def made(n: int, seed: int = 0, kinds: int = 3) -> Specifications:
    """Specifications as a network with many stages has them."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        change, reach = rng.normal(0, 2), abs(rng.normal(1, 0.5)) + 0.01
        low, high = change - reach, change + reach
        outcome = "rises" if low > 0 else "falls" if high < 0 else "no trend"
        rows.append(
            Specification(
                estimator=str(rng.choice(["octave", "whittle", "ols"])),
                band=str(
                    rng.choice(["whole", "without the top octave", "1 to 7 cycles per image"])
                ),
                layers=str(rng.choice(["all", *(f"only kind{i}" for i in range(kinds))])),
                depth=str(rng.choice(["layers", "order", "receptive-field"])),
                map_size=str(rng.choice(["left alone", "covariate"])),
                n_layers=20,
                slope=change / 20,
                change=change,
                change_low=low,
                change_high=high,
                p=0.5,
                rank_p=0.5,
                outcome=outcome,
            )
        )
    return Specifications(rows)


def drawn(found: Specifications, width: str = "double"):
    figure = Figure(figsize=(WIDTH[width], 6), layout="constrained")
    with look():
        axes = plot_specifications(found, tuple(figure.subplots(2, 1, sharex=True)))
        figure.draw_without_rendering()
    return axes


def points(ax) -> dict[float, tuple[float, str]]:
    """Change and colour of every column."""
    return {
        float(x): (float(y), to_hex(line.get_color()))
        for line in ax.lines
        if line.get_marker() in "^ov"
        for x, y in zip(*line.get_data(), strict=True)
    }


def strokes(line) -> list[tuple[float, float, float]]:
    """Place and ends of each upright stroke of a line with gaps."""
    x, y = (np.asarray(values).reshape(-1, 3) for values in line.get_data())
    return [(float(a[0]), float(b[0]), float(b[1])) for a, b in zip(x, y, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 12, 150])
def test_columns_are_sorted_and_have_the_colour_of_what_is_found(n):
    found = made(n)
    above, _ = drawn(found)
    rows = sorted(found.rows, key=lambda row: row.change)
    bottom, top = above.get_ylim()
    seen = points(above)
    assert sorted(seen) == list(range(1, n + 1))
    for place, row in enumerate(rows, 1):
        change, colour = seen[place]
        assert change == pytest.approx(np.clip(row.change, bottom, top))
        assert colour == to_hex(OUTCOME_MARKS[row.outcome][1])
    assert bottom < 0 < top


def test_thin_lines_are_the_intervals():
    found = made(30)
    above, _ = drawn(found)
    bars = [
        one
        for line in above.lines
        if line.get_marker() == "None" and len(line.get_xdata()) % 3 == 0
        for one in strokes(line)
    ]
    rows = sorted(found.rows, key=lambda row: row.change)
    expected = [(place, row.change_low, row.change_high) for place, row in enumerate(rows, 1)]
    asked = next(one for one, row in zip(expected, rows, strict=True) if row is found.rows[0])
    assert sorted(bars) == sorted([*expected, asked])  # that of the one asked for is drawn again


def test_a_mark_stands_in_the_row_of_each_choice():
    found = made(60)
    _, below = drawn(found)
    labels = [label.get_text() for label in below.get_yticklabels()]
    rows = sorted(found.rows, key=lambda row: row.change)
    marks = Counter(
        (round((low + high) / 2), x)
        for line in below.lines
        if len(line.get_xdata()) % 3 == 0
        for x, low, high in strokes(line)
    )
    expected = Counter()
    for choice in CHOICES:
        start = labels.index(CHOICE_NAMES[choice])
        for place, row in enumerate(rows, 1):
            name = choice_value(choice, getattr(row, choice))
            expected[labels.index(name, start + 1), float(place)] += 1
    assert marks == expected
    assert sum(marks.values()) == 60 * len(CHOICES)


def test_the_one_asked_for_is_marked_in_both():
    found = made(40)
    above, below = drawn(found)
    (diamond,) = (line for line in above.lines if line.get_marker() == "D")
    (place,) = diamond.get_xdata()
    assert diamond.get_ydata()[0] == found.rows[0].change
    assert [place, place] in [list(line.get_xdata()) for line in below.lines]


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 12, 700])
@pytest.mark.parametrize("width", WIDTH)
def test_it_can_be_read(n, width):
    above, below = drawn(made(n, kinds=9), width)
    figure = above.get_figure()
    whole = figure.bbox.padded(1)
    boxes = [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()
    ]
    assert not [
        text
        for text, box in boxes
        if text not in {label.get_text() for label in below.get_xticklabels()}
        and not (whole.contains(box.x0, box.y0) and whole.contains(box.x1, box.y1))
    ]
    title = above.get_title(loc="left").replace("\n", " ")
    assert title == f"The exponent {made(n, kinds=9).sentence()}"


@pytest.mark.draws
@pytest.mark.slow
def test_seven_hundred_stay_small_and_are_high_enough_for_their_names(tmp_path):
    above, below = plot_specifications(made(700, kinds=20))
    vector, _ = save(above, tmp_path, "specifications")
    assert vector.stat().st_size < 500_000
    below.get_figure().draw_without_rendering()
    labels = [label.get_window_extent() for label in below.get_yticklabels()]
    assert len(labels) > 30
    assert all(a.y0 > b.y1 - 0.5 for a, b in itertools.pairwise(labels))


def test_a_few_wide_intervals_do_not_press_the_others_together():
    rows = [*made(98).rows]
    wild = replace(rows[0], change=-1e4, change_low=-1e6, change_high=1e6, outcome="no trend")
    above, _ = drawn(Specifications([*rows, wild, replace(wild, change=np.nan)]))
    bottom, top = above.get_ylim()
    assert top - bottom < 20
    assert points(above)[1.0][0] == bottom  # at the edge
    assert len(points(above)) == 99


def test_the_figure_counts_what_lies_beyond_its_edge():
    rows = [replace(row, change=0.01 * place, change_low=-1.0, change_high=1.0)
            for place, row in enumerate(made(60).rows)]  # fmt: skip
    inside = drawn(Specifications(rows))
    assert "edge" not in inside[1].get_xlabel()
    far = [replace(rows[0], change=-40.0, change_low=-41.0, change_high=-39.0)]
    for n, told in ((1, "1 at the edge lies beyond it"), (2, "2 at the edge lie beyond it")):
        above, below = drawn(Specifications([*rows, *far * n]))
        assert below.get_xlabel().endswith(f"\n{told}")
        low = above.get_ylim()[0]
        assert sum(y == low for line in above.lines for y in line.get_ydata()) == n


def test_names_of_users_are_shown_as_they_are():
    rows = [replace(row, layers=f"only ${row.layers}$\n_{40 * 'x'}") for row in made(5).rows]
    _, below = drawn(Specifications(rows))
    names = [label.get_text() for label in below.get_yticklabels()]
    assert all(len(name) <= LONGEST_VALUE for name in names)
    assert any(name.startswith("only $only") for name in names)


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(8)]
    fields = power_law_fields(54, 16, 16, alpha=2.0, seed=0).reshape(18, 3, 16, 16)
    return measure(nn.Sequential(*layers).eval(), np.float32(fields))


@pytest.mark.slow
def test_no_figure_of_fewer_than_two(run):
    report = run.report()
    one = replace(report, verdict=replace(report.verdict, specifications=made(1)))
    none = replace(report, verdict=replace(report.verdict, specifications=Specifications([])))
    draw = RUN_FIGURES["specifications"].draw
    assert draw(one) is draw(none) is None
    assert draw(report) is not None


def test_the_run_draws_its_own(run):
    above, below = run.plot_specifications()
    assert len(points(above)) == len(run.verdict.specifications.rows) > 1
    assert run.plot_specifications((above, below)) == (above, below)


@pytest.mark.slow
def test_sensitivity_is_drawn_without_the_verdict(run):
    again = Run(run.spectra, (), run.info, run.options)
    again.plot_sensitivity()
    assert "verdict" not in vars(again)


def section(text: str, name: str) -> str:
    part = text[text.index(f'<section id="{name}">') :]
    return html.unescape(part[: part.index("</section>")])


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("natstats.report.pages.run.draw_run", lambda *_: [])


@pytest.mark.usefixtures("undrawn")
def test_both_questions_stand_on_the_page_with_their_answers(run, tmp_path):
    text = write_report(tmp_path, run.report()).read_text(encoding="utf-8")
    law = run.verdict.law
    assert law.network is not None
    described, tested = section(text, "this-network"), section(text, "a-law")
    for name, value in page.network_facts(law):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in described
    for one in law.network.departures:
        assert f'<th scope="row">{one.layer}</th>' in described
    for name, value in page.law_facts(law):
        assert f"<dt>{name}</dt><dd>{value}</dd>" in tested
    assert "description" in described
    assert "natstats law" in tested
    assert "one network is one observation" in tested
    described, tested = page.network_facts(law)[0], page.law_facts(law)[0]
    assert described[0] == "least-squares slope per weight layer: all layers weigh the same"
    assert tested[0] == "slope of the law per weight layer: correlated layers weigh less"
    numbers = described[1]
    assert numbers != tested[1]


@pytest.mark.usefixtures("undrawn")
def test_outcomes_are_counted_by_choice(run, tmp_path):
    text = write_report(tmp_path, run.report()).read_text(encoding="utf-8")
    part = section(text, "specifications")
    found = run.verdict.specifications
    assert f"The exponent {found.sentence()}." in part
    assert "specifications.csv" in part
    rows = page.outcome_rows(found)
    for choice, name in CHOICE_NAMES.items():
        own = [row for row in rows if row[0].startswith(f"{name}: ")]
        assert len(own) == len({getattr(row, choice) for row in found.rows})
        totals = [sum(int(row[1 + i]) for row in own) for i in range(len(OUTCOMES))]
        assert totals == [found.counts[outcome] for outcome in OUTCOMES]
        assert sum(int(row[-1]) for row in own) == len(found.rows)
    assert len(re.findall(r'<th scope="row">', part)) == len(rows)


def law_of(verdict: str = "rises") -> Law:
    rng = np.random.default_rng(0)
    depth = np.arange(1.0, 13)
    exponent = 1 + 0.1 * depth + 0.02 * rng.standard_normal(12)
    law = fit_law(depth, exponent, 1e-3 * rng.standard_normal((64, 12)), ["8"] * 12)
    return replace(law, verdict=verdict)


def left_out(what: str, name: str, outcome: str = "rises") -> LeftOut:
    return LeftOut(what, name, 11, 0.12, 0.3, 0.0004, outcome, outcome != "rises")


def test_what_changes_the_verdict_is_a_row_below_that_of_nothing_left_out():
    changing = [
        left_out("layer", "a.conv", "no trend"),
        left_out("kind", "the 4 act layers", "falls"),
    ]
    found = Verdict(law_of(), made(3), [left_out("layer", "b"), *changing])
    rows = page.influence_rows(found)
    assert [row[0] for row in rows] == ["nothing", "a.conv", "the 4 act layers"]
    assert rows[0][1] == "12"
    assert rows[0][-1] == "rises"
    assert rows[1] == ("a.conv", "11", "+0.1200", "0.30", "< 0.001", "no trend")
    told = page.influence_sentence(found)
    assert told.startswith(
        "With all 12 layers and the choices that were asked for, the tests find: rises."
    )
    assert "any one layer or any one kind of layer in turn changes that" in told


def test_where_nothing_changes_the_verdict_it_is_said():
    names = ("layer", "stage", "few rings")
    found = Verdict(law_of(), made(3), [left_out(one, one) for one in names])
    assert page.influence_rows(found) == []
    told = page.influence_sentence(found)
    assert "any one layer, the maps of any one size or the layers of few rings does not" in told
    assert told.endswith("does not change that.")
    other = page.influence_sentence(replace(found, law=law_of("depends on the specification")))
    assert other.startswith(f"{told} What changes it are the other choices above")
    assert "none can be left out" in page.influence_sentence(replace(found, left_out=[]))
    nothing = Verdict(fit_law([], [], np.zeros((0, 0)), []), Specifications([]), [])
    assert page.influence_sentence(nothing) == ""
    assert page.law_facts(nothing.law) == page.network_facts(nothing.law) == []
    assert page.departure_rows(nothing.law) == []


@pytest.mark.usefixtures("undrawn")
def test_names_of_what_is_left_out_are_escaped(run, tmp_path: Path):
    report = run.report()
    evil = left_out("layer", "<script>alert(1)</script>", "no trend")
    text = write_report(
        tmp_path, replace(report, verdict=replace(report.verdict, left_out=[evil]))
    ).read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text
