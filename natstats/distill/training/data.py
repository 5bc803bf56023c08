"""Labelled images for training and for evaluation, and which are which."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats import checks
from natstats.distill.training.labelled import MEMORY_LIMIT, LabelledImages, load_labelled
from natstats.distill.training.recipes import Recipe
from natstats.errors import UsageError
from natstats.images import datasets
from natstats.images.datasets import DataSetImages
from natstats.images.files import ImageFiles
from natstats.images.folder_walk import Found, images_below
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs
from natstats.text import few, printable

__all__ = ["LABELLED_SETS", "LabelledData", "held_out", "limited", "open_labelled"]

LABELLED_SETS = ("cifar10", "cifar100", "fashionmnist", "kmnist", "mnist", "stl10", "svhn")
"""Data sets of torchvision that can be trained on, beside ``imagefolder`` and ``imagenet``."""

_UNFRAMED = Framing(5)
_LISTED = 8


@dataclass(frozen=True, eq=False)
class LabelledData:
    """Images to train on and images to evaluate on.

    Attributes:
        train: the training images.
        evaluation: the images that accuracy is measured on, in a fixed order.
        classes: their names; a label is a place in it.
        split: ``test``, or ``held-out`` where `evaluation` was taken from the training images.
        name: of the data, short.
        source: as the user gave it.
        digest: 16 digits for names, sizes and contents of files, framing, labels and split.
        listing: the same without contents, which is what runs before 0.5.0 call the digest.
        contents: 16 digits for the bytes of all images; None where not all were read.
        size: side of the images that the network sees, pixels.
        holdout: share of the training images that were held out.
        seed: of what was held out and of a limit.
        notes: what a reader of the results must know.
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

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Name and reason of every image that was left out."""
        return self.train.unreadable + self.evaluation.unreadable

    def facts(self) -> dict[str, Any]:
        """What ``distill.json`` says of the data."""
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
    * ``cifar10:ROOT``, ``cifar100:ROOT`` and the others of :data:`LABELLED_SETS`, as torchvision
      lays them out. Nothing is downloaded.

    Labels are places in the sorted names of the training classes. A set that fits into memory is
    read here once; of a larger one an image that cannot be read stops the training at its step.
    Without `size`, and without one in the recipe, all are scaled to the shorter side of the
    smallest training image (icons below 32 pixels among larger ones, a few images below half of
    the median, and sides above 512 do not decide).

    Args:
        source: see above.
        recipe: gives the size, the scaling before the centre is cut out, and whether training
            images are cut at random before they are scaled; the default recipe if None.
        size: in place of the recipe's, pixels.
        holdout: share of the training images, the same of every class, that are evaluated on in
            place of the test images, which are then not even looked for; 0 for the test images.
        seed: of what is held out, and of `limit`; not that of the training.
        limit: train on at most this many, a random sample with the shares of the classes kept.
            What is held out does not depend on it.
        strict: fail on an unreadable image instead of skipping it.
        workers: processes that read.
        memory_limit: bytes of decoded images of a set up to which it is held in memory.

    Raises:
        UsageError: there is no such data, or its classes do not fit together.
        NatstatsError: an image cannot be read.

    >>> import tempfile
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
    name, training, labels, classes, root = _training(source)
    if holdout:
        out = held_out(labels, holdout, seed, classes)
        evaluation, eval_labels = training.chosen(np.flatnonzero(out).tolist()), labels[out]
        training, labels = training.chosen(np.flatnonzero(~out).tolist()), labels[~out]
    else:
        evaluation, eval_labels = _testing(name, root, classes)
    if limit is not None:
        places = limited(labels, checks.positive_int("limit", limit), seed)
        training, labels = training.chosen(places.tolist()), labels[places]
    chosen = training.native_size() if recipe.size is None else recipe.size
    resize = chosen if recipe.resize is None else recipe.resize
    is_whole = recipe.augmentation == "resized-crop"
    train = load_labelled(
        training.framed(Framing(chosen, chosen)), labels, is_whole=is_whole, strict=strict,
        memory_limit=memory_limit, workers=workers,
    )  # fmt: skip
    evaluated = load_labelled(
        evaluation.framed(Framing(chosen, resize)), eval_labels, strict=strict,
        memory_limit=memory_limit, workers=workers,
    )  # fmt: skip
    for part, what in ((train, "training"), (evaluated, "evaluation")):
        n = np.bincount(part.labels.numpy(), minlength=len(classes))
        _refuse_empty(f"readable {what} images", [classes[i] for i in np.flatnonzero(n == 0)])
    split = "held-out" if holdout else "test"
    both = (train, evaluated)
    return LabelledData(
        train=train,
        evaluation=evaluated,
        classes=classes,
        split=split,
        name=(printable(root.resolve().name) or name) if name == "imagefolder" else name,
        source=printable(source),
        digest=_identity([*classes, split, *(part.digest() for part in both)]),
        listing=_identity([*classes, split, *(part.listing() for part in both)]),
        contents=_contents(train, evaluated),
        size=chosen,
        holdout=float(holdout),
        seed=seed,
        notes=(*training.notes, *evaluation.notes, *_notes(train, evaluated)),
    )


def held_out(
    labels: NDArray[np.int64], share: float, seed: int, classes: tuple[str, ...] = ()
) -> NDArray[np.bool_]:
    """Which images are held out: the same share of every class, at least one, never all.

    Args:
        labels: (n,).
        share: of every class, between 0 and 1.
        seed: decides which.
        classes: names, for the error.

    Returns:
        (n,), True for those held out. What is drawn in a class does not depend on the others.

    Raises:
        UsageError: a class has a single image.

    >>> held_out(np.repeat([0, 1], 10), 0.2, seed=0).reshape(2, 10).sum(1).tolist()
    [2, 2]
    """
    out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        if len(places) < 2:
            called = repr(classes[label]) if classes else label
            raise UsageError(
                f"holdout: expected at least two training images of every class; {called} has one"
            )
        n = min(max(round(share * len(places)), 1), len(places) - 1)
        chance = np.random.default_rng([seed, int(label)])
        out[chance.permutation(places)[:n]] = True
    return out


def limited(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Places of at most `limit` images, a random sample with the shares of the classes kept.

    Every class keeps at least one image. Samples of one seed are nested within each class.

    Args:
        labels: (n,).
        limit: images.
        seed: decides which.

    Returns:
        (min(n, limit),), rising.

    Raises:
        UsageError: the limit is below the number of classes.

    >>> limited(np.repeat([0, 1], [8, 4]), 6, seed=0).tolist() == sorted(
    ...     limited(np.repeat([0, 1], [8, 4]), 6, seed=0).tolist()
    ... )
    True
    """
    n = len(labels)
    if limit >= n:
        return np.arange(n)
    present, counts = np.unique(labels, return_counts=True)
    if limit < len(present):
        raise UsageError(f"limit: expected at least the {len(present)} classes; got {limit}")
    # One image each, then the rest by the largest remainders.
    free = limit - len(present)
    exact = free * (counts - 1) / (n - len(present))
    quota = 1 + np.floor(exact).astype(int)
    missing = limit - int(quota.sum())
    quota[np.argsort(-(exact % 1), kind="stable")[:missing]] += 1
    taken = [
        np.random.default_rng([seed, int(label), 1]).permutation(np.flatnonzero(labels == label))[
            :share
        ]
        for label, share in zip(present, quota, strict=True)
    ]
    return np.sort(np.concatenate(taken))


