"""The spectral gap: how far the student's spectra are from the teacher's, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from natstats.activations.hooks import undisturbed
from natstats.distill.losses.ring_comparison import RingComparison, exponent_of, log_power
from natstats.distill.method import TapPoint
from natstats.distill.pairing import TapSides, pair_taps
from natstats.distill.taps import Taps
from natstats.distill.traces import Traces
from natstats.errors import NatstatsError
from natstats.spectra.accumulator import power_spectrum

__all__ = ["SMALLEST", "GapMeasurement", "gap_pairs", "gap_rows", "mean_spectra"]

SMALLEST = 6
"""Side of the smallest maps that are compared, pixels: three rings."""


def gap_pairs(
    student: nn.Module, teacher: nn.Module, image: Tensor, traces: Traces | None = None
) -> TapSides:
    """The layers whose spectra are compared, the same for every method: the ends of the groups.

    Args:
        student: a classifier.
        teacher: a classifier.
        image: (1, 3, H, W).
        traces: results of passes traced before, which are reused and added to; None for none.

    Returns:
        Taps in student and teacher; none where nothing corresponds, or where autograd cannot
        follow one of the networks.
    """
    try:
        return pair_taps(student, teacher, image, "groups", "post", SMALLEST, traces)
    except NatstatsError:  # nothing corresponds, or autograd cannot follow a network
        return (), ()


def mean_spectra(
    model: nn.Module,
    points: Sequence[TapPoint],
    batches: Iterable[Tensor],
    traces: Traces | None = None,
) -> list[Tensor]:
    """Natural logarithm of the ring power at the taps, mean over images, (1, n_rings) each.

    Args:
        model: runs in eval mode; its mode is restored.
        points: taps in it.
        batches: images as the model takes them, (N, 3, H, W); at least one image in all.
        traces: results of passes traced before, which are reused and added to; None for none.
    """
    sums: dict[str, Tensor] = {}
    n_images = 0
    names = [point.name for point in points]
    taps: Taps | None = None
    with undisturbed(model), torch.no_grad():
        for images in batches:
            taps = taps or Taps(model, names, images[:1], traces)
            with taps:
                model(images)
            tapped = taps.take()
            n_images += len(images)
            for name in names:
                power = power_spectrum(tapped[name].float()).double().sum(0, keepdim=True)
                sums[name] = sums[name] + power if name in sums else power
    return [log_power(sums[name] / n_images).float().cpu() for name in names]


def gap_rows(
    pairs: TapSides, teacher: Sequence[Tensor], before: Sequence[Tensor], after: Sequence[Tensor]
) -> list[dict[str, Any]]:
    """Exponents and distances at every pair of taps, before and after training.

    Args:
        pairs: taps in student and teacher.
        teacher: the teacher's spectra, from :func:`mean_spectra`.
        before: the student's, before training.
        after: the student's, after it.

    Returns:
        A record for each pair. A distance is the root mean square difference of the log10 ring
        spectra at common frequencies, octave weighted, after subtracting their levels.
    """
    rows = []
    for place, (mine, theirs) in enumerate(zip(*pairs, strict=True)):
        sizes = (mine.height, mine.width), (theirs.height, theirs.width)
        comparison = RingComparison(*sizes)
        goal = comparison.common(teacher[place], "teacher")
        row: dict[str, Any] = {
            "student_layer": mine.name,
            "teacher_layer": theirs.name,
            "height": mine.height,
            "width": mine.width,
            "exponent_teacher": float(exponent_of(teacher[place], *sizes[1])),
        }
        for when, spectra in (("before", before), ("after", after)):
            row[f"exponent_{when}"] = float(exponent_of(spectra[place], *sizes[0]))
        for when, spectra in (("before", before), ("after", after)):
            own = comparison.common(spectra[place], "student")
            squared = comparison.distance(own, goal, "free")  # the shape, whatever the gain
            row[f"distance_{when}"] = math.sqrt(float(squared)) / math.log(10)
        rows.append(row)
    return rows


class GapMeasurement:
    """The spectral gap of a student, measured before its training and, by :meth:`rows`, after it.

    Args:
        student: the student, not trained yet.
        teacher: its teacher; None for none, which leaves no gap.
        images: gives batches of images as the networks take them, the same at every call.
        traces: results of passes traced before, which are reused and added to; None for none.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None,
        images: Callable[[], Iterator[Tensor]],
        traces: Traces | None = None,
    ) -> None:
        self._student, self._images = student, images
        self._traces = traces or Traces()
        self._pairs: TapSides = ((), ())
        if teacher is None:
            return
        self._pairs = gap_pairs(student, teacher, next(images())[:1], self._traces)
        if self._pairs[0]:
            self._teacher = mean_spectra(teacher, self._pairs[1], images(), self._traces)
            self._before = mean_spectra(student, self._pairs[0], images(), self._traces)

    def rows(self) -> list[dict[str, Any]]:
        """Records as from :func:`gap_rows`; none where there is no gap to measure."""
        if not self._pairs[0]:
            return []
        after = mean_spectra(self._student, self._pairs[0], self._images(), self._traces)
        return gap_rows(self._pairs, self._teacher, self._before, after)
