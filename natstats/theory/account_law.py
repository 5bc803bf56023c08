"""The law from the account: which operations carry the slope of the exponents over depth.

The exponent of a layer is that of the images plus the shares of all steps on the way to it. A
least-squares slope is linear in the exponents, and the exponent of the images is the same for all
layers, so that the slope is, exactly, the sum over causes of the slopes of their shares added up
along the way. Its errors are those of other images of the same sort; the layers are taken as given,
as in :mod:`natstats.law.description`, whose slope this is.

Once the ways are known as weights of shares, other questions are weighted sums as well, see
:mod:`natstats.theory.counterfactuals`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from natstats.fits.depth_axes import DEPTH_AXES
from natstats.law.differences import Estimate, layers_text
from natstats.law.law import format_p
from natstats.law.trend import FEWEST_DEPTHS, FEWEST_LAYERS
from natstats.text import few
from natstats.theory.account import CAUSES, Account

__all__ = ["AccountLaw", "weights_of_slope"]

Array = NDArray[np.float64]


class AccountLaw:
    """The slope of the exponents over depth, put down to causes.

    Args:
        account: of the network.
        layers: depth of each layer of the law, by name; by default all convolutions and linear
            layers of the account, with the number of weight layers on the way.
        measure: name of the measure of depth, for the sentence.

    Attributes:
        account: of the network.
        measure: as given.
        layers: names of the layers that are in the account, L of them.
        depth: of these layers, (L,).
        missing: names of the layers that are not in the account, or have no depth.

    With fewer than five layers or three depths there is no slope: its tables are empty.
    """

    def __init__(
        self,
        account: Account,
        layers: Mapping[str, float] | None = None,
        measure: str = "layers",
    ) -> None:
        self.account, self.measure = account, measure
        asked = _weight_layers(account) if layers is None else layers
        found = {
            name: float(depth)
            for name, depth in asked.items()
            if name in account.place_of_layer and np.isfinite(depth)
        }
        self.layers: tuple[str, ...] = tuple(found)
        self.depth: Array = np.array(list(found.values()), dtype=np.float64)
        self.missing: tuple[str, ...] = tuple(name for name in asked if name not in found)
        self._places = [account.place_of_layer[name] for name in found]

    @cached_property
    def ways(self) -> Array:
        """Weights that add up the shares on the way to each layer, (L, K)."""
        weights = [self.account.weights_of(self.account.way_to(place)) for place in self._places]
        return np.array(weights).reshape(len(self.layers), len(self.account.shares))

    @cached_property
    def slope_weights(self) -> Array | None:
        """Weights under which the exponents sum to the slope, (L,); None where there is none."""
        return weights_of_slope(self.depth)

    @property
    def exponents(self) -> Array:
        """Exponents of the layers, (L,)."""
        steps = self.account.steps
        return np.array([self.account.exponent(steps[place].after) for place in self._places])

    @cached_property
    def slope_of(self) -> dict[str, Estimate]:
        """The slope of each cause with its interval; that of the exponents is called ``all``."""
        if self.slope_weights is None:
            return {}
        shares, whole = self.account.shares, self.slope_weights @ self.ways
        found = {"all": shares.sum(whole)}
        for cause in CAUSES:
            where = shares.where(cause)
            if self.ways[:, where].any():
                found[cause] = shares.sum(whole * where)
        return found

    @property
    def slopes(self) -> pd.DataFrame:
        """The slope of each cause; ``all``, the first, is the slope of the exponents.

        Columns: cause, slope, low, high, p, share (of the whole slope). They add up to the first.
        """
        columns = ["cause", "slope", "low", "high", "p", "share"]
        found = self.slope_of
        whole = found["all"].value if found else np.nan
        rows = [
            [cause, own.value, own.low, own.high, own.p, own.value / whole if whole else np.nan]
            for cause, own in found.items()
        ]
        return pd.DataFrame(rows, columns=columns)

    def sentence(self) -> str:
        """Which causes carry the slope, in words; those not told from zero are named as such."""
        if not self.slope_of:
            return (
                f"Law from the account: expected at least {FEWEST_LAYERS} layers of "
                f"{FEWEST_DEPTHS} depths in it; got {layers_text(len(self.layers))}"
                f"{self._left_out()}."
            )
        causes = dict(self.slope_of)
        whole = causes.pop("all")
        ordered = sorted(causes, key=lambda cause: -abs(causes[cause].value))
        text = (
            f"The least-squares slope of the exponents over {layers_text(len(self.layers))} of "
            f"this network is {whole.text()} {DEPTH_AXES[self.measure].per} "
            f"({100 * self.account.options.level:g} % interval for other images, with these layers "
            f"as given; p {format_p(whole.p)})"
            f"{'' if _is_clear(whole) else ', which is not told from zero'}"
        )
        clear = [cause for cause in ordered if _is_clear(causes[cause])]
        listed = [f"{CAUSES[cause]} {causes[cause].text()}" for cause in clear]
        text += f": {', '.join(listed)}" if listed else ""
        unclear = [CAUSES[cause] for cause in ordered if cause not in clear]
        text += f"; not told from zero: {', '.join(unclear)}" if unclear else ""
        return f"{text}{self._left_out()}."

    def _left_out(self) -> str:
        return f"; not in the account: {few(self.missing)}" if self.missing else ""


def weights_of_slope(depth: Array) -> Array | None:
    """Weights under which values at these depths (L,) sum to their least-squares slope, (L,).

    None with fewer layers or depths than a law takes.

    >>> weights_of_slope(np.arange(5.0)).round(3).tolist()
    [-0.2, -0.1, 0.0, 0.1, 0.2]
    """
    if len(depth) < FEWEST_LAYERS or len(set(depth)) < FEWEST_DEPTHS:
        return None
    return np.asarray(np.linalg.pinv(np.stack([np.ones_like(depth), depth], axis=1))[1])


def _weight_layers(account: Account) -> dict[str, float]:
    return {
        name: float(step.depth)
        for step in account.steps
        if step.kind in ("convolution", "linear")
        for name in step.layers[:1]  # a container that ends with the layer has the same maps
    }


def _is_clear(slope: Estimate) -> bool:
    return slope.low > 0 or slope.high < 0
