"""Data sets of Hugging Face's library ``datasets``: saved to disk, or streamed.

Only bytes are taken from them. The images are decoded here, with the formats and bounds of all
other images, and no code that comes with a data set is run: ``datasets`` 4 and newer run none.
"""

from __future__ import annotations

import io
import os
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.files.paths import open_regular
from natstats.images.byte_sources import SourceError
from natstats.images.datasets import DataSetImages
from natstats.images.framing import Framing
from natstats.images.image_sets import Photographs, reason_of
from natstats.images.parquet import check_parquet, parquet_files
from natstats.images.read_ahead import Abort
from natstats.images.streams import ImageStream
from natstats.images.tar_streams import LARGEST_FILE, StreamItem
from natstats.text import printable

__all__ = [
    "SAVED", "STREAMED", "HuggingFaceImages", "images_of_dataset", "is_dataset",
    "open_hugging_face",
]  # fmt: skip

SAVED, STREAMED = "hf", "hf-stream"
"""Prefixes before the colon of a source: a data set on disk, and one that is read as a stream."""

_LEAST = 4
"""First version of the library datasets that runs no code of a data set."""

_ROWS = 1024
"""Rows of a shard of a data set on disk that is read as a stream."""

_SHOWN = 120


class HuggingFaceImages(DataSetImages):
    """The images of a ``datasets.Dataset``.

    Args:
        dataset: data set with one column of images.
        framing: how each is brought to size; by default the largest square of at most 512 pixels
            that fits all of them, unscaled.
        limit: at most this many, a random sample.
        seed: seed of the sample and of the numbering.
        description: where they come from, for people.

    Raises:
        UsageError: it has no row, no column of images, or several.
    """

    def __init__(
        self,
        dataset: Any,
        framing: Framing | None = None,
        limit: int | None = None,
        seed: int = 0,
        description: str = "datasets.Dataset",
    ) -> None:
        if not len(dataset):
            raise UsageError(f"images: expected at least one image; got none in {description!r}")
        self._column = _image_column(dataset.features, description)
        rows = _undecoded(dataset, self._column)
        super().__init__(rows, framing, limit, seed, description)

    def open(self, number: int) -> BinaryIO:
        """The bytes of an image."""
        return io.BytesIO(_bytes_of(self.dataset[self.places[number]][self._column]))


@dataclass(frozen=True, eq=False)
class RowShard:
    """A shard of a streamed data set.

    Attributes:
        address: text that tells the shard from others.
        name: what to call it.
        rows: a ``datasets.IterableDataset`` of undecoded images.
        number: number of the shard, from 0.
        n_shards: how many there are.
        column: name of the column with the images.
    """

    address: str
    name: str
    rows: Any
    number: int
    n_shards: int
    column: str

    def items(self, abort: Abort) -> Generator[StreamItem, None, None]:
        """Its images, in the order of the rows.

        Raises:
            SourceError: they stopped coming.
        """
        place = 0
        rows = iter(self.rows.shard(self.n_shards, self.number))
        while True:
            try:
                row = next(rows, None)
            except Exception as error:  # each builder and file system has errors of its own
                raise SourceError(
                    f"images: expected all rows of {self.name}; {place} came: {reason_of(error)}"
                ) from error
            if row is None:
                return
            try:
                yield StreamItem(str(place), _bytes_of(row.get(self.column)))
            except (NatstatsError, OSError) as error:
                yield StreamItem(str(place), reason=reason_of(error))
            place += 1


def _bytes_of(value: Any) -> bytes:
    """The bytes of an image that was not decoded.

    Raises:
        NatstatsError: there are none.
        OSError: the file that they are in cannot be read.
    """
    found, path = (value.get(n) for n in ("bytes", "path")) if isinstance(value, dict) else (0, 0)
    if isinstance(found, bytes):
        data = found
    elif isinstance(path, str) and "://" not in path:
        with open_regular(path) as file:
            data = file.read(LARGEST_FILE + 1)
    else:
        raise NatstatsError("there is no image in this row")
    if len(data) > LARGEST_FILE:
        raise NatstatsError(f"more than {LARGEST_FILE >> 20} MiB are too many for a photograph")
    return data


def _image_column(features: Any, description: str) -> str:
    """The only column of images.

    Raises:
        UsageError: there is none, or more than one; they are named.
    """
    import datasets

    columns = dict(features or {})
    found = [name for name, kind in columns.items() if isinstance(kind, datasets.Image)]
    if len(found) != 1:
        named = [printable(str(name)) for name in (found or columns)]
        raise UsageError(
            f"images: expected one column of images in {description}; got {len(found)}"
            + (f" ({', '.join(named)})" if found else f" among {', '.join(named) or 'no columns'}")
        )
    return str(found[0])


