"""Power spectra of maps: the differentiable functions, and the accumulator that streams them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.images.image_numbers import ImageNumbers
from natstats.spectra.edge_names import EDGES, Edges
from natstats.spectra.frequencies import check_size, extent, rings
from natstats.spectra.power_spectra import checked_maps, power_spectrum, ring_frequencies
from natstats.spectra.records import Spectrum
from natstats.spectra.transforms import ring_transform

__all__ = [
    "KEPT_IMAGES",
    "SpectrumAccumulator",
    "check_index",
    "power_spectrum",
    "ring_frequencies",
    "state_shapes",
]

KEPT_IMAGES = 1024
"""Images whose own spectra are kept beside the sums: enough for their spread, and a fixed size."""


def check_index(index: Any, n_images: int) -> None:
    """Raise where `index` does not number `n_images` images.

    Raises:
        UsageError: it is no tensor of `n_images` whole numbers from 0.

    >>> check_index(torch.arange(4), 4)
    """
    is_shaped = isinstance(index, Tensor) and index.shape == (n_images,)
    if not is_shaped or index.is_floating_point() or (n_images and int(index.min()) < 0):
        raise UsageError(
            f"index: expected a tensor of {n_images} whole numbers from 0; got {index!r}"
        )


def state_shapes(height: int, width: int, n_groups: int) -> dict[str, tuple[int, int]]:
    """Shapes of the arrays in the state of an accumulator.

    >>> state_shapes(16, 16, 4)
    {'sums': (4, 19), 'image_power': (1024, 8)}
    """
    n_rings = extent(height, width) // 2
    return {"sums": (n_groups, 2 * n_rings + 3), "image_power": (KEPT_IMAGES, n_rings)}


_AT_ONCE = 4096
"""Image numbers that are collected before they are put into intervals together."""


_SETTINGS = ("height", "width", "edges", "n_groups")
_KEYS = (*_SETTINGS, "next_index", "sums", "image_power")


def _settings_of(state: Mapping[str, Any]) -> tuple[int, int, Any, int]:
    """The settings of the accumulator that a state was taken of.

    Raises:
        UsageError: keys are missing or unexpected, or tensors do not have the shapes of these
            settings.
    """
    of = "a spectrum accumulator"
    # States of versions before 0.10.0 do not say which images were added.
    checks.state_keys(of, state, _KEYS, optional=("numbers",))
    height, width = (checks.positive_int("state", state[n]) for n in ("height", "width"))
    n_groups = checks.positive_int("state", state["n_groups"])
    # The shapes are checked before memory is taken for what the settings ask for.
    shapes = state_shapes(height, width, n_groups)
    checks.state_keys(of, state, _KEYS, shapes, ("numbers",))
    return height, width, state["edges"], n_groups


class SpectrumAccumulator:
    """Sums ring power over images, in groups, in constant memory.

    Image i belongs to group i mod G. The sums of the groups are all that a fit with an interval
    needs: they do not depend on how the images were batched or ordered, and two accumulators add.
    The spectra of the images with an index below :data:`KEPT_IMAGES` are kept as well, for the
    spread between images.

    Args:
        height: H of the maps, pixels.
        width: W of the maps, pixels.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        n_groups: G.
        device: where the sums live; float64, or float32 where the device has no float64.

    Raises:
        UsageError: an argument is out of range.

    >>> accumulator = SpectrumAccumulator(16, 16, n_groups=4)
    >>> accumulator.update(torch.randn(10, 3, 16, 16))
    >>> accumulator.compute().n_images
    10
    """

    def __init__(
        self,
        height: int,
        width: int,
        edges: Edges = "sine",
        n_groups: int = 128,
        device: torch.device | str = "cpu",
    ) -> None:
        self.height, self.width = check_size("map size", height, width)
        self.edges = checks.one_of("edges", edges, EDGES)
        self.n_groups = checks.positive_int("n_groups", n_groups, 1, checks.LARGEST["n_groups"])
        self.device = torch.device(device)
        members = torch.tensor(rings(self.height, self.width).n_members.tolist())
        self._member_share = (members / members.sum()).to(self.device)
        self.reset()

    def reset(self) -> None:
        """Forget everything that was added."""
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        n_rings = rings(self.height, self.width).n_rings
        with torch.inference_mode(False):
            # Of each group: ring power, squared mean, normalised ring power, finite images, images
            # that were not finite.
            self.sums = torch.zeros(self.n_groups, 2 * n_rings + 3, dtype=dtype, device=self.device)
            # NaN where no image has come.
            self.image_power = torch.full((KEPT_IMAGES, n_rings), torch.nan, device=self.device)
        self._next_index = 0
        self._numbers = ImageNumbers()
        self._recent: list[Tensor] = []  # numbers that are in no interval yet
        self._n_recent = 0

    @torch.no_grad()
    def update(self, maps: Tensor, index: Tensor | None = None) -> None:
        """Add a batch of maps.

        An image with a non-finite spectrum is left out of the sums and counted.

        Args:
            maps: (N, C, H, W), floating, on the accumulator's device.
            index: (N,) whole numbers from 0, the place of each image in the data; by default the
                images go on from the last call.

        Raises:
            UsageError: wrong type or shape.
        """
        self.add(self.transform(maps), index)

    @torch.no_grad()
    def transform(self, maps: Tensor) -> Tensor:
        """Ring power and squared mean of a batch, (N, n_rings + 1), for :meth:`add`.

        Raises:
            UsageError: wrong type or shape.
        """
        maps = checked_maps(maps)
        if maps.shape[2:] != (self.height, self.width):
            raise UsageError(
                f"maps: expected {self.height} x {self.width} pixels; "
                f"got {maps.shape[2]} x {maps.shape[3]}"
            )
        with torch.inference_mode(False):
            prepared = ring_transform(self.height, self.width, self.edges, self.device)
            return prepared(maps.detach())

    @torch.no_grad()
    def add(self, rows: Tensor, index: Tensor | None = None) -> None:
        """Add what :meth:`transform` gave; :meth:`update` is both in one.

        Raises:
            UsageError: `index` has the wrong type or shape.
        """
        if index is None:
            index = torch.arange(self._next_index, self._next_index + len(rows))
        check_index(index, len(rows))
        if len(rows) == 0:
            return
        self._next_index = max(self._next_index, int(index.max()) + 1)
        with torch.inference_mode(False):
            finite = torch.isfinite(rows).all(1, keepdim=True)
            # where, not multiplication: 0 * nan is nan.
            kept = torch.where(finite, rows, 0.0)
            summands = torch.cat([kept, self._normalized(kept[:, :-1]), finite, ~finite], dim=1)
            self._note(index)
            place = index.to(self.device)
            self.sums.index_add_(0, place % self.n_groups, summands.to(self.sums.dtype))
            self._keep(rows[:, :-1], index)

    def _normalized(self, power: Tensor) -> Tensor:
        """Ring power over its mean over all frequencies of all rings; zeros where there is none."""
        # No product of matrices: autocast and TF32 would round it, and float16 ends at 65504.
        mean = (power * self._member_share.to(power)).sum(1)
        return power / torch.where(mean > 0, mean, torch.inf)[:, None]

    def _keep(self, power: Tensor, index: Tensor) -> None:
        """Keep the spectra of the images with a low index, which are looked up on the host."""
        host = index.cpu()
        if self._next_index > KEPT_IMAGES:
            chosen = (host < KEPT_IMAGES).nonzero()[:, 0]
            host, power = host[chosen], power[chosen.to(self.device)]
        self.image_power[host.to(self.device)] = power

    def _note(self, index: Tensor) -> None:
        """Take note of which images were added."""
        self._recent.append(index.cpu())
        self._n_recent += len(index)
        if self._n_recent >= _AT_ONCE:
            self._set_numbers(self.numbers)

    def _set_numbers(self, numbers: ImageNumbers) -> None:
        self._numbers = numbers
        self._recent.clear()
        self._n_recent = 0

    @property
    def numbers(self) -> ImageNumbers:
        """Which images were added, by their numbers."""
        if not self._recent:
            return self._numbers
        return self._numbers | ImageNumbers.of(torch.cat(self._recent))

    @property
    def n_images(self) -> int:
        """Images that were added, those without a finite spectrum included."""
        return round(float(self.sums[:, -2:].sum()))

    def merge(self, other: SpectrumAccumulator) -> SpectrumAccumulator:
        """Add what `other` holds to this one, and return this one. `other` is left as it is.

        Parts add up to one pass over all images when every image was given a number of its own
        (`index` of :meth:`update`).

        Raises:
            UsageError: not an accumulator, map size, edges or number of groups differ, or an image
                of the same number is in both.

        >>> first, second = SpectrumAccumulator(16, 16), SpectrumAccumulator(16, 16)
        >>> first.update(torch.randn(4, 3, 16, 16))
        >>> second.update(torch.randn(4, 3, 16, 16), torch.arange(4, 8))
        >>> first.merge(second).n_images
        8
        """
        if not isinstance(other, SpectrumAccumulator):
            raise UsageError(f"other: expected an accumulator; got {type(other).__name__}")
        for name in ("height", "width", "edges", "n_groups"):
            if getattr(self, name) != getattr(other, name):
                raise UsageError(
                    f"other: expected an accumulator with {name} {getattr(self, name)}; "
                    f"got {getattr(other, name)}"
                )
        twice = self.numbers & other.numbers
        if len(twice):
            raise UsageError(
                f"other: expected images with numbers of their own; {len(twice)} of its numbers, "
                f"the first {twice.intervals[0][0]}, were added before (`index` of update numbers "
                "the images of each part)"
            )
        with torch.no_grad(), torch.inference_mode(False):
            self.sums.add_(other.sums.to(self.device))
            theirs = other.image_power.to(self.device)
            self.image_power = torch.where(torch.isnan(self.image_power), theirs, self.image_power)
        self._next_index = max(self._next_index, other._next_index)
        self._set_numbers(self.numbers | other.numbers)
        return self

    def renumber(self, by: int) -> None:
        """Add `by`, a multiple of the number of groups, to the number of every image.

        The images stay in their groups.

        Raises:
            UsageError: `by` is no such multiple, or below 0.
        """
        if by < 0 or by % self.n_groups:
            raise UsageError(f"by: expected a multiple of {self.n_groups} from 0; got {by}")
        self._set_numbers(self.numbers.shifted(by))
        self._next_index += by
        kept = torch.full_like(self.image_power, torch.nan)
        if by < KEPT_IMAGES:
            kept[by:] = self.image_power[: KEPT_IMAGES - by]
        self.image_power = kept

    def to(self, device: torch.device | str) -> SpectrumAccumulator:
        """Move the sums to `device`, and return this accumulator."""
        self.device = torch.device(device)
        self.sums, self.image_power = self.sums.to(self.device), self.image_power.to(self.device)
        self._member_share = self._member_share.to(self.device)
        return self

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as a copy: tensors and plain values."""
        return {
            "height": self.height,
            "width": self.width,
            "edges": self.edges,
            "n_groups": self.n_groups,
            "next_index": self._next_index,
            "numbers": self.numbers.intervals,
            "sums": self.sums.clone(),
            "image_power": self.image_power.clone(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken, by an accumulator of the same settings.

        What this one has summed so far is dropped; it stays on its device.

        Raises:
            UsageError: keys are missing or unexpected, tensors have another shape, or map size,
                edges or number of groups are others.

        >>> first, second = SpectrumAccumulator(16, 16), SpectrumAccumulator(16, 16)
        >>> first.update(torch.randn(4, 3, 16, 16))
        >>> second.load_state_dict(first.state_dict())
        >>> second.n_images
        4
        """
        for name, theirs in zip(_SETTINGS, _settings_of(state), strict=True):
            if getattr(self, name) != theirs:
                raise UsageError(
                    f"state: expected one with {name} {getattr(self, name)}; got {theirs}"
                )
        next_index = int(state["next_index"])
        numbers = ImageNumbers(state.get("numbers", [(0, next_index)]))
        self._next_index = next_index
        self._set_numbers(numbers)
        for name in ("sums", "image_power"):
            mine = getattr(self, name)
            with torch.inference_mode(False):
                setattr(self, name, state[name].clone().to(self.device, mine.dtype))

    @classmethod
    def from_state_dict(
        cls, state: Mapping[str, Any], device: torch.device | str = "cpu"
    ) -> SpectrumAccumulator:
        """Make an accumulator that goes on where :meth:`state_dict` was taken.

        Raises:
            UsageError: keys are missing or unexpected, or tensors have another shape.
        """
        fresh = cls(*_settings_of(state), device)
        fresh.load_state_dict(state)
        return fresh

    def compute(self) -> Spectrum:
        """Return what was measured so far, as numpy arrays that no later update changes."""
        ring = rings(self.height, self.width)
        sums = self.sums.cpu().numpy().astype(np.float64)
        kept = self.image_power[: self._next_index].cpu().numpy().astype(np.float32)
        kept[~np.isfinite(kept).all(axis=1)] = np.nan
        return Spectrum(
            height=self.height,
            width=self.width,
            edges=self.edges,
            frequency=ring.frequency,
            power=sums[:, : ring.n_rings].copy(),
            offset=sums[:, ring.n_rings].copy(),
            normalized=sums[:, ring.n_rings + 1 : -2].copy(),
            count=sums[:, -2].round().astype(np.int64),
            image_power=kept,
            n_nonfinite=round(float(sums[:, -1].sum())),
        )
