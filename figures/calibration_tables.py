"""The tables of docs/calibration.md; part of figures/calibration.py."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "analyses" / "results"

CONDITIONS = {
    (0.0, 0.0): "alike",
    (0.0, 0.7): "contrast differs",
    (0.3, 0.0): "exponent differs",
    (0.3, 0.7): "both differ",
}

Row = dict[str, Any]


def record(name: str) -> Row:
    """What a study wrote."""
    found: Row = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def rows_of(part: str) -> list[Row]:
    """Rows of a part of the calibration."""
    rows: list[Row] = record(f"calibration_{part}")["rows"]
    return rows


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * len(head),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def made_by(part: str) -> list[str]:
    """The command and the versions behind a table."""
    found = record(part)
    versions = ", ".join(f"{key} {value}" for key, value in found.get("versions", {}).items())
    return ["", f"`{found['command']}`{'; ' if versions else ''}{versions}."]


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign, and a real minus."""
    rounded = round(value, digits)
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}") if rounded else "0"


def percent(value: float, digits: int = 1) -> str:
    """A share in per cent."""
    return f"{100 * value:.{digits}f}"


def bias() -> list[str]:
    """Bias by size and exponent, octave and whittle."""
    found = {
        (row["height"], row["width"], row["alpha"], row["estimator"]): row
        for row in rows_of("bias")
    }
    sizes = list(dict.fromkeys((height, width) for height, width, _, _ in found))
    alphas = sorted({key[2] for key in found})
    lines = [
        [f"{height} × {width}", name]
        + [
            f"{signed(one['bias'])} ± {one['bias_se']:.3f}"
            for one in (found[height, width, alpha, name] for alpha in alphas)
        ]
        for height, width in sizes
        for name in ("octave", "whittle", "ols")
    ]
    return [
        *table(["map", "estimator", *(f"α = {alpha:g}" for alpha in alphas)], lines),
        *made_by("calibration_bias"),
    ]


def coverage() -> list[str]:
    """Coverage of 95 % intervals."""
    found = {
        (row["side"], row["n_images"], row["alpha_sd"], row["contrast"], row["estimator"],
         row["interval"]): row
        for row in rows_of("coverage")
    }  # fmt: skip
    columns = [
        ("octave", "effective dof"),
        ("whittle", "effective dof"),
        ("octave", "bootstrap-t"),
        ("octave", "plain jackknife-t"),
    ]
    lines = []
    for side in sorted({key[0] for key in found}):
        for n_images in (16, 64, 256):
            for condition, words in CONDITIONS.items():
                cells = [found[(side, n_images, *condition, *column)] for column in columns]
                lines.append(
                    [
                        f"{side}",
                        f"{n_images}",
                        words,
                        *(
                            f"{percent(cell['coverage'])} ± {percent(cell['coverage_se'])}"
                            for cell in cells
                        ),
                        f"{cells[0]['width']:.2f}, {cells[2]['width']:.2f}, "
                        f"{cells[3]['width']:.2f}",
                    ]
                )
    head = [
        "px",
        "images",
        "images are",
        "**octave**",
        "**whittle**",
        "octave, bootstrap",
        "octave, plain jackknife-t",
        "median width: default, bootstrap, plain",
    ]
    return [*table(head, lines), *made_by("calibration_coverage")]


def efficiency() -> list[str]:
    """Standard deviation on one map, against the bounds."""
    lines = [
        [
            row["edges"],
            row["estimator"],
            f"{row['sd']:.4f} ± {row['sd_se']:.4f}",
            f"{row['over_rings_bound']:.2f}",
            f"{row['over_full_bound']:.2f}",
            signed(row["bias"]),
        ]
        for row in rows_of("efficiency")
    ]
    head = [
        "edges",
        "estimator",
        "sd",
        "over the bound of the rings",
        "over the full bound",
        "bias",
    ]
    return [*table(head, lines), *made_by("calibration_efficiency")]


