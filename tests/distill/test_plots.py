"""Figures and pages of distillation: they show what was found, stand alone, and are safe."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from natstats.distill.comparison.compare import compare_runs
from natstats.distill.report.method_figures import (
    plot_accuracy,
    plot_curves_of,
    plot_gap_accuracy,
    plot_method_curves,
)
from natstats.distill.report.pages import write_run_report, write_table_report
from natstats.distill.report.run_figures import plot_curves, plot_gaps, plot_gradients

EVIL = "<script>alert('x')</script>$a_b$"


@pytest.fixture
def found(made_runs):
    made = made_runs()
    return compare_runs(
        [
            made.run(method, seed=seed, accuracy=accuracy)
            for method, accuracy in (("ce", 0.6), ("kd", 0.7), ("kd+spectral", 0.75))
            for seed in range(3)
        ]
    )


def labels(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.slow
def test_accuracy_shows_every_seed_mean_and_interval(found):
    ax = plot_accuracy(found)
    marked = np.concatenate([np.atleast_1d(line.get_xdata()) for line in ax.lines])
    for value in (*found.seeds.accuracy, *found.methods.accuracy, *found.methods.low):
        assert np.isclose(marked, 100 * value).any()
    assert [text.get_text() for text in ax.get_yticklabels()] == list(found.methods.label)
    assert "student alone" in labels(ax)
    assert any("teacher large" in label for label in labels(ax))
    assert "95 % interval over seeds" in labels(ax)


@pytest.mark.slow
def test_a_far_teacher_does_not_squeeze_the_methods(found):
    far = replace(found, methods=found.methods.assign(teacher_accuracy=0.999))
    ax = plot_accuracy(far)
    assert ax.get_xlim()[1] < 99
    assert any("99.9 %, beyond the axis" in label for label in labels(ax))


@pytest.mark.slow
def test_curves_end_at_the_headline(found):
    ax = plot_method_curves(found)
    ends = sorted(line.get_ydata()[-1] for line in ax.lines)
    np.testing.assert_allclose(ends, sorted(100 * found.methods.accuracy))


@pytest.mark.parametrize(
    ("names", "bands"),
    [(("kd", "kd+spectral", "at"), 3), (("ce", "kd", "at", "kd+spectral", "at+spectral"), 0)],
)
def test_a_term_more_is_another_line_of_the_same_colour(names, bands):
    curves = pd.DataFrame(
        [
            {"label": name, "epoch": epoch, "accuracy": 0.5, "low": 0.4, "high": 0.6}
            for name in names
            for epoch in (1, 2)
        ]
    )
    ax = plot_curves_of(curves, names)
    looks = dict(zip(labels(ax), ax.lines, strict=True))
    for name in names:
        same = {other for other in names if looks[other].get_color() == looks[name].get_color()}
        assert same == {other for other in names if other.split("+")[0] == name.split("+")[0]}
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines}) == len(names)
    assert len(ax.collections) == bands


@pytest.mark.slow
def test_gap_against_accuracy_leaves_out_what_has_no_gap(found):
    figure = plot_gap_accuracy(found)
    assert set(labels(figure.axes[0])) == {"kd", "kd+spectral"}
    shown = {(round(float(x), 9), round(float(y), 9)) for line in figure.axes[1].lines
             for x, y in zip(*line.get_data(), strict=True)}  # fmt: skip
    for row in found.methods[found.methods.method != "ce"].itertuples():
        assert (round(row.closed_distance, 9), round(100 * row.accuracy, 9)) in shown


def test_figures_of_a_run(made_runs):
    run = made_runs().run("kd+spectral", epochs_before=3)
    upper, lower = plot_curves(run).axes
    assert labels(upper) == ["training images", "test images", "teacher"]
    assert labels(lower) == ["ce", "kd", "spectral"]
    assert {"hint", "main"} <= {text.get_text() for text in upper.texts}
    ax = plot_gradients(run)
    ratios = run.gradient_ratios()
    (line,) = [one for one in ax.lines if np.allclose(one.get_ydata(), 3.0)]
    assert len(line.get_xdata()) == (ratios.term == "spectral").sum()
    upper, lower = plot_gaps(run).axes
    drawn = np.concatenate([line.get_ydata() for line in upper.lines])
    for column in ("exponent_teacher", "exponent_before", "exponent_after"):
        assert np.isin(run.gap[column], drawn).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ce", "kd+spectral"])
def test_the_page_of_a_run_stands_alone(made_runs, tmp_path, method):
    run = made_runs().run(method, notes=["a note to read"])
    text = write_run_report(tmp_path, run).read_text(encoding="utf-8")
    assert f"{100 * run.accuracy:.1f} % with {method}" in text
    assert "a note to read" in text
    elsewhere = r'(?:src|href)="(?!#|data:|https://arxiv|https://github.com/natstats/)[^"]+"'
    assert not re.findall(elsewhere, text)
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert ('id="gap"' in text) == (method != "ce")
    for name in ("curves", "gradients"):
        assert (tmp_path / f"figures/{name}.png").is_file()
        assert f'id="{name}"' in text


@pytest.mark.slow
def test_the_page_of_a_table_has_every_number(found, tmp_path):
    text = write_table_report(tmp_path, found, tmp_path).read_text(encoding="utf-8")
    for row in found.methods.itertuples():
        assert f"{100 * row.accuracy:.1f}" in text
    assert "kd+spectral over ce" in text
    assert "seeds and images" in text
    assert "Rank correlation of closing the gap" in text
    assert "These are associations" in text
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_several_tasks_have_figures_of_their_own(made_runs, tmp_path):
    made = made_runs(n_images=50)
    runs = [made.run("kd"), made.run("kd", data={"split": "held-out"})]
    write_table_report(tmp_path, compare_runs(runs), tmp_path)
    names = {path.name for path in (tmp_path / "figures").glob("*.svg")}
    assert {"accuracy.svg", "accuracy-2.svg"} <= names
    assert "held-out images" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_names_are_shown_and_not_obeyed(made_runs, tmp_path):
    made = made_runs(n_images=50)
    run = made.run(
        EVIL, notes=[EVIL], command=EVIL, data={"name": EVIL},
        student={"name": EVIL, "weights": EVIL},
        taps=[{"method": EVIL, "student": EVIL, "teacher": EVIL}],
        arguments={EVIL: {EVIL: EVIL}},
    )  # fmt: skip
    for page in (
        lambda: write_run_report(tmp_path, run),
        lambda: write_table_report(tmp_path, compare_runs([run]), tmp_path),
    ):
        text = page().read_text(encoding="utf-8")
        assert "<script>alert" not in text
        assert "&lt;script&gt;" in text


def test_a_run_with_next_to_nothing_has_a_page(made_runs, tmp_path):
    run = made_runs(n_images=4).run("ce")
    bare = replace(
        run,
        info={"method": "ce", "seed": 0, "data": {}, "student": {"name": "s"},
              "accuracy": run.accuracy},
        history=run.history.iloc[:0],
        gradients=run.gradients.iloc[:0],
    )  # fmt: skip
    assert "with ce" in write_run_report(tmp_path, bare).read_text(encoding="utf-8")
    found = compare_runs([bare])
    assert "1 method, 1 training" in write_table_report(tmp_path, found, tmp_path).read_text(
        encoding="utf-8"
    )
