"""A small network that is collected from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.spectra.small_networks import Twice


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Twice().eval()
