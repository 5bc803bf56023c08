"""The page of a run in a real browser: every point, line and row is one layer, and they agree."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

from natstats import measure, power_law_fields
from natstats.report.pages.run import write_report
from natstats.runs.run import Run
from natstats.spectra.records import Layer, LayerSpectrum
from tests.report.chromium import NEEDS_CHROMIUM

nn = torch.nn
pytestmark = NEEDS_CHROMIUM
EVIL = "<img src=x onerror=alert(1)>&\"' <b>"
READY = "document.documentElement.dataset.ready === 'yes'"


@pytest.fixture(scope="module")
def run() -> Run:
    """Convolutions and rectifiers at two map sizes; one layer has a hostile name."""
    torch.manual_seed(0)
    modules: list[nn.Module] = []
    for i in range(6):
        modules += [nn.Conv2d(4 if i else 3, 4, 3, 2 if i == 3 else 1, 1), nn.ReLU()]
    fields = power_law_fields(72, 24, 24, alpha=2.0, seed=0).reshape(24, 3, 24, 24)
    found = measure(nn.Sequential(*modules).eval(), np.float32(fields), layers="conv,act")
    last = found.spectra[-1]
    evil = LayerSpectrum(Layer(**{**vars(last.layer), "name": EVIL}), last.spectrum)
    return Run([*found.spectra[:-1], evil], (), found.info, found.options)


@pytest.fixture(scope="module")
def report(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("run"), run.report())


class Seen:
    """An open page, and what went wrong in it."""

    def __init__(self, browser: Any, report: Path, tail: str = "", **options: Any) -> None:
        size = {"width": 1280, "height": 900}
        self.context = browser.new_context(**{"viewport": size, **options})
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        self.page.on("request", self._asked)
        self.page.goto(f"{report.as_uri()}{tail}")
        if options.get("java_script_enabled", True):
            self.page.wait_for_function(READY)

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.wrong.append(request.url)

    def rows(self) -> list[str]:
        return list(
            self.page.eval_on_selector_all(
                "#layer-table tbody tr",
                "rows => rows.filter(r => !r.hidden).map(r => r.cells[0].textContent)",
            )
        )

    def opened(self) -> str:
        return str(self.page.text_content("#layer h3"))

    def wait_for(self, name: str) -> None:
        """Wait until the panel shows this layer; a layer that never comes is an error."""
        self.page.locator("#layer h3").get_by_text(name, exact=True).wait_for()

    def click_point(self, place: int, name: str) -> None:
        """Click the point of a layer, as a hand does: Plotly takes a click only where it hovers."""
        label = self.page.locator("#law-plot .hoverlayer text").first
        self.page.mouse.move(0, 0)
        label.wait_for(state="hidden")
        self.page.mouse.move(*self.point(place))
        label.wait_for()
        self.page.mouse.click(*self.point(place))
        self.wait_for(name)

    def traces(self, place: str) -> list[dict[str, Any]]:
        """Traces of a plot: name, customdata."""
        found = self.page.eval_on_selector(
            place, "p => JSON.stringify(p.data.map(t => ({name: t.name, of: t.customdata || []})))"
        )
        return list(json.loads(found))

    def drawn(self, place: str) -> set[int]:
        return {layer for trace in self.traces(place) for layer in trace["of"]}

    def point(self, place: int) -> tuple[float, float]:
        """Where the point of a layer is in the window, pixels."""
        x, y = self.page.evaluate(
            """place => {
                const plot = document.getElementById("law-plot");
                const box = plot.getBoundingClientRect();
                for (const trace of plot.data) {
                    const at = (trace.customdata || []).indexOf(place);
                    if (at < 0) continue;
                    const l = plot._fullLayout;
                    return [box.x + l.xaxis._offset + l.xaxis.d2p(trace.x[at]),
                            box.y + l.yaxis._offset + l.yaxis.d2p(trace.y[at])];
                }
            }""",
            place,
        )
        return float(x), float(y)


@pytest.fixture
def seen(browser: Any, report: Path) -> Iterator[Seen]:
    one = Seen(browser, report)
    one.page.locator("#law-plot").scroll_into_view_if_needed()
    yield one
    one.context.close()
    assert one.wrong == []


def test_the_first_layer_is_open_and_no_row_is_missing(seen: Seen, run: Run) -> None:
    assert seen.rows() == list(run.layers.layer)
    assert seen.opened() == run.layers.layer.iloc[2]
    assert seen.drawn("#law-plot") == set(np.flatnonzero(np.isfinite(run.layers.exponent)))
    assert "#" not in seen.page.url


def test_hover_names_a_layer(seen: Seen, run: Run) -> None:
    row = run.layers.iloc[4]
    seen.page.mouse.move(*seen.point(4))
    label = seen.page.locator("#law-plot .hoverlayer")
    label.locator("text").first.wait_for()
    told = " ".join(label.text_content().split())
    assert row.layer in told
    assert f"α = {row.exponent:.2f}" in told
    assert row.kind in told
    assert f"{row.height} × {row.width}" in told


def test_a_click_on_a_point_opens_its_layer_and_back_returns(seen: Seen, run: Run) -> None:
    before = seen.opened()
    name, other = run.layers.layer.iloc[5], run.layers.layer.iloc[3]
    seen.click_point(5, name)
    assert seen.page.url.endswith(f"#layer={name}")
    assert seen.page.text_content("#layer-table tr.chosen th") == name
    summary = str(seen.page.text_content("#layer .summary"))
    assert summary.startswith(f"α = {run.layers.exponent.iloc[5]:.2f}")
    seen.click_point(3, other)
    seen.page.go_back()
    seen.wait_for(name)
    assert name != before


def test_the_panel_has_all_of_a_layer(seen: Seen, run: Run) -> None:
    seen.page.click("#layer-table tbody tr:nth-child(3)")
    heads = seen.page.locator("#layer h4").all_text_contents()
    assert heads == ["Is it a power law?", "From image to image", "More numbers"]
    assert seen.page.locator("#layer .plot svg.main-svg").count() >= 3
    forms = seen.page.locator("#layer table.forms tbody th").all_text_contents()
    assert forms == ["power law", "floor", "cut-off", "broken"]
    best = seen.page.text_content("#layer table.forms tr.best th")
    assert best == run.layers.best_form.iloc[2]


def test_filters_act_on_table_and_plots(seen: Seen, run: Run) -> None:
    layers = run.layers.reset_index(drop=True)
    seen.page.locator("#spectra-plot").scroll_into_view_if_needed()
    seen.page.locator("#spectra-plot svg.main-svg").first.wait_for()
    seen.page.select_option("[name=kind]", "act")
    acts = layers[layers.kind == "act"]
    assert seen.rows() == list(acts.layer)
    assert seen.drawn("#law-plot") == set(acts.index[np.isfinite(acts.exponent)])
    assert seen.drawn("#spectra-plot") == set(acts.index)
    assert "filtered out" in [trace.get("name") for trace in seen.traces("#law-plot")]
    seen.page.select_option("[name=map]", "12 × 12")
    small = acts[acts.height == 12]
    assert seen.rows() == list(small.layer)
    seen.page.fill("[name=name]", small.layer.iloc[0])
    assert seen.rows() == [small.layer.iloc[0]]
    assert f"1 of {len(layers)} rows" in str(seen.page.text_content("#filters output"))
    seen.page.click("#clear")
    assert seen.rows() == list(layers.layer)
    flag = next(filter(None, layers["flags"])).split("; ")[0].split(" (")[0]
    seen.page.select_option("[name=flag]", flag)
    assert seen.rows() == list(layers.layer[layers["flags"].str.contains(flag)])
    seen.page.select_option("[name=flag]", "none")
    assert seen.rows() == list(layers.layer[layers["flags"] == ""])


def test_the_table_sorts_both_ways_and_back(seen: Seen, run: Run) -> None:
    by_exponent = list(run.layers.sort_values("exponent", kind="stable").layer)
    head = seen.page.locator("#layer-table thead th[data-key=exponent]")
    found = {}
    for _ in range(3):
        head.locator("button").click()
        found[head.get_attribute("aria-sort")] = seen.rows()
    assert found == {
        "ascending": by_exponent, "descending": by_exponent[::-1], "none": list(run.layers.layer),
    }  # fmt: skip


def visible_heads(seen: Seen) -> list[str]:
    heads = seen.page.locator("#layer-table thead th").all()
    return [str(head.get_attribute("data-key")) for head in heads if head.is_visible()]


def test_columns_can_be_chosen_and_none_is_cut(seen: Seen) -> None:
    usual = ["layer", "kind", "depth", "map", "exponent", "95 % interval", "flags"]
    assert visible_heads(seen) == usual
    fits = "one => one.scrollWidth <= one.clientWidth"
    assert seen.page.locator("#layer-choosable .tall").evaluate(fits)
    seen.page.click("#layer-choosable .columns summary")
    tools = seen.page.locator("#layer-choosable")
    tools.get_by_label("curvature").check()
    tools.get_by_label("depth", exact=True).uncheck()
    assert "curvature" in visible_heads(seen)
    assert "depth" not in visible_heads(seen)
    seen.page.click("#layer-choosable .usual")
    assert visible_heads(seen) == usual
    seen.page.click("#layer-choosable .all")
    assert len(visible_heads(seen)) > 20


def test_the_download_is_the_file_of_the_run(seen: Seen, run: Run) -> None:
    seen.page.select_option("[name=kind]", "conv")
    seen.page.locator("#layer-table thead th[data-key=exponent] button").click()
    with seen.page.expect_download() as started:
        seen.page.click("#layer-choosable .download")
    text = Path(started.value.path()).read_text(encoding="utf-8")
    head, *rows = csv.reader(text.splitlines())
    expected = run.layers[run.layers.kind == "conv"].sort_values("exponent", kind="stable")
    assert head == list(run.layers.columns)
    assert [row[0] for row in rows] == list(expected.layer)
    assert [float(row[head.index("exponent")]) for row in rows] == list(expected.exponent)


def test_the_keyboard_reaches_every_layer(seen: Seen, run: Run) -> None:
    names = list(run.layers.layer)
    seen.page.focus("#law-plot")
    seen.page.keyboard.press("Home")
    assert seen.opened() == names[0]
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.press("ArrowRight")
    assert seen.opened() == names[2]
    seen.page.keyboard.press("Enter")
    assert seen.page.evaluate("document.activeElement.textContent") == names[2]
    seen.page.focus("#layer-table tbody tr:nth-child(6) button")
    seen.page.keyboard.press("Enter")
    assert seen.opened() == names[5]
    seen.page.focus("#layer [data-step='1']")
    seen.page.keyboard.press("Enter")
    seen.page.keyboard.press("Enter")
    assert seen.opened() == names[7]


def test_the_address_brings_all_of_it_back(browser: Any, report: Path, run: Run) -> None:
    layer = run.layers[run.layers.kind == "act"].layer.iloc[1]
    tail = f"#layer={layer}&kind=act&sort=exponent:descending&columns=layer,exponent,R²&view=left"
    again = Seen(browser, report, tail)
    acts = run.layers[run.layers.kind == "act"]
    assert again.opened() == layer
    assert again.rows() == list(acts.sort_values("exponent", kind="stable").layer)[::-1]
    assert visible_heads(again) == ["layer", "exponent", "R²"]
    assert again.page.is_checked("[name=view][value=left]")
    again.context.close()
    odd = Seen(browser, report, "#layer=nobody&kind=x&sort=y:z&columns=&view=q&more")
    assert odd.rows() == list(run.layers.layer)
    assert odd.wrong == again.wrong == []
    odd.context.close()


def test_names_are_text_and_nothing_else(browser: Any, report: Path) -> None:
    one = Seen(browser, report, f"#layer={quote(EVIL)}")
    assert one.opened() == EVIL
    one.page.locator("#law-plot").scroll_into_view_if_needed()
    last = max(one.drawn("#law-plot"))
    one.page.mouse.move(*one.point(last))
    one.page.locator("#law-plot .hoverlayer text").first.wait_for()
    assert EVIL.split()[0] in str(one.page.text_content("#law-plot .hoverlayer"))
    assert one.page.locator("img[src=x]").count() == 0
    assert one.wrong == []
    one.context.close()


@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_page_fits_its_screen(browser: Any, report: Path, width: int) -> None:
    one = Seen(browser, report, viewport={"width": width, "height": 844})
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    one.page.locator("#spectra-plot").scroll_into_view_if_needed()
    one.page.locator("#spectra-plot svg.main-svg").first.wait_for()
    for plot in one.page.locator(".plot").all():
        box = plot.locator("svg.main-svg").first.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        legend = plot.locator("g.legend")
        if legend.count():
            inside, own = legend.bounding_box(), plot.bounding_box()
            assert inside["x"] + inside["width"] <= width
            assert inside["y"] + inside["height"] <= own["y"] + own["height"] + 1
    assert one.page.locator("#layer-choosable .tall").evaluate(
        "one => one.scrollWidth <= one.clientWidth"
    )
    assert one.wrong == []
    one.context.close()


def test_print_and_no_script_show_the_static_figures(browser: Any, report: Path, run: Run) -> None:
    one = Seen(browser, report)
    static = one.page.locator("#layers .static img")
    assert not static.is_visible()
    one.page.emulate_media(media="print")
    assert static.is_visible()
    assert not one.page.locator("#law-plot").is_visible()
    assert not one.page.locator("#layer").is_visible()
    one.context.close()
    plain = Seen(browser, report, java_script_enabled=False)
    assert plain.page.locator("#layers .static img").is_visible()
    assert not plain.page.locator("#filters").is_visible()
    assert plain.page.locator("#layer-table tbody tr").count() == len(run.layers)
    plain.context.close()


def test_dark_is_dark(browser: Any, report: Path) -> None:
    one = Seen(browser, report, color_scheme="dark")
    paper, ink = one.page.evaluate(
        "['backgroundColor', 'color'].map(n => getComputedStyle(document.body)[n])"
    )
    letters = one.page.locator("#law-plot g.xtick text").first.evaluate(
        "one => getComputedStyle(one).fill"
    )

    def light(colour: str) -> float:
        return float(np.mean([float(part) for part in colour.strip("rgba()").split(",")[:3]]))

    assert light(paper) < 60
    assert light(ink) > 180
    assert light(letters) > 180
    one.context.close()


@pytest.mark.parametrize(("scheme", "lightest"), [("dark", False), ("light", True)])
def test_static_figures_are_drawn_on_the_page(
    browser: Any, report: Path, scheme: str, lightest: bool
) -> None:
    """Their ground is that of the page, and their letters are seen on it."""
    one = Seen(browser, report, color_scheme=scheme)
    image = one.page.locator("#sensitivity .card img")
    image.scroll_into_view_if_needed()
    shot = Image.open(io.BytesIO(image.screenshot())).convert("RGB")
    one.page.emulate_media(media="print")
    shadow = "one => getComputedStyle(one).filter"
    assert image.evaluate(shadow) == "none"
    one.page.emulate_media(media="screen")
    paper = one.page.evaluate("getComputedStyle(document.body).backgroundColor")
    one.context.close()
    pixels = np.asarray(shot, dtype=float)
    ground = [float(part) for part in paper.strip("rgba()").split(",")[:3]]
    assert np.abs(pixels[2, 2] - ground).max() <= 1
    contrast = pixels.mean(axis=2) - np.mean(ground)
    assert bool(contrast.min() < -180) is lightest
    assert bool(contrast.max() > 180) is not lightest


def test_sixty_layers_weigh_two_megabytes_at_most(run: Run, tmp_path: Path) -> None:
    """Each as heavy as one of large maps: as many rings as are drawn of any."""
    large = power_law_fields(120, 160, 160, alpha=1.5, seed=1).reshape(40, 3, 160, 160)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(3))).eval()
    found = measure(model, np.float32(large))
    spectra = list(found.spectra)
    for number in range(58):
        layer = found.spectra[2 + number % 3]
        named = {**vars(layer.layer), "name": f"features.{number}.conv.0.0", "depth": number + 1}
        spectra.append(LayerSpectrum(Layer(**named), layer.spectrum))
    many = Run([*spectra[:2], *spectra[5:]], (), found.info, found.options)
    assert len(many.layers) == 60
    size = write_report(tmp_path, many.report()).stat().st_size
    assert size < 2 * 10**6
