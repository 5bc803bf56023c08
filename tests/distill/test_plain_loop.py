"""The plain loop of PyTorch that speed is compared with: the same work, to the same weights."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

from plain_loop import compare_loops

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("method", ["kd", "kd+spectral", "kd+at", "kd+ffl"])
def test_both_loops_come_to_the_same_weights(method):
    """With whatever is trained beside the student, which a plain loop must train too."""
    torch.manual_seed(0)
    found = compare_loops(
        method, "cifar_resnet8", "cifar_resnet14", size=16, batch=8, rounds=2, steps=2, n_classes=3
    )
    assert found["largest_difference"] < 1e-6
    assert found["natstats_images_per_second"] > 0
