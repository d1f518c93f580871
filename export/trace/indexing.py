"""Decompositions of splitting, joining, indexing and padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor


def _split(x: Tensor, sizes: Sequence[int], dim: int = 0) -> list[Tensor]:
    return [x.narrow(dim, end - size, size) for end, size in zip(accumulate(sizes), sizes, strict=True)]


def _unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [x.select(dim, i) for i in range(x.shape[dim])]


def _stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    dim %= tensors[0].ndim + 1
    return torch.cat([tensor.unsqueeze(dim) for tensor in tensors], dim)


def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Constant indices along neighbouring dimensions, which are flattened to one."""
    dim, flat, positions, shape = _along_one(x, indices)
    return torch.index_select(flat, dim, positions).reshape(shape)


def looked_up(table: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """Rows of a constant, by an index that depends on the input."""
    (index,) = (index for index in indices if index is not None)
    rows = torch.embedding(table.reshape(len(table), -1), index)
    return rows.reshape(*index.shape, *table.shape[1:])


def _index_put(x: Tensor, indices: Sequence[Tensor | None], values: Tensor, _accumulate: bool = False) -> Tensor:
    """Values put where one mask is true, or at constant indices along neighbouring dimensions."""
    first = next(i for i, index in enumerate(indices) if index is not None)
    mask = indices[first]
    if mask is not None and mask.dtype == torch.bool and values.numel() == 1:
        wide = mask.reshape(*[1] * first, *mask.shape, *[1] * (x.ndim - first - mask.ndim))
        return torch.where(wide, values, x)
    dim, flat, positions, shape = _along_one(x, indices)
    part = values.expand(shape)
    return _scattered(flat, part.flatten(dim, dim + part.ndim - flat.ndim), dim, positions).reshape(x.shape)


def _along_one(x: Tensor, indices: Sequence[Tensor | None]) -> tuple[int, Tensor, Tensor, tuple[int, ...]]:
    """What an index along several dimensions is along one of them: a mask picks the positions where it is true.

    Returns the first indexed dimension, ``x`` with all indexed dimensions flattened to that one, the positions along
    it, and the shape of what is picked.
    """
    first = next(i for i, index in enumerate(indices) if index is not None)
    numbers: list[Tensor] = []
    for index in indices:
        if index is not None:
            numbers += index.nonzero().unbind(1) if index.dtype == torch.bool else (index,)
    after = first + len(numbers)
    positions = torch.zeros(np.broadcast_shapes(*(index.shape for index in numbers)), dtype=torch.int64)
    for index, size in zip(numbers, x.shape[first:after], strict=True):
        positions = positions * size + torch.where(index < 0, index + size, index)
    flat = x.flatten(first, after - 1) if len(numbers) > 1 else x
    return first, flat, positions.flatten(), (*x.shape[:first], *positions.shape, *x.shape[after:])


def _scattered(x: Tensor, part: Tensor, dim: int, positions: list[int] | Tensor) -> Tensor:
    """``x`` with ``part`` at some positions of a dimension."""
    joined = torch.cat([x, part.to(x.dtype)], dim)
    return torch.index_select(joined, dim, scatter_order(x.shape[dim], positions))


def scatter_order(size: int, positions: list[int] | Tensor) -> Tensor:
    """The order that, of a dimension with new values joined behind it, puts them at ``positions``."""
    order = torch.arange(size)
    order[positions] = size + torch.arange(len(positions))
    return order


def _slice_scatter(
    x: Tensor, part: Tensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Tensor:
    return _scattered(x, part, dim % x.ndim, list(range(x.shape[dim]))[slice(start, end, step)])


def _select_scatter(x: Tensor, part: Tensor, dim: int, index: int) -> Tensor:
    dim %= x.ndim
    return _scattered(x, part.unsqueeze(dim), dim, [index % x.shape[dim]])


def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    """Copies beside each other, dimension by dimension."""
    x = x.reshape(*[1] * (len(repeats) - x.ndim), *x.shape)
    for dim, count in enumerate(repeats):
        if count != 1 and x.shape[dim] != 1:
            x = torch.cat([x] * count, dim)
        elif count != 1:
            x = x.expand(*x.shape[:dim], count, *x.shape[dim + 1 :])
    return x


def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not dims:
        return _roll(x.flatten(), shifts, [0]).reshape(x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        start = -shift % x.shape[dim]
        x = torch.cat([x.narrow(dim, start, x.shape[dim] - start), x.narrow(dim, 0, start)], dim) if start else x
    return x


def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    for dim in dims:
        x = torch.index_select(x, dim % x.ndim, torch.arange(x.shape[dim]).flip(0))
    return x


def _pad(x: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Padding before and behind, from the last dimension on; with constants, a negative width cuts off."""
    for dim, before, behind in zip(reversed(range(x.ndim)), pad[::2], pad[1::2], strict=False):
        size = x.shape[dim]
        if mode != "constant":
            x = torch.index_select(x, dim, _source_positions(mode, torch.arange(-before, size + behind), size))
            continue
        x = torch.ops.aten.slice.Tensor(x, dim, max(0, -before), size - max(0, -behind))
        edges = [x.new_full((*x.shape[:dim], max(0, w), *x.shape[dim + 1 :]), value or 0.0) for w in (before, behind)]
        parts = [part for part in (edges[0], x, edges[1]) if part.shape[dim]]
        x = torch.cat(parts, dim) if len(parts) > 1 else x
    return x


def _source_positions(mode: str, positions: Tensor, size: int) -> Tensor:
    """The positions that padding copies: the last one, those next to the edge backwards, or those of the other end."""
    if mode == "replicate":
        return positions.clamp(0, size - 1)
    if mode == "reflect":
        return (size - 1) - (positions.abs() - (size - 1)).abs()
    return positions % size


DECOMPOSED: dict[str, Callable[..., Any]] = {
    "split_with_sizes.default": _split,
    "unbind.int": _unbind,
    "stack.default": _stack,
    "index.Tensor": _index,
    **dict.fromkeys(("index_put.default", "_unsafe_index_put.default"), _index_put),
    "slice_scatter.default": _slice_scatter,
    "select_scatter.default": _select_scatter,
    "repeat.default": _repeat,
    "roll.default": _roll,
    "flip.default": _flip,
    **dict.fromkeys(("pad.default", "constant_pad_nd.default"), _pad),
}
