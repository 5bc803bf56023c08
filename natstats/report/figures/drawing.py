"""The figures of a run, of several runs and of a series, each written as SVG and PNG."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from natstats.report.records import ComparisonReport, NetworksReport, RunReport, SeriesReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "RUN_FIGURES", "RunFigure", "draw_comparison", "draw_networks", "draw_overlay", "draw_run",
    "draw_series",
]  # fmt: skip


@dataclass(frozen=True)
class RunFigure:
    """A figure of a run. To add a figure, add a record to :data:`RUN_FIGURES`.

    Attributes:
        name: of its files, and of its place in the template of the page; figures without a place
            there stand at the end.
        title: its heading on the page.
        draw: draws it; None where there is nothing to draw.
        description: its alternative text, for readers who cannot see it.
    """

    name: str
    title: str
    draw: Callable[[RunReport], Axes | None]
    description: Callable[[RunReport], str]


def _law(run: RunReport) -> Axes | None:
    from natstats.report.figures.law import plot_law

    layers = run.layers
    has_any = np.isfinite(layers.exponent[layers.kind != "input"]).any()
    return plot_law(layers, run.law) if has_any else None


def _specifications(run: RunReport) -> Axes | None:
    from natstats.report.figures.specifications import plot_specifications

    found = run.verdict.specifications
    has_any = np.isfinite([row.change for row in found.rows]).sum() > 1
    return plot_specifications(found)[0] if has_any else None


def _control(run: RunReport) -> Axes | None:
    from natstats.report.figures.difference import plot_control

    has_any = run.control is not None and len(run.control.layers) > 0
    return plot_control(run.control)[0] if run.control is not None and has_any else None


def _spectra(run: RunReport) -> Axes | None:
    from natstats.report.figures.spectra import has_power, plot_spectra

    has_any = any(has_power(measured) for measured in run.spectra)
    return plot_spectra(run.spectra, run.fits) if has_any else None


def _spread(run: RunReport) -> Axes | None:
    from natstats.report.figures.image_spread import plot_spread

    has_any = any(len(fit.image_exponents) for fit in run.fits.layers)
    return plot_spread(run.spectra, run.fits) if has_any else None


def _sensitivity(run: RunReport) -> Axes | None:
    from natstats.report.figures.band_sensitivity import has_bands, plot_run_sensitivity

    if not has_bands(run.sensitivity):
        return None
    figure = plot_run_sensitivity(run.sensitivity, run.spectra, run.options.band, run.unit)
    return figure.axes[0]


def _account(run: RunReport) -> Axes | None:
    from natstats.report.figures.account import plot_account

    return plot_account(run.account)[0] if _has_trunk(run) and run.account is not None else None


def _account_totals(run: RunReport) -> Axes | None:
    from natstats.report.figures.account_totals import plot_account_totals

    return plot_account_totals(run.account) if _has_trunk(run) and run.account is not None else None


def _kernels(run: RunReport) -> Axes | None:
    from natstats.report.figures.kernels import plot_kernels

    return plot_kernels(run.account)[0] if run.account is not None and _n_kernels(run) else None


def _kernel_exponents(run: RunReport) -> Axes | None:
    from natstats.report.figures.kernels import plot_kernel_exponents

    if run.account is None or not _n_kernels(run):
        return None
    return plot_kernel_exponents(run.account)[0]


def _has_trunk(run: RunReport) -> bool:
    return run.account is not None and len(run.account.trunk) > 0


def _n_kernels(run: RunReport) -> int:
    """Number of convolutions whose change was split into causes."""
    return 0 if run.account is None else int((run.account.frame.cause == "kernels").sum())


def _told_of_account(run: RunReport) -> str:
    said = "" if run.account is None else run.account.sentence
    return f"What raises and what lowers the exponent from layer to layer of the trunk. {said}"


def _told_of_totals(run: RunReport) -> str:
    control = run.account is not None and run.account.difference is not None
    beside = ", beside that of random weights" if control else ""
    return f"Bars: what each cause adds to the exponent along the trunk, with intervals{beside}."


def _told_of_control(run: RunReport) -> str:
    said = "" if run.control is None else run.control.sentence
    return f"Exponents of the trained network and of random weights. {said}"


RUN_FIGURES = {
    figure.name: figure
    for figure in (
        RunFigure(
            "law",
            "Exponent and depth",
            _law,
            lambda run: f"Exponent against depth for every layer. {run.law.sentence()}",
        ),
        RunFigure(
            "specifications",
            "Other choices",
            _specifications,
            lambda run: (
                "Change of the exponent over the whole depth under other choices, sorted: "
                f"the exponent {run.verdict.specifications.sentence()}."
            ),
        ),
        RunFigure("control", "What training did", _control, _told_of_control),
        RunFigure(
            "spectra",
            "Spectra",
            _spectra,
            lambda run: "Mean power spectra of all layers by map size, and power over the fits.",
        ),
        RunFigure(
            "spread",
            "From image to image",
            _spread,
            lambda run: "Distribution of the exponents of single images for every layer.",
        ),
        RunFigure(
            "sensitivity",
            "Is it a power law?",
            _sensitivity,
            lambda run: "Exponent of some layers as either end of the band is moved inwards.",
        ),
        RunFigure("account", "Where the exponents come from", _account, _told_of_account),
        RunFigure("account_totals", "What each cause adds", _account_totals, _told_of_totals),
        RunFigure(
            "kernels",
            "What the kernels alone would do",
            _kernels,
            lambda run: (
                f"Measured against predicted change of the exponent over {_n_kernels(run)} "
                "convolutions: from their kernels alone, and with correlations of channels."
            ),
        ),
        RunFigure(
            "kernel_exponents",
            "Kernels and rectifiers by depth",
            _kernel_exponents,
            lambda run: (
                "Exponents of the kernels by depth, as they are and shuffled; below, what "
                "rectifiers add, measured and as for Gaussian maps."
            ),
        ),
    )
}
"""The figures of a run by name, in the order in which they are drawn."""


def draw_run(run: RunReport, folder: Path, but: Collection[str] = ()) -> list[Path]:
    """Write the figures of a run into `folder`, each as SVG and as PNG.

    Those of :data:`RUN_FIGURES` for which there is something to draw: ``law`` needs a layer with
    an exponent, ``specifications`` two specifications with a change, ``spectra`` a layer with
    power, ``spread`` an image with an exponent of its own, ``sensitivity`` a layer that was fitted
    in a second band, ``control`` random weights, ``account`` and ``account_totals`` an account with
    a trunk, ``kernels`` and ``kernel_exponents`` a convolution whose change was split into causes.

    Args:
        run: what to draw.
        folder: where they go; made when it is not there.
        but: names of figures that are left out.

    Returns:
        The files written.

    >>> import tempfile, natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in draw_run(run.report(), Path(folder)) if path.suffix == ".svg"]
    ['spectra.svg', 'spread.svg', 'sensitivity.svg']
    """
    from natstats.report.figures.style import save

    written: list[Path] = []
    for figure in RUN_FIGURES.values():
        axes = None if figure.name in but else figure.draw(run)
        if axes is not None:
            written += save(axes, folder, figure.name)
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


def draw_comparison(comparison: ComparisonReport, folder: Path) -> list[Path]:
    """Write the figures of a comparison into `folder`, each as SVG and as PNG.

    ``difference`` is left out when no layer has an exponent in both, ``compare`` when no layer of
    either has one.

    Args:
        comparison: what to draw.
        folder: where they go; made when it is not there.

    Returns:
        The files written.
    """
    from natstats.report.figures.difference import plot_difference
    from natstats.report.figures.style import save

    written: list[Path] = []
    if np.isfinite(comparison.difference.layers.difference).any():
        written += save(plot_difference(comparison.difference)[0], folder, "difference")
    layers = [run.layers[run.layers.kind != "input"] for run in comparison.runs]
    if any(np.isfinite(own.exponent).any() for own in layers):
        named = zip(comparison.difference.names, comparison.runs, strict=True)
        written += draw_overlay(list(named), folder)
    return written


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


def draw_networks(networks: NetworksReport, folder: Path) -> list[Path]:
    """Write ``forest`` into `folder`, as SVG and as PNG.

    Args:
        networks: what to draw.
        folder: where it goes; made when it is not there.

    Returns:
        The files written.
    """
    from natstats.report.figures.forest import plot_forest
    from natstats.report.figures.style import save

    return save(plot_forest(networks), folder, "forest")
