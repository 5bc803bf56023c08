"""Figures for papers and talks: width, formats, fonts, and what they replace."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from PIL import Image

import natstats
from natstats.report import draw_run
from natstats.report.figures import printing, style
from natstats.report.figures.printing import parsed_width, printed

pytestmark = pytest.mark.draws


@pytest.fixture(scope="module")
def report():
    fields = natstats.power_law_fields(16, 16, 16, alpha=2.0, seed=0)[:, None]
    return natstats.measure_images(fields).report()


def size_of(path):
    """Width and height in inches, as the file says."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            return tuple(n / dpi for n, dpi in zip(image.size, image.info["dpi"], strict=True))
    if path.suffix == ".svg":
        head = path.read_text(encoding="utf-8")
        return tuple(float(re.search(rf'{side}="([\d.]+)pt"', head)[1]) / 72
                     for side in ("width", "height"))  # fmt: skip
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)\s+([\d.]+) \]", path.read_bytes())
    return tuple(float(side) / 72 for side in box.groups())


@pytest.mark.parametrize(
    ("text", "inches"),
    [("3.4in", 3.4), (" 86 mm ", 86 / 25.4), ("8.6cm", 8.6 / 2.54), ("245pt", 245 / 72),
     ("12.in", 12.0), ("4in", 4.0)],
)  # fmt: skip
def test_widths_have_units(text, inches):
    assert parsed_width(text) == pytest.approx(inches)


@pytest.mark.parametrize("text", ["3.4", "", "in", "-3in", "3.4 inches", "1e1in", "3.4px", "nanin"])
def test_a_width_without_one_is_refused(text):
    with pytest.raises(natstats.UsageError, match="^width: expected a number with its unit"):
        parsed_width(text)


@pytest.mark.parametrize(
    ("width", "purpose"), [("2.9in", "paper"), ("70mm", "paper"), ("61in", "talk"), (5.0, "talk")]
)
def test_no_figure_is_as_narrow_or_as_wide(width, purpose):
    words = "^width: expected from [35.1]+ to 60 inches for"
    with pytest.raises(natstats.UsageError, match=words), printed(width=width, style=purpose):
        pass


def test_names_that_leave_no_room_are_told(tmp_path):
    with printed(["svg"], 3.0):
        axes = style.new_axes(None, 2.0)
        axes.set_yticks([0.5], ["a very long name " * 9])
        with pytest.raises(natstats.UsageError, match="^width: expected room for the names in"):
            style.save(axes, tmp_path, "a")


@pytest.mark.slow
@pytest.mark.parametrize("purpose", printing.STYLES)
def test_files_are_as_wide_as_asked_for_in_every_format(report, tmp_path, purpose):
    wide = {"paper": 3.4, "talk": 9.0}[purpose]
    with printed(printing.FORMATS, f"{wide}in", purpose):
        paths = draw_run(report, tmp_path)
    assert {path.suffix for path in paths} == {".svg", ".png", ".pdf"}
    for path in paths:
        assert size_of(path)[0] == pytest.approx(wide, rel=0.01), path
    by_name = {}
    for path in paths:
        by_name.setdefault(path.stem, []).append(size_of(path)[1])
    for name, heights in by_name.items():
        assert heights == pytest.approx(heights[:1] * 3, rel=0.01), name


@pytest.mark.slow
def test_pdf_files_have_real_fonts_and_no_date(report, tmp_path):
    for folder in ("a", "b"):
        with printed(["pdf"], "3.4in"):
            paths = draw_run(report, tmp_path / folder)
    for path in paths:
        content = path.read_bytes()
        assert b"/CIDFontType2" in content or b"/TrueType" in content
        assert b"/Type3" not in content
        assert b"CreationDate" not in content
        assert content == (tmp_path / "a" / path.name).read_bytes()


def test_the_usual_way_is_back_afterwards(report, tmp_path):
    with pytest.raises(KeyError), printed(["pdf"], 6.8, "talk"):
        assert style.new_figure(2.0).get_figwidth() == pytest.approx(6.8 / printing.TALK)
        raise KeyError
    assert printing.asked_for() is None
    assert style.new_figure(2.0).get_figwidth() == style.WIDTH["double"]
    axes = style.new_axes(None, 2.0)
    assert [path.suffix for path in style.save(axes, tmp_path, "a")] == [".svg", ".png"]
    with printed(width=5.0):
        assert [p.suffix for p in style.save(axes, tmp_path, "a")] == [".svg", ".png"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"formats": ["gif"]}, "format: expected one of svg, png, pdf; got 'gif'"),
        ({"formats": []}, "format: expected one or more of"),
        ({"style": "poster"}, "style: expected one of paper, talk; got 'poster'"),
        ({"width": 1.0}, "width: expected from 3 to 60"),
    ],
)
def test_all_else_is_refused(arguments, words):
    with pytest.raises(natstats.UsageError, match=words), printed(**arguments):
        pass


def test_the_command_line_has_the_same_choices(group):
    plot = importlib.import_module(f"{type(group).__module__.rpartition('.')[0]}.plot")
    assert plot.FORMATS == printing.FORMATS
    assert plot.STYLES == printing.STYLES


@pytest.mark.slow
def test_plot_names_what_it_replaced_and_keeps_the_rest(call, made_networks, tmp_path):
    made_networks.save(tmp_path / "run", n_layers=9)
    first = call("plot", "run", "--format", "pdf,svg", "--format", "pdf", "--width", "86mm")
    names = {Path(line).name for line in first.stdout.splitlines()}
    assert names >= {"law.pdf", "law.svg", "spectra.pdf"}
    assert not [name for name in names if name.endswith(".png")]
    assert first.stderr == ""
    before = {path.name: path.read_bytes() for path in Path("figs").iterdir()}
    error = call("plot", "run", "--format", "pdf", code=2).stderr
    assert "figs holds law.pdf" in error
    assert {path.name: path.read_bytes() for path in Path("figs").iterdir()} == before
    again = call("plot", "run", "--format", "pdf,png", "--overwrite", "--style", "talk")
    replaced = again.stderr.removeprefix("Replaced: ").strip().split(", ")
    assert set(replaced) == {f"figs/{name}" for name in names if name.endswith(".pdf")}
    assert Path("figs/law.svg").read_bytes() == before["law.svg"]
    Path("figs/law.pdf").write_bytes(b"%PDF-1.4 of someone else")
    error = call("plot", "run", "--format", "pdf", "--overwrite", code=2).stderr
    assert "holds law.pdf, which natstats did not draw" in error
    for wrong in (("--width", "3"), ("--format", "gif"), ("--style", "poster")):
        call("plot", "run", *wrong, "--out", "other", code=2)
    assert not Path("other").exists()
