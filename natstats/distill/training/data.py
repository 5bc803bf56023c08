"""Labelled images, opened from a source and split into training and evaluation images."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from natstats import checks
from natstats.distill.training.labelled import MEMORY_LIMIT, LabelledImages, load_labelled
from natstats.distill.training.labelled_sources import (
    UNFLIPPED,
    LabelledPhotographs,
    LabelledSource,
    find_source,
    refuse_empty,
)
from natstats.distill.training.recipes import Recipe
from natstats.distill.training.splits import held_out, limited
from natstats.images.framing import Framing
from natstats.text import printable

__all__ = ["LabelledData", "open_labelled"]


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Images to train on and images to evaluate on.

    Attributes:
        train: the training images.
        evaluation: the images that accuracy is measured on, in a fixed order.
        classes: names of the classes; a label is a place in this tuple.
        split: ``test``, or ``held-out`` where `evaluation` was taken from the training images.
        name: short name of the data.
        source: the source as the user gave it.
        digest: 16 digits for names, sizes and contents of files, framing, labels and split.
        listing: the same without contents, which is what runs before 0.5.0 call the digest.
        contents: 16 digits for the bytes of all images; None where not all were read.
        size: side of the images that the network sees, pixels.
        holdout: share of the training images that were held out.
        seed: decides what was held out and which images a limit keeps.
        notes: what a reader of the results must know.
        limit: how many training images were asked for at most; None for all.
        strict: whether an unreadable image would have been an error.
    """

    train: LabelledImages
    evaluation: LabelledImages
    classes: tuple[str, ...]
    split: str
    name: str
    source: str
    digest: str
    listing: str
    contents: str | None
    size: int
    holdout: float
    seed: int
    notes: tuple[str, ...]
    limit: int | None = None
    strict: bool = True

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Name and reason of every image that was left out."""
        return self.train.unreadable + self.evaluation.unreadable

    def facts(self) -> dict[str, Any]:
        """What ``distill.json`` records about the data."""
        return {
            "name": self.name,
            "source": self.source,
            "digest": self.digest,
            "listing": self.listing,
            "contents": self.contents,
            "classes": list(self.classes),
            "n_train": len(self.train),
            "n_eval": len(self.evaluation),
            "split": self.split,
            "holdout": self.holdout,
            "seed": self.seed,
            "size": self.size,
            "n_unreadable": len(self.unreadable),
            "unreadable": list(self.unreadable[:1000]),
        }


def open_labelled(
    source: str,
    recipe: Recipe | None = None,
    *,
    size: int | None = None,
    holdout: float = 0.0,
    seed: int = 0,
    limit: int | None = None,
    strict: bool = True,
    workers: int = 0,
    memory_limit: int = MEMORY_LIMIT,
) -> LabelledData:
    """Open labelled images: a training set, and a set to evaluate on.

    Sources:

    * ``imagefolder:DIR`` with ``DIR/train/CLASS/*`` and ``DIR/test/CLASS/*``, or ``val`` where
      there is no ``test``;
    * ``imagenet:DIR`` with ``DIR/train/CLASS/*`` and ``DIR/val/CLASS/*``;
    * ``cifar10:ROOT``, ``cifar100:ROOT`` and the others of
      :data:`natstats.distill.training.labelled_sources.LABELLED_SETS`, as torchvision lays them
      out. Nothing is downloaded.

    Labels are places in the sorted names of the training classes. A set that fits into memory is
    read once, here; in a larger one, an image that cannot be read stops the training at its step.
    Without `size`, and without one in the recipe, all images are scaled to the shorter side of the
    smallest training image; icons below 32 pixels among larger images, a few images below half of
    the median, and sides above 512 do not count for this.

    Args:
        source: see above.
        recipe: gives the size, the scaling before the centre is cut out, and whether training
            images are cut at random before they are scaled; the default recipe if None.
        size: side of the images, replaces the recipe's, pixels.
        holdout: share of the training images, the same for every class, to evaluate on instead of
            the test images, which are then not even looked for; 0 for the test images.
        seed: decides what is held out and what `limit` keeps; the training has its own.
        limit: train on at most this many, a random sample with the shares of the classes kept.
            What is held out does not depend on it.
        strict: fail on an unreadable image instead of skipping it.
        workers: processes that read.
        memory_limit: bytes of decoded images of a set up to which it is held in memory.

    Raises:
        UsageError: there is no such data, or its classes do not fit together.
        NatstatsError: an image cannot be read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> folder = tempfile.TemporaryDirectory()
    >>> for place in ("train/cat", "train/dog", "val/cat", "val/dog"):
    ...     (Path(folder.name) / place).mkdir(parents=True)
    ...     Image.new("RGB", (8, 8)).save(Path(folder.name) / place / "1.png")
    >>> data = open_labelled(f"imagefolder:{folder.name}")
    >>> data.classes, data.size, data.evaluation.names
    (('cat', 'dog'), 8, ['val/cat/1.png', 'val/dog/1.png'])
    >>> folder.cleanup()
    """
    recipe = Recipe() if recipe is None else recipe
    if size is not None:
        recipe = recipe.changed(size=size)
    checks.finite("holdout", holdout, least=0, below=1)
    checks.positive_int("seed", seed, 0)
    checks.positive_int("workers", workers, 0)
    checks.positive_int("memory_limit", memory_limit, 0)
    found = find_source(source)
    training, evaluation = _parted(found, holdout, seed)
    if limit is not None:
        checks.positive_int("limit", limit)
        training = training.chosen(limited(training.labels, limit, seed))
    side = training.images.native_size() if recipe.size is None else recipe.size
    resize = side if recipe.resize is None else recipe.resize

    def read(part: LabelledPhotographs, framing: Framing, is_whole: bool) -> LabelledImages:
        return load_labelled(
            part.images.framed(framing), part.labels, is_whole=is_whole, strict=strict,
            memory_limit=memory_limit, workers=workers,
        )  # fmt: skip

    train = read(training, Framing(side, side), recipe.augmentation == "resized-crop")
    train = replace(train, flips=found.name not in UNFLIPPED)
    evaluated = read(evaluation, Framing(side, resize), False)
    _refuse_empty_classes(found.classes, train, evaluated)
    split = "held-out" if holdout else "test"
    root_name = printable(found.root.resolve().name) or found.name
    both = (train, evaluated)
    return LabelledData(
        train=train,
        evaluation=evaluated,
        classes=found.classes,
        split=split,
        name=root_name if found.name == "imagefolder" else found.name,
        source=printable(source),
        digest=_digest([*found.classes, split, *(part.digest() for part in both)]),
        listing=_digest([*found.classes, split, *(part.listing() for part in both)]),
        contents=_contents(train, evaluated),
        size=side,
        holdout=float(holdout),
        seed=seed,
        notes=(*training.images.notes, *evaluation.images.notes, *_notes(train, evaluated)),
        limit=limit,
        strict=strict,
    )


def _parted(
    found: LabelledSource, holdout: float, seed: int
) -> tuple[LabelledPhotographs, LabelledPhotographs]:
    """The images to train on and to evaluate on."""
    if not holdout:
        return found.training, found.test_images()
    out = held_out(found.training.labels, holdout, seed, found.classes)
    parts = (np.flatnonzero(~out), np.flatnonzero(out))
    return found.training.chosen(parts[0]), found.training.chosen(parts[1])


def _refuse_empty_classes(
    classes: tuple[str, ...], train: LabelledImages, evaluation: LabelledImages
) -> None:
    for part, what in ((train, "training"), (evaluation, "evaluation")):
        n = np.bincount(part.labels.numpy(), minlength=len(classes))
        refuse_empty(f"readable {what} images", [classes[i] for i in np.flatnonzero(n == 0)])


def _digest(parts: list[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _contents(*parts: LabelledImages) -> str | None:
    sha = hashlib.sha256()
    for part in parts:
        if part.contents is None:
            return None
        sha.update(b"".join(part.contents))
    return sha.hexdigest()[:16]


def _notes(train: LabelledImages, evaluation: LabelledImages) -> tuple[str, ...]:
    notes = []
    left_out = len(train.unreadable) + len(evaluation.unreadable)
    if left_out:
        notes.append(f"{left_out} of the images could not be read and were left out")
    for part, what in ((train, "training"), (evaluation, "evaluation")):
        if part.n_enlarged:
            notes.append(
                f"{part.n_enlarged} of {len(part)} {what} images were smaller than what they "
                "were scaled to"
            )
    if train.contents is not None and evaluation.contents is not None:
        seen = set(train.contents)
        shared = sum(content in seen for content in evaluation.contents)
        if shared:
            notes.append(
                f"{shared} of {len(evaluation)} evaluation images are training images, too"
            )
    return tuple(notes)
