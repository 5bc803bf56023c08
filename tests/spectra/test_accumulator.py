"""The accumulator: the laws that make sums trustworthy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import natstats
from natstats.spectra.accumulator import KEPT_IMAGES
from natstats.spectra.frequencies import rings

MAPS = torch.randn(23, 3, 12, 10, generator=torch.Generator().manual_seed(0))
INDEX = torch.arange(23)


def accumulate(parts, n_groups=4):
    accumulator = natstats.SpectrumAccumulator(12, 10, n_groups=n_groups)
    for maps, index in parts:
        accumulator.update(maps, index)
    return accumulator


WHOLE = accumulate([(MAPS, INDEX)]).compute()


def assert_same(spectrum, other=WHOLE):
    np.testing.assert_allclose(spectrum.power, other.power, rtol=1e-6)
    np.testing.assert_allclose(spectrum.normalized, other.normalized, rtol=1e-6)
    np.testing.assert_array_equal(spectrum.count, other.count)
    np.testing.assert_allclose(spectrum.offset, other.offset, rtol=1e-5)
    np.testing.assert_allclose(spectrum.image_power, other.image_power, rtol=1e-5)
    assert spectrum.n_nonfinite == other.n_nonfinite


def test_a_group_sums_its_own_images():
    power = natstats.power_spectrum(MAPS).double()
    for group in range(4):
        own = power[group == INDEX % 4]
        np.testing.assert_allclose(WHOLE.power[group], own.sum(0), rtol=1e-6)
        assert WHOLE.count[group] == len(own)
    np.testing.assert_allclose(WHOLE.mean_power, power.mean(0), rtol=1e-6)
    np.testing.assert_allclose(WHOLE.image_power, power, rtol=1e-5)


def test_normalized_images_weigh_the_same():
    """Their contrast does not matter, and one without power adds nothing."""
    contrast = torch.arange(23).view(-1, 1, 1, 1)  # the first image is black
    changed = accumulate([(MAPS * contrast, INDEX)]).compute()
    members = rings(12, 10).n_members
    power = natstats.power_spectrum(MAPS).double().numpy()
    own = power / np.average(power, axis=1, weights=members, keepdims=True)
    own[0] = 0
    for group in range(4):
        np.testing.assert_allclose(changed.normalized[group], own[group::4].sum(0), rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(23)), st.integers(1, 23))
def test_neither_order_nor_batch_size_matters(order, batch_size):
    order = torch.tensor(order)
    parts = [(MAPS[places], INDEX[places]) for places in order.split(batch_size)]
    assert_same(accumulate(parts).compute())


@pytest.mark.parametrize("cut", [0, 1, 11, 23])
def test_merged_parts_equal_one_pass(cut):
    first = accumulate([(MAPS[:cut], INDEX[:cut])])
    second = accumulate([(MAPS[cut:], INDEX[cut:])])
    before = second.compute()
    assert_same(first.merge(second).compute())
    assert_same(second.compute(), before)


def test_merging_into_an_empty_one_copies():
    empty, full = accumulate([]), accumulate([(MAPS, INDEX)])
    empty.merge(full).update(MAPS, INDEX + 23)
    assert_same(full.compute())
    assert empty.compute().n_images == 46


def test_images_are_numbered_as_they_come():
    accumulator = natstats.SpectrumAccumulator(12, 10, n_groups=4)
    accumulator.update(MAPS[:9])
    accumulator.update(MAPS[9:])
    assert_same(accumulator.compute())


def test_a_state_goes_on_where_it_was_taken():
    accumulator = accumulate([(MAPS[:10], INDEX[:10])])
    state = accumulator.state_dict()
    accumulator.update(MAPS, INDEX)  # must not reach the state
    resumed = natstats.SpectrumAccumulator.from_state_dict(state)
    resumed.update(MAPS[10:])
    assert_same(resumed.compute())


def test_a_state_is_loaded_in_place_as_in_torch(tmp_path):
    accumulator = accumulate([(MAPS[:10], INDEX[:10])])
    torch.save(accumulator.state_dict(), tmp_path / "state.pt")
    other = accumulate([(MAPS, INDEX)])
    assert other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True)) is None
    other.update(MAPS[10:])
    assert_same(other.compute())
    assert accumulator.n_images == 10
    kept = other.state_dict()
    for name, value in (("height", 14), ("edges", "hann"), ("n_groups", 9)):
        settings = {"height": 12, "width": 10, "edges": "sine", "n_groups": 4, name: value}
        state = natstats.SpectrumAccumulator(**settings).state_dict()
        with pytest.raises(natstats.UsageError, match=f"state: expected one with {name}"):
            other.load_state_dict(state)
    for name in ("sums", "next_index"):
        with pytest.raises(natstats.UsageError, match=f"state: .* missing: {name}"):
            other.load_state_dict({key: kept[key] for key in kept if key != name})
    assert_same(other.compute())


def test_a_result_is_not_changed_by_later_updates():
    accumulator = accumulate([(MAPS, INDEX)])
    spectrum = accumulator.compute()
    accumulator.update(MAPS)
    assert_same(spectrum)


def test_reset_forgets():
    accumulator = accumulate([(MAPS, INDEX)])
    accumulator.reset()
    accumulator.update(MAPS)
    assert_same(accumulator.compute())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_image_is_left_out_and_counted(bad):
    maps = torch.cat([MAPS, MAPS[:1]])
    maps[23, 1, 5, 5] = bad
    spectrum = accumulate([(maps, torch.arange(24))]).compute()
    assert spectrum.n_nonfinite == 1
    assert spectrum.n_images == 23
    np.testing.assert_allclose(spectrum.power, WHOLE.power)
    assert np.isnan(spectrum.image_power[23]).all()


def test_memory_does_not_grow_with_the_number_of_images():
    accumulator = natstats.SpectrumAccumulator(5, 5, n_groups=4)
    maps = torch.randn(500, 1, 5, 5)
    for _ in range(4):
        accumulator.update(maps)
    spectrum = accumulator.compute()
    assert spectrum.n_images == 2000
    assert spectrum.image_power.shape == (KEPT_IMAGES, 2)
    assert np.isfinite(spectrum.image_power).all()


def test_a_constant_map_is_known_as_such():
    accumulator = natstats.SpectrumAccumulator(16, 16)
    accumulator.update(torch.full((4, 2, 16, 16), 3.7))
    assert accumulator.compute().is_constant
    assert not WHOLE.is_constant


def test_faint_structure_on_a_large_mean_is_not_called_constant():
    accumulator = natstats.SpectrumAccumulator(12, 10)
    accumulator.update(1e-3 * MAPS + 10)
    assert not accumulator.compute().is_constant


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda a: a.update(torch.zeros(1, 1, 9, 9)), "maps: expected 12 x 10 pixels; got 9 x 9"),
        (lambda a: a.update(MAPS, torch.arange(3)), "index: expected a tensor of 23 whole numbers"),
        (lambda a: a.update(MAPS, INDEX - 1), "whole numbers from 0"),
        (lambda a: a.update(MAPS, list(range(23))), "index: expected a tensor"),
        (lambda a: a.merge(None), "other: expected an accumulator; got NoneType"),
        (lambda a: a.merge(natstats.SpectrumAccumulator(12, 10, n_groups=5)), "n_groups 4; got 5"),
        (
            lambda a: a.merge(natstats.SpectrumAccumulator(12, 10, "hann", 4)),
            "edges sine; got hann",
        ),
        (lambda a: a.from_state_dict({}), "state: .* missing: height, width"),
        (lambda a: natstats.SpectrumAccumulator(4, 10), "at least 5 x 5 pixels; got 4 x 10"),
        (lambda a: natstats.SpectrumAccumulator(9, 9, n_groups=0), "n_groups: .*at least 1; got 0"),
    ],
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(natstats.UsageError, match=words):
        call(accumulate([]))
