"""What fits a network is loaded, what does not is listed: keys, classifiers, several networks."""

from __future__ import annotations

import pytest
import torch
import torchvision.models
from torch import nn

import natstats
from natstats.networks.builders import Builder, named_builder
from natstats.networks.load import load_network
from natstats.networks.matching import load_state, with_keys_of
from natstats.networks.zoo import CifarResNet, cifar_resnet


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(1)
    return torchvision.models.resnet18(weights=None).state_dict()


@pytest.fixture
def load(tmp_path):
    def write_and_load(content, name="resnet18", **options):
        torch.save(content, tmp_path / "c.pth")
        return load_network(name, checkpoint=tmp_path / "c.pth", **options)

    return write_and_load


def quantised_networks(test):
    """Torch deprecates what torchvision's quantised networks are made with."""
    for kind in ("UserWarning", "DeprecationWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{kind}")(test)
    return test


def same(model, state):
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in own)


def started(start, state):
    return {f"{start}{key}": value for key, value in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.module.",
        "_fsdp_wrapped_module.",
    ],
)
def test_what_wrappers_add_to_keys_is_taken_off_without_a_word(load, state, start):
    network = load(started(start, state))
    assert same(network.model, state)
    assert network.notes == ()


@pytest.mark.slow
def test_parallel_and_compiled_parts_inside_a_network(load, state):
    """As the old ImageNet example saved VGG: only the features were parallel."""
    inside = {k.replace("layer2.", "layer2.module._orig_mod."): v for k, v in state.items()}
    assert same(load(inside).model, state)


@pytest.mark.slow
def test_averaged_weights(load, state):
    model = torchvision.models.resnet18(weights=None)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    network = load({"model_ema": averaged.state_dict()})
    assert same(network.model, model.state_dict())
    assert network.notes == ()


@pytest.mark.slow
@pytest.mark.parametrize("start", ["model.", "net.backbone.", "module.encoder.", "what.ever."])
def test_the_attribute_with_the_network_is_found_by_matching(load, state, start):
    network = load({"state_dict": started(start, state) | {"loss.weight": torch.ones(1000)}})
    assert same(network.model, state)
    shown = start.replace("module.", "")
    assert network.notes == (
        f"{shown} was taken off the keys of the checkpoint; 1 key without it was left out "
        "(loss.weight)",
    )


@pytest.mark.slow
def test_a_network_beside_another_is_told_by_its_shapes(load, state):
    teacher = torchvision.models.resnet50(weights=None).state_dict()
    network = load(started("teacher.", teacher) | started("student.", state))
    assert same(network.model, state)
    assert "student. was taken off" in network.notes[0]


@pytest.mark.slow
def test_two_networks_that_fit_alike_are_not_chosen_between(load, state):
    content = started("student.", state) | started("teacher.", state)
    with pytest.raises(
        natstats.NatstatsError, match=r"student, teacher; name one with --checkpoint-key"
    ):
        load(content)
    network = load(content, checkpoint_key="student")
    assert same(network.model, state)
    assert network.weights.endswith("c.pth (student)")


def test_a_network_whose_own_keys_have_such_parts_keeps_them():
    own = {"module.weight": torch.ones(2)}
    assert with_keys_of(own, own, "a.pth") == (own, [])


# The number of classes, and where it shows. A classifier is what changes with it.
CLASSIFIERS = {
    "vit_b_16": {"heads.head"},
    "swin_t": {"head"},
    "convnext_tiny": {"classifier.2"},
    "squeezenet1_0": {"classifier.1"},
    "densenet121": {"classifier"},
    "efficientnet_b0": {"classifier.1"},
    "maxvit_t": {"classifier.5"},
    "mobilenet_v3_small": {"classifier.3"},
    "vgg11": {"classifier.6"},
    "regnet_y_400mf": {"fc"},
    "inception_v3": {"fc", "AuxLogits.fc"},
    "googlenet": {"fc", "aux1.fc2", "aux2.fc2"},
    "fcn_resnet50": {"classifier.4"},
    "lraspp_mobilenet_v3_large": {"classifier.low_classifier", "classifier.high_classifier"},
    "fasterrcnn_resnet50_fpn": {
        "roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred",
    },
    "retinanet_resnet50_fpn": {"head.classification_head.cls_logits"},
    "ssdlite320_mobilenet_v3_large": {
        f"head.classification_head.module_list.{i}.1" for i in range(6)
    },
    "s3d": {"classifier.1"},
    "cifar_resnet20": {"fc"},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_classifier_is_what_changes_with_the_classes(name):
    builder = named_builder(name)
    classifier = builder.classifier(nn.Identity())
    assert {key.rpartition(".")[0] for key in classifier.keys} == CLASSIFIERS[name]
    shapes = builder.shapes(num_classes=23)
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    assert classifier.n_classes(state) == 23


@pytest.mark.slow
def test_where_no_classes_are_taken_the_last_layer_classifies():
    builder = Builder("mine", lambda: cifar_resnet(8))
    assert builder.classifier(cifar_resnet(8)).keys == ("fc.weight", "fc.bias")
    assert named_builder("raft_small").classifier(nn.Sequential(nn.Conv2d(3, 8, 3))).keys == (
        "0.weight", "0.bias",
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "regnet_y_400mf"])
def test_another_number_of_classes_is_built_and_loaded(load, name):
    state = named_builder(name, {"num_classes": 7}).build(1).state_dict()
    network = load(state, name)
    assert same(network.model, state)
    assert network.notes == (
        "the checkpoint has 7 classes, and the network was built with as many",
    )


