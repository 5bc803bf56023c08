r"""Images per second of a measurement from files, beside what each of its stages allows.

    python analyses/throughput.py mobilenet_v2 PHOTOGRAPHS --checkpoint mobilenet_v2.pth
    python analyses/throughput.py resnet50 PHOTOGRAPHS --images 32

Stages take turns in every round, on the same images:

* decode: files read and hashed, and decoded to RGB, by one thread;
* transform: decoded images scaled and cut, by one thread;
* forward: the network alone, on batches that lie ready on the device;
* spectra: what a collector adds to that;
* plain, N workers: the network alone, on batches from the loader of natstats;
* natstats, N workers: `natstats.measure`, its loop over the images.

Printed and written: the median over rounds of the images per second, and two ratios of the same
round. *Of the slowest stage* is the images per second beside those of the slowest stage alone: what
could be reached if all stages ran side by side, each as fast as alone, as decoding on a CPU and a
network on a GPU may. *Of the processors* is the time beside the processor seconds of all stages
over the number of processors, where the network runs on them too: no order of the work can be
faster than that.

Writes analyses/results/throughput_NETWORK.json, of which figures/benchmarks.py makes a table.
"""

from __future__ import annotations

import functools
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import torch
from collector_overhead import device_name
from PIL import Image
from torch import Tensor

import natstats
from natstats.images.image_sets import Photographs
from natstats.images.pixels import fingerprint, read_rgb
from natstats.images.sources import batches, open_images
from natstats.networks.load import load_network

RESULTS = Path(__file__).parent / "results"
STAGES = ("decode", "transform", "forward", "spectra")

Timed = tuple[float, float]
"""Seconds of the clock, and of the processors."""


class Stages:
    """Everything that is timed, for one network and some photographs.

    Args:
        name: of the network.
        photographs: their folder.
        checkpoint: its weights; None for random ones, which cost the same.
        n_images: how many photographs.
        batch_size: images of a batch.
        device: where the network runs.
    """

    def __init__(
        self,
        name: str,
        photographs: str,
        checkpoint: str | None,
        n_images: int,
        batch_size: int,
        device: str,
    ) -> None:
        weights = {} if checkpoint else {"weights": "none"}
        self.network = load_network(name, checkpoint=checkpoint, device=device, **weights)
        self.model = self.network.model.eval()
        framing = self.network.preprocessing.framing
        source = open_images(photographs, framing, n_images)
        assert isinstance(source, Photographs)
        self.source, self.batch_size, self.device = source, batch_size, device
        self.framing = source.framing
        self.decoded: list[Image.Image] = []
        self.collector = natstats.Collector(self.model)
        self.batches = [self._given(one.images) for one in batches(source, batch_size, 0, device)]

    def _given(self, images: Tensor) -> Tensor:
        return self.network.preprocessing.normalize(images)

    def decode(self) -> None:
        """Read, hash and decode all files."""
        self.decoded = []
        for number in range(len(self.source)):
            with self.source.open(number) as file:
                fingerprint(file)
                self.decoded.append(read_rgb(file))

    def transform(self) -> None:
        """Bring what was decoded to size."""
        for image in self.decoded:
            self.framing(image)

    def forward(self) -> None:
        """The network alone."""
        with torch.inference_mode():
            for images in self.batches:
                self.model(images)

    def collected(self) -> None:
        """The network with a collector on all layers with weights, which was traced before."""
        with torch.inference_mode(), self.collector:
            for images in self.batches:
                self.model(images)

    def plain(self, workers: int) -> None:
        """The network alone, on what the loader reads."""
        with torch.inference_mode():
            for batch in batches(self.source, self.batch_size, workers, self.device):
                self.model(self._given(batch.images))

    def measured(self, workers: int) -> float:
        """Seconds of the loop over the images of a measurement."""
        run = natstats.measure(
            self.network, self.source, batch_size=self.batch_size, workers=workers
        )
        return len(self.source) / float(run.info["timing"]["images_per_second"])


def timed(work: Callable[[], object], device: str) -> Timed:
    """How long it takes."""
    wait = torch.cuda.synchronize if device.startswith("cuda") else lambda: None
    wait()
    clock, processors = time.perf_counter(), time.process_time()
    work()
    wait()
    return time.perf_counter() - clock, time.process_time() - processors


def one_round(stages: Stages, workers: tuple[int, ...]) -> dict[str, Timed]:
    """The seconds of every stage, once."""
    run = functools.partial(timed, device=stages.device)
    found = {name: run(getattr(stages, name)) for name in ("decode", "transform", "forward")}
    both, forward = run(stages.collected), found["forward"]
    found["spectra"] = (both[0] - forward[0], both[1] - forward[1])
    for n in workers:
        found[f"plain, {n} workers"] = run(functools.partial(stages.plain, n))
    for n in workers:
        found[f"natstats, {n} workers"] = (stages.measured(n), 0.0)
    return found


def summary(rounds: list[dict[str, Timed]], n_images: int, shares: bool) -> dict[str, Any]:
    """Images per second and ratios, of all rounds.

    Args:
        rounds: seconds of every stage.
        n_images: that they are of.
        shares: the network runs on the processors that decode.
    """
    processors = os.cpu_count() or 1
    rows: dict[str, Any] = {}
    for name in rounds[0]:
        row = {"images_per_second": n_images / statistics.median(one[name][0] for one in rounds)}
        if name not in STAGES:
            row["of_slowest"] = statistics.median(
                max(one[stage][0] for stage in STAGES) / one[name][0] for one in rounds
            )
            if shares and name.startswith("natstats"):
                row["of_processors"] = statistics.median(
                    sum(one[stage][1] for stage in STAGES) / processors / one[name][0]
                    for one in rounds
                )
        rows[name] = {key: round(value, 3) for key, value in row.items()}
    return rows


@click.command()
@click.argument("name", metavar="NETWORK")
@click.argument("photographs", type=click.Path(exists=True))
@click.option("--checkpoint", help="Its weights; random ones cost the same.")
@click.option("--images", "n_images", default=64, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--workers", multiple=True, type=int, default=(0, 1, 2), show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--device", default="cpu", show_default=True)
def main(
    name: str,
    photographs: str,
    checkpoint: str | None,
    n_images: int,
    batch_size: int,
    workers: tuple[int, ...],
    rounds: int,
    device: str,
) -> None:
    """Time all stages in turn, print and write the table."""
    load = os.getloadavg()[0]
    stages = Stages(name, photographs, checkpoint, n_images, batch_size, device)
    stages.collected()  # the network is traced, and libraries have their buffers
    found = [one_round(stages, workers) for _ in range(rounds)]
    rows = summary(found, len(stages.source), not device.startswith("cuda"))
    for stage, row in rows.items():
        ratios = ", ".join(
            f"{value:.2f} {key.replace('_', ' ')}" for key, value in list(row.items())[1:]
        )
        print(f"{stage:<22}{row['images_per_second']:>9.1f} images/s  {ratios}")
    record = {
        "network": name, "images": len(stages.source), "size": stages.framing.size,
        "batch_size": batch_size, "rounds": rounds, "device": device_name(device),
        "processors": os.cpu_count(), "threads": torch.get_num_threads(),
        "load_before": round(load, 1), "rows": rows,
        "versions": {"torch": str(torch.__version__), "natstats": natstats.__version__},
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"throughput_{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
