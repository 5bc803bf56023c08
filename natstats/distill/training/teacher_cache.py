"""A cache on disk of a teacher's outputs for every training image, shared by many trainings.

A teacher in eval mode sees each image by itself, and the random changes of an image are determined
by the recipe, the seed, the stage and the epoch. So its scores and maps can be kept under these,
and trainings that share them read the outputs instead of running the teacher: other methods at the
same layers, and, where the recipe has an ``augmentation_seed``, other seeds. With ``draws`` in the
recipe, an image has that many changes, and the teacher runs in that many epochs only. Images that a
recipe does not change are kept once.

A cache is never needed: where there is no room for the outputs of an epoch, the training goes on
with the teacher in its steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor, nn

from natstats.activations.hooks import undisturbed
from natstats.distill.method import TapPoint, scores_of
from natstats.distill.taps import Taps
from natstats.distill.traces import Traces
from natstats.distill.training.augmentation import changes_images
from natstats.distill.training.cache_room import FROM_CACHE, Room, most_bytes
from natstats.distill.training.distributed import Processes
from natstats.distill.training.kept_outputs import KeptOutputs, OutputWriter
from natstats.distill.training.loading import TrainBatches, prepared
from natstats.distill.training.objective import Objective, Taught
from natstats.distill.training.recipes import Recipe
from natstats.errors import UsageError
from natstats.files.json_files import to_json
from natstats.files.paths import expanded, open_regular
from natstats.files.whole_files import PARTIAL, whole_file
from natstats.text import printable

__all__ = ["CacheKey", "TaughtEpoch", "TeacherCache"]

SCORES = "scores"
"""Name of the file of class scores; files of taps are named ``maps-`` and the layer."""

OF_THE_STUDENT = (
    "epochs", "batch_size", "optimizer", "learning_rate", "momentum", "nesterov", "weight_decay",
    "decay_vectors", "schedule", "milestones", "gamma", "warmup_epochs", "clip", "label_smoothing",
    "augmentation_seed", "draws", "resize", "ema", "accumulate", "sync_bn",
)  # fmt: skip
"""Fields of a recipe on which a teacher's outputs for a changed image do not depend (the seed of
the changes is in the key, their number in the names of the folders)."""

PROBE = "probe.npy"
"""File of the scores for fixed noise, which tell whether the teacher is still the same."""

_A_DAY = 24 * 3600.0

_log = logging.getLogger("natstats")


@dataclass(frozen=True)
class CacheKey:
    """What the outputs of a teacher depend on.

    Attributes:
        teacher: digest of its weights, and the arguments that it was built with.
        images: digest of the training images.
        seed: seed of the random changes of the images, 0 where there are none.
        recipe: the fields that decide how the images reach the teacher.
    """

    teacher: str
    images: str
    seed: int
    recipe: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, teacher: str, images: str, recipe: Recipe, seed: int) -> CacheKey:
        """The key of a training.

        Args:
            teacher: what identifies the teacher: digest of its weights, and arguments.
            images: digest of the training images.
            recipe: without open fields.
            seed: seed of the training, which the recipe's ``augmentation_seed`` replaces.

        >>> one, other = (CacheKey.of("t", "i", Recipe(epochs=n), 0) for n in (6, 30))
        >>> one == other
        True
        """
        fields = {k: v for k, v in recipe.to_dict().items() if k not in OF_THE_STUDENT}
        shown = tuple((k, tuple(v) if isinstance(v, list) else v) for k, v in fields.items())
        own = seed if recipe.augmentation_seed is None else recipe.augmentation_seed
        if not changes_images(recipe):
            own = 0
        return cls(teacher, images, own, shown)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for the file beside the outputs."""
        return {**vars(self), "recipe": dict(self.recipe)}

    @property
    def digest(self) -> str:
        """16 digits for the whole key."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class TaughtEpoch:
    """The teacher's outputs for the images of an epoch.

    Attributes:
        scores: (n, K), by the place of an image in the set.
        maps: by the name of the tap, (n, C, H, W).
    """

    scores: KeptOutputs
    maps: Mapping[str, KeptOutputs]

    def batch(self, places: Tensor, device: torch.device) -> Taught:
        """The outputs for some images, on `device`.

        Raises:
            NatstatsError: outputs are not those that were written.
        """
        maps = {name: kept.batch(places, device) for name, kept in self.maps.items()}
        return Taught(self.scores.batch(places, device), maps)


class TeacherCache:
    """Keeps a teacher's outputs in a folder, and gives those that are there.

    A file is there whole or not at all. Several trainings may fill a cache at once; at worst they
    do the same work twice. Nothing that is there is removed.

    Args:
        folder: folder of the cache; each teacher and data set has a folder of its own in it.
        key: what the outputs depend on.
        teacher: in eval mode whenever :meth:`epoch` is called.
        batches: the training images.
        points: taps in the teacher; layers that give the same maps share a file.
        autocast: type in which the teacher computes; None for float32.
        together: the processes that train, of which the first fills the cache; None for this one
            alone, on a CPU.
        traces: results of passes traced before, which are reused and added to; None for none.
        limit: how large `folder` may get, GiB; None for as large as the disk allows.

    Raises:
        UsageError: the folder cannot be written, or it holds the outputs of a teacher with the same
            weights and other scores, as after a change of its code.
    """

    def __init__(
        self,
        folder: str | Path,
        key: CacheKey,
        teacher: nn.Module,
        batches: TrainBatches,
        points: Sequence[TapPoint] = (),
        *,
        autocast: torch.dtype | None = None,
        together: Processes | None = None,
        traces: Traces | None = None,
        limit: float | None = None,
    ) -> None:
        self.room = Room(expanded(folder, "teacher_cache"), limit)
        self.folder = self.room.folder / key.digest
        self.key = key
        self._n_classes = 0
        self._failure = ""
        self._n_read, self._n_epochs = 0, 0
        self._has_said = False
        self._teacher, self._batches = teacher, batches
        self._autocast = autocast
        self._traces = traces or Traces()
        self._together = together or Processes(0, 1, torch.device("cpu"))
        self._device = self._together.device
        self._file_of = {p.name: p.map_name for p in points}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._together.is_first:
                with whole_file(self.folder / "key.json") as file:
                    file.write(to_json(key.to_dict()).encode())
                self._refuse_other_answers()
        except OSError as error:
            raise UsageError(
                f"teacher_cache: expected a folder that can be written to; {error}"
            ) from error

    def epoch(self, objective: Objective, stage: str, epoch: int) -> TaughtEpoch | None:
        """The teacher's outputs for the images of an epoch; those not kept yet are computed.

        Where they cannot be kept, a note says why, once.

        Args:
            objective: tells whether its terms use the teacher, and which taps.
            stage: name of the stage.
            epoch: number of the epoch in it.

        Returns:
            None where the terms need no teacher, or where it must run in the steps, as its outputs
            cannot be kept or are not found by all processes.

        Raises:
            NatstatsError: an image cannot be read.
        """
        if not objective.needs_teacher:
            return None
        self._n_epochs += 1
        folder = self._folder_of(stage, epoch)
        names = (SCORES, *objective.teacher_names)
        hindrance = ""
        if self._together.is_first:
            hindrance = self._complete(folder, names, stage, epoch)
        self._together.wait()
        found = {name: self._find(folder, name) for name in names}
        n_lacking = sum(one is None for one in found.values())
        if int(self._together.total(torch.tensor([n_lacking], device=self._device))):
            self._say(hindrance or f"{folder} is not found by all processes", stage, epoch)
            return None
        self._n_read += 1
        opened = {name: one for name, one in found.items() if one is not None}
        maps = {name: opened[name] for name in objective.teacher_names}
        return TaughtEpoch(opened[SCORES], maps)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the run must know, in clauses."""
        if not self._n_read:
            return ()
        some = f" in {self._n_read} of {self._n_epochs} epochs of the last sitting"
        return (
            f"{FROM_CACHE}{some * (self._n_read < self._n_epochs)}:"
            " the time of a step there is without the teacher's pass",
        )

    def _folder_of(self, stage: str, epoch: int) -> Path:
        """Folder of the outputs for the images as they are changed in an epoch."""
        if not changes_images(self._batches.recipe):
            return self.folder / "unchanged"
        return self.folder / f"{quote(stage, safe='')}-{self._batches.draw_of(epoch):04d}"

    def _say(self, hindrance: str, stage: str, epoch: int) -> None:
        if self._together.is_first and not self._has_said:
            _log.warning(
                "Note: the teacher's outputs for epoch %d of the stage %s are not kept: %s. The "
                "teacher runs in the steps, as in all epochs to come for which there is no room.",
                epoch + 1, stage, printable(hindrance),
            )  # fmt: skip
            self._has_said = True

    def _refuse_other_answers(self) -> None:
        """Raise where the teacher's scores for fixed noise are not those that were kept."""
        size = self._batches.images.size
        noise = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
        with undisturbed(self._teacher), torch.no_grad(), self._precision():
            scores = scores_of(self._teacher(noise.to(self._device))).float().cpu().numpy()
        self._n_classes = scores.shape[1]
        path = self.folder / PROBE
        try:
            with open_regular(path) as file:
                kept = np.load(file, allow_pickle=False)
        except FileNotFoundError:
            with whole_file(path) as new:
                np.save(new, scores)
            return
        except Exception as error:  # a damaged file raises nearly anything
            raise UsageError(
                f"teacher_cache: expected the scores that tell the teacher in {path}; they cannot "
                f"be read (remove the folder {self.folder}, or name another)"
            ) from error
        # Rounding depends on machine and batch; another network differs by more.
        reach = 0.02 * float(np.abs(scores).max()) + 1e-6
        is_alike = isinstance(kept, np.ndarray) and kept.shape == scores.shape
        is_alike = is_alike and kept.dtype.kind == "f"
        if not (is_alike and np.allclose(kept, scores, rtol=0, atol=reach)):
            raise UsageError(
                f"teacher_cache: expected the teacher whose outputs are in {self.folder}; got one "
                "with the same weights and other scores (remove the folder, or name another)"
            )

    @contextlib.contextmanager
    def _precision(self) -> Iterator[None]:
        with torch.autocast(self._device.type, self._autocast, enabled=self._autocast is not None):
            yield

    # -- files --------------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        return SCORES if name == SCORES else f"maps-{self._file_of.get(name, name)}"

    def _find(self, folder: Path, name: str) -> KeptOutputs | None:
        return KeptOutputs.find(folder, self._name(name), len(self._batches.images))

    # -- filling ------------------------------------------------------------------------------

    def _complete(self, folder: Path, names: Sequence[str], stage: str, epoch: int) -> str:
        """Compute what is not kept yet; why that cannot be kept, in words, empty where it is."""
        missing = [name for name in names if self._find(folder, name) is None]
        if not missing or self._failure:
            return self._failure
        size = self._batches.images.size
        image = torch.zeros(1, 3, size, size, device=self._device)
        taps = Taps(
            self._teacher, [name for name in missing if name != SCORES], image, self._traces
        )
        values = [int(np.prod(shape)) for shape in taps.shapes.values()]
        values += [self._n_classes] * (SCORES in missing)
        try:
            hindrance = self.room.hindrance(most_bytes(len(self._batches.images), values))
            if not hindrance:
                self._fill(folder, missing, taps, stage, epoch)
        except OSError as error:
            # Not tried again: the disk may be full by a quota, which shows only in the end.
            self._failure = f"{folder} cannot be written: {error.strerror or error}"
            return self._failure
        return hindrance

    def _fill(
        self, folder: Path, missing: Sequence[str], taps: Taps, stage: str, epoch: int
    ) -> None:
        """Run the teacher over all images of an epoch and keep the missing outputs."""
        folder.mkdir(parents=True, exist_ok=True)
        _remove_left_over(folder)
        written: dict[str, OutputWriter] = {}
        n_images = len(self._batches.images)
        with contextlib.ExitStack() as files:
            for batch in self._batches.every_image(stage, epoch):
                images = prepared(batch.images, self._batches.recipe, self._device)
                with torch.no_grad(), taps, self._precision():
                    scores = scores_of(self._teacher(images))
                given = {SCORES: scores, **taps.take().maps}
                for name in missing:
                    if name not in written:
                        opened = OutputWriter.opened(
                            folder, self._name(name), given[name], n_images
                        )
                        written[name] = files.enter_context(opened)
                    written[name].add(given[name])


def _remove_left_over(folder: Path) -> None:
    """Remove partly written files, of processes that died, with no change for a day."""
    for path in folder.glob(f"*{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _A_DAY:
                path.unlink()
