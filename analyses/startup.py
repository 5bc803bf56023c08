r"""Where each second of ``natstats measure`` goes, from the start of the process to the report.

    OMP_NUM_THREADS=2 python analyses/startup.py mobilenet_v2 --images PHOTOGRAPHS \
        --checkpoint mobilenet_v2.pth
    python analyses/startup.py mobilenet_v2 --images PHOTOGRAPHS --against OLDER_CHECKOUT

Every round is a process of its own (see analyses/startup_stages.py). Printed and written: for every
stage the median over rounds of the time of the processor (user and system, all threads) and of the
clock. A stage leaves out the stages within it, and ``measuring`` is all of ``natstats.measure`` but
for network, trace and probe. With --against an older checkout is measured, too, in turn with this
one, so that a machine whose speed drifts is fair to both.

On a machine that does other things, too, the clock says little; the time of the processor grows
with what the others do to caches and memory, and ratios of interleaved rounds hold best.
"""

from __future__ import annotations

import compileall
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
from startup_stages import AFTER, MEASURING

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
LEFT = "end of the process"

Seconds = dict[str, list[float]]
"""Of the processor and of the clock, by stage."""


def installed(checkout: Path, home: Path) -> Path:
    """A copy of the packages of a checkout, compiled as an installation is."""
    for name, folder in (("natstats", "natstats"), ("natstats_cli", "cli")):
        shutil.copytree(checkout / folder, home / name)
    compileall.compile_dir(home, quiet=1)
    return home


def one_process(command: list[str], home: Path, work: Path) -> Seconds:
    """Run a command with the natstats that is in `home`; the seconds of its stages."""
    result = work / "stages.json"
    environment = {**os.environ, "PYTHONPATH": str(home)}
    child = Path(__file__).with_name("startup_stages.py")
    with (work / "output.txt").open("w") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, str(child), str(result), repr(started), *command],
            stdout=output,
            stderr=output,
            env=environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        said = (work / "output.txt").read_text()[-2000:]
        raise click.ClickException(f"a process ended with {process.returncode}: {said}")
    stages: Seconds = json.loads(result.read_text())
    known = [sum(own[kind] for own in stages.values()) for kind in (0, 1)]
    whole = usage.ru_utime + usage.ru_stime, ended - started
    stages[LEFT] = [max(whole[kind] - known[kind], 0.0) for kind in (0, 1)]
    return stages


def medians(rounds: list[Seconds]) -> Seconds:
    """The median of every stage over rounds; imports of less than 20 ms are put together."""
    merged: list[Seconds] = []
    names = dict.fromkeys(name for one in rounds for name in one)
    small = {
        name
        for name in names
        if name.startswith("imports: ")
        and statistics.median(one.get(name, [0.0])[0] for one in rounds) < 0.02
    }
    for one in rounds:
        own: Seconds = {}
        for name, seconds in one.items():
            sums = own.setdefault("imports: others" if name in small else name, [0.0, 0.0])
            for kind in (0, 1):
                sums[kind] += seconds[kind]
        merged.append(own)
    names = dict.fromkeys(name for one in merged for name in one)
    return {
        name: [
            round(statistics.median(one.get(name, [0.0, 0.0])[kind] for one in merged), 3)
            for kind in (0, 1)
        ]
        for name in names
    }


def parts(rounds: list[Seconds]) -> Seconds:
    """Medians of the whole, of the measuring, and of what comes before and after it."""

    def of(one: Seconds, kind: int) -> dict[str, float]:
        whole = sum(seconds[kind] for seconds in one.values())
        measuring = one[MEASURING][kind]
        after = sum(one.get(name, [0.0, 0.0])[kind] for name in AFTER)
        return {
            "whole": whole,
            "measuring": measuring,
            "before and after": whole - measuring,
            "after, without imports": after,
        }

    found = [[of(one, kind) for kind in (0, 1)] for one in rounds]
    return {
        name: [round(statistics.median(one[kind][name] for one in found), 3) for kind in (0, 1)]
        for name in found[0][0]
    }


def table(record: dict[str, Any]) -> list[str]:
    """Lines of a table in Markdown: a stage each, the dearest first."""
    kinds = [name for name in ("older", "now") if name in record]
    head = " | ".join(f"{name}: CPU, s | clock, s" for name in kinds)
    lines = [f"| stage | {head} |", "|---|" + "---|" * (2 * len(kinds))]
    for part in ("parts", "stages"):
        rows = dict.fromkeys(name for kind in kinds for name in record[kind][part])
        if part == "stages":
            rows = dict.fromkeys(
                sorted(rows, key=lambda name: -record[kinds[0]][part].get(name, [0.0])[0])
            )
        for name in rows:
            cells = []
            for kind in kinds:
                own = record[kind][part].get(name, [0.0, 0.0])
                cells += [f"{own[0]:.2f}", f"{own[1]:.2f}"]
            shown = f"**{name}**" if part == "parts" else name
            lines.append(f"| {shown} | {' | '.join(cells)} |")
    return lines


@click.command()
@click.argument("model")
@click.option("--images", required=True)
@click.option("--checkpoint", type=click.Path(path_type=Path, exists=True))
@click.option("--option", "options", multiple=True, help="Passed on, such as --option=--limit=64.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="An older checkout.")
@click.option("--json", "path", type=click.Path(path_type=Path))
def main(
    model: str,
    images: str,
    checkpoint: Path | None,
    options: tuple[str, ...],
    rounds: int,
    against: Path | None,
    path: Path | None,
) -> None:
    """Time `natstats measure MODEL` from the start of the process to the report."""
    from study import circumstances

    checkouts = {"now": ROOT} if against is None else {"older": against.resolve(), "now": ROOT}
    found: dict[str, list[Seconds]] = {name: [] for name in checkouts}
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        homes = {
            name: installed(checkout, work / f"packages_{name}")
            for name, checkout in checkouts.items()
        }
        for number in range(rounds):
            for name, home in homes.items():
                out = work / f"{name}{number}"
                command = ["measure", model, "--images", images, "--out", str(out), *options]
                if checkpoint is not None:
                    command += ["--checkpoint", str(checkpoint)]
                found[name].append(one_process(command, home, work))
    record: dict[str, Any] = {
        "command": " ".join(
            ["python analyses/startup.py", model, "--images PHOTOGRAPHS", f"--rounds {rounds}"]
            + [f"--option={one}" for one in options]
            + ["--against OLDER_CHECKOUT"] * (against is not None)
        ),
        **circumstances(),
        "model": model,
        "processors": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "as torch has it"),
        "load_before": round(load, 1),
        "rounds": rounds,
    }
    for name, own in found.items():
        record[name] = {"parts": parts(own), "stages": medians(own)}
    path = path or RESULTS / f"startup_{model}.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print("\n".join(table(record)))
    print(path)


if __name__ == "__main__":
    main()
