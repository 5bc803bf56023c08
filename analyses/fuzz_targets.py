"""What is fuzzed: something valid of every kind that natstats reads, and how it is read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import fuzz_changes
import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

import natstats
from natstats.distill.results import GAP, GRADIENTS, HISTORY, DistillationRun, Outcomes
from natstats.files.config_files import read_config
from natstats.files.csv_files import read_csv
from natstats.files.ownership import STATE
from natstats.files.state_files import read_state, write_state
from natstats.images.sources import open_images
from natstats.measurement.finishing import finish_run
from natstats.networks.checkpoints import read_checkpoint
from natstats.networks.load import Network, with_checkpoint
from natstats.runs.series import Series

__all__ = ["TARGETS", "Target"]


@dataclass(frozen=True)
class Target:
    """Something that natstats reads.

    Attributes:
        name: of it.
        make: puts a valid one into a folder.
        read: reads it there, and uses what it has read.
        codecs: how files are taken apart, by a pattern of their names; the first that fits counts.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]
    codecs: dict[str, str]

    def files(self, folder: Path) -> list[tuple[Path, tuple[fuzz_changes.Codec, ...]]]:
        """The files that are changed, and how they are taken apart."""
        found = []
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            kinds = [kind for pattern, kind in self.codecs.items() if path.match(pattern)]
            if kinds:
                found.append((path, fuzz_changes.CODECS.get(kinds[0], ())))
        return found


