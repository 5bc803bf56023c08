"""What is found of a network is found once for a whole set-up."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from torch import nn

from natstats.distill import traces as traces_module
from natstats.distill.pairing import pair_taps
from natstats.distill.taps import Taps
from natstats.distill.traces import Traces
from natstats.distill.training.gap import gap_pairs, mean_spectra
from natstats.distill.training.stages import plan_training
from natstats.networks.zoo import cifar_resnet

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def counted():
    """The networks that were traced, one for each trace."""
    seen = []
    trace = traces_module.trace_calls

    def traced(model, *given):
        seen.append(model)
        return trace(model, *given)

    with patch.object(traces_module, "trace_calls", traced):
        yield seen


@pytest.mark.slow
def test_plan_steps_and_gap_trace_each_network_once(counted):
    student, teacher = cifar_resnet(8), cifar_resnet(14)
    program = plan_training("kd+spectral+ofd+fitnets", {}, student, teacher, IMAGES, 2)
    for stage in program.stages:
        objective = stage.objective(student, teacher, IMAGES[:1], traces=program.traces)
    objective(IMAGES, torch.tensor([0, 1]))
    pairs = gap_pairs(student, teacher, IMAGES[:1], program.traces)
    for model, points in zip((teacher, student), pairs[::-1], strict=True):
        mean_spectra(model, points, [IMAGES], program.traces)
    assert len(counted) == 2
    assert {*counted} == {student, teacher}


@pytest.mark.slow
def test_shared_traces_change_no_tap():
    student, teacher = cifar_resnet(8), cifar_resnet(14)
    traces = Traces()
    for activation in ("post", "pre", "block"):
        own = pair_taps(student, teacher, IMAGES[:1], "blocks", activation)
        shared = pair_taps(student, teacher, IMAGES[:1], "blocks", activation, traces=traces)
        for one, other in zip(own, shared, strict=True):
            assert [vars(point) for point in one] == [vars(point) for point in other]
    names = [point.name for point in own[0]]
    maps = []
    for known in (None, traces):
        with Taps(student.eval(), names, IMAGES[:1], known) as taps, torch.no_grad():
            student(IMAGES)
        maps.append(taps.take())
    assert all(torch.equal(maps[0][name], maps[1][name]) for name in names)


def test_another_size_and_another_network_are_traced_anew(counted):
    model, other = (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()) for _ in range(2))
    traces = Traces()
    for size in (16, 12, 16):
        assert Taps(model, ["0"], torch.rand(1, 3, size, size), traces).shapes["0"][1] == size - 2
    Taps(other, ["0"], IMAGES[:1], traces)
    assert counted == [model, model, other]


def test_what_failed_is_not_kept():
    traces, calls = Traces(), []

    def make():
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("not yet")
        return 5

    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="not yet"):
        traces.once("it", model, IMAGES, make)
    assert traces.once("it", model, IMAGES, make) == traces.once("it", model, IMAGES, make) == 5
    assert len(calls) == 2
