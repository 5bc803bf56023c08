"""Taps: where they are, in literature's words, and that looking changes nothing."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torchvision.models import VisionTransformer

from natstats.distill.pairing import pair_by_name, pair_taps, student_taps
from natstats.distill.taps import Taps
from natstats.distill.training.own_loops import plan
from natstats.distill.trunk import trunk_of
from natstats.errors import NatstatsError, UsageError
from natstats.networks.load import build_network

SMALL = torch.zeros(1, 3, 32, 32)
LARGE = torch.zeros(1, 3, 64, 64)


def names(student, teacher, images, *args):
    mine, theirs = pair_taps(build_network(student, 0), build_network(teacher, 0), images, *args)
    return [p.name for p in mine], [p.name for p in theirs]


@pytest.mark.slow
def test_wide_resnets_are_tapped_where_the_overhaul_paper_does():
    """First BN of group 2, first BN of group 3, final BN; AT takes the raw sums of the groups."""
    mine, theirs = names("wrn_16_2", "wrn_28_4", SMALL, "groups", "pre")
    assert mine == theirs == ["stage2.0.bn1", "stage3.0.bn1", "bn1"]
    mine, theirs = names("wrn_16_2", "wrn_28_4", SMALL, "groups", "block")
    assert mine == ["stage1.1", "stage2.1", "stage3.1"]
    assert theirs == ["stage1.3", "stage2.3", "stage3.3"]


@pytest.mark.slow
def test_mobilenet_v1_is_tapped_where_the_overhaul_paper_does():
    """BN outputs at the modules 3, 5, 11 and 13 of the public code."""
    mine, theirs = names("mobilenet_v1", "resnet50", LARGE, "groups", "pre")
    assert mine == ["blocks.2.bn2", "blocks.4.bn2", "blocks.10.bn2", "blocks.12.bn2"]
    assert theirs == [f"layer{i}.{n}.relu:2@input" for i, n in ((1, 2), (2, 3), (3, 5), (4, 2))]


@pytest.mark.slow
@pytest.mark.parametrize(("which", "suffix"), [("pre", "@input"), ("post", ""), ("block", "")])
def test_resnets_are_tapped_at_the_last_sum_of_each_group(which, suffix):
    mine, theirs = names("resnet18", "resnet34", LARGE, "groups", which)
    assert mine == [f"layer{i}.1.relu:1{suffix}" for i in (1, 2, 3, 4)]
    assert theirs == [f"layer{i}.{n}.relu:1{suffix}" for i, n in ((1, 2), (2, 3), (3, 5), (4, 2))]


@pytest.mark.slow
def test_the_stride_of_a_bottleneck_does_not_move_a_group():
    """In ResNet-50 the first activations of layer2 have the resolution of layer1."""
    points = student_taps(build_network("resnet50", 0), LARGE)
    assert [p.name for p in points] == [
        "layer1.2.relu:2", "layer2.3.relu:2", "layer3.5.relu:2", "layer4.2.relu:2",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("middle", ["stage2.2.relu2"]),
        ("last", ["stage3.2.relu2"]),
        (
            "sections",
            [f"stage{s}.{b}.relu2" for s in (1, 2, 3) for b in (0, 2)],
        ),
        ("blocks", [f"stage{s}.{b}.relu2" for s in (1, 2, 3) for b in (0, 1, 2)]),
        ("none", []),
    ],
)
def test_places(place, expected):
    mine, theirs = names("cifar_resnet20", "cifar_resnet20", SMALL, place)
    assert mine == theirs == expected


@pytest.mark.slow
def test_a_group_of_one_block_starts_where_the_one_before_ends():
    mine, _ = names("cifar_resnet8", "cifar_resnet20", SMALL, "sections")
    ends = [f"stage{s}.0.relu2" for s in (1, 2, 3)]
    assert mine == ["relu1", ends[0], ends[0], ends[1], ends[1], ends[2]]


@pytest.mark.slow
def test_blocks_are_matched_at_the_same_share_of_the_group():
    mine, theirs = names("cifar_resnet14", "cifar_resnet26", SMALL, "blocks")
    assert mine[:2] == ["stage1.0.relu2", "stage1.1.relu2"]
    assert theirs[:2] == ["stage1.1.relu2", "stage1.3.relu2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vgg11_bn", "densenet121", "mobilenet_v2", "shufflenet_v2_x0_5", "efficientnet_b0",
             "regnet_y_400mf", "mnasnet0_5", "squeezenet1_1", "convnext_tiny", "swin_t", "alexnet"]
)  # fmt: skip
def test_every_kind_of_classifier_has_taps(name):
    images = torch.zeros(1, 3, 64, 64)
    model = build_network(name, 0).eval()
    mine, theirs = pair_taps(model, model, images)
    assert mine == theirs
    sizes = [p.height for p in mine]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) >= 3
    with Taps(model, [p.name for p in mine], images) as taps, torch.no_grad():
        model(images.repeat(2, 1, 1, 1))
    tapped = taps.take()
    for point in mine:
        assert tapped[point.name].shape == (2, point.channels, point.height, point.width)


def test_tokens_are_tapped_as_maps():
    model = VisionTransformer(64, 16, 2, 2, 32, 64)  # image, patch, layers, heads, width
    (point,) = student_taps(model, LARGE)
    assert (point.channels, point.height, point.width) == (32, 4, 4)


@pytest.mark.slow
def test_batch_norms_of_the_taps_are_found():
    model = build_network("resnet18", 0)
    mine, _ = pair_taps(model, model, LARGE, "groups", "pre")
    assert [p.batch_norm for p in mine] == [
        model.get_submodule(f"layer{i}.1.bn2") for i in (1, 2, 3, 4)
    ]
    assert all(isinstance(p.activation, nn.ReLU) for p in mine)
    wide = build_network("wrn_16_2", 0)
    mine, _ = pair_taps(wide, wide, SMALL, "groups", "pre")
    assert mine[0].batch_norm is wide.get_submodule("stage2.0.bn1")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "wrn_16_1", "mobilenet_v2"])
def test_taps_change_neither_buffers_nor_modes_nor_scores(name):
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model = build_network(name, 0).train()
    plain = copy.deepcopy(model)
    points, _ = pair_taps(model, model, images[:1], "groups", "pre")
    taps = Taps(model, [p.name for p in points], images[:1])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for key, value in plain.state_dict().items():
        assert torch.equal(state[key], value), key
    assert all(module.training for module in model.modules())
    torch.manual_seed(0)
    with taps:
        scores = model(images)
    torch.manual_seed(0)
    assert torch.equal(scores, plain(images))
    # One pass counts once: a second call of a batch norm would count twice.
    for key, value in plain.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.slow
def test_a_map_that_is_overwritten_in_place_is_kept_as_it_was():
    """torchvision's blocks add to a batch norm's output and rectify the sum, both in place."""
    model = build_network("resnet18", 0).eval()
    names = ["layer1.0.bn2", "layer1.0.relu:1@input", "layer1.0.relu:1"]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with Taps(model, names, images[:1]) as taps:
        model(images)
    tapped = taps.take()
    seen = {}
    block = model.get_submodule("layer1.0")
    handle = block.register_forward_hook(lambda m, i, o: seen.update(x=i[0].clone()))
    model(images)
    handle.remove()
    x = seen["x"]
    branch = block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x)))))
    torch.testing.assert_close(tapped[names[0]], branch)
    torch.testing.assert_close(tapped[names[1]], branch + x)
    torch.testing.assert_close(tapped[names[2]], torch.relu(branch + x))


def test_gradients_flow_through_a_tap_to_what_is_before_it():
    model = build_network("cifar_resnet8", 0)
    images = torch.randn(2, 3, 32, 32)
    with Taps(model, ["stage2.0.relu2@input"], images[:1]) as taps:
        model(images)
    taps.take()["stage2.0.relu2@input"].square().sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    assert {"conv1.weight", "stage2.0.conv2.weight"} <= reached
    assert not any(n.startswith(("stage3", "fc")) for n in reached)


@pytest.mark.slow
def test_taps_by_name():
    model = build_network("cifar_resnet8", 0)
    mine, theirs = pair_by_name(model, model, SMALL, [("stage1", "stage2.0.bn2")])
    assert (mine[0].channels, mine[0].height) == (16, 32)
    assert (theirs[0].channels, theirs[0].height) == (32, 16)
    assert theirs[0].batch_norm is model.get_submodule("stage2.0.bn2")


@pytest.mark.slow
def test_a_layer_may_be_in_several_pairs():
    student, teacher = build_network("cifar_resnet8", 0), build_network("cifar_resnet14", 0)
    asked = [("stage1", "stage1"), ("stage2", "stage1"), ("stage1", "stage2")]
    mine, theirs = pair_by_name(student, teacher, SMALL, asked)
    assert [(one.name, other.name) for one, other in zip(mine, theirs, strict=True)] == asked
    images = torch.randn(2, 3, 32, 32)
    program = plan("at", student, teacher, images, taps=asked).program
    assert [(one.name, other.name) for one, other in program.taps["at"]] == asked

    def term(taps):
        (stage,) = plan("at", student, teacher, images, taps=taps).program.stages
        objective = stage.objective(student, teacher, images[:1])
        with torch.no_grad():
            (value,) = objective(images, torch.tensor([0, 1])).terms.values()
        return value

    student.eval()
    alone = [term([pair]) for pair in asked]
    torch.testing.assert_close(term(asked), sum(alone))


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["pre", "post", "block"])
def test_named_taps_know_what_paired_ones_know(activation):
    student, teacher = (build_network(f"cifar_resnet{n}", 0) for n in (8, 20))
    paired = pair_taps(student, teacher, SMALL, activation=activation)
    names = [(mine.name, theirs.name) for mine, theirs in zip(*paired, strict=True)]
    for own, found in zip(paired, pair_by_name(student, teacher, SMALL, names), strict=True):
        assert [(one.batch_norm, one.activation) for one in found] == [
            (one.batch_norm, one.activation) for one in own
        ]


class Answer(NamedTuple):
    """What networks with auxiliary scores return."""

    logits: torch.Tensor
    aux_logits: torch.Tensor


class Answering(nn.Module):
    """A classifier whose scores come with others."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build_network("cifar_resnet8", 0)

    def forward(self, images: torch.Tensor) -> Answer:
        scores = self.net(images)
        return Answer(scores, -scores)


