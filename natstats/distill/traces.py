"""What one traced pass shows of a network, kept so that one set-up traces it only once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from natstats.activations.layouts import Layout
from natstats.activations.probe import proved_layouts
from natstats.activations.trace import LayerCall, trace_calls

__all__ = ["Traced", "Traces"]


@dataclass(frozen=True, eq=False)
class Traced:
    """What a pass of one image showed.

    Attributes:
        calls: every call of a module, by the name of the layer.
        layouts: where the maps of each layer are, or why it has none.
    """

    calls: Mapping[str, LayerCall]
    layouts: Mapping[str, Layout | str]

    @classmethod
    def of(cls, model: nn.Module, images: Tensor) -> Traced:
        """Trace a network with one image, (1, 3, H, W), and prove the layouts of all its layers."""
        trace = trace_calls(model, (images,))
        layouts = proved_layouts(model, trace, {call.module for call in trace.calls})
        return cls(trace.by_name, layouts)


class Traces:
    """Keeps what was found of networks while a training is set up, planned and measured.

    A trace takes as long as several steps of a training. What it shows does not depend on weights,
    so planning a method, taking maps in a step and measuring the gap share the traces kept here. If
    a network is changed in another way, such as a new layer or forward pass, make a new object.

    >>> import torch
    >>> model, images = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(1, 3, 8, 8)
    >>> traces = Traces()
    >>> traces.of(model, images) is traces.of(model, torch.zeros(1, 3, 8, 8))
    True
    >>> traces.of(model, images) is traces.of(model, images[:, :, 1:])
    False
    """

    def __init__(self) -> None:
        self._found: dict[tuple[Any, ...], tuple[nn.Module, Any]] = {}

    def of(self, model: nn.Module, images: Tensor) -> Traced:
        """What a pass of one image, (1, 3, H, W), shows; found once for all images of that size."""
        traced: Traced = self.once("traced", model, images, lambda: Traced.of(model, images))
        return traced

    def once(self, what: str, model: nn.Module, images: Tensor, make: Callable[[], Any]) -> Any:
        """What `make` gives, called once for a network and a size of images.

        Args:
            what: a name for the result.
            model: the network that the result is about.
            images: (1, 3, H, W).
            make: computes the result; where it raises, nothing is kept.
        """
        key = (what, id(model), *images.shape)
        if key not in self._found:
            self._found[key] = model, make()  # holding the network keeps its id its own
        return self._found[key][1]
