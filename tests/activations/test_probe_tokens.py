"""Tokens: which of them are a map is proved by what a changed patch does, or they are refused.

The right values are those of the same maps, put together by plain torch.
"""

import numpy as np
import pytest
import torch
from torch import nn

from natstats.activations.declared_layouts import parse_layouts
from tests.activations.probed import (
    Tokens,
    amid,
    around,
    collected,
    images,
    nested,
    power_of,
    shuffled,
)


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
