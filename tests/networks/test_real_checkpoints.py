"""Files as other people write them: found, carried over, or named with the option that helps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision.models
from torch import nn

import natstats
from natstats.networks.builders import Classifier
from natstats.networks.fitting import _transformers
from natstats.networks.load import load_network
from natstats.networks.state_keys import locate, with_classifier
from natstats.networks.zoo import cifar_resnet

WEIGHTS = Path(__file__).parents[3].joinpath("shared/data/weights")


@pytest.fixture
def load(tmp_path):
    def write_and_load(content, name="cifar_resnet8", **options):
        torch.save(content, tmp_path / "c.pth")
        return load_network(name, checkpoint=tmp_path / "c.pth", **options)

    return write_and_load


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(1)
    return cifar_resnet(8).state_dict()


@pytest.fixture(scope="module")
def trunk(resnet):
    return {key: value for key, value in resnet.items() if not key.startswith("fc.")}


def started(start, state):
    return {f"{start}{key}": value for key, value in state.items()}


def plus(state, amount):
    return {k: v + amount if v.is_floating_point() else v for k, v in state.items()}


def is_loaded(model, state):
    own = model.state_dict()
    return all(torch.equal(own[key], value) for key, value in state.items())


# Classifiers under another name


@pytest.mark.parametrize("name", ["linear", "classifier.1", "fc.2", "probe.head.out", "last_layer"])
@pytest.mark.parametrize("start", ["", "module.net."])
def test_a_classifier_of_the_fitting_shape_is_carried_over(load, resnet, trunk, name, start):
    own = {f"{name}.weight": resnet["fc.weight"], f"{name}.bias": resnet["fc.bias"]}
    network = load(started(start, trunk | own))
    assert is_loaded(network.model, resnet)
    assert f"{name} of the checkpoint was taken for the network's fc" in " ".join(network.notes)
    assert "at random" not in " ".join(network.notes)


def test_a_classifier_beside_the_trunk_is_carried_over(load, resnet, trunk):
    head = {"model.probe.weight": resnet["fc.weight"], "model.probe.bias": resnet["fc.bias"]}
    network = load({"state_dict": started("model.trunk.", trunk) | head})
    assert is_loaded(network.model, resnet)
    assert "left out" not in " ".join(network.notes)


@pytest.mark.parametrize("n_classes", [10, 17, 100])
def test_a_carried_classifier_brings_its_number_of_classes(load, n_classes):
    state = cifar_resnet(8, n_classes).state_dict()
    renamed = {key.replace("fc.", "linear."): value for key, value in state.items()}
    network = load(renamed, "cifar_resnet8")
    assert is_loaded(network.model, state)
    assert network.model.fc.out_features == n_classes


def test_where_there_is_a_choice_nothing_is_carried_over(load, resnet, trunk):
    two = {f"{name}.{part}": resnet[f"fc.{part}"] for name in "ab" for part in ("weight", "bias")}
    network = load(trunk | two)
    assert "lacks a fitting classifier" in network.notes[0]


def test_a_projection_or_a_foreign_classifier_is_none(load, resnet, trunk):
    projection = {"projector.weight": torch.ones(128, 64), "projector.bias": torch.ones(128)}
    network = load(trunk | projection)
    assert network.model.fc.out_features == 10
    assert "lacks a fitting classifier" in network.notes[0]
    # The teacher's classifier fits in shape, and is the teacher's.
    wide = {k: v.repeat(2, *[1] * (v.ndim - 1)) if v.ndim else v for k, v in trunk.items()}
    teacher = wide | {k: v for k, v in resnet.items() if k.startswith("fc.")}
    network = load(started("student.", trunk) | started("teacher.", teacher))
    assert "lacks a fitting classifier" in " ".join(network.notes)


def test_layers_with_other_parameters_or_fixed_classes_are_left():
    own = {"conv.weight": torch.ones(4, 3, 1, 1), "fc.weight": torch.ones(5, 4)}
    classifier = Classifier(("fc.weight",), {"fc.weight": (0, 1, 0)})
    for state, is_carried in (
        ({"last.weight": torch.ones(5, 4)}, True),
        ({"last.weight": torch.ones(6, 4)}, False),
        ({"last.weight": torch.ones(5, 4), "last.bias": torch.ones(5)}, False),
        ({"last.weight": torch.ones(5, 4), "last.running_mean": torch.ones(5)}, False),
    ):
        found = locate(own, {"conv.weight": own["conv.weight"]} | state, "c.pth")
        assert ("fc.weight" in with_classifier(found, own, classifier, False).state) is is_carried


class Both(nn.Module):
    """Option A as the code has it whose files call the classifier ``linear``: a quarter of the
    channels on either side of the old ones, zeros."""

    def __init__(self, planes):
        super().__init__()
        self.planes = planes

    def forward(self, x):
        sides = (0, 0, 0, 0, self.planes // 4, self.planes // 4)
        return nn.functional.pad(x[:, :, ::2, ::2], sides, "constant", 0)


def test_shortcuts_of_code_that_says_linear_pad_both_sides(load):
    state = cifar_resnet(8).eval().state_dict()
    renamed = {key.replace("fc.", "linear."): value for key, value in state.items()}
    network = load(started("module.", renamed), "cifar_resnet8")
    reference = cifar_resnet(8).eval()
    reference.load_state_dict(state)
    reference.stage2[0].shortcut, reference.stage3[0].shortcut = Both(32), Both(64)
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(network.model(images), reference(images))
    assert "zeros on both sides" in " ".join(network.notes)
    behind = load(renamed, "cifar_resnet8", model_args={"shortcut": "pad"})
    with torch.inference_mode():
        assert not torch.equal(behind.model(images), reference(images))
    assert not any("both sides" in note for note in load(state, "cifar_resnet8").notes)


@pytest.mark.parametrize("depth", [20, 56])
def test_real_files_can_teach(depth):
    from natstats.distill import Distillation  # noqa: F401
    from natstats.distill.training.setup import refuse_random_classifier

    path = WEIGHTS / f"cifar10_resnet{depth}_b.th"
    if not path.exists():
        pytest.skip("the real weights are not here")
    network = load_network(f"cifar_resnet{depth}", checkpoint=path)
    refuse_random_classifier(network)
    saved = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    assert torch.equal(network.model.fc.weight, saved["module.linear.weight"])


# Where the network is in the file


@pytest.fixture(scope="module")
def moco(trunk):
    """As MoCo v2 writes: two encoders, each with a projection called fc, and a queue."""
    head = {"fc.0.weight": torch.ones(64, 64), "fc.0.bias": torch.ones(64),
            "fc.2.weight": torch.ones(128, 64), "fc.2.bias": torch.ones(128)}  # fmt: skip
    state = started("module.encoder_q.", trunk | head)
    state |= started("module.encoder_k.", plus(trunk, 1) | head)
    state |= {"module.queue": torch.ones(128, 16), "module.queue_ptr": torch.zeros(1)}
    return {"epoch": 3, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}


def test_an_encoder_of_two_is_named_as_the_message_says(load, trunk, moco):
    with pytest.raises(natstats.NatstatsError, match=r"encoder_k, encoder_q; .*--checkpoint-key"):
        load(moco)
    for key in ("encoder_q", "module.encoder_q"):
        assert is_loaded(load(moco, checkpoint_key=key).model, trunk)
    assert is_loaded(load(moco, checkpoint_key="encoder_k").model, plus(trunk, 1))
    with pytest.raises(natstats.UsageError, match="got 'encoder', and it has .*encoder_q, encod"):
        load(moco, checkpoint_key="encoder")


@pytest.mark.parametrize("start", ["backbone.", "net.", "model.online_encoder.net.", "a.b.c.d."])
def test_a_network_in_others_is_found(load, resnet, start):
    state = started(start, resnet) | {"target.queue": torch.ones(8, 4)}
    assert is_loaded(load(state).model, resnet)
    top = start.split(".")[0]
    assert is_loaded(load({"state_dict": state}, checkpoint_key=top).model, resnet)


def test_a_key_is_found_among_others_unless_there_are_two(load, resnet):
    state = started("student.module.backbone.", resnet)
    assert is_loaded(load({"ckpt": state}, checkpoint_key="backbone").model, resnet)
    both = state | started("teacher.backbone.", resnet)
    with pytest.raises(natstats.UsageError, match=r"it is in student.module.backbone, teacher.b"):
        load(both, checkpoint_key="backbone")
    assert is_loaded(load(both, checkpoint_key="teacher.backbone").model, resnet)


def test_dictionaries_in_dictionaries_are_searched(load, resnet, trunk):
    head = {"weight": resnet["fc.weight"], "bias": resnet["fc.bias"]}
    content = {"models": {"encoder": trunk, "probe": head}, "optimizer": {"w": torch.ones(2)}}
    assert is_loaded(load(content).model, resnet)
    assert is_loaded(load(content, checkpoint_key="models").model, resnet)
    assert is_loaded(load(content, checkpoint_key="encoder").model, trunk)


@pytest.mark.slow
def test_densenets_of_old_torchvision_have_dots(load):
    """The published files: torchvision renames these keys with a pattern of its own."""
    state = torchvision.models.densenet121(weights=None).state_dict()
    dotted = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key): value
        for key, value in state.items()
        if not key.endswith("num_batches_tracked")
    }
    assert "features.denseblock4.denselayer16.norm.2.running_var" in dotted
    network = load(started("module.", dotted), "densenet121")
    assert is_loaded(network.model, {k: v for k, v in state.items() if "num_batches" not in k})
    assert "norm.1.weight to features" in " ".join(network.notes)


@pytest.mark.parametrize("restart", [False, True])
def test_blocks_in_chunks_are_counted_through(restart):
    """DINOv2 counts on from chunk to chunk; others begin again."""
    own = {f"blocks.{n}.fc.weight": torch.full((2, 2), float(n)) for n in range(12)}
    own["norm.weight"] = torch.ones(3)
    chunked = {
        re.sub(r"blocks\.(\d+)", lambda m: _chunk(int(m[1]), restart), key): value
        for key, value in own.items()
    }
    for start in ("", "teacher.backbone."):
        found = locate(own, started(start, chunked), "c.pth").state
        assert found.keys() == own.keys()
        assert all(torch.equal(found[key], own[key]) for key in own)


def _chunk(n, restart):
    return f"blocks.{n // 4}.{n % 4 if restart else n}"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [("Stage1_Conv.weight", "stage1.conv.weight"), ("a.1.11.weight", "a.11.1.weight")],
)
def test_styles_of_keys_are_joined_only_where_numbers_agree(theirs, ours):
    own = {ours: torch.ones(3), "head.weight": torch.ones(2)}
    found = locate(own, {theirs: torch.zeros(3), "head.weight": torch.ones(2)}, "c.pth").state
    assert (ours in found) is (theirs != "a.1.11.weight")
    other = locate(own, {theirs: torch.zeros(4), "head.weight": torch.ones(2)}, "c.pth").state
    assert ours not in other


def test_what_masked_training_adds_is_left_out(load, resnet):
    extra = {"mask_token": torch.ones(1, 1, 8), "decoder_blocks.0.w": torch.ones(4, 4, 4, 4)}
    network = load(resnet | extra)
    assert is_loaded(network.model, resnet)
    assert "2 keys of the checkpoint are not in the model (mask_token" in network.notes[0]


def test_not_strict_speaks_of_random_weights_only_if_there_are(load, resnet):
    network = load(resnet | {"layer5.weight": torch.ones(2)}, strict=False)
    assert "1 are unknown (layer5.weight); everything before the classifier" in network.notes[-1]
    assert "random" not in network.notes[-1]
    short = {key: value for key, value in resnet.items() if "stage2" not in key}
    assert "the rest is random" in load(short, strict=False).notes[-1]


@pytest.mark.slow
def test_files_of_vision_transformers_into_timms(load):
    timm = pytest.importorskip("timm", reason="timm is an extra")
    name = "vit_tiny_patch16_224"
    state = timm.create_model(name, img_size=32, num_classes=3).state_dict()
    arguments = {"img_size": 32}
    mae = {k: v for k, v in state.items() if not k.startswith("head.")}
    mae |= {"mask_token": torch.ones(1, 1, 8), "decoder_pos_embed": torch.ones(1, 5, 8)}
    network = load({"model": mae}, f"timm:{name}", model_args=arguments)
    assert is_loaded(network.model, {k: v for k, v in mae.items() if k in state})
    # The table of positions says for what size of image the network was.
    network = load(state, f"timm:{name}")
    assert is_loaded(network.model, state)
    assert network.preprocessing.framing.size == 32
    assert "images of 32 pixels" in " ".join(network.notes)
    assert "timm:vit_tiny_patch16_*" in _transformers(started("net.", state))[0]
