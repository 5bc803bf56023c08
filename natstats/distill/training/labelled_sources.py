"""Sources of labelled images: where the photographs of every class are, before any is read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from natstats.errors import UsageError
from natstats.images import datasets
from natstats.images.datasets import DataSetImages
from natstats.images.files import ImageFiles
from natstats.images.folder_walk import Found, images_below
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs
from natstats.text import few, printable

__all__ = [
    "LABELLED_SETS", "UNFLIPPED", "LabelledPhotographs", "LabelledSource", "find_source",
    "refuse_empty",
]  # fmt: skip

LABELLED_SETS = ("cifar10", "cifar100", "fashionmnist", "kmnist", "mnist", "stl10", "svhn")
"""Data sets of torchvision that can be trained on, beside ``imagefolder`` and ``imagenet``."""

UNFLIPPED = ("kmnist", "mnist", "svhn")
"""Data sets of digits and characters, which are not flipped: their mirror images are neither."""

_UNFRAMED = Framing(5)
_LISTED = 8


@dataclass(frozen=True, eq=False)
class LabelledPhotographs:
    """Photographs with a class each, not read yet.

    Attributes:
        images: the photographs, in the order in which they were listed.
        labels: (n,), places in the list of classes.
    """

    images: Photographs
    labels: NDArray[np.int64]

    def chosen(self, places: NDArray[np.int64]) -> LabelledPhotographs:
        """The photographs at some places, in this order."""
        return LabelledPhotographs(self.images.chosen(places.tolist()), self.labels[places])


@dataclass(frozen=True, eq=False)
class LabelledSource:
    """What a source of labelled images holds.

    Attributes:
        name: kind of the source, such as ``imagefolder`` or ``cifar10``.
        root: its folder.
        classes: names of the training classes, sorted.
        training: the training images.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    training: LabelledPhotographs

    def test_images(self) -> LabelledPhotographs:
        """The images to evaluate on; they are looked for here and not before.

        Raises:
            UsageError: there are none, or their classes are not those of the training images.
        """
        if self.name in LABELLED_SETS:
            return _from_torchvision(self.name, self.root, "test")[0]
        places = ("val",) if self.name == "imagenet" else ("test", "val")
        folders = [self.root / place for place in places]
        below = next((folder for folder in folders if folder.is_dir()), None)
        if below is None:
            listed = " or ".join(str(printable(folder)) for folder in folders)
            raise UsageError(
                f"data: expected {listed} with the folders of the classes, or a share to hold out; "
                "there is none"
            )
        by_class = _class_folders(below)
        _refuse_other_classes(below, list(by_class), self.classes)
        return _from_folders(below, by_class, self.classes)


def find_source(source: str) -> LabelledSource:
    """Find the training images of a source, and their classes.

    Args:
        source: see :func:`natstats.distill.training.data.open_labelled`.

    Raises:
        UsageError: there is no such source, or no image of some class.
    """
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
        training, classes = _from_torchvision(name, root, "train")
        return LabelledSource(name, root, classes, training)
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
    return LabelledSource(name, root, classes, _from_folders(below, folders, classes))


def _class_folders(below: Path) -> dict[str, Path]:
    """Folders by their printable names, sorted by these."""
    found = [path for path in below.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return dict(sorted((printable(path.name), path) for path in found))


def _refuse_other_classes(below: Path, found: Sequence[str], classes: Sequence[str]) -> None:
    missing = [one for one in classes if one not in found]
    unknown = [one for one in found if one not in classes]
    if missing or unknown:
        said = [f"no {few(missing, _LISTED)}"] * bool(missing)
        said += [f"{few(unknown, _LISTED)}, which training has not"] * bool(unknown)
        raise UsageError(
            f"data: expected the classes of the training images in {printable(below)}; "
            f"got {' and '.join(said)}"
        )


def _from_folders(
    below: Path, folders: Mapping[str, Path], classes: Sequence[str]
) -> LabelledPhotographs:
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
    refuse_empty(f"images in {printable(below)}", empty)
    notes = [f"{below.name}: {note}" for note in passed_over.notes()]
    images = ImageFiles(paths, below.parent, _UNFRAMED, description=printable(below), notes=notes)
    return LabelledPhotographs(_as_listed(images), np.array(labels, dtype=np.int64))


def _from_torchvision(
    name: str, root: Path, split: str
) -> tuple[LabelledPhotographs, tuple[str, ...]]:
    dataset = datasets.load(name, root, split)
    labels = getattr(dataset, "targets", None)
    labels = np.asarray(dataset.labels if labels is None else labels, dtype=np.int64)
    classes = tuple(getattr(dataset, "classes", None) or map(str, range(int(labels.max()) + 1)))
    images = DataSetImages(dataset, _UNFRAMED, description=f"{name}:{printable(root)}:{split}")
    return LabelledPhotographs(_as_listed(images), labels), tuple(map(printable, classes))


def _as_listed(images: Photographs) -> Photographs:
    """The images in the order in which they were listed, without the seeded shuffle."""
    return images.chosen(np.argsort(images.places).tolist())


def refuse_empty(what: str, classes: list[str]) -> None:
    """Raise when there are classes without an image.

    Raises:
        UsageError: there are; some are named.
    """
    if classes:
        raise UsageError(
            f"data: expected {what} of every class; got none of {few(classes, _LISTED)}"
        )
