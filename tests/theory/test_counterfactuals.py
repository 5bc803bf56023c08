"""Counterfactuals: what is replaced is replaced, all else stays, intervals are of the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.activations.trace import trace_calls
from natstats.theory.account import Account
from natstats.theory.account_law import AccountLaw
from natstats.theory.account_pass import AccountPass
from natstats.theory.counterfactuals import COUNTERFACTUALS, Counterfactuals

KERNELS = [0.4, 0.1, 0.2, 0.3, 0.5, 0.0]
RECTIFIERS = [-0.1, -0.2, -0.3, -0.4, -0.5, 0.0]
SHUFFLED = [0.0, 0.05, -0.1, 0.1, 0.2, 0.3]
MIXED = [-0.5, 0.0, 0.5, 0.1, 0.2, 0.4]


@pytest.fixture
def made(made_account):
    """Convolutions, whose kernels, shuffled or not, and correlations do what is said above."""

    def build(scatter: float = 0.0, skip: tuple[str, ...] = ()):
        own, alpha = made_account(2.0, scatter), 2.0
        for number, kernels in enumerate(KERNELS):
            predictions = {
                "independent": alpha + kernels,
                "shuffled_kernels": alpha + SHUFFLED[number],
                "shuffled_channels": alpha + MIXED[number],
            }
            kept = {k: v for k, v in predictions.items() if f"{k} {number}" not in skip}
            own.step(f"conv{number}", "convolution", alpha + kernels - 0.15, **kept)
            alpha += kernels - 0.15 + RECTIFIERS[number]
            own.step(f"relu{number}", "rectifier", alpha)
        return Counterfactuals(AccountLaw(own.account()))

    return build


def cumulated(kernels, rectifiers, correlations=-0.15):
    """Exponents of the convolutions of a chain."""
    steps = np.array(kernels) + correlations
    before = np.concatenate([[0.0], np.cumsum(steps + np.array(rectifiers))[:-1]])
    return 2.0 + before + steps


EXPECTED = {
    "same-rectifiers": cumulated(KERNELS, [np.mean(RECTIFIERS)] * 6),
    "first-kernels": cumulated([KERNELS[0]] * 6, RECTIFIERS),
    "shuffle-kernels": cumulated(SHUFFLED, RECTIFIERS),
    "shuffle-channels": cumulated(MIXED, RECTIFIERS, correlations=0.0),
}


@pytest.mark.parametrize("name", COUNTERFACTUALS)
def test_one_share_is_replaced_and_all_others_stay(made, name):
    found = made()
    table = found.exponents
    assert list(table.columns) == ["layer", "depth", "exponent", *COUNTERFACTUALS]
    assert np.allclose(table.exponent, cumulated(KERNELS, RECTIFIERS), atol=1e-6)
    assert np.allclose(table[name], EXPECTED[name], atol=1e-6)


def test_slopes_are_those_of_the_predicted_exponents(made):
    found = made(scatter=0.02)
    table, slopes = found.exponents, found.slopes.set_index("name")
    for name, column in [("measured", "exponent"), *((one, one) for one in COUNTERFACTUALS)]:
        slope = np.polyfit(table.depth, table[column], 1)[0]
        assert slopes.slope[name] == pytest.approx(slope, abs=1e-9)
        assert slopes.low[name] < slope < slopes.high[name]
    apart = slopes.drop("measured")
    assert np.allclose(apart.difference, apart.slope - slopes.slope["measured"], atol=1e-9)
    assert ((apart.difference_low < apart.difference) & (apart.p < 1)).all()


def test_to_replace_by_what_is_there_changes_nothing(made_account):
    made, alpha = made_account(scatter=0.05), 2.0
    for number in range(6):
        made.step(f"conv{number}", "convolution", alpha, independent=alpha)
        made.step(f"relu{number}", "rectifier", alpha)
    # The first kernels stand in for themselves where there is but one layer with kernels.
    one = Counterfactuals(AccountLaw(made.account(), {f"conv{n}": n for n in (0,)}))
    table = one.exponents
    assert table["first-kernels"][0] == pytest.approx(table.exponent[0], abs=1e-12)
    assert one.slope_of == {}
    assert one.sentence() == ""


def test_an_interval_is_that_of_the_shares_that_are_left(made):
    # Every share of the kernels replaced by the first: its error counts once for each layer.
    found = made(scatter=0.02)
    law, account = found.law, found.account
    (own,) = [one for one in found.each if one.name == "first-kernels"]
    by_hand = law.ways * ~account.shares.where("kernels")
    first = next(n for n, s in enumerate(account.shares.list) if s.cause == "kernels")
    by_hand[:, first] = np.arange(1, 7)
    expected = account.shares.sum(law.slope_weights @ by_hand)
    assert found.slope_of["first-kernels"][0] == expected
    assert own.kept == ()


def test_what_is_not_predicted_is_named_and_stays(made, made_account):
    found = made(skip=("shuffled_channels 2", "shuffled_kernels 3", "independent 4"))
    kept = {one.name: one.kept for one in found.each}
    assert kept["shuffle-channels"] == ("conv2", "conv4")
    assert kept["shuffle-kernels"] == ("conv4",)  # without the prediction conv3 has one tap
    assert kept["first-kernels"] == ("conv4",)
    expected = cumulated(
        [*MIXED[:2], KERNELS[2], MIXED[3], KERNELS[4], MIXED[5]],
        RECTIFIERS,
        np.array([0.0, 0, -0.15, 0, -0.15, 0]),
    )
    assert np.allclose(found.exponents["shuffle-channels"], expected, atol=1e-6)
    assert "(conv2, conv4 as measured)" in found.sentence()
    plain = made_account()
    for number in range(6):
        plain.step(f"fc{number}", "linear", 2.0 + number)
    assert Counterfactuals(AccountLaw(plain.account())).each == ()


def test_the_sentence_says_that_all_else_stays(made):
    text = made(scatter=0.02).sentence()
    assert text.startswith(
        "Predicted slopes per weight layer, to first order, all other shares as they were measured:"
    )
    assert all(words in text for words in COUNTERFACTUALS.values())


def smooth(channels: int, groups: int, width: float) -> nn.Conv2d:
    """A convolution whose kernels are all one blur, weighed so that power is kept in the mean."""
    layer = nn.Conv2d(channels, channels, 5, groups=groups, bias=False, padding=2)
    place = torch.arange(-2.0, 3.0)
    bump = torch.exp(-(place[:, None] ** 2 + place**2) / (2 * width**2))
    with torch.no_grad():
        layer.weight.copy_((bump / bump.norm()).expand(layer.weight.shape))
    return layer


@pytest.mark.slow
def test_kernels_that_are_all_alike_lose_nothing_when_they_trade_places():
    # Depthwise, so that nothing is mixed: the prediction is exact, and the same as measured.
    fields = natstats.power_law_fields(4 * 24, 32, 32, alpha=2.0, seed=3)
    images = torch.from_numpy(fields).float().view(24, 4, 32, 32)
    model = nn.Sequential(*(smooth(4, 4, 0.8) for _ in range(6))).eval()
    trace = trace_calls(model, (images[:1],))
    with torch.inference_mode(), AccountPass(model, (images[:1],), trace, n_groups=12) as passed:
        model(images)
    found = Counterfactuals(AccountLaw(Account(passed.compute(), natstats.FitOptions())))
    table, slopes = found.exponents, found.slopes.set_index("name")
    assert np.allclose(table["shuffle-channels"], table.exponent, atol=0.002)
    assert abs(slopes.difference["shuffle-channels"]) < 0.001
    # A blur whose taps are shuffled keeps its mean, but loses its shape.
    assert slopes.slope["measured"] > 0.25
    assert slopes.slope["shuffle-kernels"] < 0.8 * slopes.slope["measured"]
    assert "same-rectifiers" not in table


def test_an_account_without_steps_has_nothing_to_say(made_account):
    law = AccountLaw(made_account().account(), {"conv": 1.0})
    found = Counterfactuals(law)
    assert found.each == ()
    assert len(found.exponents) == len(found.slopes) == len(law.slopes) == 0
    assert law.missing == ("conv",)
    assert "got 0 layers; not in the account: conv" in law.sentence()
