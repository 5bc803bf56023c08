"""What the exponents would be if kernels or rectifiers were different, predicted from the account.

The prediction is of *first order*: one share of each step is replaced by another one, and all other
shares stay as they were measured. In a network that is really changed they would change, too, as
the maps that come in would be different; :mod:`natstats.networks.shuffled_weights` makes such
networks, to be measured. There, single steps are as predicted from what comes in, but whole trunks
are not (analyses/theory_counterfactual.py): a predicted slope says how much a share matters in the
network as it is, and is not a forecast. What is replaced:

    same-rectifiers    the share of each rectifier, by the mean over those of the trunk;
    first-kernels      the share of the kernels of each convolution, by that of the first;
    shuffle-kernels    the same, by exponent(taps of each kernel shuffled) - before;
    shuffle-channels   the shares of kernels and of the correlations of channels, by
                       exponent(input channels shuffled) - before.

The power after shuffled weights is its mean over all orders. Each predicted exponent is a weighted
sum of shares, and so has an interval for other images of the same sort.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.differences import Estimate
from natstats.text import few
from natstats.theory.account_law import AccountLaw
from natstats.theory.shares import Share, Shares

__all__ = ["COUNTERFACTUALS", "Counterfactual", "Counterfactuals"]

COUNTERFACTUALS = {
    "same-rectifiers": "every rectifier taking the same",
    "first-kernels": "kernels that do what the first do",
    "shuffle-kernels": "the taps of each kernel shuffled",
    "shuffle-channels": "the input channels of each convolution shuffled",
}
"""What can be predicted, and what it is called in sentences."""

_SHUFFLED = {
    "shuffle-kernels": ("shuffled kernels", ("kernels",)),
    "shuffle-channels": ("shuffled channels", ("kernels", "correlations")),
}
"""The predicted state of a step, and the causes whose shares it replaces."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """What the exponents would be under one counterfactual, to first order.

    Attributes:
        name: one of :data:`COUNTERFACTUALS`.
        weights: of the shares and of those that replace them, for every layer, (L, M).
        kept: names of steps on the way to a layer that should change, but stay as they were
            measured, as nothing is predicted of them.
    """

    name: str
    weights: Array
    kept: tuple[str, ...]


class Counterfactuals:
    """All counterfactuals of a network, to first order.

    Args:
        law: the law from its account.

    Attributes:
        law: as given.
    """

    def __init__(self, law: AccountLaw) -> None:
        self.law, self.account, self.ways = law, law.account, law.ways

    @cached_property
    def _parted(self) -> frozenset[int]:
        """Places of the steps whose kernels have a share of their own."""
        return frozenset(one.step for one in self.account.shares.list if one.cause == "kernels")

    @cached_property
    def _convolutions(self) -> list[int]:
        """Places of the convolutions and linear layers on the way to a layer of the law."""
        used = np.flatnonzero(self.ways.any(axis=0))
        places = sorted({self.account.shares.list[number].step for number in used})
        kinds = ("convolution", "linear")
        return [place for place in places if self.account.steps[place].kind in kinds]

    @cached_property
    def _stand_ins(self) -> dict[str, dict[int, Share]]:
        """What the kernels of each step would do when shuffled, by counterfactual and place."""
        account = self.account
        found: dict[str, dict[int, Share]] = {}
        for name, (prediction, _) in _SHUFFLED.items():
            found[name] = {}
            for place in self._convolutions:
                state = account.steps[place].predictions.get(prediction)
                if state is not None and place in self._parted:
                    own = account.share_between(place, state, prediction)
                    if np.isfinite(own.value):
                        found[name][place] = own
        return found

    @cached_property
    def _shares(self) -> Shares:
        """The shares of the account, then those that replace some of them, M in all."""
        own = self.account.shares
        more = [one for found in self._stand_ins.values() for one in found.values()]
        return Shares([*own.list, *more], own.block_of, own.level)

    @cached_property
    def each(self) -> tuple[Counterfactual, ...]:
        """The counterfactuals for which something can be predicted."""
        made = [self._same_rectifiers(), self._first_kernels(), *map(self._shuffled, _SHUFFLED)]
        return tuple(one for one in made if one is not None)

    @cached_property
    def _plain(self) -> Array:
        """:attr:`ways`, with no weight for the shares that replace others, (L, M)."""
        return np.pad(self.ways, ((0, 0), (0, len(self._shares) - self.ways.shape[1])))

    def _same_rectifiers(self) -> Counterfactual | None:
        """Every rectifier takes the mean over those of the trunk."""
        account, where = self.account, self.account.shares.where("rectifiers")
        trunk = [place for place in account.trunk if account.steps[place].kind == "rectifier"]
        if not trunk:
            return None
        mean = account.weights_of(trunk) * where / len(trunk)
        return self._all_alike("same-rectifiers", where, mean, [])

    def _first_kernels(self) -> Counterfactual | None:
        """The kernels of every convolution change the exponent as those of the first do."""
        account, where = self.account, self.account.shares.where("kernels")
        first = next((place for place in account.trunk if place in self._parted), None)
        if first is None:
            return None
        unparted = [place for place in self._convolutions if place not in self._parted]
        return self._all_alike(
            "first-kernels", where, account.weights_of([first]) * where, unparted
        )

    def _all_alike(
        self, name: str, where: NDArray[np.bool_], instead: Array, kept: list[int]
    ) -> Counterfactual:
        """Some shares (K,) replaced, step by step, by one and the same sum of shares, (K,)."""
        steps = np.array([one.step for one in self.account.shares.list])
        n_steps = [len(set(steps[(way != 0) & where])) for way in self.ways]
        weights = self._plain.copy()
        weights[:, : len(where)] = self.ways * ~where + np.outer(n_steps, instead)
        return Counterfactual(name, weights, self._named(kept))

    def _shuffled(self, name: str) -> Counterfactual | None:
        """The shares of kernels replaced by what shuffled ones would do."""
        (_, causes), stand_ins = _SHUFFLED[name], self._stand_ins[name]
        if not stand_ins:
            return None
        number_of = {id(one): number for number, one in enumerate(self._shares.list)}
        weights = self._plain.copy()
        for number, one in enumerate(self.account.shares.list):
            if one.step in stand_ins and one.cause in causes:
                weights[:, number_of[id(stand_ins[one.step])]] = self.ways[:, number]
                weights[:, number] = 0.0
        kept = [place for place in self._convolutions if place not in stand_ins]
        if name == "shuffle-kernels":  # kernels of one tap have nothing to shuffle
            kept = [place for place in kept if not self._has_one_tap(place)]
        return Counterfactual(name, weights, self._named(kept))

    def _has_one_tap(self, place: int) -> bool:
        step = self.account.steps[place]
        return place in self._parted and "shuffled kernels" not in step.predictions

    def _named(self, places: list[int]) -> tuple[str, ...]:
        return tuple(self.account.steps[place].name for place in places)

    @cached_property
    def exponents(self) -> pd.DataFrame:
        """Exponents of the layers, measured and predicted: a row for every layer.

        Columns: layer, depth, exponent (measured), and one for each counterfactual.
        """
        law, value = self.law, self._shares.value
        images = self.account.exponent(0) if law.layers else np.nan
        columns = {one.name: images + one.weights @ value for one in self.each}
        measured = {"layer": law.layers, "depth": law.depth, "exponent": law.exponents}
        return pd.DataFrame({**measured, **columns})

    @cached_property
    def slope_of(self) -> dict[str, tuple[Estimate, Estimate]]:
        """The slope under each, and its difference from the measured one of the same images."""
        line = self.law.slope_weights
        if line is None:
            return {}
        measured = line @ self._plain
        found = {}
        for one in self.each:
            weights = line @ one.weights
            apart = weights - measured
            apart[np.abs(apart) < 1e-12 * np.abs(measured).max()] = 0.0  # zero but for rounding
            found[one.name] = self._shares.sum(weights), self._shares.sum(apart)
        return found

    @property
    def slopes(self) -> pd.DataFrame:
        """Slopes of the exponents, measured and predicted.

        Columns: name (``measured``, then counterfactuals), slope, low, high, difference (from the
        measured slope), difference_low, difference_high, p (that the difference is zero).
        """
        rows = []
        if self.law.slope_of:
            own = self.law.slope_of["all"]
            rows.append(["measured", own.value, own.low, own.high, *[np.nan] * 4])
        for name, (slope, apart) in self.slope_of.items():
            ends = [slope.value, slope.low, slope.high, apart.value, apart.low, apart.high]
            rows.append([name, *ends, apart.p])
        columns = ["name", "slope", "low", "high", "difference"]
        columns += ["difference_low", "difference_high", "p"]
        return pd.DataFrame(rows, columns=columns)

    def sentence(self) -> str:
        """The predicted slopes in words; empty where there is none."""
        if not self.slope_of:
            return ""
        listed = [
            f"with {COUNTERFACTUALS[one.name]} {self.slope_of[one.name][0].text()}"
            + (f" ({few(one.kept)} as measured)" if one.kept else "")
            for one in self.each
        ]
        return (
            f"Predicted slopes {DEPTH_AXES[self.law.measure].per}, to first order, all other "
            f"shares as they were measured: {'; '.join(listed)}; measured "
            f"{self.law.slope_of['all'].text()}."
        )
