"""The network's own output in a run: kept and told, left out of the law and of all slopes."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models
from matplotlib.colors import to_rgba
from safetensors.torch import load_file
from torch import nn

import natstats
from natstats.files.csv_files import read_csv
from natstats.files.json_files import read_json, to_json
from natstats.report.figures.law import plot_law
from natstats.runs.comparison import compare
from natstats.runs.control import RandomWeights
from natstats.runs.run import Run

DATA = Path(__file__).parents[3].joinpath("shared/data")
N_HIDDEN = 6


class Denoiser(nn.Module):
    """Convolutions, the last of which writes what is taken from the images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential()
        for place in range(N_HIDDEN):
            self.body.append(nn.Conv2d(1 if place == 0 else 2, 2, 3, padding=1))
            self.body.append(nn.Tanh())
        self.last = nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - self.last(self.body(x))


def denoiser(seed=0):
    torch.manual_seed(seed)
    return Denoiser().eval()


@pytest.fixture(scope="module")
def fields():
    return np.float32(natstats.power_law_fields(32, 16, 16, alpha=2.0, seed=0)[:, None])


@pytest.fixture(scope="module")
def run(fields):
    return natstats.measure(denoiser(), fields, control="random-weights", control_seeds=2)


def rows_of(run):
    return dict(zip(run.layers.layer, run.layers.law, strict=True))


@pytest.mark.slow
def test_the_table_says_what_is_in_the_law_and_why_the_rest_is_not(run):
    rows = rows_of(run)
    assert rows.pop("input") == "input"
    assert rows.pop("last") == "own output"
    assert set(rows.values()) == {"yes"}
    assert run.law.n_layers == len(rows) == N_HIDDEN
    flags = dict(zip(run.layers.layer, run.layers["flags"], strict=True))
    assert [name for name, own in flags.items() if "own output" in own.split("; ")] == ["last"]


@pytest.mark.slow
def test_the_law_is_that_of_the_layers_that_are_asked_for(run):
    whole = run.refit(law_layers="all")
    assert whole.law.n_layers == N_HIDDEN + 1
    assert rows_of(whole)["last"] == "yes"
    # It says what it is all the same.
    assert "own output" in whole.layers["flags"].iloc[-1]
    fewer = run.refit(law_layers="hidden,-body.0")
    assert fewer.law.n_layers == N_HIDDEN - 1
    assert rows_of(fewer)["body.0"] == "not asked for"
    chosen = run.layers[run.layers.law == "yes"]
    by_hand = np.polyfit(chosen.depth, chosen.exponent, 1)[0]
    assert run.law.network.slope == pytest.approx(by_hand)
    alone = Run(run.spectra[1:-1], options=run.options).law
    assert run.law.slope == pytest.approx(alone.slope)


def test_a_refit_says_at_once_what_matches_nothing(run):
    with pytest.raises(natstats.UsageError, match=r"^law_layers: .*'bdy\.0' \(did you mean body"):
        run.refit(law_layers="bdy.0")


def test_a_measurement_says_it_before_the_first_image_is_measured(fields, monkeypatch):
    def fail(*_):
        raise AssertionError

    monkeypatch.setattr("natstats.spectra.collector.Collector._receive", fail)
    with pytest.raises(natstats.UsageError, match="^law_layers: .*nothing matched 'depthwise'"):
        natstats.measure(denoiser(), fields, fit=natstats.FitOptions(law_layers="depthwise"))


@pytest.mark.slow
def test_slopes_against_random_weights_are_over_the_law(run):
    control, whole = run.control, run.refit(law_layers="all").control
    assert list(control.layers.layer)[-1] == "last"
    assert control.slope.value == pytest.approx(control.slope_trained - control.slope_random)
    assert (control.n_in_slope, control.n_layers) == (N_HIDDEN, N_HIDDEN + 1)
    assert f"over {N_HIDDEN} of them" in control.sentence()
    assert whole.n_in_slope == N_HIDDEN + 1
    assert "of them" not in whole.sentence()
    shorter = Run(run.spectra[:-1], (), run.info, run.options, [
        RandomWeights(one.seed, one.info, one.spectra[:-1], []) for one in run.random_weights
    ]).control  # fmt: skip
    assert shorter is not None
    assert shorter.slope.value == pytest.approx(control.slope.value)
    assert whole.slope.value != control.slope.value
    # Differences of layers are what they were.
    assert whole.layers.equals(control.layers)


@pytest.mark.slow
def test_slopes_of_a_comparison_are_over_both_laws(run, fields):
    other = natstats.measure(denoiser(1), fields)
    found, whole = compare(run, other), compare(
        run.refit(law_layers="all"), other.refit(law_layers="all")
    )  # fmt: skip
    shorter = (Run(one.spectra[:-1], (), one.info, one.options) for one in (run, other))
    assert found.slope.value == pytest.approx(compare(*shorter).slope.value)
    assert found.slope.value != whole.slope.value
    assert found.mean == whole.mean
    assert "Not in the slopes, as not in both laws: last." in found.notes
    assert not [note for note in whole.notes if "slopes" in note]
    one_sided = compare(run.refit(law_layers="all"), other)
    assert one_sided.slope == found.slope
    assert "The laws were asked for over different layers: all and hidden." in one_sided.notes


