"""The law from the account: the slopes of causes add up to the slope that the law describes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.activations.trace import trace_calls
from natstats.fits.exponents import fit_spectrum
from natstats.law.description import describe
from natstats.law.law import fit_law
from natstats.law.regression import LayerErrors
from natstats.theory.account import Account
from natstats.theory.account_law import AccountLaw, weights_of_slope
from natstats.theory.account_pass import AccountPass


class Residual(nn.Module):
    """A stem, two blocks with a shortcut, and a side branch that leads nowhere."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 8, 3, padding=1),
            )
            for _ in range(2)
        )
        self.down = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.side = nn.Conv2d(8, 4, 1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        maps = torch.relu(self.stem(images))
        for block in self.blocks:
            maps = torch.relu(maps + block(maps))
        return self.down(maps), self.side(maps)


@pytest.fixture(scope="module")
def account() -> Account:
    fields = natstats.power_law_fields(3 * 40, 32, 32, alpha=2.0, seed=1)
    images = torch.from_numpy(fields).float().view(40, 3, 32, 32)
    model = Residual().eval()
    trace = trace_calls(model, (images[:1],))
    with torch.inference_mode(), AccountPass(model, (images[:1],), trace, n_groups=20) as found:
        model(images)
    return Account(found.compute(), natstats.FitOptions())


def fits_of(account: Account, names: tuple[str, ...]):
    """Exponents and deviations of the layers, fitted from their spectra as a run fits them."""
    states = [
        account.spectra.states[account.steps[account.place_of_layer[name]].after] for name in names
    ]
    fits = [fit_spectrum(state.spectrum(), account.options, state.span) for state in states]
    return np.array([f.exponent for f in fits]), np.stack([f.deviations for f in fits], axis=1)


def test_the_slopes_of_causes_add_up_to_that_of_the_exponents(account):
    table = AccountLaw(account).slopes.set_index("cause")
    assert table.slope.drop("all").sum() == pytest.approx(table.slope["all"], abs=1e-12)
    assert table.share.drop("all").sum() == pytest.approx(1.0, abs=1e-9)
    assert {"kernels", "correlations", "rectifiers", "additions", "strides"} <= {*table.index}


@pytest.mark.parametrize("spacing", ["even", "uneven"])
def test_the_whole_slope_is_the_one_that_the_law_describes(account, spacing):
    law = AccountLaw(account)
    if spacing == "uneven":
        rng = np.random.default_rng(0)
        law = AccountLaw(account, {name: rng.uniform(0, 9) for name in law.layers}, "field")
    exponents, deviations = fits_of(account, law.layers)
    own = fit_law(law.depth, exponents, deviations, ["32"] * len(exponents)).network
    whole = law.slopes.iloc[0]
    assert whole.slope == pytest.approx(own.slope, abs=1e-9)
    assert whole.low == pytest.approx(own.slope_low, abs=1e-9)
    assert whole.high == pytest.approx(own.slope_high, abs=1e-9)
    assert np.allclose(law.exponents, exponents, atol=1e-12)
    assert np.allclose(account.exponent(0) + law.ways @ account.shares.value, exponents, atol=1e-12)


def test_the_whole_slope_is_that_of_any_level(account):
    narrow = Account(account.spectra, natstats.FitOptions(level=0.5))
    law = AccountLaw(narrow)
    exponents, deviations = fits_of(narrow, law.layers)
    own = describe(LayerErrors(exponents, deviations), law.depth, {}, list(law.layers), 0.5)
    whole = law.slopes.iloc[0]
    assert (whole.low, whole.high) == pytest.approx((own.slope_low, own.slope_high), abs=1e-9)


def test_all_weight_layers_are_in_it_unless_others_are_asked_for(account):
    law = AccountLaw(account)
    assert {*law.layers} == {
        "stem", "blocks.0.0", "blocks.0.3", "blocks.1.0", "blocks.1.3", "down", "side"
    }  # fmt: skip
    assert dict(zip(law.layers, law.depth, strict=True))["down"] == 6
    few = AccountLaw(account, {"down": 3.0, "gone": 4.0, "stem": 1.0, "blocks.0.1": np.nan})
    assert few.layers == ("down", "stem")
    assert few.missing == ("gone", "blocks.0.1")
    assert len(few.slopes) == 0
    assert few.sentence() == (
        "Law from the account: expected at least 5 layers of 3 depths in it; got 2 layers; "
        "not in the account: gone, blocks.0.1."
    )


@pytest.mark.slow
def test_a_known_chain_has_known_slopes(made_account):
    made, alpha = made_account(images=2.0), 2.0
    for number in range(6):  # kernels +0.3, correlations -0.1, borders -0.05, a rectifier -0.1
        made.step(
            f"conv{number}", "convolution", alpha + 0.15, independent=alpha + 0.3,
            linear=alpha + 0.2,
        )  # fmt: skip
        made.step(f"relu{number}", "rectifier", alpha + 0.05)
        alpha += 0.05
    law = AccountLaw(made.account())
    assert law.layers == tuple(f"conv{number}" for number in range(6))
    table = law.slopes.set_index("cause").slope
    expected = {
        "all": 0.05, "kernels": 0.3, "correlations": -0.1, "borders": -0.05, "rectifiers": -0.1
    }  # fmt: skip
    assert table.to_dict() == pytest.approx(expected, abs=1e-6)


def test_steps_off_the_way_to_a_layer_count_for_others_only(made_account):
    made = made_account()
    for number in range(5):
        before = made.last
        made.step(f"conv{number}", "convolution", 2.0, independent=2.0)
        made.step(f"side{number}", "convolution", 5.0, before, is_trunk=False, independent=5.0)
    law = AccountLaw(made.account(), {f"conv{number}": number for number in range(5)})
    assert law.slopes.slope.abs().max() < 1e-9
    both = AccountLaw(made.account())
    assert dict(zip(both.layers, both.exponents, strict=True))["side3"] == pytest.approx(5.0)


@pytest.mark.slow
def test_the_sentence_claims_what_intervals_tell(made_account):
    made, alpha = made_account(scatter=0.003), 2.0
    for number in range(8):
        made.step(
            f"conv{number}", "convolution", alpha + 0.2, independent=alpha + 0.2,
            linear=alpha + 0.2,
        )  # fmt: skip
        alpha += 0.2
    text = AccountLaw(made.account()).sentence()
    assert text.startswith(
        "The least-squares slope of the exponents over 8 layers of this network is +0.1998 [+0.19"
    )
    assert "per weight layer (95 % interval for other images, with these layers as given;" in text
    named, unclear = text.split("; not told from zero: ")
    assert ": kernels +0.20" in named
    assert unclear == "correlations of channels, borders."


def test_a_slope_that_may_be_none_is_called_so(made_account):
    made = made_account(scatter=0.3, seed=2)
    for number in range(8):
        made.step(f"conv{number}", "convolution", 2.0)
    text = AccountLaw(made.account()).sentence()
    assert ", which is not told from zero" in text
    assert text.endswith("; not told from zero: convolutions (not parted).")


def test_the_parts_of_one_cause_do_not_coarsen_its_interval(account):
    # What is known of the Gaussian part by blocks cancels with the rest of the rectifier.
    law, where = AccountLaw(account), account.shares.where("rectifiers")
    assert any(one.part == "Gaussian" for one in account.shares.list)
    weights = (law.slope_weights @ law.ways) * where
    assert len(account.shares.deviations(weights)) == 20
    gaussian = np.array([one.part == "Gaussian" for one in account.shares.list])
    assert len(account.shares.deviations(weights * gaussian)) < 20


def test_too_few_layers_or_depths_have_no_slope():
    assert weights_of_slope(np.arange(4.0)) is None
    assert weights_of_slope(np.array([1.0, 1, 2, 2, 2])) is None
    depth = np.array([1.0, 1, 2, 3, 7])
    exponent = np.array([0.3, 0.1, 0.5, 0.2, 0.9])
    expected = np.polyfit(depth, exponent, 1)[0]
    assert weights_of_slope(depth) @ exponent == pytest.approx(expected)
