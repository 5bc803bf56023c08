"""The figures of a run: they can be read, are written whole, and leave settings alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from natstats import power_law_fields
from natstats.measurement.one_run import measure_images
from natstats.report import draw_overlay, draw_run
from natstats.report.figures.drawing import RUN_FIGURES
from natstats.report.figures.image_spread import plot_spread
from natstats.report.figures.law import plot_law
from natstats.report.figures.overlay import plot_overlay
from natstats.report.figures.spectra import plot_spectra
from natstats.report.figures.style import WIDTH, kind_marks, look
from natstats.runs.run import Run
from tests.report.drawn import outside, overlapping


def all_plots(run: Run) -> list[Axes]:
    return [
        plot_law(run.layers, run.law),
        plot_spectra(run.spectra, run.fits),
        plot_spread(run.spectra, run.fits),
        plot_overlay([("one", run.layers, run.law), ("two", run.layers, run.law)]),
    ]


def test_axes_are_labelled_with_units(figure_run: Run) -> None:
    labels = [(ax.get_xlabel(), ax.get_ylabel()) for ax in all_plots(figure_run)]
    for x, y in (labels[0], labels[2], labels[3]):
        assert "weight layers" in x
        assert "exponent" in y
    assert "cycles per image" in all_plots(figure_run)[1].figure.get_supxlabel()
    assert "relative" in labels[1][1]


@pytest.mark.slow
@pytest.mark.parametrize("place", range(4))
def test_no_text_overlaps_or_is_cut(figure_run: Run, place: int) -> None:
    ax = all_plots(figure_run)[place]
    assert overlapping(ax) == []
    assert outside(ax) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", range(4))
def test_one_column_is_enough(figure_run: Run, place: int) -> None:
    ax = Figure(figsize=(WIDTH["single"], 3.8), layout="constrained").add_subplot()
    draw = [
        lambda: plot_law(figure_run.layers, figure_run.law, ax=ax),
        lambda: plot_spectra(figure_run.spectra, figure_run.fits, ax=ax),
        lambda: plot_spread(figure_run.spectra, figure_run.fits, ax=ax),
        lambda: plot_overlay(
            [
                ("one", figure_run.layers, figure_run.law),
                ("two", figure_run.layers, figure_run.law),
            ],
            ax=ax,
        ),
    ][place]
    with look():
        draw()
        assert overlapping(ax) == []
        assert outside(ax) == []


def test_overlap_is_found() -> None:
    figure = Figure()
    ax = figure.add_subplot()
    ax.text(0.5, 0.5, "one")
    ax.text(0.51, 0.5, "other")
    assert ("one", "other") in overlapping(ax)
    ax.text(1.3, 0.5, "far away")
    assert outside(ax) == ["far away"]


def test_images_alone_can_be_drawn(figure_images_run: Run) -> None:
    ax = plot_spread(figure_images_run.spectra, figure_images_run.fits)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["input, grey", "input, colour"]
    assert overlapping(ax) == []
    assert overlapping(plot_spectra(figure_images_run.spectra, figure_images_run.fits)) == []


def test_given_axes_are_used_and_returned(figure_run: Run) -> None:
    for draw in (
        lambda ax: plot_law(figure_run.layers, figure_run.law, ax=ax),
        lambda ax: plot_spectra(figure_run.spectra, figure_run.fits, ax=ax),
        lambda ax: plot_spread(figure_run.spectra, figure_run.fits, ax=ax),
        lambda ax: plot_overlay([("one", figure_run.layers, figure_run.law)], ax=ax),
    ):
        ax = Figure().add_subplot()
        assert draw(ax) is ax
        assert ax.lines


@pytest.mark.slow
def test_pyplot_and_its_settings_are_left_alone(figure_run: Run) -> None:
    before = dict(plt.rcParams)
    all_plots(figure_run)
    assert plt.get_fignums() == []
    assert dict(plt.rcParams) == before


def test_kinds_keep_their_marks_and_never_share_one() -> None:
    assert kind_marks(["conv", "act"])["act"] == kind_marks(["act"])["act"]
    kinds = [f"Kind{i}" for i in range(20)]
    marks = kind_marks(kinds)
    assert len(set(marks.values())) == 20


@pytest.mark.draws
@pytest.mark.slow
def test_files_are_written_and_reproducible(figure_run: Run, tmp_path: Path) -> None:
    first = draw_run(figure_run.report(), tmp_path / "a")
    second = draw_run(figure_run.report(), tmp_path / "b")
    names = ["law", "specifications", "spectra", "spread", "sensitivity"]
    assert [p.name for p in first] == [f"{n}.{s}" for n in names for s in ("svg", "png")]
    for one, other in zip(first, second, strict=True):
        assert one.parent == tmp_path / "a"
        assert one.read_bytes() == other.read_bytes()
    assert first[1].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "<text" not in first[0].read_text(encoding="utf-8")


def test_what_has_no_data_is_left_out(figure_images_run: Run, tmp_path: Path) -> None:
    names = [
        path.stem
        for path in draw_run(figure_images_run.report(), tmp_path)
        if path.suffix == ".svg"
    ]
    assert names == ["spectra", "spread", "sensitivity"]


def test_a_name_in_another_script_is_no_error(figure_run: Run, tmp_path: Path) -> None:
    files = draw_overlay([("残差", figure_run), ("a" * 200, figure_run)], tmp_path)
    assert [path.name for path in files] == ["compare.svg", "compare.png"]


def test_importing_the_package_does_not_load_matplotlib() -> None:
    code = "import sys, natstats.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
