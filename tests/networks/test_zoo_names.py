"""Networks of ours by name: from the command line, with checkpoints, measured whole."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.models

import natstats
from natstats.networks.builders import is_name, named_builder, network_names, recognised
from natstats.networks.load import load_network
from natstats.networks.random_weights import with_random_weights
from natstats.networks.zoo import NETWORKS, named_network, with_our_keys


def images(n=8, side=32):
    return np.random.default_rng(0).random((n, 3, side, side), dtype=np.float32)


def test_the_listed_names_are_the_published_networks():
    assert {
        "cifar_resnet8", "cifar_resnet14", "cifar_resnet20", "cifar_resnet32", "cifar_resnet44",
        "cifar_resnet56", "cifar_resnet110", "cifar_resnet8x4", "cifar_resnet32x4", "wrn_16_1",
        "wrn_16_2", "wrn_16_4", "wrn_28_2", "wrn_28_4", "wrn_28_10", "wrn_40_1", "wrn_40_2",
        "pyramidnet_110_84", "pyramidnet_200_240", "mobilenet_v1",
    } <= set(NETWORKS)  # fmt: skip
    assert not set(NETWORKS) & set(torchvision.models.list_models())
    assert set(NETWORKS) <= set(network_names())
    assert all(network.name == name for name, network in NETWORKS.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_every_name_takes_the_number_of_classes(name):
    builder = named_builder(name)
    assert builder.takes_classes()
    shapes = builder.shapes(num_classes=23)
    assert shapes["fc.weight"][0] == 23
    assert set(builder.classifier(torch.nn.Identity()).keys) == {"fc.weight", "fc.bias"}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wrn_22_3", "wrn_10_1", "cifar_resnet26", "cifar_resnet14x4"])
def test_a_valid_name_need_not_be_listed(name):
    network = load_network(name, weights="none", model_args={"num_classes": 5})
    assert network.model.fc.out_features == 5
    assert is_name(name)
    assert not network.trained
    again = with_random_weights(network, 0)
    assert again.digest() == network.digest()
    assert with_random_weights(network, 1).digest() != network.digest()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrn_17_2", r"model: expected wrn_D_K with D = 6 n \+ 4 \(10, ...\); got 'wrn_17_2'"),
        ("wrn_4_2", "expected wrn_D_K"),
        ("cifar_resnet18", r"expected cifar_resnetD with D = 6 n \+ 2 \(8, ...\); got 'cif"),
        ("cifar_resnet2", "expected cifar_resnetD"),
        ("cifar_resnet9x4", "expected cifar_resnetDx4 with D"),
        ("wrn_16_0", "model: expected one of .*did you mean .*wrn_16_1"),
        ("wrn_16", "did you mean .*wrn_16_"),
        ("wrn_16_2 ", "did you mean .*wrn_16_2"),
        ("wrn_016_2", "did you mean .*wrn_16_2"),
        ("cifar_resnet20x3", "did you mean .*cifar_resnet20"),
        ("pyramidnet_110_48", "did you mean .*pyramidnet_110_84"),
        ("mobilenet_v4", "did you mean .*mobilenet_v"),
    ],
)
def test_a_name_that_there_is_not_says_what_is(name, words):
    with pytest.raises(natstats.UsageError, match=words):
        load_network(name, weights="none")
    assert not is_name(name)


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("wrn_16_2", {"num_classes": 0}, "wrn_16_2; got num_classes=0: num_classes: expected .* 1"),
        ("wrn_16_2", {"num_classes": "ten"}, "num_classes: expected a whole number .*got 'ten'"),
        ("wrn_16_2", {"depth": 28}, "got depth=28: it takes num_classes, dropout$"),
        ("wrn_16_2", {"widen": 4}, "got widen=4: it takes num_classes, dropout$"),
        ("wrn_16_2", {"dropout": 2.0}, "dropout: expected a probability"),
        ("wrn_16_2", {"pretrained": True}, "other than pretrained"),
        (
            "cifar_resnet56",
            {"shortcut": "A"},
            "shortcut: .* pad, conv, pad-both; got 'A'",
        ),
        ("cifar_resnet8x4", {"depth": 20}, "it takes num_classes, shortcut$"),
        ("pyramidnet_110_84", {"alpha": 48}, "got alpha=48: it takes num_classes$"),
        ("mobilenet_v1", {"width": -1}, "width: expected a number above 0; got -1"),
    ],
)
def test_bad_arguments_are_usage_errors(name, arguments, words):
    with pytest.raises(natstats.UsageError, match=words):
        load_network(name, weights="none", model_args=arguments)


def test_sizes_are_those_that_the_networks_were_made_for():
    for name in NETWORKS:
        framing = named_network(name).framing
        expected = (224, 256) if name == "mobilenet_v1" else (32, 32)
        assert (framing.size, framing.resize) == expected, name
    network = load_network("mobilenet_v1", weights="none", model_args={"width": 0.25})
    assert network.preprocessing.framing.size == 224
    assert load_network("wrn_10_1", weights="none").preprocessing.framing.size == 32


@pytest.mark.slow
def test_the_page_has_every_listed_network_with_its_size():
    page = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) M \| (\d+) \|", page, re.MULTILINE)
    assert [name for name, _, _ in rows] == [*NETWORKS]
    for name, millions, n_classes in rows:
        with torch.device("meta"):
            net = named_network(name).build(num_classes=int(n_classes))
        count = sum(weight.numel() for weight in net.parameters())
        assert f"{count / 1e6:.2f}" == millions, name


def test_no_weights_are_published():
    with pytest.raises(natstats.UsageError, match="wrn_16_2, which has no published weights"):
        load_network("wrn_16_2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("wrn_10_2", {}),
        ("cifar_resnet8x4", {}),
        ("cifar_resnet14", {"shortcut": "conv"}),
        ("mobilenet_v1", {"width": 0.25}),
    ],
)
def test_a_checkpoint_with_other_classes_is_loaded(tmp_path, name, arguments):
    state = named_builder(name, {**arguments, "num_classes": 13}).build(3).state_dict()
    torch.save(state, tmp_path / "c.pth")
    network = load_network(name, checkpoint=tmp_path / "c.pth", model_args=arguments)
    assert network.model.fc.out_features == 13
    assert all(torch.equal(state[k], v) for k, v in network.model.state_dict().items())
    assert network.notes == (
        "the checkpoint has 13 classes, and the network was built with as many",
    )


# How RepDistiller, Overhaul and mdistiller name what they train, as patterns on our keys.
PUBLIC = {
    "wrn_10_2": [(r"^stage(\d)\.", r"block\1.layer."), (r"shortcut\.", "convShortcut.")],
    "cifar_resnet8x4": [
        (r"^stage(\d)\.", r"layer\1."),
        (r"shortcut\.conv", "downsample.0"),
        (r"shortcut\.bn", "downsample.1"),
    ],
    "pyramidnet_110_84": [(r"^stage(\d)\.", r"layer\1.")],
    "mobilenet_v1": [
        (r"^conv1", "model.0.0"),
        (r"^bn1", "model.0.1"),
        (r"^blocks\.(\d+)\.", lambda m: f"model.{int(m[1]) + 1}."),
        (r"(model\.\d+)\.depthwise", r"\1.0"),
        (r"(model\.\d+)\.bn1", r"\1.1"),
        (r"(model\.\d+)\.pointwise", r"\1.3"),
        (r"(model\.\d+)\.bn2", r"\1.4"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", PUBLIC)
def test_checkpoints_of_public_code_fit(tmp_path, name, prefix):
    state = named_builder(name).build(5).state_dict()
    public = {}
    for key, value in state.items():
        for pattern, theirs in PUBLIC[name]:
            key = re.sub(pattern, theirs, key)
        public[prefix + key] = value
    assert len(public) == len(state)
    assert len(public.keys() & state.keys()) < len(state) / 2
    torch.save({"state_dict": public}, tmp_path / "c.pth")
    network = load_network(name, checkpoint=tmp_path / "c.pth")
    assert all(torch.equal(state[k], v) for k, v in network.model.state_dict().items())
    assert any("from other code's to ours" in note for note in network.notes)


def test_keys_of_ours_and_of_other_networks_are_left_alone():
    model = named_network("wrn_10_1").build()
    state = model.state_dict()
    assert with_our_keys(model, state) == (state, ())
    other = torchvision.models.resnet18(weights=None)
    state = other.state_dict()
    assert with_our_keys(other, state) == (state, ())
    both = {"stage1.0.bn1.weight": 1, "block1.layer.0.bn1.weight": 2}
    assert with_our_keys(model, both) == (both, ())


def test_shortcuts_of_the_other_kind_are_told(tmp_path):
    state = named_builder("cifar_resnet20", {"shortcut": "conv"}).build(0).state_dict()
    torch.save(state, tmp_path / "c.pth")
    with pytest.raises(natstats.NatstatsError, match="try --model-arg shortcut=conv"):
        load_network("cifar_resnet20", checkpoint=tmp_path / "c.pth")


@pytest.mark.slow
def test_a_relative_is_recognised():
    state = named_builder("wrn_16_4").build(0).state_dict()
    assert recognised(state, near="wrn_16_2") == ["wrn_16_4"]


@pytest.mark.slow
def test_measured_from_the_command_line(call, tmp_path):
    np.save("images.npy", images())
    call(
        "measure", "wrn_16_2", "--weights", "none", "--images", "images.npy", "--batch-size", 8,
        "--model-arg", "num_classes=100", "--out", "run",
    )  # fmt: skip
    run = natstats.Run.open(tmp_path / "run")
    layers = run.layers[run.layers.kind != "input"].set_index("layer")
    # By hand: the first convolution, then two in each of six blocks; a shortcut is a way around,
    # so its convolution is one behind what enters its block.
    expected = {"conv1": 1}
    for block in range(6):
        stage, within = divmod(block, 2)
        name = f"stage{stage + 1}.{within}"
        expected[f"{name}.conv1"] = 2 * block + 2
        expected[f"{name}.conv2"] = 2 * block + 3
        if within == 0:
            expected[f"{name}.shortcut"] = 2 * block + 2
    assert layers.depth.to_dict() == expected
    assert layers.depth.max() == 13
    assert [*run.skipped.layer] == ["fc"]
    sides = layers.height[["conv1", "stage1.1.conv2", "stage2.1.conv2", "stage3.1.conv2"]]
    assert [*sides] == [32, 32, 16, 8]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_layers"),
    [("cifar_resnet8x4", 10), ("pyramidnet", 28), ("mobilenet_v1", 27)],
)
def test_nothing_but_the_classifier_is_left_out(name, n_layers):
    if name == "pyramidnet":
        network = load_network(
            "natstats.networks.zoo:pyramidnet",
            model_args={"depth": 29, "alpha": 12, "bottleneck": True},
        )
    else:
        network = load_network(name, weights="none")
    # Five pixels on the last maps are the fewest that are measured.
    side = 160 if name == "mobilenet_v1" else 32
    run = natstats.measure(network, images(2, side))
    assert len(run.layers[run.layers.kind != "input"]) == n_layers
    assert [*run.skipped.layer] == ["fc"]


@pytest.mark.slow
def test_blocks_and_stages_are_found():
    for layers, names in (
        ("block", [f"stage{s}.{b}" for s in (1, 2, 3) for b in (0, 1)]),
        ("stage", ["stage1.1", "stage2.1", "stage3.1"]),
    ):
        run = natstats.measure("wrn_16_1", images(4), weights="none", layers=layers)
        assert [*run.layers[run.layers.kind != "input"].layer] == names


def test_a_bad_name_is_one_sentence_on_the_command_line(call):
    np.save("images.npy", images(2))
    result = call("measure", "wrn_15_2", "--weights", "none", "--images", "images.npy", code=2)
    assert "expected wrn_D_K with D = 6 n + 4 (10, ...); got 'wrn_15_2'" in result.stderr
    assert "Traceback" not in result.output
