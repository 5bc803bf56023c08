"""What one training step costs with each distillation method, against one with soft targets.

    python analyses/distill_overhead.py --student wrn_16_2 --teacher wrn_28_4 --size 32
    python analyses/distill_overhead.py --student cifar_resnet8 --teacher cifar_resnet20 --rounds 5
    python analyses/distill_overhead.py --student resnet18 --teacher resnet34 --size 224 --batch 16

A step is the passes of student and teacher, the terms of the main stage, the backward pass and the
optimiser. The methods take turns in every round, in a random order, so that a machine whose speed
drifts is fair to all. Printed: the median time of each, the median over rounds of the ratio to the
step of kd in the same round with its quartiles, the extra parameters, and the stages before.
Weights are random and images are noise, which costs the same.

With --loops N the whole training loop of natstats takes turns with a plain loop of PyTorch that
does the same work and comes to the same weights, in N rounds of four steps, in time of the process:
kd and kd+spectral, images/s of both and the ratio of their times. Printed too: what looks at the
evaluation images, the gap and the gradients cost by the defaults, beside epochs of 20 steps. On
CPUs only.

Writes analyses/results/distill_overhead_STUDENT.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plain_loop import compare_loops, shares_of_looks

from natstats._version import __version__
from natstats.distill.methods import METHODS as KNOWN
from natstats.distill.training.frozen_networks import frozen
from natstats.distill.training.optimization import make_optimizer
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.setup import classifier
from natstats.distill.training.stages import Program, plan_training
from natstats.errors import UsageError
from natstats.networks.load import usable_device

ROOT = Path(__file__).parents[1]
N_CLASSES = 100
METHODS = (*KNOWN, "kd+spectral")


def stepper(
    method: str, args: argparse.Namespace, device: torch.device, held: contextlib.ExitStack
) -> tuple[Callable[[], float], Program]:
    """A function that makes a step of the main stage and returns its seconds.

    `held` keeps the teacher frozen, as a training does from its beginning to its end.
    """
    student = classifier(args.student, N_CLASSES, device=device).model.train()
    teacher = classifier(args.teacher, N_CLASSES, seed=1, device=device).model.eval()
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(args.batch, 3, args.size, args.size, generator=draw).to(device)
    labels = torch.randint(N_CLASSES, (args.batch,), generator=draw).to(device)
    torch.manual_seed(0)
    program = plan_training(method, {}, student, teacher, images[:2], 10)
    program.losses().to(device)  # the last stage may hold what an earlier one trains
    stage = program.stages[-1]
    objective = stage.objective(student, teacher, images[:1], traces=program.traces)
    held.enter_context(frozen(teacher, program.teacher_bn == "batch"))
    parameters = [p for p in objective.parameters() if p.requires_grad]
    optimizer = make_optimizer(Recipe(learning_rate=1e-4), parameters)

    def step() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        values = objective(images, labels)
        loss = torch.zeros((), device=device)
        if stage.ce_weight:
            loss = loss + stage.ce_weight * values.objective_ce
        for bound in stage.terms:
            loss = loss + bound.term.factor(0.5) * values.terms[bound.term.name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return step, program


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Time training steps of all methods in turns.")
    parser.add_argument("--student", default="wrn_16_2")
    parser.add_argument("--teacher", default="wrn_28_4")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--loops", type=int, default=0, help="rounds; 0 for no loops")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--device", help="default: cuda if there is any, else cpu")
    return parser.parse_args()


def main() -> None:
    """Time all methods and write the table."""
    with contextlib.ExitStack() as held:
        measure(parse_arguments(), held)


def measure(args: argparse.Namespace, held: contextlib.ExitStack) -> None:
    """Time all methods in turns, and write the table."""
    device = usable_device(args.device)
    steps: dict[str, Callable[[], float]] = {}
    rows: dict[str, dict[str, Any]] = {}
    for method in args.methods:
        try:
            steps[method], program = stepper(method, args, device, held)
        except UsageError as error:
            rows[method] = {"not_possible": str(error)}
            print(f"{method}: {error}")
            continue
        rows[method] = {
            "teacher_passes": program.teacher_passes,
            "extra_parameters": program.n_extra_parameters(),
            "stages_before": [s.name for s in program.stages[:-1]],
        }
        steps[method]()  # what is prepared once is not timed
    shuffled = random.Random(0)
    seconds: dict[str, list[float]] = {method: [] for method in steps}
    for number in range(args.rounds):
        order = list(steps)
        shuffled.shuffle(order)
        for method in order:
            seconds[method].append(steps[method]())
        print(f"round {number + 1} of {args.rounds}", flush=True)
    for method, times in seconds.items():
        ratios = [t / base for t, base in zip(times, seconds["kd"], strict=True)]
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        rows[method] |= {
            "ms": round(1000 * statistics.median(times), 1),
            "ratio": round(float(middle), 3),
            "ratio_quartiles": [round(float(low), 3), round(float(high), 3)],
        }
        print(f"{method:12} {rows[method]['ms']:8.0f} ms  {middle:.2f} ({low:.2f} to {high:.2f})")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    record = {
        **{key: getattr(args, key) for key in ("student", "teacher", "size", "batch", "rounds")},
        "device": name,
        "threads": torch.get_num_threads(),
        "versions": {"torch": str(torch.__version__), "natstats": __version__},
        "methods": rows,
    }
    if args.loops and device.type == "cpu":
        record |= loops(args)
    path = ROOT / "analyses" / "results" / f"distill_overhead_{args.student}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def loops(args: argparse.Namespace) -> dict[str, Any]:
    """The training loop against a plain one, and what is looked at on the way."""
    nets = {"student": args.student, "teacher": args.teacher, "size": args.size}
    found: dict[str, Any] = {"loops": {}, "shares_percent": {}}
    for method in ("kd", "kd+spectral"):
        common: dict[str, Any] = {**nets, "batch": args.batch, "n_classes": 10}
        row = compare_loops(method, **common, rounds=args.loops, steps=4)
        found["loops"][method] = row
        print(f"loop of {method}: {row}", flush=True)
        shares = shares_of_looks(method, **common)
        found["shares_percent"][method] = shares
        print(f"beside the steps of {method}, %: {shares}", flush=True)
    return found


def _processor() -> str:
    """Name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return found[0] if found else platform.machine()


if __name__ == "__main__":
    main()