@pytest.mark.slow
def test_a_number_of_classes_that_was_asked_for_is_kept(load, state):
    network = load(state, model_args={"num_classes": 5})
    assert network.model.fc.out_features == 5
    assert "lacks a fitting classifier (fc.weight, fc.bias)" in network.notes[0]


@pytest.mark.slow
def test_a_checkpoint_without_classifier_is_used_with_a_note(load, state):
    network = load({k: v for k, v in state.items() if not k.startswith("fc.")})
    assert "fc.weight" in network.notes[0]
    assert "no measured map depends on it" in network.notes[0]


def test_a_classifying_convolution_is_said_to_have_random_maps(load):
    state = named_builder("squeezenet1_1").build(1).state_dict()
    features = {k: v for k, v in state.items() if not k.startswith("classifier.")}
    note = load(features, "squeezenet1_1").notes[0]
    assert "random weights, and so are the maps of classifier.1" in note


@pytest.mark.slow
def test_a_checkpoint_of_the_features_alone(load):
    """A head of several linear layers may be missing as a whole, but not a part of it."""
    state = named_builder("alexnet").build(1).state_dict()
    features = {k: v for k, v in state.items() if not k.startswith("classifier.")}
    assert "no measured map depends on it" in load(features, "alexnet").notes[0]
    with pytest.raises(natstats.NatstatsError, match=r"1 missing"):
        load({k: v for k, v in state.items() if k != "classifier.1.bias"}, "alexnet")


@pytest.mark.slow
def test_another_head_in_place_of_the_classifier(load, state):
    content = {k: v for k, v in state.items() if not k.startswith("fc.")}
    content |= {"projector.0.weight": torch.ones(8, 512), "projector.1.bias": torch.ones(8)}
    notes = load(content).notes
    assert "lacks a fitting classifier" in notes[0]
    assert "2 keys of the checkpoint are not in the model (projector.0.weight" in notes[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "part"), [("googlenet", "aux"), ("inception_v3", "AuxLogits"), ("fcn_resnet50", None)]
)
def test_auxiliary_classifiers_may_be_in_the_file_or_not(load, name, part):
    """torchvision builds the first two with them and segmentation without, and trains all with."""
    state = named_builder(name).build(1).state_dict()
    if part is None:
        state |= {"aux_classifier.4.weight": torch.ones(21, 256, 1, 1)}
    else:
        state = {k: v for k, v in state.items() if not k.startswith(part)}
    network = load(state, name)
    assert "auxiliary classifiers, which run only in training" in network.notes[0]
    assert all(
        torch.equal(v, state[k]) for k, v in network.model.state_dict().items() if k in state
    )


@pytest.mark.slow
def test_old_files_without_counters_of_batches(load, state):
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert load(old).notes == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: {k: v for k, v in s.items() if "layer3" not in k},
         ["c.pth; 25 missing", "layer3.0.conv1.weight (256 x 128 x 3 x 3)",
          "and 15 more", "with --no-strict what fits is loaded"]),
        (lambda s: s | {"conv1.weight": torch.zeros(1)},
         ["1 of another shape", "conv1.weight: expected 64 x 3 x 7 x 7, in the file 1"]),
        (lambda s: {k.replace("conv1.weight", "conv1.wieght"): v for k, v in s.items()},
         ["9 missing, 9 unknown", "  unknown:", "conv1.wieght (near conv1.weight)"]),
        (lambda s: s | {"layer5.weight": torch.zeros(1)}, ["1 unknown", "    layer5.weight"]),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_listed(load, state, change, words):
    with pytest.raises(natstats.NatstatsError) as caught:
        load(change(state))
    assert caught.value.exit_code == 1
    message = str(caught.value)
    assert message.startswith("checkpoint: expected the 122 keys")
    assert len(message.splitlines()) <= 1 + 3 * (1 + 10 + 1)
    for word in words:
        assert word in message, message


@pytest.mark.slow
def test_a_relative_is_recognised(load):
    other = torchvision.models.resnet34(weights=None).state_dict()
    with pytest.raises(natstats.NatstatsError, match="this looks like resnet34"):
        load(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("of", "into"), [("resnet18", "resnet34"), ("resnet18", "resnet101"), ("vgg11", "vgg19_bn")]
)
def test_a_small_relative_is_recognised_and_not_as_quantised(load, of, into):
    """The first by name of a family, such as resnet101, has far more keys than resnet18."""
    other = torchvision.models.get_model(of, weights=None).state_dict()
    with pytest.raises(natstats.NatstatsError, match=f"this looks like {of};"):
        load(other, into)


