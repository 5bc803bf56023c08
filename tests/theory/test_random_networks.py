"""Expected spectra of networks with random weights: laws, agreement with wide ones, and ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import natstats
from natstats.errors import NatstatsError, UsageError
from natstats.spectra.transforms import ring_transform
from natstats.theory.random_networks import random_spectra

WIDE = 256


def images_of(side=12, n=4, seed=0):
    fields = natstats.power_law_fields(3 * n, side, side, alpha=2.0, seed=seed)
    fields = fields / fields.std()
    return torch.from_numpy(fields).view(n, 3, side, side).float()


class Residual(nn.Module):
    """A rectified shortcut beside a convolution."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x):
        return functional.relu(x + self.conv(x))


class Branches(nn.Module):
    """Two branches side by side, with slices, and a value beside its own function."""

    def __init__(self, width):
        super().__init__()
        self.left = nn.Conv2d(width // 2, width // 4, 3, padding=1)
        self.right = nn.Conv2d(width // 2, 3 * width // 4, 1)
        self.last = nn.Conv2d(width, width, 1)

    def forward(self, x):
        left, right = x.chunk(2, 1)
        x = torch.cat([self.left(left), self.right(right)], 1)
        return self.last(x * torch.sigmoid(x) + 0.5 * x)


def block(name, width):
    """What stands between two convolutions."""
    blocks = {
        "relu": lambda: nn.ReLU(inplace=True),
        "leaky": lambda: nn.LeakyReLU(0.2),
        "relu6": nn.ReLU6,
        "gelu": nn.GELU,
        "hardswish": nn.Hardswish,
        "celu": lambda: nn.CELU(0.5),
        "selu": nn.SELU,
        "prelu": nn.PReLU,
        "average": lambda: nn.Sequential(nn.ReLU(), nn.AvgPool2d(3, 2, 1)),
        "adaptive": lambda: nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(8)),
        "border": lambda: nn.Sequential(nn.ReLU(), nn.ZeroPad2d((2, 0, -1, 1))),
        "norm": lambda: nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()),
        "residual": lambda: nn.Sequential(nn.ReLU(), Residual(width), Residual(width)),
        "branches": lambda: nn.Sequential(nn.ReLU(), Branches(width), nn.Dropout()),
        "circular": lambda: nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, padding_mode="circular")
        ),
        "reflect": lambda: nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 5, padding=2, padding_mode="reflect")
        ),
        "replicate": lambda: nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, padding_mode="replicate")
        ),
        "groups": lambda: nn.Sequential(
            nn.ReLU(), nn.Conv2d(width, width, 3, padding=2, dilation=2, groups=4)
        ),
    }
    return blocks[name]()


BLOCKS = (
    "relu", "leaky", "relu6", "gelu", "hardswish", "celu", "selu", "prelu", "average", "adaptive",
    "border", "norm", "residual", "branches", "circular", "reflect", "replicate", "groups",
)  # fmt: skip


def network(name, seed, width=WIDE):
    torch.manual_seed(seed)
    first = nn.Conv2d(3, width, 3, padding=1)
    model = nn.Sequential(first, block(name, width), nn.Conv2d(width, width, 3, padding=1))
    nn.init.normal_(first.weight, std=(2 / 27) ** 0.5)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module is not first:
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


