"""Photographs, the same photographs as a stream, and what two runs of them have in common."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from natstats.runs.run import Run
from tests.measurement.cut_runs import N_PHOTOS
from tests.measurement.stream_set_up import N_IMAGES, PER_SHARD


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[[int], Path]:
    """Makes a folder of photographs, one of which cannot be read."""

    def made(n_images: int) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        generator = np.random.default_rng(0)
        for number in range(n_images):
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number:02d}.png")
        (folder / "05.png").write_bytes(b"no image")
        return folder

    return made


@pytest.fixture
def forty_photos(make_photos: Callable[[int], Path]) -> Path:
    """40 photographs, one of which cannot be read."""
    return make_photos(N_PHOTOS)


@pytest.fixture
def stream_photos(make_photos: Callable[[int], Path]) -> Path:
    """22 photographs, one of which cannot be read."""
    return make_photos(N_IMAGES)


@pytest.fixture
def assert_same() -> Callable[[Path, Path], None]:
    """Holds the files of two runs to be the same to the last bit."""

    def arrays(run: Path) -> dict[str, np.ndarray]:
        found = {}
        for file in sorted(run.rglob("*.npz")):
            with np.load(file) as content:
                for name in content.files:
                    found[f"{file.relative_to(run)}/{name}"] = content[name]
        return found

    def check(first: Path, second: Path) -> None:
        ours, theirs = arrays(first), arrays(second)
        assert ours.keys() == theirs.keys()
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name], err_msg=name)
        for name in ("images", "model", "options", "warnings"):
            records = [json.loads((run / "run.json").read_text())[name] for run in (first, second)]
            assert records[0] == records[1]

    return check


@pytest.fixture
def assert_close() -> Callable[[Run, Run], None]:
    """Holds two runs to be the same but for the rounding of transforms of other batches."""

    def check(first: Run, second: Run) -> None:
        for one, other in zip(first.spectra, second.spectra, strict=True):
            assert one.layer == other.layer
            mine, theirs = one.spectrum, other.spectrum
            np.testing.assert_array_equal(mine.count, theirs.count)
            for name in ("power", "normalized", "offset", "image_power"):
                np.testing.assert_allclose(getattr(mine, name), getattr(theirs, name), rtol=3e-6)
        assert first.info["images"] == second.info["images"]

    return check


@pytest.fixture
def shards(stream_photos: Path, tmp_path: Path) -> Path:
    """Shards of 6, 6, 6 and 4 of them."""
    place = tmp_path / "shards"
    place.mkdir()
    files = sorted(stream_photos.iterdir())
    for shard in range(4):
        with tarfile.open(place / f"{shard}.tar", "w") as tar:
            for file in files[PER_SHARD * shard : PER_SHARD * (shard + 1)]:
                tar.add(file, file.name)
    return place


@pytest.fixture
def stream() -> Callable[..., str]:
    """Names the shards as a stream, which may write down which of them is opened."""

    def named(shards: Path, log: Path | None = None) -> str:
        note = "" if log is None else f"echo $s >> {log}; "
        return f"pipe:s={{0..3}}; {note}cat {shards}/$s.tar"

    return named
