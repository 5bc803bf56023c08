"""The state of a value in the recursion over a network with random weights.

For every image a state holds the second moment of a value at pairs of positions, Q(x, x'), as its
expectation over random weights, averaged over channels, and the mean of the value at each position.
Two forms share one interface: all pairs (:mod:`natstats.theory.exact_states`), and lags with an
amplitude at every position (:mod:`natstats.theory.stationary_states`).

What is exact in the limit of many channels, and what is a moment match:

* A convolution with independent weights of mean zero makes a Gaussian field of mean zero, whose
  covariance is exact whatever its input. A pointwise function of it is exact, too, and so is any
  chain of pointwise functions: the chain is kept as one function of the Gaussian field. The sum of
  independent values is exact as well.
* A function of anything else (a sum of a rectified shortcut and a Gaussian, a pooled or
  concatenated value, a convolution over few channels) is taken as one of a Gaussian field with the
  same mean at every position and the same second moment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from natstats.theory.activation_functions import Activation, hermite_coefficients, second_moment
from natstats.theory.function_chains import beside, composed, linear_function
from natstats.theory.gaussian_pairs import N_TERMS, correlation, homogeneous, series
from natstats.theory.state_parts import ChannelFactors, NoFormError, Window, new_root

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Origin", "State"]


class Origin(NamedTuple):
    """A value is a function, point by point, of another one."""

    base: State
    function: Activation


def _coefficients(function: Activation, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Hermite coefficients (n_terms + 1, N, P), and the root of what they miss, (2, N, P).

    The second square root is for negative correlations, see :mod:`natstats.theory.gaussian_pairs`.
    """
    at, spread = mean.cpu().numpy(), deviation.cpu().numpy()
    terms = hermite_coefficients(function, at, spread, N_TERMS)
    square = second_moment(function, at, spread)
    rest = square - (terms**2).sum(0)
    rest = np.sqrt(np.where(rest > 1e-10 * square, rest, 0.0))
    even, odd = ((terms[start::2] ** 2).sum(0) for start in (N_TERMS - 6, N_TERMS - 7))
    outweighed = np.clip((even - odd) / np.maximum(even + odd, 1e-300), 0.0, 1.0)
    rest = np.stack([rest, rest * np.sqrt(outweighed)])
    return tuple(torch.from_numpy(x).to(mean.device) for x in (terms, rest))  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class State:
    """What is known of a value of the network, for N images.

    Attributes:
        height: H of the maps.
        width: W of the maps.
        second: second moment, (N, HW, HW), or at lags in FFT order (N, 2H, 2W).
        mean: (N, HW), or (N, 1) where it is the same at every position.
        cross: second moment between each image and the next, and the last and the first; None where
            it is not followed. At lags it is E[u_n(x) u_n+1(x + h)].
        is_gaussian: whether the value is a Gaussian field of mean zero.
        roots: names of what it depends on point by point, see
            :func:`natstats.theory.state_parts.new_root`; values without a common one are
            independent.
        origin: the value that this is a function of, and the function.
        amplitude: in the form of lags, factor of the values at each position, (N, H, W).
        edges: in the form of lags, edge treatment whose taper weights the pairs at each lag.
    """

    height: int
    width: int
    second: Tensor
    mean: Tensor
    cross: Tensor | None
    is_gaussian: bool
    roots: frozenset[int]
    origin: Origin | None = None
    amplitude: Tensor | None = None
    edges: str = "sine"

    form = ""

    # What each of the two forms does in its own way.

    def outer(self, left: Tensor, right: Tensor) -> Tensor:
        """Products of (..., N, HW) at all pairs of positions, or of the one number (..., N, 1)."""
        raise NotImplementedError

    def diagonal(self) -> Tensor:
        """Second moment at every position, shape of the mean."""
        raise NotImplementedError

    def position_means(self, pairs: Tensor) -> Tensor:
        """Mean of Q(x, x') over x', shape of the mean."""
        raise NotImplementedError

    def convolved(
        self, rows: Window, columns: Window, gain: float, bias: float, *, is_gaussian: bool
    ) -> State:
        """The state after a convolution with independent weights of mean zero.

        Args:
            rows: kernel, stride and so on along the height.
            columns: the same along the width.
            gain: mean square of the weights times the number of channels that an output sums over.
            bias: mean square of the bias.
            is_gaussian: whether so many terms are summed that the output is Gaussian.
        """
        raise NotImplementedError

    def averaged(self, rows: Tensor, columns: Tensor, step: tuple[Window, Window]) -> State:
        """The state after an average over windows.

        Args:
            rows: weights along the height, (H', H).
            columns: weights along the width, (W', W).
            step: the windows, for the form that knows no positions.
        """
        raise NotImplementedError

    def padded(self, rows: Sequence[int], columns: Sequence[int]) -> State:
        """The state of maps made of rows and columns of these numbers, -1 for zeros."""
        raise NotImplementedError

    def ring_power(self, edges: str) -> np.ndarray:
        """Expected power of every image in every ring, (N, n_rings)."""
        raise NotImplementedError

    # What they share.

    @property
    def is_centred(self) -> bool:
        """Whether the mean is zero everywhere."""
        return not bool(self.mean.any())

    def _with_pairs(
        self, change: Callable[[Tensor, Callable[[Tensor], Tensor]], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Second moment and cross moment changed alike.

        `change` is given the moments, and a function that turns numbers of the left image of each
        pair into those of the right one.
        """
        second = change(self.second, lambda own: own)
        if self.cross is None:
            return second, None
        return second, change(self.cross, lambda own: own.roll(-1, -2))

    def pointwise(self, function: Activation) -> State:
        """The state after a function of single values; exact for functions of a Gaussian field."""
        base = self
        if self.origin is not None:
            base, function = self.origin.base, composed(self.origin.function, function)
        return base._mapped(function)

    def _mapped(self, function: Activation) -> State:
        variance = (self.diagonal() - self.mean.square()).clamp(min=0.0)
        deviation = variance.sqrt()
        if function.is_homogeneous and self.is_centred:
            ends = function.function(np.array([-1.0, 1.0]))
            linear, even = float(ends[1] - ends[0]) / 2, float(ends[1] + ends[0]) / 2
            mean = even * np.sqrt(2 / np.pi) * deviation
            second, cross = self._with_pairs(
                lambda pairs, right: homogeneous(
                    pairs, self.outer(deviation, right(deviation)), linear, even
                )
            )
        else:
            terms, rest = _coefficients(function, self.mean, deviation)
            mean = terms[0]

            def change(pairs: Tensor, right: Callable[[Tensor], Tensor]) -> Tensor:
                centred = pairs - self.outer(self.mean, right(self.mean))
                rho = correlation(centred, self.outer(deviation, right(deviation)))
                return series(rho, terms, right(terms), rest, right(rest), self.outer)

            second, cross = self._with_pairs(change)
        behind = replace(
            self,
            second=second,
            cross=cross,
            mean=mean,
            is_gaussian=False,
            origin=Origin(self, function),
        )
        return behind if function.is_homogeneous else self._reshaped(behind, function, deviation)

    def _reshaped(self, behind: State, function: Activation, deviation: Tensor) -> State:
        """The state after a function of this value, with the amplitudes that it has there."""
        return behind

    def _mixed(self, parts: Sequence[tuple[State, float]]) -> Tensor | None:
        """The amplitudes of a sum, or a mean, of independent values with weights."""
        return None

    def affine(self, factor: float, shift: float = 0.0) -> State:
        """Every value times a number, and a number added to it."""
        return self.of_channels(ChannelFactors(factor, factor**2, factor * shift, shift, shift**2))

    def of_channels(self, by: ChannelFactors) -> State:
        """Every channel times a number of its own, and a number added to it.

        The numbers are taken as independent of the values, which is exact for random weights. Where
        they differ from channel to channel, a Gaussian becomes a mixture of Gaussians.
        """
        mean = by.factor * self.mean + by.shift

        def change(pairs: Tensor, right: Callable[[Tensor], Tensor]) -> Tensor:
            changed = by.square * pairs
            if by.cross or by.shift_square:
                ones = torch.ones_like(self.mean)
                sums = self.outer(self.mean, ones) + self.outer(ones, right(self.mean))
                changed = changed + by.cross * sums + by.shift_square
            return changed

        second, cross = self._with_pairs(change)
        origin = None
        if by.is_uniform:
            function = linear_function(by.factor, by.shift)
            base, before = self.origin or Origin(self, linear_function(1.0))
            origin = Origin(base, composed(before, function))
        # With factors alike, and shifts of mean zero, channels stay Gaussian fields of mean zero.
        is_alike = by.square - by.factor**2 <= 1e-12 * by.square
        is_gaussian = self.is_gaussian and is_alike and by.shift == 0.0
        return replace(
            self, second=second, cross=cross, mean=mean, is_gaussian=is_gaussian, origin=origin
        )

    def normalized(self, epsilon: float, *, by_image: bool = False) -> State:
        """Each channel less its own mean, over its own deviation, as batch norm does in training.

        The mean product with all other images is taken from the two neighbours of each. The
        variance is taken to be the same in all channels, which it is not for images much alike.

        Args:
            epsilon: what is added to the variance.
            by_image: take mean and deviation over each image alone, as instance norm does, and not
                over all images at hand.

        Raises:
            NoFormError: the covariance between images is not followed.
        """
        n = len(self.second)
        means = self.position_means(self.second)
        if not by_image and n > 1:
            if self.cross is None:
                raise NoFormError("the covariance between images is not known here")
            after, before = map(self.position_means, (self.cross, self._swapped(self.cross)))
            means = (means + (n - 1) * (after + before.roll(1, 0)) / 2) / n
        level = means.mean(1, keepdim=True)
        level = level if by_image else level.mean(0, keepdim=True).expand(n, 1)
        variance = (self.diagonal() - 2 * means).mean(1, keepdim=True) + level
        if not by_image:
            variance = variance.mean(0, keepdim=True).expand(n, 1)
        scale = (variance.clamp(min=0.0) + epsilon).rsqrt()

        def change(pairs: Tensor, right: Callable[[Tensor], Tensor]) -> Tensor:
            ones = torch.ones_like(means)
            centred = pairs - self.outer(means, ones) - self.outer(ones, right(means))
            if not by_image:
                centred = centred + level[:1, :, None]
            elif right(level) is level:
                centred = centred + level[:, :, None]
            return centred * self.outer(scale, right(scale))

        second, cross = self._with_pairs(change)
        if by_image:
            cross = None  # a channel's mean in one image is not that in the next
        centre = self.mean.mean(1, keepdim=True)
        centre = centre if by_image else centre.mean(0, keepdim=True)
        mean = (self.mean - centre) * scale
        return replace(self, second=second, cross=cross, mean=mean, origin=None)

    def _swapped(self, cross: Tensor) -> Tensor:
        """The cross moment from each next image to the one before."""
        raise NotImplementedError

    def fresh(self) -> State:
        """Some of the channels: the same moments, independent of the other channels."""
        roots = new_root()
        if self.origin is None:
            return replace(self, roots=roots)
        base = replace(self.origin.base, roots=roots)
        return replace(self, roots=roots, origin=Origin(base, self.origin.function))

    def plus(self, other: Self) -> State:
        """The sum with another value.

        For independent values, second moments and products of means add. The same value is doubled.
        The sum of two functions of one value, point by point, is a function of it, too.

        Raises:
            NoFormError: the values are related in another way.
        """
        if other is self:
            return self.affine(2.0)
        if self.roots & other.roots:
            return self._merged(other, np.add, "sum")
        second = self.second + other.second
        second = second + self.outer(self.mean, other.mean) + self.outer(other.mean, self.mean)
        cross = None
        if self.cross is not None and other.cross is not None:
            one, two = self.mean.roll(-1, 0), other.mean.roll(-1, 0)
            cross = self.cross + other.cross
            cross = cross + self.outer(self.mean, two) + self.outer(other.mean, one)
        return replace(
            self,
            second=second,
            cross=cross,
            mean=self.mean + other.mean,
            is_gaussian=self.is_gaussian and other.is_gaussian,
            roots=self.roots | other.roots,
            origin=None,
            amplitude=self._mixed([(self, 1.0), (other, 1.0)]),
        )

    def times(self, other: Self) -> State:
        """The product with another value.

        For independent values, second moments and means multiply. The product of two functions of
        one value, point by point, such as x times sigmoid(x), is a function of it, too.

        Raises:
            NoFormError: the values are related in another way.
        """
        if self.roots & other.roots:
            return self._merged(other, np.multiply, "product")
        return replace(
            self,
            second=self.second * other.second,
            cross=None if self.cross is None or other.cross is None else self.cross * other.cross,
            mean=self.mean * other.mean,
            is_gaussian=False,
            roots=self.roots | other.roots,
            origin=None,
            amplitude=self._product_amplitude(other),
        )

    def _product_amplitude(self, other: State) -> Tensor | None:
        if self.amplitude is None or other.amplitude is None:
            return None
        return self.amplitude * other.amplitude

    def _merged(self, other: Self, how: Callable[..., np.ndarray], name: str) -> State:
        one = self.origin or Origin(self, linear_function(1.0))
        two = other.origin or Origin(other, linear_function(1.0))
        if one.base is not two.base:
            raise NoFormError(f"the {name} is of two values that depend on each other")
        return one.base._mapped(beside(how, name, one.function, two.function))

    @staticmethod
    def concatenated(parts: Sequence[tuple[State, int]]) -> State:
        """Channels of several values side by side: moments are means weighted by channels.

        Args:
            parts: each value, and how many channels it has.
        """
        first, total = parts[0][0], sum(n for _, n in parts)
        if all(state is first for state, _ in parts):
            return first

        def mean(name: str) -> Tensor:
            summed: Tensor = sum(getattr(state, name) * (n / total) for state, n in parts)
            return summed

        has_cross = all(state.cross is not None for state, _ in parts)
        return replace(
            first,
            second=mean("second"),
            mean=mean("mean"),
            cross=mean("cross") if has_cross else None,
            is_gaussian=False,
            roots=frozenset().union(*(state.roots for state, _ in parts)),
            origin=None,
            amplitude=first._mixed([(state, n / total) for state, n in parts]),
        )
