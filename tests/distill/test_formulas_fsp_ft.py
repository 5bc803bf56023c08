"""FSP and factor transfer against their formulas, in loops over numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from natstats.distill.losses import fsp, ft
from natstats.distill.losses.connectors import (
    Paraphraser,
    translator,
)
from natstats.distill.losses.maps import pooled
from natstats.errors import UsageError
from tests.distill.loss_inputs import (
    LABELS,
    attention,
    close,
    maps,
    outputs,
    positions,
    setting,
)

# FSP


def flow(first, last):
    m, n = first.shape[0], last.shape[0]
    H, W = first.shape[1:]
    G = np.zeros((m, n))
    for i, j, y, x in itertools.product(range(m), range(n), range(H), range(W)):
        G[i, j] += float(first[i, y, x] * last[j, y, x]) / (H * W)
    return G


def test_flow():
    first, last, first_teacher, last_teacher = (
        maps(c, 4, 5, seed=c + s) for s, c in ((0, 3), (0, 2), (9, 3), (9, 2))
    )
    squared = sum(
        ((flow(first[n], last[n]) - flow(first_teacher[n], last_teacher[n])) ** 2).sum()
        for n in range(3)
    )
    both = outputs(first, last), outputs(first_teacher, last_teacher)
    close(fsp.FlowMatching()(*both, LABELS), squared / 3)
    close(fsp.FlowMatching("crd")(*both, LABELS), squared / (3 * 3 * 2))
    assert fsp.FlowMatching()(both[0], both[0], LABELS) == 0.0
    twice = [outputs(*(each.maps * 2)) for each in both]
    close(fsp.FlowMatching()(*twice, LABELS), 2 * squared / 3)


def test_flow_takes_maxima_where_sizes_differ():
    first, last = maps(3, 4, 6), maps(2, 2, 3, seed=1)
    small = torch.zeros(3, 3, 2, 3)
    for n, c, y, x in positions(small):
        small[n, c, y, x] = first[n, c, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max()
    torch.testing.assert_close(fsp.flow_matrix(first, last), fsp.flow_matrix(small, last))
    averaged = first.unflatten(3, (3, 2)).unflatten(2, (2, 2)).mean((3, 5))
    torch.testing.assert_close(
        fsp.flow_matrix(first, last, "average"), fsp.flow_matrix(averaged, last)
    )


def test_flow_knows_no_order_and_grows_with_the_fourth_power():
    given = [maps(c, 4, 4, seed=s) for s, c in enumerate((3, 2, 3, 2))]
    value = fsp.FlowMatching()(outputs(*given[:2]), outputs(*given[2:]), LABELS)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    moved = [each.flatten(2)[..., order].unflatten(2, (4, 4)) for each in given[:2]]
    again = fsp.FlowMatching()(outputs(*moved), outputs(*given[2:]), LABELS)
    torch.testing.assert_close(again, value)
    scaled = [2.0 * each for each in given]
    again = fsp.FlowMatching()(outputs(*scaled[:2]), outputs(*scaled[2:]), LABELS)
    torch.testing.assert_close(again, 16.0 * value)


def test_flow_refuses_unequal_channels_and_half_sections():
    taps = [(4, 8, 8), (4, 8, 8)], [(4, 8, 8), (6, 8, 8)]
    with pytest.raises(UsageError, match=r"fsp: expected equal .*; got s1 \(4\) and t1 \(6\)$"):
        fsp.METHOD.plan(setting(fsp.METHOD, *taps))
    with pytest.raises(UsageError, match=r"got flow matrices of 4 x 4 .* and 4 x 6"):
        fsp.FlowMatching()(
            outputs(maps(4, 2, 2), maps(4, 2, 2)), outputs(maps(4, 2, 2), maps(6, 2, 2)), LABELS
        )
    with pytest.raises(UsageError, match="fsp: expected first and last map .*; got 1 maps"):
        fsp.FlowMatching()(outputs(maps(4, 2, 2)), outputs(maps(4, 2, 2)), LABELS)


def test_flow_is_matched_before_and_not_in_the_main_stage():
    plan = fsp.METHOD.plan(setting(fsp.METHOD, *([(4, 8, 8), (4, 8, 8)],) * 2))
    assert plan.terms == ()
    (stage,) = plan.before
    assert (stage.trains, stage.learning_rate) == ("student", 0.01)


# Factor transfer


def test_factors():
    one, other = maps(4, 2, 3), maps(4, 2, 3, seed=1)
    total = 0.0
    for n in range(3):
        norms = [math.sqrt(sum(float(v) ** 2 for v in each[n].flatten())) for each in (one, other)]
        for index in positions(one[n]):
            total += abs(float(one[n][index]) / norms[0] - float(other[n][index]) / norms[1])
    close(ft.factor_loss(one, other), total / (3 * 4 * 2 * 3))
    total = sum(np.abs(attention(one[n]) - attention(other[n])).sum() for n in range(3))
    close(ft.factor_loss(one, other, "crd"), total / (3 * 2 * 3))


def test_factors_have_no_scale_but_an_order_of_channels():
    one, other = maps(4, 2, 3), maps(4, 2, 3, seed=1)
    value = ft.factor_loss(one, other)
    torch.testing.assert_close(ft.factor_loss(9.0 * one, 0.1 * other), value)
    order = [1, 2, 3, 0]
    assert ft.factor_loss(one, one[:, order]) > 0.01
    # The form of the benchmark does not see the channels, as the reference measured.
    assert ft.factor_loss(one, one[:, order], "crd") < 1e-6


def test_reconstruction():
    one, other = maps(4, 2, 3), maps(4, 2, 3, seed=1)
    differences = [float(one[i] - other[i]) for i in positions(one)]
    close(ft.reconstruction_loss(one, other), sum(map(abs, differences)) / len(differences))
    squared = sum(d * d for d in differences) / len(differences)
    close(ft.reconstruction_loss(one, other, "paper"), squared)


def test_the_paraphraser_is_trained_before_and_kept_after():
    plan = ft.METHOD.plan(setting(ft.METHOD, [(4, 4, 4)], [(6, 8, 8)]))
    before, (term,) = plan.before[0], plan.terms
    assert before.trains == "losses"
    paraphraser = before.terms[0].loss.paraphraser
    assert paraphraser.factors == 3
    frozen = set(paraphraser.parameters())
    assert frozen == set(before.terms[0].loss.parameters())
    assert not frozen & set(term.loss.parameters())
    assert not any("paraphraser" in name for name in term.loss.state_dict())
    student = outputs(maps(4, 4, 4).requires_grad_())
    # The teacher's factor is twice as large, and pooled.
    term.loss(student, outputs(maps(6, 8, 8)), LABELS).backward()
    assert all(parameter.grad is None for parameter in frozen)
    assert student.maps[0].grad.abs().sum() > 0
    # It is the same one: what the first stage changes, the main stage sees.
    value = term.loss(student, outputs(maps(6, 8, 8)), LABELS)
    with torch.no_grad():
        for parameter in frozen:
            parameter.copy_(torch.randn_like(parameter))
    assert term.loss(student, outputs(maps(6, 8, 8)), LABELS) != value


def test_the_layers_of_factor_transfer():
    def channels(layers):
        return [(m.in_channels, m.out_channels) for m in layers if hasattr(m, "in_channels")]

    paraphraser = Paraphraser(8, rate=0.75)
    assert channels(paraphraser.encoder) == [(8, 8), (8, 6), (6, 6)]
    assert channels(paraphraser.decoder) == [(6, 6), (6, 8), (8, 8)]
    assert channels(translator(4, 6)) == [(4, 4), (4, 6), (6, 6)]
    assert Paraphraser(1).factors == 1
    assert not any(isinstance(module, nn.BatchNorm2d) for module in paraphraser.modules())
    with pytest.raises(UsageError, match=r"ft: expected maps of one shape .* 5, .* 6, "):
        loss = ft.FactorTransfer(paraphraser, translator(4, 5))
        loss(outputs(maps(4, 4, 4)), outputs(maps(8, 4, 4)), LABELS)


def test_pooling_wants_a_known_way():
    with pytest.raises(UsageError, match="how: expected one of average, max; got 'mean'"):
        pooled(maps(1, 2, 2), maps(1, 4, 4), "mean")
