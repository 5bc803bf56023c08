"""The probe itself: what it proves of axes, when the rules are left, and what it costs."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from natstats.activations.probe import PLACES, probe_layouts
from natstats.activations.trace import trace_calls
from tests.activations.probed import (
    Tokens,
    around,
    collected,
    images,
    power_of,
    shuffled,
)


class Cube(nn.Module):
    """As many channels as rows and columns, in either place, through a module of either."""

    def __init__(self, is_last, n=16):
        super().__init__()
        torch.manual_seed(5)
        self.embed = nn.Conv2d(3, n, 4, 4)
        self.other = nn.Linear(n, n)
        self.act = nn.GELU()
        self.is_last = is_last

    def forward(self, x):
        maps = self.embed(x)
        last = self.other(maps.movedim(1, -1))
        return self.act(last if self.is_last else last.movedim(-1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("is_last", [True, False])
def test_cubes_are_settled_by_data(is_last):
    model, batch = Cube(is_last), images(64)
    measured, reasons, _ = collected(model, batch, "embed,other,act")
    assert not reasons
    assert measured["act"].layer.layout == ("NHWC" if is_last else "NCHW")
    with torch.no_grad():
        maps = model(batch)
    maps = maps.movedim(-1, 1) if is_last else maps
    np.testing.assert_allclose(measured["act"].spectrum.power.sum(0), power_of(maps), rtol=1e-4)


class Swapped(nn.Module):
    """Columns where the channels are looked for, and channels where the columns are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.embed, self.act = nn.Conv2d(3, 24, 4, 4), nn.GELU()

    def forward(self, x):
        return self.act(self.embed(x).permute(0, 3, 2, 1))


@pytest.mark.slow
def test_rows_alone_prove_nothing():
    measured, _, collector = collected(Swapped(), images(64, 96), "embed,act")
    assert "act" not in collector.probed.proved
    assert "act" not in measured or measured["act"].layer.layout.endswith("by rule")


@pytest.mark.slow
def test_layouts_are_by_rule_where_there_is_no_image_to_change():
    class Last(Tokens):
        def forward(self, x):
            return super().forward(x.movedim(-1, 1))

    measured, _, collector = collected(Last(around(1, 0)), images(64).movedim(1, -1))
    assert "no argument" in collector.probed.problem
    assert measured["first"].layer.layout == "NLC (1 + 8x8) by rule"
    assert measured["embed"].layer.layout == "NCHW"


class Noisy(nn.Module):
    """Its own generator, which no seed resets: every pass is another."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.Linear(8, 8)
        self.generator = np.random.default_rng(0)

    def forward(self, x):
        maps = self.embed(x)
        noise = torch.tensor(self.generator.normal(size=maps.shape), dtype=maps.dtype)
        return self.mix((maps + noise).flatten(2).transpose(1, 2))


@pytest.mark.slow
def test_a_network_left_to_chance_keeps_the_rules_and_says_so():
    measured, reasons, collector = collected(Noisy(), images(64))
    assert not reasons
    assert "different results" in collector.probed.problem
    assert measured["mix"].layer.layout == "NLC (16x16) by rule"
    assert measured["embed"].layer.layout == "NCHW"  # a convolution leaves no choice


@pytest.mark.slow
def test_without_the_probe_the_rules_are_taken_at_their_word():
    measured, _, collector = collected(Tokens(shuffled), images(64), probe=False)
    assert measured["first"].layer.layout == "NLC (8x8)"
    assert not collector.probed.proved


def test_the_probe_costs_five_passes_and_changes_nothing():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.register_buffer("seen", torch.zeros(()))
            self.batches = []

        def forward(self, x):
            self.seen += len(x)
            self.batches.append(len(x))
            return self.conv(x)

    model, batch = Counted().train(), images(32)
    trace = trace_calls(model, (batch[:1],))
    before = batch.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model.batches.clear()
    probe_layouts(model, trace, ["conv"])
    assert model.batches == [1] * 5
    assert model.training
    assert model.seen == 0
    assert torch.equal(batch, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002


def test_no_place_turns_into_another_when_the_image_is_turned():
    for y, x in PLACES:
        assert not math.isclose(y, x)
        assert not math.isclose(y, 1 - x)
        for other in {(x, y), (1 - y, x), (y, 1 - x)}:
            assert min(math.dist(other, place) for place in PLACES) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("side", "is_refused"), [(40, False), (56, False), (128, True)])
def test_a_convolution_on_a_few_points_may_answer_anywhere(side, is_refused):
    """As in the coarsest maps of detectors, where every point sees the whole image."""

    class Rolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.last = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            maps = self.embed(x)
            return self.last(torch.roll(maps, tuple(n // 2 for n in maps.shape[2:]), (2, 3)))

    measured, reasons, _ = collected(Rolled(), images(side))
    assert ("last" in reasons) is is_refused
    assert ("last" in measured) is not is_refused
