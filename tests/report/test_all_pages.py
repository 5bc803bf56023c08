"""What all pages have in common: contents, words, citation, numbers in one notation, phones."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

import natstats
from natstats import meta_analysis
from natstats.distill.comparison.compare import compare_runs
from natstats.distill.report.pages import write_run_report, write_table_report
from natstats.networks.checkpoint_files import number_checkpoints
from natstats.report.figures import style
from natstats.report.pages.citing import citation
from natstats.report.pages.comparison import write_comparison_report
from natstats.report.pages.networks import write_networks_report
from natstats.report.pages.provenance import measured
from natstats.report.pages.run import write_report
from natstats.report.pages.series import write_series_report
from natstats.report.pages.words import DOCS, REPOSITORY, WORDS
from natstats.runs.comparison import compare
from natstats.runs.series import Series

ROOT = Path(__file__).parents[2]

NAMES = ("run", "images", "series", "comparison", "networks", "distill", "one class", "table")

NOT_SAID = {
    "the notation of programs": r"(?<!\w)\d+(\.\d+)?e[+-]?\d+(?!\w)",
    "a hyphen for a minus": r"(?<![\w-])-\d",
    "a power in TeX": r"\^\w|\^\{",
    "a value that is none": r"\b(nan|NaN|None|inf)\b",
}


class Page(HTMLParser):
    """The text that is seen, attributes that are read out, and what is where."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.sections: list[str] = []
        self.links: list[str] = []
        self.contents: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.source = text
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.parts += ["\n", *(found.get(name) or "" for name in ("alt", "title", "aria-label"))]
        if tag not in ("meta", "input", "img", "source", "br"):
            self._open.append(tag)
        if tag == "section":
            self.sections.append(str(found["id"]))
        if tag == "a":
            (self.contents if "nav" in self._open else self.links).append(str(found["href"]))

    def handle_endtag(self, tag: str) -> None:
        self._open.remove(tag)

    def handle_data(self, data: str) -> None:
        if not {"script", "style", "pre", "code"} & set(self._open):
            self.parts.append(data)

    @property
    def seen(self) -> str:
        """The text without code."""
        return " ".join("".join(self.parts).split())


DRAWN: dict[str, list[str]] = {}
"""Texts of figures by name."""


def save(axes: Axes, folder: Path, name: str) -> list[Path]:
    """As natstats saves, but without a picture: what is written in it is kept."""
    figure: Any = axes.get_figure(root=True)
    if not style.is_for_phones():
        figure.draw_without_rendering()
        texts = [one.get_text() for one in figure.findobj(Text) if one.get_visible()]
        DRAWN.setdefault(name, []).extend(texts)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    size = f'width="{72 * figure.get_figwidth()}" height="{72 * figure.get_figheight()}"'
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" {size}/>', encoding="utf-8")
    return [path]


COSTS = {
    "ms_per_step": 1134.2, "peak_memory_mib": 1427.3, "memory_of": "process", "epochs": 6,
    "teacher_passes": 1.0, "extra_parameters": 0, "epochs_before": 0, "seconds": 123456.7,
}  # fmt: skip


