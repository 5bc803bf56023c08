"""Likeness of images: how similar their maps are in a network, octave by octave."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from natstats.distill.losses.controls import common_plane, radius, sine, smaller_side
from natstats.distill.losses.maps import PairedLoss
from natstats.distill.losses.ring_comparison import DEAD
from natstats.distill.method import TapPoint

__all__ = ["Likeness", "likenesses", "octaves"]

_TINY = 1e-30


def octaves(side: int) -> tuple[Tensor, list[int]]:
    """The coefficients of the plane in the order of their octaves, and how many each octave has.

    Octave o has the frequencies from 2^o to below 2^(o + 1) cycles/image, below K = `side` / 2.

    Args:
        side: 2 K, as of :func:`natstats.distill.losses.controls.common_plane`.

    Returns:
        Places in the flattened half plane, octave by octave, and the number in each octave.

    >>> octaves(8)[1]
    [4, 18]
    """
    half = side // 2
    distance = radius(half).ravel()
    # The column of kx = 0 has every frequency twice; one of the two is kept.
    rows = np.arange(distance.size) // half
    twice = (np.arange(distance.size) % half == 0) & (rows >= half)
    which = np.floor(np.log2(np.maximum(distance, 1.0)) + 1e-9).astype(int)
    which[(distance < 1) | (distance >= half) | twice] = -1
    order = np.argsort(which, kind="stable")[np.sum(which < 0) :]
    return torch.tensor(order), np.bincount(which[which >= 0]).tolist()


def likenesses(
    plane: Tensor, order: Tensor, sizes: Sequence[int], floor: Tensor | None = None
) -> Tensor:
    """Correlation of every two images in every octave, (octaves, N, N).

    G_ij = Re sum F_i conj(F_j) / sqrt(sum |F_i|^2 sum |F_j|^2), summed over all channels and the
    frequencies of the octave. It is 1 on the diagonal, and unchanged by the gain of the maps and by
    any reordering or rotation of the channels.

    Args:
        plane: (N, C, 2 K - 1, K), complex, see
            :func:`natstats.distill.losses.controls.common_plane`.
        order: see :func:`octaves`.
        sizes: see :func:`octaves`.
        floor: what is added to the power of an image in every octave, (octaves,); None for next to
            nothing.

    >>> plane = common_plane(torch.randn(5, 3, 16, 16), 16)
    >>> likenesses(plane, *octaves(16)).shape
    torch.Size([3, 5, 5])
    """
    found = []
    for number, part in enumerate(_by_octave(plane, order, sizes)):
        rows = part.flatten(1)
        power = rows.square().sum(1) + (_TINY if floor is None else floor[number])
        size = power.sqrt()
        found.append(rows @ rows.T / (size[:, None] * size[None]))
    return torch.stack(found)


def _by_octave(plane: Tensor, order: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Real and imaginary parts of every octave, (N, C, size, 2) each."""
    parts = torch.view_as_real(plane).flatten(2, 3).index_select(2, order)
    return torch.split(parts, list(sizes), dim=2)


class Likeness(PairedLoss):
    """The term *likeness*: squared difference of :func:`likenesses`, between different images.

    Mean over pairs of images, octaves and pairs of taps. Like similarity-preserving distillation
    (F. Tung and G. Mori, 2019, arXiv 1907.09682), but octave by octave of the maps' frequencies,
    each of the same weight; phases count, and no connector is needed. A batch of one has no pair
    of images; its distance is 0.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.

    Example:
        >>> points = [TapPoint("layer", 4, 16, 16)]
        >>> from natstats.distill.method import Outputs
        >>> maps = torch.randn(5, 4, 16, 16)
        >>> turned = Outputs(torch.zeros(5, 3), (3 * maps[:, [2, 0, 3, 1]],))
        >>> same = Outputs(torch.zeros(5, 3), (maps,))
        >>> bool(Likeness(points, points)(turned, same, torch.zeros(5)) < 1e-9)
        True
    """

    reduction = "mean over pairs of images, octaves and pairs"

    def __init__(self, student: Sequence[TapPoint], teacher: Sequence[TapPoint]) -> None:
        super().__init__(len(student))
        pairs = list(zip(student, teacher, strict=True))
        self.sides = [smaller_side(*pair) for pair in pairs]
        self.octaves: list[list[int]] = []
        for index, (mine, theirs) in enumerate(pairs):
            order, sizes = octaves(self.sides[index])
            self.register_buffer(f"_order_{index}", order, persistent=False)
            self.octaves.append(sizes)
            for name, point in (("student", mine), ("teacher", theirs)):
                taper = sine(point.height, point.width)
                self.register_buffer(f"_{name}_taper_{index}", taper, persistent=False)

    def of_pair(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over pairs of images at a pair of taps."""
        octave = cast("Tensor", getattr(self, f"_order_{index}")), self.octaves[index]
        found = []
        for name, maps in (("teacher", teacher), ("student", student)):
            taper = cast("Tensor", getattr(self, f"_{name}_taper_{index}"))
            found.append(common_plane(maps, self.sides[index], taper))
        floor = _floor(found[0], *octave)
        theirs, mine = (likenesses(plane, *octave, floor) for plane in found)
        n_images = len(student)
        apart = (mine - theirs).square().sum((1, 2)).mean()
        # The diagonal is 1 in both, but for the floor.
        itself = (mine - theirs).diagonal(dim1=1, dim2=2).square().sum(1).mean()
        return (apart - itself) / max(n_images * (n_images - 1), 1)


def _floor(plane: Tensor, order: Tensor, sizes: Sequence[int]) -> Tensor:
    """A share of the teacher's mean power in every octave, (octaves,)."""
    parts = _by_octave(plane, order, sizes)
    return DEAD * torch.stack([part.square().sum() / len(part) for part in parts]) + _TINY
