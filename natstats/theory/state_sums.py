"""Sums of ring power over the images of each group, for all states of an account at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

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
        self._sums: list[Tensor] = []

    def new(self, size: tuple[int, int], span: float) -> int:
        """Make a state for maps of this size, and return its number."""
        ring = rings(*size)
        self._sizes.append(size)
        self._spans.append(span)
        with torch.inference_mode(False):
            # Power, power of every image over its mean, images.
            sums = torch.zeros(
                self._n_groups, 2 * ring.n_rings + 1, dtype=self._dtype, device=self._device
            )
        self._sums.append(sums)
        return len(self._sums) - 1

    def add(self, rows: Mapping[int, Tensor], index: Tensor, chosen: Tensor) -> Tensor:
        """Add a batch.

        Args:
            rows: ring power of the images by state, (N, n_rings), or of the chosen ones.
            index: numbers of the images, (N,).
            chosen: places of the images that costly predictions were made of.

        Returns:
            Which images were whole, (N,); any other is left out of all states.
        """
        whole = torch.ones(len(index), dtype=torch.bool, device=self._device)
        for own in rows.values():
            finite = torch.isfinite(own).all(1)
            if len(own) == len(index):
                whole &= finite
            else:
                whole[chosen] &= finite
        group = (index % self._n_groups).to(self._device)
        for state, own in rows.items():
            is_all = len(own) == len(index)
            kept = whole if is_all else whole[chosen]
            groups = group if is_all else group[chosen]
            power = own[kept].to(self._dtype)
            members = torch.tensor(rings(*self._sizes[state]).n_members.tolist()).to(power)
            mean = power @ (members / members.sum())
            normalized = power / torch.where(mean > 0, mean, torch.inf)[:, None]
            summands = torch.cat([power, normalized, torch.ones_like(mean)[:, None]], 1)
            self._sums[state].index_add_(0, groups[kept], summands)
        return whole

    def states(self) -> tuple[State, ...]:
        """What was summed so far."""
        return tuple(self._state(number) for number in range(len(self._sums)))

    def _state(self, number: int) -> State:
        size, sums = self._sizes[number], self._sums[number].double().cpu().numpy()
        n_rings = rings(*size).n_rings
        return State(
            *size,
            self._edges,
            self._spans[number],
            sums[:, :n_rings].copy(),
            sums[:, n_rings:-1].copy(),
            sums[:, -1].round().astype("int64"),
        )
