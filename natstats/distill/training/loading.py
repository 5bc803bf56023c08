"""Batches of labelled images whose order and random changes can be resumed at any step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from natstats import checks
from natstats.distill.training.augmentation import Draws, augmented, changes_images, generator
from natstats.distill.training.labelled import LabelledImages
from natstats.distill.training.recipes import Recipe
from natstats.errors import NatstatsError, UsageError
from natstats.images.workers import from_workers

__all__ = ["LabelledBatch", "TrainBatches", "eval_batches", "normalise", "prepared", "resolved"]


class LabelledBatch(NamedTuple):
    """Some labelled images.

    Attributes:
        images: (N, 3, H, W), uint8, RGB; see :func:`normalise`.
        labels: (N,), int64.
        places: (N,), int64, in the set.
    """

    images: Tensor
    labels: Tensor
    places: Tensor


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """8-bit images as a network takes them: (x / 255 - mean) / std.

    Args:
        images: (N, 3, H, W), uint8, on any device.
        mean: mean of every channel in [0, 1].
        std: standard deviation of every channel.

    Returns:
        (N, 3, H, W), float32, on the same device and in the same memory format.

    >>> normalise(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8), (0.5,) * 3, (0.25,) * 3).mean()
    tensor(2.)
    """
    values = images.to(torch.float32).div_(255)
    shape = (1, -1, 1, 1)
    return values.sub_(values.new_tensor(mean).view(shape)).div_(values.new_tensor(std).view(shape))


def prepared(images: Tensor, recipe: Recipe, device: torch.device) -> Tensor:
    """Images of a batch as the networks take them: on `device`, normalised, in the memory format.

    Args:
        images: (N, 3, H, W), uint8.
        recipe: without open fields, see :func:`resolved`.
        device: where the networks are.
    """
    assert recipe.mean is not None
    assert recipe.std is not None
    images = images.to(device, non_blocking=True)
    if recipe.channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    return normalise(images, recipe.mean, recipe.std)


def resolved(recipe: Recipe, images: LabelledImages) -> Recipe:
    """A recipe without open fields: size, normalisation, no flips where the images ask for none.

    Args:
        recipe: the fields that it gives stay.
        images: the training images.
    """
    changes: dict[str, Any] = {}
    if recipe.size is None:
        changes["size"] = images.size
    if recipe.mean is None:
        changes["mean"], changes["std"] = images.statistics()
    if recipe.flip is None and not images.flips:
        changes["flip"] = False
    return replace(recipe, **changes)


class TrainBatches:
    """Batches of training images, the same whatever reads them and at whatever step one starts.

    The order of an epoch depends on the seed, the stage and the epoch; the random changes of an
    image depend on these and its place in the set. Neither depends on the workers, on the ranks, on
    whether the set is in memory, or on torch's random state, which is left as it is.

    The images that do not fill a last batch are a batch of their own, with two exceptions. Where
    the ranks cannot share them equally, the surplus (fewer images than ranks, others in each epoch)
    is left out, as gradients are averaged over ranks as if all had equally many images.
    Where a rank would get a single image, which has no batch statistics, they join the batch
    before. A set smaller than a batch is one batch, of as many images as the ranks can share.

    Sets of framed images in memory need no workers: cutting and flipping is done for a whole batch
    at once, in the process itself.

    Args:
        images: the training images, opened with the same augmentation and size.
        recipe: gives batch size and augmentation.
        seed: seed of the training.
        workers: processes that read and change images that are not in memory.
        rank: number of this process.
        world: number of processes; each takes every `world`-th image of each batch.
        pin_memory: put what workers read into pinned memory, from which an accelerator copies it.

    Raises:
        UsageError: the images were opened for another recipe, or a batch cannot be shared out.

    >>> from natstats.images.framing import Framing
    >>> from natstats.images.image_sets import Photographs
    >>> images = LabelledImages(
    ...     Photographs(6, Framing(8), None, 0, "black"),
    ...     torch.tensor([0, 1] * 3),
    ...     held=torch.zeros(6, 3, 8, 8, dtype=torch.uint8),
    ... )
    >>> batches = TrainBatches(images, Recipe(batch_size=2), seed=0)
    >>> whole = [batch.places.tolist() for batch in batches.epoch("main", 1)]
    >>> [batch.places.tolist() for batch in batches.epoch("main", 1, start_step=1)] == whole[1:]
    True
    """

    def __init__(
        self,
        images: LabelledImages,
        recipe: Recipe,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world: int = 1,
        *,
        pin_memory: bool = False,
    ) -> None:
        _check(images, recipe, workers, rank, world)
        if images.is_whole != (recipe.augmentation == "resized-crop"):
            raise UsageError(
                f"augmentation: expected the one that the images were opened for; "
                f"got {recipe.augmentation}"
            )
        if recipe.batch_size % world:
            raise UsageError(
                f"batch_size: expected a multiple of the {world} processes; got {recipe.batch_size}"
            )
        if len(images) < world:
            raise UsageError(
                f"data: expected at least a training image for each of the {world} processes; "
                f"got {len(images)}"
            )
        self.images = images
        if recipe.flip is None and not images.flips:
            recipe = replace(recipe, flip=False)
        self.recipe = recipe
        self.seed = checks.positive_int("seed", seed, 0)
        self.workers = workers
        self.rank = rank
        self.world = world
        self.pin_memory = pin_memory

    @property
    def n_steps(self) -> int:
        """Steps of an epoch."""
        return len(self.sizes)

    @property
    def sizes(self) -> list[int]:
        """Images of every batch of an epoch, over all processes."""
        whole, over = divmod(len(self.images), self.recipe.batch_size)
        over -= over % self.world
        sizes = [self.recipe.batch_size] * whole
        if over >= 2 * self.world or not whole:
            sizes.append(over)
        else:
            sizes[-1] += over
        return sizes

    def order(self, stage: str, epoch: int) -> list[NDArray[np.int64]]:
        """Places in the set of the images of every batch of an epoch, over all processes."""
        shuffled = generator(self.seed, stage, epoch, "order").permutation(len(self.images))
        ends = np.cumsum(self.sizes)
        return [shuffled[end - n : end] for end, n in zip(ends, self.sizes, strict=True)]

    def epoch(self, stage: str, epoch: int, start_step: int = 0) -> Iterator[LabelledBatch]:
        """The batches of an epoch from a step on; those before are not read.

        Args:
            stage: its name.
            epoch: its number in the stage.
            start_step: first step, from 0; the number of steps in an epoch gives none.

        Raises:
            UsageError: a number is out of range.
            NatstatsError: an image cannot be read; the sentence names it.
        """
        checks.positive_int("epoch", epoch, 0)
        checks.positive_int("start_step", start_step, 0)
        if start_step > self.n_steps:
            raise UsageError(
                f"start_step: expected at most the {self.n_steps} steps of an epoch; "
                f"got {start_step}"
            )
        batches = [one[self.rank :: self.world] for one in self.order(stage, epoch)[start_step:]]
        return self._changed(stage, epoch, batches)

    def every_image(self, stage: str, epoch: int) -> Iterator[LabelledBatch]:
        """All images as they are changed in an epoch, in the order of the set, whatever the rank.

        Args:
            stage: its name.
            epoch: its number in the stage.

        Raises:
            NatstatsError: an image cannot be read; the sentence names it.
        """
        places = np.arange(len(self.images))
        size = self.recipe.batch_size
        return self._changed(
            stage, epoch, [places[at : at + size] for at in range(0, len(places), size)]
        )

    def draw_of(self, epoch: int) -> int:
        """Number of the set of random changes that the images have in an epoch."""
        if not changes_images(self.recipe):
            return 0
        return epoch if self.recipe.draws is None else epoch % self.recipe.draws

    def _changed(
        self, stage: str, epoch: int, batches: list[NDArray[np.int64]]
    ) -> Iterator[LabelledBatch]:
        own = self.recipe.augmentation_seed
        draws = Draws.of_epoch(
            len(self.images),
            self.recipe.padding,
            self.seed if own is None else own,
            stage,
            self.draw_of(epoch),
        )
        source = _Source(self.images, self.recipe, draws)
        return _read(source, batches, self.workers, self.pin_memory)


def eval_batches(
    images: LabelledImages,
    recipe: Recipe,
    workers: int = 0,
    *,
    places: NDArray[np.int64] | None = None,
) -> Iterator[LabelledBatch]:
    """All evaluation images once, in their order, as they were framed.

    Args:
        images: the evaluation images.
        recipe: gives the batch size.
        workers: processes that read images that are not in memory.
        places: places in the set of the images to take, in this order; None for all.

    Raises:
        UsageError: a number is out of range, or the images are of another size.
        NatstatsError: an image cannot be read; the sentence names it.
    """
    _check(images, recipe, workers)
    places = np.arange(len(images)) if places is None else places
    size = recipe.batch_size
    batches = [places[start : start + size] for start in range(0, len(places), size)]
    return _read(_Source(images, recipe, None), batches, workers)


def _check(
    images: LabelledImages, recipe: Recipe, workers: int, rank: int = 0, world: int = 1
) -> None:
    checks.positive_int("workers", workers, 0)
    checks.positive_int("world", world)
    checks.positive_int("rank", rank, 0)
    if rank >= world:
        raise UsageError(f"rank: expected a number below the {world} processes; got {rank}")
    if recipe.size not in (None, images.size):
        raise UsageError(
            f"size: expected the {images.size} pixels that the images were opened with; "
            f"got {recipe.size}"
        )


class _Source(Dataset[Any]):
    """Gives batches, or the text of an error: raised in a worker it would arrive garbled."""

    def __init__(self, images: LabelledImages, recipe: Recipe, draws: Draws | None) -> None:
        self.images = images
        self.recipe = recipe
        self.draws = draws

    def __getitems__(self, index: Sequence[int]) -> LabelledBatch | str:
        places = np.asarray(index)
        try:
            read = self.images.read(index)
        except NatstatsError as error:
            return str(error)
        if self.draws is not None:
            read = augmented(read, places, self.draws, self.recipe, self.images.size)
        assert isinstance(read, Tensor)
        numbers = torch.from_numpy(places)
        return LabelledBatch(read, self.images.labels[numbers], numbers)


def _read(
    source: _Source, batches: list[NDArray[np.int64]], workers: int, pin_memory: bool = False
) -> Iterator[LabelledBatch]:
    at_hand = isinstance(source.images.held, Tensor)
    found: Iterator[LabelledBatch | str]
    if at_hand or not workers or not batches:
        found = (source.__getitems__(batch.tolist()) for batch in batches)
    else:
        loader = DataLoader(
            source,
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else the loader draws from torch's own
        )
        found = from_workers(loader)
    for batch in found:
        if isinstance(batch, str):
            raise NatstatsError(batch)
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch
