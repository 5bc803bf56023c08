"""The account: shares add up, and say what their causes did."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.theory.account import CAUSES, Account


@pytest.fixture(scope="module")
def residual(small):
    torch.manual_seed(0)
    return small.account_of(small.Residual(), small.photographs(24))


def test_shares_add_up_along_every_way(residual):
    first = residual.exponent(residual.steps[0].before)
    for place, step in enumerate(residual.steps):
        shares = residual.weights_of(residual.way_to(place)) @ residual.shares.value
        assert shares == pytest.approx(residual.exponent(step.after) - first, abs=1e-9)


def test_totals_add_up_along_the_trunk(residual):
    before, after = residual.ends
    assert residual.totals["share"].sum() == pytest.approx(after - before, abs=1e-9)
    assert residual.change.value == pytest.approx(after - before, abs=1e-9)
    assert [residual.steps[place].name for place in residual.trunk][-1] == "conv3"
    assert set(residual.totals.cause) <= {*CAUSES}


def test_the_sum_has_the_error_of_the_change(residual):
    """Deviations add up as the shares do, so the Gaussian part and the rest cancel."""
    deviations = residual.shares.deviations(residual.weights_of(residual.trunk))
    step = residual.steps[residual.trunk[-1]]
    whole = residual._fit(step.after).less(residual._fit(residual.steps[0].before))
    assert np.allclose(deviations, whole.deviations, atol=1e-9)


def test_a_kernel_of_one_tap_and_channel_does_nothing(small):
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.Conv2d(1, 1, 1), nn.ReLU())
    account = small.account_of(model, small.photographs(12, channels=1))
    for cause in ("kernels", "correlations"):
        assert small.shares_of(account, "0", cause) == pytest.approx([0.0], abs=1e-6)
    assert small.shares_of(account, "0", "borders") == []


def test_a_low_pass_kernel_raises_the_exponent_by_what_it_does_to_noise(small):
    """Of one channel, on white noise: the kernels' share is their own exponent."""
    smooth = torch.tensor([1.0, 2.0, 1.0])
    model = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU())
    model[0].weight.data = torch.outer(smooth, smooth)[None, None] / 16
    white = torch.randn(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    account = small.account_of(model, white)
    (kernels,) = small.shares_of(account, "0", "kernels")
    assert kernels == pytest.approx(account.steps[0].kernel_exponent, abs=0.05)
    assert small.shares_of(account, "0", "correlations") == pytest.approx([0.0], abs=1e-6)


def test_channels_that_cancel_are_correlations(small):
    """Two channels that are alike, and their difference: independent, they would not cancel."""
    images = small.photographs(24, channels=1, alpha=2.5)
    noise = torch.randn(24, 1, 32, 32, generator=torch.Generator().manual_seed(1)) / 10
    model = nn.Sequential(nn.Conv2d(2, 1, 1, bias=False), nn.ReLU())
    model[0].weight.data = torch.tensor([1.0, -1.0]).view(1, 2, 1, 1)
    account = small.account_of(model, torch.cat([images, images + noise], 1))
    (kernels,), (correlations,) = (
        small.shares_of(account, "0", cause) for cause in ("kernels", "correlations")
    )
    assert kernels == pytest.approx(0.0, abs=0.01)
    assert account.exponent(account.steps[0].after) == pytest.approx(0.0, abs=0.1)
    assert correlations < -2


@pytest.mark.parametrize("act", [nn.ReLU, nn.LogSigmoid, nn.RReLU, nn.Mish, nn.Softplus, nn.GELU])
def test_every_activation_function_that_is_known_has_a_gaussian_part(small, act):
    account = small.account_of(nn.Sequential(nn.Conv2d(3, 4, 3), act()), small.photographs())
    (gaussian,) = small.shares_of(account, "1", "rectifiers", "Gaussian")
    assert np.isfinite(gaussian)
    assert gaussian != 0


def test_a_rectifier_of_gaussian_maps_leaves_no_rest(small):
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.Conv2d(1, 1, 1))
    model[0].weight.data.fill_(1.0)
    account = small.account_of(model, small.photographs(256, channels=1))
    (gaussian,) = small.shares_of(account, "1", "rectifiers", "Gaussian")
    (rest,) = small.shares_of(account, "1", "rectifiers", "rest")
    assert gaussian < -0.05
    assert abs(rest) < 0.02


