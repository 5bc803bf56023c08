"""Published weights given as a file: the network computes what torchvision's builder would."""

from __future__ import annotations

import copy

import pytest
import torch
import torchvision.models
from torch import nn

import natstats
from natstats import demo
from natstats.networks.builders import EPS, named_builder
from natstats.networks.load import load_network


def with_weights(monkeypatch, tmp_path, name, entry, state):
    """What torchvision builds when `state` is the file that it has downloaded for `entry`."""
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    entry = torchvision.models.get_model_weights(name)[entry]
    torch.save(state, folder / entry.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return torchvision.models.get_model_builder(name)(weights=entry).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_transform_input_is_as_torchvision_has_it(monkeypatch, tmp_path, name):
    state = named_builder(name, {"init_weights": False, "aux_logits": True}).build(0).state_dict()
    theirs = with_weights(monkeypatch, tmp_path, name, "IMAGENET1K_V1", state)
    torch.save(state, tmp_path / "c.pth")
    network = load_network(name, checkpoint=tmp_path / "c.pth", model_args={"init_weights": False})
    images = torch.rand(1, 3, 80, 80)
    with torch.inference_mode():
        assert torch.equal(network.model(images), theirs(images))
    assert "transform_input is on" in " ".join(network.notes)
    plain = load_network(
        name,
        checkpoint=tmp_path / "c.pth",
        model_args={"init_weights": False, "transform_input": False},
    )
    with torch.inference_mode():
        assert not torch.equal(plain.model(images), theirs(images))
    assert "transform_input" not in " ".join(plain.notes)


@pytest.mark.slow
def test_other_classes_are_not_the_published_ones(tmp_path):
    options = {"init_weights": False}
    state = named_builder("googlenet", options | {"num_classes": 7}).build(0).state_dict()
    torch.save(state, tmp_path / "c.pth")
    network = load_network("googlenet", checkpoint=tmp_path / "c.pth", model_args=options)
    assert not network.model.transform_input
    assert "needs --model-arg transform_input=true" in " ".join(network.notes)


def frozen(state):
    return {k: v for k, v in state.items() if "backbone.body" not in k or "num_batches" not in k}


@pytest.mark.slow
def test_eps_of_detectors_is_as_torchvision_has_it(monkeypatch, tmp_path):
    name = "retinanet_resnet50_fpn"
    state = frozen(named_builder(name).build(0).state_dict())
    # As small as the usual eps, which then doubles it.
    state["backbone.body.bn1.running_var"] = torch.full((64,), 1e-5)
    theirs = with_weights(monkeypatch, tmp_path, name, "COCO_V1", state)
    torch.save(state, tmp_path / "c.pth")
    network = load_network(name, checkpoint=tmp_path / "c.pth")
    assert "eps of the backbone's batch normalisation is 0" in " ".join(network.notes)
    maps = torch.rand(1, 64, 5, 5)
    with torch.inference_mode():
        ours, expected = network.model.backbone.body.bn1(maps), theirs.backbone.body.bn1(maps)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(expected, maps / 1e-5**0.5)
    kept = named_builder(name, {"eps": 1e-5})
    assert kept.arguments == {"eps": 1e-5}
    assert kept.build(0).backbone.body.layer4[0].bn1.eps == 1e-5
    trained = {k: v + 1 if "num_batches" in k else v
               for k, v in named_builder(name).build(0).state_dict().items()}  # fmt: skip
    torch.save(trained, tmp_path / "c.pth")
    network = load_network(name, checkpoint=tmp_path / "c.pth")
    assert network.model.backbone.body.bn1.eps == 1e-5
    assert "it was trained and not frozen" in " ".join(network.notes)


def test_the_list_of_eps_is_torchvisions():
    """Every builder that calls overwrite_eps, and no other."""
    import inspect
    import sys

    builders = [torchvision.models.get_model_builder(n) for n in torchvision.models.list_models()]
    sources = {
        call.__name__: inspect.getsource(inspect.unwrap(call))
        for call in builders
        if "overwrite_eps" in vars(sys.modules[call.__module__])
    }
    assert {n for n, text in sources.items() if "overwrite_eps(" in text} == {*EPS}


def test_published_sizes_are_known_by_the_table_of_positions(tmp_path):
    """torchvision gives its builder image_size=384 for IMAGENET1K_SWAG_E2E_V1 and others."""
    state = _vit(48).state_dict()
    torch.save(state, tmp_path / "c.pth")
    network = load_network(
        f"{__name__}:_vit", checkpoint=tmp_path / "c.pth", model_args={"image_size": 48}
    )
    assert network.preprocessing.framing.size == 48
    network = load_network(f"{__name__}:_vit", checkpoint=tmp_path / "c.pth")
    assert network.preprocessing.framing.size == 48
    assert network.model.image_size == 48


def _vit(image_size=32):
    from torchvision.models import VisionTransformer

    return VisionTransformer(image_size, 16, 1, 2, 8, 16, num_classes=3)


@pytest.mark.slow
def test_the_images_enter_at_the_size_that_the_arguments_say():
    arguments = {"image_size": 64}
    network = load_network("vit_b_32", weights="none", model_args=arguments)
    assert network.preprocessing.framing.size == 64
    with torch.inference_mode():
        network.model(torch.zeros(1, 3, 64, 64))
    asked = load_network("vit_b_32", weights="none", model_args=arguments, size=96)
    assert asked.preprocessing.framing.size == 96


@pytest.mark.slow
def test_damaged_weights_that_were_kept_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = torchvision.models.get_model_weights("squeezenet1_1")["DEFAULT"]
    kept = tmp_path / "hub" / "checkpoints" / entry.url.rpartition("/")[2]
    kept.parent.mkdir(parents=True)
    whole = named_builder("squeezenet1_1").build(0).state_dict()
    torch.save(whole, kept)
    for content in (kept.read_bytes()[:-2000], b"<html>not found</html>", b""):
        kept.write_bytes(content)
        for arguments in ({}, {"dropout": 0.1}):
            with pytest.raises(natstats.NatstatsError) as caught:
                load_network("squeezenet1_1", model_args=arguments)
            assert str(kept) in str(caught.value)
            assert "delete it" in str(caught.value)
    torch.save({"a": torch.ones(1)}, kept)
    with pytest.raises(natstats.NatstatsError, match="delete it"):
        load_network("squeezenet1_1")


# Networks that take grey


def _grey(**config):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 1, 3, padding=1))
    if config:
        model.pretrained_cfg = config
    return model