def _training(
    source: str,
) -> tuple[str, Photographs, NDArray[np.int64], tuple[str, ...], Path]:
    """Name, training images, labels, classes and root of a source."""
    name, colon, rest = str(source).partition(":")
    known = ("imagefolder", "imagenet", *LABELLED_SETS)
    if name not in known or not rest:
        hint = f" (imagefolder:{name}?)" if not colon and Path(name).is_dir() else ""
        raise UsageError(
            f"data: expected NAME:FOLDER with one of {', '.join(known)}; "
            f"got {printable(str(source))!r}{hint}"
        )
    root = Path(os.path.expanduser(rest))
    if name in LABELLED_SETS:
        return name, *_from_torchvision(name, root, "train"), root
    below = root / "train"
    if not below.is_dir():
        raise UsageError(
            f"data: expected {printable(below)} with a folder of images for every class; "
            "there is none"
        )
    folders = _class_folders(below)
    if len(folders) < 2:
        raise UsageError(
            f"data: expected folders of at least two classes in {printable(below)}; "
            f"got {', '.join(folders) or 'none'}"
        )
    classes = tuple(folders)
    return name, *_from_folders(below, folders, classes), classes, root


def _testing(
    name: str, root: Path, classes: tuple[str, ...]
) -> tuple[Photographs, NDArray[np.int64]]:
    if name in LABELLED_SETS:
        images, labels, _ = _from_torchvision(name, root, "test")
        return images, labels
    places = ("val",) if name == "imagenet" else ("test", "val")
    below = next((root / place for place in places if (root / place).is_dir()), None)
    if below is None:
        listed = " or ".join(str(printable(root / place)) for place in places)
        raise UsageError(
            f"data: expected {listed} with the folders of the classes, or a share to hold out; "
            "there is none"
        )
    folders = _class_folders(below)
    missing = [one for one in classes if one not in folders]
    unknown = [one for one in folders if one not in classes]
    if missing or unknown:
        said = [f"no {few(missing, _LISTED)}"] * bool(missing)
        said += [f"{few(unknown, _LISTED)}, which training has not"] * bool(unknown)
        raise UsageError(
            f"data: expected the classes of the training images in {printable(below)}; "
            f"got {' and '.join(said)}"
        )
    return _from_folders(below, folders, classes)


