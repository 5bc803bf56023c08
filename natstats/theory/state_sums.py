"""Sums of ring power over the images of each group, for all states of an account at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from natstats import checks
from natstats.errors import UsageError
from natstats.spectra.frequencies import rings
from natstats.theory.account_spectra import State

__all__ = ["StateSums"]


class StateSums:
    """The sums of all states; an image counts in all of them or in none.

    Args:
        edges: edge treatment.
        n_groups: groups of images.
        device: where the sums live.
    """

    def __init__(self, edges: str, n_groups: int, device: torch.device) -> None:
        self._edges, self._n_groups, self._device = edges, n_groups, device
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sizes: list[tuple[int, int]] = []
        self._spans: list[float] = []
        self._offsets: dict[int, float] = {}
        """Squared means of the maps, summed over the images, where they are known."""
        self._sums: dict[tuple[int, ...], Tensor] = {}
        """By states that are added together: power, power of every image over its mean, number of
        images; (S, G, 2 n_rings + 1)."""

    def new(self, size: tuple[int, int], span: float) -> int:
        """Make a state for maps of this size, and return its number."""
        rings(*size)  # raises now if something is wrong with the size
        self._sizes.append(size)
        self._spans.append(span)
        return len(self._sizes) - 1

    def add(
        self,
        rows: Mapping[int, Tensor],
        index: Tensor,
        chosen: Tensor,
        offsets: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Add a batch.

        Args:
            rows: ring power of the images by state, (N, n_rings), or of the chosen ones.
            index: numbers of the images, (N,).
            chosen: places of the images that costly predictions were made of.
            offsets: squared means of the maps of each image, (N,), by state.

        Returns:
            Which images are finite in all states, (N,); any other is left out of all states.
        """
        alike: dict[tuple[tuple[int, int], bool], list[int]] = {}
        for state, own in rows.items():
            alike.setdefault((self._sizes[state], len(own) == len(index)), []).append(state)
        # One operation for all states of a size: there are hundreds, with few numbers each.
        stacked = {key: torch.stack([rows[one] for one in states]) for key, states in alike.items()}
        whole = torch.ones(len(index), dtype=torch.bool, device=self._device)
        for (_, is_all), power in stacked.items():
            finite = torch.isfinite(power).all(2).all(0)
            if is_all:
                whole &= finite
            else:
                whole[chosen] &= finite
        group = (index % self._n_groups).to(self._device)
        for key, power in stacked.items():
            size, is_all = key
            kept, groups = (whole, group) if is_all else (whole[chosen], group[chosen])
            sums = self._sums_of(size, alike[key])
            summands = self._summands(size, power[:, kept].to(self._dtype))
            sums.index_add_(1, groups[kept], summands)
        if offsets:
            sums_of_offsets = torch.stack([one[whole].sum() for one in offsets.values()]).tolist()
            for state, offset in zip(offsets, sums_of_offsets, strict=True):
                self._offsets[state] = self._offsets.get(state, 0.0) + offset
        return whole

    def _summands(self, size: tuple[int, int], power: Tensor) -> Tensor:
        members = torch.tensor(rings(*size).n_members.tolist()).to(power)
        mean = (power @ (members / members.sum()))[..., None]
        normalized = power / torch.where(mean > 0, mean, torch.inf)
        return torch.cat([power, normalized, torch.ones_like(mean)], 2)

    def _sums_of(self, size: tuple[int, int], states: list[int]) -> Tensor:
        """Sums of states that are always added together."""
        key = tuple(states)
        if key not in self._sums:
            shape = len(states), self._n_groups, 2 * rings(*size).n_rings + 1
            with torch.inference_mode(False):
                self._sums[key] = torch.zeros(shape, dtype=self._dtype, device=self._device)
        return self._sums[key]

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on later, as a copy: tensors and plain values."""
        return {
            "sums": [{"states": list(key), "sums": own.clone()} for key, own in self._sums.items()],
            "offsets": list(self._offsets.items()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` gave, with the same states.

        Raises:
            UsageError: keys are missing or unexpected, or the states are others.
        """
        checks.state_keys("sums of states", state, ("sums", "offsets"))
        for one in state["sums"]:
            sizes = {self._sizes[number] for number in one["states"]}
            if len(sizes) != 1:
                raise UsageError("state: expected sums of states of one size; got others")
            n_numbers = 2 * rings(*sizes.pop()).n_rings + 1
            shape = len(one["states"]), self._n_groups, n_numbers
            checks.shaped("state: sums of states", one["sums"], shape)
        with torch.inference_mode(False):
            self._sums = {
                tuple(one["states"]): one["sums"].clone().to(self._device, self._dtype)
                for one in state["sums"]
            }
        self._offsets = dict(state["offsets"])

    def states(self) -> tuple[State, ...]:
        """What was summed so far."""
        return tuple(self._state(number) for number in range(len(self._sizes)))

    def _state(self, number: int) -> State:
        size = self._sizes[number]
        n_rings = rings(*size).n_rings
        sums = np.zeros((self._n_groups, 2 * n_rings + 1))
        for key, own in self._sums.items():
            # A batch without chosen images has sums of its own, so a state may be in several.
            if number in key:
                sums += own[key.index(number)].double().cpu().numpy()
        rounding = float(np.finfo(np.float32).eps) ** 2
        if sums[:, :n_rings].sum() / n_rings <= 16 * rounding * self._offsets.get(number, -1.0):
            sums[:, :-1] = 0.0  # constant maps, where only rounding of their mean is left
        return State(
            *size,
            self._edges,
            self._spans[number],
            sums[:, :n_rings].copy(),
            sums[:, n_rings:-1].copy(),
            sums[:, -1].round().astype("int64"),
        )
