"""Windows and blocks: they are put together to maps, or refused.

The right values are those of the same maps, put together by plain torch.
"""

import numpy as np
import pytest
import torch
from torch import nn

from natstats import Collector
from tests.activations.probed import (
    Tokens,
    Windowed,
    collected,
    images,
    nested,
    power_of,
)

WINDOWS = [
    (Windowed(7), 112),
    (Windowed(7), 96),  # 24 x 24 is filled up to 28 x 28
    (Windowed(7, shift=3), 112),
    (Windowed(7, shift=3), 192),
    (Windowed(6, shift=3, flat=False), 96),
    (Windowed(7, is_grid=True, flat=False), 112),
    (Windowed(8, is_grid=True), 96),
    (Windowed(7, conv=True), 112),
    (Windowed(6, shift=3, conv=True), 120),
]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "side"), WINDOWS)
def test_windows_are_put_together_or_refused(model, side):
    """Whichever: never is a window taken for a map."""
    batch = images(side)
    measured, reasons, _ = collected(model, batch)
    with torch.no_grad():
        maps = model.embed(batch)
        as_conv = model.mix if isinstance(model.mix, nn.Conv2d) else None
        mixed = (
            as_conv(maps) if as_conv is not None else model.mix(maps.movedim(1, -1)).movedim(-1, 1)
        )
    assert measured["mix"].layer.layout == "windows"
    assert not reasons
    np.testing.assert_allclose(measured["mix"].spectrum.power.sum(0), power_of(mixed), rtol=1e-4)


class Blocks(nn.Module):
    """Blocks of 16 pixels, in a row each, (N, 16 blocks, 16 pixels, C): no rows and columns."""

    def __init__(self, module):
        super().__init__()
        torch.manual_seed(4)
        self.embed = nn.Conv2d(3, 24, 4, 4)
        self.mix = module

    def forward(self, x):
        maps = self.embed(x)
        n, channels = maps.shape[:2]
        tiles = maps.reshape(n, channels, 4, 4, 4, 4).permute(0, 2, 4, 3, 5, 1)
        return self.mix(tiles.reshape(n, 16, 16, channels))


@pytest.mark.slow
@pytest.mark.parametrize("module", [nn.Linear(24, 8), nn.LayerNorm(24), nn.GELU()])
def test_blocks_in_a_row_are_not_rows_of_pixels(module):
    model, batch = Blocks(module), images(64)
    measured, reasons, _ = collected(model, batch, "embed,mix")
    if "mix" in measured:  # read as windows
        with torch.no_grad():
            mixed = module(model.embed(batch).movedim(1, -1)).movedim(-1, 1)
        np.testing.assert_allclose(
            measured["mix"].spectrum.power.sum(0), power_of(mixed), rtol=1e-4
        )
    else:
        assert "answers in the wrong place" in reasons["mix"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "name", "sides"),
    [
        (Tokens(nested(1)), "first", (64, 96)),
        (Windowed(8), "mix", (64, 128)),  # 4 windows, then 16
        (Windowed(7), "mix", (112, 128)),  # 16 windows, then 25
        (Windowed(8, shift=4, flat=False), "mix", (112, 128)),  # 16 windows of either
    ],
)
def test_what_was_proved_for_one_size_is_not_taken_for_another(model, name, sides):
    with torch.no_grad(), Collector(model.eval()) as collector:
        model(images(sides[0], n=4))
        model(images(sides[1], n=2))
    (found,) = (m for m in collector.compute() if m.layer.name == name)
    assert found.spectrum.n_images == 4
    (reason,) = (s.reason for s in collector.skipped if s.name == name)
    assert "only are known" in reason


def test_filled_up_windows_are_no_tokens_before_a_map():
    """8 x 8 in 2 x 2 windows of 7 x 7, which read like 13 tokens and 6 x 6 for images of 240."""
    from natstats.activations.layout_rules import LayoutRules

    model = nn.Sequential(nn.Conv2d(3, 8, 30, 30), nn.Linear(8, 8))
    rules = LayoutRules(model)
    rules.start([torch.zeros(1, 3, 240, 240)], 1)
    rules.find("0", torch.zeros(1, 8, 8, 8))
    rules.find("0", torch.zeros(1, 8, 60, 60))
    reason = rules.find("1", torch.zeros(4, 49, 8))
    assert "pieces of 7x7 of a map of 8x8" in str(reason)
