"""Networks that write into what they are given, call themselves, mix up their batch, or are no
ordinary modules: the right number, or a sentence. The right numbers are those of plain torch."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import natstats
from natstats import Collector, UsageError
from natstats.activations.passes import unchanged
from natstats.activations.trace import trace_calls


def images(n=5, side=32, seed=0):
    fields = natstats.power_law_fields(3 * n, side, side, alpha=2.0, seed=seed)
    return torch.tensor(fields.reshape(n, 3, side, side), dtype=torch.float32)


def run(model, *arguments, layers="weight", **settings):
    with torch.no_grad(), Collector(model.eval(), layers, **settings) as collector:
        model(*arguments)
    reasons = {layer.name: layer.reason for layer in collector.skipped}
    return {m.layer.name: m for m in collector.compute()}, reasons


def by_image(maps):
    """Ring power of every image, (N, n_rings), in float64."""
    return natstats.power_spectrum(maps).double().numpy()


class InPlace(nn.Module):
    """Changes its input before anything else, in one of the usual ways."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.relu, self.way = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True), way

    def forward(self, x):
        if self.way == "relu":
            x = self.relu(x)
        elif self.way == "normalise":
            x = x.sub_(x.mean((1, 2, 3), True)).div_(x.std((1, 2, 3), keepdim=True))
        elif self.way == "clamp":
            torch.clamp_(x, -0.5, 0.5)
        else:
            x[:, :, ::2] = 0
        return self.conv(x)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["relu", "normalise", "clamp", "assign"])
def test_layer_0_is_measured_before_a_network_changes_it(way):
    batch = images()
    before = batch.clone()
    model = InPlace(way)
    measured = natstats.measure(model, batch.numpy(), batch_size=2)
    plain = natstats.measure_images(before.numpy())
    inputs = measured.layers[measured.layers.kind == "input"].exponent.to_numpy()
    np.testing.assert_allclose(inputs, plain.layers.exponent, rtol=1e-6)
    assert torch.equal(batch, before)  # the user's own data
    # The first image passes once, like the others: its spectrum is that of one pass.
    with torch.no_grad():
        expected = by_image(model(before.clone())).sum(0)
    np.testing.assert_allclose(measured.spectra[-1].spectrum.power.sum(0), expected, rtol=1e-4)


