"""Shards behind http: the same images as from files, and nothing that is cut short passes."""

from __future__ import annotations

import http.server
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from natstats.errors import NatstatsError
from natstats.images.sources import Framing, batches, open_images

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files; of those below `cut` only the first half, under the length of the whole."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if not self.path.startswith("/cut/"):
            super().do_GET()
            return
        content = Path(self.directory, self.path[5:]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two tar files of three photographs each."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"part-{i}.tar" for i in range(2)]
    for i, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for j in range(3):
                photo = tmp_path / f"{i}{j}.png"
                pixels = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(photo)
                tar.add(photo, photo.name)
    return paths


@pytest.fixture
def address(shards: list[Path]) -> Iterator[str]:
    """Of a server on this machine that has the shards."""

    def handler(*given: object) -> Handler:
        return Handler(*given, directory=str(shards[0].parent))  # type: ignore[arg-type]

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def read(source: str) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches(open_images(source, Framing(20)), 2, 0)])


def test_the_images_are_those_of_the_files(shards, address):
    theirs = read(f"file://{shards[0].parent}/part-{{0..1}}.tar")
    assert len(theirs) == 6
    assert torch.equal(read(f"{address}/part-{{0..1}}.tar"), theirs)


@pytest.mark.parametrize(
    ("shard", "words"),
    [
        ("part-{0..2}.tar", "part-2.tar; 404"),
        ("cut/part-0.tar", "cut/part-0.tar"),
    ],
)
def test_a_shard_that_is_missing_or_cut_short_is_named(address, shard, words):
    with pytest.raises(NatstatsError, match=words):
        read(f"{address}/{shard}")