def write_all(folder: Path, made_networks: Any, made_runs: Any) -> Iterator[tuple[str, Path]]:
    """Every kind of page, with large, small, negative and missing numbers in it."""
    facts: dict[str, Any] = {
        "images": {
            "source": "photos", "n_images": 16, "contents": "same", "size": 64, "resize": 72,
            "interpolation": "bilinear",
            "normalisation": {"mean": [-0.5, 1e-5, 0.25], "std": [0.1, 0.2, 1250.0]},
        },
        "options": {"layers": "weight", "edges": "sine", "temporal": False, "n_groups": 128},
        "timing": {"seconds": 1134.25, "images_per_second": 0.0000412},
    }  # fmt: skip
    falling = made_networks.run(0, -0.05, n_seeds=2, **facts)
    rising = made_networks.run(1, 0.05, kind="other", **facts)
    runs = made_runs()
    long = {"recipe": {"learning_rate": 1e-5, "weight_decay": 2.5e-9}, "costs": COSTS}
    arguments = {"kd": {"level": -1.5, "scale": 1e7}}
    trained = [runs.run(m, s, a, arguments=arguments if m == "kd" else None, **long)
               for m, a in (("ce", 0.6), ("kd", 0.7)) for s in (0, 1)]  # fmt: skip
    failed = runs.run("ce", 2, 0.5, **long)
    object.__setattr__(failed.outcomes, "predicted", 0 * failed.outcomes.predicted)
    failed.info["accuracy"] = failed.outcomes.accuracy
    both = number_checkpoints([Path("step_1.pth"), Path("step_1000000.pth")])
    fields = natstats.power_law_fields(16, 16, 16, alpha=2.0, seed=0)[:, None]
    places = {name: folder / name for name in NAMES}
    for place in places.values():
        place.mkdir()
    write_report(places["run"], falling.report())
    write_report(places["images"], natstats.measure_images(np.float32(fields)).report())
    write_series_report(places["series"], Series.of([falling, rising], both).report())
    write_comparison_report(places["comparison"], compare(falling, rising, ("a", "b")).page())
    found = meta_analysis({"a": falling, "b": rising, "c": made_networks.run(2, 0.04)})
    write_networks_report(places["networks"], found.report())
    write_run_report(places["distill"], trained[-1])
    write_run_report(places["one class"], failed)
    write_table_report(places["table"], compare_runs([*trained, failed]), places["table"])
    for name, place in places.items():
        yield name, place / "report.html"


