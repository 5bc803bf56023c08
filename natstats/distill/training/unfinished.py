"""How far unfinished trainings have come, for notes beside tables, which leave them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from natstats.distill.run_files import HISTORY, read_table
from natstats.distill.run_folders import STATE
from natstats.files.torch_files import load_plain
from natstats.text import printable

__all__ = ["Unfinished", "read_unfinished"]


@dataclass(frozen=True)
class Unfinished:
    """A training that is not finished.

    Attributes:
        path: its directory.
        method: name of the method; empty where it is not known.
        seed: seed of the training; None where it is not known.
        epoch: epochs that are done, of all stages.
        epochs: epochs of all stages; None where it is not known.
        accuracy: accuracy at the last evaluation; NaN where there was none.
    """

    path: Path
    method: str = ""
    seed: int | None = None
    epoch: int = 0
    epochs: int | None = None
    accuracy: float = np.nan

    def sentence(self) -> str:
        """What it is and how far it has come, in words.

        >>> print(Unfinished(Path("runs/kd"), "kd", 2, 3, 30, 0.451).sentence())
        the training in runs/kd is not finished and left out: kd, seed 2, epoch 3 of 30, 45.1 % at \
the last look
        """
        start = f"the training in {printable(self.path)} is not finished and left out"
        facts = [printable(self.method)] if self.method else []
        facts += [f"seed {self.seed}"] if self.seed is not None else []
        whole = "" if self.epochs is None else f" of {self.epochs}"
        facts += [f"epoch {self.epoch}{whole}"] if self.epoch or self.epochs is not None else []
        if np.isfinite(self.accuracy):
            facts.append(f"{100 * self.accuracy:.1f} % at the last look")
        return f"{start}: {', '.join(facts)}" if facts else start


def read_unfinished(path: Path) -> Unfinished:
    """What is known of an unfinished training; what cannot be read is left open.

    Args:
        path: a directory of :func:`natstats.distill.run_folders.find_unfinished`.
    """
    identity = _identity(path / STATE)
    stages, seed = identity.get("stages"), identity.get("seed")
    try:
        epochs: int | None = sum(int(length) for _, length in stages or ()) or None
    except (TypeError, ValueError):
        epochs = None
    epoch, accuracy = _history(path / "history.csv")
    return Unfinished(
        path, str(identity.get("method") or ""), seed if isinstance(seed, int) else None, epoch,
        epochs, accuracy,
    )  # fmt: skip


def _identity(path: Path) -> Mapping[str, Any]:
    try:
        found = load_plain(path)["identity"]
    except Exception:  # a damaged file raises nearly anything, and resuming reports it
        return {}
    return found if isinstance(found, Mapping) else {}


def _history(path: Path) -> tuple[int, float]:
    """Epochs that are done, and the accuracy at the last evaluation."""
    try:
        rows = read_table(path, HISTORY)
    except (OSError, ValueError):
        return 0, np.nan
    looks = rows.eval_accuracy.dropna()
    return len(rows), float(looks.iloc[-1]) if len(looks) else np.nan
