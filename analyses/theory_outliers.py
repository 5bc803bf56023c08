"""What comes into the activation functions where Gaussian theory fails: how much passes, and tails.

Of each channel of the input, over all images and places: the share of values above zero, and the
excess kurtosis; of the channels the mean share and the median kurtosis.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import torch
from study import circumstances
from trained_networks import of_others

from natstats.activations.operations import OperationHooks, kind_of
from natstats.images.sources import batches, open_images

RESULT = Path(__file__).parent / "results" / "theory_outliers.json"
N_IMAGES = 32

Row = dict[str, Any]


def inputs_of(network: Any, images: Path) -> list[Row]:
    """A row for every activation function, in the order of execution."""
    way = network.preprocessing
    batch = next(iter(batches(open_images(images, way.framing, N_IMAGES), N_IMAGES)))
    rows: list[Row] = []

    def look(place: Any, func: Any, given: dict[str, Any]) -> None:
        values = given.get("self")
        if kind_of(place.name) == "rectifier" and values is not None and values.ndim == 4:
            each = (values - values.mean((0, 2, 3), True)) / values.std((0, 2, 3), keepdim=True)
            rows.append(
                {
                    "module": place.module,
                    "call": place.call,
                    "passes": round(float((values > 0).float().mean()), 3),
                    "kurtosis": round(float(each.pow(4).mean((0, 2, 3)).median()) - 3, 2),
                }
            )

    with OperationHooks(network.model, look), torch.no_grad():
        network.model(*network.arguments(way.normalize(batch.images)))
    return rows


@click.command()
@click.argument("weights", type=click.Path(exists=True, path_type=Path))
@click.argument("cifar", type=click.Path(exists=True, path_type=Path))
@click.argument("photos", type=click.Path(exists=True, path_type=Path))
def outliers(weights: Path, cifar: Path, photos: Path) -> None:
    """What comes into the activation functions of ResNet-20 and SqueezeNet."""
    wanted = {"ResNet-20": cifar, "SqueezeNet 1.1": photos}
    found = {
        one.name: inputs_of(one.load(), wanted[one.name])
        for _, one in of_others(weights)
        if one.name in wanted
    }
    for name, rows in found.items():
        for row in rows:
            print(f"{name} {row['module']}: {row['passes']:.2f} pass, kurtosis {row['kurtosis']}")
    record = {
        "command": "python analyses/theory.py outliers WEIGHTS CIFAR PHOTOS",
        **circumstances(),
        "n_images": N_IMAGES,
        "networks": found,
    }
    RESULT.write_text(json.dumps(record, indent=0) + "\n", encoding="utf-8")
    print(RESULT)


if __name__ == "__main__":
    outliers()
