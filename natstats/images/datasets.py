"""Data sets that torchvision knows, as they are on disk. Nothing is downloaded or written.

The files of CIFAR-10 and CIFAR-100 are pickles, which can run any code when they are read.
torchvision first compares each of them with the MD5 of the published file, even where it does not
download, and refuses one that differs. No other data set here is unpickled.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from PIL import Image

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.images.files import ImageFiles, ImageFolder
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs, reason_of
from natstats.text import printable

__all__ = ["DATASETS", "DataSet", "DataSetImages", "load", "open_dataset"]


@dataclass(frozen=True)
class DataSet:
    """How to open a data set.

    Attributes:
        loader: class in ``torchvision.datasets``.
        below: path that must exist below the root; ``{split}`` in it stands for the split.
        splits: arguments of the class by the name of the split; the first is the default.
        files: attribute of the class that lists the files, alone or first in a tuple; empty where
            the images are in memory, or where :func:`_files` finds them. torchvision never opens
            an image file itself here: it would take any format.
    """

    loader: str
    below: str
    splits: Mapping[str, Mapping[str, Any]]
    files: str = ""


def _splits(*names: str) -> Mapping[str, Mapping[str, Any]]:
    return {name: {"split": name} for name in names}


_TRAIN = {"test": {"train": False}, "train": {"train": True}}
_ALL: Mapping[str, Mapping[str, Any]] = {"all": {}}
_PLACES = {
    "val": {"split": "val", "small": True},
    "train": {"split": "train-standard", "small": True},
}

DATASETS: Mapping[str, DataSet] = MappingProxyType(
    {
        "caltech101": DataSet("Caltech101", "caltech101/101_ObjectCategories", _ALL),
        "cifar10": DataSet("CIFAR10", "cifar-10-batches-py", _TRAIN),
        "cifar100": DataSet("CIFAR100", "cifar-100-python", _TRAIN),
        "country211": DataSet(
            "Country211", "country211", _splits("test", "valid", "train"), "samples"
        ),
        "dtd": DataSet("DTD", "dtd/dtd", _splits("test", "val", "train"), "_image_files"),
        "eurosat": DataSet("EuroSAT", "eurosat/2750", _ALL, "samples"),
        "fashionmnist": DataSet("FashionMNIST", "FashionMNIST/raw", _TRAIN),
        "fgvcaircraft": DataSet(
            "FGVCAircraft", "fgvc-aircraft-2013b",
            _splits("test", "val", "train", "trainval"), "_image_files",
        ),
        "flowers102": DataSet(
            "Flowers102", "flowers-102", _splits("test", "val", "train"), "_image_files"
        ),
        "food101": DataSet("Food101", "food-101", _splits("test", "train"), "_image_files"),
        "gtsrb": DataSet("GTSRB", "gtsrb", _splits("test", "train"), "_samples"),
        "imagenette": DataSet("Imagenette", "imagenette2", _splits("val", "train"), "_samples"),
        "kmnist": DataSet("KMNIST", "KMNIST/raw", _TRAIN),
        "mnist": DataSet("MNIST", "MNIST/raw", _TRAIN),
        "oxfordpets": DataSet(
            "OxfordIIITPet", "oxford-iiit-pet", _splits("test", "trainval"), "_images"
        ),
        "places365": DataSet("Places365", "categories_places365.txt", _PLACES, "imgs"),
        "stanfordcars": DataSet(
            "StanfordCars", "stanford_cars", _splits("test", "train"), "_samples"
        ),
        "stl10": DataSet(
            "STL10", "stl10_binary", _splits("test", "train", "unlabeled", "train+unlabeled")
        ),
        "sun397": DataSet("SUN397", "SUN397", _ALL, "_image_files"),
        "svhn": DataSet("SVHN", "{split}_32x32.mat", _splits("test", "train", "extra")),
    }
)  # fmt: skip
"""The data sets by name; ``imagenet`` and ``imagefolder`` beside them are folders of folders."""

_FOLDERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"imagefolder": (), "imagenet": ("val", "train")}
)


def names() -> list[str]:
    """Names of all data sets, sorted."""
    return sorted([*DATASETS, *_FOLDERS])


class DataSetImages(Photographs):
    """The images of a torchvision data set that are not files of their own.

    Args:
        dataset: data set of pairs, the first of each a PIL image.
        framing: how each is brought to size; by default the largest square of at most 512 pixels
            that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from, for people.
    """

    def __init__(
        self,
        dataset: Any,
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
        description: str = "data set",
    ) -> None:
        self.dataset = dataset
        super().__init__(len(dataset), framing, limit, seed, description)

    def open(self, number: int) -> BinaryIO | Image.Image:
        """The image."""
        image = self.dataset[self.places[number]][0]
        assert isinstance(image, Image.Image)
        return image

    def n_bytes(self, number: int) -> int:
        """Always 0: there is no file."""
        return 0

    def label(self, number: int) -> str:
        """Place of an image in the data set."""
        return f"[{self.places[number]}]"


def open_dataset(
    name: str,
    root: str,
    split: str | None = None,
    framing: Framing | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Photographs:
    """Open a data set that is on disk, as torchvision lays it out.

    ``imagenet`` takes the folders of classes in ``ROOT/val`` (or ``ROOT/train``); the archives and
    the kit of the challenge need not be there. ``imagefolder`` takes every image below its root.

    Args:
        name: one of :data:`DATASETS`, ``imagenet`` or ``imagefolder``.
        root: the folder that is given to torchvision as its root.
        split: name of the split; by default the test set, or the validation set where there is
            no other.
        framing: how each image is brought to size, see :class:`DataSetImages`.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.

    Raises:
        UsageError: no such data set or split, or it is not below `root`.
    """
    if name not in (*DATASETS, *_FOLDERS):
        raise UsageError(
            f"images: expected a path or one of {', '.join(names())} or clips "
            "(or hf, hf-stream, pipe) before the colon; "
            f"got {name!r}"
        )
    place = Path(os.path.expanduser(root))
    folders = _FOLDERS.get(name)
    splits = tuple(DATASETS[name].splits) if folders is None else folders
    if split is not None:
        if not splits:
            raise UsageError(f"images: expected no split of {name}; got {split!r}")
        checks.one_of("split", split, splits)
    chosen = split or next(iter(splits), None)
    description = f"{name}:{printable(place)}" + (f":{chosen}" if chosen else "")
    if folders is not None:
        below = place if chosen is None else place / chosen
        if not os.path.isdir(below):
            raise UsageError(f"images: expected a folder {printable(below)} for {name}")
        images = ImageFolder(below, framing, limit, seed)
        images.description = description
        return images
    assert chosen is not None
    entry = DATASETS[name]
    dataset = load(name, place, chosen)
    paths = _files(name, entry, dataset)
    if paths is None:
        return DataSetImages(dataset, framing, limit, seed, description)
    return ImageFiles(sorted(paths), place, framing, limit, seed, description)


def _files(name: str, entry: DataSet, dataset: Any) -> list[Path] | None:
    """Files of a data set's images; None where they are in memory."""
    if name == "caltech101":  # which makes up a path only when it opens the file
        places = zip(dataset.y, dataset.index, strict=True)
        top = Path(dataset.root, "101_ObjectCategories")
        return [top / dataset.categories[y] / f"image_{number:04d}.jpg" for y, number in places]
    if not entry.files:
        return None
    files = getattr(dataset, entry.files, None)
    if files is None:
        raise NatstatsError(
            f"images: expected torchvision to list the files of {name}; this version does not"
        )
    return [Path(one[0] if isinstance(one, tuple) else one) for one in files]


def load(name: str, root: Path, split: str) -> Any:
    """The data set as torchvision opens it, complete and with at least one image.

    Args:
        name: one of :data:`DATASETS`.
        root: the folder that is given to torchvision as its root.
        split: one of its splits.

    Raises:
        UsageError: it is not below `root`, or not complete.
    """
    import torchvision.datasets

    entry = DATASETS[name]
    below = entry.below.format(split=split)
    if not os.path.exists(root / below):  # one class makes its folder before looking into it
        raise UsageError(
            f"images: expected {below} below {printable(root)} for {name}; there is none"
        )
    arguments = entry.splits[split]
    try:
        loader = getattr(torchvision.datasets, entry.loader)
        dataset = loader(str(root), download=False, **arguments)
        n_images = len(dataset)
    except Exception as error:  # each class raises another one at a damaged file
        reason = re.split(r"\.? You can ", reason_of(error))[0].rstrip(".")
        raise UsageError(
            f"images: expected {name} whole below {printable(root)}; torchvision says: {reason}"
        ) from None
    if n_images == 0:
        raise UsageError(f"images: expected at least one image; {name} has none here")
    return dataset
