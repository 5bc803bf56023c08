"""What the running averages of batch normalisation have to do with what a training series shows.

    OMP_NUM_THREADS=1 python analyses/training_norms.py --data DATA --photos PHOTOS \
        --work runs/training --limit 48

takes the checkpoints of analyses/training_series.py, estimates their running averages anew, with
the weights as they are, from crops of training images, and measures them as that script does.
Writes analyses/results/training_norms.csv: a row for each checkpoint.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn
from train_demo_network import accuracy, load_folder, normalise, random_crops
from training_accounts import accounts
from training_series import CROP, N_VALIDATED, measured, parse_arguments

from natstats.networks.zoo import cifar_resnet20

RESULT = Path(__file__).parent / "results" / "training_norms.csv"
N_BATCHES = 10


def estimate_averages(net: nn.Module, batches: list[Tensor]) -> None:
    """Give batch normalisation the mean of the statistics of some batches."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over batches
    net.train()
    with torch.no_grad():
        for batch in batches:
            net(batch)
    net.eval()


def main() -> None:
    """Estimate, measure, and write the table."""
    args = parse_arguments()
    held, folder = args.work / "checkpoints", args.work / "averages"
    log = json.loads((held / "log.json").read_text(encoding="utf-8"))
    mean, std = (torch.tensor(log[name]) for name in ("mean", "std"))
    images, _, classes = load_folder(args.data / "train")
    val_images, val_labels, _ = load_folder(args.data / "val")
    chosen = torch.linspace(0, len(val_labels) - 1, min(N_VALIDATED, len(val_labels))).long()
    torch.manual_seed(args.seed)
    order = torch.randperm(len(images))[: N_BATCHES * args.batch_size].split(args.batch_size)
    batches = [normalise(random_crops(images[own], CROP), mean, std) for own in order]
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for file in sorted(held.glob("step_*.pth")):
        net = cifar_resnet20(num_classes=len(classes))
        net.load_state_dict(torch.load(file, weights_only=True))
        estimate_averages(net, batches)
        torch.save(net.state_dict(), folder / file.name)
        right = accuracy(net, val_images[chosen], val_labels[chosen], mean, std)
        rows.append({"val_accuracy": round(right, 4)})
        print(f"{file.stem}: validation accuracy {right:.2f}", flush=True)
    series = measured(log, args, folder, args.work / "averages_series")
    columns = ["step", "exponent_mean", "exponent_mean_low", "exponent_mean_high"]
    table = pd.concat([series.frame[columns], pd.DataFrame(rows)], axis=1)
    for place, row in enumerate(accounts(series)):
        for one in row["totals"]:
            table.loc[place, one["cause"]] = one["share"]
        whole = row["slopes"][0]
        table.loc[place, ["slope", "slope_low", "slope_high"]] = [
            whole[name] for name in ("slope", "low", "high")
        ]
    table.round(6).to_csv(RESULT, index=False)


if __name__ == "__main__":
    main()
