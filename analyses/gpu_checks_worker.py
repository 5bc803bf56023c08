"""The process of analyses/gpu_check.py that runs the cases, and the list of checks.

Not a study by itself. It knows torch; the process that keeps the time does not.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import platform
import subprocess
import time
import traceback
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["CHECKS", "Check", "serve"]

LAST_LINES = 12
"""Of a traceback."""

BEFORE = 4.0
"""Seconds that a program is ended before its check is, so that what it said is kept."""


@dataclass(frozen=True)
class Check:
    """One thing that is checked.

    Attributes:
        name: for ``--only``.
        title: what is seen.
        share: of the time, in proportion to those of the others.
        where: module and function that list the cases.
    """

    name: str
    title: str
    share: float
    where: str


CHECKS = (
    Check("networks", "spectra of networks are those of the CPU", 5,
          "gpu_checks_spectra:networks_as_on_the_cpu"),
    Check("parts", "transforms, accumulators and runs are those of the CPU", 2,
          "gpu_checks_spectra:parts_as_on_the_cpu"),
    Check("tests", "tests marked gpu", 2, "gpu_checks_processes:marked_tests"),
    Check("training", "steps of every distillation method", 5,
          "gpu_checks_training:training_steps"),
    Check("overhead", "time of the collector", 4, "gpu_checks_speed:overhead"),
    Check("memory", "memory of the collector", 1, "gpu_checks_speed:memory"),
    Check("processes", "several processes train", 2, "gpu_checks_processes:several_processes"),
    Check("throughput", "images per second from end to end", 4, "gpu_checks_speed:throughput"),
    Check("trainings", "short trainings from end to end", 1, "gpu_checks_training:whole_trainings"),
    Check("compiled", "a training with torch.compile", 2, "gpu_checks_training:compiled"),
)  # fmt: skip


def serve(pipe: Connection, options: dict[str, Any]) -> None:
    """Run the checks that are asked for, and tell of every case as it ends.

    Args:
        pipe: to the process that keeps the time. It sends the name of a check, the cases that are
            done, its seconds, and those after which it hangs. It is told ``names``, and ``begin``
            and ``case`` of each, then ``end``, or ``broken`` where another process must go on.
        options: ``device``, ``small``, ``weights`` and ``folder`` as the setting has them, and
            ``checks``, which say where the cases of each are listed.
    """
    with contextlib.suppress(OSError):
        os.setsid()  # so that all that a case starts can be ended with this process
    import torch
    from gpu_checks_setting import Setting

    try:
        device = torch.zeros(1, device=options["device"]).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        asked = options["device"]
        pipe.send(("refused", f"--device: expected one of this machine; got {asked}: {reason}"))
        return
    setting = Setting(device, options["small"], options["weights"], options["folder"])
    pipe.send(("facts", facts(device)))
    while True:
        try:
            name, done, seconds, patience = pipe.recv()
        except EOFError:  # nothing more is asked for
            return
        setting.deadline = time.monotonic() + seconds
        setting.patience_ends = time.monotonic() + patience - BEFORE
        module, _, function = options["checks"][name].partition(":")
        try:
            cases = getattr(importlib.import_module(module), function)(setting)
        except Exception as error:
            cases, record = [], {"case": "set-up", "seconds": 0.0, **_problem(error)}
            pipe.send(("case", record))
        pipe.send(("names", [case for case, _ in cases]))
        for case, run in cases:
            if case in done or setting.left() < 0:
                continue
            pipe.send(("begin", case))
            began = time.monotonic()
            try:
                record = run()
            except Exception as error:
                record = _problem(error)
            seconds = round(time.monotonic() - began, 2)
            is_broken = record.pop("is_broken", False)
            pipe.send(("case", {"case": case, "seconds": seconds, **record}))
            if is_broken:
                pipe.send(("broken", case))
                return
            if device.type == "cuda":
                gc.collect()
                torch.cuda.empty_cache()
        pipe.send(("end", None))


def _problem(error: Exception) -> dict[str, Any]:
    """The record of a case that failed; after an error of CUDA all others would fail, too."""
    from gpu_checks_setting import WrongResultError

    if isinstance(error, WrongResultError):
        return {**error.record, "problem": str(error)}
    import torch

    text = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
    lines = "".join(traceback.format_exception(error)).splitlines()
    is_memory = isinstance(error, torch.OutOfMemoryError)
    is_broken = "CUDA error" in text or type(error).__name__ == "AcceleratorError"
    return {
        "problem": text,
        "traceback": lines[-LAST_LINES:],
        "is_broken": is_broken and not is_memory,
    }


def facts(device: Any) -> dict[str, Any]:
    """Versions, and what the numbers were measured on."""
    import numpy as np
    import torch
    from collector_overhead import device_name

    import natstats

    on = {
        "type": device.type,
        "name": device_name(str(device)),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
    }
    versions = {
        "natstats": natstats.__version__, "torch": str(torch.__version__),
        "torchvision": version("torchvision"), "numpy": np.__version__,
        "python": platform.python_version(), "system": platform.platform(),
    }  # fmt: skip
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        on |= {
            "count": torch.cuda.device_count(),
            "memory_mb": round(properties.total_memory / 1e6),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
        }
        versions |= {
            "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
            "nccl": ".".join(map(str, torch.cuda.nccl.version())), "driver": _driver(),
        }  # fmt: skip
    return {"device": on, "versions": versions}


def _driver() -> str | None:
    """The version of the driver, where the system tells."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.splitlines()[0].strip() if said.stdout else None
