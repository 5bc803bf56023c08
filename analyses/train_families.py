"""Train one small network of each of five families on an image collection, by one recipe.

VGG, DenseNet, ConvNeXt, ViT and Swin are torchvision's own classes with few narrow layers, and a
first layer for small images. DATA is a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, all
images of one size (64 x 64 here).

    OMP_NUM_THREADS=1 python analyses/train_families.py --data DATA --data-name textures \
        --work runs/families

writes NAME.pth (a state dict) and NAME.json (how it was trained, and its validation accuracy) below
--work/trained. Networks that are there already are not trained again. The weights are those of the
last step: the validation images choose nothing.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from torchvision.models import ConvNeXt, DenseNet, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vgg import VGG, make_layers
from train_demo_network import accuracy, load_folder, normalise, random_crops

CROP = 48


def vgg(n_classes: int) -> nn.Module:
    """Ten convolutions in four resolutions, and a linear classifier of their mean."""
    widths = [16, 16, "M", 32, 32, 32, "M", 64, 64, 64, "M", 96, 96]
    model = VGG(make_layers(widths, batch_norm=True), n_classes)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(96, n_classes)
    return model


def densenet(n_classes: int) -> nn.Module:
    """Three dense blocks of four layers behind a 3 x 3 convolution of stride 2."""
    model = DenseNet(12, (4, 4, 4), 24, bn_size=2, num_classes=n_classes)
    model.features.conv0 = nn.Conv2d(3, 24, 3, stride=2, padding=1, bias=False)
    model.features.pool0 = nn.Identity()
    return model


def convnext(n_classes: int) -> nn.Module:
    """Three stages of two blocks on patches of 2 x 2."""
    stages = [CNBlockConfig(32, 64, 2), CNBlockConfig(64, 96, 2), CNBlockConfig(96, None, 2)]
    model = ConvNeXt(stages, layer_scale=1.0, num_classes=n_classes)
    model.features[0][0] = nn.Conv2d(3, 32, 2, stride=2)
    return model


def vit(n_classes: int, side: int = CROP) -> nn.Module:
    """Six blocks on patches of 4 x 4; `side` of the images decides the number of positions."""
    return VisionTransformer(side, 4, 6, 4, 64, 128, num_classes=n_classes)


def swin(n_classes: int) -> nn.Module:
    """Three stages of two blocks on patches of 2 x 2, attention in windows of 4 x 4."""
    return SwinTransformer(
        [2, 2], 32, [2, 2, 2], [2, 4, 8], [4, 4], 2.0,
        stochastic_depth_prob=0.0, num_classes=n_classes,
    )  # fmt: skip


FAMILIES: dict[str, Callable[[int], nn.Module]] = {
    "vgg": vgg,
    "densenet": densenet,
    "convnext": convnext,
    "vit": vit,
    "swin": swin,
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a small network of each family.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--data-name", help="name of the data to record (default: folder name)")
    parser.add_argument("--work", type=Path, required=True, help="weights go to trained/ in it")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak of the one-cycle")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main() -> None:
    """Train the families that are asked for and are not there yet."""
    args = parse_arguments()
    folder = args.work / "trained"
    folder.mkdir(parents=True, exist_ok=True)
    images, labels, classes = load_folder(args.data / "train")
    val_images, val_labels, val_classes = load_folder(args.data / "val")
    if classes != val_classes:
        raise ValueError("train and val must hold the same class folders")
    # Validation sees the centre: one size for all, as ViT takes no other.
    edge = (val_images.shape[-1] - CROP) // 2
    val_images = val_images[:, :, edge : edge + CROP, edge : edge + CROP]
    sample = images[:: max(1, len(images) // 2000)].double() / 255
    mean, std = (
        moment.float() for moment in (sample.mean(dim=(0, 2, 3)), sample.std(dim=(0, 2, 3)))
    )
    for name in args.families:
        if (folder / f"{name}.json").is_file():
            continue
        torch.manual_seed(args.seed)
        net = FAMILIES[name](len(classes)).train()
        optimizer = torch.optim.AdamW(
            net.parameters(), args.learning_rate, weight_decay=args.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, args.learning_rate, total_steps=args.steps + 1, pct_start=0.2
        )
        started, place, order = time.perf_counter(), 0, torch.randperm(len(images))
        recent: list[float] = []
        for _ in range(args.steps):
            if place + args.batch_size > len(images):
                order, place = torch.randperm(len(images)), 0
            index = order[place : place + args.batch_size]
            place += args.batch_size
            scores = net(normalise(random_crops(images[index], CROP), mean, std))
            loss = functional.cross_entropy(scores, labels[index])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            recent = [*recent[-49:], loss.item()]
        torch.save(net.state_dict(), folder / f"{name}.pth")
        log = {
            "training_data": args.data_name or args.data.resolve().name,
            "classes": len(classes),
            "train_images": len(images),
            "val_images": len(val_images),
            "crop": CROP,
            "mean": [round(value, 6) for value in mean.tolist()],
            "std": [round(value, 6) for value in std.tolist()],
            "optimizer": "AdamW",
            **{
                key: getattr(args, key)
                for key in ("steps", "batch_size", "learning_rate", "weight_decay", "seed")
            },
            "parameters": sum(parameter.numel() for parameter in net.parameters()),
            "train_loss": round(sum(recent) / max(len(recent), 1), 4),
            "val_accuracy": round(accuracy(net, val_images, val_labels, mean, std), 4),
            "seconds": round(time.perf_counter() - started),
        }
        (folder / f"{name}.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
        print(
            f"{name}: training loss {log['train_loss']}, validation accuracy "
            f"{log['val_accuracy']}, {log['seconds']} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
