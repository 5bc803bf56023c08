"""Networks with shuffled kernels, to see what the shape of kernels or their order is good for.

There are two ways to take one property from a trained network and leave all others. Shuffling the
*taps* within every kernel leaves its norm and its sum, but not its shape. Shuffling the *input
channels* of every convolution leaves the shapes of its kernels, which then meet other channels; the
kernels of a depthwise convolution, whose groups have one channel each, trade places.

:mod:`natstats.theory.counterfactuals` predicts that in such networks all other shares of the
exponent stay as they are. The statistics that batch normalisation has from training do not fit
shuffled kernels, though, and would scale channels by arbitrary factors. So they are estimated anew
on images, and each normalisation does what it did before: it scales to unit variance, then by the
trained weight.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize

from natstats import checks
from natstats.errors import NatstatsError, UsageError
from natstats.networks.network import Network

__all__ = ["SHUFFLES", "estimate_norms", "load_norms", "norms_of", "with_shuffled_weights"]

SHUFFLES = {
    "shuffle-kernels": "the taps of each kernel shuffled",
    "shuffle-channels": "the input channels of each convolution shuffled",
}
"""What can be shuffled, and what it is called in words."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def with_shuffled_weights(network: Network, name: str, seed: int) -> Network:
    """Shuffle the kernels of a copy of a network, the same for the same seed.

    All modules that are an ``nn.Conv1d``, ``nn.Conv2d`` or ``nn.Conv3d`` are shuffled, wherever
    they are. Transposed convolutions and linear layers, for which there is no prediction, stay as
    they are, and so do biases. A weight that is computed from others, as by weight normalisation,
    is first replaced by its value. A weight that two modules share is shuffled once.

    Args:
        network: it is left as it is.
        name: one of :data:`SHUFFLES`.
        seed: seed of the orders.

    Returns:
        A network on the same device, in the same precision, with the same preprocessing. Its batch
        normalisation still has the statistics of the old one: see :func:`estimate_norms`.

    Raises:
        UsageError: there is no such name, the seed is out of range, there is nothing in the network
            to shuffle, or the weight of a convolution cannot be set.
        NatstatsError: the module cannot be copied.

    >>> trained = Network(nn.Sequential(nn.Conv2d(3, 8, 3)), "mine", "as given")
    >>> shuffled = with_shuffled_weights(trained, "shuffle-kernels", 0)
    >>> shuffled.weights
    'as given, the taps of each kernel shuffled (seed 0)'
    >>> sums = [one.model[0].weight.sum((2, 3)) for one in (trained, shuffled)]
    >>> torch.allclose(*sums)
    True
    """
    checks.one_of("counterfactual", name, SHUFFLES)
    seed = checks.positive_int("seed", seed, 0)
    model = _copied(network.model)
    shuffle = _taps_shuffled if name == "shuffle-kernels" else _channels_shuffled
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same orders on every device
    done: set[int] = set()
    for place, module in model.named_modules():
        if not isinstance(module, CONVOLUTIONS):
            continue
        weight = _own_weight(place, module)
        if id(weight) not in done:
            found = shuffle(weight.detach(), module.groups, generator)
            if found is not None:
                done.add(id(weight))
                with torch.no_grad():
                    weight.copy_(found)
    if not done:
        raise UsageError(
            f"counterfactual: expected a network with {_NEEDED[name]}; {network.name} has none"
        )
    weights = f"{network.weights}, {SHUFFLES[name]} (seed {seed})"
    return replace(network, model=model, weights=weights, trained=None)


_NEEDED = {
    "shuffle-kernels": "convolutions whose kernels have more than one tap",
    "shuffle-channels": "convolutions of more than one input channel",
}


def _copied(model: nn.Module) -> nn.Module:
    # Tensors that a pass left on a module, as with weight normalisation, cannot be copied.
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(model, computed).eval()
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise NatstatsError(
            f"counterfactual: expected a model that can be copied; {reason}"
        ) from error


def _own_weight(place: str, module: nn.Module) -> Tensor:
    """The weight of a convolution as a plain parameter, no longer computed from others.

    Raises:
        UsageError: there is no such parameter.
    """
    if parametrize.is_parametrized(module, "weight"):
        _write_out(module)
    for remove in (nn.utils.remove_weight_norm, nn.utils.remove_spectral_norm):
        with contextlib.suppress(ValueError):
            remove(module)
    weight = module._parameters.get("weight")
    if weight is None or nn.parameter.is_lazy(weight):
        raise UsageError(
            f"counterfactual: expected a parameter `weight` in every convolution; "
            f"{place or 'the model'} ({type(module).__name__}) has none"
        )
    return weight


