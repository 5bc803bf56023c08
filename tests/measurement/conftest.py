"""Photographs, and the same photographs as a stream."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

N_IMAGES, PER_SHARD = 22, 6


@pytest.fixture
def stream_photos(tmp_path: Path) -> Path:
    """22 photographs, one of which cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(N_IMAGES):
        pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    (folder / "05.png").write_bytes(b"no image")
    return folder


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
