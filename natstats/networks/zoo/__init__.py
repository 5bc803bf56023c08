"""Networks that the literature on distillation uses and torchvision lacks.

All but MobileNet are for small images. In all of them every activation and every batch
normalisation is a module of its own, none works in place, and none is used twice.
"""

from natstats.networks.zoo.cifar_resnets import (
    BasicBlock,
    CifarResNet,
    cifar_resnet,
    cifar_resnet20,
    cifar_resnet_x4,
)
from natstats.networks.zoo.keys import with_our_keys
from natstats.networks.zoo.mobilenets import MobileNetV1, SeparableBlock, mobilenet_v1
from natstats.networks.zoo.names import NETWORKS, NamedNetwork, named_network
from natstats.networks.zoo.parts import PadShortcut
from natstats.networks.zoo.pyramidnets import (
    PyramidBasicBlock,
    PyramidBottleneck,
    PyramidNet,
    pyramidnet,
    pyramidnet_110_84,
    pyramidnet_200_240,
)
from natstats.networks.zoo.wide_resnets import WideBlock, WideResNet, wide_resnet

__all__ = [
    "NETWORKS",
    "BasicBlock",
    "CifarResNet",
    "MobileNetV1",
    "NamedNetwork",
    "PadShortcut",
    "PyramidBasicBlock",
    "PyramidBottleneck",
    "PyramidNet",
    "SeparableBlock",
    "WideBlock",
    "WideResNet",
    "cifar_resnet",
    "cifar_resnet20",
    "cifar_resnet_x4",
    "mobilenet_v1",
    "named_network",
    "pyramidnet",
    "pyramidnet_110_84",
    "pyramidnet_200_240",
    "wide_resnet",
    "with_our_keys",
]
