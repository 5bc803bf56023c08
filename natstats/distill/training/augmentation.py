"""Random changes of training images, each determined by a seed and nothing else."""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from natstats import checks
from natstats.distill.training.recipes import PAD_MODES, Recipe
from natstats.errors import UsageError

__all__ = [
    "Draws", "augmented", "changes_images", "crop_flip", "generator", "rand_augmented",
    "resized_crop_flip", "seeded",
]  # fmt: skip


def generator(seed: int, stage: str, epoch: int, purpose: str) -> np.random.Generator:
    """Random numbers for one purpose in one epoch, the same on every machine and process.

    >>> [int(generator(0, "main", epoch, "order").integers(1000)) for epoch in (1, 1, 2)]
    [764, 764, 806]
    """
    name = f"{seed} {epoch} {purpose} {stage}"
    return np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest(), "big"))


@dataclass(frozen=True)
class Draws:
    """The random changes of every image of a set in one epoch.

    Attributes:
        tops: (n,), upper row of the cut in the padded image.
        lefts: (n,), left column of it.
        flips: (n,), whether the image is mirrored left to right.
        seeds: (n,), for changes that need more random numbers.
    """

    tops: NDArray[np.int64]
    lefts: NDArray[np.int64]
    flips: NDArray[np.bool_]
    seeds: NDArray[np.int64]

    @classmethod
    def of_epoch(cls, n: int, padding: int, seed: int, stage: str, epoch: int) -> Draws:
        """Draw for n images; an image keeps its draw whatever batch it comes in."""
        chance = generator(seed, stage, epoch, "augmentation")
        tops, lefts = chance.integers(0, 2 * padding + 1, (2, n))
        flips = chance.integers(0, 2, n).astype(bool)
        return cls(tops, lefts, flips, chance.integers(0, 2**62, n))


def crop_flip(
    images: Tensor,
    tops: Tensor,
    lefts: Tensor,
    flips: Tensor,
    padding: int = 4,
    pad_mode: str = "zero",
) -> Tensor:
    """Pad images on every side, cut out their old size again, and flip some left to right.

    Args:
        images: (N, C, H, W), uint8.
        tops: (N,), row of the padded image where the cut begins, 0 to 2 `padding`.
        lefts: (N,), column where it begins.
        flips: (N,), bool.
        padding: pixels.
        pad_mode: ``zero`` (black) or ``reflect`` (the edge itself is not repeated).

    Returns:
        (N, C, H, W), uint8.

    Raises:
        UsageError: no such mode, or an image too small to be reflected.

    Reference:
        C.-Y. Lee et al., "Deeply-Supervised Nets", 2014, arXiv 1409.5185, which later CIFAR recipes
        follow.

    >>> image = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    >>> zero, flip = torch.tensor([0]), torch.tensor([True])
    >>> crop_flip(image, zero, zero, flip, padding=1)[0, 0].tolist()
    [[0, 0], [1, 0]]
    """
    checks.one_of("pad_mode", pad_mode, PAD_MODES)
    height, width = images.shape[-2:]
    if pad_mode == "reflect" and padding >= min(height, width):
        raise UsageError(
            f"padding: expected less than the {min(height, width)} pixels of a reflected image; "
            f"got {padding}"
        )
    fill = "constant" if pad_mode == "zero" else "reflect"
    padded = v2.functional.pad(images, [padding] * 4, padding_mode=fill)
    # Every cut is a view; taking one of each image copies no more than what is cut out.
    cuts = padded.unfold(2, height, 1).unfold(3, width, 1)
    cut = cuts[torch.arange(len(images)), :, tops, lefts]
    return torch.where(flips[:, None, None, None], cut.flip(3), cut)


