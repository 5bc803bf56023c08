"""Results in a line, counts with their noun, and states that say what is wrong with them."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.distill.comparison.compare import compare_runs
from natstats.distill.training.averaging import WeightAverage
from natstats.numbers import counted
from natstats.spectra.input_spectra import InputSpectra


@pytest.fixture(scope="module")
def runs(made_networks):
    return [made_networks.run(seed=k, n_layers=8, n_seeds=2) for k in range(3)]


def test_results_are_told_in_a_line(runs, made_runs):
    run = runs[0]
    made = made_runs(n_images=30)
    trainings = [made.run(method=m, seed=s) for m in ("ce", "kd") for s in (0, 1)]
    results = [
        run, run.law, run.verdict, run.fits, run.control, run.layer("layer3"), run.spectra[0],
        run.spectra[0].spectrum, run.verdict.specifications, run.report(), run.fits.layers[0],
        natstats.meta_analysis(runs), natstats.compare(*runs[:2]),
        natstats.load_network("cifar_resnet8", weights="none"),
        trainings[0], trainings[0].outcomes, compare_runs(trainings),
        natstats.compare_forms(run.spectra[1].spectrum),
    ]  # fmt: skip
    for result in results:
        text = repr(result)
        assert "\n" not in text
        assert text.startswith("<")
        assert not re.search(r"array\(|tensor\(|DataFrame|dtype", text)
        assert 12 < len(text) < 260, text
    assert re.match(r"<Law: \w+.*, slope .+ per layer, 8 layers>", repr(run.law))
    assert "power (" in repr(run.spectra[0].spectrum)


def test_a_layer_by_its_place_or_nearly_its_name(runs):
    with pytest.raises(
        natstats.UsageError, match=r"got 3 .*run\.layers\.layer\.iloc\[3\]"
    ) as error:
        runs[0].layer(3)
    hint = re.search(r"run\.layer\((.*)\)\)$", str(error.value))[1]
    assert eval(hint, {"run": runs[0]}) == "layer3"
    with pytest.raises(natstats.UsageError, match="did you mean layer3"):
        runs[0].layer("layer3x")
    with pytest.raises(natstats.UsageError, match="expected a name"):
        runs[0].plot_spectrum(None)


def states():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    batch = torch.rand(4, 3, 16, 16)
    accumulator = natstats.SpectrumAccumulator(16, 16)
    accumulator.update(batch)
    yield accumulator, "sums"
    with natstats.Collector(model) as collector:
        model(batch)
    yield collector, None
    inputs = InputSpectra("sine", 16)
    inputs.update(batch, torch.arange(4))
    yield inputs, None
    yield WeightAverage(model, 0.9), None


@pytest.mark.parametrize("place", range(4))
def test_a_state_says_which_keys_are_wrong(place):
    one, tensor = list(states())[place]
    state = one.state_dict()
    one.load_state_dict(state)
    first, last = next(iter(state)), list(state)[-1]
    odd = {name: value for name, value in state.items() if name not in (first, last)}
    with pytest.raises(natstats.UsageError, match=f"missing: {first}, {last}; unexpected: foo"):
        one.load_state_dict({**odd, "foo": 1})
    with pytest.raises(natstats.UsageError, match="got an object of int"):
        one.load_state_dict(3)
    if tensor:
        wrong = {**state, tensor: state[tensor][..., :1]}
        with pytest.raises(natstats.UsageError, match=rf"another shape: {tensor} \(.*\) where "):
            one.load_state_dict(wrong)


def test_a_collector_says_of_which_modules_a_state_is():
    own = natstats.Collector(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)))
    other = natstats.Collector(nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)))
    with pytest.raises(natstats.UsageError, match="missing: 0; unexpected: 2"):
        own.load_state_dict(other.state_dict())


@pytest.mark.parametrize(("sides", "said"), [(0, "has no layer"), (1, "has only 1 layer")])
def test_a_network_with_one_layer_or_none_says_why_there_is_no_law(sides, said):
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU()] if sides else [nn.ReLU()]
    fields = natstats.power_law_fields(48, 24, 24, alpha=2.0, seed=0).reshape(16, 3, 24, 24)
    run = natstats.measure(nn.Sequential(*layers).eval(), torch.as_tensor(fields).float(),
                           layers="weight" if sides else "act")  # fmt: skip
    law = run.law if sides else natstats.fit_law([], [], np.zeros((0, 0)), [])
    (line,) = [law.sentence()]
    assert said in line
    assert "from layer to layer" in line
    assert "1 layer on 16 images" in repr(run)
    for text in (line, repr(law), *run.sentences(), *run.notes):
        assert not re.search(r"(?<![\d.,])1 [a-z]+s\b(?<!as)", text), text


def test_counts():
    assert [counted(n, "key is", "keys are") for n in (0, 1, 2)] == [
        "0 keys are", "1 key is", "2 keys are",
    ]  # fmt: skip
