"""One small network of each family of torchvision: every weight layer is measured or has a reason.

Built by the families' own classes, with few and narrow layers and small inputs, so that all of them
run in seconds; analyses/zoo_coverage.py measures all builders at full size.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import segmentation, video

import natstats
from natstats.activations.hooks import undisturbed
from natstats.activations.selection import select_modules
from natstats.networks.input_forms import arguments

models = torchvision.models


def build(name, **settings):
    return lambda: models.get_model(name, weights=None, **settings)


def detector(name, side):
    return build(
        name, weights_backbone=None, min_size=side, max_size=side, num_classes=3,
        **({"box_detections_per_img": 2, "rpn_post_nms_top_n_test": 5} if "rcnn" in name else {}),
    )  # fmt: skip


def small_maxvit():
    return models.MaxVit((64, 64), 8, 4, [8, 16], [1, 1], 8, 0.1)


def small_mvit():
    setting = video.mvit.MSBlockConfig
    return video.mvit.MViT(
        (32, 32), 8,
        [
            setting(1, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
            setting(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 1, 1]),
        ],
        False, False, True, True, patch_embed_stride=(2, 2, 2),
    )  # fmt: skip


def small_swin3d():
    return video.swin_transformer.SwinTransformer3d([2, 4, 4], 8, [2, 2], [2, 2], [4, 3, 3])


# Family: builder, form of the input, side, layouts that must come, and layers that cannot be
# measured, by reason.
FAMILIES = {
    "alexnet": (build("alexnet"), "images", 192, {"NCHW"}, {"axes": 3}),
    "convnext": (
        lambda: models.ConvNeXt([models.convnext.CNBlockConfig(8, 16, 1),
                                 models.convnext.CNBlockConfig(16, None, 2)]),
        "images", 64, {"NCHW", "NHWC"}, {"axes": 1},
    ),
    "densenet": (
        lambda: models.DenseNet(4, (2, 2), 8), "images", 64, {"NCHW"}, {"axes": 1},
    ),
    "efficientnet": (build("efficientnet_b0"), "images", 160, {"NCHW"}, {"1 x 1": 32, "axes": 1}),
    "googlenet": (
        build("googlenet", init_weights=False), "images", 160, {"NCHW"}, {"never": 6, "axes": 1},
    ),
    "inception": (
        build("inception_v3", init_weights=False), "images", 203, {"NCHW"}, {"never": 3, "axes": 1},
    ),
    "maxvit": (small_maxvit, "images", 64, {"NCHW", "windows"}, {"1 x 1": 4, "axes": 2}),
    "mnasnet": (build("mnasnet0_5"), "images", 160, {"NCHW"}, {"axes": 1}),
    "mobilenet v2": (build("mobilenet_v2"), "images", 160, {"NCHW"}, {"axes": 1}),
    "mobilenet v3": (
        build("mobilenet_v3_small"), "images", 160, {"NCHW"}, {"1 x 1": 18, "axes": 2},
    ),
    "regnet": (build("regnet_y_400mf"), "images", 160, {"NCHW"}, {"1 x 1": 32, "axes": 1}),
    "resnet": (build("resnet18"), "images", 160, {"NCHW"}, {"axes": 1}),
    "shufflenet": (build("shufflenet_v2_x0_5"), "images", 160, {"NCHW"}, {"axes": 1}),
    "squeezenet": (build("squeezenet1_1"), "images", 96, {"NCHW"}, {}),
    "swin": (
        lambda: models.SwinTransformer([4, 4], 8, [2, 2], [2, 2], [7, 7]),
        "images", 96, {"NCHW", "NHWC", "windows"}, {"axes": 1},
    ),
    "swin v2": (
        lambda: models.SwinTransformer(
            [4, 4], 8, [2, 2], [2, 2], [4, 4], block=models.swin_transformer.SwinTransformerBlockV2,
            downsample_layer=models.swin_transformer.PatchMergingV2),
        "images", 80, {"NCHW", "NHWC", "windows"}, {"axes": 1, "depend": 8},
    ),
    "vgg": (build("vgg11", init_weights=False), "images", 96, {"NCHW"}, {"axes": 3}),
    "vit": (
        lambda: models.VisionTransformer(64, 8, 2, 2, 16, 32),
        "images", 64, {"NCHW", "NLC (1 + 8x8)"}, {"axes": 1},
    ),
    "quantized": (
        build("quantized_shufflenet_v2_x0_5", quantize=True),
        "images", 160, {"quantized NCHW"}, {"axes": 1},
    ),
    "lraspp": (
        build("lraspp_mobilenet_v3_large", weights_backbone=None),
        "images", 96, {"NCHW"}, {"1 x 1": 17},
    ),
    "fcn": (
        lambda: segmentation.FCN(
            nn.Sequential(nn.Conv2d(3, 8, 4, 4), Named()), segmentation.fcn.FCNHead(8, 3)),
        "images", 64, {"NCHW"}, {},
    ),
    "ssdlite": (
        build("ssdlite320_mobilenet_v3_large", weights_backbone=None, num_classes=3),
        "list", 320, {"NCHW"}, {"1 x 1": 22, "maps of 2": 7, "maps of 3": 7},
    ),
    "fcos": (detector("fcos_resnet50_fpn", 128), "list", 128, {"NCHW"}, None),
    "faster rcnn": (
        detector("fasterrcnn_mobilenet_v3_large_320_fpn", 96), "list", 96, {"NCHW"}, None,
    ),
    "mask rcnn": (
        detector("maskrcnn_resnet50_fpn_v2", 96), "list", 96, {"NCHW", "regions NCHW"}, None,
    ),
    "keypoint rcnn": (
        detector("keypointrcnn_resnet50_fpn", 96), "list", 96, {"NCHW", "regions NCHW"}, None,
    ),
    "video resnet": (build("mc3_18"), "clips", 80, {"NCTHW"}, {"axes": 1}),
    "s3d": (lambda: video.S3D().features, "clips", 160, {"NCTHW"}, {}),
    "mvit": (small_mvit, "clips", 32, {"NCTHW", "2 x NCTHW"}, {"axes": 1}),
    "swin3d": (small_swin3d, "clips", 48, {"NCTHW", "NTHWC", "windows"}, {"axes": 1}),
    "raft": (build("raft_small"), "pairs", 128, {"NCHW", "2 x NCHW"}, {"depend": 2}),
}  # fmt: skip


LARGE = {
    "efficientnet", "googlenet", "inception", "regnet", "lraspp", "ssdlite", "fcos", "faster rcnn",
    "mask rcnn", "keypoint rcnn", "video resnet", "s3d", "raft",
}  # fmt: skip
"""Families whose smallest member takes seconds."""


class Named(nn.Module):
    """What a segmentation head expects of a backbone."""

    def forward(self, maps):
        return {"out": maps}


# torch is about to drop its eager quantisation.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*quantiz")
@pytest.mark.parametrize(
    "family",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in FAMILIES],
)
def test_every_weight_layer_is_measured_or_has_a_reason(family):
    make, form, side, layouts, reasons = FAMILIES[family]
    torch.manual_seed(0)
    model = make().eval()
    images = torch.rand(2, 3, side, side)
    clips = images[:, :, None].repeat(1, 1, 8, 1, 1) if form == "clips" else images
    named = {"num_flow_updates": 2} if family == "raft" else {}
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    with natstats.Collector(model) as collector, undisturbed(model), torch.inference_mode():
        model(*arguments(form, clips), **named)
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    measured, skipped = collector.compute(), collector.skipped
    told = {m.layer.name.partition(":")[0] for m in measured} | {s.name for s in skipped}
    assert told >= set(select_modules(model, "weight"))
    assert {m.layer.layout for m in measured} >= layouts
    for layer in measured:
        assert layer.layer.depth > 0
        assert layer.spectrum.n_images + layer.spectrum.n_nonfinite <= 2
    found = Counter(
        next((key for key in (reasons or {}) if key in layer.reason), layer.reason)
        for layer in skipped
    )
    if reasons is None:  # pyramids of so small an image are mostly too small, and random weights
        # need not find any object; nothing else may fail
        known = ("maps of", "axes of maps", "no region was found")
        assert all(any(word in key for word in known) for key in found)
    else:
        assert found == reasons
