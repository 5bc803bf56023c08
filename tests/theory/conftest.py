"""Small networks whose accounts are looked at."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import natstats
from natstats.activations.trace import trace_calls
from natstats.theory.account import Account
from natstats.theory.account_pass import AccountPass


class Residual(nn.Module):
    """Two blocks with shortcuts, the second with a stride and a convolution on the shortcut."""

    def __init__(self, channels=6):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv3 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.short = nn.Conv2d(channels, channels, 1, stride=2)

    def forward(self, x: Tensor):
        x = self.stem(x)
        x = x + self.conv2(self.relu(self.bn1(self.conv1(x))))
        x = self.relu(x)
        return torch.relu(self.conv3(x) + self.short(x))


def photographs(n=24, side=32, channels=3, alpha=2.0, seed=0):
    """Coloured fields of the power of photographs, (n, channels, side, side)."""
    fields = natstats.power_law_fields(n * channels, side, side, alpha=alpha, seed=seed)
    return torch.from_numpy(fields).float().view(n, channels, side, side)


def passed(model, images, batch=8, numbers=None, **settings):
    """The spectra of an account."""
    model.eval()
    first = (images[:1],)
    account = AccountPass(model, first, trace_calls(model, first), **settings)
    with account:
        for start in range(0, len(images), batch):
            if numbers is not None:
                account.number_images(numbers[start : start + batch])
            model(images[start : start + batch])
    return account.compute()


def account_of(model, images, **settings):
    return Account(passed(model, images, **settings), natstats.FitOptions())


def shares_of(account, step, cause, part=None):
    """The shares of a step that are put down to a cause."""
    return [
        one.value
        for one in account.shares.list
        if account.steps[one.step].name == step and one.cause == cause and part in (None, one.part)
    ]


@pytest.fixture(scope="session")
def small():
    """Everything above."""
    return SimpleNamespace(
        Residual=Residual,
        photographs=photographs,
        passed=passed,
        account_of=account_of,
        shares_of=shares_of,
    )
