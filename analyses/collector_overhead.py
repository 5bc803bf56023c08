"""What measuring costs: natstats against the plain pass, against a bound, against the simple way.

    python analyses/collector_overhead.py --model resnet50 --size 224
    python analyses/collector_overhead.py --model resnet50 --batch-size 8 --together

Variants take turns in every round, so that a machine whose speed drifts is fair to all:

* plain: the forward pass alone;
* bound: the forward pass, and ``torch.fft.rfft2`` alone of every map that natstats measures, which
  is the least that an exact measurement costs;
* natstats: a Collector on every layer with weights, sine taper; opened for every pass, or once for
  all passes with ``--together``;
* straightforward: hooks keep all activations, then numpy's FFT and the azimuthal mean.

Each variant has a process of its own, so that none finds the memory as another left it. With
``--together`` the first three share one process (and the last is left out): the ratio to the bound
is meant for that, as both then find the same memory.

Printed: the median time of each, the median over rounds of the ratio to the plain pass and to the
bound of the same round, and, of processes of their own, the peak memory above the loaded model (of
the process on a CPU, of the allocator on a GPU).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import natstats
from natstats.spectra.frequencies import rings


class Plain:
    """The forward pass alone."""

    def open(self, model: nn.Module, images: Tensor) -> contextlib.AbstractContextManager[Any]:
        """What is on while passes are timed, and is not timed itself."""
        return contextlib.nullcontext()

    def run(self, model: nn.Module, images: Tensor) -> None:
        """What is timed."""
        model(images)


class Bound(Plain):
    """The forward pass, and the FFT of the maps that natstats measures."""

    def __init__(self) -> None:
        self.layers: list[str] | None = None

    @contextlib.contextmanager
    def open(self, model: nn.Module, images: Tensor) -> Iterator[None]:
        """Put the hooks on the layers that natstats measures."""
        if self.layers is None:
            with natstats.Collector(model) as collector:
                model(images[:1])
            self.layers = [one.layer.name for one in collector.compute()]

        def transform(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            torch.fft.rfft2(output)

        modules = [model.get_submodule(name) for name in self.layers]
        handles = [module.register_forward_hook(transform) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


class Natstats(Plain):
    """The forward pass with a Collector, which is open from batch to batch as in `measure`."""

    def __init__(self) -> None:
        self.collector: natstats.Collector | None = None

    def open(self, model: nn.Module, images: Tensor) -> natstats.Collector:
        """The collector; its sums go on from round to round."""
        if self.collector is None:
            self.collector = natstats.Collector(model)
        return self.collector


class Straightforward(Plain):
    """Keep every activation, transform afterwards with numpy, average over rings."""

    def run(self, model: nn.Module, images: Tensor) -> None:
        """One pass and all transforms."""
        kept: list[np.ndarray] = []
        handles = [
            module.register_forward_hook(
                lambda _, __, output: kept.append(output.cpu().numpy().copy())
            )
            for module in model.modules()
            if isinstance(module, nn.Conv2d)
        ]
        try:
            model(images)
        finally:
            for handle in handles:
                handle.remove()
        for maps in kept:
            height, width = maps.shape[-2:]
            if min(height, width) < 5:
                continue
            power = np.abs(np.fft.fft2(maps)) ** 2
            rings(height, width).mean(power.mean(axis=1))


APART: dict[str, Callable[[], Plain]] = {
    "plain": Plain,
    "natstats": Natstats,
    "straightforward": Straightforward,
}
TOGETHER: dict[str, Callable[[], Plain]] = {"plain": Plain, "bound": Bound, "natstats": Natstats}


def build(arguments: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """The network with random weights and a batch of noise; neither changes what is computed."""
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    model = natstats.load_network(arguments.model, weights="none").model.eval()
    shape = (arguments.batch_size, 3, arguments.size, arguments.size)
    return model.to(arguments.device), torch.randn(shape).to(arguments.device)


class Meter:
    """Peak memory above what was in use at the start, MB."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device.startswith("cuda")
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
            self.start = torch.cuda.memory_allocated() / 1e6
        else:
            Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is in use now
            self.start = self._status("VmRSS")

    def peak(self) -> float:
        """The peak so far."""
        if self.on_gpu:
            return torch.cuda.max_memory_allocated() / 1e6 - self.start
        return self._status("VmHWM") - self.start

    @staticmethod
    def _status(field: str) -> float:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise KeyError(field)


