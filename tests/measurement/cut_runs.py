"""A small network, and measurements that end in their midst."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

N_PHOTOS = 40

# Measurements of one pass, and of several.
OPTIONS = {
    "plain": {},
    "control": {"control": "random-weights", "control_seeds": 2},
    "explain": {"explain": True, "counterfactual": "shuffle-kernels"},
}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ReLU()
    ).eval()


class CutError(Exception):
    """Ends a measurement in its midst."""


def cut_after(n_images: int, total: int | None = None) -> Callable[[int, int], None]:
    """Progress that ends a measurement; `total` is how many images it must be told of, if given."""

    def progress(done: int, of: int) -> None:
        assert total in (None, of)
        if done >= n_images:
            raise CutError

    return progress
