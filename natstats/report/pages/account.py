"""The account as the report page shows it: texts and numbers, no HTML."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.options import FitOptions
from natstats.law.law import bare_p
from natstats.numbers import change, number, short
from natstats.report.figures.account_totals import WHOLE
from natstats.report.figures.causes import ROUNDING, cause_name, share_text, without_rounding
from natstats.report.figures.kernels import convolutions, median_difference
from natstats.report.pages.page_tables import (
    Cell,
    Column,
    Table,
    interval_cell,
    number_cell,
    p_cell,
)
from natstats.report.records import AccountReport

__all__ = ["THEORY", "account_contents"]

THEORY = "https://github.com/natstats/natstats/blob/main/docs/theory.md"
"""Where the formulas are derived."""

MEANINGS = {
    "kernels": "what the transfer functions of the kernels do to the spectra of the incoming "
    "channels, as if channels were independent; a low-pass kernel raises the exponent",
    "correlations": "what changes because channels are not independent: they cancel at some "
    "frequencies and add up at others",
    "borders": "what padding at the edges of the maps does beyond that",
    "strides": "leaving out pixels, after the kernels: high frequencies fold onto low ones",
    "rectifiers": "activation functions; Gaussian is what they would do to Gaussian maps with the "
    "same means, variances and autocovariances, and the rest is due to what is not Gaussian in the "
    "maps",
    "norms": "channels get other weights in the mean spectrum",
    "pooling": "average is what a mean over the same windows would do",
    "additions": "another branch is added; independent is the sum of the spectra, and cross terms "
    "are what branches have in common",
    "concatenations": "the channels of another branch are appended",
    "gates": "maps are multiplied by others",
    "attention": "measured before and after, without theory",
    "convolutions": "convolutions, or products with weights, whose change could not be split",
    "other": "measured before and after, without theory",
}
"""What the causes are, in the words of the page."""

IF = {
    "measured": "as measured",
    "same-rectifiers": "every rectifier had the same share",
    "first-kernels": "all kernels did what the first ones do",
    "shuffle-kernels": "the taps of each kernel were shuffled",
    "shuffle-channels": "the channels that enter were shuffled",
}
"""Counterfactuals, after the word *if*."""


def account_contents(account: AccountReport | None, options: FitOptions) -> dict[str, Any]:
    """What the template asks for on the account.

    Args:
        account: the account; None where there is none.
        options: how it was fitted.
    """
    if account is None:
        return {"account": None}
    causes = [*account.totals.cause]
    return {
        "account": {
            "sentence": account.sentence,
            "note": [account.note] if account.note else [],
            "causes": [(cause_name(one), MEANINGS.get(one, "")) for one in causes],
            "theory": THEORY,
            "totals": total_rows(account),
            "kernels": kernels_sentence(account.frame),
            "slopes_sentence": account.slopes_sentence,
            "slopes": slope_rows(account.slopes),
            "per": DEPTH_AXES[options.depth].per,
            "counterfactuals": counterfactual_rows(account.counterfactual_slopes),
            "counterfactuals_sentence": account.counterfactuals_sentence,
            "difference_sentence": account.difference_sentence,
            "difference": difference_rows(account.difference),
            "steps": step_table(account.frame, options),
            **_counterfactual_layers(account.counterfactuals),
        }
    }


def total_rows(account: AccountReport) -> list[tuple[str, ...]]:
    """Cause, what it adds along the trunk with its interval, p, its parts, and in how many steps.

    The whole change comes last.
    """
    trunk = account.trunk
    rows = [
        (
            cause_name(row["cause"]),
            share_text(row["share"], row["low"], row["high"]),
            bare_p(row["p"]),
            _parts(trunk[trunk.cause == row["cause"]]),
            f"{row['n_steps']:d}",
        )
        for row in account.totals.to_dict("records")
    ]
    if not rows:
        return []
    whole = account.change
    n_steps = int((trunk[["step", "before", "after"]].drop_duplicates()).shape[0])
    text = change(whole.value, whole.low, whole.high, 2)
    return [*rows, ("whole change", text, bare_p(whole.p), "", f"{n_steps:d}")]


def _parts(own: pd.DataFrame) -> str:
    """The sums of the parts of a cause, where it has several."""
    sums = own.groupby("part", sort=False).share.sum()
    if len(sums) < 2:
        return ""
    named = [(str(part) or "not parted", without_rounding(value)) for part, value in sums.items()]
    return ", ".join(f"{part} {number(value, sign=True)}" for part, value in named)


def kernels_sentence(frame: pd.DataFrame) -> str:
    """How far predictions of what convolutions do are from what was measured."""
    found = convolutions(frame)
    if found.empty:
        return ""
    alone, n_alone = median_difference(found, "independent")
    sentences = [
        f"For half of the {n_alone} convolutions the kernels alone miss the measured change by "
        f"{number(alone)} or less."
    ]
    linear, n_linear = median_difference(found, "linear")
    if n_linear:
        apart = (found.linear - found.measured).abs()
        worst = found.iloc[int(np.nanargmax(apart.to_numpy()))]
        sentences.append(
            f"With the correlations of channels it is {number(linear)}, over the {n_linear} that "
            f"have a border; farthest off is {worst.layer}, by {number(apart.max())}."
        )
    return " ".join(sentences)


def slope_rows(slopes: pd.DataFrame | None) -> list[tuple[str, ...]]:
    """Cause, slope with its interval, p, and its share of the slope of the exponents."""
    if slopes is None:
        return []
    return [
        (
            "the exponents: all causes" if row["cause"] == WHOLE else cause_name(row["cause"]),
            change(row["slope"], row["low"], row["high"]),
            bare_p(row["p"]),
            _percent(row["share"]),
        )
        for row in slopes.to_dict("records")
    ]


def _percent(value: float) -> str:
    return f"{number(100 * value, 0)} %" if np.isfinite(value) else "–"


def counterfactual_rows(slopes: pd.DataFrame | None) -> list[tuple[str, ...]]:
    """The assumption, the slope under it, its difference from the measured slope, and p."""
    if slopes is None:
        return []
    return [
        (
            IF.get(row["name"], str(row["name"])),
            change(row["slope"], row["low"], row["high"]),
            change(row["difference"], row["difference_low"], row["difference_high"])
            if np.isfinite(row["difference"])
            else "–",
            bare_p(row["p"]),
        )
        for row in slopes.to_dict("records")
    ]


def _counterfactual_layers(layers: pd.DataFrame | None) -> dict[str, Any]:
    """Heads and rows of the exponents of every layer, measured and in each counterfactual."""
    if layers is None:
        return {"counterfactual_heads": [], "counterfactual_layers": []}
    names = [name for name in layers.columns if name not in ("layer", "depth", "exponent")]
    rows = [
        (
            str(row["layer"]),
            short(row["depth"]),
            number(row["exponent"]),
            *(number(row[name]) for name in names),
        )
        for row in layers.to_dict("records")
    ]
    heads = ["layer", "depth", IF["measured"], *(IF.get(name, str(name)) for name in names)]
    return {"counterfactual_heads": heads, "counterfactual_layers": rows}


def difference_rows(difference: pd.DataFrame | None) -> list[tuple[str, ...]]:
    """Cause, its total trained and with random weights, the difference with its interval, p."""
    if difference is None:
        return []
    return [
        (
            "whole change" if row["cause"] == WHOLE else cause_name(row["cause"]),
            number(without_rounding(row["trained"]), sign=True),
            number(without_rounding(row["random"]), sign=True),
            share_text(row["difference"], row["low"], row["high"]),
            bare_p(row["p"]),
        )
        for row in sorted(difference.to_dict("records"), key=lambda row: row["cause"] == WHOLE)
    ]


def step_table(frame: pd.DataFrame, options: FitOptions) -> Table:
    """The table of all steps, a row for every share."""
    level = f"{100 * options.level:g} %"
    columns = [
        Column("step", "layer or operation that the step ends at", False, "always"),
        Column("operation", "what is done to the maps", False, "wide"),
        Column("cause", "what the share is attributed to", False, "always"),
        Column("part", "which part of it", False, "wide"),
        Column("share", "of the change of the exponent", first="always"),
        Column(
            f"{level} interval", "from resampling the images; sorted by its lower end", first="wide"
        ),
        Column("p", "of the test that the share is zero", first="wide"),
        Column("before", "exponent before the step", first="wide"),
        Column("after", "exponent after the step", first="wide"),
        Column("depth", "weight layers on the longest path from the input"),
        Column("trunk", "yes if the step is on the path to the last layer", False),
        Column("leads to", "the next layer with weights", False),
        Column("kernels", "exponent of white noise after the kernels alone"),
    ]
    rows = []
    for row in frame.to_dict("records"):
        low = row["low"]
        has_error = np.isfinite(low) and row["high"] - low > ROUNDING
        rows.append(
            [
                Cell(str(row["step"])),
                Cell(str(row["operation"])),
                Cell(str(row["cause"])),
                Cell(str(row["part"])),
                number_cell(without_rounding(row["share"]), sign=True),
                interval_cell(low, row["high"], sign=True) if has_error else Cell("–"),
                p_cell(row["p"]) if has_error else Cell("–"),
                number_cell(row["before"]),
                number_cell(row["after"]),
                Cell(f"{row['depth']:d}", row["depth"]),
                Cell("yes" if row["trunk"] else "no"),
                Cell(str(row["layer"])),
                number_cell(row["kernel_exponent"]),
            ]
        )
    return Table("steps", "steps", columns, rows, frame, "account.csv")
