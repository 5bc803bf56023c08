"""Two runs side by side: the layers that both have, and whether their images can be paired."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from natstats.errors import UsageError
from natstats.law.differences import Differences, ErrorSource, depths_of
from natstats.runs.run import Run
from natstats.runs.tables import in_law

__all__ = ["Missing", "RunPair"]

SAME = ("band", "estimator", "normalize", "level", "depth")
"""Fit options that both runs must share for their exponents to be the same quantity."""

Missing = tuple[tuple[str, ...], tuple[str, ...]]
"""Names that only one of two runs has: of layers, and of rows of the images."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RunPair:
    """Two runs, and the layers that both have by name.

    Attributes:
        runs: A and B.
        common: names of the layers that both have, in the order of A.
        places: where these layers stand in A and in B, (L,) each.
        only: what only A has, and what only B has.
        unpaired: why the images cannot be paired; None when they can.
    """

    runs: tuple[Run, Run]
    common: tuple[str, ...]
    places: tuple[NDArray[np.int64], NDArray[np.int64]]
    only: tuple[Missing, Missing]
    unpaired: str | None

    @classmethod
    def of(cls, run_a: Run, run_b: Run) -> RunPair:
        """Put two runs side by side.

        Raises:
            UsageError: the runs were measured or fitted in different ways.
        """
        _refuse_other_quantity(run_a, run_b)
        by_name = [{m.layer.name: i for i, m in enumerate(run.spectra)} for run in (run_a, run_b)]
        common = tuple(name for name in by_name[0] if name in by_name[1])
        first, second = (
            np.array([place[name] for name in common], dtype=np.int64) for place in by_name
        )
        only = _missing(run_a, by_name[1]), _missing(run_b, by_name[0])
        unpaired = _why_not_paired(run_a, run_b, common, (first, second))
        return cls((run_a, run_b), common, (first, second), only, unpaired)

    @property
    def is_of_images(self) -> bool:
        """True where neither run has a layer: both are of images alone."""
        return not any(m.layer.kind != "input" for run in self.runs for m in run.spectra)

    def differences(self) -> Differences:
        """Exponents of B minus those of A, of the common layers."""
        exponents, deviations = [], []
        for run, own in zip(self.runs, self.places, strict=True):
            exponents.append(run.fits.exponents[own])
            deviations.append(run.fits.deviations[:, own] if len(own) else np.zeros((0, 0)))
        sources = (
            [ErrorSource(deviations[1] - deviations[0])]
            if self.unpaired is None
            else [ErrorSource(deviations[1]), ErrorSource(-deviations[0])]
        )
        return Differences(exponents[1] - exponents[0], sources, self.runs[0].options.level)

    def in_laws(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether the common layers are in the law of A, and in that of B, (L,) each."""
        first, second = (
            in_law(run.spectra, run.fits)[own]
            for run, own in zip(self.runs, self.places, strict=True)
        )
        return first, second

    def depths(self) -> tuple[Array, Array]:
        """Depths of the common layers in A and in B, (L,) each."""
        first, second = (
            depths_of(run.spectra, self.runs[0].options.depth)[own]
            for run, own in zip(self.runs, self.places, strict=True)
        )
        return first, second


def _missing(run: Run, names: Collection[str]) -> Missing:
    """Names that are not among these: of layers, and of rows of the images."""
    missing = [m.layer for m in run.spectra if m.layer.name not in names]
    return (
        tuple(layer.name for layer in missing if layer.kind != "input"),
        tuple(layer.name for layer in missing if layer.kind == "input"),
    )


def _refuse_other_quantity(run_a: Run, run_b: Run) -> None:
    edges = [sorted({m.spectrum.edges for m in run.spectra}) for run in (run_a, run_b)]
    if edges[0] != edges[1]:
        shown = " and ".join(", ".join(one) or "none" for one in edges)
        raise UsageError(
            f"edges: expected the same in both runs, or their exponents are not the same quantity; "
            f"got {shown} (edges are treated as images are measured: measure one of them again)"
        )
    for name in SAME:
        first, second = (run.options.to_dict()[name] for run in (run_a, run_b))
        if first != second:
            raise UsageError(
                f"{name}: expected the same in both runs, or they are not the same quantity; got "
                f"{first!r} and {second!r} (`natstats fit` brings them together)"
            )


def _why_not_paired(
    run_a: Run, run_b: Run, common: Sequence[str], chosen: Sequence[np.ndarray]
) -> str | None:
    """Why the images of two runs cannot be paired; None when they can."""
    images = [run.info.get("images") or {} for run in (run_a, run_b)]
    # Runs before version 0.3.0 recorded names and sizes, not contents, under the name digest.
    know = all(one.get("contents") for one in images)
    digests = [one["contents"] if know else one.get("listing", one.get("digest")) for one in images]
    if None in digests:
        return "a run does not record which images it saw"
    if digests[0] != digests[1]:
        return "the runs saw different images, or in another numbering"
    if not common:
        return "no layer bears the same name in both"
    counts = [
        [run.spectra[place].spectrum.count for place in own]
        for run, own in zip((run_a, run_b), chosen, strict=True)
    ]
    if len(counts[0][0]) != len(counts[1][0]):
        return "the runs have different numbers of groups of images"
    # One layer with equal counts is enough: others may have left out images not finite there.
    if not any(map(np.array_equal, *counts)):
        return "the runs could not read the same images"
    return None
