"""Spectral distillation: the student's activation maps take on the teacher's spectra.

Rotman and Wolf (2021) report two spectral loss terms; their formulas are not open to us. Two terms
are an independent reading, on the power spectra that natstats measures:

* *spectrum*: the squared distance of the log ring spectra of teacher and student at matched layers,
  image by image, at common frequencies in cycles/image, every octave alike;
* *exponent*: the squared distance of the exponents fitted to them.

A power spectrum is averaged over channels, so that channels need no matching and no connector is
trained, and it says nothing of where a structure is. A third term, not of the paper, does:

* *coherence*: one minus the correlation of the Fourier coefficients in each ring, after a 1 x 1
  convolution from the student's channels to the teacher's
  (:class:`natstats.distill.losses.controls.Coherence`).

Other terms are off by default: spectra channel by channel
(:mod:`natstats.distill.losses.channels`), controls that show what the power spectrum does by itself
(:mod:`natstats.distill.losses.controls`), and two terms that compare images with each other
(*relative*, here, and :mod:`natstats.distill.losses.likeness`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor

from natstats import checks
from natstats.distill.losses import controls
from natstats.distill.losses.channels import ChannelSpectra
from natstats.distill.losses.likeness import Likeness
from natstats.distill.losses.maps import LAYERS, layer_weights, mean_over_pairs, paired_taps
from natstats.distill.losses.ring_comparison import WEIGHTINGS, RingComparison, ring_comparisons
from natstats.distill.losses.teacher_run import Target, targets_of
from natstats.distill.method import (
    DistillationLoss,
    Method,
    Outputs,
    Plan,
    Setting,
    TapPoint,
    Term,
    float_maps,
)
from natstats.errors import UsageError
from natstats.spectra.edge_names import Edges
from natstats.spectra.edges import EDGES
from natstats.spectra.precision import full_precision

__all__ = ["LEVELS", "METHOD", "ExponentDistance", "RelativeDistance", "SpectrumDistance"]

LEVELS = ("free", "kept")
"""Whether the overall power of the maps is left to the student or compared."""

CHOICES = {"edges": EDGES, "level": LEVELS, "weighting": WEIGHTINGS, "layers": LAYERS}
"""Arguments with a fixed list of values."""

ENDS = {"deep": "last", "shallow": "first"}

OF_MAPS = ("channels", *controls.CONTROLS, "relative", "likeness")
"""Terms that compare maps, under the sine taper; a measured run has no maps."""


class _Spectra:
    """Log ring spectra shared by two terms: the first computes them, the second takes them.

    Nothing is held after that, so that no graph outlives its step.
    """

    def __init__(self) -> None:
        self._left: tuple[tuple[Tensor, ...], list[tuple[Tensor, Tensor]]] | None = None

    def of(
        self, maps: tuple[Tensor, ...], make: Callable[[], list[tuple[Tensor, Tensor]]]
    ) -> list[tuple[Tensor, Tensor]]:
        """What `make` gives; of two calls with the same maps only the first runs it."""
        left, self._left = self._left, None
        if left is not None and all(a is b for a, b in zip(left[0], maps, strict=True)):
            return left[1]
        made = make()
        self._left = maps, made
        return made


class _RingLoss(DistillationLoss):
    """Mean over the pairs of taps of a distance between log ring spectra.

    Args:
        student: taps in the student.
        teacher: taps in the teacher.
        edges: edge treatment.
        targets: from a measured run of the teacher, one for each tap; the student's mean over the
            batch is compared with them, and a teacher's maps are ignored.
        shared: held in common by two terms on the same taps, which then transform their maps once.
        weighting: of the frequencies, see
            :func:`natstats.distill.losses.ring_comparison.frequency_weights`.
    """

    _means = ""

    pair_weights: tuple[float, ...] | None = None
    """Weights of the pairs, see :func:`natstats.distill.losses.maps.layer_weights`."""

    def __init__(
        self,
        student: Sequence[TapPoint],
        teacher: Sequence[TapPoint],
        edges: Edges = "sine",
        targets: Sequence[Target] | None = None,
        shared: _Spectra | None = None,
        weighting: str = "octave",
    ) -> None:
        super().__init__()
        self.needs_teacher = targets is None
        self.reduction = f"mean over {self._means}images and pairs"
        if targets is not None:
            self.reduction = f"mean over {self._means}pairs, of the batch's mean spectrum"
        self._shared = shared
        self.comparisons = ring_comparisons(student, teacher, edges, weighting)
        for place, target in enumerate(targets or ()):
            self.register_buffer(f"_target_{place}", target.log_power, persistent=False)

    def distance(self, comparison: RingComparison, student: Tensor, teacher: Tensor) -> Tensor:
        """Distance of log ring spectra, (N, n_rings) each, at their own frequencies -> (N,)."""
        raise NotImplementedError

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        """The loss, a scalar in float32."""
        expected = len(self.comparisons)
        if len(student.maps) != expected or (self.needs_teacher and len(teacher.maps) != expected):
            raise UsageError(
                f"maps: expected {expected} of student and teacher; got {len(student.maps)} and "
                f"{len(teacher.maps)}"
            )
        with full_precision(student.maps[0].device):

            def make() -> list[tuple[Tensor, Tensor]]:
                return self._spectra(student, teacher)

            both = (*student.maps, *teacher.maps)
            spectra = make() if self._shared is None else self._shared.of(both, make)
            distances = [
                self.distance(cast("RingComparison", comparison), *pair).mean()
                for comparison, pair in zip(self.comparisons, spectra, strict=True)
            ]
            return mean_over_pairs(distances, self.pair_weights)

    def _spectra(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        """Log ring spectra of student and teacher at every pair of taps."""
        found = []
        theirs_of = float_maps(teacher) if self.needs_teacher else ()
        for place, maps in enumerate(float_maps(student)):
            comparison = cast("RingComparison", self.comparisons[place])
            if self.needs_teacher:
                with torch.no_grad():
                    theirs = comparison.spectrum(theirs_of[place], "teacher")
            else:
                theirs = cast("Tensor", getattr(self, f"_target_{place}"))
            mine = comparison.spectrum(maps, "student", theirs)
            if not self.needs_teacher:
                # A run holds only the mean over its images, so the mean over the batch is compared.
                mine = mine.logsumexp(dim=0, keepdim=True) - math.log(len(mine))
            found.append((mine, theirs))
        return found


class SpectrumDistance(_RingLoss):
    """The term *spectrum*: squared distance of the log ring spectra of matched layers.

    For an image, with S and T the ring power of student and teacher at the common frequencies f,
    and d(f) = log S(f) - log T(f): sum_f w(f) (d(f) - m)^2, w proportional to 1 / f with sum 1, or
    another weighting. The level m is 0 (``level="kept"``) or the mean of d under w (``"free"``),
    which leaves the gain of its maps to the student. Mean over images, and over the pairs of taps.

    Example:
        >>> point = TapPoint("layer", 4, 16, 16)
        >>> loss = SpectrumDistance([point], [point], level="free")
        >>> maps = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> same = Outputs(torch.zeros(2, 3), (3 * maps,))
        >>> bool(loss(same, Outputs(torch.zeros(2, 3), (maps,)), torch.zeros(2)) < 1e-9)
        True
    """

    _means = "octaves, "

    def __init__(
        self,
        student: Sequence[TapPoint],
        teacher: Sequence[TapPoint],
        edges: Edges = "sine",
        targets: Sequence[Target] | None = None,
        level: str = "kept",
        shared: _Spectra | None = None,
        weighting: str = "octave",
    ) -> None:
        super().__init__(student, teacher, edges, targets, shared, weighting)
        self.level = checks.one_of("level", level, LEVELS)

    def distance(self, comparison: RingComparison, student: Tensor, teacher: Tensor) -> Tensor:
        """Squared distance at the common frequencies, (N,)."""
        mine = comparison.common(student, "student")
        return comparison.distance(mine, comparison.common(teacher, "teacher"), self.level)


class RelativeDistance(_RingLoss):
    """The term *relative*: which images have more power than others, and at which frequencies.

    With s and t the logarithms of the ring power of student and teacher, less their means over the
    batch: sum_f w(f) mean_i (s_i(f) - t_i(f))^2 / (mean_i t_i(f)^2 + 0.01). What all images share
    is left to the student; a student that does not tell them apart is at distance 1. The constant
    is 0.1 squared, a spread of about a tenth of the power: a smaller spread of the teacher counts
    as none. Mean over the pairs of taps.

    Example:
        >>> point = TapPoint("layer", 4, 16, 16)
        >>> loss = RelativeDistance([point], [point])
        >>> maps = torch.randn(5, 4, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> same = Outputs(torch.zeros(5, 3), (3 * maps,))
        >>> bool(loss(same, Outputs(torch.zeros(5, 3), (maps,)), torch.zeros(5)) < 1e-9)
        True
    """

    _means = "frequencies, "

    def __init__(
        self,
        student: Sequence[TapPoint],
        teacher: Sequence[TapPoint],
        weighting: str = "octave",
    ) -> None:
        super().__init__(student, teacher, weighting=weighting)

    def distance(self, comparison: RingComparison, student: Tensor, teacher: Tensor) -> Tensor:
        """Squared distance relative to the teacher's spread, (N,)."""
        mine = comparison.common(student, "student")
        theirs = comparison.common(teacher, "teacher")
        mine, theirs = mine - mine.mean(0), theirs - theirs.mean(0)
        relative = (mine - theirs).square() / (theirs.square().mean(0) + 0.01)
        return relative @ comparison.weights.to(relative.dtype)


class ExponentDistance(_RingLoss):
    """The term *exponent*: squared distance of the fitted exponents of matched layers.

    Mean over images, and over the pairs of taps; see
    :func:`natstats.distill.losses.ring_comparison.exponent_of`.

    >>> taps = [TapPoint("layer", 4, 16, 16)]
    >>> outputs = Outputs(torch.zeros(2, 3), (torch.randn(2, 4, 16, 16),))
    >>> float(ExponentDistance(taps, taps)(outputs, outputs, torch.zeros(2))) < 1e-4
    True
    """

    def distance(self, comparison: RingComparison, student: Tensor, teacher: Tensor) -> Tensor:
        """Squared distance of the exponents, (N,)."""
        theirs = comparison.exponent(teacher, "teacher")
        return (comparison.exponent(student, "student") - theirs).square()


def _plan(setting: Setting) -> Plan:
    arguments = setting.arguments
    paired_taps("spectral", setting)
    edges, level, weighting, layers = (
        checks.one_of(f"method argument spectral.{name}", arguments[name], known)
        for name, known in CHOICES.items()
    )
    for name in ("weight", "spectrum", "exponent", *OF_MAPS):
        checks.finite(f"spectral.{name}", arguments[name], least=0)
    factor = arguments["weight"]
    targets: list[Target] | None = None
    if setting.teacher_run is not None:
        targets = targets_of(setting.teacher_run, setting.teacher, edges)
    pair = setting.student, setting.teacher
    shared = _Spectra() if arguments["spectrum"] and arguments["exponent"] else None
    losses: dict[str, DistillationLoss] = {
        "spectrum": SpectrumDistance(*pair, edges, targets, level, shared, weighting),
        "exponent": ExponentDistance(*pair, edges, targets, shared),
    }
    notes = _notes(weighting, layers)
    for name in OF_MAPS:
        if arguments[name] == 0:
            continue
        if why := _left_out(name, arguments[name], edges, targets is not None):
            notes += (why,)
        else:
            losses[name] = _of_maps(name, pair, weighting)
    for loss in losses.values():
        loss.pair_weights = layer_weights(layers, len(setting.student))  # type: ignore[assignment]
    terms = tuple(
        Term(f"spectral.{name}", loss, factor * arguments[name])
        for name, loss in losses.items()
        if arguments[name] != 0
    )
    if not terms:
        raise UsageError("method spectral: expected one term with a weight other than 0; got none")
    return Plan(terms, ce_weight=1.0, notes=notes)


def _left_out(name: str, weight: float, edges: str, is_run: bool) -> str:
    """Why a term of maps is left out; empty if it is not.

    It is left out only at its default weight: what was asked for by itself is an error.

    Raises:
        UsageError: another weight was given.
    """
    if edges != "sine":
        error = f"method argument spectral.edges: expected sine beside spectral.{name}; got {edges}"
        why = f"its taper is the sine, and spectral.edges is {edges}"
    elif is_run:
        error = (
            f"method argument spectral.{name}: expected 0 beside a teacher run, which has ring "
            f"spectra only; got {weight:g}"
        )
        why = "a teacher run has ring spectra only"
    else:
        return ""
    if weight != METHOD.defaults[name]:
        raise UsageError(error)
    return f"spectral: {name} is left out; {why}"


def _of_maps(
    name: str, pair: tuple[Sequence[TapPoint], Sequence[TapPoint]], weighting: str
) -> DistillationLoss:
    """The loss of a term that compares maps."""
    if name == "channels":
        return ChannelSpectra(*pair, weighting)
    if name == "relative":
        return RelativeDistance(*pair, weighting)
    return Likeness(*pair) if name == "likeness" else controls.CONTROLS[name](*pair)


def _notes(weighting: str, layers: str) -> tuple[str, ...]:
    """Notes on settings that differ from the defaults."""
    notes = []
    if weighting != "octave":
        notes.append(
            f"spectral: weighting={weighting} of the frequencies in spectrum, channels and relative"
        )
    if layers != "equal":
        notes.append(f"spectral: layers={layers}, pairs halved from the {ENDS[layers]}")
    return tuple(notes)


METHOD = Method(
    name="spectral",
    title="Spectra",
    paper="ours, after the abstract of Rotman and Wolf 2021, arXiv 2106.00368; coherence is not of "
    "the paper",
    reduction="mean over octaves (spectrum, coherence), images and pairs",
    defaults={
        "weight": 3.0,
        "spectrum": 1.0,
        "exponent": 0.1,
        **dict.fromkeys(OF_MAPS, 0.0),
        "coherence": 10.0,
        "place": "groups",
        "activation": "post",
        "level": "kept",
        "edges": "sine",
        "weighting": "octave",
        "layers": "equal",
        "skip_last": 0.0,
    },
    plan=_plan,
    connectors="1 x 1 convolution, for coherence only",
    place="groups",
    activation="post",
    smallest=6,
)
