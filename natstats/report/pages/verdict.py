"""The verdict as the report page shows it: this network, a law, other choices, influence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.influence import LeftOut
from natstats.law.law import (
    CLEAR_AICC,
    FEWEST_FOR_VERDICT,
    TREND_SHARE,
    Law,
    bare_p,
    format_p,
)
from natstats.law.specifications import AGREEMENT, Specifications
from natstats.law.trend import OUTCOMES, outcome_of
from natstats.law.verdict import Verdict
from natstats.numbers import change, change_cells, number, share
from natstats.report.figures.specifications import CHOICE_NAMES, choice_value

__all__ = [
    "departure_rows",
    "influence_rows",
    "influence_sentence",
    "law_facts",
    "network_facts",
    "outcome_rows",
    "shapes_sentence",
    "verdict_contents",
    "verdict_meanings",
]


VERDICT_MEANINGS = {
    "linear law": "Both tests find that the exponent rises with depth, and no other shape is "
    "clearly better than a line.",
    "rises": "Both tests find that the exponent rises with depth, but not along a line.",
    "falls": "Both tests find that the exponent falls with depth.",
    "no trend": "The tests find no trend, and no slope inside the interval would explain more than "
    f"{100 * TREND_SHARE:g} % of the variance of the exponents.",
    "depends on the specification": f"Fewer than {100 * AGREEMENT:g} % of the specifications find "
    "what the one that was asked for finds.",
    "too little to tell": "The tests find no trend, but the interval of the slope has room for one "
    f"that would explain more than {100 * TREND_SHARE:g} % of the variance of the exponents. That "
    "can be with many layers, too, because neighbours that leave the line together tell less than "
    f"as many apart. The same is said with fewer than {FEWEST_FOR_VERDICT} groups of images, or "
    "too few layers.",
}
"""Why a law has its verdict, for each of :data:`natstats.law.law.VERDICTS`."""


def verdict_meanings(verdicts: Iterable[str]) -> list[tuple[str, str]]:
    """Those of these verdicts that have a meaning here, each once, in the usual order.

    >>> [word for word, _ in verdict_meanings(["falls", "undecided", "rises", "falls"])]
    ['rises', 'falls']
    """
    found = {*verdicts}
    return [(word, meaning) for word, meaning in VERDICT_MEANINGS.items() if word in found]


def verdict_contents(verdict: Verdict) -> dict[str, Any]:
    """What the template asks for on the verdict; empty lists where there is no law."""
    law, found = verdict.law, verdict.specifications
    return {
        "verdict": law.verdict,
        "verdict_reason": VERDICT_MEANINGS.get(law.verdict, ""),
        "shapes_sentence": shapes_sentence(law),
        "network_facts": network_facts(law),
        "departures": departure_rows(law),
        "law_facts": law_facts(law),
        "n_specifications": len(found.rows),
        "specifications": f"The exponent {found.sentence()}." if found.rows else "",
        "agreement": f"{100 * AGREEMENT:g} %",
        "outcome_columns": ["choice", *OUTCOMES, "specifications"],
        "outcome_rows": outcome_rows(found),
        "influence": influence_sentence(verdict),
        "influence_rows": influence_rows(verdict),
    }


def network_facts(law: Law) -> list[tuple[str, str]]:
    """This network described: name and value."""
    if law.network is None:
        return []
    found = law.network
    best = "not available"
    if found.shape:
        # A constant explains nothing, but for rounding.
        explained = found.shape_share if found.shape != "constant" else 0.0
        best = f"{found.shape}, {share(explained)}"
    return [
        (
            f"least-squares slope {DEPTH_AXES[law.depth].per}: all layers weigh the same",
            change(found.slope, found.slope_low, found.slope_high),
        ),
        ("share of the variance that the line explains", share(found.line_share)),
        ("share that the best shape by AICc explains", best),
    ]


def departure_rows(law: Law) -> list[tuple[str, str, str]]:
    """The layers farthest from the line of this network: name, distance and its interval."""
    if law.network is None:
        return []
    return [
        (one.layer, *change_cells(one.value, one.low, one.high, 2))
        for one in law.network.departures
    ]


def law_facts(law: Law) -> list[tuple[str, str]]:
    """The layers as a sample: name and value."""
    if not np.isfinite(law.slope):
        return []
    phi = change(law.correlation, law.correlation_low, law.correlation_high, 2)
    return [
        (
            f"slope of the law {DEPTH_AXES[law.depth].per}: correlated layers weigh less",
            change(law.slope, law.slope_low, law.slope_high),
        ),
        ("test that the slope is zero", f"p {format_p(law.trend_p)}"),
        ("the same by ranks, which no single layer can dominate", f"p {format_p(law.rank_p)}"),
        (
            "correlation φ of neighbours in what the line leaves",
            phi,
        ),
        (
            "share of what the line leaves that maps of one size have in common",
            share(law.stage_share),
        ),
    ]


def outcome_rows(found: Specifications) -> list[tuple[str, ...]]:
    """A value of a choice, how many specifications have each outcome, and how many there are."""
    rows: list[tuple[str, ...]] = []
    for choice, name in CHOICE_NAMES.items():
        by_value: dict[str, Counter[str]] = {}
        for row in found.rows:
            by_value.setdefault(getattr(row, choice), Counter())[row.outcome] += 1
        for value, counts in by_value.items():
            numbers = [str(counts[outcome]) for outcome in OUTCOMES]
            label = f"{name}: {choice_value(choice, value)}"
            rows.append((label, *numbers, str(sum(counts.values()))))
    return rows


def influence_sentence(verdict: Verdict) -> str:
    """What was left out, and whether it changes what is found; empty where there is no law."""
    law = verdict.law
    if not np.isfinite(law.slope):
        return ""
    start = (
        f"With all {law.n_layers} layers and the choices that were asked for, the tests find: "
        f"{_outcome(law)}."
    )
    if not verdict.left_out:
        return f"{start} With so few layers none can be left out."
    tried = _tried(verdict.left_out)
    if not verdict.changing:
        text = f"{start} Leaving out {tried} does not change that."
        if law.verdict == "depends on the specification":
            text += " What changes it are the other choices above, and so the verdict names these."
        return text
    return f"{start} Leaving out {tried} in turn changes that in these cases:"


def _outcome(law: Law) -> str:
    return outcome_of(law.slope, law.trend_p, law.rank_p)


def _tried(left_out: Sequence[LeftOut]) -> str:
    counts = Counter(one.what for one in left_out)
    words = {
        "layer": "any one layer",
        "stage": "the maps of any one size",
        "kind": "any one kind of layer",
        "few rings": "the layers of few rings",
    }
    told = [words.get(what, what) for what in counts]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} or {told[-1]}"


def shapes_sentence(law: Law) -> str:
    """What the comparison of shapes means for the verdict; empty where none was made."""
    if law.best_shape is None or not np.isfinite(law.shapes.get("linear", np.nan)):
        return ""
    gap = law.shapes["linear"] - law.shapes[law.best_shape]
    rule = (
        "The tests say whether the exponent rises or falls. If they say that it rises, another "
        f"shape that is better than the line by more than {CLEAR_AICC:g} makes the verdict “rises” "
        "in place of “linear law”; it cannot make a trend of none."
    )
    if law.best_shape in ("linear", "constant") or gap <= CLEAR_AICC:
        return rule
    here = f"Here the shape {law.best_shape} is better than the line by {number(gap, 1)}"
    if law.verdict == "rises":
        return f"{rule} {here}, and so the verdict speaks of no line."
    return (
        f"{rule} {here}: a line describes this network badly, whatever the verdict on a trend is."
    )


def influence_rows(verdict: Verdict) -> list[tuple[str, ...]]:
    """What changes the outcome when it is left out, below a row for nothing left out."""
    law = verdict.law
    if not verdict.changing:
        return []
    whole = ("nothing", law.n_layers, law.slope, law.trend_p, law.rank_p, _outcome(law))
    others = [
        (one.name, one.n_layers, one.slope, one.p, one.rank_p, one.outcome)
        for one in verdict.changing
    ]
    return [
        (name, str(n), number(slope, 4, sign=True), bare_p(p), bare_p(by_rank), outcome)
        for name, n, slope, p, by_rank, outcome in (whole, *others)
    ]
