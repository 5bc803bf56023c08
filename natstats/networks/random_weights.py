"""The same architecture with random weights: what a network is before it has learned anything."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from natstats.errors import NatstatsError, UsageError
from natstats.networks.builders import is_name
from natstats.networks.load import Network, build_network
from natstats.networks.matching import mismatch

__all__ = ["check_control", "with_random_weights"]


def check_control(network: Network, seed: int) -> None:
    """Raise before any work is done when there can be no control of a network.

    Raises:
        UsageError: a network that is untrained itself, or one that cannot be initialised anew.
        NatstatsError: see :func:`with_random_weights`.
    """
    if network.trained is False:
        raise UsageError(f"control: expected a trained network; got weights {network.weights!r}")
    with_random_weights(network, seed)


def with_random_weights(network: Network, seed: int) -> Network:
    """Initialise a network anew, the same for the same seed.

    A network of a known name is built by its own constructor, with the same arguments and as many
    classes. Any other, such as what a factory returns, is copied, and every module in the copy
    resets its parameters, children before the modules that hold them. Either way batch
    normalisation has the statistics of a fresh network, mean 0 and variance 1.

    Args:
        network: trained; it is left as it is.
        seed: seed of the weights.

    Returns:
        A network on the same device, in the same precision, with the same preprocessing.

    Raises:
        UsageError: a parameter belongs to a module that does not say how to reset it.
        NatstatsError: the module cannot be copied or reset.

    >>> trained = Network(nn.Sequential(nn.Conv2d(3, 8, 3)), "mine", "as given")
    >>> with_random_weights(trained, 0).trained
    False
    """
    model = _rebuilt(network, seed)
    if model is None:
        model = _reset_copy(network.model, seed)
    for parameter in network.model.parameters():
        if parameter.is_floating_point():
            model = model.to(parameter.device, parameter.dtype)
            break
    weights = f"none (random, seed {seed})"
    return replace(network, model=model.eval(), weights=weights, trained=False, notes=())


def _rebuilt(network: Network, seed: int) -> nn.Module | None:
    """From its constructor; None where it makes another network than this one."""
    own = network.model.state_dict()
    if network.builder is not None:
        model = network.builder.build(seed)
    elif is_name(network.name):
        model = build_network(network.name, seed, own)
    else:
        return None
    same = type(model) is type(network.model) and own.keys() == model.state_dict().keys()
    return model if same and not mismatch(own, model.state_dict()) else None


def _reset_copy(model: nn.Module, seed: int) -> nn.Module:
    try:
        # On the CPU, so that the same seed gives the same weights on every device.
        fresh = copy.deepcopy(model).cpu()
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise NatstatsError(f"control: expected a model that can be copied; {reason}") from error
    # Whatever no module resets stays NaN, also where a plain reset misses a reparametrised weight.
    with torch.no_grad():
        for parameter in fresh.parameters():
            if not is_lazy(parameter) and parameter.is_floating_point():
                parameter.fill_(torch.nan)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, module in reversed(list(fresh.named_modules())):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                try:
                    reset()
                except Exception as error:
                    reason = " ".join(str(error).split())[:160]
                    raise NatstatsError(
                        f"control: expected reset_parameters of {name or 'the model'} to work; "
                        f"{reason}"
                    ) from error
    left = [
        name
        for name, parameter in fresh.named_parameters()
        if is_lazy(parameter) or bool(torch.isnan(parameter).any())
    ]
    if left:
        listed = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
        raise UsageError(
            "control: expected modules with a reset_parameters method for every parameter; "
            f"none covers {listed}"
        )
    return fresh
