"""The network whose checkpoints make the series that are tested."""

from __future__ import annotations

import torch
from torch import nn

N_LAYERS = 6


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1) for i in range(N_LAYERS))
    ).eval()


def between(share):
    """Weights on the way from one random network to another."""
    first, last = (network(seed).state_dict() for seed in (0, 1))
    return {name: (1 - share) * first[name] + share * last[name] for name in first}
