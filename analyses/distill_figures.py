"""Figures of a study from the rows that there are: contrasts and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from distill_parts import Planned

if TYPE_CHECKING:
    from distill_report import Report

__all__ = ["draw"]

MOST_CURVES = 10
"""Most methods whose learning curves are drawn, the first that were planned."""


def _curves_of(report: Report, planned: Sequence[Planned]) -> pd.DataFrame:
    """Mean, lowest and highest accuracy of every arm over the epochs."""
    frames = [report.curve(one).assign(label=one.arm) for one in planned]
    whole = pd.concat(frames) if frames else report.curves.assign(label="")
    by = whole.groupby(["label", "epoch"], sort=False).accuracy.agg(["mean", "min", "max"])
    by.columns = pd.Index(["accuracy", "low", "high"])
    return pd.DataFrame(by.reset_index())


def draw(report: Report, folder: Path, level: float) -> None:
    """Contrasts and learning curves of every setting that has any.

    Args:
        report: of a study, with its parts written.
        folder: for the figures.
        level: of the intervals.
    """
    from natstats.distill.report.contrast_figures import plot_contrasts
    from natstats.distill.report.method_figures import plot_curves_of
    from natstats.report.figures.style import save

    name = report.study.name
    for frame in report.frames:
        where = frame.setting.iloc[0]
        save(plot_contrasts(frame, level), folder, f"{name}-{where}-contrasts")
    for setting in report.study.settings:
        planned = report.main(setting)
        curves = _curves_of(report, planned)
        core = list(dict.fromkeys(one.arm for one in planned))[:MOST_CURVES]
        if curves.groupby("label").size().max() > 1:
            axes = plot_curves_of(curves[curves.label.isin(core)], core)
            save(axes, folder, f"{name}-{setting.name}-curves")
