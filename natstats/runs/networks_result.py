"""What a meta-analysis found: in words, as a table, as files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from natstats._version import __version__
from natstats.files.csv_files import write_csv
from natstats.files.paths import expanded, way_from
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.law.law import format_p
from natstats.law.meta_analysis import Contrast, Pooled
from natstats.law.shape_agreement import ShapeAgreement
from natstats.law.trend import SIGNIFICANCE, SMALL_CHANGE
from natstats.numbers import change, counted, estimate_cells, interval, number
from natstats.report.records import ALL, CONTROL, NetworksReport
from natstats.runs import store
from natstats.runs.tables import evenly, left_out
from natstats.runs.text_columns import Column, fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["VERDICTS", "MetaAnalysis"]

FORMAT = 1
"""Number of the format of ``meta_analysis.json``."""

VERDICTS = ("rises", "falls", "no trend", "too little to tell")
"""Verdicts on many networks."""

FEWEST_NETWORKS = 3
"""With fewer networks than this the verdict is ``too little to tell``."""

RECORD = "meta_analysis.json"

_COLUMNS = (
    Column("network", True, cut="name"), Column("subgroup", True, -1, "text"), Column("slope"),
    Column("interval"), Column("weight", rank=1),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class MetaAnalysis:
    """What the laws of many networks have in common.

    Attributes:
        networks: a row for each network: network, path, model, family, weights, trained, images,
            subgroup, verdict (that of the run by itself), n_layers, deepest, slope, slope_low,
            slope_high, slope_error, weight per unit of depth and dof; slope_whole and so on over
            the whole depth; random_slope and random_slope_whole (mean over n_seeds of random
            weights), difference, difference_low, difference_high and difference_whole (trained
            minus random); digest.
        subgroups: a row for each group and each of the two slopes: unit (``depth`` or ``whole``),
            subgroup, n, mean, low, high, p, next_low, next_high, tau, i2, q, q_p; all networks
            come first, then subgroups, then the networks with a control: ``control: trained``,
            ``control: random weights`` and ``control: trained − random``.
        by: what the networks are grouped by; None without subgroups.
        pooled: the mean slope of all networks and how they vary, by unit.
        contrast: test whether subgroups have the same mean, by unit.
        trained: what training changed, the difference of slopes within networks, by unit; empty
            with fewer than two networks that have a control.
        shape: whether the networks have one shape; None where none has layers enough.
        options: how all were fitted.
        notes: what to know, in sentences.
    """

    networks: pd.DataFrame
    subgroups: pd.DataFrame
    by: str | None
    pooled: dict[str, Pooled]
    contrast: dict[str, Contrast]
    trained: dict[str, Pooled]
    shape: ShapeAgreement | None
    options: FitOptions
    notes: tuple[str, ...]

    @property
    def level(self) -> float:
        """Level of the intervals."""
        return self.options.level

    @property
    def depth(self) -> str:
        """Name of the measure of depth, see :data:`natstats.fits.depth_axes.DEPTH_AXES`."""
        return self.options.depth

    @property
    def unit(self) -> str:
        """The slope that the options ask for: ``whole`` when depth is a share, else ``depth``."""
        return "whole" if DEPTH_AXES[self.depth].is_share else "depth"

    @property
    def mean(self) -> Pooled:
        """The mean over the networks in that slope, and how they vary."""
        return self.pooled[self.unit]

    @property
    def verdict(self) -> str:
        """One of :data:`VERDICTS`."""
        mean = self.mean.mean
        if self.mean.n < FEWEST_NETWORKS or not np.isfinite(mean.low):
            return "too little to tell"
        if mean.low > 0 or mean.high < 0:
            return "rises" if mean.low > 0 else "falls"
        whole = self.pooled["whole"].mean
        is_small = max(abs(whole.low), abs(whole.high)) <= SMALL_CHANGE
        return "no trend" if is_small else "too little to tell"

    def per(self, unit: str) -> str:
        """The unit of a slope in words, such as ``per weight layer``."""
        measure = DEPTH_AXES[self.depth]
        if unit == "whole":
            return DEPTH_AXES["normalized"].per
        return DEPTH_AXES["layers"].per if measure.is_share else measure.per

    def sentences(self) -> list[str]:
        """The result in three sentences: the mean, the next network, how networks differ."""
        return [self._of_the_mean(), self._of_the_next(), self._of_differences()]

    def sentence(self) -> str:
        """The three sentences as one text."""
        return " ".join(self.sentences())

    def _of_the_mean(self) -> str:
        name = DEPTH_AXES[self.depth].name
        opening = {
            "rises": f"Over networks the exponent rises with {name}",
            "falls": f"Over networks the exponent falls with {name}",
            "no trend": f"No common trend of the exponent with {name} was found",
            "too little to tell": "Too little to tell whether networks have a common trend",
        }[self.verdict]
        mean = self.mean.mean
        other = "depth" if self.unit == "whole" else "whole"
        beside = self.pooled[other].mean
        deciding = "layers" if other == "depth" else "normalized"
        return (
            f"{opening}: mean slope {change(mean.value, mean.low, mean.high)} {self.per(self.unit)}"
            f" ({100 * self.level:g} % interval; p {format_p(mean.p)}) of {self.mean.n} networks, "
            f"which decides; beside it {change(beside.value, beside.low, beside.high)} "
            f"{self.per(other)} (p {format_p(beside.p)}), which --depth {deciding} takes to decide."
        )

    def _of_the_next(self) -> str:
        low, high = self.mean.next_low, self.mean.next_high
        if not np.isfinite(low):
            return "What the next network may have takes three networks to tell."
        may = "it may rise or fall"
        if low > 0 or high < 0:
            may = f"it is expected to {'rise' if low > 0 else 'fall'}, too"
        ends = interval(low, high, 4, sign=True)
        return f"The slope of the next network is expected in {ends}: {may}."

    def _of_differences(self) -> str:
        found = self.mean
        apart = "differ by more" if found.q_p < SIGNIFICANCE else "were not found to differ by more"
        text = (
            f"Networks {apart} than the errors of their slopes (p {format_p(found.q_p)}): standard "
            f"deviation {number(found.tau, 4)}, {100 * found.i2:.0f} % of the variance"
        )
        contrast = self.contrast[self.unit]
        if self.by is not None and np.isfinite(contrast.p):
            differ = "differ" if contrast.p < SIGNIFICANCE else "were not found to differ"
            text += f"; means by {self.by} {differ} (p {format_p(contrast.p)})"
        if self.trained:
            gain = self.trained[self.unit].mean
            text += (
                f"; trained minus random weights {change(gain.value, gain.low, gain.high)} "
                f"(p {format_p(gain.p)}, {self.trained[self.unit].n} networks)"
            )
        return text + "."

    def shape_sentence(self) -> str:
        """Whether the networks have one shape, in words; empty where too few could be told."""
        if self.shape is None or not np.isfinite(self.shape.p):
            return ""
        differ = "differ" if self.shape.p < SIGNIFICANCE else "were not found to differ"
        bends = [
            f"{name} {change(term.mean.value, term.mean.low, term.mean.high)}"
            for name, term in self.shape.terms.items()
            if name != "line"
        ]
        return (
            f"The shapes of {self.shape.n} networks over relative depth {differ} by more than "
            f"their errors (p {format_p(self.shape.p)}); mean {' and '.join(bends)}."
        )

    def __repr__(self) -> str:
        mean = self.mean
        slope = change(mean.mean.value, mean.mean.low, mean.mean.high)
        return f"<MetaAnalysis of {counted(mean.n, 'network')}: mean slope {slope}, {self.verdict}>"

    def table(self, rows: int | None = None, width: int | None = None, how: str = "") -> str:
        """A row for each network, then the means; from more than `rows`, evenly spaced ones.

        Args:
            rows: at most so many networks.
            width: of the terminal; None for as wide as it takes.
            how: command that shows all rows, for the last line; empty for none.
        """
        end = "_whole" if self.unit == "whole" else ""
        shown = evenly(self.networks, rows)
        cells = [
            (
                str(row["network"]),
                str(row["subgroup"]),
                *estimate_cells(
                    row[f"slope{end}"],
                    row[f"slope{end}_low"],
                    row[f"slope{end}_high"],
                    4,
                    sign=True,
                ),
                f"{100 * row[f'weight{end}']:.1f} %",
            )
            for row in shown.to_dict("records")
        ]
        means = self.subgroups[
            (self.subgroups.unit == self.unit) & ~self.subgroups.subgroup.str.startswith(CONTROL)
        ]
        for row in [*means.to_dict("records")[1:], *means.to_dict("records")[:1]]:
            is_all = row["subgroup"] == ALL
            cells.append(
                (
                    "all networks" if is_all else f"mean of {row['n']}",
                    "" if is_all else str(row["subgroup"]),
                    *estimate_cells(row["mean"], row["low"], row["high"], 4, sign=True),
                    "",
                )
            )
        places = [n for n, one in enumerate(_COLUMNS) if one.head != "subgroup" or self.by]
        columns = [_COLUMNS[n] for n in places]
        total = len(self.networks)
        return fitted(
            columns,
            [[row[n] for n in places] for row in cells],
            width,
            left_out(total - len(shown), total, "networks", how),
        )

    def report(self) -> NetworksReport:
        """Everything that its figure and its page show."""
        unit = "_whole" if self.unit == "whole" else ""
        rows = self.networks
        means = self.subgroups[self.subgroups.unit == self.unit]
        return NetworksReport(
            networks=rows.assign(
                value=rows[f"slope{unit}"],
                low=rows[f"slope{unit}_low"],
                high=rows[f"slope{unit}_high"],
                share=rows[f"weight{unit}"],
            ),
            means=means.drop(columns="unit").reset_index(drop=True),
            subgroups=self.subgroups,
            by=self.by,
            per=self.per(self.unit),
            per_unit=self.per("depth"),
            per_whole=self.per("whole"),
            verdict=self.verdict,
            sentences=tuple(self.sentences()),
            shape_sentence=self.shape_sentence(),
            notes=self.notes,
            options=self.options,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; networks and subgroups are tables of their own."""
        return {
            "format": FORMAT,
            "kind": "law",
            "versions": {"natstats": __version__},
            "fit": self.options.to_dict(),
            "by": self.by,
            "unit": self.unit,
            "per": {unit: self.per(unit) for unit in self.pooled},
            "verdict": self.verdict,
            "sentences": self.sentences(),
            "shape_sentence": self.shape_sentence(),
            "pooled": {unit: asdict(one) for unit, one in self.pooled.items()},
            "contrast": {unit: asdict(one) for unit, one in self.contrast.items()},
            "trained_minus_random": {unit: asdict(one) for unit, one in self.trained.items()},
            "shape": None if self.shape is None else asdict(self.shape),
            "runs": self.networks[["network", "path", "digest"]].to_dict("records"),
            "notes": list(self.notes),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the forest, see :func:`natstats.report.figures.forest.plot_forest`."""
        from natstats.report.figures.forest import plot_forest

        return plot_forest(self.report(), ax)

    @classmethod
    def open(cls, path: str | Path) -> MetaAnalysis:
        """Read what :meth:`save` wrote.

        Raises:
            UsageError: `path` is not a meta-analysis.
            NatstatsError: it is damaged or of a newer format.
        """
        from natstats.runs.stored_results import open_networks

        return open_networks(path)

    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        report: bool = True,
        command: str = "",
    ) -> Path:
        """Write ``meta_analysis.json``, tables, forest plot and page, all of them or none.

        Args:
            path: of the directory.
            overwrite: replace the meta-analysis that is there.
            report: draw the figure and write the page.
            command: command line that made it, for the page.

        Raises:
            UsageError: something is at `path`, and it is not a meta-analysis or `overwrite` is not
                set.
            NatstatsError: it cannot be written.
        """
        path = expanded(path, "out")
        with store.write_directory(path, overwrite, "law") as folder:
            record = self.to_dict() | ({"command": command} if command else {})
            for run in record["runs"]:
                place = Path(run["path"])
                run["from_here"] = way_from(path, place if place.is_dir() else None)
            (folder / RECORD).write_text(store.to_json(record), encoding="utf-8")
            write_csv(self.networks, folder / "networks.csv")
            write_csv(self.subgroups, folder / "subgroups.csv")
            if report:
                from natstats.report.pages.networks import write_networks_report

                write_networks_report(folder, self.report(), path, command)
        return path
