"""Maps and settings that losses are given, and what is compared with their formulas."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from natstats.distill.method import Outputs, Setting, TapPoint

LABELS = torch.tensor([0, 1, 2])
LOGITS = torch.zeros(3, 4)


def maps(*shape, seed=0):
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))


def positions(array):
    return itertools.product(*(range(side) for side in array.shape))


def outputs(*given):
    return Outputs(LOGITS, tuple(given))


def close(value, expected):
    assert float(value.detach()) == pytest.approx(expected, rel=2e-5)


def setting(method, student, teacher, **arguments):
    """Student and teacher as (C, H, W, ...) each."""
    taps = [
        tuple(
            TapPoint(f"{who}{index}", *shape[:3], *shape[3:]) for index, shape in enumerate(shapes)
        )
        for who, shapes in (("s", student), ("t", teacher))
    ]
    return Setting(*taps, method.arguments(arguments))


def attention(image):
    """q of one image, (H, W), from its maps (C, H, W)."""
    H, W = image.shape[1:]
    A = np.zeros((H, W))
    for c, y, x in positions(image):
        A[y, x] += float(image[c, y, x]) ** 2
    return A / math.sqrt(sum(A[y, x] ** 2 for y in range(H) for x in range(W)))
