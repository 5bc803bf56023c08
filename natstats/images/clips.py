"""Clips of video networks: a folder of frames is a clip."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from natstats import checks
from natstats.files.paths import open_regular
from natstats.images.files import ImageFiles
from natstats.images.folder_walk import images_below
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs, Sample
from natstats.numbers import counted
from natstats.text import natural, printable

__all__ = ["CLIP_FRAMES", "ClipFolders"]

CLIP_FRAMES = 16
"""Frames of a clip by default."""


class ClipFolders(Photographs):
    """Folders of frames, each of which is a clip of `frames` frames, evenly spaced.

    Frames are in the order of their names, in which numbers are compared as numbers: ``f10`` comes
    after ``f9``. A clip with fewer frames is unreadable.

    Args:
        folder: every folder in it or below it that holds images is a clip.
        frames: number of frames of a clip.
        framing: how each frame is brought to size; by default the largest square of at most 512
            pixels that fits all clips, unscaled.
        limit: at most this many clips, a random sample.
        seed: seed of the sample and of the numbering.

    Raises:
        UsageError: the folder is not there, or holds no image; `frames` is below 1.
    """

    def __init__(
        self,
        folder: Path,
        frames: int = 16,
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
    ) -> None:
        self.frames = checks.positive_int("frames", frames)
        self.folder = folder
        found: dict[Path, list[Path]] = defaultdict(list)
        below = images_below(folder)
        for path in below.paths:
            found[path.parent].append(path)
        self._clips = [sorted(found[place], key=_by_number) for place in sorted(found)]
        description = f"clips:{printable(folder)}"
        super().__init__(len(self._clips), framing, limit, seed, description, below.notes())

    def _chosen(self, number: int) -> list[Path]:
        """Frames of a clip, evenly spaced; none where there are too few."""
        paths = self._clips[self.places[number]]
        if len(paths) < self.frames:
            return []
        places = np.linspace(0, len(paths) - 1, self.frames).round().astype(int)
        return [paths[place] for place in places]

    def __getitem__(self, number: int) -> Sample:
        """Number and clip, uint8 (3, T, H, W), or the reason why it could not be read."""
        chosen = self._chosen(number)
        if not chosen:
            n_frames = len(self._clips[self.places[number]])
            which = counted(n_frames, "frame is", "frames are")
            return Sample(number, None, f"{which} fewer than {self.frames}")
        files = _InOrder(chosen, self.folder, self.framing)
        samples = [files[place] for place in range(len(files))]
        content = _together(sample.content for sample in samples)
        seen = tuple(pair for sample in samples for pair in sample.seen)
        for place, sample in enumerate(samples):
            if sample.image is None:
                reason = f"{Path(files.label(place)).name}: {sample.reason}"
                return Sample(number, None, reason, content, is_small=sample.is_small, seen=seen)
        clip = torch.stack([sample.image for sample in samples if sample.image is not None], dim=1)
        return Sample(number, clip, "", content, any(s.is_enlarged for s in samples), seen=seen)

    def open(self, number: int) -> BinaryIO:
        """The first frame of a clip."""
        return open_regular(self._clips[self.places[number]][0])

    def n_bytes(self, number: int) -> int:
        """Size of all frames of a clip together, also of those that are not chosen."""
        return sum(
            path.stat().st_size for path in self._clips[self.places[number]] if path.is_file()
        )

    def listing(self) -> str:
        """SHA-256 of frames per clip, the framing and the clips' names and sizes, 16 digits."""
        return hashlib.sha256(f"{self.frames} {super().listing()}".encode()).hexdigest()[:16]

    def contents(self) -> list[bytes]:
        """For every clip, SHA-256 over those of its chosen frames; zeros where it has too few."""
        chosen = [self._chosen(number) for number in range(len(self))]
        files = _InOrder([path for paths in chosen for path in paths], self.folder, self.framing)
        each = iter(files.contents())
        return [
            _together(itertools.islice(each, len(paths))) if paths else bytes(32)
            for paths in chosen
        ]

    def label(self, number: int) -> str:
        """Path of a clip's folder."""
        place = self._clips[self.places[number]][0].parent
        return printable(place.relative_to(self.folder).as_posix())


class _InOrder(ImageFiles):
    """Files whose numbers are their places in the list."""

    def __init__(self, paths: list[Path], base: Path, framing: Framing) -> None:
        super().__init__(paths, base, framing)
        self.places = list(range(len(paths)))


def _together(contents: Iterable[bytes]) -> bytes:
    return hashlib.sha256(b"".join(contents)).digest()


def _by_number(path: Path) -> list[tuple[int, str] | str]:
    return natural(os.path.splitext(path.name)[0])
