"""How a network is followed for its account: operation by operation, else module by module."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from natstats.activations.graph import trace_graph
from natstats.activations.trace import Trace
from natstats.errors import NatstatsError, UsageError
from natstats.theory.trunk import Plan, plan_of_graph, plan_of_modules

__all__ = ["NotFollowedError", "plan_of"]


class NotFollowedError(NatstatsError):
    """A batch takes another way through the network than the image that was followed."""


def plan_of(
    model: nn.Module, inputs: tuple[Any, ...], trace: Trace, by_modules: bool = False
) -> tuple[Plan, bool]:
    """What to measure of a network, and whether its operations could be followed.

    Args:
        model: the network.
        inputs: arguments of a forward pass of one image.
        trace: the traced pass of that image.
        by_modules: do not follow operations, only modules.

    Raises:
        UsageError: the network takes no images (N, C, H, W).
    """
    plan, is_followed = None, False
    if trace.followed and not by_modules:
        try:
            graph = trace_graph(model, inputs)
        except (RuntimeError, NotImplementedError, AttributeError):
            pass  # something that cannot be dispatched through Python
        else:
            plan, is_followed = plan_of_graph(graph, trace), True
    if plan is None:
        plan = plan_of_modules(trace)
    if not plan.values:
        raise UsageError(f"explain: expected a network of images (N, C, H, W); got {_given(trace)}")
    return plan, is_followed


def _given(trace: Trace) -> str:
    """What a network is given, in words."""
    arguments = trace.arguments[0]
    if any(isinstance(one, list | tuple) for one in arguments):
        return "one that takes a list"
    shapes = [str(tuple(one.shape)) for one in arguments if isinstance(one, Tensor)]
    return f"inputs of shape {', '.join(shapes)}" if shapes else "one that takes no tensor"
