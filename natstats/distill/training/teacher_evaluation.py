"""Predictions of a teacher for the evaluation images, kept in the cache of its outputs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from natstats.distill.training.evaluation import Evaluated
from natstats.distill.training.teacher_cache import CacheKey
from natstats.files.paths import open_regular
from natstats.files.whole_files import whole_file

__all__ = ["kept_evaluation"]

_COLUMNS = ("label", "predicted", "probability")


def kept_evaluation(
    folder: Path, key: CacheKey, n: int, compute: Callable[[], Evaluated]
) -> Evaluated:
    """The predictions that were kept; otherwise those of `compute`, which are then kept.

    A file that is damaged, or that cannot be written, costs a pass of the teacher and nothing else.

    Args:
        folder: folder of the cache.
        key: key of the teacher, the evaluation images and how they reach it.
        n: number of evaluation images.
        compute: runs the teacher over them.
    """
    path = folder / f"evaluation-{key.digest}.npz"
    found = _read(path, n)
    if found is not None:
        return found
    computed = compute()
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.savez(
                file,
                numbers=np.array([computed.n_top5, computed.loss]),
                **{name: getattr(computed, name).numpy() for name in _COLUMNS},
            )
    return computed


def _read(path: Path, n: int) -> Evaluated | None:
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as kept:
            label, predicted, probability = (torch.from_numpy(kept[name]) for name in _COLUMNS)
            n_top5, loss = kept["numbers"].tolist()
    except Exception:  # a damaged file raises nearly anything
        return None
    if any(column.shape != (n,) for column in (label, predicted, probability)):
        return None
    return Evaluated(label, predicted, probability, int(n_top5), float(loss))
