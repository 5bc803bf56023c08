"""Networks with random weights: predicted exponents against measured ones.

    python analyses/theory.py random PHOTOS --seeds 6
    python analyses/theory.py depthwise PHOTOS

A plain network of 256 channels and eight layers, of which the 4th and the 7th have a stride of 2,
at 32 pixels, where the recursion is exact; and networks as they are used, at 224 pixels, where it
starts with stationary fields. Photographs are framed and normalised as for ImageNet.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from torch import nn

import natstats
from natstats.files.csv_files import write_csv
from natstats.images.framing import Framing
from natstats.theory.random_networks import RandomSpectra, random_spectra

RESULTS = Path(__file__).parent / "results"
PHOTOS = Path(natstats.__file__).parent / "demo_data" / "photos"
STRIDES = (1, 1, 1, 2, 1, 1, 2, 1)
NETWORKS = ("resnet18", "mobilenet_v2", "vgg11")
NEAR, FACTOR = 0.03, 0.3
WIDE = 4.0


def plain_network(n_channels: int, seed: int) -> natstats.Network:
    """Convolutions of 3 x 3 with He's initialisation, ReLUs between them."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    n_in = 3
    for stride in STRIDES:
        conv = nn.Conv2d(n_in, n_channels, 3, stride, 1, bias=False)
        nn.init.kaiming_normal_(conv.weight)
        layers += [conv, nn.ReLU()]
        n_in = n_channels
    return framed(nn.Sequential(*layers[:-1]), seed)