def measured_power(model, images):
    run = natstats.measure(model, images, n_groups=len(images))
    return {
        one.layer.name: one.spectrum.power.sum(0) / one.spectrum.n_images for one in run.spectra
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", BLOCKS)
def test_wide_networks_have_the_predicted_spectra_within_the_error_of_their_seeds(name):
    images = images_of()
    found = random_spectra(network(name, 0), images)
    assert found.stopped == ""
    runs = [measured_power(network(name, seed), images) for seed in range(1, 9)]
    for layer in found.layers[1:]:
        seeds = np.log([run[layer.name] for run in runs])
        error = seeds.std(0, ddof=1) / np.sqrt(len(seeds))
        gap = np.log(layer.power) - np.log(np.mean(np.exp(seeds), axis=0))
        # Sums with a rectified shortcut are matched in their moments alone.
        room = 0.15 if name == "residual" else 0.05
        assert (np.abs(gap) < room + 4 * error).all(), (layer.name, gap, error)


@pytest.mark.slow
def test_depth_0_is_the_image_as_natstats_measures_it():
    images = images_of(20, 8)
    found = random_spectra(network("relu", 0, 4), images)
    run = natstats.measure_images(images)
    assert found.layers[0].name == run.spectra[-1].layer.name == "input.colour"
    assert found.layers[0].exponent == pytest.approx(run.fits.layers[-1].exponent)
    assert found.layers[0].depth == 0


@pytest.mark.slow
def test_layers_have_the_names_depths_and_sizes_that_a_measurement_gives_them():
    model = network("residual", 0, 8)
    found = random_spectra(model, images_of(n=8))
    run = natstats.measure(model, images_of(n=8), n_groups=8)
    rows = [(s.layer.name, s.layer.kind, s.layer.depth, s.layer.height) for s in run.spectra[1:]]
    assert [(x.name, x.kind, x.depth, x.height) for x in found.layers] == rows
    assert [row["name"] for row in found.table()] == [row[0] for row in rows]
    assert found.layer("2").depth == found.depths[-1] == 4
    assert len(found.approximate) == 2  # the rectifiers behind the sums
    assert "1.1" in found.approximate[0]


@pytest.mark.slow
@pytest.mark.parametrize("side", [20, 56])
def test_a_linear_network_keeps_the_spectrum(side):
    model = nn.Sequential(*[nn.Conv2d(3, 3, 1) for _ in range(4)])
    for module in model:
        nn.init.zeros_(module.bias)
    found = random_spectra(model, images_of(side))
    assert {layer.form for layer in found.layers[1:]} == {"exact" if side == 20 else "stationary"}
    assert np.ptp(found.exponents[1:]) < 1e-9
    # Large maps are taken for stationary around their mean alone.
    assert abs(found.exponents[0] - found.exponents[1]) < (1e-4 if side == 20 else 0.03)


@pytest.mark.slow
def test_up_to_borders_convolutions_keep_the_spectrum():
    model = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(4)])
    for side in (40, 64):
        found = random_spectra(model, images_of(side))
        assert np.abs(found.exponents - found.exponents[0]).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("edges", "room"), [("sine", 0.004), ("hann", 0.004), ("none", 0.04)])
def test_large_maps_are_followed_with_the_taper_that_they_are_measured_with(edges, room):
    """Independent weights: the power is the mean over shifts, one for each tap of the kernel.

    Images of bright and dark tiles, whose correlation depends on where one looks: followed with
    the sine taper in place of theirs, the logarithm of the power would be off by 0.019 (hann) and
    0.060 (none), not by 0.001 and 0.031.
    """
    generator = np.random.default_rng(1)
    tiles = np.kron(np.where(generator.random((16, 16)) < 0.3, 3.1, 0.1), np.ones((4, 4)))
    images = images_of(64, 3).double() * torch.from_numpy(tiles)
    taps = torch.eye(9, dtype=torch.float64).view(-1, 1, 3, 3)
    shifted = functional.conv2d(images.view(-1, 1, 64, 64), taps, padding=1).view(3, -1, 64, 64)
    power = ring_transform(64, 64, edges, torch.device("cpu"))(shifted)[:, :-1].mean(0).numpy()
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1, bias=False))
    found = random_spectra(model, images.float(), edges=edges).layer("0")
    assert found.form == "stationary"
    off = np.log(found.power / power)[1:]  # the first ring feels how the amplitude changes
    assert np.std(off) < room


@pytest.mark.slow
def test_a_rectifier_lowers_the_exponent_and_the_slope_says_so():
    model = nn.Sequential(
        *[m for _ in range(4) for m in (nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())]
    )
    assert random_spectra(model, images_of(24)).slope() < 0


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.gate = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True))))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.first(x)
        rows = x.flatten(2)
        mixed = torch.softmax(rows @ rows.mT, -1) @ rows
        return self.last(mixed.view_as(x))


def between(module):
    """Between two convolutions."""
    return nn.Sequential(nn.Conv2d(3, 4, 3), module, nn.Conv2d(4, 4, 1))


@pytest.mark.parametrize(
    ("model", "where", "why"),
    [
        (between(nn.MaxPool2d(2)), "1 (max_pool2d", "simulate"),
        (between(nn.GroupNorm(2, 4)), "1 (native", "norm"),
        (between(nn.Upsample(scale_factor=2)), "1 (upsample", "no closed form"),
        (between(nn.ConvTranspose2d(4, 4, 2, 2)), "1 (convolution)", "transposed"),
        (between(nn.PixelShuffle(1)), "1 (pixel_shuffle)", "rearranged"),
        (Gated(), "mul", "gate"),
        (Attention(), "view", "maps"),
    ],
)
def test_where_there_is_no_closed_form_it_stops_and_says_so(model, where, why):
    found = random_spectra(model.eval(), images_of(16, 2))
    assert found.stopped.startswith("stopped at ")
    assert where in found.stopped
    assert why in found.stopped
    names = {layer.name for layer in found.layers}
    assert found.missing
    assert not names & {*found.missing}