def work(arguments: argparse.Namespace, names: Sequence[str], pipe: Connection) -> None:
    """Run a round whenever told to, and send the seconds of each variant; at the end the peak."""
    model, images = build(arguments)
    variants = {name: (TOGETHER | APART)[name]() for name in names}
    wait = torch.cuda.synchronize if arguments.device.startswith("cuda") else lambda: None
    with torch.inference_mode():
        model(images[:1])  # code and thread pools are no variant's
        meter = Meter(arguments.device)
        while pipe.recv():
            seconds = {}
            for name, variant in variants.items():
                with variant.open(model, images):
                    wait()
                    start = time.perf_counter()
                    variant.run(model, images)
                    wait()
                    seconds[name] = time.perf_counter() - start
            pipe.send(seconds)
    pipe.send(meter.peak())


def measure(arguments: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every round and peak MB of every process; two rounds before are not counted."""
    context = multiprocessing.get_context("spawn")
    groups = [[*TOGETHER]] if arguments.together else [[name] for name in APART]
    pipes: dict[str, Connection] = {}
    for names in groups:
        pipes[names[-1]], theirs = context.Pipe()
        context.Process(target=work, args=(arguments, names, theirs), daemon=True).start()
        theirs.close()  # so that a worker that dies is noticed, not waited for
    seconds: dict[str, list[float]] = {name: [] for names in groups for name in names}
    for _ in range(arguments.rounds + 2):
        for pipe in pipes.values():
            pipe.send(True)
            for name, value in pipe.recv().items():
                seconds[name].append(value)
    memory = {}
    for name, pipe in pipes.items():
        pipe.send(False)
        memory[name] = pipe.recv()
    return {name: values[2:] for name, values in seconds.items()}, memory


def device_name(device: str) -> str:
    """What the numbers were measured on: the GPU's name, or the CPU's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    """Measure, print the table, and write it as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--together", action="store_true", help="plain, bound and natstats in turn")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    if arguments.rounds < 7:
        parser.error("--rounds: expected at least 7, for a median that means something")

    seconds, memory = measure(arguments)
    device = device_name(arguments.device)
    print(
        f"{arguments.model}, {arguments.batch_size} x 3 x {arguments.size} x {arguments.size}, "
        f"{device}, {arguments.threads} CPU threads, {arguments.rounds} interleaved rounds, "
        f"torch {torch.__version__}, natstats {natstats.__version__}"
    )
    rows = {name: summary(seconds, name) for name in seconds}
    for name, row in rows.items():
        text = f"{name:<16}{row['median_ms']:>10} ms"
        for base in ("plain", "bound"):
            if base in seconds:
                low, high = row[f"of_{base}_quartiles"]
                text += f"{row[f'of_{base}']:>8.3f} of {base} ({low:.2f}-{high:.2f})"
        if not arguments.together:
            row["peak_mb"] = round(memory[name], 1)
            text += f"{memory[name]:>9.0f} MB"
        print(text)
    if not arguments.together:
        allowed = 1.1 * memory["plain"] + 64
        print(f"memory allowed to natstats (1.1 x plain + 64 MB): {allowed:.0f} MB")
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        record = {**settings, "device": device, "variants": rows}
        record["versions"] = {"torch": str(torch.__version__), "natstats": natstats.__version__}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def summary(seconds: dict[str, list[float]], name: str) -> dict[str, Any]:
    """Median time of a variant, and median and quartiles of its ratios within the rounds."""
    row: dict[str, Any] = {"median_ms": round(1e3 * statistics.median(seconds[name]), 1)}
    for base in ("plain", "bound"):
        if base in seconds:
            pairs = zip(seconds[name], seconds[base], strict=True)
            low, middle, high = statistics.quantiles([one / other for one, other in pairs], n=4)
            row[f"of_{base}"] = round(middle, 3)
            row[f"of_{base}_quartiles"] = [round(low, 3), round(high, 3)]
    return row


if __name__ == "__main__":
    main()
