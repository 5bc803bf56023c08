"""Trained minus random in the account: what is different is found, with errors of both sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.activations.trace import trace_calls
from natstats.errors import UsageError
from natstats.law.differences import Differences, ErrorSource, Estimate
from natstats.law.seed_variance import seeds_as_source
from natstats.theory.account import Account
from natstats.theory.account_difference import AccountDifference
from natstats.theory.account_law import AccountLaw
from natstats.theory.account_pass import AccountPass

N_LAYERS = 5


def network(seed: int, is_trained: bool = False) -> nn.Sequential:
    """Convolutions and rectifiers; trained, the second convolution is a blur of each channel."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for number in range(N_LAYERS):
        layer = nn.Conv2d(3 if number == 0 else 8, 8, 3, padding=1)
        if is_trained and number == 1:
            blur = torch.tensor([1.0, 2.0, 1.0])
            with torch.no_grad():
                layer.weight.zero_()
                layer.weight[range(8), range(8)] = blur[:, None] * blur / 4
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers).eval()


def account_of(model: nn.Module, images: torch.Tensor, n_groups: int = 12, **fit) -> Account:
    with torch.inference_mode():
        trace = trace_calls(model, (images[:1],))
        with AccountPass(model, (images[:1],), trace, n_groups=n_groups) as found:
            model(images)
    return Account(found.compute(), natstats.FitOptions(**fit))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    fields = natstats.power_law_fields(3 * 24, 24, 24, alpha=2.0, seed=0)
    return torch.from_numpy(fields).float().view(24, 3, 24, 24)


@pytest.fixture(scope="module")
def trained(images) -> Account:
    return account_of(network(0, is_trained=True), images)


@pytest.fixture(scope="module")
def random(images) -> list[Account]:
    return [account_of(network(seed), images) for seed in (1, 2, 3)]


def by_hand(trained: Account, random: list[Account], weights: list[np.ndarray]) -> Estimate:
    """As runs.control compares: paired deviations of the images, and one more seed."""
    accounts = [trained, *random]
    values = [own @ one.shares.value for own, one in zip(weights, accounts, strict=True)]
    first, *others = [
        one.shares.deviations(own) for own, one in zip(weights, accounts, strict=True)
    ]
    images = ErrorSource((first - np.mean(others, axis=0))[:, None])
    seeds = seeds_as_source(np.array(values[1:])[:, None])
    value = np.array([values[0] - np.mean(values[1:])])
    return Differences(value, [images, seeds], trained.options.level).each()[0]


def test_shares_of_the_difference_add_up_along_the_trunk(trained, random):
    table = AccountDifference(trained, random).totals.set_index("cause")
    for column in ("trained", "random", "difference"):
        assert table[column].drop("all").sum() == pytest.approx(table[column]["all"], abs=1e-9)
    assert np.allclose(table.difference, table.trained - table.random, atol=1e-12)
    assert table.trained["all"] == pytest.approx(trained.change.value, abs=1e-12)
    changes = [one.change.value for one in random]
    assert table.random["all"] == pytest.approx(np.mean(changes), abs=1e-12)
    totals = trained.totals.set_index("cause").share
    assert np.allclose(table.trained.drop("all"), totals.reindex(table.index[1:]))


def test_errors_are_those_of_images_and_seeds(trained, random):
    found = AccountDifference(trained, random).totals.set_index("cause")
    weights = [
        one.weights_of(one.trunk) * one.shares.where("kernels") for one in (trained, *random)
    ]
    own = by_hand(trained, random, weights)
    row = found.loc["kernels"]
    assert (row.difference, row.low, row.high, row.p) == pytest.approx(
        (own.value, own.low, own.high, own.p), abs=1e-12
    )
    assert own.dof <= 2


def test_what_training_did_is_found_where_it_was_done(trained, random):
    found = AccountDifference(trained, random)
    table = found.shares
    kernels = table[(table.cause == "kernels")].set_index("step")
    assert list(kernels.index) == [str(place) for place in range(0, 2 * N_LAYERS, 2)]
    assert kernels.p.idxmin() == "2"
    assert kernels.low["2"] > 0.5
    assert (kernels.p.drop("2") > 0.01).all()
    assert (table.reason == "").all()
    assert (table.p_corrected >= table.p).all()
    assert np.allclose(table.difference, table.trained - table.random, atol=1e-12)
    text = found.sentence()
    assert text.startswith("Trained minus 3 networks with random weights (95 % interval), along 9")
    assert "not known with random" not in text


def test_single_shares_have_the_deviations_of_their_images(trained, random):
    table = AccountDifference(trained, random[:2]).shares  # two seeds: no pooling
    row = table[(table.step == "4") & (table.cause == "correlations")].iloc[0]
    weights = [
        (one.weights_of([4]) * one.shares.where("correlations")) for one in (trained, *random[:2])
    ]
    own = by_hand(trained, random[:2], weights)
    assert (row.difference, row.low, row.high) == pytest.approx((own.value, own.low, own.high))


