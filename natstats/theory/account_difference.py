"""Trained minus random weights in the account: which shares are due to training.

The account of the trained network is compared with accounts of the same architecture with random
weights of several seeds, from the same images in the same groups. Errors are those of
:mod:`natstats.runs.control`: the deviations of the images, paired, and the seeds, s^2 (1 + 1/n)
with n - 1 degrees of freedom, as the weights that training began from are one more draw.

Steps are matched by name. Sums along the trunk are over the steps that all accounts have, and
slopes are over the layers that all accounts have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.errors import UsageError
from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.differences import Differences, ErrorSource, Estimate, holm
from natstats.law.law import format_p
from natstats.law.seed_variance import pooled_seeds, seeds_as_source
from natstats.numbers import change, counted
from natstats.text import few
from natstats.theory.account import CAUSES, Account
from natstats.theory.account_law import AccountLaw, weights_of_slope
from natstats.theory.shares import Share, Shares

__all__ = ["FEWEST_SEEDS", "AccountDifference"]

FEWEST_SEEDS = 2
"""Fewest seeds: with fewer, nothing is known of how much they differ."""

Array = NDArray[np.float64]

_Key = tuple[str, str, str]
"""Name of a step, cause and part."""

_ByCause = dict[str, tuple[float, float, Estimate]]
"""Trained, with random weights, and the difference, by cause; the whole is called ``all``."""


class AccountDifference:
    """The account of a trained network minus that of random weights.

    Args:
        trained: of the trained network.
        random: of the same network with random weights, two seeds or more.
        layers: depth of each layer of the law, by name, see
            :class:`natstats.theory.account_law.AccountLaw`.
        measure: name of the measure of depth, for the sentence.

    Attributes:
        trained: as given.
        random: as given.
        measure: as given.
        steps: names of the steps of the trained trunk that all accounts have, in their order.
        missing: names of the steps of the trained network that are not in all of the others.
        only_random: names of the steps that only networks with random weights have.

    Raises:
        UsageError: there are fewer than two seeds, or an account is of other images or was fitted
            in another way.
    """

    def __init__(
        self,
        trained: Account,
        random: Sequence[Account],
        layers: Mapping[str, float] | None = None,
        measure: str = "layers",
    ) -> None:
        if len(random) < FEWEST_SEEDS:
            raise UsageError(
                f"random: expected accounts of at least {FEWEST_SEEDS} seeds; got {len(random)}"
            )
        for seed, one in enumerate(random):
            _refuse_other_images(trained, one, seed)
        self.trained, self.random, self.measure = trained, tuple(random), measure
        self._accounts = (trained, *random)
        self._law = AccountLaw(trained, layers, measure)
        names = [{step.name for step in one.steps} for one in self._accounts]
        common = set.intersection(*names)
        trunk = [trained.steps[place].name for place in trained.trunk]
        self.steps: tuple[str, ...] = tuple(name for name in trunk if name in common)
        own = [step.name for step in trained.steps]
        self.missing: tuple[str, ...] = tuple(name for name in own if name not in common)
        others = [step.name for one in random for step in one.steps if step.name not in names[0]]
        self.only_random: tuple[str, ...] = tuple(dict.fromkeys(others))

    @cached_property
    def _shares(self) -> Shares:
        """The shares of all accounts in one list, so that sums run over all of them."""
        n_blocks = max(
            (len(one.blocks) for a in self._accounts for one in a.shares.list), default=1
        )
        block_of = next(
            (a.shares.block_of for a in self._accounts if _n_blocks(a) == n_blocks),
            self.trained.shares.block_of,
        )
        padded = [
            Share(
                one.step, one.cause, one.part, one.value, one.groups,
                np.pad(one.blocks, (0, n_blocks - len(one.blocks))),
            )
            for account in self._accounts
            for one in account.shares.list
        ]  # fmt: skip
        return Shares(padded, block_of, self.trained.shares.level)

    def _images(self, weights: Sequence[Array]) -> Array:
        """Deviations of a sum of shares, trained minus the mean of the others, (g, 1).

        Args:
            weights: of the shares of each account.
        """
        n = len(self.random)
        signed = [weights[0], *(-own / n for own in weights[1:])]
        return self._shares.deviations(np.concatenate(signed))[:, None]

    def _sums(self, weights: Sequence[Array]) -> Array:
        """The sum of shares in each account, the trained one first, (1 + n,)."""
        pairs = zip(weights, self._accounts, strict=True)
        return np.array([own[own != 0] @ a.shares.value[own != 0] for own, a in pairs])

    def _difference(self, weights: Sequence[Array]) -> tuple[float, float, Estimate]:
        """A sum of shares: trained, with random weights, and the difference."""
        trained, *others = self._sums(weights)
        by_seed = np.array(others)[:, None]
        sources = [ErrorSource(self._images(weights)), seeds_as_source(by_seed)]
        value = np.array([trained - by_seed.mean()])
        (found,) = Differences(value, sources, self._shares.level).each()
        return float(trained), float(by_seed.mean()), found

    def _by_cause(self, weights: Sequence[Array]) -> _ByCause:
        """The sum of all shares, and those of each cause."""
        found = {"all": self._difference(weights)}
        for cause in CAUSES:
            pairs = zip(weights, self._accounts, strict=True)
            own = [weight * account.shares.where(cause) for weight, account in pairs]
            if any(one.any() for one in own):
                found[cause] = self._difference(own)
        return found

    def _trunk(self) -> list[Array]:
        """Weights that add up the shares of the common steps, for each account."""
        wanted = set(self.steps)
        return [
            np.array([float(a.steps[one.step].name in wanted) for one in a.shares.list])
            for a in self._accounts
        ]

    @cached_property
    def total_of(self) -> _ByCause:
        """What each cause adds along the trunk, and all of them together."""
        return self._by_cause(self._trunk())

    @property
    def totals(self) -> pd.DataFrame:
        """What each cause adds along the trunk; ``all``, the first, is the whole change.

        Columns: cause, trained, random (mean over seeds), difference, low, high, p.
        """
        return _frame(self.total_of)

    @cached_property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers of the law that all accounts have."""
        return tuple(
            name
            for name in self._law.layers
            if all(name in account.place_of_layer for account in self.random)
        )

    @cached_property
    def slope_of(self) -> _ByCause:
        """The slope of each cause over the common layers, and of all; empty with too few layers."""
        depth = dict(zip(self._law.layers, self._law.depth, strict=True))
        placed = {name: float(depth[name]) for name in self.layers}
        line = weights_of_slope(np.array(list(placed.values()), dtype=np.float64))
        if line is None:
            return {}
        return self._by_cause([line @ AccountLaw(a, placed).ways for a in self._accounts])

    @property
    def slopes(self) -> pd.DataFrame:
        """The slope of each cause over the common layers, with the columns of :attr:`totals`.

        ``all``, the first, is the slope of the exponents. Empty with too few layers.
        """
        return _frame(self.slope_of)

    @cached_property
    def shares(self) -> pd.DataFrame:
        """A row for every share of every step, matched by step, cause and part.

        Columns: step, operation, depth, trunk, cause, part, trained, random (mean over seeds),
        random_sd, difference, low, high, p, p_corrected (Holm), reason (why there is no
        difference). The variance of the seeds is moderated by that of the same part of other steps,
        as that of layers is (:mod:`natstats.law.seed_variance`).
        """
        numbers = self._numbers()
        keys = list(dict.fromkeys(key for own in numbers for key in own))
        found = self._each(keys, numbers)
        trunk = {self.trained.steps[place].name for place in self.trained.trunk}
        step_of = {s.name: s for account in reversed(self._accounts) for s in account.steps}
        rows = []
        for key in keys:
            pairs = zip(self._accounts, numbers, strict=True)
            values = [a.shares.value[own[key]].sum() if key in own else np.nan for a, own in pairs]
            step, one, random = step_of[key[0]], found[key], np.array(values[1:])
            rows.append(
                {
                    "step": step.name,
                    "operation": step.operation,
                    "depth": step.depth,
                    "trunk": step.name in trunk,
                    "cause": key[1],
                    "part": key[2],
                    "trained": values[0],
                    "random": random.mean(),
                    "random_sd": random.std(ddof=1),
                    "difference": one.value,
                    "low": one.low,
                    "high": one.high,
                    "p": one.p,
                    "p_corrected": np.nan,
                    "reason": _reason([key in own for own in numbers]),
                }
            )
        frame = pd.DataFrame(rows, columns=_COLUMNS)
        frame["p_corrected"] = holm(frame["p"].to_numpy(dtype=np.float64))
        return frame

    def _numbers(self) -> list[dict[_Key, list[int]]]:
        """Numbers of the shares of each step, cause and part, in every account.

        The parts of a cause are taken together where not all accounts know the same ones.
        """
        parts: list[dict[tuple[str, str], dict[str, int]]] = []
        for account in self._accounts:
            parts.append({})
            for number, one in enumerate(account.shares.list):
                key = account.steps[one.step].name, one.cause
                parts[-1].setdefault(key, {})[one.part] = number
        found: list[dict[_Key, list[int]]] = []
        for own in parts:
            found.append({})
            for key, by_part in own.items():
                if all(other.get(key, by_part).keys() == by_part.keys() for other in parts):
                    found[-1].update({(*key, part): [n] for part, n in by_part.items()})
                else:
                    found[-1][(*key, "")] = list(by_part.values())
        return found

    def _each(
        self, keys: Sequence[_Key], numbers: Sequence[Mapping[_Key, list[int]]]
    ) -> dict[_Key, Estimate]:
        """The difference of every share; NaN for one that an account does not have."""
        found = dict.fromkeys(keys, Estimate())
        alike: dict[tuple[str, str], list[_Key]] = {}
        for key in keys:
            if all(key in own for own in numbers):
                alike.setdefault(key[1:], []).append(key)
        for group in alike.values():
            values = np.array(
                [
                    [account.shares.value[own[key]].sum() for key in group]
                    for account, own in zip(self._accounts, numbers, strict=True)
                ]
            )
            side = np.array([self._side(numbers[0][key][0]) for key in group])
            seeds = pooled_seeds(values[1:], side)
            for place, key in enumerate(group):
                weights = [
                    np.isin(np.arange(len(account.shares)), own[key]).astype(np.float64)
                    for account, own in zip(self._accounts, numbers, strict=True)
                ]
                own_seeds = ErrorSource(seeds.deviations[:, place : place + 1], seeds.dof)
                sources = [ErrorSource(self._images(weights)), own_seeds]
                value = np.array([values[0, place] - values[1:, place].mean()])
                (found[key],) = Differences(value, sources, self._shares.level).each()
        return found

    def _side(self, number: int) -> float:
        """Shorter side of the maps that the step of a share of the trained network makes."""
        step = self.trained.steps[self.trained.shares.list[number].step]
        state = self.trained.spectra.states[step.after]
        return float(min(state.height, state.width))

    def sentence(self) -> str:
        """What training did to the shares along the trunk, and to their slopes, in words."""
        if not self.steps:
            return "Account, trained minus random weights: no step of the trunk is in all accounts."
        text = (
            f"Trained minus {len(self.random)} networks with random weights "
            f"({100 * self._shares.level:g} % interval), along {counted(len(self.steps), 'step')}: "
            f"{_in_words(self.total_of, 2)}"
        )
        if self.slope_of:
            text += (
                f"; least-squares slopes {DEPTH_AXES[self.measure].per} over "
                f"{counted(len(self.layers), 'layer')}: "
                f"{_in_words(self.slope_of, 4)}"
            )
        if self.missing:
            text += f"; not known with random weights: {few(self.missing)}"
        if self.only_random:
            text += f"; known with random weights only: {few(self.only_random)}"
        return f"{text}.{_OTHER_TEST if self.slope_of else ''}"


