"""Networks that are reset to random weights: by their seed, as their makers do, and untouched."""

from __future__ import annotations

import torch
from torch import nn

from natstats import demo
from natstats.networks.load import Network, build_network
from natstats.networks.random_weights import with_random_weights


def network():
    torch.manual_seed(7)
    return nn.Sequential(*(nn.Conv2d(3, 3, 5, padding=2) for _ in range(6))).eval()


def test_random_weights_spare_the_network_and_follow_the_seed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[1].running_mean.fill_(3.0)
    given = Network(model, "mine", "as given")
    before, state = given.digest(), torch.get_rng_state()
    one, again, other = (with_random_weights(given, seed) for seed in (0, 0, 1))
    assert given.digest() == before
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert one.digest() == again.digest() != other.digest()
    assert not one.model.training
    assert float(one.model[1].running_mean.abs().max()) == 0.0
    assert not one.trained
    assert "seed 1" in other.weights


def test_a_named_network_is_built_by_its_own_constructor():
    """He's initialisation of this network is not that of a bare convolution's reset."""
    given = demo.network()
    made = with_random_weights(given, 3)
    built = build_network("cifar_resnet20", 3, given.model.state_dict())
    assert torch.equal(made.model.conv1.weight, built.conv1.weight)
    assert made.model.fc.weight.shape == given.model.fc.weight.shape
    assert made.preprocessing == given.preprocessing


def test_a_network_that_only_bears_a_known_name_is_reset():
    given = Network(network(), "resnet18", "as given")
    assert isinstance(with_random_weights(given, 0).model, nn.Sequential)


def test_precision_is_kept():
    given = Network(network().double(), "mine", "as given")
    assert with_random_weights(given, 0).model[0].weight.dtype == torch.float64
