"""Networks by name: their weights, arguments and preprocessing."""

from __future__ import annotations

import pytest
import torch
import torchvision.models

import natstats
from natstats.images.sources import Framing
from natstats.networks.builders import named_builder
from natstats.networks.load import load_network
from natstats.networks.preprocessing import Preprocessing
from natstats.networks.random_weights import with_random_weights

NAME = "squeezenet1_1"


def test_random_weights_are_on_purpose_and_the_same_for_a_seed():
    one, again, other = (load_network(NAME, weights="none", seed=s) for s in (0, 0, 1))
    assert not one.trained
    assert "untrained" in one.notes[0]
    assert one.digest() == again.digest() != other.digest()


def test_building_leaves_the_random_state_alone():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    load_network(NAME, weights="none", seed=5)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.slow
def test_preprocessing_is_that_of_the_published_weights():
    plain = load_network("resnet50", weights="none")  # IMAGENET1K_V2: crop 224, resize 232
    assert plain.preprocessing.framing == Framing(224, 232, "bilinear")
    sized = load_network("resnet50", weights="none", size=112)
    assert sized.preprocessing.framing == Framing(112, 116, "bilinear")


@pytest.mark.slow
def test_random_weights_take_images_of_the_size_that_they_were_built_for(monkeypatch):
    # As of vit_h_14, whose published weights take 518 pixels; it is too large for a test.
    of_published = Preprocessing(Framing(518, 518))
    monkeypatch.setattr("natstats.networks.load.published", lambda *given: (of_published, None))
    network = load_network("vit_b_32", weights="none")
    assert network.preprocessing.framing == Framing(224, 224)


def test_normalisation():
    images = torch.rand(2, 3, 4, 4)
    preprocessing = natstats.Preprocessing()
    back = preprocessing.normalize(images) * torch.tensor(preprocessing.std).view(1, 3, 1, 1)
    torch.testing.assert_close(back + torch.tensor(preprocessing.mean).view(1, 3, 1, 1), images)


def test_a_checkpoint_brings_its_weights(tmp_path):
    torch.manual_seed(1)
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "c.pth")
    network = load_network(NAME, checkpoint=tmp_path / "c.pth")
    assert network.trained
    assert network.weights == f"checkpoint {tmp_path / 'c.pth'}"
    assert network.notes == ()
    assert all(torch.equal(v, state[k]) for k, v in network.model.state_dict().items())
    assert not network.model.training


@pytest.mark.slow
def test_arguments_of_a_builder():
    network = load_network("resnet18", weights="none", model_args={"num_classes": 3})
    assert network.model.fc.out_features == 3
    wide = load_network(
        "resnet18", weights="none", model_args={"replace_stride_with_dilation": None}
    )
    assert wide.model.fc.out_features == 1000


@pytest.mark.slow
def test_the_control_of_a_network_has_its_arguments_and_classes(tmp_path):
    state = named_builder("resnet18", {"num_classes": 3}).build(1).state_dict()
    torch.save(state, tmp_path / "c.pth")
    rebuilt = load_network("resnet18", checkpoint=tmp_path / "c.pth")
    asked = load_network("resnet18", weights="none", model_args={"num_classes": 3})
    for network in (rebuilt, asked):
        control = with_random_weights(network, 5)
        assert control.model.fc.out_features == 3
        expected = named_builder("resnet18", {"num_classes": 3}).build(5)
        assert torch.equal(control.model.conv1.weight, expected.conv1.weight)
        assert not control.trained


def test_a_network_is_unwrapped():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    assert natstats.Network(torch.nn.DataParallel(model), "mine", "as given").model is model


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: load_network("resnet51"), "model: .*did you mean resnet50"),
        (lambda: load_network(NAME, weights="IMAGENET"), "weights: .*IMAGENET1K_V1"),
        (lambda: load_network("cifar_resnet20"), "no published weights"),
        (lambda: load_network(NAME, checkpoint="nowhere.pth"), "there is none at nowhere.pth"),
        (lambda: load_network(NAME, weights="none", size=2), "size: .*at least 5; got 2"),
        (
            lambda: load_network(NAME, weights="IMAGENET1K_V1", checkpoint="c.pth"),
            "weights: expected not to be given beside a checkpoint",
        ),
        (
            lambda: load_network(NAME, weights="none", checkpoint="c.pth"),
            "weights: expected not to be given beside a checkpoint",
        ),
        (lambda: load_network(NAME, checkpoint_key="ema"), "checkpoint_key: .*beside a checkpoint"),
        (lambda: load_network(NAME, takes="movies"), "takes: expected one of images"),
        (
            lambda: load_network(NAME, model_args={"depth": 3}),
            f"model_args: .*{NAME}; got depth=3: it takes version, num_classes, dropout",
        ),
        (
            lambda: load_network("resnet18", model_args={"num_classes": "x"}),
            "model_args: .*got num_classes='x': ",
        ),
        (
            lambda: load_network("resnet18", model_args={"pretrained": True}),
            "other than pretrained",
        ),
        (
            lambda: load_network("cifar_resnet20", weights="none", model_args={"depth": 3}),
            "it takes num_classes",
        ),
        (
            lambda: load_network("resnet18", model_args={"num_classes": 3}),
            "model_args: .*num_classes=3: .*1000 but got 3",
        ),
    ],
)
def test_errors_name_what_is_wrong(call, words):
    with pytest.raises(natstats.NatstatsError, match=words):
        call()


def test_weights_not_downloaded_say_how_to_give_a_file(monkeypatch, tmp_path):
    def no_network(*arguments, **options):
        raise OSError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    with pytest.raises(natstats.NatstatsError, match="--checkpoint.*--weights none") as caught:
        load_network(NAME)
    assert "Name or service not known" in str(caught.value)
