"""States of the recursion over random weights: what each operation does to second moments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

import natstats
from natstats.spectra.transforms import ring_transform
from natstats.theory.activation_functions import activation
from natstats.theory.exact_states import ExactState
from natstats.theory.state_parts import ChannelFactors, NoFormError, Window
from natstats.theory.stationary_states import StationaryState, state_of_maps
from natstats.theory.window_weights import adaptive_weights, padded_positions, pooling_weights


def maps_of(seed=0, shape=(3, 2, 9, 7)):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)) + 0.3


def gaussian_state(maps, *, with_cross=True):
    """Behind a convolution of one tap: Gaussian, with the second moment of these maps."""
    taps = (Window(side, 1, 1, 0) for side in maps.shape[2:])
    state = ExactState.of_maps(maps, with_cross=with_cross)
    return state.convolved(*taps, 1.0, 0.0, is_gaussian=True)


def assert_same(state, other, tolerance=1e-10):
    for name in ("second", "cross", "mean"):
        one, two = getattr(state, name), getattr(other, name)
        assert (one is None) == (two is None)
        if one is not None:
            assert torch.allclose(one, two, atol=tolerance, rtol=tolerance), name


def sampled(state, n=400_000, seed=0):
    """Gaussian values with the covariance of all images of a state together, (n, N, HW)."""
    n_images = len(state.second)
    assert n_images == 2  # so that the cross moments say all
    joint = torch.cat(
        [
            torch.cat([state.second[0], state.cross[0]], 1),
            torch.cat([state.cross[0].mT, state.second[1]], 1),
        ]
    )
    levels, vectors = torch.linalg.eigh(joint)
    root = vectors * levels.clamp(min=0).sqrt()
    noise = torch.randn(
        n, len(joint), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    return (noise @ root.mT).view(n, n_images, -1)


def moments(values):
    """Second moment, cross moment and mean of sampled values, as a state has them."""
    by_image = values.permute(1, 2, 0)
    second = by_image @ by_image.mT / len(values)
    cross = by_image @ by_image.roll(-1, 0).mT / len(values)
    return second, cross, by_image.mean(-1)


def assert_near(state, values, tolerance=0.02):
    second, cross, mean = moments(values)
    scale = float(second.max())
    for found, wanted in ((state.second, second), (state.cross, cross)):
        assert (found - wanted).abs().max() < tolerance * scale
    assert (state.mean - mean).abs().max() < tolerance * scale**0.5


@pytest.mark.parametrize("edges", ["sine", "none", "hann", "periodic"])
def test_given_maps_have_the_power_that_is_measured(edges):
    maps = maps_of()
    measured = ring_transform(9, 7, edges, torch.device("cpu"))(maps)[:, :-1]
    found = ExactState.of_maps(maps).ring_power(edges)
    assert np.allclose(found, measured.numpy(), rtol=1e-4)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        ((3, 3), (1, 1), (1, 1), (1, 1)),
        ((3, 2), (2, 1), (2, 0), (1, 3)),
        ((1, 5), (3, 2), (0, 4), (2, 1)),
    ],
)
def test_a_convolution_sums_the_second_moments_under_its_taps(kernel, stride, padding, dilation):
    maps = maps_of()
    n, channels, height, width = maps.shape
    windows = [
        Window(side, *parts)
        for side, *parts in zip((height, width), kernel, stride, padding, dilation, strict=True)
    ]
    state = ExactState.of_maps(maps, with_cross=True)
    state = state.convolved(*windows, 0.7 * channels, 0.2, is_gaussian=True)
    taps = torch.eye(kernel[0] * kernel[1], dtype=torch.float64).view(-1, 1, *kernel)
    shifted = functional.conv2d(
        maps.reshape(-1, 1, height, width), taps, None, stride, padding, dilation
    )
    flat = shifted.view(n, -1, *shifted.shape[2:]).flatten(2)
    assert (state.height, state.width) == shifted.shape[2:]
    assert torch.allclose(state.second, 0.7 * flat.mT @ flat + 0.2)
    assert torch.allclose(state.cross, 0.7 * flat.mT @ flat.roll(-1, 0) + 0.2)
    assert state.is_centred
    assert state.is_gaussian


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "ceil_mode", "count_include_pad"),
    [
        (2, 2, 0, False, True),
        (3, 2, 1, True, True),
        (3, 2, 1, True, False),
        (3, 1, 1, False, False),
    ],
)
def test_an_average_of_states_is_the_state_of_averages(
    kernel, stride, padding, ceil_mode, count_include_pad
):
    maps = maps_of()
    arguments = kernel, stride, padding, ceil_mode, count_include_pad
    rows, columns = (pooling_weights(side, *arguments) for side in maps.shape[2:])
    steps = tuple(Window(side, kernel, stride, padding) for side in maps.shape[2:])
    found = ExactState.of_maps(maps, with_cross=True).averaged(rows, columns, steps)
    pooled = functional.avg_pool2d(maps, *arguments)
    assert_same(found, ExactState.of_maps(pooled, with_cross=True))


def test_adaptive_averages_of_states_are_states_of_adaptive_averages():
    maps = maps_of()
    rows, columns = adaptive_weights(9, 4), adaptive_weights(7, 3)
    steps = Window(9, 3, 2, 0), Window(7, 3, 2, 0)
    found = ExactState.of_maps(maps, with_cross=True).averaged(rows, columns, steps)
    pooled = functional.adaptive_avg_pool2d(maps, (4, 3))
    assert_same(found, ExactState.of_maps(pooled, with_cross=True))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_a_border_around_states_is_the_state_with_a_border(mode):
    maps = maps_of()
    rows, columns = padded_positions(9, 2, 1, mode), padded_positions(7, 0, 3, mode)
    found = ExactState.of_maps(maps, with_cross=True).padded(rows, columns)
    padded = functional.pad(maps, (0, 3, 2, 1), mode=mode)
    assert_same(found, ExactState.of_maps(padded, with_cross=True))


def test_channels_with_numbers_of_their_own():
    maps = maps_of(shape=(2, 1, 5, 6))
    g, b = (maps_of(seed, (7,)) for seed in (1, 2))
    found = ExactState.of_maps(maps, with_cross=True).of_channels(ChannelFactors.of(g, b))
    spread = maps * g.view(1, -1, 1, 1) + b.view(1, -1, 1, 1)
    assert_same(found, ExactState.of_maps(spread, with_cross=True))


@pytest.mark.parametrize("n", [1, 2, 3])  # where the neighbours are all other images
def test_a_norm_over_the_batch(n):
    maps = maps_of(shape=(n, 1, 5, 6))
    found = ExactState.of_maps(maps, with_cross=True).normalized(1e-3)
    normed = functional.batch_norm(maps, None, None, training=True, eps=1e-3)
    assert_same(found, ExactState.of_maps(normed, with_cross=True))


def test_a_norm_over_each_image():
    maps = maps_of(shape=(3, 1, 5, 6))
    found = ExactState.of_maps(maps).normalized(1e-3, by_image=True)
    assert_same(found, ExactState.of_maps(functional.instance_norm(maps, eps=1e-3)))


def test_a_norm_over_the_batch_needs_the_covariance_between_images():
    with pytest.raises(NoFormError, match="between images"):
        ExactState.of_maps(maps_of()).normalized(1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "function"),
    [
        ("relu", {}, functional.relu),
        ("leaky_relu", {"negative_slope": 0.3}, lambda x: functional.leaky_relu(x, 0.3)),
        ("abs", {}, torch.abs),
        ("hardtanh", {"min_val": -0.2, "max_val": 0.9}, lambda x: x.clamp(-0.2, 0.9)),
        ("gelu", {}, functional.gelu),
        ("silu", {}, functional.silu),
        ("hardswish", {}, functional.hardswish),
        ("elu", {}, functional.elu),
        ("tanh", {}, torch.tanh),
    ],
)
def test_functions_of_gaussian_fields_against_draws(name, parameters, function):
    state = gaussian_state(maps_of(shape=(2, 3, 3, 2)))
    values = sampled(state)
    behind = state.pointwise(activation(name, **parameters))
    assert_near(behind, function(values))
    # One more function is exact, too, for it is one of the Gaussian field.
    chain = behind.affine(1.5, -0.2).pointwise(activation("hardtanh", min_val=0.0, max_val=1.0))
    assert_near(chain, (1.5 * function(values) - 0.2).clamp(0, 1))


@pytest.mark.slow
def test_functions_of_fields_with_a_mean_that_changes_from_place_to_place():
    state = gaussian_state(maps_of(shape=(2, 3, 3, 2)))
    values = sampled(state)
    mean = torch.linspace(-1, 1.5, 6, dtype=torch.float64)
    shift = mean.expand(2, -1)
    moved = ExactState(
        3, 2,
        state.second + state.outer(shift, shift),
        shift,
        state.cross + state.outer(shift, shift),
        False,
        state.roots,
    )  # fmt: skip
    assert_near(moved.pointwise(activation("relu")), (values + mean).relu())


def test_the_series_is_the_closed_form_where_there_is_one():
    state = gaussian_state(maps_of(shape=(2, 3, 5, 5)))
    almost = state.affine(1.0, 1e-13)  # its mean is not zero, so that it takes the series
    one, two = (x.pointwise(activation("leaky_relu", negative_slope=0.2)) for x in (state, almost))
    assert not almost.is_centred
    assert torch.allclose(one.second, two.second, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_sums_and_products():
    state = gaussian_state(maps_of(shape=(2, 3, 3, 2)))
    values = sampled(state)
    relu, sigmoid = (state.pointwise(activation(name)) for name in ("relu", "sigmoid"))
    assert_near(state.plus(relu), values + values.relu())
    assert_near(state.times(sigmoid), functional.silu(values))
    assert_near(relu.plus(relu), 2 * values.relu())
    other, others = gaussian_state(maps_of(5, (2, 3, 3, 2))), None
    others = sampled(other, seed=1)
    assert_near(relu.plus(other), values.relu() + others)
    assert_near(relu.times(other), values.relu() * others)
    assert_near(state.fresh().plus(state), values + sampled(state, seed=2))
    parts = [(relu, 1), (other, 3)]
    second = (relu.second + 3 * other.second) / 4
    assert torch.allclose(state.concatenated(parts).second, second)


def test_a_sum_of_values_that_are_related_otherwise_is_refused():
    state = gaussian_state(maps_of(shape=(2, 3, 5, 5)))
    rows = padded_positions(5, -1, 1, "constant")
    moved = state.padded(rows, rows)
    for how in (state.plus, state.times):
        with pytest.raises(NoFormError, match="depend on each other"):
            how(moved)


def test_a_sum_with_something_independent_is_gaussian_where_both_are():
    one, two = (gaussian_state(maps_of(seed, (1, 3, 5, 5))) for seed in (0, 1))
    assert one.plus(two).is_gaussian
    assert not one.plus(two.pointwise(activation("relu"))).is_gaussian
    assert not state_of_maps(maps_of()).is_gaussian


# Large maps.


def photograph_like(side=64, n=3):
    fields = natstats.power_law_fields(3 * n, side, side, alpha=2.0)
    return torch.from_numpy(fields).view(n, 3, side, side) + 0.5


@pytest.mark.slow
def test_lags_have_the_power_of_the_maps_that_they_come_from():
    maps = photograph_like()
    measured = ring_transform(64, 64, "sine", torch.device("cpu"))(maps)[:, :-1].numpy().mean(0)
    found = StationaryState.of_maps(maps).ring_power("sine").mean(0)
    assert np.abs(np.log(found / measured)).max() < 0.1
    assert np.abs(np.log(found / measured))[4:].max() < 0.03


@pytest.mark.slow
def test_a_linear_network_leaves_the_correlation_of_a_stationary_field_as_it_is():
    # A field of one amplitude everywhere: white, but for smooth edges of the lags.
    state = StationaryState.of_maps(photograph_like())
    flat = state.rescaled(torch.ones_like(state.amplitude))
    windows = [Window(64, 3, 1, 1)] * 2
    behind = flat.convolved(*windows, 1 / 9, 0.0, is_gaussian=True)
    one, two = (x.second / x.second[:, :1, :1] for x in (behind, flat))
    for axis in (1, 2):  # the lags that no pixels are apart
        one, two = (x.index_fill(axis, torch.tensor([64]), 0.0) for x in (one, two))
    assert torch.allclose(one, two)
    power, before = (x.ring_power("sine") for x in (behind, flat))
    inside = np.log(power / before)
    # The border is a little darker, as the zeros around it say.
    assert np.abs(inside - inside.mean(1, keepdims=True)).max() < 0.05


@pytest.mark.slow
def test_lags_become_all_pairs_where_maps_are_small_enough():
    state = StationaryState.of_maps(photograph_like(50, 1), with_cross=True)
    small = state.convolved(*[Window(50, 3, 2, 1)] * 2, 1.0, 0.0, is_gaussian=True)
    assert isinstance(small, ExactState)
    assert (small.height, small.width) == (25, 25)
    assert torch.allclose(small.second, small.second.mT)
    assert small.cross.shape == small.second.shape
    # They say the same as if they had been kept at lags.
    spread = state.at_all_pairs()
    assert np.allclose(
        np.log(spread.ring_power("sine")), np.log(state.ring_power("sine")), atol=1e-6
    )


@pytest.mark.slow
def test_both_forms_agree_on_a_stationary_field():
    maps = photograph_like(40, 4)
    forms = ExactState.of_maps(maps), StationaryState.of_maps(maps)
    exponents = []
    for state in forms:
        for _, name in itertools.product(range(2), ("conv", "relu")):
            if name == "conv":
                # Held at lags: what settles would become exact.
                state = _convolved_as_it_is(state)
            else:
                state = state.pointwise(activation("relu"))
        power = state.ring_power("sine").mean(0)
        exponents.append(np.polyfit(np.log(np.arange(1, 21)), np.log(power), 1)[0])
    assert abs(exponents[0] - exponents[1]) < 0.1


def _convolved_as_it_is(state):
    import natstats.theory.stationary_states as module

    keep, module.is_exact_size = module.is_exact_size, lambda *size: False
    try:
        return state.convolved(*[Window(40, 3, 1, 1)] * 2, 1.0, 0.0, is_gaussian=True)
    finally:
        module.is_exact_size = keep
