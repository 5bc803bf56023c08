"""The graph of a pass: what makes each value, out of which others."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from natstats import Collector
from natstats.activations.graph import ValueRef, trace_graph
from natstats.activations.operations import OperationHooks


class Block(nn.Module):
    def __init__(self, in_place=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=in_place)

    def forward(self, x: Tensor):
        y = self.relu(self.norm(self.conv(x)))
        y += x
        return self.relu(y)


def graph_of(model, *images):
    return trace_graph(model, images or (torch.rand(1, 3, 12, 12),))


@pytest.mark.parametrize("in_place", [True, False])
def test_values_are_followed_through_writing_in_place(in_place):
    graph = graph_of(Block(in_place))
    kinds = [one.kind for one in graph.operations]
    assert kinds == ["convolution", "normalization", "rectifier", "addition", "rectifier"]
    assert [one.inputs for one in graph.operations] == [(0,), (1,), (2,), (3, 0), (4,)]
    assert [value.layers for value in graph.values[1:]] == [
        ("conv",), ("norm",), ("relu",), (), ("relu:1",)
    ]  # fmt: skip
    assert graph.outputs == (5,)
    assert graph.maker(0) is None
    assert graph.maker(5).place.call == 1


def test_arguments_hold_weights_and_name_the_data():
    model = Block()
    first = graph_of(model).operations[0]
    assert first.arguments["input"] == ValueRef(0)
    assert torch.equal(first.arguments["weight"], model.conv.weight)
    assert first.arguments["padding"] == [1, 1]
    assert first.arguments["groups"] == 1


def test_functions_stand_in_the_module_that_calls_them():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Block()

        def forward(self, x):
            y = F.gelu(self.inner(x))
            return F.avg_pool2d(torch.cat([y, x], 1), 2)

    graph = graph_of(Net())
    assert [(one.module, one.kind) for one in graph.operations[-3:]] == [
        ("", "rectifier"), ("", "concatenation"), ("", "pooling")
    ]  # fmt: skip
    assert graph.operations[0].module == "inner.conv"


def test_what_is_written_through_a_view_is_new():
    def write(x):
        y = x * 2
        y.flatten(2).relu_()
        return y.sigmoid()

    class Net(nn.Module):
        def forward(self, x):
            return write(x)

    graph = graph_of(Net())
    last = graph.maker(graph.outputs[0])
    way = []
    while last is not None:
        way.append(last.name)
        last = graph.maker(last.inputs[0])
    assert way == ["sigmoid", "written", "relu", "view", "mul"]


def test_the_model_is_left_as_it_was():
    model = Block().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    graph_of(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_failing_pass_leaves_no_hooks():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Block()

        def forward(self, x):
            self.inner(x)
            raise RuntimeError("no way")

    model = Net()
    with pytest.raises(RuntimeError, match="no way"):
        graph_of(model)
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def places_of(model, images, around=None):
    found = []
    with OperationHooks(model, lambda place, func, given: found.append(place)):
        if around is None:
            model(images)
        else:
            with around:
                model(images)
    return found


def test_places_do_not_depend_on_the_batch_or_on_who_else_watches():
    model = Block().eval()
    first = places_of(model, torch.rand(1, 3, 12, 12))
    assert len({*first}) == len(first)
    assert places_of(model, torch.rand(7, 3, 16, 12)) == first
    assert places_of(model, torch.rand(2, 3, 12, 12), Collector(model, "*", n_groups=4)) == first


def test_attention_shows_its_parts():
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    graph = trace_graph(model, (torch.rand(2, 9, 16),))
    linear = [one for one in graph.operations if one.kind == "linear"]
    assert len(linear) == 4
    assert torch.backends.mha.get_fastpath_enabled()
