"""Tables of the pages of a law and of a comparison in a real browser, as a reader uses them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from natstats import compare, meta_analysis
from natstats.runs.run import Run
from tests.report.chromium import NEEDS_CHROMIUM

pytestmark = NEEDS_CHROMIUM
FITS = "one => one.scrollWidth <= one.clientWidth"


@pytest.fixture(scope="module")
def folder(made_networks, tmp_path_factory):
    """Four runs whose names are long, their law by group and the comparison of two."""
    place = tmp_path_factory.mktemp("pages")
    paths = []
    for seed in range(4):
        path = place / "runs" / f"a_network_with_a_rather_long_name_{seed}"
        made_networks.save(path, seed=seed, n_layers=8, n_seeds=2, model=f"net{seed % 2}")
        (path / "report.html").write_text("<html>")
        paths.append(path)
    meta_analysis(paths, by="model").save(place / "law")
    compare(Run.open(paths[0]), Run.open(paths[1]), ("a", "b")).save(place / "diff")
    return place


@pytest.fixture
def show(browser, folder):
    """Open a page; at the end nothing has gone wrong in any."""
    wrong: list[str] = []
    contexts = []

    def opened(name, width=1280, tail="", **options):
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(f"{(folder / name / 'report.html').as_uri()}{tail}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def heads(page, key):
    found = page.locator(f"#{key}-table thead th").all()
    return [one.get_attribute("data-key") for one in found if one.is_visible()]


def names(page, key):
    return page.eval_on_selector_all(
        f"#{key}-table tbody tr",
        "rows => rows.filter(r => !r.hidden).map(r => r.cells[0].textContent)",
    )


@pytest.mark.parametrize("width", [390, 1280, 1920])
@pytest.mark.parametrize("name", ["law", "diff"])
def test_no_table_is_cut(show, name, width):
    page = show(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    tables = page.locator(".scroll").all()
    assert len(tables) >= 2
    assert all(one.evaluate(FITS) for one in tables)
    if width == 390:
        return
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function(
        "Array.from(document.querySelectorAll('.choosable .scroll'))"
        ".every(one => one.scrollWidth <= one.clientWidth)"
    )


def test_what_matters_first_is_shown_first(show):
    assert heads(show("law", 390), "networks") == [
        "network", "slope per weight layer", "95 % interval",
    ]  # fmt: skip
    wide = heads(show("law", 1280), "networks")
    assert wide[:5] == ["network", "subgroup", "slope per weight layer", "95 % interval", "weight"]
    assert {*heads(show("law", 760), "networks")} < {*wide}
    assert heads(show("diff", 390), "layers") == ["layer", "B − A", "95 % interval", "p, Holm"]


def test_the_address_keeps_each_table_by_itself(show):
    page = show("law")
    tools = page.locator("#networks-choosable")
    tools.locator("summary").click()
    tools.get_by_label("family").check()
    tools.get_by_label("weight", exact=True).uncheck()
    page.locator("#networks-table th[data-key='slope per weight layer'] button").click()
    tools.locator("input[type=search]").fill("name_1")
    page.locator("#means-depth-table th[data-key='mean slope'] button").click()
    tail = page.url.partition("#")[2]
    again = show("law", tail=f"#{tail}")
    for one in (page, again):
        assert "family" in heads(one, "networks")
        assert "weight" not in heads(one, "networks")
        assert names(one, "networks") == ["a_network_with_a_rather_long_name_1"]
        sorting = one.locator("#means-depth-table th[aria-sort=ascending]")
        assert sorting.get_attribute("data-key") == "mean slope"
    tools.locator("input[type=search]").fill("")
    tools.locator(".usual").click()
    assert "family" not in heads(page, "networks")
    odd = show("law", tail="#networks.sort=network:constructor&networks.columns=%&x=1")
    assert len(names(odd, "networks")) == 4


def test_a_head_with_a_comma_comes_back(show):
    page = show("diff")
    page.locator("#layers-choosable summary").click()
    page.locator("#layers-choosable").get_by_label("kind").uncheck()
    kept = heads(page, "layers")
    assert "p, Holm" in kept
    assert heads(show("diff", tail=f"#{page.url.partition('#')[2]}"), "layers") == kept


@pytest.mark.parametrize(("name", "key", "file"), [
    ("law", "networks", "networks.csv"), ("law", "means-whole", "subgroups.csv"),
    ("diff", "layers", "comparison.csv"),
])  # fmt: skip
def test_the_download_is_what_the_file_has(show, folder, name, key, file):
    page = show(name)
    page.locator(f"#{key}-table thead th.n button").first.click()
    with page.expect_download() as started:
        page.click(f"#{key}-choosable .download")
    assert started.value.suggested_filename == file
    head, *rows = csv.reader(Path(started.value.path()).read_text(encoding="utf-8").splitlines())
    expected, *all_rows = csv.reader((folder / name / file).read_text("utf-8").splitlines())
    assert head == expected
    assert len(rows) == len(names(page, key))
    assert all(row in all_rows for row in rows)


def test_rows_lead_to_what_they_stand_for(show, folder):
    link = show("law").locator("#networks-table tbody a").first.get_attribute("href")
    assert (folder / "law" / link).resolve().is_file()
    row = show("diff").locator("#layers-table tbody tr", has_text="layer3").first
    ends = [one.get_attribute("href").partition("#") for one in row.locator("a").all()]
    assert [tail for _, _, tail in ends] == ["layer=layer3", "layer=layer3"]
    assert [(folder / "diff" / way).resolve().parent.name[-1] for way, _, _ in ends] == ["0", "1"]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(("name", "key"), [("law", "networks"), ("diff", "layers")])
def test_each_box_stands_beside_its_words(show, name, key, width):
    page = show(name, width)
    page.locator(f"#{key}-choosable summary").click()
    shown = page.eval_on_selector_all(
        f"#{key}-choosable .choices label",
        """labels => labels.map(label => {
            const words = document.createRange();
            words.selectNodeContents(label.lastChild);
            const box = label.querySelector("input").getBoundingClientRect();
            const text = words.getBoundingClientRect();
            return [box.width, text.left - box.right, label.scrollWidth - label.clientWidth];
        })""",
    )
    assert len(shown) > 8
    assert all(box < 24 and 2 < apart < 12 and cut <= 0 for box, apart, cut in shown)


def test_the_keyboard_sorts_and_chooses(show):
    page = show("diff")
    page.focus("#layers-table th[data-key='B − A'] button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#layers-table th[data-key='B − A']", "aria-sort") == "ascending"
    page.focus("#layers-choosable summary")
    page.keyboard.press("Enter")
    page.locator("#layers-choosable").get_by_label("depth").focus()
    page.keyboard.press("Space")
    assert "depth" not in heads(page, "layers")
    page.focus("#layers-choosable .all")
    page.keyboard.press("Enter")
    assert len(heads(page, "layers")) == 10


@pytest.mark.parametrize("name", ["law", "diff"])
def test_paper_has_all_rows_and_room_for_them(show, name):
    page = show(name)
    page.locator(".choosable input[type=search]").first.fill("nothing has this name")
    page.set_viewport_size({"width": 688, "height": 1000})
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 688
    assert not page.locator(".tools").first.is_visible()
    rows = page.locator(".choosable").last.locator("tbody tr").all()
    assert rows
    assert all(row.is_visible() for row in rows)


def test_without_a_script_all_of_it_is_there(show):
    page = show("law", java_script_enabled=False)
    assert page.locator("#networks-table tbody tr").count() == 4
    assert page.locator("#networks-table th[data-key=family]").is_visible()
    assert not page.locator("#networks-choosable .tools").is_visible()
