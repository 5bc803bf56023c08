"""The main job: what goes in with a known exponent comes out with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import natstats
from natstats import demo


class Identity(nn.Module):
    """Hands its input through several layers that change nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(1, 1, 1, bias=False) for _ in range(6))
        for layer in self.layers:
            nn.init.ones_(layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0, 3.0])
def test_an_identity_network_keeps_the_exponent_of_images(alpha):
    fields = natstats.power_law_fields(300, 28, 28, alpha, seed=4)[:, None]
    run = natstats.measure(Identity(), fields, batch_size=64)
    assert len(run.layers) == 7
    assert list(run.layers.depth) == list(range(7))
    for row in run.layers.itertuples():
        assert row.exponent == pytest.approx(alpha, abs=0.06), row.layer
        assert row.exponent_low < row.exponent < row.exponent_high
        assert row.n_images == 300
    # Seven copies of one measurement: the law must not take them for a trend.
    assert run.law.slope == pytest.approx(0.0, abs=1e-4)


class Smoothing(nn.Module):
    """Each layer sees fields of its own, whose exponent is 0.5 more than the last one's."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.ones_(self.gain.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side = 4 * x.shape[-1]
        frequency = torch.fft.fftfreq(side)[:, None].hypot(torch.fft.rfftfreq(side)[None])
        frequency[0, 0] = 1.0
        for _ in range(5):
            x = self.gain(x)
            noise = torch.randn(len(x), 1, side, side, generator=torch.Generator().manual_seed(0))
            self.alpha += 0.5
            transform = torch.fft.rfft2(noise) * frequency ** (-self.alpha / 2)
            transform[..., 0, 0] = 0
            field = torch.fft.irfft2(transform, s=(side, side))
            x = 0 * x + field[..., : x.shape[-1], : x.shape[-1]]  # still comes from the input
        return self.gain(x)


@pytest.mark.slow
def test_exponents_that_rise_by_construction_are_found_to_rise():
    model = Smoothing()
    model.register_forward_pre_hook(lambda module, _: setattr(module, "alpha", 0.0))
    fields = natstats.power_law_fields(128, 20, 20, 0.0, seed=1)[:, None]
    run = natstats.measure(model, fields, batch_size=128)
    measured = run.layers[run.layers.kind != "input"]
    np.testing.assert_allclose(measured.exponent, [0, 0.5, 1, 1.5, 2, 2.5], atol=0.15)
    assert list(measured.layer) == ["gain", *(f"gain:{i}" for i in range(1, 6))]
    assert run.law.verdict == "linear law"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with six of the demo's photographs, small, and one file that is none."""
    folder = tmp_path_factory.mktemp("photos")
    for path in sorted(demo.photographs().glob("*.jpg"))[:6]:
        with Image.open(path) as image:
            image.resize((80, 64)).save(folder / f"{path.stem}.png")
    (folder / "broken.png").write_bytes(b"no")
    return folder


def small_network():
    return natstats.load_network("cifar_resnet20", weights="none", size=48)


@pytest.fixture(scope="module")
def run(photographs):
    return natstats.measure(small_network(), photographs)


@pytest.mark.slow
def test_photographs_are_layer_0_in_grey_and_colour(run):
    assert list(run.layers.layer[:3]) == ["input.grey", "input.colour", "conv1"]
    assert list(run.layers.depth[:3]) == [0, 0, 1]
    assert list(run.layers.kind[:2]) == ["input", "input"]
    assert run.law.n_layers == len(run.layers) - 2
    assert (run.layers.exponent[:2] > 1).all()


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "workers"), [(2, 0), (3, 1)])
def test_neither_batch_size_nor_workers_change_the_result(run, photographs, batch_size, workers):
    other = natstats.measure(
        small_network(), photographs, batch_size=batch_size, workers=workers
    ).layers
    for name in ("exponent", "exponent_low", "exponent_image_sd"):
        np.testing.assert_allclose(other[name], run.layers[name], rtol=1e-3)


def test_an_unreadable_image_is_left_out_and_listed(run, photographs):
    assert run.info["images"]["n_images"] == 6
    assert run.info["images"]["n_unreadable"] == 1
    assert run.info["images"]["unreadable"][0].startswith("broken.png: ")
    with pytest.raises(natstats.NatstatsError, match=r"images: .*broken.png"):
        natstats.measure(small_network(), photographs, strict=True)


def test_only_unreadable_images_are_an_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no")
    with pytest.raises(natstats.NatstatsError, match="all 1 are unreadable"):
        natstats.measure(small_network(), tmp_path)


@pytest.mark.slow
def test_the_record_says_how_it_was_measured(photographs):
    run = natstats.measure(small_network(), photographs, seed=3, limit=5)
    assert run.info["model"]["trained"] is False
    assert any("untrained" in warning for warning in run.info["warnings"])
    assert run.info["options"]["seed"] == 3
    assert run.info["images"]["size"] == 48
    assert set(run.info["versions"]) >= {"natstats", "torch", "python"}
    assert run.info["timing"]["images_per_second"] > 0


