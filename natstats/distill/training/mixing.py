"""Batches that are mixed with themselves: mixup and CutMix, determined by a seed."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torchvision.transforms import v2

from natstats.distill.training.augmentation import seeded
from natstats.distill.training.recipes import Recipe

__all__ = ["mixed"]


def mixed(
    images: Tensor, labels: Tensor, recipe: Recipe, n_classes: int, seed: int
) -> tuple[Tensor, Tensor]:
    """A batch as a recipe mixes it: each image with the one before it in the batch.

    Mixup blends the two, a x + (1 - a) y with a from Beta(alpha, alpha), one for the batch; CutMix
    puts a rectangle of (1 - a) of the area of y into x, a from the same distribution. A recipe that
    has both draws one of them for each batch, with equal chances. The random state of torch is left
    as it was.

    Args:
        images: (N, 3, H, W), float.
        labels: (N,), whole numbers.
        recipe: has ``mixup`` or ``cutmix``, alpha of each, or neither: then nothing changes.
        n_classes: K.
        seed: decides everything.

    Returns:
        Images of the same shape, and labels (N, K) that are shares of the classes, float32; the
        given images and labels where nothing is mixed.

    Reference:
        H. Zhang et al., "mixup", 2018, arXiv 1710.09412; S. Yun et al., "CutMix", 2019,
        arXiv 1905.04899; as in torchvision, whose partner is the image before in the batch. The
        order of a batch is random already.

    >>> images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    >>> both = mixed(images, labels, Recipe(mixup=1.0), n_classes=3, seed=0)
    >>> both[0].shape, both[1].sum(1).tolist()
    (torch.Size([4, 3, 8, 8]), [1.0, 1.0, 1.0, 1.0])
    """
    ways = [way for way in ("mixup", "cutmix") if getattr(recipe, way)]
    if not ways:
        return images, labels
    with seeded(seed):
        way = ways[int(torch.randint(len(ways), ()))]
        mix = _mix(way, float(getattr(recipe, way)), n_classes)
        both: tuple[Tensor, Tensor] = mix(images, labels)
    return both


@functools.cache
def _mix(way: str, alpha: float, n_classes: int) -> v2.MixUp | v2.CutMix:
    return {"mixup": v2.MixUp, "cutmix": v2.CutMix}[way](alpha=alpha, num_classes=n_classes)
