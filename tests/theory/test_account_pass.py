"""The pass of an account: what is measured, what is predicted, what it leaves behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import natstats
from natstats.activations.trace import trace_calls
from natstats.errors import NatstatsError, UsageError
from natstats.spectra.transforms import ring_transform
from natstats.theory.account_pass import AccountPass

CPU = torch.device("cpu")


def power_of(maps, edges="sine"):
    """Ring power summed over channels and images."""
    rows = ring_transform(*maps.shape[2:], edges, CPU)(maps)[:, :-1]
    return (rows * maps.shape[1]).sum(0).double().numpy()


def state(spectra, number):
    return spectra.states[number].power.sum(0)


def test_every_value_has_the_spectrum_of_its_maps(small):
    model, images = small.Residual().eval(), small.photographs(8)
    spectra = small.passed(model, images)
    with torch.no_grad():
        stem = model.stem(images)
        first = model.conv1(stem)
        normed = model.bn1(first)
        total = stem + model.conv2(normed.relu())
    expected = {"conv1": first, "bn1": normed, "network add": total, "relu:1": total.relu()}
    assert np.allclose(state(spectra, 0), power_of(images), rtol=1e-5)
    for step in spectra.steps:
        if step.name in expected:
            assert np.allclose(state(spectra, step.after), power_of(expected[step.name]), rtol=1e-4)
    assert all(one.count.sum() == 8 for one in spectra.states)


def test_layers_have_the_exponents_of_the_run(small):
    model, images = small.Residual(), small.photographs(16)
    run = natstats.measure(model, images.numpy(), explain=True)
    exponents = run.layers.set_index("layer").exponent
    account = run.account
    for name, place in account.place_of_layer.items():
        if name in exponents:
            own = account.exponent(account.steps[place].after)
            assert own == pytest.approx(exponents[name], abs=1e-4)


def test_batches_and_their_order_do_not_matter(small):
    model, images = small.Residual(), small.photographs(12)
    whole = small.passed(model, images, batch=12, n_groups=8)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    parts = small.passed(model, images[order], batch=5, numbers=order, n_groups=8)
    for one, other in zip(whole.states, parts.states, strict=True):
        assert np.array_equal(one.count, other.count)
        assert np.allclose(one.power, other.power, rtol=1e-4)
    for one, other in zip(whole.steps, parts.steps, strict=True):
        if one.gaussian is not None:
            for name in ("before", "after"):
                first, second = (getattr(own.gaussian, name) for own in (one, other))
                assert np.allclose(first[0], second[0], rtol=1e-3)
                # What is left without a block is known to first order about the first images.
                assert np.allclose(first, second, rtol=0.05)


def test_what_is_costly_is_predicted_from_some_groups(small):
    model, images = small.Residual(), small.photographs(32, 16)
    spectra = small.passed(model, images, every=2)
    linear = [one.predictions["linear"] for one in spectra.steps if "linear" in one.predictions]
    assert len(linear) == 5
    for number in linear:
        count = spectra.states[number].count
        assert count[:32].tolist() == [1, 0] * 16
    others = {*range(len(spectra.states))} - {*linear}
    assert all(spectra.states[number].count.sum() == 32 for number in others)
    gaussian = [one.gaussian for one in spectra.steps if one.gaussian is not None]
    assert [one.count.tolist() for one in gaussian] == [[2] * 8] * 3


def test_an_image_that_is_not_finite_is_left_out_of_all_states(small):
    model, images = small.Residual(), small.photographs(8)
    odd = images.clone()
    odd[3, 0, 0, 0] = torch.inf
    spectra = small.passed(model, odd)
    rest = small.passed(model, images[torch.arange(8) != 3])
    for one, other in zip(spectra.states, rest.states, strict=True):
        assert one.count[3] == 0
        assert one.count.sum() == 7
        assert np.allclose(one.power.sum(0), other.power.sum(0), rtol=1e-4)


def test_a_failed_pass_does_not_count(small):
    model, images = small.Residual().eval(), small.photographs(8)
    first = (images[:1],)
    account = AccountPass(model, first, trace_calls(model, first))
    with account:
        model(images[:4])
        with pytest.raises(NatstatsError, match="expected maps of 3 x 32 x 32 at images"):
            model(images[:, :2])
        with pytest.raises(TypeError):
            model()
        model(images[4:])
    assert account.compute().states[0].count.sum() == 8
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_a_network_that_does_something_else_is_refused():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.other = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            return torch.relu(self.other(y)) if x.mean() > 0 else torch.relu(y)

    model, images = Moody().eval(), torch.rand(2, 3, 16, 16)
    account = AccountPass(model, (images[:1],), trace_calls(model, (images[:1],)))
    with account:
        model(images)
        with pytest.raises(NatstatsError, match="expected the network to do the same for every"):
            model(-images)
    assert account.compute().states[0].count.sum() == 2


def test_maps_of_another_size_are_refused(small):
    model, images = small.Residual().eval(), small.photographs(2)
    account = AccountPass(model, (images[:1],), trace_calls(model, (images[:1],)))
    with account, pytest.raises(NatstatsError, match="expected maps of 3 x 32 x 32 at images"):
        model(small.photographs(2, 24))


def test_without_a_pass_there_is_nothing(small):
    model, images = small.Residual().eval(), small.photographs(1)
    account = AccountPass(model, (images,), trace_calls(model, (images,)))
    with pytest.raises(NatstatsError, match="expected a forward pass"):
        account.compute()


def test_a_network_of_vectors_is_refused():
    model, vectors = nn.Linear(4, 4), torch.rand(1, 4)
    with pytest.raises(UsageError, match=r"images \(N, C, H, W\); got inputs of shape \(1, 4\)"):
        AccountPass(model, (vectors,), trace_calls(model, (vectors,)))


@pytest.mark.parametrize("edges", ["sine", "hann", "none", "periodic"])
def test_all_edges_are_treated(small, edges):
    model, images = small.Residual(), small.photographs(6, 16)
    spectra = small.passed(model, images, edges=edges)
    assert np.allclose(state(spectra, 0), power_of(images, edges), rtol=1e-4)
    assert all(np.isfinite(one.power).all() for one in spectra.states)


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "groups"),
    [(3, 1, 1, 1), (3, 2, 1, 1), (5, 1, 2, 1), (1, 2, 1, 1), (3, 1, 1, 2)],
)
def test_predictions_are_those_of_a_circular_convolution(small, kernel, stride, dilation, groups):
    images = small.photographs(6, 16, channels=4)
    span = (kernel - 1) * dilation
    model = nn.Sequential(
        nn.Conv2d(4, 8, kernel, stride, span // 2, dilation, groups), nn.ReLU()
    ).eval()
    weight = model[0].weight.detach()
    spectra = small.passed(model, images, edges="none")
    states = spectra.steps[0].predictions

    def circular(maps, by):
        first = span // 2
        wrapped = F.pad(maps, (first, span - first, first, span - first), mode="circular")
        return power_of(F.conv2d(wrapped, weight, None, by, 0, dilation, groups), "none")

    assert np.allclose(state(spectra, states["linear"]), circular(images, stride), rtol=1e-3)
    # Channels with signs at random are independent on average over all signs.
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 4)[..., None, None]
    for name, by in (("independent", 1), ("strided", stride)):
        if name in states:
            mean = sum(circular(images * sign, by) for sign in signs) / len(signs)
            # Frequencies that alias are independent in the prediction, and not in one image.
            tolerance = 1e-3 if by == 1 else 0.5
            assert np.allclose(state(spectra, states[name]), mean, rtol=tolerance)


def test_operations_that_cannot_be_followed_leave_modules(small, monkeypatch):
    def refuse(*args, **kwargs):
        raise RuntimeError("no dispatch through Python")

    monkeypatch.setattr("natstats.theory.planning.trace_graph", refuse)
    model, images = small.Residual(), small.photographs(8)
    spectra = small.passed(model, images)
    assert "could not be followed" in spectra.note
    assert [one.name for one in spectra.steps][:3] == ["stem", "conv1", "bn1"]
    assert np.allclose(state(spectra, 0), power_of(images), rtol=1e-5)
    assert all(one.count.sum() == 8 for one in spectra.states)
    assert not any(one.predictions for one in spectra.steps)


def test_what_is_written_in_place_is_measured_before(small):
    images = small.photographs(8)
    conv, last = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1)
    results = []
    for in_place in (True, False):
        model = nn.Sequential(conv, nn.ReLU(inplace=in_place), last)
        results.append(small.passed(model, images))
    for one, other in zip(results[0].states, results[1].states, strict=True):
        assert np.allclose(one.power, other.power, rtol=1e-5)
    for one, other in zip(results[0].steps, results[1].steps, strict=True):
        if one.gaussian is not None:
            assert np.allclose(one.gaussian.after, other.gaussian.after, rtol=1e-5)
