"""Do the intervals of an account cover? By simulation on a network with known kernels.

A small network whose weights are drawn once: convolutions with low-pass and other kernels, batch
norms, rectifiers, a stride, a shortcut. Its images are Gaussian fields of a power law, of contrasts
that differ as those of photographs do. What its shares are for ever more images is measured once,
on very many; then again and again on few, and it is counted how often the interval holds that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from study import circumstances
from torch import Tensor, nn

import natstats
from natstats.activations.trace import trace_calls
from natstats.runs.store import to_json
from natstats.theory.account import Account
from natstats.theory.account_pass import AccountPass

RESULT = Path(__file__).parent / "results" / "theory_coverage.json"
SIDE, N_IMAGES, N_TRUE, REPEATS = 32, 128, 16384, 300
CONTRAST = 0.4
"""Standard deviation of the log amplitude of an image: that of photographs; images of CIFAR-10 have
0.34."""


class Known(nn.Module):
    """Five convolutions, the third with a stride, the last two in a branch with a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        smooth = torch.tensor([1.0, 2.0, 1.0])
        low = torch.outer(smooth, smooth) / 4

        def conv(n_in: int, n_out: int, stride: int, share: float) -> nn.Conv2d:
            made = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
            noise = torch.randn(n_out, n_in, 3, 3, generator=generator)
            mix = torch.randn(n_out, n_in, 1, 1, generator=generator)
            made.weight.data = (share * low * mix + (1 - share) * noise) / (3 * n_in) ** 0.5
            return made

        def norm(n: int) -> nn.BatchNorm2d:
            made = nn.BatchNorm2d(n)
            made.bias.data = torch.randn(n, generator=generator) / 2
            made.weight.data = 0.5 + torch.rand(n, generator=generator)
            return made

        self.first = nn.Sequential(conv(1, 8, 1, 0.3), norm(8), nn.ReLU())
        self.second = nn.Sequential(conv(8, 8, 1, 0.6), norm(8), nn.ReLU())
        self.third = nn.Sequential(conv(8, 12, 2, 0.6), norm(12), nn.ReLU())
        self.branch = nn.Sequential(
            conv(12, 12, 1, 0.8), norm(12), nn.SiLU(), conv(12, 12, 1, 0.8), norm(12)
        )
        self.last = conv(12, 12, 1, 0.8)

    def forward(self, x: Tensor) -> Tensor:
        """Maps of 16 x 16 pixels from images (N, 1, 32, 32)."""
        x = self.third(self.second(self.first(x)))
        return torch.relu(self.last(torch.relu(x + self.branch(x))))


def images(n: int, seed: int) -> Tensor:
    """Fields of a power law with contrasts of their own, (n, 1, SIDE, SIDE)."""
    fields = natstats.power_law_fields(n, SIDE, SIDE, alpha=2.2, seed=seed)
    amplitude = np.exp(CONTRAST * np.random.default_rng(seed).standard_normal(n))
    fields = fields / fields.std() * amplitude[:, None, None]
    return torch.from_numpy(fields[:, None]).float()


def settled(model: nn.Module) -> nn.Module:
    """The network with the statistics of its batch norms."""
    norms = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
    for one in norms:
        one.momentum = None  # type: ignore[assignment]
    with torch.no_grad():
        model.train()(images(1024, 10**6))
    return model.eval()


def account_of(model: nn.Module, n: int, seed: int, every: int) -> Account:
    """The account of the network on `n` images."""
    first = (images(1, 0),)
    account = AccountPass(model, first, trace_calls(model, first), n_groups=128, every=every)
    with account:
        for start in range(0, n, 512):
            model(images(min(512, n - start), seed + start))
    return Account(account.compute(), natstats.FitOptions())


def names_of(account: Account) -> list[str]:
    """Names of the shares: step, cause and part."""
    return [
        f"{account.steps[one.step].name}: {one.cause} {one.part}".strip()
        for one in account.shares.list
    ]


@click.command()
@click.option("--repeats", default=REPEATS, show_default=True)
@click.option("--images", "n_images", default=N_IMAGES, show_default=True)
@click.option("--every", default=8, show_default=True, help="predict what is costly from one in so")
def coverage(repeats: int, n_images: int, every: int) -> None:
    """Coverage of the intervals of shares and totals, by simulation."""
    model = settled(Known())
    true = account_of(model, N_TRUE, 2 * 10**6, 1)
    names = names_of(true)
    moving = [place for place, one in enumerate(true.shares.list) if one.groups.any() or
              one.blocks.any()]  # fmt: skip
    inside, known = np.zeros(len(moving)), np.zeros(len(moving))
    totals = dict.fromkeys(true.totals.cause, 0)
    truth = true.totals.set_index("cause")["share"]
    whole = 0
    for repeat in range(repeats):
        own = account_of(model, n_images, 1000 * repeat, every)
        each = dict(zip(names_of(own), own.shares.each(), strict=True))
        for place, p in enumerate(moving):
            found = each.get(names[p])
            # With few images a step is not parted now and then: it has no such share.
            known[place] += found is not None
            if found is not None:
                inside[place] += found.low <= true.shares.value[p] <= found.high
        for row in own.totals.itertuples():
            totals[row.cause] += row.low <= truth[row.cause] <= row.high
        whole += own.change.low <= true.change.value <= own.change.high
        if repeat % 50 == 49:
            print(f"{repeat + 1}: shares {inside.sum() / known.sum():.3f}", flush=True)
    record: dict[str, Any] = {
        "command": f"python analyses/theory.py coverage --repeats {repeats} "
        f"--images {n_images} --every {every}",
        **circumstances(),
        "repeats": repeats,
        "n_images": n_images,
        "all_shares": float(inside.sum() / known.sum()),
        "missing": float(1 - known.mean() / repeats),
        "shares": {
            names[p]: {"true": float(true.shares.value[p]), "coverage": float(n / k)}
            for p, n, k in zip(moving, inside, known, strict=True)
        },
        "totals": {cause: n / repeats for cause, n in totals.items()},
        "change": whole / repeats,
    }
    print(f"all shares {record['all_shares']:.3f}, the change {record['change']:.3f}")
    for name, value in record["totals"].items():
        print(f"{name}: {value:.3f}")
    RESULT.write_text(json.dumps(json.loads(to_json(record)), indent=0) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    coverage()
