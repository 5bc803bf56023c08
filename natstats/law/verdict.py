"""The verdict on the depth law of one network: what, how sure, and on what it depends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.fits.exponents import FEW_RINGS
from natstats.fits.options import FitOptions
from natstats.law.influence import LeftOut, leave_out
from natstats.law.law import FEWEST_FOR_VERDICT, Law, format_p
from natstats.law.specifications import AGREEMENT, Specifications, try_all
from natstats.law.trend import outcome_of, usable_layers
from natstats.numbers import change, counted, map_size, number, share
from natstats.spectra.records import LayerSpectrum

__all__ = ["HEADLINES", "Verdict", "headline", "judge"]

Array = NDArray[np.float64]

HEADLINES = {
    "linear law": "The exponent rises linearly with {}",
    "rises": "The exponent rises with {}",
    "falls": "The exponent falls with {}",
    "no trend": "No trend with {}",
    "depends on the specification": "It depends on the specification whether the exponent changes "
    "with {}",
    "too little to tell": "Too little to tell whether the exponent changes with {}",
}
"""What stands above a report, for each of :data:`natstats.law.law.VERDICTS`."""


def headline(law: Law) -> str:
    """A verdict in a few words.

    >>> from natstats.law.law import fit_law
    >>> headline(fit_law([], [], np.zeros((0, 0)), []))
    'Too little to tell whether the exponent changes with depth'
    """
    return HEADLINES[law.verdict].format(DEPTH_AXES[law.depth].name)


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """The verdict with all that it rests on.

    Attributes:
        law: the law under the specification that was asked for; its verdict takes the others into
            account.
        specifications: the trend under other reasonable choices.
        left_out: the trend without each layer, map size and kind.
    """

    law: Law
    specifications: Specifications
    left_out: Sequence[LeftOut]

    @property
    def word(self) -> str:
        """One of :data:`natstats.law.law.VERDICTS`."""
        return self.law.verdict

    @cached_property
    def changing(self) -> list[LeftOut]:
        """The layers and groups of layers without which the outcome would be another."""
        return [one for one in self.left_out if one.is_changed]

    def lines(self) -> list[str]:
        """At most three short lines: what, how sure, and on what it depends."""
        law = self.law
        if not np.isfinite(law.slope):
            return [law.sentence()]
        measure, found = DEPTH_AXES[law.depth], self.specifications
        slope = change(law.slope, law.slope_low, law.slope_high)
        told = found.sentence() if found.rows else ""
        if self.word == "depends on the specification":
            first = f"{_capital(self.word)}: the exponent {told}"
            told = ""
        else:
            first = f"{headline(law)}: {slope} {measure.briefly}, {counted(law.n_layers, 'layer')}"
            slope = ""
        sure = [
            *([f"slope {slope} {measure.briefly}"] if slope else []),
            f"p {format_p(law.trend_p)}, by ranks {format_p(law.rank_p)}",
            f"correlation of neighbours {number(law.correlation)}",
        ]
        if law.network is not None:
            sure.append(f"a line explains {share(law.network.line_share)} of the variance")
        depends = [part for part in (_capital(told), self._hinges()) if part]
        how_sure = ", ".join(sure)
        lines = (first, how_sure if slope else f"Test: {how_sure}", _capital("; ".join(depends)))
        return [f"{_capital(line)}." for line in lines if line]

    def _hinges(self) -> str:
        """Layers without which the outcome would be another, and the choice that matters most."""
        law = self.law
        parts = [_without(self.changing)] if self.changing else []
        if self.word == "depends on the specification":
            outcome = outcome_of(law.slope, law.trend_p, law.rank_p)
            parts.append(self.specifications.hinge(_commonest(self.specifications, outcome)))
        return "; ".join(part for part in parts if part)

    def __repr__(self) -> str:
        return f"<Verdict: {self.lines()[0].removesuffix('.')}>"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for law.json."""
        found = self.specifications
        return {
            **self.law.to_dict(),
            "specifications": {
                "n": len(found.rows),
                "outcomes": dict(found.counts),
                "sentence": found.sentence() if found.rows else "",
            },
            "influence": [asdict(one) for one in self.left_out],
        }


def _commonest(found: Specifications, outcome: str) -> str:
    """The trend that most specifications find, or what was found with the one asked for."""
    trends = {one: found.counts[one] for one in ("rises", "falls")}
    most = max(trends, key=lambda one: trends[one])
    return most if trends[most] else outcome


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _without(changing: Sequence[LeftOut]) -> str:
    """What would be found without some layers, in words.

    >>> _without([LeftOut("layer", "conv1", 9, 0.1, 0.01, 0.01, "rises", True)])
    'without conv1 it rises'
    """
    names = [one.name for one in changing]
    more = len(names) - 3
    others = f" or {more} {'other' if more == 1 else 'others'}" if more > 0 else ""
    found = {"rises": "it rises", "falls": "it falls", "no trend": "there is no trend"}
    outcomes = " or ".join(found[one] for one in dict.fromkeys(one.outcome for one in changing))
    return f"without {' or '.join(names[:3])}{others} {outcomes}"


def judge(
    law: Law,
    layers: Sequence[LayerSpectrum],
    table: pd.DataFrame,
    deviations: Array,
    options: FitOptions,
    depths: Mapping[str, Array] | None = None,
) -> Verdict:
    """Try the law of a network under other choices, and without some of its layers.

    Args:
        law: the law under the options.
        layers: spectra of the layers in the law.
        table: a row for each of them, the columns of ``layers.csv``.
        deviations: of their exponents as each group of images is left out, (G, L).
        options: what was asked for.
        depths: of these layers, (L,), by the name of the measure; by default those of the table.
    """
    if not np.isfinite(law.slope):
        return Verdict(law, Specifications([]), [])
    outcome = outcome_of(law.slope, law.trend_p, law.rank_p)
    depths = depths or {name: axis.values(table) for name, axis in DEPTH_AXES.items()}
    found = try_all(layers, table, options, depths)
    sizes = [map_size(h, w) for h, w in zip(table.height, table.width, strict=True)]
    usable = usable_layers(
        depths[options.depth],
        table.exponent.to_numpy(float),
        deviations,
        sizes,
        table.layer.tolist(),
    )
    left_out = leave_out(usable, _groups(table, sizes), outcome)
    # With too few groups of images it stays "too little to tell" under every specification.
    if len(usable.deviations) >= FEWEST_FOR_VERDICT and found.agreement(outcome) < AGREEMENT:
        law = replace(law, verdict="depends on the specification")
    return Verdict(law, found, left_out)


def _groups(
    table: pd.DataFrame, sizes: Sequence[str]
) -> Mapping[tuple[str, str], NDArray[np.bool_]]:
    """Layers that are left out together, by what they are and their name."""
    names = table.layer.tolist()
    groups = {("layer", name): np.array([own == name for own in names]) for name in names}
    if len(set(sizes)) > 1:
        for size in dict.fromkeys(sizes):
            chosen = np.array([own == size for own in sizes])
            groups["stage", f"the {counted(chosen.sum(), 'layer')} with maps of {size}"] = chosen
    if table.kind.nunique() > 1:
        for kind in dict.fromkeys(table.kind):
            chosen = (table.kind == kind).to_numpy()
            groups["kind", f"the {counted(chosen.sum(), f'{kind} layer')}"] = chosen
    few = (table.n_rings < FEW_RINGS).to_numpy()
    if few.any():
        groups["few rings", f"the {counted(few.sum(), 'layer')} of few rings"] = few
    return groups