@pytest.mark.slow
def test_a_relative_is_recognised_by_a_file_without_counters(load):
    other = cifar_resnet(44).state_dict()
    with pytest.raises(natstats.NatstatsError, match="this looks like cifar_resnet44;"):
        load({k: v for k, v in other.items() if "num_batches" not in k}, "cifar_resnet32")


@pytest.mark.slow
def test_a_file_of_the_same_network_does_not_look_quantised(load, state):
    with pytest.raises(natstats.NatstatsError) as caught:
        load(state | {"extra.weight": torch.zeros(3)})
    assert "looks like" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1])
def test_networks_with_other_classifiers_are_not_chosen_between(load, state, order):
    """A student of 10 classes beside its teacher of 1000, which has the shapes of the network."""
    student = state | {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    both = [started("student.", student), started("teacher.", state)][::order]
    with pytest.raises(natstats.NatstatsError, match="fit alike, student, teacher; name one with"):
        load({"state_dict": both[0] | both[1]})
    network = load({"state_dict": both[0] | both[1]}, checkpoint_key="student")
    assert network.model.fc.out_features == 10


@pytest.mark.slow
def test_a_copy_without_classifier_or_counters_is_a_copy(load, state):
    bare = {k: v for k, v in state.items() if not k.startswith("fc.") and "num_batch" not in k}
    with pytest.raises(natstats.NatstatsError, match="fit alike, online, target; name one with"):
        load(started("online.", bare) | started("target.", state))


@pytest.mark.slow
@pytest.mark.parametrize("n_blocks", [2, 7])
def test_parts_of_another_network_are_not_several_networks(load, n_blocks):
    """Blocks that are alike have keys and shapes of the stem of a ResNet."""
    stem = {f"bn1.{name}": torch.ones(64) for name in nn.BatchNorm2d(64).state_dict()}
    content = {k: v for n in range(n_blocks) for k, v in started(f"layer3.{n}.", stem).items()}
    with pytest.raises(natstats.NatstatsError, match="expected the 122 keys of the model"):
        load(content)


@pytest.mark.slow
def test_children_in_a_row_are_not_several_networks(load):
    other = nn.Sequential(*torchvision.models.resnet18(weights=None).children())
    with pytest.raises(natstats.NatstatsError, match="expected the 122 keys of the model"):
        load(other.state_dict())


@pytest.mark.slow
@quantised_networks
def test_weights_that_are_not_quantised_are_told(load, state):
    quantised = "quantized_resnet18"
    with pytest.raises(natstats.NatstatsError, match="not quantised, which resnet18 takes"):
        load(state, quantised)


@pytest.mark.slow
def test_not_strict_loads_what_fits_and_says_what_does_not(load, state):
    content = {k: v for k, v in state.items() if "layer1" not in k}
    content |= {"extra": torch.ones(1), "layer2.0.conv1.weight": torch.ones(2)}
    network = load(content, strict=False)
    note = network.notes[-1]
    for part in (
        "20 are missing (layer1",
        "1 are unknown (extra)",
        "1 have another shape (layer2.0",
    ):
        assert part in note
    own = network.model.state_dict()
    assert torch.equal(own["layer4.1.conv2.weight"], state["layer4.1.conv2.weight"])
    assert network.trained


@pytest.mark.slow
def test_not_strict_still_refuses_another_network(load, state):
    other = torchvision.models.squeezenet1_1(weights=None).state_dict()
    with pytest.raises(
        natstats.NatstatsError, match=r"; 0 of the \d+ numbers before the classifier"
    ):
        load(other, strict=False)


def test_a_refusal_changes_nothing():
    model = CifarResNet(1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wrong = {k: v + 1 for k, v in before.items() if not k.startswith("stage2")}
    with pytest.raises(natstats.NatstatsError):
        load_state(model, wrong, "a.pth", classifier=["fc.weight", "fc.bias"])
    assert same(model, before)


@pytest.mark.slow
@quantised_networks
@pytest.mark.parametrize("classes", [None, 7])
def test_quantised_networks_are_saved_and_loaded(load, classes):
    arguments = {} if classes is None else {"num_classes": classes}
    model = named_builder("quantized_mobilenet_v2", arguments).build(1)
    network = load(model.state_dict(), "quantized_mobilenet_v2")
    own = network.model.state_dict()
    for key, value in model.state_dict().items():
        if isinstance(value, torch.Tensor):
            a, b = (v.int_repr() if v.is_quantized else v for v in (own[key], value))
            assert torch.equal(a, b)
    packed = "classifier.1._packed_params._packed_params"
    assert own[packed][0].shape == model.state_dict()[packed][0].shape
    assert torch.equal(own[packed][0].int_repr(), model.state_dict()[packed][0].int_repr())
