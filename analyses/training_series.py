"""How the exponents of a small network move while it is trained.

A 20-layer CIFAR ResNet learns to name the folders of an image collection; its weights are kept
before training and after 1, 2, 4, 8, ... steps; every checkpoint is measured on the same
photographs. DATA is a folder with train/CLASS/*.jpg and val/CLASS/*.jpg, all images of one size
(64 x 64 here), PHOTOS a folder of photographs.

    OMP_NUM_THREADS=1 python analyses/training_series.py --data DATA --data-name textures \
        --photos PHOTOS --work runs/training

writes the checkpoints and the series below --work, analyses/results/training_series.csv (a row for
each checkpoint), training_series_kernels.csv (a row for each checkpoint and convolution) and
training_series.json (the training log, the account of every checkpoint and the change from the
first to the last), and two figures of docs/training.md. After it and
analyses/training_norms.py, figures/training.py makes the rest.
Checkpoints and runs that are there already are used again.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn import functional
from train_demo_network import accuracy, load_folder, normalise, random_crops
from training_accounts import LEVEL, N_DRAWS, accounts, kernels

import natstats
from natstats.networks.zoo import cifar_resnet20

ROOT = Path(__file__).parents[1]
CROP = 32
N_VALIDATED = 600


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure a network while it is trained.")
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--data-name", help="name of the data to record (default: folder name)")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--work", type=Path, required=True, help="checkpoints and series go here")
    parser.add_argument("--steps", type=int, default=512, help="of training, a power of 2")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.2, help="peak of the one-cycle")
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--limit", type=int, default=64, help="photographs")
    parser.add_argument("--size", type=int, default=128, help="side of the photographs, pixels")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def checkpoint_steps(n_steps: int) -> list[int]:
    """Steps at which the weights are kept: 0, 1, 2, 4, ... up to the last.

    >>> checkpoint_steps(8)
    [0, 1, 2, 4, 8]
    """
    return [0, *(2**power for power in range(n_steps.bit_length()) if 2**power <= n_steps)]


def train(args: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Train, keep the weights in `folder`, and return the log."""
    torch.manual_seed(args.seed)
    images, labels, classes = load_folder(args.data / "train")
    val_images, val_labels, _ = load_folder(args.data / "val")
    chosen = torch.linspace(0, len(val_labels) - 1, min(N_VALIDATED, len(val_labels))).long()
    val_images, val_labels = val_images[chosen], val_labels[chosen]
    sample = images[:: max(1, len(images) // 2000)].double() / 255
    mean = sample.mean(dim=(0, 2, 3)).float()
    std = sample.std(dim=(0, 2, 3)).float()

    net = cifar_resnet20(num_classes=len(classes)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        net.parameters(), args.learning_rate, 0.9, nesterov=True, weight_decay=args.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.learning_rate, total_steps=args.steps + 1, pct_start=0.2
    )
    kept = set(checkpoint_steps(args.steps))
    folder.mkdir(parents=True, exist_ok=True)
    history: list[dict[str, float]] = []
    losses: list[float] = []
    started = time.perf_counter()

    def keep(step: int) -> None:
        torch.save(net.state_dict(), folder / f"step_{step:04d}.pth")
        row = {
            "step": step,
            "train_loss": round(sum(losses) / len(losses), 4) if losses else None,
            "val_accuracy": round(accuracy(net, val_images, val_labels, mean, std), 4),
            "seconds": round(time.perf_counter() - started, 1),
        }
        losses.clear()
        net.train()
        history.append(row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    keep(0)
    order = torch.randperm(len(images))
    place = 0
    for step in range(1, args.steps + 1):
        if place + args.batch_size > len(images):
            order, place = torch.randperm(len(images)), 0
        index = order[place : place + args.batch_size]
        place += args.batch_size
        scores = net(normalise(random_crops(images[index], CROP), mean, std))
        loss = functional.cross_entropy(scores, labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step in kept:
            keep(step)
    log = {
        "architecture": "cifar_resnet20",
        "training_data": args.data_name or args.data.resolve().name,
        "classes": len(classes),
        "train_images": len(images),
        "val_images": len(val_images),
        "crop": CROP,
        "mean": [round(value, 6) for value in mean.tolist()],
        "std": [round(value, 6) for value in std.tolist()],
        **{k: getattr(args, k) for k in ("batch_size", "learning_rate", "weight_decay", "seed")},
        "history": history,
    }
    (folder / "log.json").write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    return log


def network(log: dict[str, object], size: int) -> natstats.Network:
    """The architecture with the preprocessing that it was trained with."""
    from natstats.images.sources import Framing

    model: nn.Module = cifar_resnet20(num_classes=log["classes"]).eval()
    mean, std = (tuple(log[name]) for name in ("mean", "std"))
    preprocessing = natstats.Preprocessing(Framing(size, size), mean, std)
    return natstats.Network(model, "cifar_resnet20", "as built", preprocessing=preprocessing)


def table(series: natstats.Series, log: dict[str, object]) -> pd.DataFrame:
    """A row for each checkpoint: the series, what its layers span, and how training stood."""
    inner = series.exponents[series.exponents.kind != "input"]
    by_step = inner.assign(better=inner["flags"].str.contains("better with")).groupby("step")
    spans = by_step.agg(
        exponent_min=("exponent", "min"),
        exponent_max=("exponent", "max"),
        n_better_form=("better", "sum"),
    )
    frame = series.frame.drop(columns=["file", "file_digest"]).merge(spans, on="step")
    history = pd.DataFrame(log["history"])[["step", "train_loss", "val_accuracy"]]
    return frame.merge(history, on="step")


def measured(
    log: dict[str, object], args: argparse.Namespace, folder: Path, out: Path
) -> natstats.Series:
    """The series of the checkpoints in a folder, with their accounts."""
    return natstats.measure_series(
        network(log, args.size),
        folder / "step_*.pth",
        args.photos,
        limit=args.limit,
        seed=args.seed,
        explain=True,
        out=out,
        progress=lambda done, total: print(f"{done} of {total} images", flush=True),
    )


def main() -> None:
    """Train unless that was done, measure, and write the tables and figures."""
    args = parse_arguments()
    folder, home = args.work / "checkpoints", args.work / "series"
    log_file = folder / "log.json"
    log = json.loads(log_file.read_text()) if log_file.is_file() else train(args, folder)
    series = measured(log, args, folder, home)
    print(series.sentence())
    results = ROOT / "analyses" / "results"
    table(series, log).to_csv(results / "training_series.csv", index=False)
    kernels(series, log["classes"]).to_csv(results / "training_series_kernels.csv", index=False)
    record = json.loads((home / "series.json").read_text(encoding="utf-8"))
    kept = {name: record[name] for name in ("sentence", "change", "fit", "versions")}
    kept["measured"] = {"photographs": args.limit, "size": args.size, "seed": args.seed}
    images = series.exponents[series.exponents.layer == "input.grey"].iloc[0]
    kept["images"] = {name: float(images[name]) for name in ("exponent", "low", "high")}
    kept["accounts"] = accounts(series)
    kept["random_kernels"] = {"draws": N_DRAWS, "level": LEVEL}
    kept["training"] = log
    (results / "training_series.json").write_text(
        json.dumps(kept, indent=1) + "\n", encoding="utf-8"
    )
    figures = ROOT / "docs" / "training"
    figures.mkdir(parents=True, exist_ok=True)
    for name in ("exponents", "slopes"):
        shutil.copy(home / "figures" / f"{name}.svg", figures / f"{name}.svg")


if __name__ == "__main__":
    main()