def separable_network(
    n_channels: int, groups: int, seed: int, n_blocks: int = 5
) -> natstats.Network:
    """Blocks of ReLU, convolution of 3 x 3 in this many groups and convolution of 1 x 1."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [nn.Conv2d(3, n_channels, 3, 1, 1, bias=False)]
    for _ in range(n_blocks):
        layers += [
            nn.ReLU(),
            nn.Conv2d(n_channels, n_channels, 3, 1, 1, groups=groups, bias=False),
            nn.ReLU(),
            nn.Conv2d(n_channels, n_channels, 1, bias=False),
        ]
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    return framed(nn.Sequential(*layers), seed)


def framed(model: nn.Sequential, seed: int) -> natstats.Network:
    """A network for photographs at 32 pixels."""
    return natstats.Network(
        model.eval(),
        "plain",
        f"none (random, seed {seed})",
        trained=False,
        preprocessing=natstats.Preprocessing(Framing(32, 36)),
    )


def measured(network: natstats.Network, photos: Path, n_images: int) -> dict[str, float]:
    """Exponent of every weight layer, as natstats measures it."""
    run = natstats.measure(network, photos, limit=n_images)
    return {
        spectrum.layer.name: fit.exponent
        for spectrum, fit in zip(run.spectra, run.fits.layers, strict=True)
    }


def compared(found: RandomSpectra, runs: list[dict[str, float]]) -> list[dict[str, Any]]:
    """A row for every layer: predicted, measured over seeds, and whether they agree."""
    rows = []
    for layer in found.layers:
        seeds = np.array([run[layer.name] for run in runs])
        error = seeds.std(ddof=1) / np.sqrt(len(seeds))
        gap = layer.exponent - seeds.mean()
        rows.append(
            {
                "layer": layer.name,
                "kind": layer.kind,
                "depth": layer.depth,
                "side": layer.height,
                "form": layer.form,
                "predicted": round(layer.exponent, 4),
                "measured": round(float(seeds.mean()), 4),
                "standard_error": round(float(error), 4),
                "sd": round(float(seeds.std(ddof=1)), 4),
                "within": bool(abs(gap) <= max(NEAR, 2 * error)),
            }
        )
    return rows


def slope_of(rows: list[dict[str, Any]], column: str) -> float:
    """Straight line over depth, the images left out."""
    layers = [row for row in rows if row["depth"]]
    line = np.polyfit([row["depth"] for row in layers], [row[column] for row in layers], 1)
    return float(line[0])


def plain_study(photos: Path, n_images: int, n_seeds: int, n_channels: int) -> list[dict[str, Any]]:
    """Predicted and measured exponents of the plain network."""
    found = random_spectra(plain_network(n_channels, 0), photos, limit=n_images)
    runs = [measured(plain_network(n_channels, seed), photos, n_images) for seed in range(n_seeds)]
    return compared(found, runs)


def network_study(
    name: str, photos: Path, n_images: int, n_seeds: int, model_args: dict[str, Any]
) -> dict[str, Any]:
    """Predicted and measured exponents of a network of torchvision, and their slopes."""
    networks = [
        natstats.load_network(name, weights="none", seed=seed, model_args=model_args)
        for seed in range(n_seeds)
    ]
    found = random_spectra(
        networks[0], photos, limit=n_images, max_pooling="simulate", batch_size=4
    )
    runs = [measured(network, photos, n_images) for network in networks]
    rows = compared(found, runs)
    seeds = [slope_of([{**row, "own": run[row["layer"]]} for row in rows], "own") for run in runs]
    predicted, mean = slope_of(rows, "predicted"), float(np.mean(seeds))
    return {
        "network": name,
        "arguments": model_args,
        "images": n_images,
        "stopped": found.stopped,
        "predicted_slope": predicted,
        "measured_slope": mean,
        "measured_slopes": seeds,
        "reached": bool(abs(predicted - mean) <= FACTOR * abs(mean)),
        "median_difference": float(
            np.median([abs(row["predicted"] - row["measured"]) for row in rows])
        ),
        "layers": rows,
    }


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path), default=PHOTOS)
@click.option("--images", "n_images", default=24, show_default=True, help="Photographs.")
@click.option("--seeds", "n_seeds", default=6, show_default=True, help="Of the plain network.")
@click.option("--channels", "n_channels", default=256, show_default=True, help="Of that network.")
@click.option("--network", "names", multiple=True, default=NETWORKS, show_default=True)
@click.option("--network-seeds", default=3, show_default=True, help="Of every other network.")
@click.option(
    "--wide-images", default=8, show_default=True, help="Of MobileNetV2, widened; 0: none."
)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=False)
def random(
    photos: Path,
    n_images: int,
    n_seeds: int,
    n_channels: int,
    names: tuple[str, ...],
    network_seeds: int,
    wide_images: int,
    threads: int,
    out: Path,
) -> None:
    """Predicted exponents of networks with random weights against measured ones."""
    torch.set_num_threads(threads)
    plain = plain_study(photos, n_images, n_seeds, n_channels)
    for row in plain:
        click.echo(" ".join(f"{value}" for value in row.values()))
    studies = []
    plans: list[tuple[str, int, dict[str, Any]]] = [(name, n_images, {}) for name in names]
    # What is left where every channel has few weights: the same network, four times as wide.
    if "mobilenet_v2" in names and wide_images:
        plans.append(("mobilenet_v2", wide_images, {"width_mult": WIDE}))
    for name, n, model_args in plans:
        studies.append(network_study(name, photos, n, network_seeds, model_args))
        click.echo({key: one for key, one in studies[-1].items() if key != "layers"})
    record = {
        "command": "python analyses/theory.py random PHOTOS",
        "natstats": natstats.__version__,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "photographs": n_images,
        "plain": {"channels": n_channels, "seeds": n_seeds, "layers": plain},
        "networks": studies,
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1) + "\n"
    (out / "theory_random.json").write_text(text, encoding="utf-8")
    table = [
        {"network": network, **row}
        for network, rows in [
            ("plain", plain),
            *(
                (study["network"] + (" wide" if study["arguments"] else ""), study["layers"])
                for study in studies
            ),
        ]
        for row in rows
    ]
    write_csv(pd.DataFrame(table), out / "theory_random.csv")


@click.command()
@click.argument("photos", type=click.Path(exists=True, path_type=Path), default=PHOTOS)
@click.option("--images", "n_images", default=24, show_default=True, help="Photographs.")
@click.option("--seeds", "n_seeds", default=12, show_default=True)
@click.option("--channels", "n_channels", default=256, show_default=True)
@click.option("--threads", default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=RESULTS, show_default=False)
def depthwise(
    photos: Path, n_images: int, n_seeds: int, n_channels: int, threads: int, out: Path
) -> None:
    """What it costs that a depthwise convolution's output is no Gaussian field."""
    torch.set_num_threads(threads)
    studies = {}
    for groups in (1, n_channels):
        networks = [separable_network(n_channels, groups, seed) for seed in range(n_seeds)]
        found = random_spectra(networks[0], photos, limit=n_images)
        runs = [measured(network, photos, n_images) for network in networks]
        studies["dense" if groups == 1 else "depthwise"] = compared(found, runs)
    for name, rows in studies.items():
        gaps = [round(row["measured"] - row["predicted"], 3) for row in rows]
        click.echo(f"{name}: measured less predicted {gaps}")
    record = {
        "command": "python analyses/theory.py depthwise PHOTOS",
        "natstats": natstats.__version__,
        "photographs": n_images,
        "channels": n_channels,
        "seeds": n_seeds,
        **studies,
    }
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1) + "\n"
    (out / "theory_depthwise.json").write_text(text, encoding="utf-8")
