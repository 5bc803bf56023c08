"""Which layout an output has: found from the module, the shape, and the maps that came before it.

A convolution has its channels first and a linear layer has them last. For any other module, and for
tokens, the map sizes that earlier layers have shown decide: 197 tokens after maps of 14 x 14 are
one class token and a map. There is no guessing: an output that fits no rule, or two, is refused
with a reason, and ``--layout`` can declare its layout.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from natstats.activations.channel_axis import channels_are_last
from natstats.activations.declared_layouts import parse_layouts
from natstats.activations.layouts import LAYOUTS, Layout, dense_layouts
from natstats.activations.map_sizes import MapSizes
from natstats.activations.selection import call_name
from natstats.activations.window_rules import is_cut, partition, shifted_windows
from natstats.errors import UsageError
from natstats.numbers import counted

__all__ = ["LayoutRules"]

_OPEN = ("fits no known layout", "whose places are not known", "--layout can say which")
"""Parts of the reasons for which outputs are left out that may be maps all the same."""

_Key = tuple[str, tuple[int, ...], float, tuple[int, ...]]


class LayoutRules:
    """Finds the layouts of the outputs of one network, in the order in which they come.

    Args:
        model: the network.
        declared: layouts that the user declares, by module name or pattern; see
            :func:`natstats.activations.declared_layouts.parse_layouts`.

    Raises:
        UsageError: no such layout, or no module of that name.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.Flatten(2))
    >>> rules = LayoutRules(model)
    >>> rules.start([torch.zeros(2, 3, 64, 64)], 2)
    >>> str(rules.find("0", torch.zeros(2, 8, 4, 4)))
    'NCHW'
    >>> str(rules.find("norm", torch.zeros(2, 17, 8), nn.LayerNorm(8)))
    'NLC (1 + 4x4)'
    """

    def __init__(self, model: nn.Module, declared: Mapping[str, str] | None = None) -> None:
        self._modules = dict(model.named_modules())
        self._declared = parse_layouts(declared or {})
        for pattern in self._declared:
            if not fnmatch.filter(self._modules, pattern):
                names = [name for name, part in self._modules.items() if not [*part.children()]]
                raise UsageError(
                    f"layouts: expected the name of a module, or a pattern that matches one; got "
                    f"{pattern!r} (modules are named like {', '.join(names)[:80]})"
                )
        self._sizes = MapSizes()
        self._orders: dict[str, str] = {}  # of tokens, as the pass of one image showed them
        self._found: dict[_Key, Layout | str] = {}
        self._frame_major: set[str] = set()
        self._refused: dict[str, str] = {}
        self._settled: dict[str, tuple[tuple[int, ...], Layout]] = {}
        self._proved_at: tuple[int, ...] | None = None  # shape of the image
        self._n_settled = 0  # how often a layout that was found before may have changed
        self.by_rule: set[str] = set()
        """Layers whose layout could not be proved, see :mod:`natstats.activations.probe`."""
        self._sets_of: dict[tuple[str, tuple[int, ...]], int] = {}  # as one image showed them
        self._n_images = 1
        self.regions: tuple[int, ...] | None = None
        """Number of regions in each image, once a pooler of regions was called in this pass."""

    def start(self, inputs: Any, n_images: int) -> None:
        """Begin a forward pass of `n_images` images with these arguments."""
        leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        image = next((leaf for leaf in leaves if leaf.ndim >= 3), None)
        self._sizes.image = None if image is None else tuple(image.shape)
        self._n_images = n_images
        self.regions = None

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of the first argument that is an image or several."""
        return self._sizes.image

    def pool_regions(self, module: nn.Module, args: tuple[Any, ...], named: Any) -> None:
        """Note the regions of each image; a forward pre-hook of ``MultiScaleRoIAlign``."""
        boxes = args[1] if len(args) > 1 else named["boxes"]
        self.regions = tuple(len(one) for one in boxes)

    def put_frames_first(self, layer: str) -> None:
        """From now on, take the sets of maps of a layer to be ordered by frame, not by image."""
        self._frame_major.add(layer)
        self._found.clear()
        self._n_settled += 1

    def refuse(self, layer: str, reason: str) -> None:
        """From now on, do not measure a layer, for this reason."""
        self._n_settled += 1
        self._refused[layer] = reason

    def settle(self, layer: str, shape: tuple[int, ...], layout: Layout) -> None:
        """From now on, read the outputs of a layer in this layout.

        Args:
            layer: its name.
            shape: shape of its output for one image, for which the layout was proved.
            layout: what was proved.
        """
        self._settled[layer] = shape, layout
        self._proved_at = self.input_shape
        self._found.clear()
        self._n_settled += 1

    def is_declared(self, name: str) -> bool:
        """Whether the user has declared the layout of a module."""
        return self._declared_for(name) is not None

    def _declared_for(self, name: str) -> Layout | None:
        matching = (v for key, v in self._declared.items() if fnmatch.fnmatchcase(name, key))
        return next(matching, None)

    def is_certain(self, name: str, layout: Layout) -> bool:
        """Whether the type of a module leaves no other way to read its output."""
        is_first = channels_are_last(self._modules[name]) is False
        return is_first and layout.sets == 1 and layout.kind.channels == 1

    @staticmethod
    def is_open(reason: str) -> bool:
        """Whether an output was left out only because there was no telling where its maps are."""
        return any(part in reason for part in _OPEN)

    @property
    def grids(self) -> tuple[tuple[int, ...], ...]:
        """Map sizes that layers have shown, the latest first."""
        return tuple(reversed(self._sizes))

    def find(
        self,
        name: str,
        output: Tensor,
        module: nn.Module | None = None,
        call: int = 0,
        part: str = "",
    ) -> Layout | str:
        """The layout of an output, or the reason why it cannot be measured.

        Args:
            name: name of the module.
            output: what it returned, or a part of it.
            module: the module, where it is not one of the model.
            call: number of the call in this forward pass.
            part: which part of its output, see :func:`natstats.activations.selection.call_name`.
        """
        layer = call_name(name, call, part)
        if layer in self._refused:
            return self._refused[layer]
        module = module or self._modules[name]
        if isinstance(module, nn.MultiheadAttention) and part == "[1]":
            return "attention weights, which are no maps"
        is_of_regions = self.regions is not None and len(output) == sum(self.regions)
        # Sets of maps for each image; with regions the number differs from batch to batch.
        ratio = -1.0 if is_of_regions else len(output) / self._n_images if output.ndim else 0.0
        key = layer, tuple(output.shape[1:]), ratio, (self.input_shape or ())[-2:]
        found = self._found.get(key)
        if found is None:
            found = self._resolve(layer, name, module, output)
            found = self._sets(layer, output, found)
            if len({*output.shape[1:]}) > 1:  # of cubes, maps yet to come decide
                self._found[key] = found
        if isinstance(found, Layout) and not is_of_regions:
            self.see(found)
        return found

    @property
    def state(self) -> tuple[Any, ...]:
        """What a found layout holds for, beside the shape of the output; see :meth:`is_kept`."""
        image = (self.input_shape or ())[-2:]
        return self._n_settled, self._n_images, image, self.regions is None

    def is_kept(self, output: Tensor) -> bool:
        """Whether outputs of this shape keep their layout as long as :attr:`state` is the same."""
        return self.regions is None and len({*output.shape[1:]}) > 1

    def see(self, layout: Layout) -> None:
        """Note the size of maps whose layout is known, for the layers that follow."""
        kind = layout.kind
        self._sizes.show(layout.grid, is_last=kind.is_dense and kind.channels == -1)

    def _resolve(self, layer: str, name: str, module: nn.Module, output: Tensor) -> Layout | str:
        shape = tuple(output.shape)
        if not (output.is_floating_point() or output.is_quantized):
            return f"the output is {output.dtype}, not floating"
        if _is_attention(output):
            return "attention weights, which are no maps"
        layout: Layout | str | None
        if (declared := self._declared_for(name)) is not None:
            layout = self._as_declared(declared, shape)
        elif layer in self._settled:
            layout = self._as_settled(*self._settled[layer], shape)
        elif len(shape) == 3:
            layout = self._windows(name, shape) or self._tokens(layer, module, shape)
        elif len(shape) in (4, 5):
            layout = partition(self._modules, name, shape) or self._dense(module, shape)
        else:
            layout = None
        if isinstance(layout, str):
            return layout
        if layout is None:
            text = " x ".join(["N", *map(str, shape[1:])])
            if len(shape) < 3 or isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                return f"the output ({text}) has no axes of maps"
            return f"the output ({text}) fits no known layout; --layout can say what it is"
        return replace(layout, is_quantized=output.is_quantized)

    def _sets(self, layer: str, output: Tensor, found: Layout | str) -> Layout | str:
        """Complete a layout by the number of sets of maps that each image has."""
        if isinstance(found, str) or found.windows is not None:
            return found
        n_sets, n_images = output.shape[found.kind.images], self._n_images
        if self.regions is not None and n_sets == sum(self.regions):
            return replace(found, sets=0)
        if n_sets % n_images:
            return (
                f"{counted(n_sets, 'set of maps', 'sets of maps')} for {counted(n_images, 'image')}"
            )
        pieces = n_sets // n_images
        if n_images == 1:
            self._sets_of[layer, found.grid] = pieces
        alone = self._sets_of.get((layer, found.grid), pieces)
        if alone != pieces:  # such as a batch that the network pads
            sets = counted(n_sets, "set of maps", "sets of maps")
            return f"{sets} for {n_images} images, where one image had {alone}"
        if pieces > 1 and layer not in self._settled and found.kind.is_like_windows:
            cut = self._cut(found, tuple(output.shape), pieces)
            if cut is not None:
                sides, of = ("x".join(map(str, grid)) for grid in cut)
                return f"{pieces} pieces of {sides} of a map of {of}, whose places are not known"
        return replace(found, sets=n_sets // n_images, image_major=layer not in self._frame_major)

    def _cut(
        self, found: Layout, shape: tuple[int, ...], n_pieces: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Sizes of a window and of the map that it may be cut from; None where there is none.

        Several sets of maps may be heads or frames, which are whole maps. They may also be the
        windows of a network that is not known, which are only pieces of a map.
        """
        piece = found.grid
        if found.n_prefix and found.kind.tokens is not None:
            # A padded window may look like a smaller map with tokens before it.
            n_tokens = shape[found.kind.tokens]
            side = math.isqrt(n_tokens)
            piece = (side, side) if side * side == n_tokens else ()
        whole = next((g for g in self._sizes if piece and is_cut(g, piece, n_pieces)), None)
        return None if whole is None else (piece, whole)

    def _as_declared(
        self, declared: Layout, shape: tuple[int, ...], said: str = "as declared"
    ) -> Layout | str:
        """A declared layout completed by its grid, or why it cannot be."""
        kind = declared.kind
        text = " x ".join(["N", *map(str, shape[1:])])
        misfit = f"the output ({text}) is not {declared.name}, {said}: it fits no known layout"
        if len(shape) != kind.n_axes:
            return misfit
        if kind.tokens is None:
            return replace(declared, grid=kind.grid_of(shape), n_prefix=0)
        n_tokens = shape[kind.tokens]
        if declared.tokens is not None:
            if max(declared.tokens) >= n_tokens:
                return f"{misfit} with token {max(declared.tokens)} of {n_tokens}"
            found = self._sizes.grid_of(len(declared.tokens), [0])
        else:
            prefixes = [declared.n_prefix] if declared.n_prefix >= 0 else None
            found = self._sizes.grid_of(n_tokens - declared.n_suffix, prefixes)
        if found is None:
            return f"{misfit}, as its tokens make no map of the images' proportions"
        return replace(declared, grid=found[0], n_prefix=found[1])

    def _as_settled(
        self, proved: tuple[int, ...], layout: Layout, shape: tuple[int, ...]
    ) -> Layout | str:
        """The layout of outputs of a shape, where it was proved for another; or why it has none."""
        images = layout.kind.images
        is_alike = shape[:images] + shape[images + 1 :] == proved[:images] + proved[images + 1 :]
        if layout.windows is not None:
            # As many windows of this size, differently padded, may also come from another map.
            now, then = self.input_shape, self._proved_at
            is_alike &= shape[0] == self._n_images * proved[0]
            is_alike &= now is not None and then is not None and now[-2:] == then[-2:]
        if is_alike:
            return layout
        if layout.windows is not None or layout.tokens is not None:
            of = "windows" if layout.windows is not None else "places of the tokens"
            return f"{of} of maps of {'x'.join(map(str, layout.grid))} only are known"
        return self._as_declared(layout, shape, "as was proved for another size")

    def _windows(self, name: str, shape: tuple[int, ...]) -> Layout | None:
        """Windows that the network itself describes, cut from a map of the latest size."""
        latest = self._sizes.latest()
        if latest is None:
            return None
        found = shifted_windows(self._modules, name, shape, latest, self._n_images)
        if found is not None:
            self._sizes.window_areas.add(shape[1])
        return found

    def _dense(self, module: nn.Module, shape: tuple[int, ...]) -> Layout | str | None:
        """The layout of maps with axes of their own; why it is open; or None where none fits."""
        first, last = shape[2:], shape[1:-1]
        names, sizes = dense_layouts(len(shape)), self._sizes
        is_last = channels_are_last(module)
        if is_last is None:
            fits = first in sizes, last in sizes
            if fits == (True, True) and first == last:
                if len(sizes.sides_of_channels(first)) > 1:
                    sides = " x ".join(map(str, shape[1:]))
                    return f"N x {sides} is {names[0]} or {names[1]}; --layout can say which"
                (is_last,) = sizes.sides_of_channels(first)
            elif fits == (True, True):
                is_last = next(g for g in reversed(sizes) if g in (first, last)) == last
            elif any(fits):
                is_last = fits[1]
            elif sizes.could_be_maps(first):
                is_last = False
            else:
                return None
        elif is_last and last not in sizes and not sizes.could_be_maps(last):
            return None
        return Layout(names[is_last], last if is_last else first)

    def _tokens(self, layer: str, module: nn.Module, shape: tuple[int, ...]) -> Layout | None:
        if channels_are_last(module) is False:
            return None
        kinds = [kind for kind in LAYOUTS.values() if kind.tokens is not None]
        if getattr(module, "batch_first", True) is False:
            kinds = [kind for kind in kinds if kind.images]
        if layer in self._orders:
            kinds = [LAYOUTS[self._orders[layer]]]
        for kind in kinds:
            assert kind.tokens is not None
            n_tokens, n_sets = shape[kind.tokens], shape[kind.images]
            found = self._sizes.grid_of(n_tokens)
            if found is not None and n_sets % self._n_images == 0:
                if self._n_images == 1:
                    # With more than one, there may be as many images as tokens.
                    self._orders[layer] = kind.name
                return Layout(kind.name, found[0], found[1])
        return None


def _is_attention(output: Tensor) -> bool:
    """Whether an output holds attention weights: square matrices whose rows sum to one."""
    shape = output.shape
    if output.ndim < 3 or output.is_quantized or not output.numel():
        return False
    if shape[-1] != shape[-2] or shape[-1] < 5:
        return False
    sums = output.detach().float().sum(-1)
    return bool((output >= 0).all() and ((sums - 1).abs() < 0.01).all())