@pytest.fixture(scope="module")
def pages(tmp_path_factory, made_networks, made_runs) -> dict[str, Page]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("natstats.report.figures.style.save", save)
        patch.setattr("natstats.distill.report.pages.save", save)
        folder = tmp_path_factory.mktemp("pages")
        return {
            name: Page(path.read_text(encoding="utf-8"))
            for name, path in write_all(folder, made_networks, made_runs)
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_written_for_people(pages, name):
    for what, pattern in NOT_SAID.items():
        found = re.search(pattern, pages[name].seen)
        start = 0 if found is None else max(found.start() - 40, 0)
        assert found is None, f"{what}: {pages[name].seen[start : start + 80]}"


@pytest.mark.slow
def test_figures_have_the_same_notation(pages):
    assert pages
    assert {"law", "spectra", "exponents", "slopes", "difference", "compare", "forest", "curves",
            "gap", "accuracy"} <= set(DRAWN)  # fmt: skip
    for name, texts in DRAWN.items():
        for text in texts:
            for what, pattern in NOT_SAID.items():
                assert "$" in text or not re.search(pattern, text), f"{name}, {what}: {text}"


@pytest.mark.slow
def test_what_was_meant_is_there(pages):
    assert "16, an image each" in pages["run"].seen
    assert "1134 s, 0.0000412 images per second" in pages["run"].seen
    assert "mean −0.5, 0.00001, 0.25; sd 0.1, 0.2, 1250" in pages["run"].seen
    assert "level −1.5" in pages["distill"].seen
    assert "1134 ms" in pages["distill"].seen
    assert "weight_decay 2.5 × 10⁻⁹" in pages["distill"].seen
    assert "123 457 s" in pages["distill"].seen.replace("\N{NARROW NO-BREAK SPACE}", " ")


def test_groups_are_at_most_the_images():
    def groups(n_groups: int, n_images: int) -> str:
        info = {"images": {"n_images": n_images}, "options": {"n_groups": n_groups}}
        return dict(measured(info, natstats.FitOptions()))["groups of images"]

    assert groups(128, 48) == "48, an image each"
    assert groups(128, 128) == "128, an image each"
    assert groups(128, 10_000) == "128, of about 78 images each"


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_contents_lead_to_every_section(pages, name):
    page = pages[name]
    assert page.contents == [f"#{section}" for section in page.sections]
    assert len(page.contents) > 4
    assert page.sections[-2:] == ["how-to-read", "cite"]
    assert 'aria-label="Contents"' in page.source


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_words_are_told_and_it_can_be_cited(pages, name):
    page = pages[name]
    assert DOCS in page.links
    version = "0.4.0" if name in ("distill", "one class") else natstats.__version__
    line, bibtex = citation(version)
    assert line in page.seen
    assert bibtex in page.source.replace("&#39;", "'")
    assert WORDS["exponent"] in page.source
    told = page.source[page.source.index('<dl class="words">') :]
    assert told.count("<dt>") >= 5


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_figure_has_a_picture_for_phones(pages, name):
    tags = pages[name].tags
    # What the script draws anew at any width needs no second picture.
    n_live = len(re.findall('class="plot live"', pages[name].source))
    assert tags.count("figure") - n_live == tags.count("picture") == tags.count("source") > 0
    assert "prefers-color-scheme: dark" in pages[name].source


HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body style="margin:0"><pre id="result"></pre>
{frames}
<script>
const seen = {{}};
window.addEventListener("load", function () {{
  document.querySelectorAll("iframe").forEach(function (frame) {{
    const page = frame.contentDocument;
    const images = Array.from(page.querySelectorAll("picture img"));
    seen[frame.title] = {{
      scroll: Math.max(page.documentElement.scrollWidth, page.body.scrollWidth),
      open: page.querySelector(".contents details").open,
      narrow: images.map(one => one.currentSrc === one.parentNode.firstElementChild.srcset),
      right: images.map(one => one.getBoundingClientRect().right),
      buttons: page.querySelectorAll("thead button").length,
      heads: page.querySelectorAll(".choosable thead th").length,
    }};
  }});
  document.getElementById("result").textContent = JSON.stringify(seen);
}});
</script>"""


def chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


def shown_at(width: int, pages: dict[str, Page], folder: Path) -> dict[str, Any]:
    """What a browser makes of all pages at a width."""
    frames = "".join(
        f'<iframe title="{name}" style="width:{width}px;height:800px;border:0" '
        f'srcdoc="{html.escape(page.source)}"></iframe>'
        for name, page in pages.items()
    )
    harness = folder / f"harness-{width}.html"
    harness.write_text(HARNESS.format(frames=frames), encoding="utf-8")
    shown = subprocess.run(
        [
            str(chromium()), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--hide-scrollbars", f"--user-data-dir={folder / 'profile'}", "--window-size=2000,1000",
            "--virtual-time-budget=5000", "--dump-dom", harness.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    ).stdout  # fmt: skip
    found = re.search(r'<pre id="result">(.+?)</pre>', shown, re.DOTALL)
    assert found is not None
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium in the path to show pages with")
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_pages_fit_every_screen(pages, tmp_path, width):
    seen = shown_at(width, pages, tmp_path)
    assert set(seen) == set(NAMES)
    for name, one in seen.items():
        assert one["scroll"] <= width, name
        assert one["open"] == (width > 640), name
        assert one["narrow"] == [width < 640] * len(one["narrow"]), name
        assert max(one["right"]) <= width, name
        assert one["buttons"] == one["heads"], name


@pytest.mark.slow
def test_a_student_of_one_class_is_called_that(pages):
    page = pages["one class"].seen
    assert "One class predicted with ce" in page
    assert "all 400 images are put in a, and the accuracy is the share of images that are" in page
    assert "1 of 5" in page
    assert "ce: 1 of 3 trainings puts all images in one class" in pages["table"].seen
    assert "3 (1 predict one class)" in pages["table"].seen
    assert "predicts one class" in DRAWN["accuracy"]
    assert "one class" not in pages["distill"].seen


def test_the_citation_has_the_facts_of_the_file():
    yaml = pytest.importorskip("yaml")
    facts = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    line, bibtex = citation(facts["version"])
    paper = facts["references"][0]
    assert line == f"{facts['authors'][0]['name']}. {facts['title']}, version {facts['version']}."
    for fact in (facts["title"], facts["version"], facts["license"], facts["url"], paper["title"],
                 paper["collection-title"], str(paper["year"]),
                 paper["identifiers"][0]["value"].removeprefix("arXiv:")):  # fmt: skip
        assert f"{{{fact}}}" in bibtex
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    assert f"url = {REPOSITORY}\n" in setup
    assert f"Documentation = {DOCS}\n" in setup
