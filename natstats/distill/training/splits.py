"""Which labelled images are held out of the training, and which a limit keeps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from natstats.errors import UsageError

__all__ = ["held_out", "limited"]


def held_out(
    labels: NDArray[np.int64], share: float, seed: int, classes: tuple[str, ...] = ()
) -> NDArray[np.bool_]:
    """Which images are held out: the same share of every class, at least one, never all.

    Args:
        labels: (n,).
        share: share of every class to hold out, between 0 and 1.
        seed: decides which.
        classes: names, for the error.

    Returns:
        (n,), True for those held out. What is drawn in a class does not depend on the others.

    Raises:
        UsageError: a class has a single image.

    >>> held_out(np.repeat([0, 1], 10), 0.2, seed=0).reshape(2, 10).sum(1).tolist()
    [2, 2]
    """
    out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        if len(places) < 2:
            called = repr(classes[label]) if classes else label
            raise UsageError(
                f"holdout: expected at least two training images of every class; {called} has one"
            )
        n = min(max(round(share * len(places)), 1), len(places) - 1)
        chance = np.random.default_rng([seed, int(label)])
        out[chance.permutation(places)[:n]] = True
    return out


def limited(labels: NDArray[np.int64], limit: int, seed: int) -> NDArray[np.int64]:
    """Places of at most `limit` images, a random sample with the shares of the classes kept.

    Every class keeps at least one image. Samples of one seed are nested within each class.

    Args:
        labels: (n,).
        limit: most images to keep.
        seed: decides which.

    Returns:
        (min(n, limit),), rising.

    Raises:
        UsageError: the limit is below the number of classes.

    >>> limited(np.repeat([0, 1], [8, 4]), 6, seed=0).tolist() == sorted(
    ...     limited(np.repeat([0, 1], [8, 4]), 6, seed=0).tolist()
    ... )
    True
    """
    n = len(labels)
    if limit >= n:
        return np.arange(n)
    present, counts = np.unique(labels, return_counts=True)
    if limit < len(present):
        raise UsageError(f"limit: expected at least the {len(present)} classes; got {limit}")
    # One image each, then the rest by the largest remainders.
    free = limit - len(present)
    exact = free * (counts - 1) / (n - len(present))
    quota = 1 + np.floor(exact).astype(int)
    missing = limit - int(quota.sum())
    quota[np.argsort(-(exact % 1), kind="stable")[:missing]] += 1
    taken = [
        np.random.default_rng([seed, int(label), 1]).permutation(np.flatnonzero(labels == label))[
            :share
        ]
        for label, share in zip(present, quota, strict=True)
    ]
    return np.sort(np.concatenate(taken))