@pytest.mark.slow
def test_the_model_is_left_as_it_was(photographs):
    model = small_network().model.train()
    buffers = [b.clone() for b in model.buffers()]
    natstats.measure(model, np.random.default_rng(0).random((4, 3, 48, 48), dtype=np.float32))
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(buffers, model.buffers(), strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.slow
def test_mixed_precision_moves_the_exponents_little(run, photographs):
    """In bfloat16 the maps themselves are rounded; the transform is not."""
    mixed = natstats.measure(small_network(), photographs, amp=True)
    assert mixed.info["options"]["amp"] is True
    np.testing.assert_allclose(mixed.layers.exponent, run.layers.exponent, atol=0.05)


def test_a_model_that_fails_says_on_what():
    with pytest.raises(natstats.NatstatsError, match="shape 3 x 2 x 16 x 16; the forward pass"):
        natstats.measure(Identity(), np.zeros((3, 2, 16, 16)))


@pytest.mark.slow
def test_progress_ends_at_the_total(photographs):
    seen = []
    natstats.measure(
        small_network(), photographs, batch_size=2, progress=lambda *state: seen.append(state)
    )
    assert seen[-1] == (7, 7)
    assert len(seen) == 4


def test_images_alone(photographs):
    run = natstats.measure_images(photographs)
    assert list(run.layers.layer) == ["input.grey", "input.colour"]
    assert run.layers.height.tolist() == [64, 64]  # not scaled
    assert run.law.verdict == "too little to tell"


@pytest.mark.slow
def test_the_demo_photographs_lie_in_the_published_range():
    """Tolhurst, Tadmor and Chao 1992: amplitude slopes of 0.8 to 1.5, power 1.6 to 3.0."""
    run = natstats.measure_images(demo.photographs())
    assert 1.6 < run.layers.exponent_image_mean[0] < 3.0
    assert run.layers.r2.min() > 0.99


class Clips(nn.Module):
    """Takes clips, and has a layer whose channels stand last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv3d(1, 2, 1), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(x).movedim(1, -1))


@pytest.mark.slow
def test_clips_are_measured_by_frame_or_along_time():
    clips = torch.rand(20, 1, 12, 8, 10)
    frames = natstats.measure(natstats.Network(Clips(), "clips", "random", takes="clips"), clips)
    assert list(frames.layers.layout) == ["NCTHW", "NCTHW", "NTHWC"]
    assert [frames.layers.height[1], frames.layers.width[1]] == [8, 10]
    # A 1 x 1 x 1 convolution of one channel scales the power, and so leaves the exponent alone.
    assert frames.layers.exponent[1] == pytest.approx(frames.layers.exponent[0], abs=1e-5)
    along = natstats.measure(
        natstats.Network(Clips(), "clips", "random", takes="clips"), clips, temporal=True
    )
    assert along.unit == "frame"
    assert list(along.layers.height) == [12] * 3
    assert list(along.layers.width) == [1] * 3
    assert along.layers.receptive_field[1:].isna().all()
    assert along.layers.exponent[1] == pytest.approx(along.layers.exponent[0], abs=1e-5)
    alone = natstats.measure_images(clips, temporal=True)
    assert alone.layers.exponent[0] == pytest.approx(along.layers.exponent[0], abs=1e-9)


def test_single_images_have_no_spectrum_along_time():
    with pytest.raises(natstats.UsageError, match="temporal: expected clips"):
        natstats.measure_images(torch.rand(4, 1, 16, 16), temporal=True)
    with pytest.raises(natstats.UsageError, match="temporal: expected clips"):
        natstats.measure(small_network(), torch.rand(4, 3, 16, 16), temporal=True)


def test_a_run_says_what_was_made_of_single_images():
    network = natstats.Network(Clips(), "clips", "random", takes="clips")
    run = natstats.measure(network, torch.rand(6, 1, 8, 8))
    assert any("shown 16 times" in note for note in run.info["warnings"])
    assert run.layers.layout[1] == "NCTHW"


def test_declared_layouts_are_used_and_recorded(tmp_path):
    class Odd(nn.Module):
        """Hands on channels-last maps through a module that nothing tells apart."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.turn = nn.Conv2d(3, 9, 1), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.turn(self.first(x).permute(0, 2, 3, 1))

    images = torch.rand(20, 3, 12, 9)  # as high as wide with the channels: ambiguous
    run = natstats.measure(Odd(), images, layers="first,turn", layouts={"turn": "NHWC"})
    assert run.layers.channels.iloc[-1] == 9
    assert list(run.layers.exponent[-2:]) == pytest.approx([run.layers.exponent.iloc[-1]] * 2)
    again = natstats.Run.open(run.save(tmp_path / "run", report=False))
    assert list(again.layers.layout[-2:]) == ["NCHW", "NHWC"]
    assert again.info["options"]["layouts"] == {"turn": "NHWC"}


def test_wrong_images_are_refused_before_weights_are_downloaded(monkeypatch, tmp_path):
    def download(*args, **kwargs):
        raise AssertionError("the weights were asked for")

    monkeypatch.setattr("natstats.networks.load.download", download)
    with pytest.raises(natstats.UsageError, match="images: expected"):
        natstats.measure("resnet18", tmp_path / "nowhere")