def test_a_stride_folds_what_is_fine(small):
    white = torch.randn(48, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Conv2d(1, 1, 1, stride=2, bias=False), nn.ReLU())
    for images, low, high in ((white, -0.08, 0.08), (small.photographs(48, channels=1), -1, -0.05)):
        (strides,) = small.shares_of(small.account_of(model, images), "0", "strides")
        assert low < strides < high


def test_cross_terms_of_an_addition(small):
    class Twice(nn.Module):
        def __init__(self, sign):
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 3, 1, bias=False), nn.Conv2d(3, 3, 1)
            self.sign = sign
            self.conv.weight.data = torch.eye(3)[..., None, None]

        def forward(self, x):
            return torch.relu(self.last(self.sign * x + self.conv(torch.sin(x))))

    images = small.photographs(24) / 10
    for sign in (1.0, -1.0):
        account = small.account_of(Twice(sign), images)
        (cross,) = small.shares_of(account, "network add", "additions", "cross terms")
        (apart,) = small.shares_of(account, "network add", "additions", "independent")
        assert abs(apart) < 0.2
        # sin(x) is x but for what is not linear, of which the difference is made.
        assert (abs(cross) < 0.1) if sign > 0 else (cross < -0.1)


def test_every_share_has_a_row_and_an_interval(residual):
    frame = residual.frame
    assert len(frame) == len(residual.shares)
    assert np.isfinite(frame[["share", "low", "high"]].to_numpy()).all()
    assert (frame.low <= frame.share).all()
    assert (frame.share <= frame.high).all()
    by_step = frame.groupby("step", sort=False)
    change = by_step["after"].first() - by_step["before"].first()
    assert np.allclose(by_step["share"].sum(), change)
    assert frame[frame.step == "bn1"].layer.tolist() == ["conv2"]
    assert frame[frame.step == "short"].trunk.tolist() == [False] * 4
    assert frame.cause[frame.step == "short"].tolist() == [
        "kernels", "strides", "borders", "correlations"
    ]  # fmt: skip


def test_the_sentence_names_the_largest_causes_first(residual):
    sentence = residual.sentence()
    assert sentence.startswith("From ")
    assert sentence.endswith(".")
    named = [float(word.replace("\N{MINUS SIGN}", "-").strip(",.")) for word in sentence.split()
             if word[0] in "+\N{MINUS SIGN}" and len(word) > 2]  # fmt: skip
    rest = named.pop() if "the rest" in sentence else 0.0
    assert [abs(value) for value in named] == sorted(map(abs, named), reverse=True)
    before, after = residual.ends
    assert sum(named) + rest == pytest.approx(after - before, abs=0.05)


def test_another_band_gives_another_account(residual):
    narrow = Account(residual.spectra, natstats.FitOptions(band=(0.1, 0.4)))
    assert narrow.ends[1] != pytest.approx(residual.ends[1], abs=1e-3)
    before, after = narrow.ends
    assert narrow.totals["share"].sum() == pytest.approx(after - before, abs=1e-9)


@pytest.mark.parametrize(
    "options", [{"estimator": "whittle"}, {"normalize": True}, {"estimator": "ols"}]
)
def test_accounts_are_fitted_as_the_layers_are(residual, options):
    account = Account(residual.spectra, natstats.FitOptions(**options))
    before, after = account.ends
    assert np.isfinite([before, after]).all()
    assert account.totals["share"].sum() == pytest.approx(after - before, abs=1e-9)


def test_too_few_images_leave_no_account(small):
    account = small.account_of(small.Residual(), small.photographs(2))
    assert not account.steps
    assert account.frame.empty
    assert account.totals.empty
    assert "no way from the images" in account.sentence()


def test_a_run_keeps_its_account(small, tmp_path):
    images = small.photographs(24).numpy()
    run = natstats.measure(small.Residual(), images, explain=True, control="random-weights")
    run.save(tmp_path / "run", report=False)
    again = natstats.Run.open(tmp_path / "run")
    assert np.allclose(again.account.shares.value, run.account.shares.value, atol=1e-5)
    assert again.account.frame.step.tolist() == run.account.frame.step.tolist()
    assert all(one.account is not None for one in again.random_weights)
    assert run.info["options"]["explain"] is True
    again.save(tmp_path / "again", report=False)
    assert (tmp_path / "again" / "account.csv").is_file()


def test_a_run_without_an_account_has_none(small):
    run = natstats.measure(small.Residual(), small.photographs(8).numpy())
    assert run.account is None
    assert "explain" not in run.info["options"]
