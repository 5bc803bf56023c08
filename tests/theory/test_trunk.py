"""The way of the maps through a network."""

from __future__ import annotations

import torch
from torch import nn

from natstats.activations.graph import trace_graph
from natstats.activations.trace import trace_calls
from natstats.theory.trunk import plan_of_graph, plan_of_modules


def plan_of(model, side=32):
    images = (torch.rand(1, 3, side, side),)
    model.eval()
    return plan_of_graph(trace_graph(model, images), trace_calls(model, images))


def steps(plan):
    return [(one.kind, plan.values[one.before].name, plan.values[one.after].name) for one in
            plan.steps]  # fmt: skip


def trunk(plan):
    return [plan.values[one.after].name for one in plan.steps if one.is_trunk]


def test_the_trunk_goes_through_the_branch_with_more_weight_layers(small):
    plan = plan_of(small.Residual())
    # The shortcut of the second block is as deep; its kernels are smaller.
    assert trunk(plan) == [
        "stem", "conv1", "bn1", "relu", "conv2", "network add", "relu:1", "conv3"
    ]  # fmt: skip
    additions = [one for one in plan.steps if one.kind == "addition"]
    assert [[plan.values[n].name for n in one.others] for one in additions] == [["stem"], ["short"]]
    assert ("convolution", "relu:1", "short") in steps(plan)


def test_every_value_but_the_images_ends_one_step(small):
    plan = plan_of(small.Residual())
    assert [one.after for one in plan.steps] == list(range(1, len(plan.values)))
    assert all(one.before < one.after for one in plan.steps)
    assert plan.values[0].name == "images"
    assert plan.values[0].place is None


class Gated(nn.Module):
    """Squeeze and excitation: the gate is deeper than what it is put on."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1), nn.Sigmoid()
        )
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        return torch.relu(self.last(x * self.gate(x)))


def test_a_gate_is_no_way_of_maps():
    plan = plan_of(Gated())
    assert trunk(plan) == ["conv", "network mul", "last"]
    assert [one.kind for one in plan.steps][:2] == ["convolution", "gate"]


class Halves(nn.Module):
    """Splits its channels, does something to one half, and shuffles both, as ShuffleNet does."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        left, right = self.stem(x).chunk(2, 1)
        x = torch.cat([left, torch.relu(self.branch(right))], 1)
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return torch.relu(self.last(x))


def test_parts_of_the_channels_are_values_of_their_own():
    plan = plan_of(Halves())
    kinds = [kind for kind, *_ in steps(plan)]
    assert kinds.count("view") == 3  # both halves, and the shuffled channels
    halves = [value for value in plan.values if value.channels == 4]
    assert {value.part for value in halves if "split" in value.name} == {0, 1}
    assert trunk(plan)[-1] == "last"


def test_tokens_are_followed_between_layers():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 16, 4, 4)
            self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
            self.norm = nn.LayerNorm(16)
            self.head = nn.Linear(16, 10)

        def forward(self, x):
            x = self.patch(x).flatten(2).mT
            return self.head(self.norm(self.block(x)).mean(1))

    plan = plan_of(Tokens(), 48)
    kinds = [kind for kind, *_ in steps(plan)]
    assert kinds.count("attention") == 1
    assert kinds.count("addition") == 2
    assert {"linear", "rectifier", "normalization"} <= {*kinds}
    assert trunk(plan)[-1] == "block.linear2"


def test_copies_of_the_same_maps_are_one_value():
    class Copies(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)
            self.drop = nn.Dropout(0.5)
            self.last = nn.Conv2d(8, 8, 3)

        def forward(self, x):
            x = self.drop(self.conv(x)).clone().contiguous()
            return torch.relu(self.last(x.permute(0, 2, 3, 1).permute(0, 3, 1, 2)))

    plan = plan_of(Copies())
    assert steps(plan)[:2] == [("convolution", "images", "conv"), ("convolution", "conv", "last")]


def test_the_network_s_own_output_is_not_the_end_of_the_trunk():
    denoiser = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 3, 3, padding=1),
    )  # fmt: skip
    assert trunk(plan_of(denoiser)) == ["0", "1", "2"]


def test_pitches_are_those_of_the_layers(small):
    plan = plan_of(small.Residual())
    pitch = {value.name: value.pitch for value in plan.values}
    assert (pitch["images"], pitch["network add"], pitch["conv3"]) == (1, 1, 2)
    assert pitch["network add:1"] == 2


def test_leaves_in_a_row_where_operations_are_not_followed(small):
    model = small.Residual().eval()
    plan = plan_of_modules(trace_calls(model, (torch.rand(1, 3, 32, 32),)))
    assert [value.name for value in plan.values[:4]] == ["images", "stem", "conv1", "bn1"]
    assert [one.before for one in plan.steps] == list(range(len(plan.steps)))
    assert all(one.operation is None for one in plan.steps)
    assert "could not be followed" in plan.note


def test_a_network_of_vectors_has_no_plan():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    trace = trace_calls(model, (torch.rand(1, 4),))
    assert not plan_of_modules(trace).values
    assert not plan_of_graph(trace_graph(model, (torch.rand(1, 4),)), trace).values