def test_global_pooling_ends_the_recursion_without_a_word():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    found = random_spectra(model, images_of(n=2))
    assert found.stopped == ""
    assert [layer.name for layer in found.layers] == ["input.colour", "0"]


@pytest.mark.slow
@pytest.mark.parametrize("side", [16, 56])
def test_max_pooling_by_simulation_is_seeded_and_agrees_with_wide_networks(side):
    def build(seed):
        torch.manual_seed(seed)
        width = 128
        model = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 1),
        )
        for layer in (model[0], model[3]):
            nn.init.kaiming_normal_(layer.weight)
        return model.eval()

    images = images_of(side)
    again, found = (
        random_spectra(build(0), images, max_pooling="simulate", seed=3) for _ in range(2)
    )
    assert found.stopped == ""
    assert np.array_equal(found.layer("3").power, again.layer("3").power)
    runs = np.log([measured_power(build(seed), images)["3"] for seed in range(1, 7)])
    gap = np.log(found.layer("3").power) - runs.mean(0)
    assert np.abs(gap - gap.mean()).max() < 0.15 + 4 * runs.std(0).max() / 6**0.5


@pytest.mark.slow
def test_batch_norm_in_training_takes_the_mean_of_the_batch_away():
    def build(stored):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 1), nn.ReLU(),
            nn.BatchNorm2d(6, track_running_stats=stored), nn.Conv2d(6, 6, 1),
        ).eval()  # fmt: skip

    images = images_of(n=3)
    asked = random_spectra(build(True), images, batch_norm="train")
    stored = random_spectra(build(True), images)
    without = random_spectra(build(False), images)
    assert np.allclose(asked.layer("3").power, without.layer("3").power)
    # The mean of a map is not measured, so that here only the scale changes.
    assert asked.layer("3").exponent == pytest.approx(stored.layer("3").exponent, abs=1e-6)
    assert not np.allclose(asked.layer("3").power, stored.layer("3").power)


def test_a_trained_network_is_initialised_anew_and_a_module_is_not():
    model = network("relu", 0, 4)
    trained = natstats.Network(model, "mine", "as given", trained=True)
    own, anew = (random_spectra(one, images_of(n=2)) for one in (model, trained))
    assert not np.allclose(own.layer("2").power, anew.layer("2").power)


def test_images_may_come_in_batches_and_progress_is_told():
    told = []
    images = images_of(n=5)
    one = random_spectra(
        network("relu", 0, 4), images, batch_size=2, progress=lambda *x: told.append(x)
    )
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert np.allclose(
        one.layer("2").power, random_spectra(network("relu", 0, 4), images).layer("2").power
    )


def test_a_band_in_cycles_per_image_leaves_out_maps_that_do_not_hold_it():
    model = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, 2, 1))
    fit = natstats.FitOptions(band="2:6/image")
    found = random_spectra(model, images_of(16), fit=fit)
    assert np.isfinite(found.exponents[:2]).all()
    assert np.isnan(found.exponents[2])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"edges": "round"}, "edges"),
        ({"max_pooling": "yes"}, "max_pooling"),
        ({"batch_norm": "none"}, "batch_norm"),
        ({"n_fields": 0}, "n_fields"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_mistakes_are_named(arguments, name):
    with pytest.raises(UsageError, match=rf"^{name}: expected"):
        random_spectra(network("relu", 0, 4), images_of(), **arguments)


def test_a_model_that_is_none_is_named():
    with pytest.raises(NatstatsError, match=r"^model: expected"):
        random_spectra(3, images_of())


def test_a_network_that_does_not_take_the_images_is_named():
    with pytest.raises(NatstatsError, match=r"^model: expected to take images of shape 4 x 3 x 12"):
        random_spectra(nn.Sequential(nn.Conv2d(5, 4, 3)), images_of())


def test_a_network_is_left_in_the_mode_that_it_was_in():
    model = network("norm", 0, 4).train()
    random_spectra(model, images_of(n=2))
    assert all(module.training for module in model.modules())
