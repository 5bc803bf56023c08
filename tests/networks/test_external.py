"""Networks from the user's own modules and from timm, and what is said of them."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

import natstats
from natstats.images.sources import Framing
from natstats.networks.load import load_network
from natstats.networks.preprocessing import configured
from natstats.networks.random_weights import check_control, with_random_weights
from natstats.networks.zoo import CifarResNet, cifar_resnet

MODULE = """
import torch
import natstats
from natstats.networks.zoo import cifar_resnet
from torch import nn

def small(depth=8, *, width: int = 4, scale=1.0):
    torch.nn.init.zeros_(torch.empty(1))
    import helper_of_factories
    return cifar_resnet(depth)

def whole():
    return natstats.Network(cifar_resnet(8), "mine", "from a friend", takes="images",
                            notes=("be careful",))

def described():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.default_cfg = {"input_size": (3, 64, 64), "crop_pct": 0.8, "interpolation": "bicubic",
                         "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    return model

def parallel():
    return nn.DataParallel(cifar_resnet(8))

def scores(num_classes=10):
    return cifar_resnet(8, num_classes)

def both():
    return cifar_resnet(8), nn.CrossEntropyLoss()

def broken():
    raise ZeroDivisionError("no depth")

def leaves():
    raise SystemExit(3)

class Zoo:
    tiny = cifar_resnet(8)

class Net(nn.Sequential):
    def __init__(self, channels=2):
        super().__init__(nn.Conv2d(3, channels, 3), nn.ReLU())
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A current directory with a module of factories in it."""
    (tmp_path / "factories_of_test.py").write_text(MODULE)
    (tmp_path / "helper_of_factories.py").write_text("")
    (tmp_path / "broken_factories.py").write_text("import nothing_of_this_name")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("factories_of_test", "helper_of_factories"):
        sys.modules.pop(name, None)


def load(factory, **options):
    return load_network(f"factories_of_test:{factory}", **options)


def test_a_factory_is_found_from_the_current_directory(here):
    before = list(sys.path)
    network = load("small", model_args={"depth": 14})
    assert sys.path == before
    assert len([m for m in network.model.modules() if isinstance(m, nn.Conv2d)]) == 13
    assert not network.model.training


def test_classes_instances_and_wrapped_networks(here):
    assert load("Net", model_args={"channels": 5}).model[0].out_channels == 5
    assert isinstance(load("Zoo.tiny").model, CifarResNet)
    assert isinstance(load("parallel").model, CifarResNet)
    with pytest.raises(natstats.UsageError, match="model_args: expected none, as .*is no function"):
        load("Zoo.tiny", model_args={"depth": 3})


def test_weights_are_the_factorys_and_the_unknown_is_said(here):
    network = load("small")
    assert network.weights == "as built by factories_of_test:small"
    assert network.trained is None
    assert "whether the network is trained is not known" in network.notes[0]
    assert "ImageNet's is used" in network.notes[1]
    untrained = load("small", weights="none")
    assert untrained.trained is False
    assert load("small", seed=1).digest() == load("small", seed=1).digest() != network.digest()


def test_a_factory_may_return_a_network_and_what_is_known(here):
    network = load("whole")
    assert network.name == "factories_of_test:whole"
    assert network.weights == "as built by factories_of_test:whole: from a friend"
    assert network.notes == ("be careful",)
    assert network.trained


def test_what_a_network_says_of_its_preprocessing_is_used(here):
    preprocessing = load("described").preprocessing
    assert preprocessing.framing == Framing(64, 80, "bicubic")
    assert preprocessing.mean == (0.5,) * 3
    assert preprocessing.std == (0.25,) * 3
    assert load("described", size=32).preprocessing.framing == Framing(32, 40, "bicubic")


@pytest.mark.parametrize("config", [{"input_size": "big"}, {"mean": 3}, "text", {"crop_pct": []}])
def test_what_only_looks_like_a_description_is_left_alone(config):
    model = nn.Conv2d(3, 4, 3)
    model.pretrained_cfg = config
    assert configured(model) is None or config == {"crop_pct": []}


def test_a_checkpoint_into_a_factorys_network(here):
    state = cifar_resnet(8, 3).state_dict()
    torch.save({f"net.{k}": v for k, v in state.items()}, "c.pth")
    network = load("scores", checkpoint="c.pth")
    assert network.trained
    assert network.model.fc.out_features == 3
    assert "has 3 classes" in "".join(network.notes)
    assert not any("is not known" in note for note in network.notes)
    fixed = load("small", checkpoint="c.pth")
    assert "lacks a fitting classifier (fc.weight, fc.bias)" in "".join(fixed.notes)


def test_the_control_of_a_factorys_network_resets_a_copy(here):
    """What the factory returns may be trained, so it is not called for it."""
    network = load("small")
    check_control(network, 0)
    control = with_random_weights(network, 3)
    assert control.digest() != network.digest()
    assert control.trained is False
    with pytest.raises(natstats.UsageError, match="control: expected a trained network"):
        check_control(load("small", weights="none"), 0)


def test_a_form_of_input_can_be_given(here):
    assert load("small", takes="list").takes == "list"
    assert load("small").takes == "images"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nothing_at_all:f", {}, "can be imported, nothing_at_all; ModuleNotFoundError: No module"),
        ("broken_factories:f", {}, "broken_factories; ModuleNotFoundError: .*nothing_of_this_name"),
        ("factories_of_test:smal", {}, "expected one of .*got 'smal'.*did you mean small"),
        (
            "factories_of_test:",
            {},
            "model: expected package.module:factory; got 'factories_of_test:'",
        ),
        (":small", {}, "model: expected package.module:factory"),
        ("factories_of_test:both", {}, "what .*:both returns: .*a tuple of CifarResNet, CrossEnt"),
        ("factories_of_test:broken", {}, r"broken\(\) .*ZeroDivisionError: no depth"),
        ("factories_of_test:leaves", {}, "SystemExit: 3"),
        (
            "factories_of_test:small",
            {"model_args": {"deep": 3}},
            "model_args: .*which takes depth=8, width: .?int.? = 4, scale=1.0; .*'deep'",
        ),
        (
            "factories_of_test:small",
            {"model_args": {"depth": 9}},
            "small.depth=9.*UsageError: depth",
        ),
        (
            "factories_of_test:small",
            {"weights": "V1"},
            "weights: expected default, none or a check",
        ),
    ],
)
def test_errors_are_a_sentence_with_the_reason(here, name, options, words):
    with pytest.raises(natstats.NatstatsError, match=words):
        load_network(name, **options)


# timm


def fake_timm(trained=None):
    """As much of timm as is used of it."""
    timm = types.ModuleType("timm")

    class Tiny(nn.Sequential):
        def __init__(self, num_classes=1000, channels=4):
            super().__init__(
                nn.Conv2d(3, channels, 3), nn.Flatten(), nn.Linear(channels, num_classes)
            )
            self.pretrained_cfg = {"input_size": (3, 96, 96), "crop_pct": 0.96, "tag": "in1k",
                                   "interpolation": "bicubic"}  # fmt: skip

    def create_model(model_name, pretrained=False, checkpoint_path=None, **kwargs):
        model = Tiny(**kwargs)
        if pretrained:
            if trained is None:
                raise OSError("the hub cannot be reached")
            nn.init.constant_(model[0].weight, trained)
        return model

    timm.create_model = create_model
    timm.list_models = lambda *a, **k: ["tiny", "tinier"]
    timm.is_model = lambda name: name.partition(".")[0] in timm.list_models()
    timm.list_pretrained = lambda pattern: ["tiny.in1k", "tiny.in22k"]
    return timm


def test_timm_untrained(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    network = load_network("timm:tiny", weights="none", model_args={"channels": 6})
    assert network.model[0].out_channels == 6
    assert network.preprocessing.framing == Framing(96, 100, "bicubic")
    assert network.trained is False
    assert not torch.equal(with_random_weights(network, 9).model[0].weight, network.model[0].weight)


def test_timm_published(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", fake_timm(trained=3.0))
    network = load_network("timm:tiny")
    assert network.trained
    assert network.weights == "timm tiny.in1k"
    assert float(network.model[0].weight.detach().mean()) == 3.0
    assert load_network("timm:tiny", weights="in22k").weights == "timm tiny.in22k"
    control = with_random_weights(network, 0)
    assert float(control.model[0].weight.detach().abs().max()) < 1.0


def test_a_checkpoint_into_a_network_of_timm(monkeypatch, tmp_path):
    timm = fake_timm()
    monkeypatch.setitem(sys.modules, "timm", timm)
    torch.save(timm.create_model("tiny", num_classes=5).state_dict(), tmp_path / "c.pth")
    network = load_network("timm:tiny", checkpoint=tmp_path / "c.pth")
    assert network.model[2].out_features == 5


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("timm:tiniest", {}, "model: .*did you mean timm:tini?"),
        ("timm:tiny", {}, "weights: expected to download.*hub cannot be reached.*--checkpoint"),
        ("timm:tiny", {"weights": "in2k"}, "weights: expected one of in1k, in22k; got 'in2k'"),
        ("timm:tiny", {"model_args": {"pretrained": True}}, "other than pretrained"),
        (
            "timm:tiny",
            {"weights": "none", "model_args": {"deep": 1}},
            "model_args: .*timm:tiny; got deep=1: it takes .*num_classes, channels",
        ),
    ],
)
def test_errors_with_timm(monkeypatch, name, options, words):
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    with pytest.raises(natstats.NatstatsError, match=words):
        load_network(name, **options)


def test_without_timm_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(
        natstats.UsageError, match=r"timm to be installed.*pip install 'natstats\[timm\]'"
    ):
        load_network("timm:convnext_tiny")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_real_timm():
    pytest.importorskip("timm", reason="timm is an extra")
    network = load_network("timm:resnet18", weights="none", model_args={"num_classes": 4})
    assert network.model.fc.out_features == 4
    assert network.preprocessing.framing.size == 224
    with pytest.raises(natstats.UsageError, match=r"model: .*did you mean timm:resnet"):
        load_network("timm:resnet19")


@pytest.mark.slow
def test_a_note_on_normalising_stands_only_where_it_was_done():
    network = natstats.load_network("natstats.networks.zoo:cifar_resnet", model_args={"depth": 8})
    run = natstats.measure(network, torch.rand(4, 3, 32, 32))
    assert not any("normalised" in note for note in run.info["warnings"])


@pytest.mark.parametrize("error", [AttributeError, KeyError, ZeroDivisionError])
def test_an_error_in_the_forward_pass_is_the_models(error):
    class Broken(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 3)

        def forward(self, images):
            raise error("zz")

    with pytest.raises(natstats.NatstatsError, match=f"forward pass failed: {error.__name__}: "):
        natstats.measure(Broken(), torch.rand(4, 3, 32, 32))
