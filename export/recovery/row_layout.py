"""The place of a row's features in a value of an ONNX file, and what an operator on the value does to the flat row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from export.onnxfile.tensors import MOST_DIMENSIONS

from .recovered import NotABlock

Dims = tuple[int | None, ...]


@dataclass(frozen=True)
class Layout:
    """The dimensions of a value. None is the batch; a value without it is one row, whatever its dimensions.

    The flat row is the value's entries in their order, without the batch. ``batch`` is the batch's size if the file
    fixes it, otherwise 0.
    """

    dims: Dims
    batch: int = 0

    def __post_init__(self) -> None:
        if len(self.dims) > MOST_DIMENSIONS:
            raise NotABlock(f"has {len(self.dims)} dimensions; at most {MOST_DIMENSIONS} are read")

    def __str__(self) -> str:
        return f"[{', '.join('batch' if size is None else str(size) for size in self.dims)}]"

    @property
    def size(self) -> int:
        """The number of features of the flat row."""
        return prod(size for size in self.dims if size is not None)

    @property
    def leading(self) -> bool:
        """Whether no entry of the row comes before the batch dimension."""
        return None not in self.dims or all(size == 1 for size in self.dims[: self.dims.index(None)])

    def axis(self, axis: int) -> int:
        """The axis as a number from 0. Raises NotABlock."""
        if not -len(self.dims) <= axis < len(self.dims):
            raise NotABlock(f"has the axis {axis} for a value of shape {self}")
        return axis % len(self.dims)

    def padded(self, rank: int) -> Layout:
        """With leading dimensions of 1, as broadcasting adds them."""
        return replace(self, dims=(1,) * (rank - len(self.dims)) + self.dims)

    def covers(self, axes: Iterable[int]) -> bool:
        """Whether these axes cover the whole row and not the batch."""
        sizes = [self.dims[axis] for axis in {self.axis(axis) for axis in axes}]
        return None not in sizes and prod(size or 1 for size in sizes) == self.size

    def contracted(self, axis: int, features: int, expected: int) -> Layout:
        """After a product with a matrix along ``axis``, which must hold the whole row. Raises NotABlock."""
        axis = self.axis(axis)
        if self.dims[axis] is None:
            raise NotABlock(f"mixes the rows of a batch: it multiplies {self} along the batch")
        if self.dims[axis] != expected:
            raise NotABlock(f"expects {expected} features, but its input has rows of {self.size} (shape {self})")
        if self.size != expected:
            raise NotABlock(f"is applied {self.size // expected} times to each row (shape {self}), not to the row")
        return replace(self, dims=(*self.dims[:axis], features, *self.dims[axis + 1 :]))

    def per_feature(self, constant: np.ndarray, what: str) -> tuple[np.ndarray, Layout]:
        """A float32 constant as one value per feature of the flat row, and the layout after it. Raises NotABlock."""
        if constant.dtype != np.float32:
            raise NotABlock(f"has {what} of type {constant.dtype}; float32 is expected")
        after = self.padded(constant.ndim)
        shape = tuple(1 if size is None else size for size in after.dims)
        try:
            values = np.broadcast_to(constant, shape)
        except ValueError:
            expected = f"one value per feature of rows of {self.size} (shape {self}) is expected"
            raise NotABlock(f"has {what} of shape {list(constant.shape)}; {expected}") from None
        return values.reshape(-1), after

    def reshaped(self, dims: Dims) -> Layout:
        """With other dimensions for the same row; -1 is the remaining size, 0 the same as before. Raises NotABlock."""
        change = f"reshapes {self} to {Layout(dims)}"
        sizes = [self.dims[i] if size == 0 and i < len(self.dims) else size for i, size in enumerate(dims)]
        if sizes.count(-1) > 1 or any(size is not None and (size < -1 or size == 0) for size in sizes):
            raise NotABlock(f"{change}, which is not a valid shape")
        if not self.leading:
            raise NotABlock(f"{change}, which mixes the rows of a batch")
        known = prod(size for size in sizes if size not in (None, -1))
        first = next((i for i, size in enumerate(sizes) if size != 1), None)
        open_batch = None in self.dims and None not in sizes
        if self.batch and open_batch and first is not None and sizes[first] == self.batch:
            sizes[first], known = None, known // self.batch
        if None in self.dims and None not in sizes and -1 in sizes and known == self.size:
            sizes[sizes.index(-1)] = None
        elif -1 in sizes:
            sizes[sizes.index(-1)] = self.size // known
        after = replace(self, dims=tuple(sizes))
        if (None in after.dims) != (None in self.dims) or not after.leading or sizes.count(None) > 1:
            raise NotABlock(f"{change}, which does not keep the rows of a batch apart")
        if after.size != self.size:
            raise NotABlock(f"{change}, which has another number of entries")
        return after

    def flattened(self, axis: int) -> Layout:
        """After Flatten: the dimensions before ``axis`` as one, the rest as another. Raises NotABlock."""
        axis = len(self.dims) if axis == len(self.dims) else self.axis(axis)
        before, after = self.dims[:axis], self.dims[axis:]
        if None in after or (None in before and any(size not in (None, 1) for size in before)):
            raise NotABlock(f"flattens {self} at the axis {axis}, which does not keep the rows of a batch apart")
        first = None if None in before else prod(size or 1 for size in before)
        return replace(self, dims=(first, prod(size or 1 for size in after)))

    def transposed(self, order: tuple[int, ...] | None) -> Layout:
        """With its dimensions in another order that leaves the flat row as it is. Raises NotABlock."""
        order = order if order is not None else tuple(reversed(range(len(self.dims))))
        if sorted(order) != list(range(len(self.dims))):
            raise NotABlock(f"puts the axes of {self} in the order {list(order)}; every axis once is expected")
        kept = [axis for axis in order if self.dims[axis] not in (None, 1)]
        if kept != sorted(kept):
            raise NotABlock(f"changes the order of the features ({self}, axes in the order {list(order)})")
        return replace(self, dims=tuple(self.dims[axis] for axis in order))

    def squeezed(self, axes: tuple[int, ...] | None) -> Layout:
        """Without these axes (None: all) of size 1. Raises NotABlock."""
        removed = {self.axis(axis) for axis in axes} if axes else {i for i, size in enumerate(self.dims) if size == 1}
        if any(self.dims[axis] != 1 for axis in removed):
            raise NotABlock(f"removes the axes {sorted(removed)} of {self}, which are not all of size 1")
        return replace(self, dims=tuple(size for i, size in enumerate(self.dims) if i not in removed))

    def unsqueezed(self, axes: tuple[int, ...]) -> Layout:
        """With new axes of size 1 at these indices. Raises NotABlock."""
        blank = Layout((1,) * (len(self.dims) + len(axes)))
        added = {blank.axis(axis) for axis in axes}
        if len(added) != len(axes):
            raise NotABlock(f"adds an axis twice: {list(axes)}")
        rest = iter(self.dims)
        return replace(self, dims=tuple(1 if i in added else next(rest) for i in range(len(blank.dims))))
