"""What a training gives besides the student: history, gradients and times."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Trained"]


@dataclass
class Trained:
    """What a training has given besides the student.

    Attributes:
        history: a record per epoch.
        gradients: a record per epoch and term.
        step_seconds: mean time of a step of each epoch of the main stage.
        seconds: time of training and evaluation, over all sittings.
        n_sittings: number of sittings; 1 for a training that was never interrupted.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    gradients: list[dict[str, Any]] = field(default_factory=list)
    step_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    n_sittings: int = 1

    @property
    def ms_per_step(self) -> float:
        """Median over the epochs of the main stage, ms; NaN where none ran in one sitting."""
        return 1000 * statistics.median(self.step_seconds) if self.step_seconds else math.nan
