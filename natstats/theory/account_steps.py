"""From the plan of an account to its record: steps, sizes, spans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from natstats.spectra.frequencies import extent
from natstats.theory.account_spectra import Step
from natstats.theory.moments import MomentSums
from natstats.theory.predictions import Predictions, in_words
from natstats.theory.trunk import MeasuredValue, PlannedStep

__all__ = ["STATE_KEYS", "adds_alike", "recorded_step", "size_of", "span_of"]

STATE_KEYS = ("by_modules", "sums", "moments", "n_left_out", "next_index")
"""Names in the state of a pass that makes an account."""


def size_of(value: MeasuredValue) -> tuple[int, int]:
    """Height and width of the maps of a value, pixels."""
    height, width = value.layout.grid
    return height, width


def span_of(value: MeasuredValue, image_side: int) -> float:
    """Share of the image that maps cover; 1 where it is not known."""
    span = extent(*value.layout.grid) * value.pitch / image_side
    return span if np.isfinite(span) else 1.0


def adds_alike(step: PlannedStep, values: Sequence[MeasuredValue]) -> bool:
    """Whether a step adds or subtracts two measured values, both of the size of the result."""
    own = [values[n] for n in (step.before, *step.others, step.after)]
    shapes = {(*size_of(value), value.channels) for value in own}
    alpha = 1 if step.operation is None else step.operation.arguments.get("alpha", 1)
    return len(step.others) == 1 and len(shapes) == 1 and alpha in (1, -1)


def recorded_step(
    step: PlannedStep,
    values: tuple[MeasuredValue, ...],
    states: list[int],
    made: Predictions,
    moments: dict[int, MomentSums],
) -> Step:
    """A step as an account keeps it.

    Args:
        step: the step.
        values: all that are measured.
        states: number of the state of each value.
        made: what was predicted of the step.
        moments: of the activation functions, by the value that they make.
    """
    after = values[step.after]
    module = "" if after.place is None else after.place.module
    return Step(
        name=after.name,
        kind=step.kind,
        operation=in_words(step.operation, step.kind),
        module=module,
        layers=after.layers,
        depth=after.depth,
        before=states[step.before],
        after=states[step.after],
        is_trunk=step.is_trunk,
        predictions=dict(made.states),
        kernel_exponent=made.kernel_exponent,
        shuffled_exponent=made.shuffled_exponent,
        gaussian=moments[step.after].result() if step.after in moments else None,
    )
