"""Expected spectra at the layers of a network with random weights, in the limit of many channels.

The recursion of :mod:`natstats.theory.random_states` goes along the graph of the network's own
forward pass. Of the weights, only the mean square counts. The limit is that of Novak et al. (2019)
and Garriga-Alonso et al. (2019), with the kernels of Cho and Saul (2009).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from natstats import checks
from natstats.activations.graph import trace_graph
from natstats.activations.layouts import Layout
from natstats.activations.selection import select_modules
from natstats.activations.trace import LayerCall, trace_calls
from natstats.checks import MINIMUM_SIDE
from natstats.errors import NatstatsError, UsageError
from natstats.fits.bands import band_of
from natstats.fits.held_bands import held_band
from natstats.fits.options import FitOptions
from natstats.images.sources import ImageSet, Photographs, batches, open_images
from natstats.networks.load import Network, load_network
from natstats.networks.preprocessing import Preprocessing, configured
from natstats.networks.random_weights import with_random_weights
from natstats.networks.wrappers import unwrapped
from natstats.spectra.edge_names import EDGES, Edges
from natstats.spectra.frequencies import extent, rings
from natstats.spectra.input_spectra import InputSpectra
from natstats.spectra.records import Layer
from natstats.spectra.simulate import spectrum_of
from natstats.theory.given_operations import RecursionOptions
from natstats.theory.random_recursion import Recursion, Stopped
from natstats.theory.random_states import State

__all__ = ["RandomLayer", "RandomSpectra", "random_spectra"]

MAX_POOLING = ("stop", "simulate")
BATCH_NORM = ("eval", "train")

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RandomLayer:
    """What is expected at one layer of a network with random weights.

    Attributes:
        name: of the layer, as natstats names it.
        kind: see :class:`natstats.spectra.records.Layer`.
        depth: weight layers on the longest path from the input; 0 for the images.
        height: H of the maps.
        width: W of the maps.
        power: expected ring power, mean over images and channels, (n_rings,).
        exponent: of that power; NaN where the maps do not have the band.
        form: ``exact`` or ``stationary``; ``measured`` for the images themselves.
    """

    name: str
    kind: str
    depth: int
    height: int
    width: int
    power: Array = field(repr=False)
    exponent: float
    form: str


@dataclass(frozen=True, eq=False)
class RandomSpectra:
    """What is expected of a network with random weights.

    Attributes:
        layers: the images, then every weight layer that was reached, in the order of execution.
        stopped: the place where the recursion ended before all layers with maps were reached, and
            why; empty where they all were.
        missing: names of the layers with maps that were not reached.
        approximate: places of activation functions whose input is taken for Gaussian and is not;
            after these the spectra are no longer exact in the limit.
        n_images: images.
        edges: edge treatment.
        max_pooling: ``stop`` or ``simulate``.
        batch_norm: ``eval`` or ``train``.
    """

    layers: tuple[RandomLayer, ...]
    stopped: str
    missing: tuple[str, ...]
    approximate: tuple[str, ...]
    n_images: int
    edges: str
    max_pooling: str
    batch_norm: str

    @property
    def exponents(self) -> Array:
        """Exponent of every layer, the images first."""
        return np.array([layer.exponent for layer in self.layers])

    @property
    def depths(self) -> NDArray[np.int64]:
        """Depth of every layer, the images first."""
        return np.array([layer.depth for layer in self.layers])

    def layer(self, name: str) -> RandomLayer:
        """The layer of this name.

        Raises:
            UsageError: there is none.
        """
        checks.one_of("layer", name, [one.name for one in self.layers])
        return next(one for one in self.layers if one.name == name)

    def slope(self) -> float:
        """Change of the exponent per layer: the straight line over depth, without the images."""
        rows = [one for one in self.layers if one.depth and math.isfinite(one.exponent)]
        if len({one.depth for one in rows}) < 2:
            return math.nan
        line = np.polyfit([one.depth for one in rows], [one.exponent for one in rows], 1)
        return float(line[0])

    def table(self) -> list[dict[str, Any]]:
        """A row for every layer, with plain values."""
        names = ("name", "kind", "depth", "height", "width", "exponent", "form")
        return [{name: getattr(one, name) for name in names} for one in self.layers]


def _network(model: nn.Module | Network | str, seed: int) -> Network:
    """The network with random weights that a name, a module or a ``Network`` stands for."""
    if isinstance(model, str):
        return load_network(model, weights="none", seed=seed)
    if isinstance(model, nn.Module):
        model = unwrapped(model)
        if not list(model.children()):  # a single layer has no name of its own
            model = nn.Sequential(model)
        preprocessing = configured(model) or Preprocessing()
        return Network(model, type(model).__name__, "as given", None, preprocessing)
    if not isinstance(model, Network):
        raise UsageError(
            f"model: expected a torch.nn.Module, a Network or a name; got {type(model).__name__}"
        )
    return with_random_weights(model, seed) if model.trained else model


def _source(images: Any, network: Network, limit: int | None, seed: int) -> ImageSet:
    framing = network.preprocessing.framing
    source = open_images(images, framing, limit, seed)
    if isinstance(source, Photographs) and source is not images:
        source = source.framed(framing)
    return source


def random_spectra(
    model: nn.Module | Network | str,
    images: str | Path | np.ndarray[Any, Any] | Tensor | ImageSet,
    *,
    layers: str = "weight",
    edges: Edges = "sine",
    fit: FitOptions | None = None,
    max_pooling: str = "stop",
    batch_norm: str = "eval",
    n_fields: int = 128,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> RandomSpectra:
    """Expected ring power and exponent at every layer of a network with random weights.

    The expectation is over weights, for these images, in the limit of many channels. Maps up to 48
    pixels are followed at all pairs of positions, with their borders; larger ones as stationary
    fields, without borders. Convolutions (any stride, padding, dilation and groups, with a bias),
    activation functions, average pooling, additions, products of independent values,
    concatenations, batch norm and instance norm are followed. Some of these are approximate:
    convolutions of few channels, above all depthwise ones, whose output is not a Gaussian field;
    activation functions of sums with a rectified shortcut, of concatenations and of pooled values,
    which are taken as Gaussian with the right mean and second moment; norms with the statistics of
    the images at hand. Max pooling, gates, layer norm and attention have no closed form: the
    recursion ends there, and says so.

    Args:
        model: the network. The variance of every weight tensor is the mean square of its entries.
            A ``Network`` whose weights are trained is initialised anew; the name of one is built
            with random weights; a bare module is taken as it is.
        images: what :func:`natstats.measure` takes for a network.
        layers: which layers, see :func:`natstats.activations.selection.select_modules`.
        edges: edge treatment, see :mod:`natstats.spectra.edges`.
        fit: band and estimator.
        max_pooling: ``stop``, or ``simulate`` to draw Gaussian fields with the known covariance
            and pool these.
        batch_norm: ``eval`` for stored statistics, ``train`` for those of the images of a batch.
            Layers that store none have those of a batch in any case.
        n_fields: fields to draw for every image of large maps, 16 times as many for small ones.
        limit: at most this many images, a random sample.
        seed: of the sample, of draws, and of weights where the network is initialised.
        batch_size: images that are followed together; at 48 pixels each takes 42 MB for every value
            that is held.
        progress: called after each batch with the images done and the images in all.

    Returns:
        The layers that were reached, the images first.

    Raises:
        UsageError: an argument is out of range.
        NatstatsError: no image can be read, or the network cannot be followed.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3))
    >>> found = random_spectra(model, torch.rand(4, 3, 16, 16))
    >>> [(one.name, one.depth, one.form) for one in found.layers]
    [('input.colour', 0, 'measured'), ('0', 1, 'exact'), ('2', 2, 'exact')]
    """
    checks.one_of("edges", edges, EDGES)
    checks.one_of("max_pooling", max_pooling, MAX_POOLING)
    checks.one_of("batch_norm", batch_norm, BATCH_NORM)
    checks.positive_int("n_fields", n_fields, 2)
    checks.positive_int("batch_size", batch_size)
    checks.positive_int("seed", seed, 0)
    network = _network(model, seed)
    if network.takes != "images":
        raise UsageError(
            f"model: expected a network that takes images (N, C, H, W); got one that takes "
            f"{network.takes}"
        )
    source = _source(images, network, limit, seed)
    options = RecursionOptions(edges, max_pooling, n_fields, seed, batch_norm)
    work = _Work(network, source, layers, options, fit or FitOptions())
    with torch.no_grad():
        for batch in batches(source, batch_size, 0, torch.device("cpu")):
            if len(batch.index):
                work.add(batch.images, batch.index)
            if progress is not None:
                progress(work.n_images, source.n_images or 0)
    return work.result()


def _mean_power(power: Array, layer: Layer) -> Array:
    """Mean power of every image over the frequencies of all rings, (N, 1)."""
    n_members = rings(layer.height, layer.width).n_members
    return np.asarray(power @ n_members / n_members.sum())[:, None]


class _Work:
    """What was found so far."""

    def __init__(
        self,
        network: Network,
        source: ImageSet,
        layers: str,
        options: RecursionOptions,
        fit: FitOptions,
    ) -> None:
        self._network, self._source, self._asked = network, source, layers
        self._options, self._fit = options, fit
        self._inputs = InputSpectra(options.edges, n_groups=1)
        self._recursion: Recursion | None = None
        self._power: dict[str, list[Array]] = {}
        self._forms: dict[str, str] = {}
        self._stops: dict[str, str] = {}
        self.n_images = 0

    def add(self, images: Tensor, index: Tensor) -> None:
        """Take a batch of images through the network."""
        if images.ndim != 4:
            raise UsageError(f"images: expected (N, C, H, W); got {images.ndim} axes")
        self._inputs.update(images, index)
        prepared = images
        if isinstance(self._source, Photographs):
            prepared = self._network.preprocessing.normalize(images)
        parameter = next(iter(self._network.model.parameters()), torch.zeros(1))
        prepared = prepared.to(parameter.device, parameter.dtype)
        if self._recursion is None:
            self._recursion = self._prepared(prepared)
        run = self._recursion.run(self._network.arguments(prepared), self.n_images)
        for number, value in run:
            for name in self._recursion.graph.values[number].layers:
                if name not in self._calls:
                    continue
                if isinstance(value, State):
                    self._power.setdefault(name, []).append(value.ring_power(self._options.edges))
                    self._forms[name] = value.form
                else:
                    stop = value.reason if isinstance(value, Stopped) else "it is no maps"
                    self._stops.setdefault(name, stop)
        self.n_images += len(images)

    def _prepared(self, prepared: Tensor) -> Recursion:
        """Trace the network with the first image."""
        model = self._network.model
        arguments = self._network.arguments(prepared[:1])
        self._sides = tuple(prepared.shape[2:])
        try:
            trace, graph = trace_calls(model, arguments), trace_graph(model, arguments)
        except (RuntimeError, NotImplementedError, AttributeError, ValueError, TypeError) as error:
            shape = " x ".join(str(side) for side in prepared.shape)
            reason = " ".join(str(error).split())[:160]
            raise NatstatsError(
                f"model: expected to take images of shape {shape}, and operations that can be "
                f"followed; {reason}"
            ) from error
        chosen = {*select_modules(model, self._asked, trace.stages(model))}
        self._calls = {
            call.name: call
            for call in trace.calls
            if call.module in chosen
            and isinstance(call.layout, Layout)
            and min(call.layout.grid[-2:]) >= MINIMUM_SIDE
        }
        return Recursion(graph, model, self._options)

    def result(self) -> RandomSpectra:
        """The layers, in the order of execution."""
        if self._recursion is None:
            raise NatstatsError(
                f"images: expected an image that can be read in "
                f"{self._source.description}; got none"
            )
        given = self._inputs.compute()[-1]
        power = given.spectrum.power.sum(0) / self.n_images
        rows = [self._row(given.layer, power, "measured")]
        missing = []
        for name, call in self._calls.items():
            found = self._power.get(name)
            if found is None:
                missing.append(name)
                continue
            layer = self._layer(call)
            power = np.concatenate(found)
            if self._fit.normalize:
                power = power / _mean_power(power, layer)
            rows.append(self._row(layer, power.mean(0), self._forms[name]))
        stopped = next((self._stops[name] for name in missing if name in self._stops), "")
        if missing and not stopped:
            stopped = f"{missing[0]}: its output is not among the values that were followed"
        return RandomSpectra(
            tuple(rows),
            stopped and f"stopped at {stopped}",
            tuple(missing),
            tuple(self._recursion.approximate),
            self.n_images,
            self._options.edges,
            self._options.max_pooling,
            self._options.batch_norm,
        )

    def _layer(self, call: LayerCall) -> Layer:
        assert isinstance(call.layout, Layout)
        height, width = call.layout.grid[-2:]
        span = extent(height, width) * call.pitch / min(self._sides)
        return Layer(
            call.name, call.call, call.kind, call.depth, call.shape[1], height, width,
            self._sides[0] / height, span=span,
        )  # fmt: skip

    def _row(self, layer: Layer, power: Array, form: str) -> RandomLayer:
        return RandomLayer(
            layer.name, layer.kind, layer.depth, layer.height, layer.width, power,
            self._exponent(layer, power), form,
        )  # fmt: skip

    def _exponent(self, layer: Layer, power: Array) -> float:
        fit = self._fit
        spectrum = spectrum_of(power[None], layer.height, layer.width, self._options.edges)
        span = layer.span if math.isfinite(layer.span) else 1.0
        held = held_band(fit.band, spectrum, span)
        if held is None:
            return math.nan
        band = band_of(layer.height, layer.width, self._options.edges, *held)
        if band.n_rings < fit.min_rings or not (power[band.inside] > 0).all():
            return math.nan
        return float(band.estimate(power[None, band.inside], fit.estimator)[0])
