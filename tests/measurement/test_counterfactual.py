"""Networks that are shuffled in earnest are what the account of the network predicts of them.

Where nothing comes before the shuffled layer, no other share can answer, and the prediction is
exact on average over orders but for borders.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.activations.trace import trace_calls
from natstats.measurement.counterfactual import counterfactual_of
from natstats.networks.load import Network
from natstats.theory.account import Account
from natstats.theory.account_law import AccountLaw
from natstats.theory.account_pass import AccountPass
from natstats.theory.counterfactuals import Counterfactuals

N_SEEDS = 16


def account_of(network: Network, images: torch.Tensor) -> Account:
    model = network.model
    with torch.inference_mode():
        trace = trace_calls(model, (images[:1],))
        with AccountPass(model, (images[:1],), trace, n_groups=12) as found:
            model(images)
    return Account(found.compute(), natstats.FitOptions())


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Twelve channels of different exponents that share a part."""
    alphas = np.linspace(1.0, 3.0, 12)
    own = [natstats.power_law_fields(24, 32, 32, alpha=a, seed=k) for k, a in enumerate(alphas)]
    shared = natstats.power_law_fields(24, 32, 32, alpha=2.0, seed=50)
    maps = np.stack([one / one.std() for one in own], axis=1) + (shared / shared.std())[:, None]
    return torch.from_numpy(maps).float()


def layer(groups: int) -> nn.Conv2d:
    """Kernels that are low-pass for some channels, and not for others."""
    torch.manual_seed(3)
    convolution = nn.Conv2d(12, 24, 5, groups=groups, bias=False, padding=2)
    place = torch.arange(-2.0, 3.0)
    bump = torch.exp(-(place[:, None] ** 2 + place**2) / 4)
    with torch.no_grad():
        share = torch.linspace(0, 1, convolution.weight.shape[1])[:, None, None]
        if groups == 12:
            share = torch.linspace(0, 1, 24)[:, None, None, None]
        convolution.weight.copy_(
            convolution.weight * (1 - share) + share * bump / (2 if groups > 1 else 12)
        )
    return convolution


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "groups"), [("shuffle-channels", 1), ("shuffle-channels", 12), ("shuffle-kernels", 12)]
)
def test_what_is_measured_with_one_layer_is_what_is_predicted(name, groups, images):
    network = Network(nn.Sequential(layer(groups)).eval(), "one layer", "made")
    account = account_of(network, images)
    table = Counterfactuals(AccountLaw(account, {"0": 1})).exponents
    measured = [
        account_of(counterfactual_of(network, name, seed, []), images).exponent(1)
        for seed in range(N_SEEDS)
    ]
    error = np.std(measured, ddof=1) / np.sqrt(N_SEEDS)
    assert abs(table[name][0] - np.mean(measured)) < 0.03 + 3 * error
    assert abs(table[name][0] - table.exponent[0]) > 0.05 + 3 * error  # it is a change
