"""Digests of everything that a demo, refits, measurements, a comparison and distillations write.

A change that is to keep every number is right when this prints the same before and after it::

    python analyses/digests.py > before.txt
    ...
    python analyses/digests.py > after.txt && diff before.txt after.txt

Tables, JSON files and figures are read as text, arrays and weights as the bytes of their values.
Times, versions, commands and folders are left out, and the pages that show them, so two runs of one
machine agree to the last digit. Other versions of torch or other processors round differently:
digests are compared on one machine, not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from natstats_cli.main import natstats as command
from PIL import Image
from safetensors.numpy import load_file

import natstats.demo_data
from natstats import power_law_fields

VOLATILE = {
    "command", "created", "costs", "device", "images_per_second", "ms_per_step", "seconds",
    "timing", "versions", "refit",
}  # fmt: skip

QUICK = ("--epochs", "2", "--size", "16", "--batch-size", "8", "--seed", "0")
METHODS = ("kd+spectral", "fitnets+at", "jacobian", "ft", "ab", "ofd")


def main() -> None:
    """Run the commands in a temporary folder and print a line for every file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--keep", type=Path, help="write the runs here and keep them")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work = work.resolve()
        images, labelled = work / "fields", work / "labelled"
        write_fields(images, labelled)
        measure(work, images)
        distill(work, labelled)
        for path in sorted(work.rglob("*")):
            is_written = images not in path.parents and labelled not in path.parents
            if is_written and path.suffix in DIGESTS:
                print(digest(path, work), path.relative_to(work))


def write_fields(images: Path, labelled: Path) -> None:
    """Power-law images, to be measured and to be told apart by their exponent."""
    for n, alpha in enumerate((1.0, 2.0, 3.0)):
        fields = power_law_fields(24, 48, 48, alpha=alpha, seed=n)
        pixels = np.clip(127 + 40 * np.asarray(fields), 0, 255).astype(np.uint8)
        for place, field in enumerate(pixels):
            folder = labelled / ("train" if place < 16 else "val") / f"alpha{alpha:g}"
            for home in (folder, images):
                home.mkdir(parents=True, exist_ok=True)
                Image.fromarray(field).convert("RGB").save(home / f"{n}-{place:02d}.png")


def measure(work: Path, images: Path) -> None:
    """A demo, two refits, measurements with and without a control, and a comparison."""
    run("demo", "--out", work / "demo")
    run(
        "fit",
        work / "demo",
        "--band",
        "0.05:0.3",
        "--estimator",
        "whittle",
        "--depth",
        "order",
        "--out",
        work / "refit",
    )
    run(
        "fit",
        work / "demo",
        "--interval",
        "bootstrap",
        "--resamples",
        "200",
        "--equal-power",
        "--level",
        "0.9",
        "--out",
        work / "refit2",
    )
    weights = next(Path(natstats.demo_data.__path__[0]).glob("*.safetensors"))
    trained = ("--checkpoint", weights)
    for seed in ("0", "1"):
        extra = (*trained, "--control", "random-weights") if seed == "0" else ("--weights", "none")
        run(
            "measure", "cifar_resnet20", "--images", images, "--seed", seed, "--size", "32",
            *extra, "--out", work / f"seed{seed}",
        )  # fmt: skip
    run(
        "measure",
        "vit_b_16",
        "--weights",
        "none",
        "--images",
        images,
        "--limit",
        "6",
        "--out",
        work / "vit",
    )
    run("images", images, "--out", work / "images")
    run("compare", work / "seed0", work / "seed1", "--out", work / "comparison")
    run("plot", work / "seed0", work / "demo", "--out", work / "plots")


def distill(work: Path, labelled: Path) -> None:
    """A teacher, one student by every method, and the table of them."""
    base = ("distill", "--data", f"imagefolder:{labelled}", *QUICK)
    run(*base, "--student", "cifar_resnet14", "--out", work / "teacher")
    weights = work / "teacher" / "student.safetensors"
    for method in METHODS:
        run(
            *base, "--student", "cifar_resnet8", "--teacher", "cifar_resnet14",
            "--teacher-checkpoint", weights, "--method", method, "--out", work / method,
        )  # fmt: skip
    run("table", *(work / method for method in METHODS), "--out", work / "table")


def run(*arguments: Any) -> None:
    """One command line, whose words on the terminal are dropped."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        command.main([str(argument) for argument in arguments], standalone_mode=False)


def digest(path: Path, work: Path) -> str:
    """The digest of what a file says."""
    return hashlib.sha256(DIGESTS[path.suffix](path, str(work))).hexdigest()[:16]


def _text(path: Path, work: str) -> bytes:
    text = path.read_text(encoding="utf-8")
    text = text.replace(work, "WORK").replace(str(Path(natstats.demo_data.__path__[0])), "DEMO")
    if path.suffix == ".svg":
        text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.encode()


def _table(path: Path, work: str) -> bytes:
    """A table without the columns of times."""
    header, *rows = _text(path, work).decode().splitlines()
    kept = [
        n for n, name in enumerate(header.split(",")) if not re.search(r"second|ms_|memory", name)
    ]
    return "\n".join(
        ",".join(row.split(",")[n] for n in kept if n < len(row.split(",")))
        for row in [header, *rows]
    ).encode()


def _json(path: Path, work: str) -> bytes:
    return json.dumps(_lasting(json.loads(_text(path, work))), sort_keys=True).encode()


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _lasting(one) for key, one in value.items() if key not in VOLATILE}
    return [_lasting(one) for one in value] if isinstance(value, list) else value


def _arrays(path: Path, work: str) -> bytes:
    del work
    with contextlib.ExitStack() as stack:
        arrays = (
            load_file(path) if path.suffix == ".safetensors" else stack.enter_context(np.load(path))
        )
        parts = [
            name.encode() + np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays)
        ]
    return b"".join(parts)


DIGESTS = {
    ".csv": _table,
    ".json": _json,
    ".npz": _arrays,
    ".safetensors": _arrays,
    ".svg": _text,
}

if __name__ == "__main__":
    main()
