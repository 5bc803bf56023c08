"""The trunk of a network: the maps that every path from the images to the scores goes through.

The end of a group of residual blocks is on the trunk, the activations inside a block are not,
because the shortcut goes around them. The trunk is read off the graph that autograd records in one
pass: with p(n) the number of paths from the images to an operation n and q(n) that from n to the
scores, n is on every path exactly if p(n) q(n) is the number of all paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from natstats.activations.hooks import ActivationHooks, undisturbed, unwatched
from natstats.activations.layouts import Layout
from natstats.activations.selection import block_names, call_name
from natstats.distill.method import scores_of
from natstats.distill.traces import Traced, Traces
from natstats.errors import NatstatsError

__all__ = ["TrunkMap", "trunk_of"]


@dataclass(frozen=True, eq=False)
class TrunkMap:
    """A map on the trunk that a module returned.

    Attributes:
        name: name of the layer that returned it first.
        aliases: the layers that returned it after that.
        module: module of the layer that returned it first.
        height: H, pixels.
        width: W, pixels.
        channels: C.
        depth: number of weight layers up to here.
        is_block: a block returned it.
        is_activation: an activation returned it.
        source: what went into that activation, as a layer's name, such as ``bn1`` or
            ``relu:1@input``; empty where it is not an activation.
        batch_norm: the batch norm whose output this map is (for an activation: its input is), or,
            for a sum, the batch norm that gave its first such summand; None where there is none.
    """

    name: str
    aliases: tuple[str, ...]
    module: nn.Module
    height: int
    width: int
    channels: int
    depth: int
    is_block: bool
    is_activation: bool
    source: str
    batch_norm: nn.Module | None


@dataclass(eq=False)
class _Seen:
    """A call of a module in the recorded pass."""

    name: str
    module: str
    node: Any
    entered: Any


def _record(model: nn.Module, images: Tensor) -> tuple[list[_Seen], Any, Any]:
    """All calls in the order in which they returned, the scores' node and the images' node."""
    seen: list[_Seen] = []
    entered: dict[str, list[Any]] = {}

    def enter(name: str, call: int, inputs: Any) -> None:
        first = inputs[0] if inputs else None
        entered.setdefault(name, []).append(first.grad_fn if isinstance(first, Tensor) else None)

    def leave(name: str, call: int, output: Any) -> None:
        before = entered[name].pop() if entered.get(name) else None
        if isinstance(output, Tensor):
            seen.append(_Seen(call_name(name, call), name, output.grad_fn, before))

    names = [name for name, _ in model.named_modules() if name]
    hooks = ActivationHooks(model, names, leave, on_enter=enter)
    with undisturbed(model), torch.enable_grad(), unwatched(), hooks:
        images = images.detach().clone().requires_grad_(True)
        scores = scores_of(model(images))
    if scores.grad_fn is None:
        raise NatstatsError(
            "model: expected a classifier whose scores follow from the images by operations that "
            "autograd knows; got scores without a gradient"
        )
    # The node of the graph at which the gradient of the images is accumulated.
    leaf = images.view_as(images).grad_fn
    assert leaf is not None
    return seen, scores.grad_fn, leaf.next_functions[0][0]


def _order(start: Any) -> list[Any]:
    """Operations that `start` depends on, each after all operations that depend on it."""
    order: list[Any] = []
    done: set[Any] = set()
    stack: list[tuple[Any, Iterator[Any]]] = []

    def inner(node: Any) -> Iterator[Any]:
        return iter([following for following, _ in node.next_functions if following is not None])

    stack.append((start, inner(start)))
    done.add(start)
    while stack:
        node, following = stack[-1]
        deeper = next((other for other in following if other not in done), None)
        if deeper is None:
            order.append(node)
            stack.pop()
        else:
            done.add(deeper)
            stack.append((deeper, inner(deeper)))
    return order[::-1]


def _on_trunk(scores: Any, images: Any) -> set[Any]:
    """Operations that every path from the images to the scores goes through."""
    order = _order(scores)
    below: dict[Any, int] = {}
    for node in reversed(order):
        if node is images:
            below[node] = 1
        else:
            below[node] = sum(below[other] for other, _ in node.next_functions if other is not None)
    above = dict.fromkeys(order, 0)
    above[scores] = 1
    for node in order:
        for other, _ in node.next_functions:
            if other is not None:
                above[other] += above[node]
    return {node for node in order if above[node] * below[node] == below[scores] > 0}


def _batch_norm(node: Any, by_node: dict[Any, str], model: nn.Module) -> nn.Module | None:
    """The batch norm that gave what a node is, or its first summand that is one's output."""
    if node is None:
        return None
    candidates = [node]
    if type(node).__name__.startswith("Add"):
        candidates += [other for other, _ in node.next_functions if other is not None]
    for candidate in candidates:
        name = by_node.get(candidate)
        module = None if name is None else model.get_submodule(name)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            return module
    return None


def trunk_of(model: nn.Module, images: Tensor, traces: Traces | None = None) -> list[TrunkMap]:
    """The maps on the trunk, from the images to the scores, each once.

    Args:
        model: a classifier; mode, buffers and random state are left as they were.
        images: (1, 3, H, W).
        traces: results of passes traced before, which are reused and added to; None for none.

    Raises:
        NatstatsError: the scores are not a tensor that is computed from the images.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2))
    >>> _ = model(torch.zeros(1, 3, 9, 9))
    >>> [(found.name, found.source) for found in trunk_of(model, torch.zeros(1, 3, 9, 9))]
    [('0', ''), ('1', '0')]
    """
    known = traces or Traces()
    found: list[TrunkMap] = known.once(
        "trunk", model, images, lambda: _trunk(model, images, known.of(model, images))
    )
    return found


def _trunk(model: nn.Module, images: Tensor, traced: Traced) -> list[TrunkMap]:
    seen, scores, leaf = _record(model, images)
    trunk = _on_trunk(scores, leaf)
    returned: dict[Any, list[_Seen]] = {}
    for one in seen:
        if one.node in trunk:
            returned.setdefault(one.node, []).append(one)
    names = {node: ones[0].name for node, ones in returned.items()}
    modules = {one.node: one.module for one in reversed(seen) if one.node is not None}
    blocks = set(block_names(model))
    found: list[TrunkMap] = []
    for ones in returned.values():
        first, layout = ones[0], traced.layouts.get(ones[0].name)
        if first.name not in traced.calls or not isinstance(layout, Layout):
            continue
        if len(layout.grid) != 2:
            continue
        call = traced.calls[first.name]
        activation = next((o for o in ones if traced.calls[o.name].kind == "act"), None)
        node = first.node if activation is None else activation.entered
        found.append(
            TrunkMap(
                name=first.name,
                aliases=tuple(one.name for one in ones[1:]),
                module=model.get_submodule(first.module),
                height=layout.grid[0],
                width=layout.grid[1],
                channels=int(call.shape[1 if _has_channels_first(layout) else -1]),
                depth=call.depth,
                is_block=any(one.module in blocks for one in ones),
                is_activation=activation is not None,
                source=_source(activation, names),
                batch_norm=_batch_norm(node, modules, model),
            )
        )
    return found


def _has_channels_first(layout: Layout) -> bool:
    in_windows = layout.windows is not None and layout.windows.channels_first
    return layout.name == "NCHW" or in_windows


def _source(activation: _Seen | None, names: Mapping[Any, str]) -> str:
    """Name of what went into an activation: a map of the trunk, or the activation's input."""
    if activation is None:
        return ""
    return names.get(activation.entered, f"{activation.name}@input")