def test_slopes_of_the_difference_are_differences_of_slopes(trained, random):
    found = AccountDifference(trained, random)
    table = found.slopes.set_index("cause")
    assert found.layers == tuple(str(place) for place in range(0, 2 * N_LAYERS, 2))
    own = AccountLaw(trained).slopes.set_index("cause").slope
    others = [AccountLaw(one).slopes.set_index("cause").slope for one in random]
    assert np.allclose(table.trained, own[table.index])
    assert np.allclose(table.random, np.mean([one[table.index] for one in others], axis=0))
    assert table.difference.drop("all").sum() == pytest.approx(table.difference["all"], abs=1e-12)
    law = AccountLaw(trained)
    weights = [law.slope_weights @ AccountLaw(one).ways for one in (trained, *random)]
    whole = by_hand(trained, random, weights)
    assert (table.low["all"], table.high["all"]) == pytest.approx((whole.low, whole.high))


@pytest.mark.slow
def test_networks_that_learned_nothing_seldom_differ(images):
    # One of the random networks in the place of the trained one: 5 % would be found by chance.
    accounts = [account_of(network(seed), images[:12]) for seed in range(10, 16)]
    found = []
    for place in range(6):
        others = [one for number, one in enumerate(accounts) if number != place]
        totals = AccountDifference(accounts[place], others).totals
        found += totals.p.tolist()
    assert np.mean(np.array(found) < 0.05) < 0.15


@pytest.mark.slow
def test_a_step_that_only_some_have_is_named_and_left_out(made_account):
    def chain(n_steps: int, name: str = "") -> Account:
        made, alpha = made_account(scatter=0.02, seed=n_steps), 2.0
        for number in range(n_steps):
            alpha += 0.1
            made.step(f"conv{number}", "convolution", alpha, independent=alpha)
        if name:
            made.step(name, "rectifier", 0.0)
        return made.account()

    found = AccountDifference(chain(7), [chain(6), chain(6, "extra")])
    assert found.steps == tuple(f"conv{number}" for number in range(6))
    assert found.missing == ("conv6",)
    assert found.only_random == ("extra",)
    assert len(found.layers) == 6
    rows = found.shares.set_index(["step", "cause"]).reason
    assert rows["conv6", "kernels"] == "not in random 0, random 1"
    assert rows["extra", "rectifiers"] == "not in trained, random 0"
    text = found.sentence()
    assert "; not known with random weights: conv6" in text
    assert "; known with random weights only: extra. Here all layers weigh the same" in text
    # All have six steps of 0.1.
    assert found.totals.trained[0] == pytest.approx(0.6, abs=0.05)


@pytest.mark.slow
def test_parts_that_not_all_know_are_taken_together(trained, random, made_account):
    def chain(is_parted: bool) -> Account:
        made = made_account(scatter=0.01)
        made.step("conv", "convolution", 1.5)
        made.step("add", "addition", 1.9, **({"sum": 1.7} if is_parted else {}))
        return made.account()

    found = AccountDifference(chain(True), [chain(False), chain(True)]).shares
    row = found[found.step == "add"]
    assert row.part.tolist() == [""]
    assert row.trained.tolist() == pytest.approx([0.4], abs=0.02)
    assert row.reason.tolist() == [""]
    parted = AccountDifference(chain(True), [chain(True), chain(True)]).shares
    assert parted[parted.step == "add"].part.tolist() == ["independent", "cross terms"]


@pytest.mark.slow
def test_accounts_of_the_same_images_are_taken(trained, random, images):
    with pytest.raises(UsageError, match="random: expected accounts of at least 2 seeds; got 1"):
        AccountDifference(trained, random[:1])
    fewer = account_of(network(1), images[:20])
    with pytest.raises(UsageError, match="number 1 has 20 images in 12 groups"):
        AccountDifference(trained, [random[0], fewer])
    otherwise = account_of(network(1), images, level=0.9)
    with pytest.raises(UsageError, match="fitted as the trained one; number 0 is not"):
        AccountDifference(trained, [otherwise, random[0]])


def test_equal_networks_have_no_difference(trained):
    found = AccountDifference(trained, [trained, trained])
    assert found.totals.difference.abs().max() < 1e-12
    assert found.totals.p.max() <= 1


def test_accounts_without_a_common_step_have_nothing_to_say(made_account):
    empty, one = made_account().account(), made_account()
    one.step("conv", "convolution", 1.5)
    found = AccountDifference(one.account(), [empty, empty])
    assert found.missing == ("conv",)
    assert found.steps == found.layers == ()
    assert found.totals.difference.tolist() == [0.0]
    assert found.shares.reason.tolist() == ["not in random 0, random 1"]
    assert found.sentence().endswith("no step of the trunk is in all accounts.")
    assert len(AccountDifference(empty, [empty, empty]).shares) == 0