def _four():
    return nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))


def test_a_network_of_one_channel_is_given_grey_in_0_to_1():
    network = load_network(f"{__name__}:_grey")
    images = torch.rand(2, 3, 16, 16)
    # ITU-R BT.601, as Pillow's mode L.
    grey = (0.299 * images[:, 0] + 0.587 * images[:, 1] + 0.114 * images[:, 2])[:, None]
    torch.testing.assert_close(network.preprocessing.normalize(images), grey)
    assert "0.299 R + 0.587 G + 0.114 B, in [0, 1]" in " ".join(network.notes)


def test_a_grey_network_that_names_a_normalisation_is_given_it():
    arguments = {"input_size": (1, 28, 28), "mean": (0.1307,), "std": (0.3081,)}
    network = load_network(f"{__name__}:_grey", model_args=arguments)
    assert (network.preprocessing.mean, network.preprocessing.std) == ((0.1307,), (0.3081,))
    arguments |= {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2)}
    network = load_network(f"{__name__}:_grey", model_args=arguments)
    assert network.preprocessing.mean == pytest.approx((0.299 * 0.5 + 0.587 * 0.4 + 0.114 * 0.3,))
    assert network.preprocessing.std == pytest.approx((0.2,))


@pytest.mark.slow
def test_photographs_through_networks_of_one_and_four_channels():
    photographs = demo.photographs()
    options = {"limit": 4, "size": 32}
    run = natstats.measure(_grey(), photographs, **options)
    assert list(run.layers.layer[-2:]) == ["0", "2"]
    assert any("photographs enter in grey" in note for note in run.info["warnings"])
    assert not any("ImageNet" in note for note in run.info["warnings"])
    arrays = natstats.measure(_grey(), torch.rand(4, 1, 32, 32))
    assert not any("grey" in note for note in arrays.info["warnings"])
    with pytest.raises(natstats.NatstatsError, match=r"give an array \(N, 4, H, W\)"):
        natstats.measure(_four(), photographs, **options)
    assert len(natstats.measure(_four(), torch.rand(4, 4, 32, 32)).layers) >= 2


def test_a_network_that_takes_three_channels_is_given_colour():
    model = nn.ModuleDict({"luma": nn.Conv2d(1, 4, 3), "rgb": nn.Conv2d(3, 4, 3)})
    assert copy.deepcopy(natstats.networks.preprocessing.configured(model)) is None
