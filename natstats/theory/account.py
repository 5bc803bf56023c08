"""The account of a network: where the exponent of each layer comes from.

From the images to a layer the exponent changes step by step, and the steps add up: that is exact,
as each begins where the one before ended. What theory predicts of a step divides its change further
(:mod:`natstats.theory.account_spectra` names the predicted spectra):

    convolution   kernels = independent - before, strides = strided - independent,
                  borders = after - linear, correlations = the rest of the change;
    rectifier     the Gaussian part, and the rest;
    addition      the sum of independent summands, and their cross terms;
    pooling       the average, and the rest.

Every number is the exponent of a spectrum, fitted as the layers of the run are. Where causes act
together, how the change is divided between them is a convention: kernels count before strides, and
channels count as independent before their correlations are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.bands import band_of
from natstats.fits.estimators import ESTIMATORS
from natstats.fits.exponents import exponent_and_deviations
from natstats.fits.held_bands import NOWHERE, held_band
from natstats.fits.intervals import jackknife_deviations
from natstats.fits.options import FitOptions
from natstats.law.differences import Estimate
from natstats.theory.account_spectra import AccountSpectra, GaussianPart, State, Step
from natstats.theory.shares import Share, Shares

__all__ = ["CAUSES", "Account", "fit_account"]

CAUSES = {
    "kernels": "kernels",
    "correlations": "correlations of channels",
    "borders": "borders",
    "strides": "strides",
    "rectifiers": "rectifiers",
    "norms": "norms",
    "pooling": "pooling",
    "additions": "additions",
    "concatenations": "concatenations",
    "gates": "gates",
    "attention": "attention",
    "convolutions": "convolutions (not parted)",
    "other": "other operations",
}
"""The causes that shares are put down to, and what they are called in sentences."""

_CAUSE_OF = {
    "convolution": "convolutions", "linear": "convolutions", "rectifier": "rectifiers",
    "normalization": "norms", "pooling": "pooling", "addition": "additions",
    "concatenation": "concatenations", "gate": "gates", "attention": "attention",
}  # fmt: skip

ROUNDING = 1e-12
"""A share below this is zero but for rounding."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Fitted:
    """An exponent with its deviations, (G,)."""

    value: float
    deviations: Array

    def less(self, other: _Fitted) -> _Fitted:
        return _Fitted(self.value - other.value, self.deviations - other.deviations)