def _write_out(module: nn.Module) -> None:
    """Replace the tensors that a module parametrizes by parameters with their present values.

    torch's own function for this deletes them from the class, which the original module shares.
    """
    parametrized = module.parametrizations
    assert isinstance(parametrized, nn.ModuleDict)
    values = {name: getattr(module, name).detach().clone() for name in parametrized}
    module.__class__ = parametrize.type_before_parametrizations(module)
    del module.parametrizations
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value))


def _taps_shuffled(weight: Tensor, groups: int, generator: torch.Generator) -> Tensor | None:
    """The taps of each kernel in an order of its own; None where kernels have one tap."""
    flat = weight.flatten(2)
    if flat.shape[2] == 1:
        return None
    order = torch.rand(flat.shape, generator=generator).argsort(2).to(weight.device)
    return flat.gather(2, order).reshape(weight.shape)


def _channels_shuffled(weight: Tensor, groups: int, generator: torch.Generator) -> Tensor | None:
    """The input channels in another order within each group; None where there is but one.

    Where a group has one channel, the kernels of the groups trade places.
    """
    by_group = weight.reshape(
        groups, -1, *weight.shape[1:]
    )  # (groups, O / groups, I / groups, taps)
    n_inputs = by_group.shape[2]
    if n_inputs == 1:
        if groups == 1:
            return None
        order = torch.randperm(groups, generator=generator).to(weight.device)
        return by_group[order].reshape(weight.shape)
    orders = torch.rand((groups, n_inputs), generator=generator).argsort(1).to(weight.device)
    shuffled = [own[:, order] for own, order in zip(by_group, orders, strict=True)]
    return torch.cat(shuffled)


def estimate_norms(network: Network, batches: Iterable[Tensor]) -> int:
    """Estimate the statistics of all batch normalisation anew, in place.

    They become the averages, over batches, of the mean and the variance of each channel in a batch.
    Only batch normalisation is in train mode as the batches pass; all else is in eval mode, and so
    is everything afterwards.

    Args:
        network: its model is changed.
        batches: images as the network takes them, normalised, (N, C, H, W) each; best all of one
            size, and large. Nothing is read where there is no batch normalisation with statistics.

    Returns:
        Number of modules whose statistics were estimated.

    Raises:
        UsageError: there is no batch.
        NatstatsError: a batch does not pass through the network.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    >>> estimate_norms(Network(model, "mine", "as given"), [torch.rand(4, 3, 16, 16)])
    1
    """
    model = network.model
    norms = list(_norms(model).values())
    if not norms:
        return 0
    place = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    n_batches = 0
    with _averaging(model, norms), torch.no_grad():
        for images in batches:
            try:
                model(*network.arguments(images.to(place.device, place.dtype)))
            except (RuntimeError, ValueError, TypeError) as error:
                reason = " ".join(str(error).split())[:200]
                raise NatstatsError(
                    "counterfactual: expected batches that pass through the network, to estimate "
                    f"the statistics of batch normalisation; {reason}"
                ) from error
            n_batches += 1
    if not n_batches:
        raise UsageError(
            "batches: expected at least one, to estimate the statistics of batch normalisation"
        )
    return len(norms)


def _norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Batch normalisation with statistics, by its place."""
    return {
        place: module
        for place, module in model.named_modules()
        if isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor)
    }


def norms_of(network: Network) -> dict[str, dict[str, Tensor]]:
    """The statistics of all batch normalisation, by the place of the module.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)).eval()
    >>> {place: list(own) for place, own in norms_of(Network(model, "mine", "as given")).items()}
    {'1': ['running_mean', 'running_var']}
    """
    return {
        place: {name: getattr(module, name) for name in ("running_mean", "running_var")}
        for place, module in _norms(network.model).items()
    }


def load_norms(network: Network, norms: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Inverse of :func:`norms_of`, in place.

    Raises:
        NatstatsError: they are not those of this network.
    """
    own = norms_of(network)
    if _shapes_of(own) != _shapes_of(norms):
        raise NatstatsError(
            "counterfactual: expected statistics of the batch normalisation of this network; got "
            "others"
        )
    with torch.no_grad():
        for place, each in own.items():
            for name, one in each.items():
                one.copy_(norms[place][name])


def _shapes_of(norms: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes in place of tensors; False or None in place of what is none."""
    return {
        place: isinstance(each, Mapping)
        and {name: getattr(one, "shape", None) for name, one in each.items()}
        for place, each in norms.items()
    }


@contextlib.contextmanager
def _averaging(model: nn.Module, norms: list[_BatchNorm]) -> Iterator[None]:
    """Have batch normalisation, and nothing else, average the statistics of batches."""
    model.eval()
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain average
            norm.training = True  # not by train(), which would also reach what is inside of it
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
