"""Small reference networks that the demonstration and the tests of natstats measure."""

from natstats.networks.cifar_resnet import (
    BasicBlock,
    CifarResNet,
    PadShortcut,
    cifar_resnet,
    cifar_resnet20,
)

NETWORKS = {"cifar_resnet20": cifar_resnet20}
"""Builders that go by a name on the command line, beside torchvision's."""

__all__ = [
    "NETWORKS",
    "BasicBlock",
    "CifarResNet",
    "PadShortcut",
    "cifar_resnet",
    "cifar_resnet20",
]