def _class_folders(below: Path) -> dict[str, Path]:
    """Folders by their printable names, in the order of these."""
    found = [path for path in below.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return dict(sorted((printable(path.name), path) for path in found))


def _from_folders(
    below: Path, folders: dict[str, Path], classes: tuple[str, ...]
) -> tuple[Photographs, NDArray[np.int64]]:
    paths: list[Path] = []
    labels: list[int] = []
    empty = []
    passed_over = Found()
    for label, name in enumerate(classes):
        try:
            found = images_below(folders[name])
        except UsageError:
            empty.append(name)
            continue
        paths += found.paths
        labels += [label] * len(found.paths)
        passed_over.other += found.other
        passed_over.written += [Path(folders[name].name, path) for path in found.written]
        passed_over.again += [Path(folders[name].name, path) for path in found.again]
    _refuse_empty(f"images in {printable(below)}", empty)
    notes = [f"{below.name}: {note}" for note in passed_over.notes()]
    images = ImageFiles(paths, below.parent, _UNFRAMED, description=printable(below), notes=notes)
    return _in_order(images), np.array(labels, dtype=np.int64)


def _from_torchvision(
    name: str, root: Path, split: str
) -> tuple[Photographs, NDArray[np.int64], tuple[str, ...]]:
    dataset = datasets.load(name, root, split)
    labels = getattr(dataset, "targets", None)
    labels = np.asarray(dataset.labels if labels is None else labels, dtype=np.int64)
    classes = tuple(getattr(dataset, "classes", None) or map(str, range(int(labels.max()) + 1)))
    images = DataSetImages(dataset, _UNFRAMED, description=f"{name}:{printable(root)}:{split}")
    return _in_order(images), labels, tuple(printable(one) for one in classes)


def _in_order(images: Photographs) -> Photographs:
    """The images in the order in which they were listed."""
    return images.chosen(np.argsort(images.places).tolist())


def _refuse_empty(what: str, classes: list[str]) -> None:
    if classes:
        raise UsageError(
            f"data: expected {what} of every class; got none of {few(classes, _LISTED)}"
        )


def _identity(parts: list[str]) -> str:
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
