"""Does the depth law change when all layers are fitted to the same waves of the image?

The whole band of a small map is a few long waves, that of a large one many short ones. Where a
spectrum is no power law, part of what looks like a change of the exponent with depth is a change of
band. Here trained networks are measured once on photographs, and fitted

- with the whole band of every map, all layers;
- with the whole band, but only the layers that hold a band in cycles/image: what leaving out the
  others does to the slope;
- the same layers in that band: what the band does.

The bands are 1:4, and those that begin at 1 or 2 cycles/image and end at the Nyquist frequency of
one of the network's map sizes, with four rings or more; those that fewer than 8 layers hold are
left out. Where all maps are of one size, they are two octaves and more at either end of its band.
The network's own output (the last convolution of DnCNN, that of SqueezeNet's classifier) is no
activation, and left out of every law.

    OMP_NUM_THREADS=1 python analyses/common_waves.py --photos PHOTOGRAPHS --weights WEIGHTS

WEIGHTS is a folder with the files named in NETWORKS; a network whose file is not there is left out.
Photographs enter as unscaled centres. With --work runs are kept there and used again. Writes
analyses/results/common_waves.json and prints the table of docs/method.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trained_networks import dncnn_module, own_module

import natstats
from natstats.fits.band_choice import ImageBand
from natstats.fits.held_bands import common_band, holds
from natstats.images.framing import Framing
from natstats.networks.load import Network, Preprocessing, load_network
from natstats.runs.store import to_json
from natstats.spectra.frequencies import extent

RESULT = Path(__file__).parent / "results" / "common_waves.json"
N_PHOTOGRAPHS = 48
FEWEST = 8
"""Layers that must hold a band for it to be reported."""

LONG = ImageBand(1, 4)
"""The two octaves that most maps hold."""

Row = dict[str, Any]


def dncnn(file: Path) -> Network:
    """DnCNN: 17 convolutions without stride, of which the last writes the noise."""
    return own_module(file, dncnn_module, Preprocessing(Framing(96), (0.0,), (1.0,)), "dncnn.")


def named(name: str, file: Path, **arguments: Any) -> Network:
    """A network that natstats can build."""
    return load_network(name, checkpoint=file, model_args=arguments)


@dataclass(frozen=True)
class Subject:
    """A trained network.

    Attributes:
        file: of its weights.
        side: of the unscaled centres that it is given, pixels.
        load: makes the network of its weights.
        output: layer that writes the network's output, if one is measured.
        bands: bands in cycles/image in place of those that follow from its map sizes.
    """

    file: str
    side: int
    load: Callable[[Path], Network]
    output: str = ""
    bands: tuple[tuple[float, float], ...] = ()


NETWORKS = {
    "MobileNetV2": Subject("mobilenet_v2_torchvision.pth", 224, partial(named, "mobilenet_v2")),
    "SqueezeNet 1.1": Subject(
        "squeezenet1_1_imagenet.safetensors", 224, partial(named, "squeezenet1_1"), "classifier.1"
    ),
    "ResNet-56 (CIFAR-10)": Subject(
        "cifar10_resnet56.pth", 32, partial(named, "cifar_resnet56", shortcut="conv")
    ),
    "ResNet-56 (CIFAR-10), b": Subject(
        "cifar10_resnet56_b.th", 32, partial(named, "cifar_resnet56")
    ),
    "DnCNN (sigma 25)": Subject(
        "dncnn_s25.pth", 96, dncnn, "47", ((1, 6), (1, 12), (3, 24), (6, 48), (12, 48))
    ),
}


def measured(subject: Subject, file: Path, args: argparse.Namespace) -> natstats.Run:
    """The run of a network: that which is kept, or a new one."""
    home = args.work / file.name if args.work else None
    if home is not None and (home / "run.json").is_file():
        return natstats.Run.open(home)
    run = natstats.measure(
        subject.load(file), args.photos, crop=subject.side, limit=args.limit, seed=0
    )
    if home is not None:
        run.save(home, report=False)
    return run


def part_of(run: natstats.Run, keep: Sequence[bool], band: Any = None) -> natstats.Run:
    """The images and some layers of a run, maybe fitted in another band."""
    spectra = [one for one, is_kept in zip(run.spectra, keep, strict=True) if is_kept]
    part = natstats.Run(spectra, (), run.info, run.options)
    return part if band is None else part.refit(band=band)


def law_row(run: natstats.Run) -> Row:
    """The law of a run, and how alike the departures of neighbouring layers are."""
    law = run.law
    layers = run.layers[run.layers.kind != "input"].dropna(subset=["exponent"])
    layers = layers[~layers["flags"].str.contains("beyond range")].sort_values("depth")
    line = np.polyfit(layers.depth, layers.exponent, 1)
    left = (layers.exponent - np.polyval(line, layers.depth)).to_numpy()
    return {
        "n_layers": law.n_layers,
        "slope": law.slope,
        "low": law.slope_low,
        "high": law.slope_high,
        "p": law.trend_p,
        "verdict": law.verdict,
        "lag_1": float(left[1:] @ left[:-1] / (left @ left)),
        "exponents": [float(x) for x in layers.exponent],
        "mean_by_side": {
            str(side): [len(own), own.mean(), float(np.polyfit(own.index, own, 1)[0])]
            for side, own in layers.set_index("depth").groupby("height").exponent
            if len(own) > 3
        },
        "median_reach": float((layers.exponent_high - layers.exponent_low).median() / 2),
    }


def bands_of(run: natstats.Run, subject: Subject, inner: Sequence[bool]) -> list[ImageBand]:
    """Bands in cycles/image to compare."""
    if subject.bands:
        return [ImageBand(*ends) for ends in subject.bands]
    layers = [one for one, is_inner in zip(run.spectra, inner, strict=True) if is_inner]
    found = [LONG]
    while layers:
        common = common_band(layers)
        if common is None:
            break
        pair = [ImageBand(low, common[1]) for low in (1, 2) if common[1] - low >= 3]  # rings
        found += [band for band in pair if band not in found]
        layers = [m for m in layers if nyquist(m) > common[1] + 1e-6]
    return found


def nyquist(measured: Any) -> float:
    """Shortest wave that the maps of a layer hold along an axis, cycles/image."""
    return float(extent(measured.layer.height, measured.layer.width) / 2 / measured.span)


def compared(name: str, subject: Subject, run: natstats.Run) -> list[Row]:
    """A row for each band: whole band of the layers that hold it, and the band itself."""
    is_input = [one.layer.kind == "input" for one in run.spectra]
    inner = [
        not given and one.layer.name != subject.output
        for one, given in zip(run.spectra, is_input, strict=True)
    ]
    every = part_of(run, [a or b for a, b in zip(is_input, inner, strict=True)])
    rows: list[Row] = [{"network": name, "band": "whole", "whole": law_row(every)}]
    for band in bands_of(run, subject, inner):
        held = [a and holds(one, band) for one, a in zip(run.spectra, inner, strict=True)]
        if sum(held) < FEWEST:
            continue
        same = [a or b for a, b in zip(is_input, held, strict=True)]
        whole, banded = part_of(run, same), part_of(run, same, band)
        pair = [
            one.fits.exponents[[m.layer.kind != "input" for m in one.spectra]]
            for one in (whole, banded)
        ]
        good = np.isfinite(pair[0]) & np.isfinite(pair[1])
        change = (pair[1] - pair[0])[good]
        rows.append(
            {
                "network": name,
                "band": str(band),
                "n_held": sum(held),
                "n_all": sum(inner),
                "whole": law_row(whole),
                "banded": law_row(banded),
                "mean_change": float(change.mean()),
                "rms_change": float(np.sqrt(np.mean(change**2))),
                "sd_whole": float(np.std(pair[0][good], ddof=1)),
                "correlation": float(np.corrcoef(pair[0][good], pair[1][good])[0, 1]),
            }
        )
    return rows


def law_text(law: Row) -> str:
    """Slope, interval and verdict for the table."""
    return f"{law['slope']:+.4f} [{law['low']:+.4f}, {law['high']:+.4f}] {law['verdict']}"


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| network | band | layers | whole band, these layers | this band, these layers | "
        "exponents: sd, rms change, correlation |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        whole, banded = row["whole"], row.get("banded")
        if banded is None:
            cells = [row["network"], "whole", str(whole["n_layers"]), law_text(whole), "", ""]
        else:
            moved = f"{row['sd_whole']:.2f}, {row['rms_change']:.2f}, {row['correlation']:+.2f}"
            cells = ["", row["band"], f"{row['n_held']} of {row['n_all']}"]
            cells += [law_text(whole), law_text(banded), moved]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=N_PHOTOGRAPHS)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    rows: list[Row] = []
    for name, subject in NETWORKS.items():
        file = args.weights / subject.file
        if not file.is_file():
            print(f"{name}: no {subject.file}, left out", flush=True)
            continue
        run = measured(subject, file, args)
        rows += compared(name, subject, run)
        print(f"{name}: {run.layers.n_images.max()} photographs", flush=True)
    record = {
        "command": f"python analyses/common_waves.py --limit {args.limit}",
        "versions": {"numpy": np.__version__, "torch": str(torch.__version__)},
        "natstats": natstats.__version__,
        "rows": rows,
    }
    RESULT.write_text(to_json(record), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
