"""Images, and a network that calls one layer twice."""

from __future__ import annotations

import torch
from torch import nn

IMAGES = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Twice(nn.Module):
    """Calls one convolution twice, and has one that it never calls."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)
        self.unused = nn.Conv2d(6, 6, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        return self.shared(self.relu(self.shared(x)))
