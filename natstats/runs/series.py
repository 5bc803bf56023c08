"""A series: runs of the checkpoints of one training, and what changed from the first to the last.

All runs see the same images in the same numbering, so the change from the first checkpoint to the
last is a paired comparison (:mod:`natstats.runs.comparison`). Between checkpoints nothing is
fitted: what happens in between is shown, not tested.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from natstats.brief import Brief
from natstats.errors import UsageError
from natstats.files.csv_files import write_csv
from natstats.files.paths import expanded, plain_name
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.law.differences import Differences, ErrorSource, Estimate
from natstats.law.law import OLDER_VERDICTS, VERDICTS
from natstats.networks.checkpoint_files import CheckpointFile, step_name
from natstats.numbers import as_number, change, counted, estimate_cells
from natstats.report.records import SeriesReport
from natstats.runs import store
from natstats.runs.comparison import Comparison, compare
from natstats.runs.run import Run
from natstats.runs.series_record import FORMAT, NUMBERS, read_series
from natstats.runs.tables import evenly, left_out
from natstats.runs.text_columns import Column, fitted
from natstats.text import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FORMAT", "Series", "Summary", "summarise"]

_SHARED = ("name", "images", "options", "versions", "device", "command", "refit")
"""What a series says of all its runs, taken from the last."""

_COLUMNS = (
    Column("checkpoint", True, cut="name"), Column("step", rank=3), Column("slope"),
    Column("interval"), Column("verdict", True, -1, "text"), Column("mean exponent", rank=1),
    Column("interval", rank=2),
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Summary(Brief):
    """What a series keeps of one run.

    Attributes:
        row: a row of :attr:`Series.frame`.
        layers: rows of :attr:`Series.exponents`.
    """

    row: dict[str, Any]
    layers: pd.DataFrame


def summarise(run: Run, checkpoint: CheckpointFile, digest: str | None = None) -> Summary:
    """Take from a run what a series keeps of it.

    Args:
        run: run of the checkpoint.
        checkpoint: name, step and file.
        digest: digest of the file, computed when it is not given.
    """
    layers, law, fits = run.layers, run.law, run.fits
    inner = (layers.kind != "input").to_numpy()
    doubted = layers["flags"].str.contains("beyond range").to_numpy()
    chosen = np.flatnonzero(inner & ~doubted & np.isfinite(layers.exponent.to_numpy()))
    errors = ErrorSource(fits.deviations)
    mean = Differences(fits.exponents, [errors], run.options.level).mean(chosen.tolist())
    row = {
        "checkpoint": checkpoint.name,
        "step": checkpoint.step,
        "verdict": run.verdict.word,
        "slope": law.slope,
        "slope_low": law.slope_low,
        "slope_high": law.slope_high,
        "slope_p": law.trend_p,
        "n_layers": law.n_layers,
        "exponent_mean": mean.value,
        "exponent_mean_low": mean.low,
        "exponent_mean_high": mean.high,
        "n_exponents": len(chosen),
        "best_shape": law.best_shape or "",
        "weights_digest": (run.info.get("model") or {}).get("digest") or "",
        "file_digest": checkpoint.digest() if digest is None else digest,
        "file": str(checkpoint.path),
    }
    kept = pd.DataFrame(
        {
            "checkpoint": checkpoint.name,
            "step": checkpoint.step,
            "layer": layers.layer,
            "kind": layers.kind,
            "depth": DEPTH_AXES[run.options.depth].values(layers),
            "exponent": layers.exponent,
            "low": layers.exponent_low,
            "high": layers.exponent_high,
            "flags": layers["flags"],
        }
    )
    return Summary(row, kept)


class Series:
    """Runs of the checkpoints of one training, in its order.

    Made by :func:`natstats.measure_series`, or read by :meth:`open`.

    Attributes:
        frame: a row per checkpoint: checkpoint (name), step, verdict, slope of the law with
            slope_low, slope_high and slope_p, n_layers (of the law), exponent_mean (over layers)
            with exponent_mean_low and exponent_mean_high, n_exponents (layers in that mean),
            best_shape, weights_digest, file_digest, file.
        exponents: a row per checkpoint and layer, the images included: checkpoint, step, layer,
            kind, depth (in the measure of the law), exponent, low, high, flags.
        change: the last checkpoint minus the first, paired.
        info: facts that all runs share: name, images, options, versions.
        runs: runs of the checkpoints; those of a series on disk are read when they are asked for.

    >>> import tempfile, torch, natstats
    >>> images = torch.rand(20, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for epoch in (0, 1):
    ...         torch.save(model.state_dict(), f"{folder}/epoch_{epoch}.pth")
    ...     series = natstats.measure_series(model, f"{folder}/epoch_*.pth", images)
    >>> series.frame[["checkpoint", "step", "verdict"]].values.tolist()
    [['epoch_0', 0, 'too little to tell'], ['epoch_1', 1, 'too little to tell']]
    """

    def __init__(
        self, summaries: Sequence[Summary], change: Comparison, runs: Sequence[Run], **info: Any
    ) -> None:
        self.frame = pd.DataFrame([one.row for one in summaries])
        self.exponents = pd.concat([one.layers for one in summaries], ignore_index=True)
        self.change = change
        self.runs = runs
        self.info = info

    @classmethod
    def of(cls, runs: Sequence[Run], checkpoints: Sequence[CheckpointFile]) -> Series:
        """Make a series of runs in the order of their checkpoints, two or more.

        Raises:
            UsageError: there are fewer, their numbers differ, or the runs were fitted or measured
                in different ways.
        """
        if not len(runs) == len(checkpoints) >= 2:
            raise UsageError(
                "runs: expected two runs or more, and a checkpoint for each; got "
                f"{counted(len(runs), 'run')} "
                f"and {counted(len(checkpoints), 'checkpoint')}"
            )
        summaries = []
        for run, one in zip(runs, checkpoints, strict=True):
            digest = (run.info.get("series") or {}).get("digest", "")
            summaries.append(summarise(run, one, digest))
        return cls.joined(summaries, runs[0], runs[-1], runs)

    @classmethod
    def joined(
        cls, summaries: Sequence[Summary], first: Run, last: Run, runs: Sequence[Run]
    ) -> Series:
        """Make a series from summaries of its runs, and compare the last run with the first."""
        names = (str(summaries[0].row["checkpoint"]), str(summaries[-1].row["checkpoint"]))
        info = {name: last.info[name] for name in _SHARED if last.info.get(name) is not None}
        info["fit"] = last.options.to_dict()
        return cls(summaries, compare(first, last, names), runs, **info)

    @property
    def name(self) -> str:
        """What the network is called."""
        return str(self.info.get("name", "network"))

    @property
    def depth(self) -> str:
        """The measure of depth of the laws, see :data:`natstats.fits.depth_axes.DEPTH_AXES`."""
        return self.change.depth

    @property
    def level(self) -> float:
        """Level of all intervals."""
        return self.change.level

    @property
    def step_name(self) -> str:
        """What the steps count: see :func:`natstats.networks.checkpoint_files.step_name`."""
        return step_name([str(name) for name in self.frame.checkpoint])

    def sentence(self) -> str:
        """What the checkpoints show, and what changed from the first to the last: two sentences."""
        return f"{self._sentence()} {self.change.sentence()}"

    def sentences(self) -> list[str]:
        """The two sentences of :meth:`sentence`, a line each."""
        return [self._sentence(), self.change.sentence()]

    @property
    def notes(self) -> list[str]:
        """How the last checkpoint was compared with the first, in sentences."""
        return list(self.change.notes)

    def _sentence(self) -> str:
        """What the checkpoints show."""
        first, last = self.frame.iloc[0], self.frame.iloc[-1]
        counts = self.frame.verdict.value_counts()
        known = (*VERDICTS, *OLDER_VERDICTS)
        verdicts = ", ".join(f"{name} ({counts[name]})" for name in known if name in counts)
        text = (
            f"{counted(len(self.frame), 'checkpoint')}, {self.step_name} {first.step} to "
            f"{last.step}, by the "
            f"verdict on their law: {verdicts}"
        )
        if np.isfinite([first.slope, last.slope]).all():
            slopes = [change(row.slope, row.slope_low, row.slope_high) for row in (first, last)]
            per = DEPTH_AXES[self.depth].per
            text += f"; its slope is {slopes[0]} {per} at the first and {slopes[1]} at the last"
        return f"{text}."

    def __repr__(self) -> str:
        return f"<Series of {printable(self.name)}: {self._sentence().removesuffix('.')}>"

    def _repr_html_(self) -> str:
        from natstats.report.notebook import series_html

        return series_html(self.report())

    def report(self) -> SeriesReport:
        """Everything that its figures and its page show."""
        return SeriesReport(
            name=self.name,
            info=self.info,
            options=FitOptions.from_dict(self.info.get("fit", {})),
            step_name=self.step_name,
            sentence=self._sentence(),
            frame=self.frame,
            exponents=self.exponents,
            change=self.change.report(),
        )

    def table(self, rows: int | None = None, width: int | None = None, how: str = "") -> str:
        """The checkpoints as aligned text; from more than `rows` of them, evenly spaced ones.

        Args:
            rows: at most so many.
            width: of the terminal; None for as wide as it takes.
            how: command that shows all rows, for the last line; empty for none.
        """
        shown = evenly(self.frame, rows)
        cells = [
            (
                str(row["checkpoint"]),
                str(row["step"]),
                *estimate_cells(row["slope"], row["slope_low"], row["slope_high"], 4, sign=True),
                str(row["verdict"]),
                *estimate_cells(
                    row["exponent_mean"], row["exponent_mean_low"], row["exponent_mean_high"]
                ),
            )
            for row in shown.to_dict("records")
        ]
        total = len(self.frame)
        below = left_out(total - len(shown), total, "checkpoints", how)
        return fitted(_COLUMNS, cells, width, below)

    def plot(self, axes: tuple[Axes, Axes] | None = None) -> tuple[Axes, Axes]:
        """Draw exponents and slopes, see :func:`natstats.report.figures.series.plot_training`."""
        from natstats.report.figures.series import plot_training

        return plot_training(self.report(), axes)

    def refit(self, **changes: Any) -> Series:
        """Fit the spectra of every run in another way, see :meth:`natstats.runs.run.Run.refit`.

        Raises:
            UsageError: a value is out of range, or there is no such option.
        """
        return Series.of([run.refit(**changes) for run in self.runs], self.checkpoints)

    @property
    def checkpoints(self) -> list[CheckpointFile]:
        """Names, steps and files, in the order of the steps."""
        rows = self.frame.to_dict("records")
        return [
            CheckpointFile(row["checkpoint"], int(row["step"]), Path(row["file"])) for row in rows
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the exponents and the layers of the change are tables."""
        return {
            "format": FORMAT,
            "kind": "series",
            **self.info,
            "step_name": self.step_name,
            "runs": self.frame.to_dict("records"),
            "change": self.change.to_dict(),
            "sentence": self.sentence(),
        }

    def save(self, path: str | Path, *, overwrite: bool = False, report: bool = True) -> Path:
        """Write all runs and the series into a new directory, whole or not at all.

        Raises:
            UsageError: something is at `path`, and it is not a series or `overwrite` is not set.
            NatstatsError: it cannot be written.
        """
        path = expanded(path, "out")
        with store.write_directory(path, overwrite, "series") as folder:
            for name, run in zip(self.frame.checkpoint, self.runs, strict=True):
                run.save(folder / plain_name(str(name), "checkpoint"), report=report)
            self.write_tables(folder, report=report)
        return path

    def write_tables(self, folder: Path, *, report: bool = True) -> None:
        """Write into `folder` all but the runs: tables, figures, the page that links the runs."""
        write_csv(self.frame, folder / "series.csv")
        write_csv(self.exponents, folder / "exponents.csv")
        write_csv(self.change.layers, folder / "change.csv")
        if report:
            from natstats.report.pages.series import write_series_report

            write_series_report(folder, self.report())
        (folder / store.SERIES).write_text(store.to_json(self.to_dict()), encoding="utf-8")

    @classmethod
    def open(cls, path: str | Path) -> Series:
        """Read a series; its runs are read when they are asked for.

        Raises:
            UsageError: `path` is not a series, or it is not finished.
            NatstatsError: the series is damaged or of a newer format.
        """
        return _read(expanded(path, "series"))


class StoredRuns(Sequence[Run]):
    """Runs on disk, each read when it is asked for and not kept."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.paths)

    def __iter__(self) -> Iterator[Run]:
        """One run after the other."""
        return map(Run.open, self.paths)

    def __getitem__(self, place: Any) -> Any:
        """One run, or the runs of a slice."""
        if isinstance(place, slice):
            return StoredRuns(self.paths[place])
        return Run.open(self.paths[place])


def _read(path: Path) -> Series:
    record, exponents, layers, homes = read_series(path)
    rows = [row | {name: as_number(row[name]) for name in NUMBERS} for row in record["runs"]]
    kept = record["change"]
    found = Comparison(
        names=tuple(kept["names"]),
        layers=layers,
        only=(tuple(kept["only"][0]), tuple(kept["only"][1])),
        mean=Estimate.from_dict(kept["mean"]),
        slope=Estimate.from_dict(kept["slope"]),
        **{name: kept[name] for name in ("n_layers", "n_differ", "is_paired", "level", "depth")},
        notes=tuple(kept["notes"]),
    )
    groups = dict(list(exponents.groupby("checkpoint", sort=False)))
    summaries = [Summary(row, groups[row["checkpoint"]]) for row in rows]
    info = {name: record[name] for name in (*_SHARED, "fit") if name in record}
    return Series(summaries, found, StoredRuns(homes), **info)