class Account:
    """The account of one network.

    Args:
        spectra: what was measured.
        options: how to fit.

    Attributes:
        spectra: what was measured.
        options: how it is fitted.
        steps: the steps whose ends both have an exponent and that are reached from the images by
            such steps, in the order of execution.
        shares: the shares of all steps.
    """

    def __init__(self, spectra: AccountSpectra, options: FitOptions) -> None:
        self.spectra, self.options = spectra, options
        self._fits: dict[int, _Fitted] = {}
        reached = {0} if spectra.states and self._is_known(0) else set()
        steps = []
        for step in spectra.steps:
            if step.before in reached and self._is_known(step.after):
                reached.add(step.after)
                steps.append(step)
        self.steps: tuple[Step, ...] = tuple(steps)
        self._n_blocks = max(
            (len(s.gaussian.count) for s in steps if s.gaussian is not None), default=1
        )
        parted = [one for place in range(len(steps)) for one in self._parts(place)]
        block_of = spectra.block_of(self._n_blocks)
        self.shares = Shares(parted, block_of, options.level)

    def exponent(self, state: int) -> float:
        """Exponent of a state; NaN where it has none."""
        return self._fit(state).value

    def _fit(self, state: int) -> _Fitted:
        if state not in self._fits:
            self._fits[state] = self._fitted(self.spectra.states[state], None)
        return self._fits[state]

    def _fitted(self, state: State, chosen: NDArray[np.bool_] | None) -> _Fitted:
        spectrum = state.spectrum(chosen)
        return _Fitted(*exponent_and_deviations(spectrum, self.options, state.span))

    def _is_known(self, state: int) -> bool:
        return bool(np.isfinite(self.exponent(state)))

    def share_between(self, place: int, state: int, cause: str) -> Share:
        """The exponent of a state minus the one that a step starts from, as a share.

        Args:
            place: place of the step.
            state: number of the state, such as a predicted one of the step.
            cause: what to call it.
        """
        own = self._fit(state).less(self._fit(self.steps[place].before))
        return self._share(place, cause, "", own)

    def _share(
        self, place: int, cause: str, part: str, own: _Fitted, blocks: Array | None = None
    ) -> Share:
        blocks = np.zeros(self._n_blocks) if blocks is None else blocks
        if abs(own.value) < ROUNDING and not np.any(blocks):
            return Share(place, cause, part, 0.0, np.zeros_like(own.deviations), blocks)
        return Share(place, cause, part, own.value, own.deviations, blocks)

    def _parts(self, place: int) -> Iterator[Share]:
        """The shares of one step."""
        step = self.steps[place]
        change = self._fit(step.after).less(self._fit(step.before))
        found: list[Share] = []
        if step.kind in ("convolution", "linear"):
            found = self._parts_of_convolution(place, step, change)
        elif step.kind == "rectifier" and step.gaussian is not None:
            found = self._parts_of_rectifier(place, step, change)
        elif step.kind in ("addition", "pooling"):
            names = {
                "addition": ("sum", "independent", "cross terms"),
                "pooling": ("average", "average", "rest"),
            }
            state, first, second = names[step.kind]
            if state in step.predictions and self._is_known(step.predictions[state]):
                own = self._fit(step.predictions[state]).less(self._fit(step.before))
                cause = _CAUSE_OF[step.kind]
                found = [
                    self._share(place, cause, first, own),
                    self._share(place, cause, second, change.less(own)),
                ]
        if not found:
            found = [self._share(place, _CAUSE_OF.get(step.kind, "other"), "", change)]
        yield from found

    def _parts_of_convolution(self, place: int, step: Step, change: _Fitted) -> list[Share]:
        states = step.predictions
        names = [name for name in ("independent", "strided") if name in states]
        if not names or not all(self._is_known(states[name]) for name in names):
            return []
        before, independent = self._fit(step.before), self._fit(states["independent"])
        kernels = independent.less(before)
        found, rest = [self._share(place, "kernels", "", kernels)], change.less(kernels)
        if "strided" in states:
            strides = self._fit(states["strided"]).less(independent)
            found.append(self._share(place, "strides", "", strides))
            rest = rest.less(strides)
        if "linear" in states:
            borders = self._borders(step)
            if not np.isfinite(borders.value):
                return [*found, self._share(place, "correlations", "with borders", rest)]
            found.append(self._share(place, "borders", "", borders))
            rest = rest.less(borders)
        return [*found, self._share(place, "correlations", "", rest)]

    def _borders(self, step: Step) -> _Fitted:
        """Measured exponent minus that of the convolution on the torus, from the same images."""
        linear = self.spectra.states[step.predictions["linear"]]
        chosen = linear.count > 0
        if np.array_equal(chosen, self.spectra.states[step.after].count > 0):
            return self._fit(step.after).less(self._fit(step.predictions["linear"]))
        measured = self._fitted(self.spectra.states[step.after], chosen)
        return measured.less(self._fit(step.predictions["linear"]))

    def _parts_of_rectifier(self, place: int, step: Step, change: _Fitted) -> list[Share]:
        assert step.gaussian is not None
        value, blocks = self._gaussian(step.gaussian, self.spectra.states[step.before])
        if not np.isfinite(value) or not np.all(np.isfinite(blocks)):
            return []
        blocks = np.pad(blocks, (0, self._n_blocks - len(blocks)))
        still = np.zeros_like(change.deviations)
        rest = _Fitted(change.value - value, change.deviations)
        return [
            self._share(place, "rectifiers", "Gaussian", _Fitted(value, still), blocks),
            self._share(place, "rectifiers", "rest", rest, -blocks),
        ]

    def _gaussian(self, part: GaussianPart, state: State) -> tuple[float, Array]:
        """Change of the exponent by Gaussian theory, and its deviations by block."""
        held = held_band(self.options.band, state.spectrum(), state.span)
        band = band_of(state.height, state.width, state.edges, *(held or NOWHERE))
        rows = [one[:, band.inside] for one in (part.before, part.after)]
        if band.n_rings < self.options.min_rings or not all(np.all(one > 0) for one in rows):
            return np.nan, np.zeros(0)
        estimator = ESTIMATORS[self.options.estimator]
        before, after = (estimator.estimate(band, one) for one in rows)
        change, filled = after - before, part.count > 0
        deviations = np.zeros(len(filled))
        deviations[filled] = jackknife_deviations(
            change[0],
            change[1:][filled],
            part.count[filled].astype(np.float64),
            self.options.stopped,
        )
        return float(change[0]), deviations

    @cached_property
    def _parent(self) -> dict[int, int]:
        """The step before each step, by place; none for those that begin at the images."""
        ends = {step.after: place for place, step in enumerate(self.steps)}
        return {
            place: ends[step.before] for place, step in enumerate(self.steps) if step.before in ends
        }

    def way_to(self, place: int) -> list[int]:
        """Places of the steps from the images to the end of a step."""
        way = [place]
        while way[-1] in self._parent:
            way.append(self._parent[way[-1]])
        return way[::-1]

    @cached_property
    def trunk(self) -> list[int]:
        """Places of the steps of the trunk, as far as exponents are known."""
        places = [place for place, step in enumerate(self.steps) if step.is_trunk]
        return self.way_to(places[-1]) if places else []

    @cached_property
    def place_of_layer(self) -> dict[str, int]:
        """Place of the step that ends at a layer, by the layer's name."""
        return {name: place for place, step in enumerate(self.steps) for name in step.layers}

    def weights_of(self, places: Sequence[int]) -> Array:
        """Weights that add up the shares of some steps, (K,)."""
        wanted = set(places)
        return np.array([float(one.step in wanted) for one in self.shares.list])

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for every share: its step, its cause, its value and interval.

        Columns: step, layer (the first layer that the step leads to), operation, kind, module,
        depth, trunk, before and after (exponents), cause, part, share, low, high, p,
        kernel_exponent (exponent of white noise after the kernels alone, over the whole band and by
        octaves, whatever the options), shuffled_exponent (the same when the taps of each kernel are
        shuffled).
        """
        leads = self._leads_to()
        rows = []
        for one, own in zip(self.shares.list, self.shares.each(), strict=True):
            step = self.steps[one.step]
            rows.append(
                {
                    "step": step.name,
                    "layer": leads[one.step],
                    "operation": step.operation,
                    "kind": step.kind,
                    "module": step.module,
                    "depth": step.depth,
                    "trunk": one.step in self._on_trunk,
                    "before": self.exponent(step.before),
                    "after": self.exponent(step.after),
                    "cause": one.cause,
                    "part": one.part,
                    "share": own.value,
                    "low": own.low,
                    "high": own.high,
                    "p": own.p,
                    "kernel_exponent": step.kernel_exponent,
                    "shuffled_exponent": step.shuffled_exponent,
                }
            )
        return pd.DataFrame(rows, columns=_COLUMNS)

    @cached_property
    def _on_trunk(self) -> set[int]:
        return set(self.trunk)

    def _leads_to(self) -> list[str]:
        """The weight layer that each step leads to, that of the trunk where there are several."""
        found = [""] * len(self.steps)
        ends = {p for p, step in enumerate(self.steps) if step.kind in ("convolution", "linear")}
        for place in sorted(ends, key=lambda p: (p not in self._on_trunk, p)):
            for own in reversed(self.way_to(place)):
                if own != place and own in ends:
                    break
                found[own] = found[own] or self.steps[place].name
        return found

    @cached_property
    def totals(self) -> pd.DataFrame:
        """What each cause adds along the trunk: cause, share, low, high, p, n_steps."""
        trunk = self.weights_of(self.trunk)
        rows = []
        for cause in CAUSES:
            weights = trunk * self.shares.where(cause)
            if weights.any():
                own = self.shares.sum(weights)
                steps = {one.step for one, w in zip(self.shares.list, weights, strict=True) if w}
                rows.append([cause, own.value, own.low, own.high, own.p, len(steps)])
        return pd.DataFrame(rows, columns=["cause", "share", "low", "high", "p", "n_steps"])

    @property
    def change(self) -> Estimate:
        """Change of the exponent along the trunk."""
        return self.shares.sum(self.weights_of(self.trunk))

    @property
    def ends(self) -> tuple[float, float]:
        """Exponents of the images and of the last layer of the trunk."""
        if not self.trunk:
            return np.nan, np.nan
        first, last = self.steps[self.trunk[0]], self.steps[self.trunk[-1]]
        return self.exponent(first.before), self.exponent(last.after)

    def sentence(self) -> str:
        """Where the exponent of the last layer comes from, in a sentence.

        Causes are named by size; the smallest, less than a twentieth in all, are only added up.
        """
        if not self.trunk:
            return "Account: no way from the images to a layer has exponents all along."
        first, last = self.ends
        shares = self.totals.set_index("cause").share
        ordered = shares.reindex(shares.abs().sort_values(ascending=False, kind="stable").index)
        size = ordered.abs()
        kept = ordered[(size.cumsum() - size) < 0.95 * size.sum()]
        listed = ", ".join(
            f"{CAUSES[str(cause)]} {_signed(value)}" for cause, value in kept.items()
        )
        rest = (
            "" if len(kept) == len(ordered) else f", the rest {_signed(ordered.sum() - kept.sum())}"
        )
        return (
            f"From {first:.2f} in the images to {last:.2f} in {self.steps[self.trunk[-1]].name}: "
            f"{listed}{rest}."
        )


_COLUMNS = [
    "step", "layer", "operation", "kind", "module", "depth", "trunk", "before", "after", "cause",
    "part", "share", "low", "high", "p", "kernel_exponent", "shuffled_exponent",
]  # fmt: skip


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def fit_account(
    spectra: AccountSpectra | None, options: FitOptions | None = None
) -> Account | None:
    """Fit what was measured for an account; None where nothing was."""
    return None if spectra is None else Account(spectra, options or FitOptions())
