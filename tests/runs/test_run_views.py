"""How a run is looked at from Python: one layer, its spectrum, words, and what notebooks show."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.dom import minidom

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.law.law import fit_law
from natstats.report.pages.explorer_layers import spectrum_of

HOSTILE = ["<script>alert(1)</script>", "x]]>--!><b>&amp;", "\"'><img src=x onerror=y>", "a\x1b\n"]
PLAIN = [f"conv{place}" for place in range(6)]


@pytest.fixture(scope="module")
def run():
    fields = natstats.power_law_fields(24 * 3, 24, 24, alpha=2.0, seed=0).reshape(24, 3, 24, 24)
    torch.manual_seed(0)
    model, channels = nn.Sequential(), 3
    for name in (*HOSTILE, "plain", *PLAIN):
        model.add_module(name, nn.Conv2d(channels, 4, 3, padding=1))
        channels = 4
    return natstats.measure(model, np.float32(fields))


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]

    def handle_data(self, data):
        self.text.append(data)


def test_a_layer_is_one_record_with_all_that_is_known_of_it(run):
    for place, row in enumerate(run.layers.to_dict("records")):
        one = run.layer(row["layer"])
        assert one.name == row["layer"]
        assert one.spectrum is run.spectra[place].spectrum
        assert one.fit is run.fits.layers[place]
        assert one.exponent == pytest.approx(row["exponent"], nan_ok=True)
        assert one.interval == pytest.approx((row["exponent_low"], row["exponent_high"]))
        assert "; ".join(one.flags) == row["flags"]
        assert one.law == row["law"]
        assert one.form["best_form"] == row["best_form"]
        assert one.images["mean"] == pytest.approx(row["exponent_image_mean"], nan_ok=True)
        assert set(one.sensitivity.layer) <= {row["layer"]}
        assert one.control == {}
        assert one.name.isprintable() <= (one.name in repr(one))
        assert len(repr(one).splitlines()) == 1


def test_an_unknown_layer_is_refused_with_near_ones(run):
    for call in (run.layer, run.plot_spectrum):
        with pytest.raises(
            natstats.UsageError, match=r"(?s)^layer: .* got 'plan' \(did you mean plain"
        ):
            call("plan")


def test_the_spectrum_of_a_layer_is_drawn(run):
    ax = run.plot_spectrum("plain")
    lines = [line for line in ax.get_lines() if len(line.get_xdata()) > 2]
    drawn, power = lines[0].get_ydata(), run.layer("plain").spectrum.mean_power
    assert drawn == pytest.approx(power / power[0])
    fitted = run.layer("plain").fit.fitted_power
    assert lines[1].get_ydata() == pytest.approx(fitted / power[0])
    rest = ax.figure.axes[1].get_lines()[0].get_ydata()
    assert rest == pytest.approx(np.log10(power / fitted))
    assert run.plot_spectrum("plain", ax) is ax
    for name in run.layers.layer:
        run.plot_spectrum(name)


def test_the_figure_and_the_page_shade_the_same_interval(run):
    """Also at another level, and where power is normalised image by image."""
    for changes in ({}, {"level": 0.8}, {"normalize": True}):
        other = run.refit(**changes)
        place = [*other.layers.layer].index("plain")
        page = spectrum_of(other.report(), place)
        ax = other.plot_spectrum("plain")
        level = f"{100 * other.options.level:g} %"
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert labels == ["mean of the images", f"{level} interval of the shape",
                          "fitted power law"]  # fmt: skip
        (shade,) = ax.collections
        edges = shade.get_paths()[0].vertices
        for sign in (-1, 1):
            end = page["power"] * np.exp(sign * page["shape"])
            for frequency, value in zip(other.layer("plain").spectrum.frequency, end, strict=True):
                here = edges[np.isclose(edges[:, 0], frequency), 1]
                assert np.isclose(here, value).any()
        (below,) = ax.figure.axes[1].collections
        widest = np.ptp(below.get_paths()[0].vertices[:, 1])
        assert widest >= 2 * np.nanmax(page["left"]) / np.log(10)


def test_two_images_have_no_interval():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    ax = natstats.measure(model, torch.rand(2, 1, 12, 12)).plot_spectrum("0")
    assert not ax.collections
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mean of the images"]


def test_layers_without_power_or_exponent_are_drawn(run):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())
    with torch.no_grad():
        model[0].weight.zero_()
    flat = natstats.measure(model, torch.rand(2, 1, 12, 12))
    assert "no exponent" in repr(flat.layer("0"))
    assert flat.plot_spectrum("0") is not None
    assert "<svg" not in flat.layer("0")._repr_html_()
    assert "too little to tell" in repr(flat)


def test_it_says_what_it_is_in_a_line(run):
    assert re.fullmatch(
        r"<Run of Sequential: 11 layers on 24 images, slope \S+ \[\S+ \S+\] per layer>", repr(run)
    )
    images = natstats.measure_images(natstats.power_law_fields(16, 16, 16, 2.0, seed=0)[:, None])
    assert re.fullmatch(r"<Run of array: 16 images, exponent \S+ \[\S+ \S+\]>", repr(images))
    assert repr(run.fits.layers[0]).startswith("<LayerFit: exponent ")
    found = natstats.compare(run, run.refit(estimator="octave"))
    assert repr(found).startswith("<Comparison: The exponents of ")


def shown(run, tmp_path):
    """What notebooks show of everything that has something to show."""
    yield run._repr_html_()
    yield run.law._repr_html_()
    yield fit_law([], [], np.zeros((0, 0)), [])._repr_html_()
    yield from (fit._repr_html_() for fit in run.fits.layers)
    yield from (run.layer(name)._repr_html_() for name in run.layers.layer)
    yield natstats.compare(run, run.refit(estimator="octave"))._repr_html_()
    yield natstats.measure_images(torch.rand(4, 1, 12, 12))._repr_html_()
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    for epoch in (0, 1):
        torch.save(model.state_dict(), tmp_path / f"epoch_{epoch}.pth")
    series = natstats.measure_series(model, tmp_path, torch.rand(8, 1, 16, 16))
    assert repr(series).startswith("<Series of Sequential: 2 checkpoints, epoch 0 to 1")
    yield series._repr_html_()


@pytest.mark.slow
@pytest.mark.draws
def test_nothing_that_someone_has_named_is_markup_in_a_notebook(run, tmp_path):
    texts = []
    for html in shown(run, tmp_path):
        page = Page(html)
        assert not {"script", "img", "b", "iframe", "style", "link"} & {*page.tags}
        assert not [name for name in page.attributes if name.startswith("on")]
        assert "\x1b" not in html
        assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", html)
        assert page.tags.count("div") == html.count("</div>")
        for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
            minidom.parseString(svg.encode())
        assert len(html) < 400_000
        texts += page.text
    told = "".join(texts)
    for name in HOSTILE[:3]:
        assert name in told
    assert "a\\x1b\\n" in told


def test_notebooks_show_the_law(run):
    html = run._repr_html_()
    assert html.count("<svg") == 1
    assert "8 of 13 rows; all are in <code>run.layers</code>" in html
    for line in run.verdict.lines():
        assert line in "".join(Page(html).text)
