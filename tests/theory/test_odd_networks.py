"""Networks that do odd things are explained, or measured module by module, and it is said."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import natstats
from natstats.activations.trace import trace_calls
from natstats.errors import NatstatsError
from natstats.theory.account_pass import AccountPass


class Net(nn.Module):
    """A network of which a function does what is odd."""

    def __init__(self, way, channels=3):
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.way = way

    def forward(self, x):
        return torch.relu(self.way(self, x))


def plain(net, x):
    return net.second(torch.relu(net.first(x)))


def written(net, x):
    y = net.first(x)
    y[:, :, 0] = 0.0
    y[:, :4] += y[:, 4:]
    return net.second(torch.relu(y))


def dynamic(net, x):
    kernel = x.mean((0, 2, 3)).view(1, 3, 1, 1).expand(3, 3, 3, 3) / 9
    return plain(net, F.conv2d(x, kernel, padding=1))


def by_parts(net, x):
    return torch.cat([plain(net, one) for one in x.split(2)])


FOLLOWED = {
    "skip at the root": lambda net, x: plain(net, x) + torch.cat([net.first(x)[:, :4]] * 2, 1),
    "scaled at the root": lambda net, x: plain(net, x) * 0.5,
    "cropped first": lambda net, x: plain(net, x[:, :, 1:-1, 1:-1]),
    "channel by channel first": lambda net, x: plain(net, torch.cat([x[:, :1]] * 3, 1)),
    "shuffled pixels first": lambda net, x: plain(net, F.pixel_unshuffle(x, 2)[:, :3]),
    "padded in a circle": lambda net, x: plain(net, F.pad(x, (2, 2, 2, 2), mode="circular")),
    "written": written,
    "dynamic kernels": dynamic,
    "broadcast": lambda net, x: net.second(net.first(x) + x.mean(1, keepdim=True)),
}


@pytest.mark.parametrize("way", FOLLOWED.values(), ids=FOLLOWED)
def test_operations_are_followed(small, way):
    torch.manual_seed(0)
    run = natstats.measure(Net(way), small.photographs(12, 16).numpy(), explain=True)
    account = run.account
    assert not account.spectra.note
    assert all(one.count.sum() == 12 for one in account.spectra.states)
    exponents = run.layers.set_index("layer").exponent
    for name in ("first", "second"):
        step = account.steps[account.place_of_layer[name]]
        assert account.exponent(step.after) == pytest.approx(exponents[name], abs=1e-4)
    before, after = account.ends
    assert account.totals["share"].sum() == pytest.approx(after - before, abs=1e-9)


def moody(net, x):
    return plain(net, x) if len(x) > 1 else net.second(x.repeat(1, 3, 1, 1)[:, :8])


def test_what_cuts_a_batch_is_refused(small):
    with pytest.raises(NatstatsError, match="take all 4 images of a batch; first took 2"):
        natstats.measure(Net(by_parts), small.photographs(8, 16), explain=True, batch_size=4)


def test_what_goes_another_way_is_measured_by_modules(small):
    torch.manual_seed(0)
    images = small.photographs(8, 16).numpy()
    run = natstats.measure(Net(moody), images, explain=True, batch_size=4)
    assert "could not be followed" in run.account.spectra.note
    assert run.account.steps


def test_a_broadcast_branch_is_no_addition_of_alike_maps(small):
    torch.manual_seed(0)
    spectra = small.passed(Net(FOLLOWED["broadcast"]), small.photographs(8, 16))
    (step,) = (one for one in spectra.steps if one.kind == "addition")
    assert "sum" not in step.predictions


def test_work_between_passes_is_no_part_of_them(small):
    torch.manual_seed(0)
    model, images = Net(FOLLOWED["skip at the root"]).eval(), small.photographs(8, 16)
    alone = small.passed(model, images)
    first = (images[:1],)
    account = AccountPass(model, first, trace_calls(model, first))
    with account:
        for start in (0, 4):
            _ = torch.cat([images, images], 1) * 3 + 1
            model(images[start : start + 4])
    found = account.compute()
    for one, other in zip(found.states, alone.states, strict=True):
        assert np.allclose(one.power, other.power, rtol=1e-4)


def test_two_passes_and_a_counter_do_not_see_each_other(small):
    torch.manual_seed(0)
    model, images = Net(plain).eval(), small.photographs(8, 16)
    alone = small.passed(model, images)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(images)
    first = (images[:1],)
    pair = [AccountPass(model, first, trace_calls(model, first)) for _ in range(2)]
    with FlopCounterMode(display=False) as both, pair[0], pair[1]:
        model(images)
    assert both.get_total_flops() == counter.get_total_flops()
    for account in pair:
        for one, other in zip(account.compute().states, alone.states, strict=True):
            assert np.allclose(one.power, other.power, rtol=1e-4)


def test_images_that_are_left_out_are_told_of(small):
    class Overflow(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return torch.relu(self.second(self.first(x)) / (x.mean((1, 2, 3), True) < 90))

    images = small.photographs(12, 16).numpy()
    images[3] += 100
    run = natstats.measure(Overflow(), images, explain=True)
    assert "not finite at some operation: 1" in run.account.spectra.note


def test_constant_images_have_no_account():
    run = natstats.measure(Net(plain), np.full((8, 3, 16, 16), 0.3, np.float32), explain=True)
    assert run.layers.exponent[:2].isna().all()
    assert not run.account.steps


def test_few_groups_are_all_sampled(small):
    torch.manual_seed(0)
    images = small.photographs(64, 8).numpy()
    run = natstats.measure(Net(plain), images, explain=True, n_groups=8)
    assert run.account_spectra.every == 1
    assert {"Gaussian", "rest"} <= {*run.account.frame.part}
