"""The receptive field of everything that flows through a network, operation by operation.

The theoretical field of a value is the stretch of input rows that it can depend on, the longest
over all paths. A window of k rows, `dilation` apart, on maps whose rows lie `jump` input pixels
apart adds (k - 1) * dilation * jump to it, and a stride multiplies the jump. It is not cut at the
border of the image. Whatever mixes all rows sees the whole image.

A tensor does not tell which of its dimensions runs along the height: networks permute, flatten and
split. So the input row over which each element is centred is followed along with the data. An
operation that only moves elements moves these rows, too; one that mixes elements of a single row
widens nothing; one that mixes some rows, but neither a regular window nor all, cannot be followed.
The field is then not known, there and in all that is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from natstats.activations.storages import storage_key
from natstats.activations.windows import Window, window_of

__all__ = ["ReceptiveFields"]

_PRODUCTS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
}
_REDUCTIONS = ("mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "prod", "all",
               "any", "logsumexp", "linalg_vector_norm", "norm")  # fmt: skip
_MOVES = ("cat", "stack", "roll", "flip", "repeat", "index", "index_select", "pixel_unshuffle",
          "native_channel_shuffle", "channel_shuffle")  # fmt: skip
_COPIES = ("clone", "_to_copy", "copy", "lift_fresh")
_UNTAGGED = ("hardswish", "rrelu_with_noise", "_prelu_kernel", "log_sigmoid_forward")
"""Operations on single elements, though torch does not tag them as such."""

NEAR = 1e-2
"""Rows closer than this, in input pixels, count as one: places are in single precision."""


class _LostError(Exception):
    """The field cannot be followed through this operation."""


@dataclass(frozen=True)
class _Field:
    """The fields of one tensor: their side, the distance of its rows, and where elements lie.

    Attributes:
        side: input pixels along the height; NaN when it cannot be followed.
        jump: input pixels from one row to the next; NaN where elements have no place.
        rows: the input row that an element is centred on, of a shape that broadcasts to the
            tensor's; NaN for what belongs to the whole image or to none of it.
    """

    side: float
    jump: float
    rows: Tensor


_Place = tuple[tuple[int, ...], tuple[int, ...], int]
"""Size, stride and offset of a tensor in its storage."""


class ReceptiveFields:
    """Follows the receptive fields of the data through a forward pass.

    Args:
        inputs: arguments of the forward pass. Tensors of three or more dimensions are images, with
            the height in the last but one; tensors of fewer hold no pixels.

    >>> images = torch.zeros(1, 3, 9, 9)
    >>> ReceptiveFields([images]).side_of(images)
    1.0
    """

    def __init__(self, inputs: Any) -> None:
        self._kept: dict[int, tuple[_Field, _Place]] = {}
        leaves = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
        heights = {leaf.shape[-2] for leaf in leaves if leaf.ndim >= 3}
        self._height = heights.pop() if len(heights) == 1 else math.nan
        for leaf in leaves:
            field = _Field(0.0, math.nan, torch.full((1,) * leaf.ndim, math.nan))
            if leaf.ndim >= 3:
                rows = torch.arange(float(leaf.shape[-2]))[:, None]
                # With images of several heights there is no one pixel to measure in.
                side = math.nan if math.isnan(self._height) else 1.0
                field = _Field(side, 1.0, rows.reshape((1,) * (leaf.ndim - 2) + rows.shape))
            self._kept[storage_key(leaf)] = field, _place(leaf)

    def side_of(self, output: Any) -> float:
        """Side of the largest field in `output`, input pixels; NaN when it is not known."""
        leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        keys = [storage_key(leaf) for leaf in leaves]
        sides = [self._kept[key][0].side for key in keys if key in self._kept]
        return math.nan if not sides or any(map(math.isnan, sides)) else max(sides)

    def pitch_of(self, output: Tensor, n_rows: int) -> float:
        """Input pixels from one row of the maps in `output` to the next; NaN when not known.

        Args:
            output: a tensor that holds maps, wherever their rows are in it.
            n_rows: rows of the maps.
        """
        try:
            field = self._field(output)
        except _LostError:
            return math.nan
        if field is None:
            return math.nan
        # If there are more or fewer, rows were split among channels, or joined out of several.
        rows = np.unique(field.rows.numpy())
        rows = rows[np.isfinite(rows)].astype(np.float64)
        if len(rows) != n_rows or n_rows < 2:
            return math.nan
        steps = np.diff(rows)
        return float(np.mean(steps)) if np.ptp(steps) <= NEAR else math.nan

    def follow(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], output: Any) -> None:
        """Note the fields of `output`, which the operation `func` has just made."""
        sources = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        keys = {storage_key(leaf) for leaf in sources}
        changes = func._schema.is_mutable and torch.Tag.inplace_view not in func.tags
        made = [
            leaf
            for leaf in tree_leaves(output)
            if isinstance(leaf, Tensor) and (changes or storage_key(leaf) not in keys)
        ]
        name = func.overloadpacket.__name__
        if not any(key in self._kept for key in keys) or name.endswith("_like") or "new_" in name:
            return
        for place, leaf in enumerate(made):
            try:
                if place > 0:
                    raise _LostError
                field = self._result(func, name, args, kwargs, leaf)
                torch.broadcast_to(field.rows, leaf.shape)
            except (_LostError, RuntimeError, LookupError, TypeError, ValueError):
                # Without a rule for the operation the field is not known; the pass must go on.
                field = _Field(math.nan, math.nan, torch.full((1,) * leaf.ndim, math.nan))
            self._keep(leaf, field, storage_key(leaf) in keys)

    def _keep(self, tensor: Tensor, field: _Field, is_old: bool) -> None:
        kept = self._kept.get(storage_key(tensor)) if is_old else None
        place = _place(tensor)
        if is_old and (kept is None or kept[1] != place):
            # Written into a part of a storage: the rest of it stays what it was.
            flat = self._flat(tensor)
            flat.as_strided(*place).copy_(field.rows)
            both = [field] if kept is None else [field, kept[0]]
            try:
                jump, side = _common_jump(both), max(f.side for f in both)
            except _LostError:
                jump = side = math.nan
            if any(math.isnan(f.side) for f in both):
                side = math.nan
            field = _Field(side, jump, flat)
            place = (tuple(flat.shape), (1,), 0)
        self._kept[storage_key(tensor)] = field, place

    def _flat(self, tensor: Tensor) -> Tensor:
        """The rows of every element of a storage, in the order of memory."""
        flat = torch.full((tensor.untyped_storage().nbytes() // tensor.element_size(),), math.nan)
        if storage_key(tensor) in self._kept:
            field, place = self._kept[storage_key(tensor)]
            flat.as_strided(*place).copy_(field.rows)
        return flat

    def _field(self, tensor: Any) -> _Field | None:
        """The field of a tensor as it is laid out now; None when it is not data.

        Raises:
            _LostError: it is not known.
        """
        if not isinstance(tensor, Tensor) or storage_key(tensor) not in self._kept:
            return None
        field, place = self._kept[storage_key(tensor)]
        if math.isnan(field.side):
            raise _LostError
        if place == _place(tensor):
            return field
        rows = _thin(self._flat(tensor).as_strided(*_place(tensor)))
        return _Field(field.side, _jump_of(rows, field.jump), rows)

    def _result(
        self, func: Any, name: str, args: Sequence[Any], kwargs: dict[str, Any], made: Tensor
    ) -> _Field:
        """The field of what `func` made: one rule for each family of operations."""
        given = {argument.name: argument.default_value for argument in func._schema.arguments}
        given |= dict(zip(given, args, strict=False)) | kwargs
        tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        fields = [field for field in map(self._field, tensors) if field is not None]
        name = name.rstrip("_")
        source = self._field(given.get("self", given.get("input")))
        if name in _COPIES:
            return self._join(fields[-1:])  # in a copy into a tensor: what is copied
        if torch.Tag.pointwise in func.tags or name in _UNTAGGED:
            return self._join(fields)
        if name in _MOVES:
            return self._moved(func, args, kwargs, fields)
        if name in _PRODUCTS:
            left, right = (self._field(given[side]) for side in _PRODUCTS[name])
            parts = [left and self._mixed(left, (-1,)), right and self._mixed(right, (-2,))]
            if name.startswith(("addmm", "baddbmm")):
                parts.append(source)
            return self._join([part for part in parts if part is not None])
        if name.startswith("_scaled_dot_product"):
            over = {"query": (-1,), "key": (-2, -1), "value": (-2,)}
            pairs = [(self._field(given[part]), dims) for part, dims in over.items()]
            return self._join([self._mixed(f, dims) for f, dims in pairs if f is not None])
        if source is None or len(fields) > 1:
            raise _LostError  # such as windows whose weights come from the data
        everywhere = tuple(range(-made.ndim, 0))
        if name in _REDUCTIONS:
            return self._reduced(source, given)
        if name in ("_softmax", "_log_softmax", "_safe_softmax"):
            return self._join([self._mixed(source, (given["dim"],)), source])
        if name == "native_layer_norm":
            dims = everywhere[-len(given["normalized_shape"]) :]
            return self._join([self._mixed(source, dims), source])
        if name == "native_group_norm":
            return self._join([self._mixed(source, everywhere[1:]), source])
        if "batch_norm" in name:
            dims = (everywhere[0], *everywhere[2:]) if given.get("training") else ()
            return self._join([self._mixed(source, dims), source])
        if name.endswith(("_pad1d", "_pad2d", "_pad3d", "_pad_nd")):
            # Padding has no rows of its own; `_windowed` continues regular ones over the border.
            sides = list(given["pad"] if "pad" in given else given["padding"])
            rows = torch.constant_pad_nd(source.rows.expand(given["self"].shape), sides, math.nan)
            return replace(source, rows=_thin(rows))
        if name == "glu":
            return self._mixed(source, (given["dim"],))
        if "adaptive" in name and made.shape[-2] == 1:
            return self._mixed(source, (-2, -1))
        window = window_of(name, given, made)
        if window is None:
            raise _LostError
        return self._windowed(source, window)

    def _join(self, fields: Sequence[_Field]) -> _Field:
        """The field of what depends on all of `fields`, element by element."""
        side = max(field.side for field in fields)
        jump = _common_jump(fields)
        if len(fields) == 1:
            return fields[0]
        alike = torch.broadcast_tensors(*[f.rows for f in fields])  # type: ignore[no-untyped-call, unused-ignore]
        rows = torch.stack(alike)
        low, high = _ends(rows, (0,))
        apart = _largest(high - low)
        joint = _Field(side, jump, ((low + high) / 2).squeeze(0))
        # Branches with different kernels are seldom centred on the very same row.
        return joint if not apart > jump + NEAR else self._whole(joint, low, high, rows[0].ndim)

    def _mixed(self, field: _Field, dims: tuple[int, ...]) -> _Field:
        """The field of what mixes the elements along `dims`, which are kept with a size of 1."""
        low, high = _ends(field.rows, dims) if dims else (field.rows, field.rows)
        if not _largest(high - low) > NEAR:
            return replace(field, rows=low)
        # Every mixture has to reach over all rows, even the one that reaches least.
        low, high = _ends(-low, everywhere := tuple(range(low.ndim)))[0], _ends(high, everywhere)[0]
        return self._whole(field, -low, high, field.rows.ndim)

    def _whole(self, field: _Field, low: Tensor, high: Tensor, ndim: int) -> _Field:
        """The field of the whole image, provided that fields centred from `low` to `high` cover it.

        Raises:
            _LostError: they do not.
        """
        reach = (field.side - 1) / 2 + field.jump
        lowest, highest = -_largest(-low), _largest(high)
        if not (lowest - reach <= 0 and highest + reach >= self._height - 1):
            raise _LostError
        side = max(field.side, float(self._height))
        return _Field(side, math.nan, torch.full((1,) * ndim, math.nan))

    def _reduced(self, field: _Field, given: dict[str, Any]) -> _Field:
        asked, ndim = given.get("dim"), field.rows.ndim
        over = [asked] if isinstance(asked, int) else asked or range(ndim)
        dims = tuple(dim % ndim for dim in over)
        mixed = self._mixed(field, dims)
        return mixed if given.get("keepdim") else replace(mixed, rows=mixed.rows.squeeze(dims))

    def _moved(
        self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], fields: Sequence[_Field]
    ) -> _Field:
        """Elements in new places: their rows go with them."""

        def rows_of(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                if storage_key(tensor) in self._kept:
                    raise _LostError  # places that depend on the data
                return tensor.cpu()
            field = self._field(tensor)
            rows = torch.full((1,) * tensor.ndim, math.nan) if field is None else field.rows
            return rows.expand(tensor.shape)

        moved = _thin(func(*tree_map_only(Tensor, rows_of, args), **kwargs))
        jump = _jump_of(moved, _common_jump(fields))
        return _Field(max(field.side for field in fields), jump, moved)

    def _windowed(self, field: _Field, window: Window) -> _Field:
        """Regular windows over rows that are regular along the dimension before the last."""
        ndim = field.rows.ndim
        if field.rows.isnan().all():  # everything is of the whole image, and stays so
            return replace(field, rows=torch.full((1,) * ndim, math.nan))
        low, high = _ends(field.rows, (*range(ndim - 2), ndim - 1))
        origin = low.flatten() - field.jump * torch.arange(low.numel())
        start, end = _ends(origin, (0,))
        if ndim < 4 or _largest(high - low) > NEAR or _largest(end - start) > NEAR:
            raise _LostError
        places = (
            start + (window.first + window.step * torch.arange(float(window.n_out))) * field.jump
        )
        rows = places.reshape((1,) * (ndim - 2) + (window.n_out, 1))
        return _Field(field.side + window.span * field.jump, window.step * field.jump, rows)


def _place(tensor: Tensor) -> _Place:
    return tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset())


def _common_jump(fields: Sequence[_Field]) -> float:
    """The jump of the fields that have one.

    Raises:
        _LostError: they differ.
    """
    jumps = [field.jump for field in fields if not math.isnan(field.jump)]
    if jumps and max(jumps) - min(jumps) > NEAR:
        raise _LostError
    return max(jumps, default=math.nan)


def _jump_of(rows: Tensor, otherwise: float) -> float:
    """The distance of neighbouring rows, which slices change; `otherwise` for a single row."""
    steps = rows[rows.isfinite()].sort().values.diff()
    return float(steps[steps > NEAR].min()) if bool((steps > NEAR).any()) else otherwise


def _ends(rows: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Least and greatest along `dims`, which are kept; NaN only where all are."""

    def least(values: Tensor) -> Tensor:
        found = values.nan_to_num(math.inf).amin(dims, keepdim=True)
        return found.where(found.isfinite(), torch.tensor(math.nan))

    return least(rows), -least(-rows)


def _largest(values: Tensor) -> float:
    """The largest number; minus infinity when there is none."""
    return float(values.nan_to_num(-math.inf).max())


def _thin(rows: Tensor) -> Tensor:
    """The same rows with a size of 1 along dimensions in which nothing changes."""
    for dim in range(rows.ndim):
        first = rows.narrow(dim, 0, 1)
        if bool(((rows == first) | (rows.isnan() & first.isnan())).all()):
            rows = first
    return rows