def outer() -> list[str]:
    """Resolvable range by size and edges, and the shift with the outer scale."""
    rows = rows_of("outer")
    ends = {(row["side"], row["edges"]): row for row in rows if "lowest" in row}
    shifts = {(row["side"], row["alpha"]): row for row in rows if row["edges"] == "sine"}
    sides = sorted({side for side, _ in ends})
    edges = list(dict.fromkeys(name for _, name in ends))
    first = [
        [f"{side} × {side}"]
        + [
            f"{signed(one['lowest'], 1)} to {one['highest']:.1f} ({one['steady_up_to']:.1f})"
            for one in (ends[side, name] for name in edges)
        ]
        for side in sides
    ]
    second = []
    for side in sides:
        for scale, words in (("4", "a third"), ("36", "three times"), ("108", "nine times")):
            cells = [
                shifts[side, alpha]["shift_by_outer_scale"][scale]
                for alpha in (1.0, 2.0, 3.0, 3.5, 4.0)
            ]
            second.append([f"{side} × {side}", words, *(signed(cell) for cell in cells)])
    return [
        *table(["map", *edges], first),
        "",
        *table(["map", "longest wave", "α = 1", "α = 2", "α = 3", "α = 3.5", "α = 4"], second),
        *made_by("calibration_outer"),
    ]


def single() -> list[str]:
    """Single images."""
    found = {(r["side"], r["channels"], r["estimator"]): r for r in rows_of("single")}
    lines = [
        [f"{side} × {side}", f"{channels}"]
        + [
            f"{signed(one['bias'], 2)}, {one['sd']:.2f}"
            for one in (found[side, channels, name] for name in ("octave", "whittle", "ols"))
        ]
        for side in (7, 14, 28, 56)
        for channels in (1, 4, 16)
    ]
    head = ["map", "channels", "octave: bias, sd", "whittle: bias, sd", "ols: bias, sd"]
    return [*table(head, lines), *made_by("calibration_single")]


def forms() -> list[str]:
    """Flags for another form."""
    rows = rows_of("forms")
    plain = [row for row in rows if row["truth"] == "power law"]
    judged, flagged = (sum(row[key] for row in plain) for key in ("judged", "flagged"))
    cells = {(row["truth"], row["n_images"], row["channels"]): row for row in rows}
    truths = list(dict.fromkeys(row["truth"] for row in rows if row["truth"] != "power law"))
    keys = ((24, 1), (24, 16), (128, 1), (128, 16))
    lines = [
        [truth]
        + [percent(one["flagged"] / one["judged"], 0) for one in (cells[(truth, *k)] for k in keys)]
        for truth in truths
    ]
    head = ["truth", *(f"{n} images, {c} channel{'s' * (c > 1)}" for n, c in keys)]
    return [
        f"Of {judged} judged power laws {flagged} were flagged. Where another form is the truth, "
        "per cent flagged:",
        "",
        *table(head, lines),
        *made_by("calibration_forms"),
    ]


def law() -> list[str]:
    """How often flat exponents are called a trend, and how often the interval holds the slope."""
    rows = rows_of("law")
    cells = {(r["scatter"], r["layers"], r["maps"], r["images"]): r for r in rows}
    networks = list(dict.fromkeys((r["layers"], r["maps"]) for r in rows))
    head = ["scatter of layers", *(f"{layers} layers, {maps}" for layers, maps in networks)]
    lines = []
    for key, title in (("false", "a trend is found in"), ("covered", "slope covered")):
        lines += ["", f"Flat exponents, {title} (per cent; images alike, images different):", ""]
        lines += table(
            head,
            [
                [scatter, *(_both(cells, scatter, network, key) for network in networks)]
                for scatter in dict.fromkeys(r["scatter"] for r in rows)
            ],
        )
    error = np.sqrt(0.05 * 0.95 / rows[0]["repeats"])
    return [
        *lines[1:],
        "",
        f"{rows[0]['repeats']} repeats per cell; the standard error of a rate of 5 % is "
        f"{percent(error)}.",
        *made_by("calibration_law"),
    ]


def _both(cells: Row, scatter: str, network: tuple[int, str], key: str) -> str:
    """A rate with images alike and with images that differ; a dash where it was not tried."""
    found = [cells.get((scatter, *network, images)) for images in ("alike", "different")]
    return ", ".join(percent(one[key]) for one in found if one is not None) or "–"


def power() -> list[str]:
    """How often a rise is found, by its size."""
    rows = rows_of("power")
    rises = sorted({row["rise"] for row in rows})
    cases = list(dict.fromkeys((r["layers"], r["maps"], r["images"], r["phi"]) for r in rows))
    cells = {(r["layers"], r["maps"], r["images"], r["phi"], r["rise"]): r for r in rows}
    lines = [
        [
            *(f"{one:g}" if isinstance(one, float) else str(one) for one in case),
            *(percent(cells[(*case, rise)]["rises"], 0) for rise in rises),
        ]
        for case in cases
    ]
    head = ["layers", "maps", "images", "φ", *(f"{rise:g} sd" for rise in rises)]
    return [*table(head, lines), *made_by("calibration_power")]