_OTHER_TEST = (
    " Here all layers weigh the same and are taken as given; where the control tests the slope of "
    "the law, correlated layers weigh less and the layers are a sample, too, so its p is another."
)
"""Why the p of the slopes is not that of :mod:`natstats.runs.control`."""

_COLUMNS = [
    "step", "operation", "depth", "trunk", "cause", "part", "trained", "random", "random_sd",
    "difference", "low", "high", "p", "p_corrected", "reason",
]  # fmt: skip


def _frame(found: _ByCause) -> pd.DataFrame:
    rows = [
        [cause, trained, random, own.value, own.low, own.high, own.p]
        for cause, (trained, random, own) in found.items()
    ]
    columns = ["cause", "trained", "random", "difference", "low", "high", "p"]
    return pd.DataFrame(rows, columns=columns)


def _in_words(found: _ByCause, digits: int) -> str:
    """The whole difference, then the causes that differ clearly from zero, the largest first."""
    causes = {cause: own for cause, (_, _, own) in found.items()}
    whole = causes.pop("all")
    ordered = sorted(causes, key=lambda cause: -abs(np.nan_to_num(causes[cause].value)))
    clear = [cause for cause in ordered if causes[cause].low > 0 or causes[cause].high < 0]
    text = f"{change(whole.value, whole.low, whole.high, digits)} in all (p {format_p(whole.p)})"
    for cause in clear:
        own = causes[cause]
        text += f", {CAUSES[cause]} {change(own.value, own.low, own.high, digits)}"
    unclear = [CAUSES[cause] for cause in ordered if cause not in clear]
    return text + (f" (not told from zero: {', '.join(unclear)})" if unclear else "")


def _reason(is_in: Sequence[bool]) -> str:
    """Why a share has no difference; empty where it has one."""
    names = ["trained", *(f"random {number}" for number in range(len(is_in) - 1))]
    missing = [name for name, own in zip(names, is_in, strict=True) if not own]
    return f"not in {', '.join(missing)}" if missing else ""


def _n_blocks(account: Account) -> int:
    return max((len(one.blocks) for one in account.shares.list), default=0)


def _refuse_other_images(trained: Account, other: Account, number: int) -> None:
    """Refuse an account that is not of the same images, or not fitted in the same way.

    Raises:
        UsageError: always when it is not.
    """
    if other.options != trained.options:
        raise UsageError(
            f"random: expected accounts fitted as the trained one; number {number} is not"
        )
    counts = [account.spectra.states[0].count for account in (trained, other)]
    if not np.array_equal(counts[0], counts[1]) or trained.spectra.every != other.spectra.every:
        raise UsageError(
            "random: expected accounts of the same images in the same groups as the trained one; "
            f"number {number} has {counts[1].sum()} images in {len(counts[1])} groups and the "
            f"trained one {counts[0].sum()} in {len(counts[0])}"
        )
