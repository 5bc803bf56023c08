"""The layout of every layer is proved by what a changed patch does, or it is refused.

The right values are those of the same maps, put together by plain torch.
"""

import math

import numpy as np
import pytest
import torch
from torch import nn

from natstats import Collector, power_law_fields
from natstats.activations.declared_layouts import parse_layouts
from natstats.activations.probe import PLACES, probe_layouts
from natstats.activations.trace import trace_calls


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


def kept(n):
    """A random part of the patches, another one in each pass, as in a masked autoencoder."""

    def order(tokens, grid, model):
        return tokens[:, torch.randperm(tokens.shape[1])[:n].sort().values]

    return order


def pooled_rows(tokens, grid, model):
    """Keys: the mean of every two rows, whose number is that of a smaller square map."""
    maps = tokens.reshape(len(tokens), *grid, -1)
    return maps.reshape(len(tokens), grid[0] // 4, 4, grid[1], -1).mean(2).flatten(1, 2)


def by_columns(tokens, grid, model):
    return tokens.reshape(len(tokens), *grid, -1).transpose(1, 2).flatten(1, 2)


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


RIGHT = [
    (around(0, 0), (64, 64), "NLC (8x8)"),
    (around(1, 0), (64, 64), "NLC (1 + 8x8)"),
    (around(5, 0), (64, 96), "NLC (5 + 8x12)"),
    (around(0, 1), (64, 64), "NLC (8x8 + 1)"),
    (around(0, 6), (40, 48), "NLC (5x6 + 6)"),
    (around(1, 4), (96, 64), "NLC (1 + 12x8 + 4)"),
    (around(2, 2), (128, 128), "NLC (2 + 16x16 + 2)"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("order", "size", "layout"), RIGHT)
def test_tokens_before_and_behind_the_map_are_found(order, size, layout):
    model, batch = Tokens(order), images(*size)
    measured, reasons, _ = collected(model, batch)
    assert not reasons
    for name in ("first", "second"):
        assert measured[name].layer.layout == layout
    # Right value: the same tokens, taken out and laid out by hand.
    with torch.no_grad():
        outputs = {}
        handle = model.first.register_forward_hook(lambda m, i, o: outputs.update(first=o))
        model(batch)
        handle.remove()
    height, width = size[0] // 8, size[1] // 8
    n_before = (
        int(layout[5 : layout.index(" +")])
        if "(" in layout and " + " in layout and (layout[5 : layout.index(" +")].isdigit())
        else 0
    )
    tokens = outputs["first"][:, n_before : n_before + height * width]
    maps = tokens.reshape(len(batch), height, width, -1).movedim(-1, 1)
    np.testing.assert_allclose(measured["first"].spectrum.power.sum(0), power_of(maps), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "size"),
    [
        (amid(32, 1), (64, 64)),  # a class token in the middle
        (amid(15, 6), (40, 48)),  # 6 + 30 tokens: a square, if one counts
        (amid(48, 4), (96, 64)),
        (shuffled, (64, 64)),
        (shuffled, (96, 128)),
        (kept(49), (112, 112)),
        (kept(36), (96, 96)),
        (pooled_rows, (128, 128)),
    ],
)
def test_tokens_that_are_no_map_are_refused(order, size):
    measured, reasons, _ = collected(Tokens(order), images(*size))
    assert set(measured) == {"embed"}
    for name in ("first", "second", "attend"):
        assert "answers in" in reasons[name] or "no known layout" in reasons[name]


@pytest.mark.slow
@pytest.mark.parametrize(("n_levels", "side"), [(1, 64), (2, 64), (3, 128)])
def test_tokens_in_the_order_of_pooling_are_read_in_it(n_levels, side):
    measured, reasons, _ = collected(Tokens(nested(n_levels)), images(side))
    plain = collected(Tokens(around(0, 0)), images(side))[0]
    assert not reasons
    for name in ("first", "second"):
        assert "listed" in measured[name].layer.layout
        np.testing.assert_allclose(
            measured[name].spectrum.power, plain[name].spectrum.power, rtol=1e-4
        )


@pytest.mark.slow
def test_tokens_by_columns_are_right_as_they_are():
    """The rings of a transposed map hold the same frequencies."""
    measured, reasons, _ = collected(Tokens(by_columns), images(64))
    plain = collected(Tokens(around(0, 0)), images(64))[0]
    assert not reasons
    np.testing.assert_allclose(
        measured["first"].spectrum.power, plain["first"].spectrum.power, rtol=1e-4
    )


class Queries(nn.Module):
    """A convolutional map, encoder tokens, and a set of learned queries that look at them."""

    def __init__(self, n_queries):
        super().__init__()
        torch.manual_seed(2)
        self.backbone = nn.Conv2d(3, 16, 8, 8)
        self.encode = nn.Linear(16, 16)
        self.queries = nn.Parameter(torch.randn(n_queries, 16))
        self.cross = nn.MultiheadAttention(16, 2, batch_first=True)
        self.decode = nn.Linear(16, 16)

    def forward(self, x):
        memory = self.backbone(x).flatten(2).transpose(1, 2)
        memory = memory + self.encode(memory)
        queries = self.queries.expand(len(x), -1, -1)
        queries = queries + self.cross(queries, memory, memory)[0]
        return queries + self.decode(queries)


@pytest.mark.slow
@pytest.mark.parametrize(("n_queries", "side"), [(100, 160), (64, 128), (49, 112), (144, 96 * 2)])
def test_a_set_of_queries_is_no_map(n_queries, side):
    measured, reasons, _ = collected(Queries(n_queries), images(side))
    assert {"backbone", "encode"} <= set(measured) <= {"backbone", "encode"}
    assert "answers in" in reasons["decode"]
    assert "answers in" in reasons["cross[0]"]
    assert "attention weights" in reasons["cross[1]"]


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


class Cube(nn.Module):
    """As many channels as rows and columns, in either place, through a module of either."""

    def __init__(self, is_last, n=16):
        super().__init__()
        torch.manual_seed(5)
        self.embed = nn.Conv2d(3, n, 4, 4)
        self.other = nn.Linear(n, n)
        self.act = nn.GELU()
        self.is_last = is_last

    def forward(self, x):
        maps = self.embed(x)
        last = self.other(maps.movedim(1, -1))
        return self.act(last if self.is_last else last.movedim(-1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("is_last", [True, False])
def test_cubes_are_settled_by_data(is_last):
    model, batch = Cube(is_last), images(64)
    measured, reasons, _ = collected(model, batch, "embed,other,act")
    assert not reasons
    assert measured["act"].layer.layout == ("NHWC" if is_last else "NCHW")
    with torch.no_grad():
        maps = model(batch)
    maps = maps.movedim(-1, 1) if is_last else maps
    np.testing.assert_allclose(measured["act"].spectrum.power.sum(0), power_of(maps), rtol=1e-4)


def by_turns(tokens, grid, model):
    """Every other row backwards, as networks of scans have it."""
    maps = tokens.reshape(len(tokens), *grid, -1).clone()
    maps[:, 1::2] = maps[:, 1::2].flip(2)
    return maps.flatten(1, 2)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(160, 160), (200, 200), (128, 128)])
def test_three_answers_in_place_are_no_proof_without_the_fourth(size):
    measured, reasons, _ = collected(Tokens(by_turns), images(*size, n=2))
    assert set(measured) == {"embed"}
    assert "answers in" in reasons["first"]


class Swapped(nn.Module):
    """Columns where the channels are looked for, and channels where the columns are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.embed, self.act = nn.Conv2d(3, 24, 4, 4), nn.GELU()

    def forward(self, x):
        return self.act(self.embed(x).permute(0, 3, 2, 1))


@pytest.mark.slow
def test_rows_alone_prove_nothing():
    measured, _, collector = collected(Swapped(), images(64, 96), "embed,act")
    assert "act" not in collector.probed.proved
    assert "act" not in measured or measured["act"].layer.layout.endswith("by rule")


@pytest.mark.slow
def test_layouts_are_by_rule_where_there_is_no_image_to_change():
    class Last(Tokens):
        def forward(self, x):
            return super().forward(x.movedim(-1, 1))

    measured, _, collector = collected(Last(around(1, 0)), images(64).movedim(1, -1))
    assert "no argument" in collector.probed.problem
    assert measured["first"].layer.layout == "NLC (1 + 8x8) by rule"
    assert measured["embed"].layer.layout == "NCHW"


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


class Noisy(nn.Module):
    """Its own generator, which no seed resets: every pass is another."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.Linear(8, 8)
        self.generator = np.random.default_rng(0)

    def forward(self, x):
        maps = self.embed(x)
        noise = torch.tensor(self.generator.normal(size=maps.shape), dtype=maps.dtype)
        return self.mix((maps + noise).flatten(2).transpose(1, 2))


@pytest.mark.slow
def test_a_network_left_to_chance_keeps_the_rules_and_says_so():
    measured, reasons, collector = collected(Noisy(), images(64))
    assert not reasons
    assert "different results" in collector.probed.problem
    assert measured["mix"].layer.layout == "NLC (16x16) by rule"
    assert measured["embed"].layer.layout == "NCHW"  # a convolution leaves no choice


@pytest.mark.slow
def test_without_the_probe_the_rules_are_taken_at_their_word():
    measured, _, collector = collected(Tokens(shuffled), images(64), probe=False)
    assert measured["first"].layer.layout == "NLC (8x8)"
    assert not collector.probed.proved


@pytest.mark.slow
@pytest.mark.parametrize(
    ("declared", "order", "size"),
    [
        ("NLC+0-2", around(0, 2), (64, 64)),
        ("NLC+3-1", around(3, 1), (64, 96)),
        ("NLC:0-14,21-35", amid(15, 6), (40, 48)),
        ("NLC:1-32,34-65", None, (64, 64)),
    ],
)
def test_token_places_can_be_declared(declared, order, size):
    def class_token_and_middle(tokens, grid, model):
        return around(1, 0)(amid(32, 1)(tokens, grid, model), grid, model)

    model, batch = Tokens(order or class_token_and_middle), images(*size)
    plain = collected(Tokens(around(0, 0)), batch, "norm")[0]
    measured, _, _ = collected(model, batch, "norm", layouts={"norm": declared})
    np.testing.assert_allclose(
        measured["norm"].spectrum.power, plain["norm"].spectrum.power, rtol=1e-4
    )


@pytest.mark.parametrize(
    "text", ["NLC+", "NLC-2", "NLC+1-", "NHWC+1", "NLC:", "NLC:3-", "NLC:1,1", "NLC:a", "NCHW:0-3"]
)
def test_a_declaration_that_says_nothing_is_refused(text):
    with pytest.raises(ValueError, match="layout of x: expected"):
        parse_layouts({"x": text})


@pytest.mark.slow
def test_listed_tokens_beyond_the_output_are_a_reason():
    model = Tokens(around(0, 0))
    _, reasons, _ = collected(model, images(64), layouts={"first": "NLC:0-48,70-84"})
    assert "token 84 of 64" in reasons["first"]


def test_the_probe_costs_five_passes_and_changes_nothing():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, padding=1)
            self.register_buffer("seen", torch.zeros(()))
            self.batches = []

        def forward(self, x):
            self.seen += len(x)
            self.batches.append(len(x))
            return self.conv(x)

    model, batch = Counted().train(), images(32)
    trace = trace_calls(model, (batch[:1],))
    before = batch.clone(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    model.batches.clear()
    probe_layouts(model, trace, ["conv"])
    assert model.batches == [1] * 5
    assert model.training
    assert model.seen == 0
    assert torch.equal(batch, before[0])
    assert torch.equal(torch.get_rng_state(), before[1])
    assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002


def test_no_place_turns_into_another_when_the_image_is_turned():
    for y, x in PLACES:
        assert not math.isclose(y, x)
        assert not math.isclose(y, 1 - x)
        for other in {(x, y), (1 - y, x), (y, 1 - x)}:
            assert min(math.dist(other, place) for place in PLACES) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("declared", "n_doubted"), [("NLC+4", 1), ("NLC+0-4", 0), ("NLC:0-9", 0)])
def test_a_declared_layout_is_taken_and_doubted_if_contradicted(declared, n_doubted):
    model = Tokens(around(0, 4))
    measured, reasons, collector = collected(
        model, images(96), "first", layouts={"first": declared}
    )
    assert ("first" in reasons) is (declared == "NLC:0-9")
    assert len(collector.probed.doubted) == n_doubted
    assert len(collector.probed.warnings()) == n_doubted
    if n_doubted:
        assert measured["first"].layer.layout == "NLC (4 + 12x12)"
        assert (
            "in another place than the layout says that was declared: first"
            in (collector.probed.warnings()[0])
        )


@pytest.mark.slow
@pytest.mark.parametrize(("side", "is_refused"), [(40, False), (56, False), (128, True)])
def test_a_convolution_on_a_few_points_may_answer_anywhere(side, is_refused):
    """As in the coarsest maps of detectors, where every point sees the whole image."""

    class Rolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.last = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            maps = self.embed(x)
            return self.last(torch.roll(maps, tuple(n // 2 for n in maps.shape[2:]), (2, 3)))

    measured, reasons, _ = collected(Rolled(), images(side))
    assert ("last" in reasons) is is_refused
    assert ("last" in measured) is not is_refused