@pytest.mark.slow
def test_it_is_kept_and_older_runs_do_not_know_it(run, tmp_path):
    path = run.save(tmp_path / "run", report=False)
    again = natstats.Run.open(path)
    assert [m.layer.is_output for m in again.spectra] == [None, *[False] * N_HIDDEN, True]
    assert [m.layer.is_output for m in again.random_weights[0].spectra][-1] is True
    assert to_json(again.law.to_dict()) == to_json(run.law.to_dict())
    assert list(read_csv(path / "layers.csv")["law"]) == list(run.layers.law)
    assert json.loads((path / "run.json").read_text())["fit"]["law_layers"] == "hidden"
    record = read_json(path / "run.json")
    for layer in record["layers"]:
        del layer["is_output"]
    del record["fit"]["law_layers"], record["files"]
    (path / "run.json").write_text(to_json(record))
    older = natstats.Run.open(path)
    assert older.law.n_layers == N_HIDDEN + 1
    assert not older.layers["flags"].str.contains("own output").any()
    # Where one of two runs knows it, it is left out of what both are compared by.
    assert "last" in " ".join(compare(older, run).notes)
    record["layers"][1]["is_output"] = "yes"
    (path / "run.json").write_text(to_json(record))
    with pytest.raises(natstats.NatstatsError, match=r"layers\[1\].is_output: expected true or fa"):
        natstats.Run.open(path)


@pytest.mark.slow
def test_it_is_hollow_and_the_line_ends_before_it(run):
    ax = plot_law(run.layers, run.law)
    hollow = {
        float(y)
        for line in ax.lines
        if line.get_marker() == "o" and to_rgba(line.get_markerfacecolor()) == to_rgba("white")
        for y in line.get_ydata()
    }
    assert run.layers.exponent.iloc[-1] in hollow
    lines = [line for line in ax.lines if line.get_linestyle() != "None"]
    assert max(max(line.get_xdata()) for line in lines if len(line.get_xdata()) > 2) == N_HIDDEN
    legend = ax.get_legend()
    assert legend is not None
    assert any("own output" in text.get_text() for text in legend.get_texts())


@pytest.mark.slow
def test_the_page_shows_and_explains_it(run, tmp_path):
    page = (run.save(tmp_path / "run") / "report.html").read_text(encoding="utf-8")
    for text in ("in the law", "own output", "what the network returns", "layers in the law"):
        assert text in page, text


@pytest.mark.slow
def test_a_series_has_the_slopes_of_the_laws_that_are_asked_for(fields, tmp_path):
    for epoch in (0, 1):
        torch.save(denoiser(epoch).state_dict(), tmp_path / f"epoch_{epoch}.pth")
    series = natstats.measure_series(denoiser(), f"{tmp_path}/epoch_*.pth", fields)
    assert list(series.frame.n_layers) == [N_HIDDEN] * 2
    whole = series.refit(law_layers="all")
    assert list(whole.frame.n_layers) == [N_HIDDEN + 1] * 2
    assert whole.change.slope.value != series.change.slope.value


# Real weights


def photographs():
    """Unscaled grey crops, in [0, 1]."""
    from PIL import Image

    found = []
    for path in sorted(DATA.joinpath("photos").iterdir())[:8]:
        pixels = np.float32(Image.open(path).convert("L")) / 255
        y, x = (side // 2 - 24 for side in pixels.shape)
        found.append(pixels[y : y + 48, x : x + 48])
    return np.stack(found)[:, None]


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_a_denoiser_with_real_weights():
    def conv(n_in, n_out):
        return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)

    layers = [conv(1, 64), nn.ReLU(True)]
    for _ in range(15):
        layers += [conv(64, 64), nn.BatchNorm2d(64), nn.ReLU(True)]
    model = nn.Sequential(OrderedDict(dncnn=nn.Sequential(*layers, conv(64, 1))))
    state = torch.load(DATA / "weights" / "dncnn_s25.pth", "cpu", weights_only=True)
    model.load_state_dict({key.removeprefix("module."): one for key, one in state.items()})
    run = natstats.measure(model.eval(), photographs())
    rows = rows_of(run)
    assert rows.pop("dncnn.47") == "own output"
    assert run.law.n_layers == 16
    assert run.layers.exponent.iloc[-1] < 1.0 < run.layers.exponent.iloc[1:-1].min()
    assert run.law.slope > 0 > run.refit(law_layers="all").law.slope


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="no shared data")
def test_a_classifier_with_real_weights():
    model = torchvision.models.squeezenet1_1()
    model.load_state_dict(load_file(DATA / "weights" / "squeezenet1_1_imagenet.safetensors"))
    settings = {"limit": 4, "size": 128, "probe": False}
    run = natstats.measure(model, DATA / "photos", layers="conv,act", **settings)
    rows = rows_of(run)
    outputs = [name for name, why in rows.items() if why == "own output"]
    assert outputs == ["classifier.1", "classifier.2"]
    trunk = natstats.measure(model.features, DATA / "photos", layers="conv", **settings)
    assert "own output" not in set(trunk.layers.law)
