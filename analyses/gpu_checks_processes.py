"""Checks that start programs: the tests marked ``gpu``, and two steps of several processes.

Not a study by itself: analyses/gpu_check.py uses it, and starts it itself for every process.
"""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from gpu_checks_setting import Case, Setting, WrongResultError
from torch import distributed as dist

__all__ = ["counts", "marked_tests", "run_program", "run_tests", "several_processes"]

ROOT = Path(__file__).parents[1]
COUNTED = re.compile(r"(\d+) (passed|failed|skipped|errors?|deselected|warnings?|xfailed|xpassed)")
LAST_LINES = 40
GRACE = 1.5
"""Seconds for a program to end by itself when it is asked to."""


def run_program(
    command: Sequence[str], seconds: float | None, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Run a program; returns its code and what it said.

    Raises:
        WrongResultError: it did not end in time.
    """
    import natstats

    home = Path(natstats.__file__).parents[1]
    before = os.environ.get("PYTHONPATH")
    paths = os.pathsep.join([str(home), *([before] if before else [])])
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})}, cwd=ROOT,
    )  # fmt: skip
    try:
        said, _ = started.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        started.terminate()  # torchrun then ends what it started
        try:
            said, _ = started.communicate(timeout=GRACE)
        except subprocess.TimeoutExpired:
            started.kill()
            said, _ = started.communicate()
        raise WrongResultError(
            f"time: expected an end within {seconds:.0f} s; there was none", {"said": _last(said)}
        ) from None
    return started.returncode, said


def _last(said: str) -> list[str]:
    return said.splitlines()[-LAST_LINES:]


# -- tests --------------------------------------------------------------------------------------


def marked_tests(setting: Setting) -> list[Case]:
    """The tests of the project that need CUDA."""
    files = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    if not setting.is_cuda:
        return []
    run = functools.partial(run_tests, files, ("-m", "gpu"), setting)
    return [(f"pytest -m gpu, {len(files)} files", run)]


def run_tests(files: Sequence[str], arguments: Sequence[str], setting: Setting) -> dict[str, Any]:
    """Run tests in a process of their own, and count what came of them.

    Warnings are no errors here: other versions of libraries have their own.

    Raises:
        WrongResultError: a test failed, or none ran.
    """
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-W", "default", "-q", "-rfEs",
        "--tb=short", "--durations=5", *arguments, *files,
    ]  # fmt: skip
    code, said = run_program(command, setting.patience())
    found = counts(said)
    record: dict[str, Any] = {**found, "exit_code": code}
    if code or not found.get("passed"):
        record["said"] = _last(said)
        raise WrongResultError(
            f"tests: expected all to pass; {found or 'none'}, exit code {code}", record
        )
    return record


def counts(said: str) -> dict[str, int]:
    """How many tests passed, failed and so on, from the last line of pytest that counts them.

    >>> counts("2 failed, 3 passed, 1 warning in 0.12s")
    {'failed': 2, 'passed': 3, 'warnings': 1}
    """
    for line in reversed(said.splitlines()):
        found = COUNTED.findall(line)
        if found and re.search(r" in [\d.]+s", line):
            plural = {"error": "errors", "warning": "warnings"}
            return {plural.get(name, name): int(n) for n, name in found}
    return {}


# -- several processes --------------------------------------------------------------------------


def several_processes(setting: Setting) -> list[Case]:
    """Two steps of kd+spectral in several processes, started by torchrun."""
    cases: list[Case] = []
    if setting.is_cuda:
        n = min(torch.cuda.device_count(), 2)
        cases.append((f"NCCL, world {n}", functools.partial(_torchrun, setting, "cuda", n)))
    cases.append(("gloo, world 2", functools.partial(_torchrun, setting, "cpu", 2)))
    return cases


def _torchrun(setting: Setting, device: str, n: int) -> dict[str, Any]:
    """Start the processes, and compare what they came to."""
    out = setting.folder / f"processes_{device}"
    out.mkdir(exist_ok=True)
    arguments = [str(Path(__file__)), device, str(out)]
    threads = {"OMP_NUM_THREADS": "1"}
    if setting.small:
        code, said = _forked(device, out, n, setting.patience())
    else:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*torchrun, f"--nproc-per-node={n}", *arguments]
        code, said = run_program(command, setting.patience(), threads)
    found = [json.loads(path.read_text()) for path in sorted(out.glob("rank_*.json"))]
    if code or len(found) != n:
        raise WrongResultError(
            f"processes: expected {n} to end well; {len(found)} did, exit code {code}",
            {"said": _last(said)},
        )
    record = {"backend": found[0]["backend"], "world": n, "losses": [f["losses"] for f in found]}
    if any(one["weights"] != found[0]["weights"] for one in found):
        raise WrongResultError("weights: expected the same in all processes; they differ", record)
    return record


def _forked(device: str, out: Path, n: int, seconds: float | None) -> tuple[int, str]:
    """The same without programs that start anew, whose imports take longer than all the rest."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(
            target=_train_forked,
            args=(device, out, {**shared, "RANK": str(k), "LOCAL_RANK": str(k)}),
        )
        for k in range(n)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of threads beside a fork: none is used behind it
        for process in started:
            process.start()
    ends = time.monotonic() + (math.inf if seconds is None else seconds)
    for process in started:
        process.join(None if seconds is None else max(ends - time.monotonic(), 0.1))
        if process.exitcode is None:
            process.kill()
            process.join()
    said = "".join(path.read_text(errors="replace") for path in sorted(out.glob("said_*.txt")))
    return max(abs(process.exitcode or 0) for process in started), said


