"""How a collector finds, counts and numbers images, whatever a forward pass is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import natstats
from tests.spectra.small_networks import IMAGES


def test_batches_go_on_where_the_last_ended(model):
    with natstats.Collector(model, n_groups=5) as whole, torch.no_grad():
        model(IMAGES)
    with natstats.Collector(model, n_groups=5) as parts, torch.no_grad():
        for batch in IMAGES.split(5):
            model(batch)
    for a, b in zip(whole.compute(), parts.compute(), strict=True):
        assert a.layer == b.layer
        np.testing.assert_allclose(a.spectrum.power, b.spectrum.power, rtol=1e-5)
        np.testing.assert_array_equal(a.spectrum.count, b.spectrum.count)


def test_no_images_no_result(model):
    with pytest.raises(natstats.NatstatsError, match="expected a forward pass"):
        natstats.Collector(model).compute()


def test_a_pass_that_fails_is_not_counted(model):
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.fail = model, False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = self.inner(x)
            if self.fail:
                raise MemoryError
            return out

    net = Fails()
    with natstats.Collector(net) as collector, torch.no_grad():
        net(IMAGES)
        net.fail = True
        with pytest.raises(MemoryError):
            net(IMAGES)
        net.fail = False
        net(IMAGES[:5])
    assert {m.spectrum.n_images for m in collector.compute()} == {17}


def test_images_may_come_as_a_keyword(model):
    with natstats.Collector(model, "stem") as collector, torch.no_grad():
        model(x=IMAGES)
    assert collector.compute()[0].spectrum.n_images == 12


def test_numbers_decide_the_group(model):
    with natstats.Collector(model, "stem", n_groups=4) as collector, torch.no_grad():
        collector.number_images(torch.full((12,), 7))
        model(IMAGES)
    assert collector.compute()[0].spectrum.count.tolist() == [0, 0, 0, 12]


def test_images_without_numbers_go_on_behind_the_highest_number(model):
    with natstats.Collector(model, "stem", n_groups=16) as collector, torch.no_grad():
        for numbers in (torch.arange(8, 12), torch.arange(0, 4), None):
            if numbers is not None:
                collector.number_images(numbers)
            model(IMAGES[:4])
    count = collector.compute()[0].spectrum.count
    assert np.flatnonzero(count).tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15]


def test_collectors_do_not_count_each_others_traced_pass(model):
    model.eval()
    outer, inner = natstats.Collector(model), natstats.Collector(model)
    with torch.no_grad(), outer:
        model(IMAGES[:4])
        with inner:
            model(IMAGES[4:])
    assert {m.spectrum.n_images for m in outer.compute()} == {len(IMAGES)}
    assert {m.spectrum.n_images for m in inner.compute()} == {len(IMAGES) - 4}
    both = natstats.Collector(model), natstats.Collector(model)
    with torch.no_grad(), both[0], both[1]:
        model(IMAGES)
    assert {m.spectrum.n_images for c in both for m in c.compute()} == {len(IMAGES)}


class TakesAnything(nn.Module):
    """Finds its images in whatever it is given."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, *values, **named):
        found = [*values, *named.values()][-1]
        found = found["image"] if isinstance(found, dict) else found
        for images in found if isinstance(found, list) else [found]:
            self.conv(images)


@pytest.mark.parametrize(
    "call",
    [
        lambda net: net(torch.tensor(0.5), IMAGES),
        lambda net: net(torch.zeros(1), IMAGES),
        lambda net: net({"image": IMAGES}),
        lambda net: net(scale=2.0, image=IMAGES),
        lambda net: net([IMAGES, IMAGES[..., ::2]]),  # batches, not images
    ],
)
def test_images_are_counted_in_any_argument(call):
    net = TakesAnything().eval()
    with natstats.Collector(net) as collector, torch.no_grad():
        call(net)
    found = collector.compute()[0]
    expected = natstats.power_spectrum(net.conv(IMAGES)).detach().double().mean(0)
    assert (found.spectrum.n_images, found.layer.layout) == (len(IMAGES), "NCHW")
    np.testing.assert_allclose(found.spectrum.mean_power, expected, rtol=1e-5)


def test_an_empty_batch_is_nothing(model):
    with natstats.Collector(model) as collector, torch.no_grad():
        model(IMAGES[:0])
        model(IMAGES)
        model(IMAGES[:0])
    assert {m.spectrum.n_images for m in collector.compute()} == {len(IMAGES)}


def test_what_is_no_image_or_no_network_is_named(model):
    with (
        pytest.raises(natstats.UsageError, match="list of images; got str"),
        natstats.Collector(model),
    ):
        model("x")
    with pytest.raises(natstats.UsageError, match="got a single Conv2d"):
        natstats.Collector(nn.Conv2d(3, 4, 3))


def test_the_stride_is_that_of_the_images_in_any_argument():
    class FromDict(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 2, 2)

        def forward(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
            return self.conv(inputs["image"])

    net = FromDict()
    with natstats.Collector(net) as collector, torch.no_grad():
        net({"time": torch.zeros(12), "image": IMAGES})
    assert collector.compute()[0].layer.stride == 2


def test_numbers_of_images_are_checked_at_once():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    with natstats.Collector(model, probe=False) as collector:
        collector.number_images(torch.tensor([0.5, 1.5]))
        with pytest.raises(natstats.UsageError, match="^index: expected a tensor of 2 whole"):
            model(torch.rand(2, 1, 16, 16))