@pytest.mark.slow
def test_networks_that_return_more_than_scores_are_paired():
    own, _ = pair_taps(Answering(), build_network("cifar_resnet20", 0), SMALL)
    alone, _ = pair_taps(
        build_network("cifar_resnet8", 0), build_network("cifar_resnet20", 0), SMALL
    )
    assert [point.name for point in own] == [f"net.{point.name}" for point in alone]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [("stage9", "expected a layer, such as"), ("fc", "expected a layer with maps"),
     ("stage1.0.relu1:3", "it is not called"), ("", "expected a layer, such as")],
)  # fmt: skip
def test_wrong_names_are_refused(name, message):
    model = build_network("cifar_resnet8", 0)
    with pytest.raises(UsageError, match=message):
        Taps(model, [name], SMALL)


def test_networks_without_maps_cannot_be_paired():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))
    with pytest.raises(UsageError, match=r"the student has maps of none of \d+ pixels or more"):
        pair_taps(flat, build_network("cifar_resnet8", 0), SMALL)


def test_other_resolutions_are_matched_by_their_order():
    def plain(stride, n):
        layers = [m for _ in range(n) for m in (nn.Conv2d(3, 3, 3, stride, 1), nn.ReLU())]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))

    # 20 and 7 pixels in the student; 30, 15, 8 and 4 in the teacher.
    mine, theirs = pair_taps(plain(3, 2), plain(2, 4), torch.zeros(1, 3, 60, 60))
    assert [p.name for p in mine] == ["1", "3"]
    assert [p.name for p in theirs] == ["3", "7"]