class Initialised(nn.Module):
    """Scales and shifts from the first data that come (as in flows), and a count of what came."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 3, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.register_buffer("is_ready", torch.tensor(False))
        self.register_buffer("n_seen", torch.tensor(0))
        self.conv = nn.Conv2d(3, 4, 3)
        self.note = "new"

    def forward(self, x):
        if not self.is_ready:
            self.scale.data.copy_(1 / x.std((0, 2, 3), keepdim=True))
            self.shift.data = -x.mean((0, 2, 3), keepdim=True)
            self.is_ready.fill_(True)
            self.note = "used"
        self.n_seen = self.n_seen + len(x)
        return self.conv((x + self.shift) * self.scale)


def test_what_a_traced_pass_writes_is_taken_back():
    model, batch = Initialised(), images()
    torch.manual_seed(0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other(batch)
    measured, _ = run(model, batch)
    # As if there had been no trace and no probe: the whole batch is what came first.
    for name, value in other.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    with torch.no_grad():
        expected = by_image(other(batch))
    np.testing.assert_allclose(measured["conv"].spectrum.power.sum(0), expected.sum(0), rtol=1e-4)


def test_a_look_leaves_no_attribute_behind():
    model = Initialised()
    keys = set(vars(model))
    with unchanged(model):
        model(images(1))
        model.another = 3
    assert set(vars(model)) == keys
    assert model.note == "new"
    assert not model.is_ready
    assert model.n_seen == 0


class Crops(nn.Module):
    """Takes batches of crops and puts them behind each other along the axis of the images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, crops):
        values = list(crops.values()) if isinstance(crops, dict) else crops
        return self.conv(torch.cat(list(values)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [list, tuple, dict])
@pytest.mark.parametrize("n_crops", [2, 3])
def test_batches_put_together_inside_stay_apart_by_image(kind, n_crops):
    n = 4
    crops = [images(n, seed=k) for k in range(n_crops)]
    given = {f"view{k}": one for k, one in enumerate(crops)} if kind is dict else kind(crops)
    model = Crops()
    measured, reasons = run(model, given, n_groups=n)
    assert not reasons
    spectrum = measured["conv"].spectrum
    assert spectrum.n_images == n
    with torch.no_grad():
        expected = np.mean([by_image(model.conv(one)) for one in crops], 0)
    np.testing.assert_allclose(spectrum.power, expected, rtol=1e-4)


class FilledUp(nn.Module):
    """Fills the batch up to a multiple of some number, as compiled engines do."""

    def __init__(self, multiple):
        super().__init__()
        self.conv, self.multiple = nn.Conv2d(3, 8, 3), multiple

    def forward(self, x):
        n = len(x)
        fill = x.new_zeros(-n % self.multiple, *x.shape[1:])
        return self.conv(torch.cat([x, fill]))[:n]


@pytest.mark.slow
@pytest.mark.parametrize(("multiple", "n"), [(16, 8), (6, 3), (4, 1), (8, 8)])
def test_a_batch_that_is_filled_up_inside_is_refused(multiple, n):
    measured, reasons = run(FilledUp(multiple), images(n))
    assert not measured
    assert "never answer" in reasons["conv"] or "where one image had" in reasons["conv"]


class Recursive(nn.Module):
    """Calls itself, once per scale."""

    def __init__(self):
        super().__init__()
        self.conv, self.scales = nn.Conv2d(3, 3, 3, padding=1), (1, 2)

    def forward(self, x, depth=0):
        y = self.conv(x)
        return self(y, depth + 1) if depth < len(self.scales) else y


def test_a_network_that_calls_itself_counts_calls_and_images():
    model, batch = Recursive(), images()
    measured, reasons = run(model, batch)
    assert not reasons
    assert [m.layer.name for m in measured.values()] == ["conv", "conv:1", "conv:2"]
    assert [m.layer.depth for m in measured.values()] == [1, 2, 3]
    with torch.no_grad():
        maps = batch
        for found in measured.values():
            maps = model.conv(maps)
            assert found.spectrum.n_images == len(batch)
            expected = by_image(maps).sum(0)
            np.testing.assert_allclose(found.spectrum.power.sum(0), expected, rtol=1e-4)


def test_a_pass_that_was_broken_off_is_not_around_the_next():
    class Stopped(Recursive):
        def forward(self, x, depth=0):
            if self.stop and depth:
                raise KeyboardInterrupt
            return super().forward(x, depth)

    model, batch = Stopped().eval(), images()
    model.stop = False
    with torch.no_grad(), Collector(model) as collector:
        model(batch)
        model.stop = True
        with pytest.raises(KeyboardInterrupt):
            model(batch)
        model.stop = False
        model(batch)
    assert {m.spectrum.n_images for m in collector.compute()} == {10}


class Deformed(nn.Module):
    def __init__(self):
        super().__init__()
        self.offsets = nn.Conv2d(3, 18, 3, padding=1)
        self.deformed = torchvision.ops.DeformConv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.last(self.deformed(x, self.offsets(x)))


class Mixing(nn.Module):
    """A convolution of several kernels, mixed for every image (as CondConv2d of timm)."""

    class Conv(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_channels, self.out_channels, self.kernel_size = 3, 8, (3, 3)
            self.weight = nn.Parameter(torch.randn(4, 8 * 3 * 9) / 5)

        def forward(self, x, routing):
            kernels = (routing @ self.weight).reshape(-1, 3, 3, 3)
            n, _, height, width = x.shape
            mixed = nn.functional.conv2d(x.reshape(1, -1, height, width), kernels, groups=n)
            return mixed.reshape(n, 8, height - 2, width - 2)

    def __init__(self):
        super().__init__()
        self.route, self.conv, self.last = nn.Linear(3, 4), self.Conv(), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        return self.last(self.conv(x, torch.sigmoid(self.route(x.mean((2, 3))))))


class OwnKernel(nn.Module):
    def __init__(self):
        super().__init__()
        self.filters = nn.Parameter(torch.randn(8, 3, 5, 5))

    def forward(self, x):
        return nn.functional.conv2d(x, self.filters)


class OwnMatrix(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(8, 8))

    def forward(self, x):
        return torch.einsum("nchw,cd->ndhw", x, self.matrix)


@pytest.mark.parametrize(
    ("model", "depths"),
    [
        (Deformed(), {"offsets": 1, "deformed": 2, "last": 3}),
        (Mixing(), {"conv": 2, "last": 3}),
        (nn.Sequential(OwnKernel(), nn.ReLU(), nn.Conv2d(8, 4, 3)), {"0": 1, "2": 2}),
    ],
)
def test_every_module_with_kernels_counts_in_depth(model, depths):
    measured, reasons = run(model, images())
    assert {name: m.layer.depth for name, m in measured.items()} == depths
    assert set(reasons) <= {"route"}


def test_other_modules_that_multiply_with_weights_are_listed():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), OwnMatrix(), nn.Conv2d(8, 8, 3))
    measured, reasons = run(model, images())
    assert {name: m.layer.depth for name, m in measured.items()} == {"0": 1, "2": 3}
    assert reasons == {
        "1": "has weights of its own and is no layer that is known; name it to measure it"
    }
    measured, reasons = run(model, images(), layers=["weight", "1"])
    assert {name: m.layer.depth for name, m in measured.items()} == {"0": 1, "1": 2, "2": 3}
    assert not reasons


