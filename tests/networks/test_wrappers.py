"""Wrapped networks are measured as the network inside, or refused with what to pass in place."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

import natstats
from natstats.networks.wrappers import uncompiled, unwrapped


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()


def n_conv_calls(model, call):
    """How often hooks on convolutions are called in a pass."""
    seen = []
    hooks = [
        part.register_forward_hook(lambda *_: seen.append(1))
        for part in model.modules()
        if isinstance(part, nn.Conv2d)
    ]
    with torch.no_grad():
        call(torch.rand(1, 3, 16, 16))
    for hook in hooks:
        hook.remove()
    return len(seen)


def compiled(model):
    return torch.compile(model, backend="eager")


def warm_up(call):
    """Compile for just what :func:`n_conv_calls` runs."""
    with torch.no_grad():
        call(torch.rand(1, 3, 16, 16))


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: m,
        nn.DataParallel,
        compiled,
        torch.optim.swa_utils.AveragedModel,
        lambda m: compiled(nn.DataParallel(compiled(m))),
    ],
    ids=["plain", "data parallel", "compiled", "averaged", "nested"],
)
def test_the_network_inside_is_found(wrap):
    model = network()
    inside = unwrapped(wrap(model))
    assert type(inside) is nn.Sequential
    assert torch.equal(inside[0].weight, model[0].weight)


def test_distributed_data_parallel_is_taken_off(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = network()
        assert unwrapped(nn.parallel.DistributedDataParallel(model)) is model
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_a_wrapped_network_is_measured_as_the_bare_one():
    images = torch.rand(8, 3, 24, 24)
    model = network()
    bare = natstats.measure(model, images)
    warm = compiled(model)
    warm(images)  # from now on the compiled graph runs, without hooks
    for wrapped in (nn.DataParallel(model), warm):
        run = natstats.measure(wrapped, images)
        assert list(run.layers.layer) == list(bare.layers.layer)
        assert run.info["model"] == bare.info["model"]
        assert list(run.layers.exponent) == list(bare.layers.exponent)


@pytest.mark.slow
def test_a_network_compiled_in_place_is_measured_and_stays_so():
    images = torch.rand(8, 3, 24, 24)
    model = network()
    bare = natstats.measure(model, images)
    model.compile(backend="eager")
    warm_up(model)
    assert n_conv_calls(model, model) == 0  # why this must be handled
    run = natstats.measure(model, images)
    assert list(run.layers.exponent) == list(bare.layers.exponent)
    assert n_conv_calls(model, model) == 0
    with uncompiled(model):
        assert n_conv_calls(model, model) == 2


@pytest.mark.slow
def test_a_network_compiled_in_part_runs_layer_by_layer():
    model = network()
    whole = nn.Sequential(compiled(model), nn.ReLU())
    warm_up(whole)
    assert n_conv_calls(model, whole) == 0
    with uncompiled(whole):
        assert n_conv_calls(model, whole) == 2


def script(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        return torch.jit.script(model)


def trace(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, torch.rand(1, 3, 8, 8))


class FullyShardedDataParallel(nn.Module):
    """Stands in for torch's, which needs several processes to be of use."""


FullyShardedDataParallel.__module__ = "torch.distributed.fsdp"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: script(network()), "TorchScript module.*pass the Python module"),
        (lambda: trace(network()), "TorchScript module.*pass the Python module"),
        (lambda: nn.DataParallel(script(network())), "TorchScript module"),
        (
            lambda: torch.export.export(network(), (torch.rand(1, 3, 8, 8),)),
            "exported program.*pass the Python module",
        ),
        (FullyShardedDataParallel, "sharded by FSDP.*pass the network itself"),
        (lambda: nn.Sequential(FullyShardedDataParallel()), r"sharded by FSDP.*\(0\)"),
        (lambda: (network(), nn.CrossEntropyLoss()), "a tuple of Sequential, CrossEntropyLoss"),
        (lambda: nn.ReLU, "the class ReLU, not an instance"),
        (lambda: None, "got a NoneType"),
    ],
)
def test_what_cannot_be_watched_is_refused_with_what_to_pass(make, words):
    with pytest.raises(natstats.UsageError, match=f"^model: .*{words}"):
        unwrapped(make())


def test_measure_refuses_torchscript_at_the_door():
    with pytest.raises(natstats.UsageError, match="TorchScript"):
        natstats.measure(script(network()), torch.rand(4, 3, 24, 24))
