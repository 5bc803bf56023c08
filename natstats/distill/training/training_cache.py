"""The cache of the teacher's outputs of a training that is set up, and what it needs."""

from __future__ import annotations

from pathlib import Path

from natstats import checks
from natstats.distill.training.cache_room import Needed, Room
from natstats.distill.training.distributed import Processes
from natstats.distill.training.loading import TrainBatches
from natstats.distill.training.setup import Distillation, built_with
from natstats.distill.training.teacher_cache import CacheKey, TeacherCache
from natstats.distill.training.trainer import DTYPES
from natstats.errors import UsageError
from natstats.files.json_files import to_json
from natstats.files.ownership import KINDS
from natstats.files.paths import expanded
from natstats.networks.load import Network
from natstats.text import printable

__all__ = ["cache_of", "refuse_lone_limit", "room_text", "told_apart"]


def told_apart(teacher: Network) -> str:
    """What identifies a teacher in a cache: its weights, and arguments that they do not show."""
    return f"{teacher.digest()} {to_json(built_with(teacher)).strip()}"


def cache_of(
    setup: Distillation,
    batches: TrainBatches,
    together: Processes,
    folder: str | Path,
    limit: float | None = None,
) -> TeacherCache | None:
    """The cache of the teacher's outputs; None where the method needs no teacher.

    Args:
        setup: the training.
        batches: its images.
        together: the processes that train.
        folder: folder of the cache.
        limit: how large it may get, GiB; None for as large as the disk allows.

    Raises:
        UsageError: the outputs cannot be kept, or the limit is not above 0.
    """
    room = _room(setup, folder, limit)
    if room is None or setup.teacher is None:
        return None
    return TeacherCache(
        folder,
        CacheKey.of(told_apart(setup.teacher), setup.data.train.digest(), setup.recipe, setup.seed),
        setup.teacher.model,
        batches,
        [theirs for pairs in setup.program.taps.values() for _, theirs in pairs],
        autocast=DTYPES[setup.recipe.amp],
        together=together,
        traces=setup.program.traces,
        limit=limit,
    )


def room_text(setup: Distillation, folder: str | Path, limit: float | None = None) -> str:
    """A line on what the cache may take, and what room there is; empty where there is no cache.

    Args:
        setup: the training.
        folder: folder of the cache.
        limit: how large it may get, GiB; None for as large as the disk allows.

    Raises:
        UsageError: as :func:`cache_of`.
    """
    room = _room(setup, folder, limit)
    if room is None:
        return ""
    n_images, n_classes = len(setup.data.train), len(setup.data.classes)
    return Needed.by(setup.program, setup.recipe, n_images, n_classes).text(room)


def refuse_lone_limit(folder: str | Path | None, limit: float | None) -> None:
    """Raise for the limit of a cache that there is not.

    Raises:
        UsageError: there is a limit, and no folder.

    >>> refuse_lone_limit(None, 10)
    Traceback (most recent call last):
    natstats.errors.UsageError: teacher_cache_limit: expected a teacher_cache beside it; got none
    """
    if limit is not None and folder is None:
        raise UsageError("teacher_cache_limit: expected a teacher_cache beside it; got none")


def _room(setup: Distillation, folder: str | Path, limit: float | None) -> Room | None:
    """The room for a cache, after checks; None where the method needs no teacher."""
    if limit is not None:
        limit = checks.finite("teacher_cache_limit", limit, above=0)
    if setup.teacher is None or not setup.program.needs_teacher:
        return None
    _refuse_unkept(setup)
    path = expanded(folder, "teacher_cache")
    _refuse_other_things(path)
    return Room(path, limit)


def _refuse_other_things(path: Path) -> None:
    """Raise where a cache would lie in a file, or among the files of a run."""
    place = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not place.is_dir():
        raise UsageError(f"teacher_cache: expected a folder; {printable(place)} is a file")
    if place != path:
        return
    held = [one.record for one in KINDS.values() if (path / one.record).is_file()]
    if held:
        raise UsageError(
            f"teacher_cache: expected a folder of its own; {printable(path)} holds {held[0]}"
        )


def _refuse_unkept(setup: Distillation) -> None:
    """Raise where a teacher's outputs are not those of each image by itself, or are not all."""
    if setup.program.teacher_bn == "batch":
        raise UsageError(
            "teacher_cache: expected a teacher that sees each image by itself; got batch "
            f"statistics, as {setup.program.method} asks for (ofd.teacher_bn=running does not)"
        )
    if setup.recipe.mixup or setup.recipe.cutmix:
        raise UsageError(
            "teacher_cache: expected a teacher that sees each image by itself; got a recipe that "
            "mixes them"
        )
    for method in setup.program.methods:
        if method.uses_images:
            raise UsageError(
                "teacher_cache: expected a method that looks at the teacher's outputs; got "
                f"{method.name}, which differentiates them in the images and needs a pass for it"
            )
