"""What the losses on maps share: pairing, pooling, weights, and checks that maps fit."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from natstats.checks import one_of
from natstats.distill.method import DistillationLoss, Outputs, Setting, TapPoint, float_maps
from natstats.errors import UsageError
from natstats.spectra.precision import full_precision

__all__ = [
    "LAYERS",
    "PairedLoss",
    "channel_connectors",
    "halving_weights",
    "layer_weights",
    "mean_over_pairs",
    "paired_maps",
    "paired_taps",
    "pooled",
    "refuse_other_shape",
    "refuse_other_size",
    "refuse_rectified",
]

LAYERS = ("equal", "deep", "shallow")
"""How pairs of layers can be weighted, see :func:`layer_weights`."""


def paired_maps(
    method: str, student: Outputs, teacher: Outputs, n_pairs: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """The maps of student and teacher, tap by tap, the teacher's detached.

    In float32, or in float64 where one of them is.

    Args:
        method: named in errors.
        student: with maps (N, C, H, W).
        teacher: with as many maps of the same images.
        n_pairs: how many there must be; None for one or more.

    Raises:
        UsageError: another number of maps, maps that are not (N, C, H, W), or other batch sizes.

    >>> import torch
    >>> one = Outputs(torch.zeros(2, 10), (torch.zeros(2, 3, 4, 4, dtype=torch.half),))
    >>> paired_maps("at", one, one)[0][0].dtype
    torch.float32
    """
    ours, theirs = float_maps(student), float_maps(teacher)
    wanted = len(ours) if n_pairs is None else n_pairs
    if not wanted or len(ours) != wanted or len(theirs) != wanted:
        listed = "one or more maps" if not wanted else f"{wanted} map{'s' * (wanted > 1)}"
        raise UsageError(
            f"{method}: expected {listed} of student and teacher each; "
            f"got {len(ours)} of the student and {len(theirs)} of the teacher"
        )
    for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one.ndim != 4 or other.ndim != 4 or len(one) != len(other):
            raise UsageError(
                f"{method}: expected maps (N, C, H, W) of the same images at tap {index}; got "
                f"{tuple(one.shape)} of the student and {tuple(other.shape)} of the teacher"
            )
    pairs = []
    for one, other in zip(ours, theirs, strict=True):
        dtype = torch.promote_types(one.dtype, other.dtype)
        pairs.append((one.to(dtype), other.detach().to(dtype)))
    return pairs


class PairedLoss(DistillationLoss):
    """A distance averaged over pairs of maps, in full precision also under autocast.

    Args:
        n_pairs: how many maps each network must give.
    """

    reduction = "mean over images and pairs"
    method = "spectral"
    """Named in errors."""

    pair_weights: tuple[float, ...] | None = None
    """Weights of the pairs, see :func:`layer_weights`."""

    def __init__(self, n_pairs: int) -> None:
        super().__init__()
        self.n_pairs = n_pairs

    def of_pair(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Mean distance over the images at a pair of taps, a scalar.

        Args:
            index: number of the pair.
            student: (N, C, H, W).
            teacher: (N, C', H', W'), detached.
        """
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32."""
        maps = paired_maps(self.method, student, teacher, self.n_pairs)
        with full_precision(maps[0][0].device):
            distances = [self.of_pair(n, *pair) for n, pair in enumerate(maps)]
            return mean_over_pairs(distances, self.pair_weights)


def channel_connectors(student: Sequence[TapPoint], teacher: Sequence[TapPoint]) -> nn.ModuleList:
    """A 1 x 1 convolution for each pair of taps, from the student's channels to the teacher's."""
    return nn.ModuleList(
        nn.Conv2d(mine.channels, theirs.channels, 1, bias=False)
        for mine, theirs in zip(student, teacher, strict=True)
    )


def pooled(one: Tensor, other: Tensor, how: str = "average") -> tuple[Tensor, Tensor]:
    """Both maps pooled to the smaller height and the smaller width of the two.

    Args:
        one: (N, C, H, W).
        other: (N, C', H', W').
        how: ``average`` or ``max``, over the pixels that are merged into one.

    Raises:
        UsageError: an unknown way to pool.

    >>> import torch
    >>> small, large = pooled(torch.zeros(2, 3, 4, 4), torch.ones(2, 5, 8, 8))
    >>> large.shape
    torch.Size([2, 5, 4, 4])
    """
    one_of("how", how, ("average", "max"))
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return _pool(one, size, how), _pool(other, size, how)


def _pool(maps: Tensor, size: tuple[int, int], how: str) -> Tensor:
    if maps.shape[2:] == size:
        return maps
    if how == "average":
        return functional.adaptive_avg_pool2d(maps, size)
    return functional.adaptive_max_pool2d(maps, size)


def halving_weights(n_pairs: int) -> tuple[float, ...]:
    """Weights of the pairs from shallow to deep: 1 for the deepest, half for each before it.

    >>> halving_weights(3)
    (0.25, 0.5, 1.0)
    """
    return tuple(2.0 ** -(n_pairs - 1 - index) for index in range(n_pairs))


def layer_weights(layers: str, n_pairs: int) -> tuple[float, ...] | None:
    """Weights of the pairs from shallow to deep, of sum 1.

    Args:
        layers: ``equal``; ``deep``, halved at each step back from the last; or ``shallow``, halved
            at each step on from the first.
        n_pairs: how many there are.

    Returns:
        The weights; None for the plain mean.

    Raises:
        UsageError: none of these.

    >>> [round(weight, 3) for weight in layer_weights("shallow", 3)]
    [0.571, 0.286, 0.143]
    """
    if one_of("layers", layers, LAYERS) == "equal":
        return None
    halved = halving_weights(n_pairs)
    ordered = halved if layers == "deep" else halved[::-1]
    return tuple(weight / sum(halved) for weight in ordered)


def mean_over_pairs(distances: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    """The mean of scalars, plain or with weights of sum 1.

    >>> import torch
    >>> mean_over_pairs([torch.tensor(1.0), torch.tensor(3.0)], (0.75, 0.25))
    tensor(1.5000)
    """
    stacked = torch.stack(list(distances))
    return stacked.mean() if weights is None else (stacked * stacked.new_tensor(weights)).sum()


def refuse_other_shape(method: str, index: int, student: Tensor, teacher: Tensor) -> None:
    """Raise where two maps cannot be compared element by element.

    Raises:
        UsageError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise UsageError(
            f"{method}: expected maps of one shape at tap {index}; got {tuple(student.shape)} of "
            f"the student, after its connector, and {tuple(teacher.shape)} of the teacher"
        )


def refuse_rectified(method: str, who: str, index: int, maps: Tensor) -> None:
    """Raise where a map has no negative value in a whole batch, as after a ReLU.

    Raises:
        UsageError: the smallest value is 0 or above.

    >>> import torch
    >>> refuse_rectified("ab", "student", 0, torch.ones(1, 1, 2, 2))
    Traceback (most recent call last):
    natstats.errors.UsageError: ab: expected a map of the student from before the ReLU at tap 0; \
got one without a negative value (smallest 1)
    """
    smallest = float(maps.detach().amin())
    if smallest >= 0.0:
        raise UsageError(
            f"{method}: expected a map of the {who} from before the ReLU at tap {index}; "
            f"got one without a negative value (smallest {smallest:g})"
        )


def paired_taps(
    method: str, setting: Setting, n_pairs: int | None = None
) -> list[tuple[TapPoint, TapPoint]]:
    """The taps of a setting, student beside teacher.

    Raises:
        UsageError: another number of taps than `n_pairs`, or than the other network has.
    """
    ours, theirs = len(setting.student), len(setting.teacher)
    if not ours or ours != theirs or n_pairs not in (None, ours):
        wanted = n_pairs or "equally many"
        raise UsageError(
            f"{method}: expected {wanted} taps in student and teacher; "
            f"got {ours} in the student and {theirs} in the teacher"
        )
    return list(zip(setting.student, setting.teacher, strict=True))


def refuse_other_size(method: str, pairs: list[tuple[TapPoint, TapPoint]]) -> None:
    """Raise where a pair of taps differs in height or width.

    Raises:
        UsageError: a pair differs; its layers and their sizes are named.
    """
    for student, teacher in pairs:
        if (student.height, student.width) != (teacher.height, teacher.width):
            raise UsageError(
                f"{method}: expected maps of one size, as no connector changes it; got "
                f"{_sized(student)} of the student and {_sized(teacher)} of the teacher"
            )


def _sized(tap: TapPoint) -> str:
    return f"{tap.name} with {tap.height} x {tap.width} pixels"
