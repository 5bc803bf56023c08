"""All that wants a GPU, seen in one call of a few minutes: right numbers, time, memory, training.

    python analyses/gpu_check.py
    python analyses/gpu_check.py --minutes 4 --only networks parts overhead
    python analyses/gpu_check.py --weights CHECKPOINTS
    python analyses/gpu_check.py --device cpu --small --out check.json

The checks come in the order of their importance, each with a share of the time; what one does not
need is for those behind it. A check has cases, and each is by itself: one that fails is recorded
with its sentence, and the rest goes on. No case begins when the share of its check is used up; what
was left out is named. All runs in a second process, which is begun anew when a case kills it,
breaks the device, or does not come to an end.

Weights are random, but for networks with a checkpoint NAME.pth (or .safetensors) in --weights.
Nothing is downloaded, and natstats need not be installed. The file of results is written after
every check. The exit code is 0 when nothing failed, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import multiprocessing
import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from gpu_checks_worker import CHECKS, Check, serve

ROOT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("natstats") is None:
    sys.path.append(str(ROOT))

RESULT = ROOT / "analyses" / "results" / "gpu_check.json"
FORMAT = 1
SPARE = 5.0
"""Seconds of the time that are kept for the end."""

SLACK = 60.0
"""Seconds beyond its share after which a check is taken to hang; its share again, if it is more."""

ONLY_CUDA = ("tests", "compiled")


class NoDeviceError(Exception):
    """There is no such device."""


class Worker:
    """The process that runs the cases; it is begun when it is needed."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options, self.facts = options, {}
        self._process: Any = None
        self.pipe: Connection

    def start(self, ends: float) -> None:
        """Begin the process where there is none.

        Raises:
            NoDeviceError: there is no such device.
            EOFError: it ended at once, or did not answer in time.
        """
        if self._process is not None:
            return
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs, self.options))
        self._process.start()
        theirs.close()
        if not self.pipe.poll(max(ends - time.monotonic(), 0)):
            raise EOFError
        kind, said = self.pipe.recv()
        if kind == "refused":
            raise NoDeviceError(said)
        self.facts = said

    def end(self) -> int | None:
        """End the process and all that it started; returns its code if it had ended by itself."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        with contextlib.suppress(OSError):
            self.pipe.close()
        process.join(0.2)
        code = process.exitcode
        for number in (signal.SIGTERM, signal.SIGKILL):  # torchrun ends its processes at the first
            with contextlib.suppress(OSError):
                os.killpg(process.pid, number)
                process.join(0.5)
        if code is None:
            process.kill()
        process.join()
        return code


def run_check(worker: Worker, check: Check, seconds: float, ends: float) -> dict[str, Any]:
    """Let all cases of a check run, and gather their records.

    Args:
        worker: runs them.
        check: the check.
        seconds: its share of the time.
        ends: when all must have ended, in seconds of ``time.monotonic``.
    """
    began = time.monotonic()
    hangs_at = min(began + max(2 * seconds, seconds + SLACK), ends)
    cases: list[dict[str, Any]] = []
    names: list[str] = []
    current = "set-up"
    is_asked = False
    while True:
        try:
            worker.start(hangs_at)
            if not is_asked:
                now = time.monotonic()
                patience = hangs_at - now if hangs_at < ends else math.inf
                done = [one["case"] for one in cases]
                worker.pipe.send((check.name, done, began + seconds - now, patience))
                is_asked, current = True, "set-up"
            if not worker.pipe.poll(max(hangs_at - time.monotonic(), 0)):
                worker.end()
                if time.monotonic() < ends:
                    waited = round(time.monotonic() - began)
                    cases.append(
                        {"case": current, "problem": f"time: no end within {waited} s of the check"}
                    )
                break
            kind, said = worker.pipe.recv()
        except (EOFError, OSError, NoDeviceError) as error:
            code = worker.end()
            lost = f"the process ended with code {code}"
            is_lost = isinstance(error, NoDeviceError)
            cases.append({"case": current, "problem": str(error) if is_lost else lost})
            if current == "set-up" or time.monotonic() > hangs_at:
                break
            is_asked = False
            continue
        if kind == "end":
            break
        if kind == "names":
            names = said
        elif kind == "begin":
            current = said
        elif kind == "case":
            cases.append(said)
        elif kind == "broken":
            worker.end()
            is_asked = False
    begun = {one["case"] for one in cases}
    return {
        "name": check.name, "title": check.title, "share_seconds": round(seconds, 1),
        "seconds": round(time.monotonic() - began, 1), "cases": cases,
        "left_out": [name for name in names if name not in begun],
    }  # fmt: skip


def run_all(arguments: argparse.Namespace, began: float) -> dict[str, Any]:
    """Run the chosen checks within the time, and write the results after each."""
    ends = began + 60 * arguments.minutes - SPARE
    is_cpu = arguments.device.startswith("cpu")
    chosen = [one for one in CHECKS if not arguments.only or one.name in arguments.only]
    apart = [one for one in chosen if is_cpu and one.name in ONLY_CUDA]
    chosen = [one for one in chosen if one not in apart]
    record: dict[str, Any] = {
        "format": FORMAT,
        "command": shlex.join(["python", "analyses/gpu_check.py", *sys.argv[1:]]),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "minutes": arguments.minutes,
        "small": arguments.small,
        "checks": [],
        "left_out": [f"{one.name}: needs CUDA" for one in apart],
    }
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as scratch:
        worker = Worker(
            {"device": arguments.device, "small": arguments.small, "weights": arguments.weights,
             "folder": Path(scratch), "checks": {one.name: one.where for one in CHECKS}}
        )  # fmt: skip
        try:
            worker.start(ends)
            record |= worker.facts
            for place, check in enumerate(chosen):
                left = ends - time.monotonic()
                if left < 1:
                    record["left_out"].append(f"{check.name}: no time left")
                    continue
                share = left * check.share / sum(one.share for one in chosen[place:])
                found = run_check(worker, check, share, ends)
                record["checks"].append(found)
                print(line(found), flush=True)
                conclude(record, began)
                write(arguments.out, record)
        finally:
            worker.end()
    conclude(record, began)
    write(arguments.out, record)
    return record


def conclude(record: dict[str, Any], began: float) -> None:
    """Bring the sums of the record up to date."""
    record["seconds"] = round(time.monotonic() - began, 1)
    record["failed"] = [
        f"{check['name']}, {case['case']}: {case['problem']}"
        for check in record["checks"]
        for case in check["cases"]
        if "problem" in case
    ]


def plain(value: Any) -> Any:
    """Values as JSON knows them: numbers that are not finite become text."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def write(path: Path, record: dict[str, Any]) -> None:
    """Put the results in place of what was there, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(plain(record), indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def line(check: dict[str, Any]) -> str:
    """A row of the table on the terminal."""
    cases, n_left = check["cases"], len(check["left_out"])
    n_failed = sum("problem" in case for case in cases)
    text = f"{check['name']:<12}{len(cases) - n_failed:>4} good{n_failed:>4} failed"
    return f"{text}{n_left:>4} left out{check['seconds']:>8.1f} s  {check['title']}"


def parse_arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="[default: cuda]")
    parser.add_argument("--small", action="store_true", help="small networks and few images")
    parser.add_argument("--minutes", type=float, default=9.0, help="[default: 9]")
    parser.add_argument("--weights", type=Path, help="folder with checkpoints NAME.pth")
    parser.add_argument("--out", type=Path, help="file of the results  [default: that of the docs]")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[c.name for c in CHECKS],
                        help=f"some of {', '.join(c.name for c in CHECKS)}")  # fmt: skip
    arguments = parser.parse_args(given)
    if not arguments.minutes > 0:
        parser.error(f"--minutes: expected a number above 0; got {arguments.minutes}")
    if arguments.weights is not None and not arguments.weights.is_dir():
        parser.error(f"--weights: expected a folder; got {arguments.weights}")
    if arguments.out is None:
        if arguments.device.startswith("cpu"):
            parser.error("--out: expected a file for what a CPU gives; the docs are for a GPU's")
        arguments.out = RESULT
    return arguments


def main(given: Sequence[str] | None = None) -> int:
    """Run the checks, print the table, and return the exit code."""
    began = time.monotonic()
    arguments = parse_arguments(given)
    try:
        record = run_all(arguments, began)
    except (NoDeviceError, EOFError) as error:
        print(
            f"Error: {error or 'the process that runs the checks ended at once'}", file=sys.stderr
        )
        return 2
    on, versions = record["device"], record["versions"]
    print(f"{on['name']}, torch {versions['torch']}, natstats {versions['natstats']}, "
          f"{record['seconds']:.0f} s: {arguments.out}")  # fmt: skip
    for check in record["checks"]:
        for name in check["left_out"]:
            print(f"left out: {check['name']}, {name}")
    for text in record["left_out"]:
        print(f"left out: {text}")
    for text in record["failed"]:
        print(f"FAILED: {text}")
    return 1 if record["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
