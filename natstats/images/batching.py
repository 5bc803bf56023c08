"""Batches of a set of images, read in this process or by others."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import DataLoader, Sampler

from natstats import checks
from natstats.images import contents
from natstats.images.contents import Identity
from natstats.images.image_numbers import ImageNumbers
from natstats.images.image_sets import AT_ONCE, Batch, ImageSet, Photographs, Sample
from natstats.images.stream_batches import Decoder, raw_batches
from natstats.images.stream_numbers import Ended, StreamPart
from natstats.images.streams import ImageStream
from natstats.images.workers import from_workers

__all__ = ["batches", "parted"]


def _collate(read: list[Sample | Ended]) -> Batch:
    ended = tuple(one for one in read if isinstance(one, Ended))
    samples = [one for one in read if isinstance(one, Sample)]
    good = [(one.number, one.image) for one in samples if one.image is not None]
    return Batch(
        torch.stack([image for _, image in good]) if good else torch.zeros(0),
        torch.tensor([number for number, _ in good], dtype=torch.int64),
        [(one.number, one.reason) for one in samples if one.image is None],
        sum(one.is_enlarged for one in samples),
        # A stream does not come in the order of its numbers.
        b"".join(one.content for one in sorted(samples, key=lambda one: one.number)),
        tuple(one.number for one in samples if one.is_small),
        tuple(pair for one in samples for pair in one.seen),
        {one.number: one.label for one in samples if one.image is None and one.label},
        ended,
    )


class _InOrder(Sampler[int]):
    """Some images, in the order of their numbers."""

    def __init__(self, numbers: ImageNumbers) -> None:
        self._numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def batches(
    images: ImageSet,
    batch_size: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
    numbers: ImageNumbers | StreamPart | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Generator[Batch, None, None]:
    """Yield images of a set in batches on `device`, in the order of their numbers.

    Those of a stream come in the order in which they are read, the same with any number of workers.

    Photographs become float32 in [0, 1] (uint8 divided by 255). Arrays stay unscaled, in float32,
    or in float64 where float32 would round their values and the device has float64.

    Args:
        images: the set.
        batch_size: images in a batch; the last has those that are left.
        workers: processes that read them; 0 for this one.
        device: where the batches go.
        numbers: which images; by default all. Of a stream also a part of it.
        stopped: asked while a stream is waited for; where it returns True, the batches end.

    Raises:
        UsageError: `batch_size` or `workers` is out of range.
        NatstatsError: a shard of a stream cannot be read.
    """
    checks.positive_int("batch_size", batch_size)
    checks.positive_int("workers", workers, 0)
    device = torch.device(device)
    opened = contextlib.ExitStack()
    if isinstance(images, ImageStream):
        if not isinstance(numbers, StreamPart):
            numbers = replace(images.part(), only=numbers)
        read = raw_batches(images, batch_size, numbers, stopped)
        lists = opened.enter_context(contextlib.closing(read))
        chosen: dict[str, Any] = {"dataset": Decoder(images.framing), "batch_sampler": lists}
    else:
        assert not isinstance(numbers, StreamPart)
        sampler = None if numbers is None else _InOrder(numbers)
        chosen = {"dataset": images, "batch_size": batch_size, "sampler": sampler}
    loader = DataLoader(
        **chosen,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
    )
    scale = 255.0 if isinstance(images, Photographs) else 1.0
    has_float64 = device.type != "mps"
    seen: dict[Identity, bytes] = {}
    read_at = contents.now()
    try:
        for batch in from_workers(loader):
            seen.update(batch.seen)
            if len(seen) >= AT_ONCE:
                contents.keep(seen, read_at)
                seen.clear()
            is_wide = batch.images.dtype == torch.float64
            pixels = batch.images if has_float64 or not is_wide else batch.images.float()
            pixels = pixels.to(device, non_blocking=True)
            batch.images = pixels if pixels.dtype == torch.float64 else pixels.float()
            if scale != 1.0:
                batch.images = batch.images / scale
            yield batch
    finally:  # also of what was read before an error
        opened.close()
        contents.keep(seen, read_at)


def parted(batch: Batch, most: int) -> tuple[Batch, Batch | None]:
    """A batch of the first images of another, at most `most`, and a batch of the rest.

    Images that could not be read stay with the first; the rest is None where nothing is left.

    >>> first, rest = parted(Batch(torch.zeros(3, 1, 5, 5), torch.tensor([4, 6, 7])), 2)
    >>> first.index, rest.index
    (tensor([4, 6]), tensor([7]))
    """
    if len(batch.index) <= most:
        return batch, None
    left_out = [number for number, _ in batch.unreadable]
    numbers = sorted([*batch.index.tolist(), *left_out])
    contents = {
        number: batch.contents[32 * place : 32 * place + 32] for place, number in enumerate(numbers)
    }
    rest = set(batch.index[most:].tolist())
    first = replace(
        batch,
        images=batch.images[:most],
        index=batch.index[:most],
        contents=b"".join(contents[number] for number in numbers if number not in rest),
    )
    second = Batch(
        batch.images[most:],
        batch.index[most:],
        contents=b"".join(contents[number] for number in numbers if number in rest),
    )
    return first, second
