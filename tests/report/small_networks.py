"""Small networks that are drawn and accounted for, and their images."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from natstats import power_law_fields


def network() -> nn.Sequential:
    """Seven layers of three kinds at three sizes; the fifth gives constant maps."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 6, 1),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        nn.Conv2d(6, 6, 1),
        nn.Conv2d(6, 6, 3, padding=1),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
    )
    # The sixth layer sees its constant input through a border of zeros, and so has a spectrum.
    with torch.no_grad():
        model[4].weight.zero_()
        model[4].bias.fill_(1.0)
    return model.eval()


class Small(nn.Module):
    """Convolutions of every sort, norms, rectifiers and an addition."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU())
        self.deep = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.wide = nn.Conv2d(6, 6, 1)
        self.down = nn.Conv2d(6, 6, 3, stride=2, padding=1)
        self.last = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.first(images)
        maps = maps + self.wide(torch.relu(self.deep(maps)))
        return self.last(torch.relu(self.down(maps)))


def images(n: int) -> np.ndarray:
    """Fields of the power of photographs with a little noise, (n, 3, 32, 32)."""
    fields = power_law_fields(n, 32, 32, alpha=2.0, seed=1)
    noise = np.random.default_rng(0).standard_normal((n, 3, 32, 32))
    return np.float32(fields[:, None] + 0.1 * noise)
