"""What the account of every checkpoint of a training says, for analyses/training_series.py."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

import natstats
from natstats.networks.zoo import cifar_resnet20
from natstats.runs.store import to_json
from natstats.theory import Account, kernel_exponent

__all__ = ["LEVEL", "N_DRAWS", "accounts", "kernels"]

N_DRAWS = 200
"""Random networks whose kernels say how far the exponent of kernels is from 0 by chance."""

LEVEL = 0.95


def accounts(series: natstats.Series) -> list[dict[str, Any]]:
    """For every checkpoint the totals of its account, and the slope of the exponents by cause."""
    found = []
    for step, run in zip(series.frame.step, series.runs, strict=True):
        account, explanation = run.account, run.explanation
        assert account is not None
        assert explanation is not None
        row = {
            "step": int(step),
            "sentence": account.sentence(),
            "ends": account.ends,
            "totals": rounded(account.totals),
            "slopes": rounded(explanation.law.slopes.drop(columns="share")),
        }
        found.append(json.loads(to_json(row)))
    return found


def rounded(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table with six decimals; p as it is, for it may be small."""
    return frame.round(dict.fromkeys(frame.columns.drop("p"), 6)).to_dict("records")


def kernels(series: natstats.Series, classes: int) -> pd.DataFrame:
    """Exponents of the kernels alone: a row for every checkpoint and convolution.

    Columns: step, layer, depth, kernel_exponent, shuffled_exponent, share (what the kernels add to
    the exponent of the maps that come in), random_low and random_high (the range of the kernel
    exponent of :data:`N_DRAWS` random networks).
    """
    ranges: dict[str, tuple[float, float]] = {}
    rows = []
    for number, run in zip(series.frame.step, series.runs, strict=True):
        account = run.account
        assert account is not None
        ranges = ranges or random_ranges(account, classes)
        shares = account.frame[account.frame.cause == "kernels"].set_index("step").share
        for step in account.steps:
            if step.name in ranges:
                numbers = step.kernel_exponent, step.shuffled_exponent, shares[step.name]
                rows.append([int(number), step.name, step.depth, *numbers, *ranges[step.name]])
    columns = [
        "step", "layer", "depth", "kernel_exponent", "shuffled_exponent", "share", "random_low",
        "random_high",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).round(5)


def random_ranges(account: Account, classes: int) -> dict[str, tuple[float, float]]:
    """The middle :data:`LEVEL` of the kernel exponents of random networks, by layer."""
    sizes = {}
    for step in account.steps:
        if step.kind == "convolution":
            state = account.spectra.states[step.before]
            sizes[step.name] = state.height, state.width, state.edges
    drawn: dict[str, list[float]] = {name: [] for name in sizes}
    for seed in range(N_DRAWS):
        torch.manual_seed(seed + 1)  # the training has begun from seed 0
        for name, module in cifar_resnet20(num_classes=classes).named_modules():
            if name in sizes:
                assert isinstance(module, nn.Conv2d)
                drawn[name].append(kernel_exponent(module.weight.detach().numpy(), *sizes[name]))
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    return {name: tuple(np.quantile(values, ends).tolist()) for name, values in drawn.items()}