def resized_crop_flip(image: Tensor, size: int, seed: int, flip: bool = True) -> Tensor:
    """A random part of an image scaled to a square, and flipped left to right half of the time.

    The part has 8 to 100 % of the area and an aspect ratio of 3/4 to 4/3; the scaling is
    bilinear and antialiased. The random state of torch is left as it was.

    Args:
        image: (3, H, W), uint8.
        size: side of the square, pixels.
        seed: decides everything.
        flip: False never flips; the part is the same.

    Returns:
        (3, size, size), uint8.

    Reference:
        C. Szegedy et al., "Going Deeper with Convolutions", 2014, arXiv 1409.4842, section 6.

    >>> resized_crop_flip(torch.zeros(3, 40, 60, dtype=torch.uint8), 32, seed=1).shape
    torch.Size([3, 32, 32])
    """
    with seeded(seed):
        result: Tensor = _resized_crop(size, flip)(image)
    return result


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's random numbers on the CPU within the context, then restore their state."""
    state = torch.get_rng_state()
    try:
        # torch.manual_seed would reseed the accelerators, too.
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        torch.set_rng_state(state)


@functools.cache
def _resized_crop(size: int, flip: bool) -> v2.Compose:
    flips = [v2.RandomHorizontalFlip()] if flip else []
    return v2.Compose([v2.RandomResizedCrop(size, antialias=True), *flips])


def rand_augmented(image: Tensor, magnitude: int, seed: int) -> Tensor:
    """Two random changes of colour or shape, of given strength; pixels from outside are black.

    The random state of torch is left as it was.

    Args:
        image: (3, H, W), uint8.
        magnitude: strength, 0 to 30.
        seed: decides everything.

    Returns:
        (3, H, W), uint8.

    Reference:
        E. D. Cubuk et al., "RandAugment", 2020, arXiv 1909.13719; as in torchvision.

    >>> rand_augmented(torch.zeros(3, 8, 8, dtype=torch.uint8), 9, seed=1).shape
    torch.Size([3, 8, 8])
    """
    with seeded(seed):
        result: Tensor = _rand_augment(magnitude)(image)
    return result


@functools.cache
def _rand_augment(magnitude: int) -> v2.RandAugment:
    return v2.RandAugment(num_ops=2, magnitude=magnitude)


def changes_images(recipe: Recipe) -> bool:
    """Whether a recipe changes its images from epoch to epoch, each by itself.

    Mixing, which makes one image of several, is not meant.

    >>> changes_images(Recipe()), changes_images(Recipe(padding=0, flip=False))
    (True, False)
    """
    if recipe.randaugment or recipe.augmentation == "resized-crop":
        return True
    moves = recipe.padding > 0 or recipe.flip is not False
    return recipe.augmentation == "crop-flip" and moves


def augmented(
    images: Sequence[Tensor] | Tensor,
    index: NDArray[np.int64],
    draws: Draws,
    recipe: Recipe,
    size: int,
) -> Tensor:
    """The images of a batch as a recipe changes them.

    Args:
        images: (N, 3, size, size), or for ``resized-crop`` N images of any size, uint8.
        index: (N,), their places in the set, where their draws are found.
        draws: random numbers of the epoch.
        recipe: names the augmentation.
        size: pixels.

    Returns:
        (N, 3, size, size), uint8.
    """
    seeds = draws.seeds[index].tolist()
    batch = _cut(images, index, draws, recipe, size)
    if not recipe.randaugment:
        return batch
    # Other seeds than those that a random part was drawn with.
    changed = [
        rand_augmented(image, recipe.randaugment, seed + 2**62)
        for image, seed in zip(batch, seeds, strict=True)
    ]
    return torch.stack(changed)


def _cut(
    images: Sequence[Tensor] | Tensor,
    index: NDArray[np.int64],
    draws: Draws,
    recipe: Recipe,
    size: int,
) -> Tensor:
    flip = recipe.flip is not False
    if recipe.augmentation == "resized-crop":
        seeds = draws.seeds[index].tolist()
        return torch.stack(
            [
                resized_crop_flip(image, size, seed, flip)
                for image, seed in zip(images, seeds, strict=True)
            ]
        )
    batch = images if isinstance(images, Tensor) else torch.stack(list(images))
    if recipe.augmentation == "none":
        return batch
    tops, lefts, flips = (
        torch.from_numpy(drawn[index]) for drawn in (draws.tops, draws.lefts, draws.flips)
    )
    return crop_flip(batch, tops, lefts, flips & flip, recipe.padding, recipe.pad_mode)