def network() -> nn.Module:
    """Two convolutions."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2)).eval()


def _images(n: int = 12) -> torch.Tensor:
    return torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(0))


_SETTINGS: dict[str, Any] = {"batch_size": 4, "n_groups": 8, "save_every": 0.0}


class _StopError(Exception):
    """Ends a measurement in its midst."""


def _stop(done: int, total: int) -> None:
    if done >= 8:
        raise _StopError


def _make_run(folder: Path) -> None:
    run = natstats.measure(network(), _images(), explain=True, n_groups=8, batch_size=4)
    run.save(folder / "it", report=False)


def _make_control(folder: Path) -> None:
    run = natstats.measure(
        network(), _images(), control="random-weights", control_seeds=2, n_groups=8, explain=True,
        counterfactual="shuffle-kernels",
    )  # fmt: skip
    run.save(folder / "it", report=False)


def _read_run(folder: Path) -> None:
    run = natstats.Run.open(folder / "it")
    _ = run.name, run.unit, run.band_sentence()
    run.layers.to_csv(io.StringIO())
    _ = run.law, run.control, run.account


def _no_pages() -> Any:
    """Without the figures, which are most of the time."""

    def page(folder: Path, _: Any) -> None:
        (folder / "report.html").touch()

    return mock.patch("natstats.report.pages.run.write_report", page)


def _make_state(folder: Path, stop: Any = _stop, **settings: Any) -> None:
    try:
        natstats.measure(
            network(), _images(), out=folder / "it", progress=stop, **_SETTINGS, **settings
        )
    except _StopError:
        (folder / "it" / STATE / "lock.json").unlink(missing_ok=True)


def _resume(folder: Path, **settings: Any) -> None:
    with _no_pages():
        run = natstats.measure(network(), _images(), out=folder / "it", **_SETTINGS, **settings)
    _ = run.layers, run.law


def _stop_at_end(done: int, total: int) -> None:
    if done == total:
        raise _StopError


def _make_whole_state(folder: Path) -> None:
    _make_state(folder, _stop_at_end)
    path = folder / "it" / STATE / "trained.safetensors"
    write_state(path, {**read_state(path), "is_whole": True})


def _finish(folder: Path) -> None:
    with _no_pages():
        run = finish_run(folder / "it")
    _ = run.layers


def _make_parts(folder: Path) -> None:
    for number in (1, 2):
        natstats.measure(
            network(), _images(), out=folder / f"part_{number}", shard=f"{number}/2", **_SETTINGS
        )


def _merge(folder: Path) -> None:
    run = natstats.merge_parts([folder / "part_1", folder / "part_2"])
    _ = run.layers, run.law


def _make_series(folder: Path) -> None:
    for epoch in (0, 1):
        torch.manual_seed(epoch)
        torch.save(network().state_dict(), folder / f"epoch_{epoch}.pth")
    natstats.measure_series(
        network(), str(folder / "epoch_*.pth"), _images(), out=folder / "it", n_groups=8
    )


def _read_series(folder: Path) -> None:
    series = Series.open(folder / "it")
    _ = series.sentence(), series.frame, [run.layers for run in series.runs]


def _checkpoint(content: Any, **options: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        torch.save(content(), folder / "it.pth", **options)

    return make


def _training() -> dict[str, Any]:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return {
        "state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3,
        "args": {"lr": 0.1, "arch": "net"},
    }  # fmt: skip


def _make_safetensors(folder: Path) -> None:
    from safetensors.torch import save_file

    save_file(network().state_dict(), folder / "it.safetensors", {"mean": "[0.5]"})


def _read_checkpoint(folder: Path) -> None:
    (path,) = folder.glob("it.*")
    saved = read_checkpoint(path)
    for value in saved.state.values():
        _ = value.shape if isinstance(value, torch.Tensor) else repr(value)[:10]
    with_checkpoint(Network(network(), "net", ""), path)


def _all_images(folder: Path) -> None:
    (path,) = folder.glob("it*")
    source = open_images(path)
    _ = source.digest(), source.description, source.notes
    run = natstats.measure_images(source, n_groups=8)
    _ = run.layers


def _make_npy(folder: Path) -> None:
    np.save(folder / "it.npy", _images().numpy())


def _make_tensor(folder: Path) -> None:
    torch.save({"images": _images(), "labels": torch.arange(12)}, folder / "it.pt")


def _pixels(number: int) -> Image.Image:
    generator = np.random.default_rng(number)
    return Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8))


_FORMATS = ("png", "jpg", "gif", "bmp", "webp", "tiff", "ppm")


def _make_photos(folder: Path) -> None:
    (folder / "it").mkdir()
    for number, ending in enumerate(_FORMATS):
        _pixels(number).save(folder / "it" / f"{number}.{ending}")


def _make_shard(folder: Path) -> None:
    with tarfile.open(folder / "it.tar", "w") as tar:
        for number in range(6):
            content = io.BytesIO()
            _pixels(number).save(content, "png")
            entry = tarfile.TarInfo(f"{number}.png")
            entry.size = len(content.getvalue())
            tar.addfile(entry, io.BytesIO(content.getvalue()))


def _make_account_state(folder: Path) -> None:
    _make_state(folder, explain=True)


def _resume_account(folder: Path) -> None:
    _resume(folder, explain=True)


def _make_list(folder: Path) -> None:
    _make_photos(folder)
    (folder / "it").rename(folder / "photos")
    names = [f"photos/{path.name}" for path in sorted((folder / "photos").iterdir())]
    (folder / "it.txt").write_text("# a list\n" + "\n".join(names))


def _make_distilled(folder: Path) -> None:
    outcomes = Outcomes(
        [0, 1, 1], [0, 0, 1], [0.9, 0.4, 0.8], ["a", "b", "c"]
    )  # fmt: skip
    info = {
        "method": "ce", "seed": 0, "data": {"name": "d", "classes": ["a", "b"], "n_eval": 3},
        "student": {"name": "net", "arguments": {"width": 3}}, "accuracy": 2 / 3,
        "recipe": {"epochs": 1}, "terms": [], "notes": ["a note"], "command": "natstats distill",
        "costs": {"seconds": 1.5},
    }  # fmt: skip
    history = pd.DataFrame([dict.fromkeys(HISTORY, 1.0) | {"stage": "main", "epoch": 1}])
    gradients = pd.DataFrame(
        [dict.fromkeys(GRADIENTS, 1.0) | {"stage": "main", "epoch": 1, "term": "ce"}]
    )
    gap = pd.DataFrame([dict.fromkeys(GAP, 8.0)])
    run = DistillationRun(info, history, gradients, outcomes, gap)  # type: ignore[arg-type]
    (folder / "it").mkdir()
    run.write(folder / "it")


def _read_distilled(folder: Path) -> None:
    run = DistillationRun.open(folder / "it")
    _ = run.method, run.seed, run.outcomes.agreement


def _make_config(folder: Path) -> None:
    (folder / "it.toml").write_text(
        'student = "a"\nseed = [0, 1]\n[recipe]\nlr = 0.1\nmilestones = [1, 2]\n'
    )


def _make_yaml(folder: Path) -> None:
    (folder / "it.yaml").write_text("student: a\nseed: [0, 1]\nrecipe: {lr: 1e-3, steps: [1]}\n")


def _read_config(folder: Path) -> None:
    (path,) = folder.glob("it.*")
    read_config(path)


def _make_csv(folder: Path) -> None:
    (folder / "it.csv").write_text('layer,depth\nconv,1\n\'=1+1,2\n"a,b",3\n')


def _read_csv(folder: Path) -> None:
    try:
        read_csv(folder / "it.csv")
    except ValueError as error:  # which its callers put into a sentence
        raise natstats.NatstatsError(str(error)) from None


_RUN = {"*.json": "json", "*.csv": "csv", "*.npz": "npz", "*.safetensors": "state"}

_SERIES = {"it/*.json": "json", "it/*.csv": "csv", "it/*/run.json": "json", "it/*/*.npz": "npz"}

TARGETS = (
    Target("run", _make_run, _read_run, _RUN),
    Target("run with controls", _make_control, _read_run, _RUN),
    Target("series", _make_series, _read_series, _SERIES),
    Target("state", _make_state, _resume, {"*.safetensors": "state", "*.json": "json"}),
    Target("account state", _make_account_state, _resume_account, {"*.safetensors": "state"}),
    Target("whole state", _make_whole_state, _finish, {"*.safetensors": "state"}),
    Target("parts", _make_parts, _merge, _RUN),
    Target("checkpoint", _checkpoint(_training), _read_checkpoint, {"*": "torch"}),
    Target("module", _checkpoint(network), _read_checkpoint, {"*": "bytes"}),
    Target(
        "legacy checkpoint",
        _checkpoint(_training, _use_new_zipfile_serialization=False),
        _read_checkpoint,
        {"*": "legacy"},
    ),
    Target("safetensors", _make_safetensors, _read_checkpoint, {"*": "safetensors"}),
    Target("npy", _make_npy, _all_images, {"*": "npy"}),
    Target("tensor", _make_tensor, _all_images, {"*": "torch"}),
    Target("photographs", _make_photos, _all_images, {"*": "bytes"}),
    Target("shard", _make_shard, _all_images, {"*": "tar"}),
    Target("list", _make_list, _all_images, {"it.txt": "bytes"}),
    Target("distillation", _make_distilled, _read_distilled, _RUN),
    Target("toml", _make_config, _read_config, {"*": "bytes"}),
    Target("yaml", _make_yaml, _read_config, {"*": "bytes"}),
    Target("table", _make_csv, _read_csv, {"*": "csv"}),
)
"""Everything that natstats reads."""
