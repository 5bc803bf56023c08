"""What measuring costs: a plain forward pass against natstats against the straightforward way.

    python analyses/collector_overhead.py --model resnet50 --size 224

Three variants take turns in every round, so that a machine whose speed drifts is fair to all, each
in a process of its own, so that none finds the memory as another left it:

* plain: the forward pass alone;
* natstats: a Collector on every layer with weights, sine taper;
* straightforward: hooks keep all activations, then numpy's FFT and the azimuthal mean.

Printed: the median time of each, the median over rounds of the ratio to the plain pass of the same
round, and the peak memory above the loaded model (of the process on a CPU, of the allocator on a
GPU).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

import natstats
from natstats.spectra.frequencies import rings

Variant = Callable[[nn.Module, Tensor], None]


def plain(model: nn.Module, images: Tensor) -> None:
    """The forward pass alone."""
    model(images)


class Natstats:
    """The forward pass with a Collector, opened for every pass as `measure` opens it."""

    def __init__(self) -> None:
        self.collector: natstats.Collector | None = None

    def __call__(self, model: nn.Module, images: Tensor) -> None:
        """Run one pass; the accumulators go on from pass to pass."""
        if self.collector is None:
            self.collector = natstats.Collector(model)
        with self.collector:
            model(images)


def straightforward(model: nn.Module, images: Tensor) -> None:
    """Keep every activation, transform afterwards with numpy, average over rings."""
    kept: list[np.ndarray] = []
    handles = [
        module.register_forward_hook(lambda _, __, output: kept.append(output.cpu().numpy().copy()))
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


VARIANTS: dict[str, Callable[[], Variant]] = {
    "plain": lambda: plain,
    "natstats": Natstats,
    "straightforward": lambda: straightforward,
}


def build(arguments: argparse.Namespace) -> tuple[nn.Module, Tensor]:
    """The network with random weights and a batch of noise; neither changes what is computed."""
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    model = torchvision.models.get_model(arguments.model, weights=None).eval()
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


def work(arguments: argparse.Namespace, name: str, pipe: Connection) -> None:
    """Run one pass of a variant whenever told to, and send its seconds; at the end the peak."""
    model, images = build(arguments)
    variant = VARIANTS[name]()
    on_gpu = arguments.device.startswith("cuda")
    with torch.inference_mode():
        model(images[:1])  # code and thread pools are no variant's
        meter = Meter(arguments.device)
        while pipe.recv():
            if on_gpu:
                torch.cuda.synchronize()
            start = time.perf_counter()
            variant(model, images)
            if on_gpu:
                torch.cuda.synchronize()
            pipe.send(time.perf_counter() - start)
    pipe.send(meter.peak())


def measure(arguments: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of every round and peak MB of every variant; two rounds before are not counted."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in VARIANTS:
        pipes[name], theirs = context.Pipe()
        context.Process(target=work, args=(arguments, name, theirs), daemon=True).start()
        theirs.close()  # so that a worker that dies is noticed, not waited for
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(arguments.rounds + 2):
        for name, pipe in pipes.items():
            pipe.send(True)
            seconds[name].append(pipe.recv())
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
    print(f"{'variant':<16}{'median ms':>10}{'ratio':>8}{'  (quartiles)':<16}{'peak MB':>9}")
    rows = {}
    for name, values in seconds.items():
        ratios = [value / base for value, base in zip(values, seconds["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "median_ms": round(1e3 * statistics.median(values), 1),
            "ratio": round(middle, 3),
            "ratio_quartiles": [round(low, 3), round(high, 3)],
            "peak_mb": round(memory[name], 1),
        }
        quartiles = f"  ({low:.2f}-{high:.2f})"
        print(
            f"{name:<16}{rows[name]['median_ms']:>10}{middle:>8.2f}{quartiles:<16}"
            f"{memory[name]:>9.0f}"
        )
    allowed = 1.1 * memory["plain"] + 64
    print(f"memory allowed to natstats (1.1 x plain + 64 MB): {allowed:.0f} MB")
    if arguments.json:
        settings = {k: v for k, v in vars(arguments).items() if k != "json"}
        record = {**settings, "device": device, "variants": rows}
        record["versions"] = {"torch": str(torch.__version__), "natstats": natstats.__version__}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
