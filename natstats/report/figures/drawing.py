"""The figures of a run, of several runs and of a series, each written as SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from natstats.report.records import RunReport, SeriesReport

__all__ = ["draw_overlay", "draw_run", "draw_series"]


def draw_run(run: RunReport, folder: Path) -> list[Path]:
    """Write the figures of a run into `folder`, each as SVG and as PNG.

    ``law`` is left out when no layer has an exponent, ``spectra`` when there is no power to draw,
    ``spread`` when no image has an exponent of its own, ``sensitivity`` when no layer was fitted in
    a second band, ``control`` when no random weights were measured.

    Args:
        run: what to draw.
        folder: where they go; made when it is not there.

    Returns:
        The files written.

    >>> import tempfile, natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in draw_run(run.report(), Path(folder)) if path.suffix == ".svg"]
    ['spectra.svg', 'spread.svg', 'sensitivity.svg']
    """
    from natstats.report.figures.band_sensitivity import has_bands, plot_sensitivity
    from natstats.report.figures.difference import plot_control
    from natstats.report.figures.image_spread import plot_spread
    from natstats.report.figures.law import plot_law
    from natstats.report.figures.spectra import has_power, plot_spectra
    from natstats.report.figures.style import save

    layers = run.layers
    written: list[Path] = []
    if np.isfinite(layers.exponent[layers.kind != "input"]).any():
        written += save(plot_law(layers, run.law), folder, "law")
    if run.control is not None and len(run.control.layers):
        written += save(plot_control(run.control)[0], folder, "control")
    if any(has_power(measured) for measured in run.spectra):
        written += save(plot_spectra(run.spectra, run.fits), folder, "spectra")
    if any(len(fit.image_exponents) for fit in run.fits.layers):
        written += save(plot_spread(run.spectra, run.fits), folder, "spread")
    if has_bands(run.sensitivity):
        written += save(
            plot_sensitivity(run.sensitivity, unit=run.unit).axes[0], folder, "sensitivity"
        )
    return written


def draw_overlay(runs: Sequence[tuple[str, RunReport]], folder: Path) -> list[Path]:
    """Write ``compare`` into `folder`, as SVG and as PNG.

    Args:
        runs: name to show, and run; at most eight.
        folder: where they go; made when it is not there.

    Returns:
        The files written.

    Raises:
        UsageError: there are no runs, or more than eight.
    """
    from natstats.report.figures.overlay import plot_overlay
    from natstats.report.figures.style import save

    axes = plot_overlay([(name, run.layers, run.law) for name, run in runs])
    return save(axes, folder, "compare")


def draw_series(series: SeriesReport, folder: Path) -> list[Path]:
    """Write the figures of a series into `folder`, each as SVG and as PNG.

    ``exponents`` is left out when no layer has an exponent, ``slopes`` when no checkpoint has a
    law.

    Args:
        series: what to draw.
        folder: where they go; made when it is not there.

    Returns:
        The files written.
    """
    from natstats.report.figures.series import plot_exponents, plot_slopes
    from natstats.report.figures.style import save

    rows = series.exponents
    written: list[Path] = []
    if np.isfinite(rows.exponent[rows.kind != "input"]).any():
        written += save(plot_exponents(series), folder, "exponents")
    if np.isfinite(series.frame.slope).any():
        written += save(plot_slopes(series), folder, "slopes")
    return written