def _undecoded(dataset: Any, column: str) -> Any:
    import datasets

    kept = dataset.select_columns([column])
    return kept.cast_column(column, datasets.Image(decode=False))


def is_dataset(value: Any) -> bool:
    """Whether a value is a data set of this library, which need not be installed."""
    kind = type(value)
    known = ("Dataset", "IterableDataset")
    return kind.__module__.split(".")[0] == "datasets" and kind.__name__ in known


def images_of_dataset(
    dataset: Any,
    framing: Framing | None = None,
    limit: int | None = None,
    seed: int = 0,
    description: str = "",
) -> Photographs:
    """The images of a ``datasets.Dataset``, or the stream of a ``datasets.IterableDataset``.

    Args:
        dataset: data set with one column of images.
        framing: how each is brought to size.
        limit: at most this many.
        seed: seed of the sample and of the numbering, or of the order of the shards.
        description: where they come from, for people.

    Raises:
        UsageError: it has no column of images, or several.
    """
    where = description or f"datasets.{type(dataset).__name__}"
    if type(dataset).__name__ == "Dataset":
        return HuggingFaceImages(dataset, framing, limit, seed, where)
    features = dataset.features
    if features is None:  # the first row tells
        dataset = dataset._resolve_features()
        features = dataset.features
    column = _image_column(features, where)
    rows, n_shards = _undecoded(dataset, column), max(1, dataset.num_shards)
    shards = [
        RowShard(f"{where}#{n}", f"{where}#{n}"[-_SHOWN:], rows, n, n_shards, column)
        for n in range(n_shards)
    ]
    return ImageStream(shards, framing, limit, seed, where)


def open_hugging_face(
    kind: str,
    name: str,
    split: str | None = None,
    framing: Framing | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Photographs:
    """Open a data set by its name.

    Args:
        kind: ``hf`` for one that ``save_to_disk`` has written, or parquet files on disk, which are
            read as a stream; ``hf-stream`` for a stream of either, or of whatever
            ``datasets.load_dataset`` finds under the name.
        name: a folder, a ``.parquet`` file, a pattern of such, or for a stream also the name of a
            data set.
        split: name of the split, where the data set has several.
        framing: how each is brought to size.
        limit: at most this many.
        seed: seed of the sample and of the numbering, or of the order of the shards.

    Raises:
        UsageError: there is no such data set or split, or it has no column of images, or several.
    """
    checks.one_of("kind", kind, (SAVED, STREAMED))
    try:
        import datasets
    except ImportError:
        raise UsageError(
            f"images: expected the library datasets for {kind}:; it is not installed "
            "(pip install 'natstats[huggingface]')"
        ) from None
    if int(datasets.__version__.partition(".")[0]) < _LEAST:
        raise UsageError(
            f"images: expected datasets {_LEAST} or newer for {kind}:, which runs no code that "
            f"comes with a data set; {datasets.__version__} is installed"
        )
    place = os.path.expanduser(name)
    description = f"{kind}:{printable(name)}" + (f":{split}" if split else "")
    is_saved = any(Path(place, one).is_file() for one in ("state.json", "dataset_dict.json"))
    parquet = [] if is_saved else parquet_files(place)
    if kind == SAVED and not (is_saved or parquet):
        raise UsageError(
            "images: expected a folder that datasets has saved to disk, or parquet files; "
            f"{description} is none ({STREAMED}: reads what load_dataset can)"
        )
    check_parquet(parquet, description)
    try:
        if is_saved:
            found = datasets.load_from_disk(place)
        elif parquet and not os.path.isdir(place):
            found = datasets.load_dataset(
                "parquet", data_files=[str(path) for path in parquet], streaming=True
            )
        else:
            source = place if os.path.exists(place) else name
            found = datasets.load_dataset(source, streaming=True)
    except Exception as error:  # each builder has errors of its own
        raise UsageError(
            f"images: expected a data set at {description}; datasets says: {reason_of(error)}"
        ) from None
    dataset = _of_split(found, split, description)
    if kind == STREAMED and is_saved:
        dataset = dataset.to_iterable_dataset(num_shards=max(1, -(-len(dataset) // _ROWS)))
    return images_of_dataset(dataset, framing, limit, seed, description)


def _of_split(found: Any, split: str | None, description: str) -> Any:
    """The split that is meant.

    Raises:
        UsageError: there is no such split, or several and none is named.
    """
    if not isinstance(found, dict):
        if split is not None:
            raise UsageError(f"images: expected no split of {description}, which has none")
        return found
    if split is not None:
        checks.one_of("split", split, tuple(found))
        return found[split]
    if len(found) != 1:
        raise UsageError(
            f"images: expected a split behind {description}: one of {', '.join(found)}"
        )
    return next(iter(found.values()))
