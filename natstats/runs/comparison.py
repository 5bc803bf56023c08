"""Two runs compared, layer by layer and as laws: what differs, and by more than chance?

Layers are compared by name. Where both runs saw the same images in the same numbering the
comparison is paired: an image that moves an exponent in one run moves it in the other, and the
deviations of the difference are the differences of the deviations. Else the variances add
(:mod:`natstats.law.differences`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from natstats._version import __version__
from natstats.files.csv_files import write_csv
from natstats.files.paths import expanded, way_from
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.differences import (
    Differences,
    Estimate,
    holm,
    layers_text,
    slopes_apart,
)
from natstats.law.law import format_p
from natstats.law.trend import SIGNIFICANCE
from natstats.report.records import ComparisonReport, DifferenceReport
from natstats.runs import store
from natstats.runs.comparison_notes import law_notes, pairing_notes, setting_notes
from natstats.runs.pairing import RunPair
from natstats.runs.run import Run
from natstats.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes


__all__ = ["VERDICTS", "Comparison", "compare"]

FORMAT = 1
"""Number of the format of ``comparison.json``."""

VERDICTS = ("differs", "not found to differ", "the same", "not comparable")
"""Verdicts on two runs."""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """What differs between a run B and a run A; every difference is B minus A.

    Attributes:
        names: names of A and of B.
        layers: table with a row for each layer of this name in both runs: layer, kind, depth,
            exponent_a, low_a, high_a, exponent_b, low_b, high_b, difference, low, high, p,
            p_corrected (Holm), flags.
        only: names of the layers that only A has, and of those that only B has.
        mean: difference in the mean over the layers that count; of runs of images alone, over
            the rows of their images.
        slope: difference of the slopes of the two laws, over the layers that are in both.
        n_layers: layers that count: those with an exponent in both that is not beyond range. The
            images (``input``, ``input.grey``, ``input.colour``) have rows, but are no layers.
        n_differ: how many of them differ at 5 % after correction for their number.
        is_paired: both runs saw the same images in the same numbering.
        level: level of the intervals.
        depth: name of the measure of depth, see :data:`natstats.fits.depth_axes.DEPTH_AXES`.
        notes: how it was compared, in sentences.
        runs: A and B; None of a comparison that was read from files.
    """

    names: tuple[str, str]
    layers: pd.DataFrame
    only: tuple[tuple[str, ...], tuple[str, ...]]
    mean: Estimate
    slope: Estimate
    n_layers: int
    n_differ: int
    is_paired: bool
    level: float
    depth: str
    notes: tuple[str, ...]
    runs: tuple[Run, Run] | None = None

    @property
    def verdict(self) -> str:
        """One of :data:`VERDICTS`."""
        if np.isfinite(self.mean.value) and not self._counted.difference.fillna(0).any():
            return "the same"
        if not self.n_layers and not np.isfinite([self.mean.value, self.slope.value]).any():
            return "not comparable"
        found = self.n_differ > 0 or min(self.mean.p, self.slope.p) < SIGNIFICANCE
        return "differs" if found else "not found to differ"

    @property
    def headline(self) -> str:
        """The verdict with both names."""
        first, second = self.names
        return {
            "the same": f"{second} has exactly the exponents of {first}",
            "not comparable": f"Nothing of {first} and {second} could be compared",
            "differs": f"{second} differs from {first}",
            "not found to differ": f"{second} was not found to differ from {first}",
        }[self.verdict]

    @property
    def _counted(self) -> pd.DataFrame:
        """The rows that the verdict is on: of layers, or of images where there are no others."""
        return self.layers if self._is_of_images else self.layers[self.layers.kind != "input"]

    def sentence(self) -> str:
        """The verdict in words, with the numbers that it rests on."""
        first, second = self.names
        if self.verdict == "the same":
            return f"The exponents of {second} are exactly those of {first}."
        evidence = f"({100 * self.level:g} % interval; p {format_p(self.mean.p)})"
        parts = []
        if self.n_layers:
            parts += [
                f"exponent {self.mean.text()} in the mean over {layers_text(self.n_layers)} "
                f"{evidence}",
                f"{self.n_differ} of {layers_text(self.n_layers)} "
                f"{'differs' if self.n_differ == 1 else 'differ'} after Holm's correction",
            ]
        elif np.isfinite(self.mean.value):
            parts.append(f"exponent of the images {self.mean.text()} {evidence}")
        if np.isfinite(self.slope.value):
            parts.append(
                f"difference of the slopes {self.slope.text()} {DEPTH_AXES[self.depth].per} "
                f"(p {format_p(self.slope.p)})"
            )
        if not parts or (not self.n_layers and not self._is_of_images):
            parts.insert(0, self._hindrance(self._counted))
        return f"{self.headline}: {', '.join(parts)}."

    def sentences(self) -> list[str]:
        """The verdict as a list of one."""
        return [self.sentence()]

    @property
    def _is_of_images(self) -> bool:
        """True where neither run has a layer: both are of images alone."""
        return bool((self.layers.kind == "input").all()) and not any(self.only)

    def _hindrance(self, rows: pd.DataFrame) -> str:
        """Why no layer was compared."""
        kind = "row of the images" if self._is_of_images else "layer"
        if rows.empty:
            return f"no {kind} bears the same name in both"
        return f"no {kind} of the same name has an exponent in both"

    def __repr__(self) -> str:
        told = self.sentence().partition(", difference of the slopes")[0].removesuffix(".")
        return f"<Comparison: {printable(told)}>"

    def _repr_html_(self) -> str:
        from natstats.report.notebook import difference_html

        return difference_html(self.report())

    def report(self) -> DifferenceReport:
        """Everything that its figure and the page of a series show."""
        return DifferenceReport(self.names, self.layers, self.sentence(), self.notes, self.headline)

    def page(self) -> ComparisonReport:
        """Everything that its own page shows."""
        assert self.runs is not None
        first, second = self.runs
        return ComparisonReport(
            difference=self.report(),
            headline=self.headline,
            runs=(first.report(), second.report()),
            paths=(first.path, second.path),
            only=self.only,
            mean=self.mean,
            slope=self.slope,
            n_layers=self.n_layers,
            n_differ=self.n_differ,
            is_paired=self.is_paired,
        )

    def table(self, rows: int | None = None, width: int | None = None, how: str = "") -> str:
        """The layers as aligned text; from more than `rows` layers, evenly spaced ones.

        Args:
            rows: at most so many.
            width: of the terminal; None for as wide as it takes.
            how: command that shows all rows, for the last line; empty for none.
        """
        from natstats.runs.comparison_table import text_of_layers

        return text_of_layers(self.names, self.layers, rows, width, how)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the layers are a table of their own."""
        kept = {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if one.name not in ("layers", "runs")
        }
        kept |= {"mean": asdict(self.mean), "slope": asdict(self.slope)}
        return {
            "format": FORMAT,
            **kept,
            "verdict": self.verdict,
            "sentence": self.sentence(),
            "versions": {"natstats": __version__},
        }

    def plot(self, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
        """Draw it, see :func:`natstats.report.figures.difference.plot_difference`."""
        from natstats.report.figures.difference import plot_difference

        return plot_difference(self.report(), axes)

    @classmethod
    def open(cls, path: str | Path) -> Comparison:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: `path` is not a comparison.
            NatstatsError: it is damaged or of a newer format.
        """
        from natstats.runs.stored_results import open_comparison

        return open_comparison(path)

    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        report: bool = True,
        command: str = "",
    ) -> Path:
        """Write ``comparison.json``, ``comparison.csv``, figures and page, all of them or none.

        Args:
            path: of the directory.
            overwrite: replace the comparison that is there.
            report: draw the figures and write the page.
            command: command line that made it, for the page.

        Raises:
            UsageError: something is at `path`, and it is not a comparison or `overwrite` is not
                set.
            NatstatsError: it cannot be written.
        """
        path = expanded(path, "out")
        with store.write_directory(path, overwrite, "comparison") as folder:
            runs = self.runs or ()
            record = {
                **self.to_dict(),
                "runs": [None if run.path is None else str(run.path) for run in runs],
                "runs_from_here": [way_from(path, run.path) for run in runs],
                "made_by": [run.info.get("command") for run in runs],
                "command": command or None,
            }
            (folder / "comparison.json").write_text(store.to_json(record), encoding="utf-8")
            write_csv(self.layers, folder / "comparison.csv")
            if report and self.runs is not None:
                from natstats.report.pages.comparison import write_comparison_report

                write_comparison_report(folder, self.page(), path, command)
        return path


def compare(run_a: Run, run_b: Run, names: tuple[str, str] | None = None) -> Comparison:
    """Compare run B with run A.

    Args:
        run_a: the run that is subtracted.
        run_b: the run that it is subtracted from.
        names: what to call them; by default what the runs are called.

    Returns:
        Differences B minus A, of every layer that both have by name and of the two laws.

    Raises:
        UsageError: the runs were measured or fitted in different ways.

    >>> import natstats
    >>> steep, flat = (
    ...     natstats.measure_images(natstats.power_law_fields(64, 16, 16, alpha, seed=0)[:, None])
    ...     for alpha in (2.5, 1.5)
    ... )
    >>> found = compare(flat, steep)
    >>> bool(found.layers.low[0] < 1.0 < found.layers.high[0])
    True
    """
    pair = RunPair.of(run_a, run_b)
    differences = pair.differences()
    frame = _frame(pair, differences)
    good = np.isfinite(frame.p) & ~frame["flags"].str.contains("beyond range")
    counted = [int(row) for row in np.flatnonzero(good & (frame.kind != "input"))]
    averaged = [int(row) for row in np.flatnonzero(good)] if pair.is_of_images else counted
    frame.loc[counted, "p_corrected"] = holm(frame.p.to_numpy()[counted])
    both = np.logical_and(*pair.in_laws())
    placed = [row for row in counted if both[row]]
    slope, by_layer = _slope(pair, differences, placed)
    left_out = [str(frame.layer[row]) for row in counted if not both[row]]
    return Comparison(
        names=names or _names(run_a, run_b),
        layers=frame,
        only=(pair.only[0][0], pair.only[1][0]),
        mean=differences.mean(averaged),
        slope=slope,
        n_layers=len(counted),
        n_differ=int(np.sum(frame.p_corrected < SIGNIFICANCE)),
        is_paired=pair.unpaired is None,
        level=run_a.options.level,
        depth=run_a.options.depth,
        notes=(
            *_same_run(run_a, run_b),
            *setting_notes([run_a.info, run_b.info]),
            *pairing_notes(frame, pair.only, pair.unpaired, slope, by_layer),
            *law_notes(pair, left_out if np.isfinite(slope.value) else []),
        ),
        runs=(run_a, run_b),
    )


def _slope(pair: RunPair, differences: Differences, placed: Sequence[int]) -> tuple[Estimate, bool]:
    """Difference of the slopes of the two laws, and whether it is over the same layers.

    Args:
        pair: the runs.
        differences: of their common layers.
        placed: those of them that are in both laws.
    """
    first, second = pair.depths()
    places = list(placed)
    slope = Estimate()
    if np.array_equal(first[places], second[places], equal_nan=True):
        slope = differences.slope(first, places)
    if np.isfinite(slope.value):
        return slope, True
    run_a, run_b = pair.runs
    return slopes_apart(run_a.law, run_b.law, run_a.options.level), False


def _frame(pair: RunPair, differences: Differences) -> pd.DataFrame:
    """A row for every common layer, see :attr:`Comparison.layers`; p is not corrected yet."""
    rows, (run_a, run_b) = [], pair.runs
    for place_a, place_b, difference in zip(*pair.places, differences.each(), strict=True):
        layer, fit_a, fit_b = (
            run_a.spectra[place_a].layer,
            run_a.fits.layers[place_a],
            run_b.fits.layers[place_b],
        )
        rows.append(
            {
                "layer": layer.name,
                "kind": layer.kind,
                "depth": layer.depth,
                "exponent_a": fit_a.exponent,
                "low_a": fit_a.low,
                "high_a": fit_a.high,
                "exponent_b": fit_b.exponent,
                "low_b": fit_b.low,
                "high_b": fit_b.high,
                "difference": fit_b.exponent - fit_a.exponent,
                "low": difference.low,
                "high": difference.high,
                "p": difference.p,
                "p_corrected": np.nan,
                "flags": "; ".join(dict.fromkeys((*fit_a.flags, *fit_b.flags))),
            }
        )
    ends = [f"{name}_{run}" for run in "ab" for name in ("exponent", "low", "high")]
    numbers = [*ends, "difference", "low", "high", "p", "p_corrected"]
    frame = pd.DataFrame(rows, columns=["layer", "kind", "depth", *numbers, "flags"])
    return frame.astype(dict.fromkeys(numbers, np.float64) | {"flags": str})


def _names(run_a: Run, run_b: Run) -> tuple[str, str]:
    if run_a.name != run_b.name:
        return run_a.name, run_b.name
    return f"{run_a.name} (A)", f"{run_b.name} (B)"


def _same_run(run_a: Run, run_b: Run) -> list[str]:
    """A note where both are one run."""
    paths = [None if run.path is None else run.path.resolve() for run in (run_a, run_b)]
    is_same = run_a is run_b or (paths[0] is not None and paths[0] == paths[1])
    return ["A and B are the same run, and nothing can differ."] if is_same else []