def _train_forked(device: str, out: Path, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    with (out / f"said_{environment['RANK']}.txt").open("wb") as said:
        for stream in (1, 2):
            os.dup2(said.fileno(), stream)
    torch.set_num_threads(1)  # the pool of threads is not there any more
    train_in_this_process(device, out)


def train_in_this_process(device: str, out: Path) -> None:
    """Two steps, as one of the processes that torchrun started."""
    from natstats.distill.training.distributed import Processes, synchronised
    from natstats.distill.training.frozen_networks import frozen
    from natstats.distill.training.recipes import Recipe
    from natstats.distill.training.setup import classifier
    from natstats.distill.training.stages import plan_training
    from natstats.distill.training.stepping import Stepper

    place = torch.device("cpu")
    if device == "cuda":
        place = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(place)
    backend = "nccl" if device == "cuda" else "gloo"
    dist.init_process_group(backend)
    rank, world = dist.get_rank(), dist.get_world_size()
    together = Processes(rank, world, place)
    student = classifier("cifar_resnet8", 3, seed=0, device=place).model.train()
    teacher = classifier("cifar_resnet14", 3, seed=1, device=place).model.eval()
    draw = torch.Generator().manual_seed(rank)  # every process has images of its own
    images = torch.randn(4, 3, 16, 16, generator=draw).to(place)
    labels = torch.randint(3, (4,), generator=draw).to(place)
    torch.manual_seed(0)
    program = plan_training("kd+spectral", {}, student, teacher, images[:2], 1)
    stage = program.stages[-1]
    recipe = Recipe(learning_rate=0.01, batch_size=4, size=16)
    scaler = torch.amp.GradScaler(place.type, enabled=False)
    losses = []
    with synchronised(student, together, device == "cuda"), frozen(teacher):
        objective = stage.objective(student, teacher, images[:1], traces=program.traces)
        # Wrapped for several processes also where there is one, so that NCCL has its part.
        stepper = Stepper(stage, objective, recipe, scaler, place, max(world, 2))
        for number in range(2):
            sums = stepper.sums()
            stepper.backward(images, labels, stage.factors(0.5), sums, number)
            stepper.follow()
            total = together.total(sums.sums)
            losses.append(float(total[-1]) / (len(images) * world))
    together.wait()
    assert all(loss == loss and abs(loss) < float("inf") for loss in losses), losses
    flat = torch.cat([p.detach().flatten() for p in student.parameters()]).cpu()
    weights = [float(flat.double().sum()), float(flat.double().square().sum())]
    record = {"backend": backend, "losses": losses, "weights": weights}
    (out / f"rank_{rank}.json").write_text(json.dumps(record))
    dist.destroy_process_group()


if __name__ == "__main__":
    began = time.monotonic()
    train_in_this_process(sys.argv[1], Path(sys.argv[2]))
    print(f"{time.monotonic() - began:.1f} s")
