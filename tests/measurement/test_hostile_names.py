"""Names from strangers go through a whole measurement: folder, page, tables, record, terminal."""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import natstats
from natstats.text import cell, few, from_cell, lines, printable

NAMES = [
    "<script>alert(1)</script>", "a\x1b[2J\nError: b", "\u202egnp", "=cmd|'/C calc'!A1", "+1", "-1",
    "@x", "\t=1", "'=1", "a,b\"c", "{{7*7}}", "%s", "\\x41", "caf\udce9", "$x^2$", "$\\frac{", "_",
    "\ufeff=1", "a\u2028b", "\U000e0041", "x" * 200, "\x00", "\uff1d1", "&amp;", "&#0;", "]]>",
]  # fmt: skip

BAD = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]")

texts = st.one_of(
    st.sampled_from(NAMES),
    st.text(st.characters(codec=None, exclude_categories=()), min_size=1, max_size=40),
)


@given(texts)
@settings(deadline=None, derandomize=True, max_examples=150)
def test_text_is_shown_in_one_line_and_comes_back(name):
    for shown in (printable(name), few([name]), lines([name])):
        assert not any(unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in shown)
    assert from_cell(cell(name)) == name
    assert not re.match(r"\s*[=+\-@]", cell(name))


class Page(HTMLParser):
    """The tags of a page, and its texts."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, tuple(sorted(name for name, _ in attributes))))

    def handle_data(self, data):
        self.texts.append(data)


def page(path):
    parsed = Page()
    parsed.feed(path.read_text(encoding="utf-8"))
    return parsed


def named(names):
    """A network whose modules have these names."""
    torch.manual_seed(0)
    model = nn.Sequential()
    for place, name in enumerate(names):
        whole = name.encode("utf-8", "backslashreplace").decode().replace(".", "_")
        model.add_module(f"{place}{whole}", nn.Conv2d(3, 3, 3))
    return model.eval()


def file_name(name):
    """The name, as far as a file can have it."""
    plain = name.replace("/", "_").replace("\0", "_")
    try:
        made = os.fsencode(plain)
    except UnicodeEncodeError:
        made = plain.encode("utf-8", "backslashreplace")
    return os.fsdecode(made[:240])


@pytest.mark.slow
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.lists(texts, min_size=2, max_size=2, unique=True))
@example(NAMES[:2])
@example(["=cmd|'/C calc'!A1", "caf\udce9"])
@example(["$\\frac{", "\u202egnp"])
def test_a_whole_measurement_with_such_names(tmp_path_factory, names):
    tmp_path = tmp_path_factory.mktemp("names")
    photos = tmp_path / file_name(f"photos {names[0]}")
    photos.mkdir()
    generator = np.random.default_rng(0)
    for number in range(9):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        name = file_name(f"{number}{names[number % 2]}")
        with (photos / f"{name}.png").open("wb") as file:
            Image.fromarray(pixels).save(file, "png")
    (photos / file_name(f"broken{names[1]}.png")).write_bytes(b"none")
    model = named(names)
    network = natstats.Network(model, names[0], names[1]) if hasattr(natstats, "Network") else model
    out = tmp_path / file_name(f"run {names[1]}")
    run = natstats.measure(
        network, photos, out=out, size=32, crop=32, command=f"natstats {names[0]}"
    )
    again = natstats.Run.open(out)
    assert [one.layer.name for one in again.spectra] == [one.layer.name for one in run.spectra]
    for table in out.glob("*.csv"):
        for row in csv.reader(table.read_text(encoding="utf-8").splitlines()):
            assert not any(BAD.search(one) for one in row), row
            assert not any(re.match(r"\s*[=+@]|-\D", one) for one in row), row
    plain = page(plain_report(tmp_path, photos))
    found = page(out / "report.html")
    allowed = {tag for tag, _ in plain.tags}
    assert {tag for tag, _ in found.tags} <= allowed
    assert not [names for _, names in found.tags if any(one.startswith("on") for one in names)]
    assert not BAD.search(re.sub(r"\s", " ", "".join(found.texts)))


_plain = {}


def plain_report(tmp_path, photos):
    """The page of a run whose names are plain."""
    if not _plain:
        out = tmp_path / "plain"
        natstats.measure(named(["a", "b"]), photos, out=out, size=32, crop=32)
        _plain["path"] = out / "report.html"
    return _plain["path"]


@pytest.mark.draws
@pytest.mark.slow
def test_names_that_look_like_formulas_are_drawn(tmp_path):
    run = natstats.measure(named(["$\\frac{", "$x^2$", "<b>"]), torch.rand(9, 3, 32, 32))
    run.save(tmp_path / "run")
    for figure in (tmp_path / "run" / "figures").glob("*.svg"):
        assert "<b>" not in figure.read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_terminal_shows_one_line_each(group, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in NAMES[:6]:
        given_name = name.replace("\0", "")
        for arguments in (
            ["measure", given_name, "--images", given_name], ["images", given_name],
            ["fit", given_name], ["plot", given_name, given_name], ["merge", given_name],
            ["compare", given_name, given_name], ["law", given_name], ["table", given_name],
            [given_name], ["models", given_name],
            ["distill", "--student", given_name, "--data", given_name],
        ):  # fmt: skip
            result = CliRunner().invoke(group, arguments)
            assert result.exit_code in (0, 1, 2), arguments
            assert "defect" not in result.output
            assert not BAD.search(result.output.replace("\n", "")), result.output
            assert "\nError: b" not in result.output


def test_modules_have_names_that_are_text():
    model = nn.Sequential()
    model.add_module("caf\udce9", nn.Conv2d(3, 3, 3))
    with pytest.raises(natstats.UsageError, match=r"names are text; got caf\\xe9"):
        natstats.measure(model, torch.rand(9, 3, 16, 16))
