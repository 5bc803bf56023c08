"""Sets of image numbers, kept as intervals: which images were measured, and which are left.

Images are numbered in a shuffled order, so any interval of numbers is a random sample, and a few
intervals say which of a billion images were measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from natstats.errors import UsageError

__all__ = ["ImageNumbers"]

_LARGEST = 2**62


class ImageNumbers:
    """A set of whole numbers from 0, kept as sorted intervals that neither touch nor overlap.

    Args:
        intervals: first number and last number + 1 of each, in any order.

    Raises:
        UsageError: an interval ends before it begins, or a number is out of range.

    >>> ImageNumbers([(0, 4), (4, 8), (20, 22)])
    ImageNumbers([(0, 8), (20, 22)])
    >>> len(ImageNumbers([(0, 8), (20, 22)]))
    10
    """

    def __init__(self, intervals: Iterable[Sequence[int]] = ()) -> None:
        pairs = np.array([*map(tuple, intervals)], np.int64).reshape(-1, 2)
        if len(pairs) and not (
            pairs.min() >= 0 and pairs.max() <= _LARGEST and np.all(pairs[:, 0] <= pairs[:, 1])
        ):
            raise UsageError(
                "intervals: expected pairs of whole numbers from 0, the smaller first; got others"
            )
        self._starts, self._ends = _merged(pairs[pairs[:, 0] < pairs[:, 1]])

    @classmethod
    def of(cls, numbers: Any) -> ImageNumbers:
        """The set of some numbers, in any order, repeated or not.

        >>> ImageNumbers.of([7, 3, 4, 3])
        ImageNumbers([(3, 5), (7, 8)])
        """
        own = np.unique(np.asarray(numbers, np.int64))
        return cls(np.stack([own, own + 1], 1))

    @property
    def intervals(self) -> list[tuple[int, int]]:
        """First number and last number + 1 of every interval."""
        return list(zip(self._starts.tolist(), self._ends.tolist(), strict=True))

    def __len__(self) -> int:
        return int((self._ends - self._starts).sum())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageNumbers) and self.intervals == other.intervals

    def __hash__(self) -> int:
        return hash(tuple(self.intervals))

    def __repr__(self) -> str:
        return f"ImageNumbers({self.intervals})"

    def __iter__(self) -> Iterator[int]:
        for start, end in self.intervals:
            yield from range(start, end)

    def has(self, number: int) -> bool:
        """Whether a number is in the set.

        >>> ImageNumbers([(0, 3)]).has(2), ImageNumbers([(0, 3)]).has(3)
        (True, False)
        """
        place = int(np.searchsorted(self._starts, number, "right")) - 1
        return place >= 0 and bool(number < self._ends[place])

    @property
    def end(self) -> int:
        """The largest number + 1; 0 for an empty set."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __or__(self, other: ImageNumbers) -> ImageNumbers:
        """All numbers of both.

        >>> ImageNumbers([(0, 3)]) | ImageNumbers([(3, 5)])
        ImageNumbers([(0, 5)])
        """
        return ImageNumbers([*self.intervals, *other.intervals])

    def __and__(self, other: ImageNumbers) -> ImageNumbers:
        """The numbers that are in both.

        >>> ImageNumbers([(0, 5)]) & ImageNumbers([(3, 9)])
        ImageNumbers([(3, 5)])
        """
        return self - (self - other)

    def __sub__(self, other: ImageNumbers) -> ImageNumbers:
        """The numbers that are not in the other.

        >>> ImageNumbers([(0, 9)]) - ImageNumbers([(2, 4), (8, 12)])
        ImageNumbers([(0, 2), (4, 8)])
        """
        left, place = [], 0
        theirs = other.intervals
        for start, end in self.intervals:
            while place < len(theirs) and theirs[place][1] <= start:
                place += 1
            here, at = start, place
            while at < len(theirs) and theirs[at][0] < end:
                left.append((here, max(here, theirs[at][0])))
                here, at = min(end, theirs[at][1]), at + 1
            left.append((here, end))
        return ImageNumbers(left)

    def shifted(self, by: int) -> ImageNumbers:
        """The set with `by` added to every number."""
        return ImageNumbers([(start + by, end + by) for start, end in self.intervals])

    def first(self, n: int) -> ImageNumbers:
        """The smallest `n` numbers; all where there are no more.

        >>> ImageNumbers([(0, 4), (10, 13)]).first(5)
        ImageNumbers([(0, 4), (10, 11)])
        """
        taken = []
        for start, end in self.intervals:
            taken.append((start, min(end, start + n)))
            n -= taken[-1][1] - start
            if n <= 0:
                break
        return ImageNumbers(taken)

    def share(self, number: int, n_shares: int) -> ImageNumbers:
        """Share `number` of `n_shares` of nearly equal size; each goes on where the previous ends.

        >>> ImageNumbers([(0, 4), (10, 13)]).share(1, 2)
        ImageNumbers([(3, 4), (10, 13)])
        """
        first, last = (len(self) * place // n_shares for place in (number, number + 1))
        taken, seen = [], 0
        for start, end in self.intervals:
            low, high = max(first - seen, 0), min(last - seen, end - start)
            if low < high:
                taken.append((start + low, start + high))
            seen += end - start
        return ImageNumbers(taken)


def _merged(pairs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Starts and ends of the union of intervals."""
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    starts, ends = pairs[:, 0], np.maximum.accumulate(pairs[:, 1])
    # A new interval begins where none before it reaches.
    opens = np.concatenate([[True], starts[1:] > ends[:-1]]) if len(pairs) else np.zeros(0, bool)
    closes = np.concatenate([opens[1:], [True]]) if len(pairs) else opens
    return starts[opens], ends[closes]
