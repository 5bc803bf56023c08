"""Spectra on CUDA are those of the CPU, whatever precision the network around them has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from natstats.spectra.accumulator import SpectrumAccumulator, power_spectrum
from natstats.spectra.collector import Collector
from natstats.spectra.edges import EDGES

pytestmark = [pytest.mark.gpu, pytest.mark.slow]


def drawn(*shape):
    maps = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return maps.cumsum(-1).cumsum(-2) / 10 + 1


def summed(maps):
    accumulator = SpectrumAccumulator(*maps.shape[2:], n_groups=4, device=maps.device)
    accumulator.update(maps)
    return accumulator.compute()


def assert_same(mine, other, rtol=1e-4):
    np.testing.assert_array_equal(mine.count, other.count)
    for name in ("power", "normalized", "offset", "image_power"):
        one, its = getattr(mine, name), getattr(other, name)
        np.testing.assert_allclose(one, its, rtol=rtol, atol=1e-7 * np.nanmax(its), err_msg=name)


@pytest.mark.parametrize("edges", EDGES)
@pytest.mark.parametrize("side", [8, 20, 40, 113])
def test_every_way_of_the_transform(edges, side):
    maps = drawn(5, 3, side, side + 1)
    mine = power_spectrum(maps.cuda(), edges).cpu()
    torch.testing.assert_close(mine, power_spectrum(maps, edges), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("side", [8, 20, 40])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_precision_is_lost_within_autocast_and_with_tf32(side, dtype):
    """Power beyond 65504, which float16 does not hold, included."""
    maps = 100 * drawn(5, 3, side, side)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with torch.autocast("cuda", dtype):
            mine = summed(maps.cuda())
    finally:
        torch.set_float32_matmul_precision(before)
    assert_same(mine, summed(maps))


def test_parts_of_both_devices_add_up():
    maps, index = drawn(12, 4, 24, 24), torch.arange(12)

    def part(device, some):
        made = SpectrumAccumulator(24, 24, n_groups=4, device=device)
        made.update(maps[some].to(device), index[some])
        return made

    whole = part("cpu", slice(0, 12)).compute()
    first, second = slice(0, 5), slice(5, 12)
    assert_same(part("cpu", first).merge(part("cuda", second)).compute(), whole)
    assert_same(part("cuda", first).merge(part("cpu", second)).compute(), whole)
    again = SpectrumAccumulator.from_state_dict(part("cuda", first).state_dict(), "cpu")
    again.update(maps[second], index[second])
    assert_same(again.compute(), whole)


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_collector_on_cuda(form):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, 2)).double().eval()
    images = drawn(8, 3, 33, 30).double()

    def measured(device):
        own = model.to(device, memory_format=form)
        with Collector(own) as collector, torch.inference_mode():
            for batch in images.to(device, memory_format=form).split(3):
                own(batch)
        return collector.compute()

    there, here = measured("cuda"), measured("cpu")
    assert [one.layer for one in there] == [one.layer for one in here]
    for mine, other in zip(there, here, strict=True):
        assert_same(mine.spectrum, other.spectrum)


def test_no_memory_is_kept_beside_the_sums():
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).cuda().eval()
    images = torch.randn(32, 3, 64, 64, device="cuda")
    with Collector(model) as collector, torch.inference_mode():
        for _ in range(8):
            model(images)
        collector.compute()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        for _ in range(32):
            model(images)
        collector.compute()
        torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 1 << 20