def test_the_trunk_is_what_every_path_goes_through():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.left, self.right = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
            self.join, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 2)

        def forward(self, x):
            x = self.stem(x)
            return self.head(self.join(self.left(x) + self.right(x)).mean((2, 3)))

    assert [m.name for m in trunk_of(Branches(), SMALL)] == ["stem", "join"]


class TestTapsOfAnyLoop:
    """Without images, over many passes, and inside one another."""

    def network(self):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 5, 3)
        )

    def test_without_images_they_are_those_with(self):
        x, model = torch.randn(2, 3, 9, 9), self.network()
        found = []
        for images in (None, x[:1]):
            own = copy.deepcopy(model)
            taps = Taps(own, ["2@input", "2", "3"], images)
            assert bool(taps.shapes) == (images is not None)
            with taps:
                scores = own(x).mean((2, 3))
            found.append((taps.take().outputs(scores), taps.shapes, own.state_dict()))
        (one, shapes, state), (other, same, seen) = found
        assert all(torch.equal(a, b) for a, b in zip(one.maps, other.maps, strict=True))
        assert shapes == same == {"2@input": (4, 7, 7), "2": (4, 7, 7), "3": (5, 5, 5)}
        # The look at the first image left no trace in the batch norm.
        assert all(torch.equal(value, seen[key]) for key, value in state.items())
        assert int(state["1.num_batches_tracked"]) == 1

    def test_one_entrance_serves_many_passes(self):
        model = self.network().train()
        with Taps(model, ["3"]) as taps:
            for n in (4, 1 + 1, 3):
                x = torch.randn(n, 3, 9, 9)
                out = model(x)
                tapped = taps.take()
                assert tapped["3"] is out or torch.equal(tapped["3"], out)
                assert tapped["3"].requires_grad
            with pytest.raises(NatstatsError, match="tap 3: expected the network to call it"):
                taps.take()["3"]
        model(x)
        assert not taps.take().maps

    def test_they_may_be_entered_inside_themselves_and_beside_others(self):
        model = self.network()
        x = torch.randn(2, 3, 9, 9)
        taps, others = Taps(model, ["0"]), Taps(model, ["3"])
        with taps, others:
            with taps:
                model(x)
            assert taps.take()["0"].shape == (2, 4, 7, 7)
            model(x)
        assert taps.take()["0"].shape == (2, 4, 7, 7)
        assert others.take()["3"].shape == (2, 5, 5, 5)

    def test_a_pass_inside_a_pass_is_not_mistaken_for_it(self):
        class Twice(nn.Module):
            def __init__(self, body):
                super().__init__()
                self.body = body

            def forward(self, x):
                return self.body(self.body(x))

        model = Twice(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()))
        x = torch.randn(2, 3, 9, 9)
        with Taps(model, ["body.0", "body.0:1", "body"]) as taps:
            model(x)
        tapped = taps.take()
        assert torch.equal(tapped["body.0:1"], model.body[0](model.body(x)))
        assert torch.equal(tapped["body"], model.body(x))

    def test_keyword_arguments(self):
        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Conv2d(3, 4, 3)

            def forward(self, images, scale=1.0):
                return self.body(images) * scale

        model = Named()
        with Taps(model, ["body"]) as taps:
            model(images=torch.randn(2, 3, 8, 8), scale=2.0)
        assert taps.take()["body"].shape == (2, 4, 6, 6)

    def test_a_text_is_no_list_of_names(self):
        with pytest.raises(UsageError, match="names: expected a list of names of layers; got"):
            Taps(self.network(), "3")

    def test_a_layer_without_maps_is_refused_in_the_first_pass(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
        with (
            pytest.raises(UsageError, match="tap 2: expected a layer with maps"),
            Taps(model, ["2"]),
        ):
            model(torch.randn(2, 3, 8, 8))
        model(torch.randn(2, 3, 8, 8))  # the hooks are off
