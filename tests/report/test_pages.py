"""The report page: whole in one file, true to the run, safe, and usable on a phone."""

from __future__ import annotations

import base64
import html
import inspect
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from natstats import power_law_fields
from natstats.fits import exponents, sample
from natstats.fits.flags import FIT_FLAGS
from natstats.fits.forms import flag_meanings
from natstats.fits.options import FitOptions
from natstats.law.verdict import headline
from natstats.measurement.one_run import measure, measure_images
from natstats.report.pages.html import embedded
from natstats.report.pages.provenance import measured, repeat
from natstats.report.pages.results import flag_rows
from natstats.report.pages.run import write_report
from natstats.runs.run import Run
from natstats.spectra.records import Layer, LayerSpectrum, SkippedLayer

nn = torch.nn
EVIL = "<script>alert('x')</script>&\"'"
VOID = {"meta", "input", "br", "hr", "img", "link", "wbr", "source"}


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.misnested: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.references: set[str] = set()
        self.text = text
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._read(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._read(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.misnested.append(tag)

    def _read(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            value = value or ""
            if name == "id":
                self.ids.append(value)
            self.references.update(re.findall(r"url\(#([^)]+)\)", value))
            if name in ("src", "href", "xlink:href", "data", "action", "srcset", "poster"):
                if value.startswith("#"):
                    if not value.startswith("#layer="):  # that is for the script
                        self.references.add(value[1:])
                elif tag != "a" and not value.startswith("data:"):
                    self.loads.append(f"{tag} {name}={value}")


@pytest.fixture(scope="module")
def run() -> Run:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(6)]
    model = nn.Sequential(*layers).eval()
    fields = power_law_fields(18, 16, 16, alpha=2.0, seed=0)
    images = np.float32(fields[:, None] + 0.1 * np.random.default_rng(0).random((18, 3, 16, 16)))
    return measure(model, images)


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = write_report(tmp_path_factory.mktemp("run"), run.report())
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of the time of a page; where its words are the matter there are none."""
    monkeypatch.setattr("natstats.report.pages.run.draw_run", lambda *_: [])


def page_of(run: Run, folder: Path) -> Page:
    return Page(write_report(folder, run.report()).read_text(encoding="utf-8"))


def changed(run: Run, **info: Any) -> Run:
    return Run(run.spectra, run.skipped_layers, {**run.info, **info}, run.options)


def table_rows(page: Page) -> list[str]:
    table = page.text[page.text.index('id="layer-table"') :]
    return re.findall(r"<tr>.*?</tr>", table[table.index("<tbody>") : table.index("</table>")])


@pytest.mark.slow
def test_the_page_is_well_formed(page: Page) -> None:
    assert page.misnested == []
    assert page.open == []
    assert page.tags.count("h1") == 1
    assert page.tags.count("img") == 5


def test_ids_are_unique_and_every_reference_is_met(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids)) > 5
    assert page.references <= set(page.ids)


def test_nothing_is_loaded(page: Page) -> None:
    assert page.loads == []
    assert "@import" not in page.text
    assert not re.search(r"url\(\s*['\"]?(https?:)?//", page.text)
    assert len(page.text) < 2_000_000


def test_a_page_that_loads_something_is_caught() -> None:
    assert Page('<img src="https://example.org/a.png">').loads
    assert Page('<p id="a"></p><p id="a"></p>').ids == ["a", "a"]
    assert Page("<div><p></div>").misnested


@pytest.mark.slow
def test_a_control_is_a_section_of_a_well_formed_page(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(6))).eval()
    images = np.float32(power_law_fields(54, 16, 16, alpha=2.0, seed=0).reshape(18, 3, 16, 16))
    run = measure(model, images, control="random-weights", control_seeds=2)
    page = page_of(run, tmp_path)
    assert page.misnested == page.open == page.loads == []
    assert page.tags.count("img") == 6
    assert len(page.ids) == len(set(page.ids))
    assert page.references <= set(page.ids)
    assert run.control is not None
    assert run.control.sentence() in html.unescape(page.text)
    assert "What training did" in page.text


def test_the_verdict_comes_before_the_figures(run: Run, page: Page) -> None:
    first_figure = page.text.index("<img")
    assert f"<h1>{headline(run.verdict.law)}</h1>" in page.text[:first_figure]
    for line in run.verdict.lines():
        assert f"<p>{html.escape(line, quote=False)}</p>" in page.text[:first_figure]


def test_the_table_has_a_row_for_every_layer(run: Run, page: Page) -> None:
    rows = table_rows(page)
    assert len(rows) == len(run.layers)
    for row, layer in zip(rows, run.layers.itertuples(), strict=True):
        assert f'<th scope="row">{layer.layer}</th>' in row.replace("<wbr>", "")
        assert f'data-v="{layer.exponent}">{layer.exponent:.2f}<' in row
        flags = [flag for flag in str(layer._asdict()["flags"]).split("; ") if flag]
        assert re.findall('<span class="flag">([^<]+)</span>', row) == flags
    columns = page.text[: page.text.index("<tbody>", page.text.index('id="layer-table"'))]
    n_columns = columns[columns.index('id="layer-table"') :].count("<th ")
    assert all(row.count("<td") + 1 == n_columns for row in rows)


def test_the_shapes_stand_in_order(run: Run, page: Page) -> None:
    part = page.text[page.text.index('<section id="shapes">') :]
    shapes = re.findall(r'<th scope="row">([^<]+)</th>', part[: part.index("</section>")])
    assert sorted(shapes) == sorted(run.law.shapes)
    assert shapes[0] == run.law.best_shape


@pytest.mark.parametrize("section", ["skipped", "measured", "definitions", "repeat", "cite"])
def test_every_section_is_there(page: Page, section: str) -> None:
    assert f'<section id="{section}">' in page.text


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_texts_of_users_are_escaped(run: Run, tmp_path: Path) -> None:
    first = run.spectra[2]
    layer = Layer(**{**vars(first.layer), "name": EVIL, "kind": EVIL})
    images = {**run.info["images"], "source": EVIL, "n_unreadable": 1, "unreadable": [EVIL]}
    info = {
        **run.info, "name": EVIL, "images": images, "warnings": [EVIL],
        "command": f"natstats {EVIL}",
        "model": {**run.info["model"], "name": EVIL, "weights": EVIL},
    }  # fmt: skip
    spectra = [*run.spectra[:2], LayerSpectrum(layer, first.spectrum), *run.spectra[3:]]
    evil = Run(spectra, [SkippedLayer(EVIL, EVIL, EVIL)], info, run.options)
    page = page_of(evil, tmp_path)
    assert "<script>alert" not in page.text
    assert page.text.count("&lt;script&gt;alert") >= 10
    n_tables = page.text.count('class="choosable"')
    assert page.tags.count("script") == 3 + n_tables  # data, library, our own; files of tables
    assert page.misnested == page.open == []


@pytest.mark.slow
def test_an_untrained_network_is_named_at_the_top(run: Run, page: Page, tmp_path: Path) -> None:
    untrained = changed(run, model={**run.info["model"], "trained": False})
    text = page_of(untrained, tmp_path).text
    assert text.index("not trained") < text.index("<img")
    assert "not trained" not in page.text


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_skipped_layers_are_listed_or_said_to_be_none(run: Run, page: Page, tmp_path: Path) -> None:
    assert "none was skipped" in page.text
    skipped = Run(run.spectra, [SkippedLayer("head", "Linear", "no maps")], run.info, run.options)
    text = page_of(skipped, tmp_path).text
    assert "none was skipped" not in text
    assert '<th scope="row">head</th><td>Linear</td><td>no maps</td>' in text


def test_images_alone_get_a_page_without_a_law(tmp_path: Path) -> None:
    run = measure_images(power_law_fields(18, 16, 16, alpha=2.0, seed=0)[:, None])
    page = page_of(run, tmp_path)
    assert f"<h1>{run.name}</h1>" in page.text
    assert "Exponent and depth" not in page.text
    assert 'id="skipped"' not in page.text
    assert f"{run.layers.exponent[0]:.2f}" in page.text[: page.text.index("<img")]
    assert len(table_rows(page)) == 1
    assert page.misnested == page.open == page.loads == []


@pytest.mark.usefixtures("undrawn")
def test_a_run_with_too_few_layers_says_so(run: Run, tmp_path: Path) -> None:
    page = page_of(Run(run.spectra[:3], (), run.info, run.options), tmp_path)
    assert "<h1>Too little to tell whether the exponent changes with depth</h1>" in page.text
    assert "it takes at least 5, at 3 depths or more" in page.text
    sections = ("shapes", "this-network", "a-law", "specifications", "influence")
    assert not {f'id="{name}"' in page.text for name in sections} - {False}


@pytest.mark.slow
def test_a_run_without_facts_can_be_reported(run: Run, tmp_path: Path) -> None:
    page = page_of(Run(run.spectra), tmp_path)
    assert page.misnested == page.open == []
    assert ">None<" not in page.text


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_numbers_that_could_not_be_had_are_not_sorted_by(tmp_path: Path, run: Run) -> None:
    spectrum = run.spectra[3].spectrum
    empty = type(spectrum)(
        **{**vars(spectrum), "power": 0 * spectrum.power, "image_power": spectrum.image_power[:0]}
    )
    spectra = [*run.spectra[:3], LayerSpectrum(run.spectra[3].layer, empty), *run.spectra[4:]]
    text = page_of(Run(spectra, (), run.info, run.options), tmp_path).text
    assert 'data-v="nan"' not in text
    assert '<span class="flag">constant</span>' in text


def test_every_flag_of_the_fits_is_explained() -> None:
    files = [inspect.getsourcefile(module) for module in (exponents, sample)]
    source = "".join(Path(file or "").read_text(encoding="utf-8") for file in files)
    assert {flag for flag in FIT_FLAGS if not re.search(rf'f?"{flag}["\s]', source)} == set()
    flags = [*FIT_FLAGS, *flag_meanings()]
    layers = pd.DataFrame({"kind": "conv", "flags": flags})
    assert len(flag_rows(layers)) == len(flags) >= 19
    assert all(meaning for _, meaning in flag_rows(layers))


def test_how_to_repeat() -> None:
    options = FitOptions()
    assert repeat({"command": "natstats measure resnet18"}, options) == "natstats measure resnet18"
    assert repeat({"command": ["natstats", "a b"]}, options) == "natstats 'a b'"
    code = repeat(
        {"model": {"name": "a\nimport os"}, "options": {"seed": 3, "size": None}}, options
    )
    compile(code, "repeat", "exec")
    assert "\nimport os" not in code
    assert "seed=3" in code
    assert "size" not in code
    assert dict(measured({}, options))["estimator"] == "octave"


def test_a_figure_is_inside_the_page_with_its_description(tmp_path: Path) -> None:
    path = tmp_path / "law.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg"><title>α</title></svg>', "utf-8")
    narrow = path.read_text("utf-8").replace("α", "β")
    image = str(embedded('a "b" <c>', path))
    both = str(embedded('a "b" <c>', path, narrow))
    assert Page(image).loads == Page(both).loads == []
    assert image in both
    assert 'alt="a &#34;b&#34; &lt;c&gt;"' in image
    content = re.search(r'src="data:image/svg\+xml;base64,([^"]+)"', image)
    assert content is not None
    assert "<title>α</title>" in base64.b64decode(content[1]).decode()
    small = re.search(r'max-width: 40rem\)" srcset="data:image/svg\+xml;base64,([^"]+)"', both)
    assert small is not None
    assert "<title>β</title>" in base64.b64decode(small[1]).decode()
