"""Which image a set of maps belongs to, where an image has several.

Attention heads, windows and the frames of a pair stand along the first axis of an output, and so do
the regions that a detector finds. The unit of resampling is the image, so the spectra of its sets
are averaged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from natstats.activations.batch_arguments import doubled
from natstats.activations.hooks import ActivationHooks, level, parts_of
from natstats.activations.layout_rules import LayoutRules
from natstats.activations.layouts import Layout
from natstats.activations.passes import repeatable, unchanged
from natstats.activations.selection import call_name

__all__ = ["frame_major", "rows_by_image", "watched_regions"]


@contextlib.contextmanager
def watched_regions(model: nn.Module, rules: LayoutRules) -> Iterator[None]:
    """Tell the rules how many regions each image has, as detectors find them."""
    from torchvision.ops import MultiScaleRoIAlign

    own = level.get()

    def note(module: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        if level.get() == own:
            rules.pool_regions(module, args, named)

    handles = [
        module.register_forward_pre_hook(note, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, MultiScaleRoIAlign)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def frame_major(
    model: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], layers: set[str]
) -> list[str]:
    """Those of `layers` whose first axis runs over the images fastest.

    A pass of the same image twice is compared with one of the image and its mirror image: the sets
    that change are those of the second image. Where nothing changes, or the model cannot take two
    images, the sets are taken to be in the order of the images.
    """

    def outputs(other: Any) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}

        def keep(name: str, call: int, output: Any) -> None:
            for part, tensor in parts_of(output):
                if (layer := call_name(name, call, part)) in layers:
                    # A weighted sum of each set of maps tells whether it has changed.
                    flat = tensor.dequantize() if tensor.is_quantized else tensor
                    flat = flat.flatten(1).float()
                    found[layer] = flat @ torch.linspace(1, 2, flat.shape[1], device=flat.device)

        given = [doubled(value, other) for value in inputs]
        by_name = {name: doubled(value, other) for name, value in named.items()}
        names = [name for name, _ in model.named_modules() if name]
        hooks = ActivationHooks(model, names, keep)
        with unchanged(model), repeatable(), torch.no_grad(), hooks:
            model(*given, **by_name)
        return found

    try:
        same, mirrored = outputs(lambda image: image), outputs(lambda image: image.flip(-1))
    except (RuntimeError, ValueError, TypeError):
        return []
    found = []
    for layer in sorted(same.keys() & mirrored.keys()):
        if same[layer].shape != mirrored[layer].shape:
            continue
        changes = (same[layer] - mirrored[layer]).abs()
        half = len(changes) // 2
        by_image = float(changes[half:].sum() - changes[:half].sum())
        by_frame = float(changes[1::2].sum() - changes[::2].sum())
        if by_frame > by_image:
            found.append(layer)
    return found


def rows_by_image(
    rows: Tensor, layout: Layout, index: Tensor, regions: tuple[int, ...] | None
) -> tuple[Tensor, Tensor]:
    """One row for each image: the mean over its sets of maps; images without any are left out.

    Args:
        rows: one for each set of maps, (M, n).
        layout: of the output.
        index: numbers of the images, (N,).
        regions: number of regions in each image, where sets of maps are regions.

    Returns:
        The rows, (N, n), and the numbers of the images that are left, (N,).
    """
    if layout.sets == 1:
        return rows, index
    if layout.sets > 1:
        shape = (len(index), layout.sets) if layout.image_major else (layout.sets, len(index))
        return rows.view(*shape, -1).mean(1 if layout.image_major else 0), index
    counts = torch.tensor(regions)
    owner = torch.repeat_interleave(torch.arange(len(counts)), counts).to(rows.device)
    sums = rows.new_zeros(len(counts), rows.shape[1]).index_add_(0, owner, rows)
    has = counts > 0
    return (sums / counts.clamp(min=1).to(rows)[:, None])[has.to(rows.device)], index[has]
