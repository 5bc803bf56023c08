"""A copy of a network with shuffled kernels, to be measured and compared with its prediction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from natstats.networks.load import Network
from natstats.networks.shuffled_weights import estimate_norms, norms_of, with_shuffled_weights

__all__ = ["counterfactual_of"]


def counterfactual_of(
    network: Network, name: str, seed: int, batches: Iterable[Tensor] | None = None
) -> Network:
    """Shuffle the kernels of a copy of a network, and fit its batch normalisation to them.

    Args:
        network: trained; it is left as it is.
        name: one of :data:`natstats.networks.shuffled_weights.SHUFFLES`.
        seed: seed of the orders.
        batches: images as the network takes them, (N, C, H, W) each, for the statistics of batch
            normalisation, see :func:`natstats.networks.shuffled_weights.estimate_norms`; None where
            they are estimated, or loaded, by the caller.

    Returns:
        The network, whose `weights` say what was done.

    Raises:
        UsageError: there is no such counterfactual, nothing in the network to shuffle, or no batch.
        NatstatsError: the model cannot be copied, or a batch does not pass through it.

    >>> import torch
    >>> from natstats import demo
    >>> images = torch.rand(4, 3, 32, 32)
    >>> changed = counterfactual_of(demo.network(), "shuffle-channels", 0, [images])
    >>> changed.weights.partition(", ")[2].rpartition(", ")[2]
    'batch normalisation estimated anew'
    """
    shuffled = with_shuffled_weights(network, name, seed)
    if batches is not None:
        estimate_norms(shuffled, batches)
    if norms_of(shuffled):
        weights = f"{shuffled.weights}, batch normalisation estimated anew"
        shuffled = replace(shuffled, weights=weights)
    return shuffled
