r"""What an image costs on paper: operations and bytes of the network, and of its spectra.

    OMP_NUM_THREADS=2 python analyses/cost_on_paper.py

Networks with random weights run once on a CPU while every operation is counted as it is
dispatched: floating-point operations (products of matrices and convolutions as torch counts them,
two for a product and its sum; 2.5 n log2 n for the real transform of a map of n pixels), and bytes,
those of all tensors that an operation reads or writes. Two sizes of the batch tell what an image
costs from what a batch costs. Spectra are those of all layers with weights, of maps of their sizes.
From this follows what a device can do at best where nothing stays in a cache from one operation to
the next: the larger of operations over its peak and bytes over its bandwidth.

Printed and written: a row for each network, with the size of the state that its measurement keeps.

Writes analyses/results/cost_on_paper.json, of which figures/scaling.py makes the tables.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

import natstats
from natstats.networks.load import load_network
from natstats.spectra.records import Layer

RESULT = Path(__file__).parent / "results" / "cost_on_paper.json"

NETWORKS = (
    "cifar_resnet56", "mobilenet_v2", "resnet50", "vgg16", "densenet201", "efficientnet_v2_l",
    "vit_b_16", "vit_h_14", "convnext_large", "regnet_y_128gf",
)  # fmt: skip
FEW, MANY = 2, 4


class Bytes(TorchDispatchMode):
    """Adds up the bytes of what operations read and write; views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, operation: Any, types: Any, given: tuple[Any, ...] = (), named: Any = None
    ) -> Any:
        """Run an operation and count it."""
        found = operation(*given, **(named or {}))
        read = [one for one in tree_leaves((given, named)) if isinstance(one, Tensor)]
        written = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        places = {one.untyped_storage().data_ptr() for one in read}
        is_view = all(one.untyped_storage().data_ptr() in places for one in written)
        if not is_view or operation._schema.is_mutable:
            self.total += sum(one.numel() * one.element_size() for one in [*read, *written])
        return found


def transform(shape: Any, dims: Any, *_: Any, **__: Any) -> int:
    """Operations of the real transform of maps over some axes."""
    sides = math.prod(shape[axis] for axis in dims)
    return int(2.5 * math.prod(shape) * math.log2(sides))


def counted(work: Callable[[], object]) -> tuple[float, float]:
    """Operations and bytes of some work."""
    flops = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._fft_r2c: transform})
    with torch.inference_mode(), flops, Bytes() as moved:
        work()
    return float(flops.get_total_flops()), float(moved.total)


def per_image(work: Callable[[int], object]) -> dict[str, float]:
    """What one image more of a batch costs, and what a batch costs beside its images.

    Args:
        work: does it for so many images.
    """
    flops, moved = zip(*(counted(functools.partial(work, n)) for n in (FEW, MANY)), strict=True)
    more = (moved[1] - moved[0]) / (MANY - FEW)
    return {
        "flops": (flops[1] - flops[0]) / (MANY - FEW),
        "bytes": more,
        "batch_bytes": moved[0] - FEW * more,
    }


def forward(model: nn.Module, size: int, n: int) -> None:
    """A pass of so many images."""
    model(torch.randn(n, 3, size, size))


def spectra(layers: Sequence[Layer]) -> dict[str, float]:
    """What the spectra of some layers cost: transform, rings and sums of each."""
    sizes = {(one.height, one.width) for one in layers}
    sums = {size: natstats.SpectrumAccumulator(*size) for size in sizes}

    def work(n: int) -> None:
        for one in layers:
            maps = torch.randn(n, one.channels, one.height, one.width)
            own = sums[one.height, one.width]
            own.reset()
            own.update(maps)

    def maps_alone(n: int) -> None:
        for one in layers:
            torch.randn(n, one.channels, one.height, one.width)
            sums[one.height, one.width].reset()

    work(FEW)  # tables of the map sizes are made
    found, beside = per_image(work), per_image(maps_alone)
    return {key: value - beside[key] for key, value in found.items()}


def measured_layers(model: nn.Module, size: int) -> tuple[list[Layer], int]:
    """The layers that are measured, and the bytes of the state of a collector."""
    with torch.inference_mode(), natstats.Collector(model) as collector:
        model(torch.randn(FEW, 3, size, size))
        kept = tree_leaves(collector.state_dict())
    n_bytes = sum(one.numel() * one.element_size() for one in kept if isinstance(one, Tensor))
    return [one.layer for one in collector.compute()], n_bytes


@click.command()
@click.option("--network", "names", multiple=True, default=NETWORKS, show_default=True)
def main(names: tuple[str, ...]) -> None:
    """Count every network, print and write."""
    rows: dict[str, Any] = {}
    for name in names:
        network = load_network(name, weights="none")
        size = network.preprocessing.framing.size
        model = network.model.eval()
        layers, state_bytes = measured_layers(model, size)
        plain = per_image(functools.partial(forward, model, size))
        own = spectra(layers)
        weights = sum(one.numel() * one.element_size() for one in model.parameters())
        rows[name] = {
            "size": size, "layers": len(layers), "weights": weights, "state": state_bytes,
            "network": plain, "spectra": own,
        }  # fmt: skip
        print(
            f"{name:<16}{plain['flops'] / 1e9:8.2f} GFLOP {plain['bytes'] / 1e6:8.0f} MB, "
            f"spectra {own['flops'] / 1e9:6.2f} GFLOP {own['bytes'] / 1e6:8.0f} MB, "
            f"{len(layers)} layers, state {state_bytes / 1e6:.1f} MB",
            flush=True,
        )
    versions = {"torch": str(torch.__version__), "natstats": natstats.__version__}
    RESULT.write_text(json.dumps({"rows": rows, "versions": versions}, indent=1) + "\n")


if __name__ == "__main__":
    main()
