"""Train the small network whose weights the natstats demonstration measures.

A 20-layer CIFAR ResNet learns to name the folders of an image collection. The command below made
the weights that the package ships; DATA is a folder with train/CLASS/*.jpg and val/CLASS/*.jpg,
all images of one size (64 x 64 here).

    python analyses/train_demo_network.py --data DATA --data-name textures --epochs 28 --seed 0 \
        --out natstats/demo_data/cifar_resnet20_textures.safetensors \
        --log analyses/results/train_demo_network.json

Training sees random crops, some of them taken a little smaller or larger and resized, and mirrored
at random; validation sees the whole images. The saved weights are those of the last epoch: the
validation images choose nothing.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.datasets import ImageFolder

from natstats.networks.zoo.cifar_resnets import cifar_resnet20

CROP = 48
CROP_SIDES = (40, 48, 48, 56)  # one is drawn per batch; anything but CROP is resized to CROP


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the demonstration network.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--data-name", help="name of the data to record (default: folder name)")
    parser.add_argument("--out", type=Path, required=True, help="weights to write (.safetensors)")
    parser.add_argument("--log", type=Path, required=True, help="log to write (.json)")
    parser.add_argument("--epochs", type=int, default=28)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2, help="peak of the one-cycle")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--label-smoothing", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def load_folder(folder: Path) -> tuple[Tensor, Tensor, list[str]]:
    """Read an image folder into memory.

    Args:
        folder: Folder with one subfolder of images per class.

    Returns:
        Images as uint8 of shape ``(N, 3, H, W)``, labels of shape ``(N,)``, and class names.

    Raises:
        ValueError: If the images differ in size.
    """
    data = ImageFolder(str(folder))
    arrays = [np.asarray(data[i][0]) for i in range(len(data))]
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise ValueError(f"folder must hold images of one size, got {sorted(shapes)} in {folder}")
    images = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(data.targets), data.classes


def random_crops(images: Tensor, side: int) -> Tensor:
    """Cut one square from each image at a random place and mirror every second one on average.

    Args:
        images: Shape ``(N, C, H, W)``.
        side: Side of the squares in pixels.

    Returns:
        Crops of shape ``(N, C, side, side)``.
    """
    count, channels, height, width = images.shape
    rows = torch.randint(height - side + 1, (count, 1)) + torch.arange(side)
    columns = torch.randint(width - side + 1, (count, 1)) + torch.arange(side)
    columns = torch.where(torch.rand(count, 1) < 0.5, columns, columns.flip(1))
    which = torch.arange(count)[:, None, None, None]
    channel = torch.arange(channels)[None, :, None, None]
    return images[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Map uint8 images ``(N, 3, H, W)`` to standardised channels-last floats."""
    scaled = (images.float() / 255 - mean[:, None, None]) / std[:, None, None]
    return scaled.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(net: nn.Module, images: Tensor, labels: Tensor, mean: Tensor, std: Tensor) -> float:
    """Return the fraction of the images that the network names correctly."""
    net.eval()
    correct = 0
    for batch, target in zip(torch.split(images, 200), torch.split(labels, 200), strict=True):
        correct += int((net(normalise(batch, mean, std)).argmax(1) == target).sum())
    return correct / len(labels)


def main() -> None:
    """Train, report each epoch, and save the weights and the log."""
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    images, labels, classes = load_folder(args.data / "train")
    val_images, val_labels, val_classes = load_folder(args.data / "val")
    if classes != val_classes:
        raise ValueError("train and val must hold the same class folders")
    pixels = images.double() / 255
    mean = pixels.mean(dim=(0, 2, 3)).float()
    std = pixels.std(dim=(0, 2, 3)).float()
    del pixels

    net = cifar_resnet20(num_classes=len(classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), args.learning_rate, 0.9, nesterov=True, weight_decay=args.weight_decay
    )
    steps = len(images) // args.batch_size
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, epochs=args.epochs, steps_per_epoch=steps, pct_start=0.2
    )
    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
    history = []
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        net.train()
        total_loss, correct = 0.0, 0
        order = torch.randperm(len(images))[: steps * args.batch_size]
        for index in torch.split(order, args.batch_size):
            side = CROP_SIDES[int(torch.randint(len(CROP_SIDES), ()))]
            batch = normalise(random_crops(images[index], side), mean, std)
            if side != CROP:
                batch = functional.interpolate(batch, (CROP, CROP), mode="bilinear", antialias=True)
            scores = net(batch)
            loss = criterion(scores, labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += loss.item()
            correct += int((scores.argmax(1) == labels[index]).sum())
        row = {
            "epoch": epoch,
            "train_loss": round(total_loss / steps, 4),
            "train_accuracy": round(correct / (steps * args.batch_size), 4),
            "val_accuracy": round(accuracy(net, val_images, val_labels, mean, std), 4),
            "seconds": round(time.perf_counter() - start, 1),
        }
        history.append(row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    facts = {
        "architecture": "cifar_resnet20",
        "classes": ",".join(classes),
        "training_data": args.data_name or args.data.resolve().name,
        "epochs": str(args.epochs),
        "seed": str(args.seed),
        "val_accuracy": f"{history[-1]['val_accuracy']:.4f}",
        "torch_version": str(torch.__version__),
        "mean": ",".join(f"{value:.6f}" for value in mean.tolist()),
        "std": ",".join(f"{value:.6f}" for value in std.tolist()),
    }
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, str(args.out), metadata=facts)
    settings = ("batch_size", "learning_rate", "weight_decay", "label_smoothing")
    log = {**facts, **{name: getattr(args, name) for name in settings}}
    log.update(train_images=len(images), val_images=len(val_images), history=history)
    args.log.parent.mkdir(parents=True, exist_ok=True)
    args.log.write_text(json.dumps(log, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
