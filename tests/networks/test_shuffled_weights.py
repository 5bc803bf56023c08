"""Shuffled kernels: what stays, what goes, and batch normalisation that fits them again."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from natstats import NatstatsError, demo
from natstats.errors import UsageError
from natstats.measurement.counterfactual import counterfactual_of
from natstats.networks.load import Network, build_network
from natstats.networks.shuffled_weights import (
    SHUFFLES,
    estimate_norms,
    load_norms,
    norms_of,
    with_shuffled_weights,
)


class Own(nn.Conv2d):
    """A subclass, as libraries have for weights that they standardise."""


def network(*layers: nn.Module) -> Network:
    torch.manual_seed(0)
    return Network(nn.Sequential(*layers).eval(), "mine", "as given")


def weight(one: Network, place: int = 0) -> torch.Tensor:
    return one.model[place].weight.detach()


CONVOLUTIONS = {
    "plain": nn.Conv2d(6, 8, 3),
    "oblong": nn.Conv2d(6, 8, (1, 5), bias=False),
    "groups": nn.Conv2d(6, 8, 3, groups=2),
    "depthwise": nn.Conv2d(6, 12, 3, groups=6),
    "strided, dilated": nn.Conv2d(6, 8, 3, stride=2, dilation=2),
    "subclass": Own(6, 8, 3),
    "one axis": nn.Conv1d(6, 8, 5),
    "three axes": nn.Conv3d(6, 8, 3),
}


@pytest.mark.parametrize("convolution", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_shuffled_taps_are_the_same_numbers_in_every_kernel(convolution):
    before = network(convolution)
    original = weight(before).clone()
    after = with_shuffled_weights(before, "shuffle-kernels", 3)
    old, new = (one.flatten(2) for one in (weight(before), weight(after)))
    assert torch.equal(old.sort(2).values, new.sort(2).values)
    assert not torch.equal(old, new)
    assert torch.equal(weight(before), original)
    again = with_shuffled_weights(before, "shuffle-kernels", 3)
    other = with_shuffled_weights(before, "shuffle-kernels", 4)
    assert torch.equal(weight(again), weight(after))
    assert not torch.equal(weight(other), weight(after))


def test_each_kernel_has_an_order_of_its_own():
    one = nn.Conv2d(8, 8, 3, bias=False)
    with torch.no_grad():
        one.weight.copy_(torch.arange(9.0).reshape(3, 3).expand(8, 8, 3, 3))
    new = weight(with_shuffled_weights(network(one), "shuffle-kernels", 0)).flatten(2)
    assert len({tuple(row.tolist()) for row in new.flatten(0, 1)}) > 60


def test_all_orders_of_taps_are_as_likely():
    one = nn.Conv2d(100, 100, 2, bias=False)
    with torch.no_grad():
        one.weight.copy_(torch.arange(4.0).reshape(2, 2).expand(100, 100, 2, 2))
    new = weight(with_shuffled_weights(network(one), "shuffle-kernels", 0)).flatten(2)
    number = (new * torch.tensor([64.0, 16.0, 4.0, 1.0])).sum(2).flatten()
    counts = torch.unique(number, return_counts=True)[1]
    assert len(counts) == 24
    # chi-square of 23 degrees of freedom: 99.9 % below 49.7
    assert float(((counts - 10000 / 24) ** 2 / (10000 / 24)).sum()) < 49.7


def test_shuffled_channels_keep_kernels_and_outputs_within_their_group():
    one = nn.Conv2d(8, 6, 3, groups=2)
    before = network(one)
    old, new = (
        each.reshape(2, 3, 4, 9)
        for each in (weight(before), weight(with_shuffled_weights(before, "shuffle-channels", 1)))
    )
    for group in range(2):
        order = [
            next(i for i in range(4) if torch.equal(old[group, :, i], new[group, :, j]))
            for j in range(4)
        ]
        assert sorted(order) == [0, 1, 2, 3]  # whole columns moved, the same for all outputs
    assert not torch.equal(old, new)


def test_kernels_of_a_depthwise_convolution_trade_places():
    before = network(nn.Conv2d(6, 12, 3, groups=6, bias=False))  # two outputs for every channel
    old, new = (
        each.reshape(6, 2 * 9)
        for each in (weight(before), weight(with_shuffled_weights(before, "shuffle-channels", 0)))
    )
    order = [next(i for i in range(6) if torch.equal(old[i], new[j])) for j in range(6)]
    assert sorted(order) == list(range(6))
    assert order != list(range(6))


def test_to_shuffle_input_channels_of_one_layer_is_to_shuffle_the_channels_of_its_input():
    before = network(nn.Conv2d(5, 4, 3))
    after = with_shuffled_weights(before, "shuffle-channels", 2)
    order = [
        next(i for i in range(5) if torch.equal(weight(before)[:, i], weight(after)[:, j]))
        for j in range(5)
    ]
    images = torch.rand(2, 5, 8, 8)
    moved = torch.empty_like(images)
    moved[:, order] = images
    assert torch.allclose(after.model(images), before.model(moved), atol=1e-6)


@pytest.mark.slow
def test_convolutions_are_found_wherever_they_are():
    before = Network(build_network("resnet18", 0).eval(), "resnet18", "as given")
    after = with_shuffled_weights(before, "shuffle-kernels", 0)
    for (name, old), new in zip(before.model.named_modules(), after.model.modules(), strict=True):
        if isinstance(old, nn.Conv2d):
            assert torch.equal(old.weight, new.weight) == (old.kernel_size == (1, 1)), name
        elif isinstance(old, nn.Linear | nn.BatchNorm2d):
            assert torch.equal(old.weight, new.weight)


def test_what_is_not_predicted_stays():
    before = network(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 3), nn.Linear(8, 8))
    for name in SHUFFLES:
        after = with_shuffled_weights(before, name, 0)
        assert not torch.equal(weight(before), weight(after))
        assert all(torch.equal(weight(before, place), weight(after, place)) for place in (1, 2))
        assert torch.equal(before.model[0].bias, after.model[0].bias)


def test_a_weight_that_is_shared_is_shuffled_once():
    first, second = nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)
    second.weight = first.weight
    after = with_shuffled_weights(network(first, second), "shuffle-kernels", 0)
    alone = with_shuffled_weights(network(first), "shuffle-kernels", 0)
    assert after.model[0].weight is after.model[1].weight
    assert torch.equal(weight(after), weight(alone))


def old_weight_norm(module: nn.Module) -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(module)


@pytest.mark.parametrize(
    "norm",
    [parametrizations.weight_norm, parametrizations.spectral_norm, nn.utils.spectral_norm,
     old_weight_norm],
)  # fmt: skip
@pytest.mark.parametrize("name", SHUFFLES)
def test_a_weight_that_is_computed_is_written_out(norm, name):
    before = network(norm(nn.Conv2d(4, 8, 3)))
    images = torch.rand(1, 4, 9, 9)
    expected = before.model(images)
    after = with_shuffled_weights(before, name, 0)
    old = weight(before).flatten(1)
    assert torch.allclose(old.sort(1).values, weight(after).flatten(1).sort(1).values, atol=1e-6)
    assert not torch.allclose(expected, after.model(images))
    assert torch.allclose(before.model(images), expected)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("shuffle-kernels", [nn.Conv2d(3, 8, 1), nn.Linear(8, 8)]),
        ("shuffle-kernels", [nn.Linear(8, 8)]),
        ("shuffle-channels", [nn.Conv2d(1, 8, 3)]),
        ("shuffle-channels", [nn.ConvTranspose2d(3, 8, 3)]),
    ],
)
def test_a_network_with_nothing_to_shuffle_is_named(name, layers):
    with pytest.raises(UsageError, match="mine has none"):
        with_shuffled_weights(network(*layers), name, 0)


def test_bad_arguments_are_named():
    plain = network(nn.Conv2d(3, 8, 3))
    with pytest.raises(UsageError, match=r"counterfactual: expected .*shuffle-kernels"):
        with_shuffled_weights(plain, "shuffle-taps", 0)
    with pytest.raises(UsageError, match="seed"):
        with_shuffled_weights(plain, "shuffle-kernels", -1)


def test_batch_normalisation_is_that_of_the_images():
    images = torch.randn(64, 3, 16, 16) * torch.tensor([1.0, 2.0, 3.0])[:, None, None] + 1
    one = network(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(0.5), nn.ReLU())
    assert estimate_norms(one, images.split(16)) == 1
    before = one.model[0](images)
    assert torch.allclose(one.model[1].running_mean, before.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(one.model[1].running_var, before.var((0, 2, 3)), rtol=0.05)
    after = one.model[:2](images)
    assert torch.allclose(after.mean((0, 2, 3)), torch.zeros(8), atol=1e-3)
    assert not any(module.training for module in one.model.modules())
    assert one.model[1].momentum == 0.1


def test_nothing_but_batch_normalisation_is_in_train_mode():
    modes = {}

    class Watched(nn.Dropout):
        def forward(self, maps):
            modes["dropout"] = self.training
            return super().forward(maps)

    one = network(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), Watched(0.5))
    one.model[1].register_forward_hook(lambda norm, *_: modes.update(norm=norm.training))
    estimate_norms(one, [torch.rand(4, 3, 16, 16)])
    assert modes == {"norm": True, "dropout": False}


def test_a_network_without_batch_normalisation_reads_no_batch():
    def batches():
        raise AssertionError
        yield

    one = network(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False))
    assert estimate_norms(one, batches()) == 0
    assert counterfactual_of(one, "shuffle-kernels", 0, batches()).weights == (
        "as given, the taps of each kernel shuffled (seed 0)"
    )


def test_batches_must_be_there_and_fit():
    one = network(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    with pytest.raises(UsageError, match="batches: expected at least one"):
        estimate_norms(one, [])
    with pytest.raises(NatstatsError, match="expected batches that pass through"):
        estimate_norms(one, [torch.rand(4, 1, 16, 16)])
    assert not one.model[1].training
    assert one.model[1].momentum == 0.1


@pytest.mark.parametrize(
    "change",
    [
        {"1": {"running_mean": torch.zeros(2), "running_var": torch.zeros(3)}},
        {"1": {"running_mean": torch.zeros(3)}},
        {"1": [3.0]},
        {"1": {"running_mean": "x", "running_var": None}},
        {"2": {"running_mean": torch.zeros(3), "running_var": torch.zeros(3)}},
        {},
    ],
)
def test_statistics_of_another_network_are_refused(change):
    network = Network(nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)), "mine", "as given")
    before = network.model[1].running_var.clone()
    with pytest.raises(NatstatsError, match="of the batch normalisation of this network"):
        load_norms(network, change)
    assert torch.equal(network.model[1].running_var, before)
    load_norms(network, {"1": {name: one + 2 for name, one in norms_of(network)["1"].items()}})
    assert torch.equal(network.model[1].running_var, before + 2)


def test_the_original_is_left_and_its_record_says_what_was_done():
    before = demo.network()
    digest = before.digest()
    after = counterfactual_of(before, "shuffle-kernels", 5, [torch.rand(4, 3, 32, 32)])
    assert before.digest() == digest != after.digest()
    assert after.weights == (
        f"{before.weights}, the taps of each kernel shuffled (seed 5), "
        "batch normalisation estimated anew"
    )
    assert (after.trained, after.name) == (None, before.name)
    assert not after.model.training
