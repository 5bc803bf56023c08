"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from natstats._version import __version__
from natstats.fits.band_choice import ImageBand, band_text
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.held_bands import band_sentence
from natstats.law.verdict import headline
from natstats.numbers import estimate
from natstats.report.figures.drawing import RUN_FIGURES, draw_run
from natstats.report.figures.points import flag_names
from natstats.report.pages import provenance, results
from natstats.report.pages.account import account_contents
from natstats.report.pages.explorer import explorer_data
from natstats.report.pages.html import drawn_twice, embedded, write_page
from natstats.report.pages.page_tables import in_script
from natstats.report.pages.plotting_library import packed_library
from natstats.report.pages.verdict import verdict_contents
from natstats.report.records import RunReport

__all__ = ["write_report"]


PLACED = (
    "law", "specifications", "control", "spectra", "sensitivity", "spread", "account",
    "account_totals", "kernels", "kernel_exponents",
)  # fmt: skip
"""Figures that have a place of their own in the template, with a caption; others follow."""

LIVE = ("law", "spectra")
"""Figures that the script of the page draws anew, so that phones need no narrow variant."""


def write_report(folder: Path, run: RunReport) -> Path:
    """Write ``figures/`` and ``report.html`` into `folder`.

    Style, script and figures are inside the page, so that it can be sent and kept alone; it
    loads nothing from a network and can be read without a script.

    Args:
        folder: the run directory; it must exist.
        run: what to report.

    Returns:
        The page.

    >>> import tempfile, natstats
    >>> run = natstats.measure_images(natstats.power_law_fields(16, 16, 16, alpha=2.0)[:, None])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     "<img" in write_report(Path(folder), run.report()).read_text(encoding="utf-8")
    True
    """
    figures = drawn_twice(
        lambda place: draw_run(run, place), folder, lambda place: draw_run(run, place, LIVE)
    )
    drawn = {
        name: embedded(one.description(run), *figures[name]) if name in figures else None
        for name, one in RUN_FIGURES.items()
    }
    others = [
        {"key": name, "title": one.title, "text": one.description(run), "image": drawn[name]}
        for name, one in RUN_FIGURES.items()
        if name not in PLACED and drawn[name] is not None
    ]
    contents = {**_contents(run), "figures": drawn, "others": others}
    return write_page(folder, "report.html", contents)


def _contents(run: RunReport) -> dict[str, Any]:
    """Everything that the template fills in, but for the figures."""
    info, layers, law = run.info, run.layers, run.law
    is_network = bool((layers.kind != "input").any()) or info.get("model") is not None
    images = info.get("images") or {}
    n_images = int(layers.n_images.max()) if len(layers) else 0
    is_of_image = isinstance(run.options.band, ImageBand)
    data = explorer_data(run)
    return {
        "name": run.name,
        "is_network": is_network,
        "headline": headline(law) if is_network else run.name,
        "lines": run.verdict.lines() if is_network else [_images_sentence(run)],
        "is_untrained": (info.get("model") or {}).get("trained") is False,
        "extremes": results.extremes(layers) if is_network else [],
        "key_numbers": results.key_numbers(law, n_images) if is_network else [],
        **verdict_contents(run.verdict),
        **account_contents(run.account, run.options),
        "forms": run.forms_sentence if is_network else "",
        "control": run.control.sentence if run.control is not None else "",
        "level": f"{100 * run.options.level:g} %",
        "depth_meaning": DEPTH_AXES[law.depth].meaning,
        "shapes": results.shape_rows(law),
        "has_shape": law.network is not None and law.network.shape not in ("", "linear"),
        "layers": results.layer_table(layers, run.options),
        "explorer": in_script(data),
        "library": Markup(packed_library()),
        "kinds": list(dict.fromkeys(layer["kind"] for layer in data["layers"])),
        "stages": data["stages"],
        "flag_choices": [*flag_names(layers), "none"],
        "flags": results.flag_rows(layers),
        "doubts": bool(flag_names(layers[layers.kind != "input"], doubts=True)),
        "image_table": results.image_table(run.image_exponents, run.options),
        "skipped": run.skipped.to_dict("records"),
        "band": band_text(run.options.band, run.unit) if is_of_image else "",
        "measured": provenance.measured(info, run.options),
        "unreadable": list(images.get("unreadable") or []),
        "n_unreadable": images.get("n_unreadable") or 0,
        "warnings": [
            *(info.get("warnings") or []),
            *filter(None, [band_sentence(run.spectra, run.options.band, run.unit)]),
        ],
        "repeat": provenance.repeat(info, run.options),
        "has_command": bool(info.get("command")),
        "version": (info.get("versions") or {}).get("natstats", __version__),
    }


def _images_sentence(run: RunReport) -> Markup | str:
    """The exponent of the images by themselves, in words."""
    parts = []
    names = {"input.grey": "in grey", "input.colour": "as the mean over the colour channels"}
    for row in run.layers.to_dict("records"):
        if np.isfinite(row["exponent"]):
            found = estimate(row["exponent"], row["exponent_low"], row["exponent_high"])
            how = names.get(row["layer"], "")
            parts.append(f"{found} {how}".strip())
    if not parts:
        return "No exponent could be fitted to the spectrum of these images."
    return Markup(
        "The power of these {} images falls with frequency as 1/f<sup>α</sup>; α is {} ({:g} % "
        "intervals)."
    ).format(int(run.layers.n_images.max()), ", and ".join(parts), 100 * run.options.level)