@pytest.mark.slow
@pytest.mark.parametrize("builder", ["swin_t", "convnext_tiny", "vit_b_16", "maxvit_t"])
def test_tables_of_positions_and_scales_are_no_kernels(builder):
    from natstats.activations.selection import select_modules

    model = getattr(torchvision.models, builder)(weights=None)
    known = (nn.Conv2d, nn.Linear, nn.MultiheadAttention)
    assert all(isinstance(model.get_submodule(n), known) for n in select_modules(model, "weight"))


def test_a_copy_made_inside_is_not_watched_and_can_be_used():
    model, batch = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), images()
    with torch.no_grad(), Collector(model) as collector:
        model(batch)
        twin = copy.deepcopy(model)
        twin(batch)
        twin[0](batch)
        model(batch)
    assert {m.spectrum.n_images for m in collector.compute()} == {2 * len(batch)}
    assert not model._forward_hooks
    assert not model[0]._forward_hooks


@pytest.mark.filterwarnings("ignore")
def test_torchscript_parts_are_listed_and_the_rest_is_measured():
    scripted = torch.jit.script(nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), scripted, nn.Conv2d(8, 8, 3))
    measured, reasons = run(model, images())
    assert {name: m.layer.depth for name, m in measured.items()} == {"0": 1, "2": 3}
    assert reasons == {"1.0": "in TorchScript, where no layer can be watched"}


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_modules_have_to_see_data_first():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU())
    with pytest.raises(
        UsageError, match=r"^model: expected weights that have their shapes; got .*"
    ):
        Collector(model)
    model(images())
    assert set(run(model, images())[0]) == {"0"}


@pytest.mark.parametrize(
    "call",
    [
        lambda model, x: torch.vmap(model)(x[:, None]),
        lambda model, x: torch.vmap(lambda one: model(one[None]))(x),
        lambda model, x: torch.func.grad(lambda y: model(y).sum())(x),
    ],
)
def test_transforms_of_functions_are_refused_in_a_sentence(call):
    model = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    with Collector(model), pytest.raises(UsageError, match=r"^inputs: expected tensors with their"):
        call(model, images())
    assert not model._forward_hooks


def test_what_counts_as_a_forward_pass_is_said():
    model = nn.Sequential(nn.Conv2d(3, 8, 3)).eval()
    with Collector(model) as collector, torch.no_grad():
        model.forward(images())
    with pytest.raises(natstats.NatstatsError, match=r"forward_features.*compiled"):
        collector.compute()


def test_the_trace_gets_copies():
    model, batch = InPlace("relu"), images()
    before = batch.clone()
    trace_calls(model.eval(), (batch[:1],))
    assert torch.equal(batch, before)
