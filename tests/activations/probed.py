"""Networks of patches, in many orders, and what a collector makes of them."""

import torch
from torch import nn

from natstats import Collector, power_law_fields


def images(height, width=None, n=6, alpha=2.0):
    fields = power_law_fields(3 * n, height, width or height, alpha=alpha, seed=3)
    return torch.tensor(fields.reshape(n, 3, height, -1), dtype=torch.float32)


def collected(model, batch, layers="weight", **settings):
    torch.manual_seed(0)
    with torch.no_grad(), Collector(model.eval(), layers, **settings) as collector:
        model(batch)
    measured = {m.layer.name: m for m in collector.compute()}
    reasons = {layer.name: layer.reason for layer in collector.skipped}
    return measured, reasons, collector


def power_of(maps):
    """Ring power of maps (N, C, H, W), measured as the only layer of a network."""
    model = nn.Sequential(nn.Identity())
    (measured,) = collected(model, maps, "0")[0].values()
    return measured.spectrum.power.sum(0)


class Tokens(nn.Module):
    """Patches as tokens, then what `order` makes of them, mixed by linear layers, or a block.

    Args:
        order: called with the tokens (N, L, C) and the grid.
        side: of a patch, pixels.
    """

    def __init__(self, order, side=8, n_channels=16):
        super().__init__()
        torch.manual_seed(1)
        self.embed = nn.Conv2d(3, n_channels, side, side)
        self.extra = nn.Parameter(torch.randn(1, 16, n_channels))
        self.norm = nn.LayerNorm(n_channels)
        self.attend = nn.MultiheadAttention(n_channels, 2, batch_first=True)
        self.first = nn.Linear(n_channels, 2 * n_channels)
        self.second = nn.Linear(2 * n_channels, n_channels)
        self.order = order

    def forward(self, x):
        maps = self.embed(x)
        tokens = self.order(maps.flatten(2).transpose(1, 2), maps.shape[2:], self)
        normed = self.norm(tokens)
        tokens = tokens + self.attend(normed, normed, normed, need_weights=False)[0]
        return tokens + self.second(torch.relu(self.first(self.norm(tokens))))


def around(before, behind):
    """Registers before and behind the patches."""

    def order(tokens, grid, model):
        extra = model.extra[:, : before + behind].expand(len(tokens), -1, -1)
        return torch.cat([extra[:, :before], tokens, extra[:, before:]], 1)

    return order


def amid(place, n):
    """Registers after `place` patches."""

    def order(tokens, grid, model):
        extra = model.extra[:, :n].expand(len(tokens), -1, -1)
        return torch.cat([tokens[:, :place], extra, tokens[:, place:]], 1)

    return order


def shuffled(tokens, grid, model):
    return tokens[:, torch.randperm(tokens.shape[1], generator=torch.Generator().manual_seed(5))]


def nested(n_levels):
    """The order of Hiera's tokens, as its unrolling makes it: the axis of each 2 moves forward."""

    def order(tokens, grid, model):
        n, _, channels = tokens.shape
        maps, size = tokens.reshape(n, *grid, channels), grid
        for _ in range(n_levels):
            size = (size[0] // 2, size[1] // 2)
            maps = maps.reshape(-1, size[0], 2, size[1], 2, channels)
            maps = maps.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        # Of each image, its parts stand together: (n, 4^levels, ...) after the flattening.
        return maps.reshape(n, -1, channels)

    return order


class Windowed(nn.Module):
    """A linear layer, or a 1 x 1 convolution, in windows that are filled up, shifted or spread."""

    def __init__(self, size, shift=0, is_grid=False, conv=False, flat=True, side=4):
        super().__init__()
        torch.manual_seed(3)
        self.embed = nn.Conv2d(3, 12, side, side)
        self.mix = nn.Conv2d(12, 12, 1) if conv else nn.Linear(12, 12)
        self.size, self.shift, self.is_grid, self.flat = size, shift, is_grid, flat

    def forward(self, x):
        maps = self.embed(x)
        n, channels, height, width = maps.shape
        s = self.size
        maps = nn.functional.pad(maps, (0, -width % s, 0, -height % s))
        maps = torch.roll(maps, (-self.shift, -self.shift), (2, 3))
        rows, columns = maps.shape[2] // s, maps.shape[3] // s
        if self.is_grid:
            cut = maps.reshape(n, channels, s, rows, s, columns).permute(0, 3, 5, 1, 2, 4)
        else:
            cut = maps.reshape(n, channels, rows, s, columns, s).permute(0, 2, 4, 1, 3, 5)
        cut = cut.reshape(-1, channels, s, s)
        if not isinstance(self.mix, nn.Conv2d):
            cut = cut.movedim(1, -1)
            cut = cut.flatten(1, 2) if self.flat else cut
        return self.mix(cut)