def others() -> list[str]:
    """Two tools that others wrote."""
    found = record("other_tools")
    first = [
        [
            f"{row['alpha']:g}",
            f"{row['largest_relative_difference_of_expectation']:.0e}",
            *(
                f"{row[key][0]:.3f}, {row[key][1]:.3f}"
                for key in (
                    "debiased-spatial-whittle",
                    "natstats whittle, none",
                    "natstats whittle, sine",
                )
            ),
            f"{row['correlation, none']:.3f}",
        ]
        for row in found["debiased-spatial-whittle"]
    ]
    second = [
        [f"{row['alpha']:g}", row["fields"]]
        + [
            f"{row[f'{tool}, {edges}']:.2f}"
            for tool in ("specparam", "natstats ols", "natstats octave")
            for edges in ("none", "sine")
        ]
        for row in found["specparam"]
    ]
    return [
        *table(
            [
                "α",
                "expectation: largest relative difference",
                "debiased-spatial-whittle: mean, sd",
                "whittle, none",
                "whittle, sine",
                "correlation with whittle, none",
            ],
            first,
        ),
        "",
        *table(
            ["α", "fields", "specparam, none", "specparam, sine", "ols, none", "ols, sine",
             "octave, none", "octave, sine"],
            second,
        ),
        *made_by("other_tools"),
    ]  # fmt: skip


def photographs() -> list[str]:
    """Photographs one by one."""
    found = record("photographs")
    lines = [
        [
            f"{row['side']} px{', scaled' if row['scaled'] else ', unscaled'}",
            f"{row['images']}",
            f"{row['image_mean']:.2f}, {row['image_sd']:.2f}",
            f"{row['quantiles']['5']:.2f} to {row['quantiles']['95']:.2f}",
            f"{row['quantiles']['0']:.2f} to {row['quantiles']['100']:.2f}",
            f"{percent(row['share_in_published_range'], 0)}",
            f"{row['exponent'][0]:.2f} [{row['exponent'][1]:.2f}, {row['exponent'][2]:.2f}]",
        ]
        for row in found["rows"]
    ]
    head = ["central square", "photographs", "mean, sd", "5 to 95 %", "range",
            "per cent within 1.6 to 3.0", "of the mean spectrum"]  # fmt: skip
    return [*table(head, lines), "", f"`{found['command']}`, natstats {found['natstats']}."]


def speed() -> list[str]:
    """Seconds of fitting 60 layers."""
    found = record("fit_speed")
    lines = [[name, f"{value:.2f}"] for name, value in found["median_seconds"].items()]
    lines.insert(0, ["first fit, with the tables of T_b", f"{found['first_fit_seconds']:.2f}"])
    return [*table(["60 layers", "seconds"], lines), *made_by("fit_speed")]


def control() -> list[str]:
    """Error rates and power of the random-weights control, by estimate of the seeds' variance."""
    with (RESULTS / "control_calibration.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"own": "own", "pooled": "pooled", "capped": "**pooled, capped**"}
    cells: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        kind = row["networks"].replace("simulated, ", "simulated, correlation ")
        shown = [percent(float(row[name])) for name in ("layer", "family", "mean", "slope")]
        cells.setdefault((kind, row["n_seeds"], names[row["estimate"]]), []).extend(shown)
    rates = ["layer", "family", "mean", "slope"]
    head = ["networks", "seeds", "variance", *rates, *(f"{name}, effect" for name in rates)]
    (repeats,) = {row["repeats"] for row in rows}
    error = 100 * (0.05 * 0.95 / int(repeats)) ** 0.5
    return [
        *table(head, [[*key, *values] for key, values in cells.items()]),
        "",
        f"Per cent of {repeats} repeats; the standard error of a rate of 5 % is {error:.1f}.",
        "",
        "`python analyses/control_calibration.py`.",
    ]


PARTS: dict[str, Callable[[], list[str]]] = {
    "bias": bias,
    "coverage": coverage,
    "efficiency": efficiency,
    "outer": outer,
    "single": single,
    "forms": forms,
    "law": law,
    "power": power,
    "control": control,
    "others": others,
    "photographs": photographs,
    "speed": speed,
}
