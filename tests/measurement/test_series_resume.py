"""A series that was cut goes on inside the checkpoint that was being measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from natstats.files.ownership import STATE, is_reserved
from tests.measurement.cut_runs import CutError, cut_after

pytestmark = pytest.mark.usefixtures("quick")


def test_a_series_goes_on_inside_a_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3)).eval()
    for epoch in (1, 2, 3):
        torch.save(model.state_dict(), tmp_path / f"epoch_{epoch}.pth")
        nn.init.normal_(model[0].weight)
    images = torch.rand(30, 1, 16, 16)
    given = (model, f"{tmp_path}/epoch_*.pth", images)
    settings = {"batch_size": 4, "save_every": 0.0}
    whole = natstats.measure_series(*given, out=tmp_path / "whole", **settings)
    for stop, name in ((13, "epoch_1"), (50, "epoch_2")):
        with pytest.raises(CutError):
            natstats.measure_series(
                *given, out=tmp_path / "cut", progress=cut_after(stop), **settings
            )
        assert is_reserved(tmp_path / "cut" / name)
    seen: list[int] = []
    series = natstats.measure_series(
        *given, out=tmp_path / "cut", progress=lambda done, _: seen.append(done), **settings
    )
    # Two runs are left: of the first of them, what was measured counts.
    assert seen[0] > 12
    for one, other in zip(series.runs, whole.runs, strict=True):
        for mine, theirs in zip(one.spectra, other.spectra, strict=True):
            np.testing.assert_array_equal(mine.spectrum.power, theirs.spectrum.power)
    assert not list((tmp_path / "cut").rglob(STATE))
