"""The tables and figures of docs/calibration.md, from what the studies in analyses/ wrote.

Run `python analyses/calibration.py`, `analyses/control_calibration.py`, `analyses/fit_speed.py`,
`analyses/photographs.py FOLDER` and `analyses/other_tools.py` first, then
`python figures/calibration.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from calibration_network_tables import networks
from calibration_tables import CONDITIONS, PARTS, rows_of
from filling import fill
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from natstats.report.figures.style import GREY, INK, MARKERS, PALETTE, look, new_axes, save

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "calibration.md"
FIGURES = ROOT / "docs" / "calibration"


def _panel(height: float) -> Axes:
    return new_axes(None, height)


def draw_bias() -> Axes:
    """Bias against exponent, one line a size."""
    ax = _panel(3.2)
    rows = [row for row in rows_of("bias") if row["estimator"] == "octave"]
    sizes = list(dict.fromkeys((row["height"], row["width"]) for row in rows))
    ax.axhspan(-0.03, 0.03, color="#eef2f5", zorder=0)
    for place, size in enumerate(sizes):
        own = [row for row in rows if (row["height"], row["width"]) == size]
        ax.errorbar(
            [row["alpha"] + 0.05 * (place - 2.5) for row in own],
            [row["bias"] for row in own],
            yerr=[2 * row["bias_se"] for row in own],
            color=PALETTE[place], marker=MARKERS[place], markersize=4, linewidth=0.9,
            label=f"{size[0]} × {size[1]}",
        )  # fmt: skip
    ax.axhline(0, color=GREY, linewidth=0.7, zorder=1)
    ax.set_xlabel("true exponent")
    ax.set_ylabel("bias of octave")
    ax.legend(ncols=1, loc="center left", bbox_to_anchor=(1.0, 0.5), title="map, px")
    ax.set_title("Bias: the band is ± 0.03, bars are two standard errors")
    return ax


def draw_coverage() -> Axes:
    """Coverage of the three intervals."""
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    rows = [row for row in rows_of("coverage") if row["estimator"] == "octave"]
    intervals = ("plain jackknife-t", "bootstrap-t", "effective dof")
    for ax, side in zip(panels, sorted({row["side"] for row in rows}), strict=True):
        new_axes(ax, 0)
        ax.axhspan(93, 97, color="#eef2f5", zorder=0)
        ax.axhline(95, color=GREY, linewidth=0.7, zorder=1)
        ticks = []
        for n_place, n_images in enumerate((16, 64, 256)):
            for c_place, condition in enumerate(CONDITIONS):
                x = 5 * n_place + c_place
                ticks.append(x)
                for i_place, interval in enumerate(intervals):
                    (row,) = (
                        row
                        for row in rows
                        if (row["side"], row["n_images"], row["interval"])
                        == (side, n_images, interval)
                        and (row["alpha_sd"], row["contrast"]) == condition
                    )
                    ax.errorbar(
                        x + 0.22 * (i_place - 1),
                        100 * row["coverage"],
                        yerr=200 * row["coverage_se"],
                        color=(PALETTE[1], PALETTE[2], PALETTE[0])[i_place],
                        marker=MARKERS[i_place], markersize=3.5, linewidth=0.9,
                        label=interval if x == 0 else None,
                    )  # fmt: skip
            ax.text(5 * n_place + 1.5, 98.3, f"{n_images} images", ha="center", color=INK)
        ax.set_xticks(ticks, list(CONDITIONS.values()) * 3, rotation=90, fontsize=7)
        ax.set_title(f"{side} × {side} px")
        ax.set_ylim(87, 99)
    panels[0].set_ylabel("intervals that hold the truth, %")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    axes: Axes = panels[0]
    return axes


def draw_power() -> Axes:
    """How often a rise is found, by its size in standard deviations of the scatter."""
    ax = _panel(3.2)
    rows = [row for row in rows_of("power") if row["images"] == "alike"]
    cases = list(dict.fromkeys((r["layers"], r["maps"], r["phi"]) for r in rows))
    colours = {(layers, maps): place for place, (layers, maps, _) in enumerate(cases[::2])}
    for layers, maps, phi in cases:
        own = [r for r in rows if (r["layers"], r["maps"], r["phi"]) == (layers, maps, phi)]
        rises = np.array([row["rises"] for row in own])
        reach = [rises - [r["rises_low"] for r in own], [r["rises_high"] for r in own] - rises]
        place = colours[layers, maps]
        ax.errorbar(
            [row["rise"] for row in own],
            100 * rises,
            yerr=100 * np.abs(np.array(reach)),
            color=PALETTE[place], marker=MARKERS[place], markersize=4, linewidth=1.0,
            linestyle="-" if phi == 0 else "--",
            label=f"{layers} layers, {maps}, φ = {phi:g}",
        )  # fmt: skip
    ax.set_xlabel("total rise, standard deviations of the scatter of layers")
    ax.set_ylabel("a rise is found, %")
    ax.legend(loc="lower right", fontsize=7)
    ax.grid(axis="y")
    return ax


def main() -> None:
    """Fill the page between its markers, and draw the figures beside it."""
    fill(PAGE, "calibration.py", {**PARTS, "networks": networks})
    with look():
        for name, draw in (("bias", draw_bias), ("coverage", draw_coverage), ("power", draw_power)):
            save(draw(), FIGURES, name)


if __name__ == "__main__":
    main()
