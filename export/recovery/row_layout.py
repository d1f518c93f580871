"""How a row lies in a value of an ONNX file, and what an operator on that value means for the flat row."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from export.onnxfile.tensors import MOST_DIMENSIONS

Dims = tuple[int | None, ...]


class Unfit(Exception):
    """Why an operator is none of a dense network's, in words."""


@dataclass(frozen=True)
class Layout:
    """The dimensions of a value. None is the batch; without it the value is one row, whatever its dimensions.

    The flat row is the value's entries in their order, the batch left out. ``batch`` is the batch's size where the file
    fixes it, otherwise 0.
    """

    dims: Dims
    batch: int = 0

    def __post_init__(self) -> None:
        if len(self.dims) > MOST_DIMENSIONS:
            raise Unfit(f"has {len(self.dims)} dimensions; at most {MOST_DIMENSIONS} are read")

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
        """An axis counted from the front. Raises Unfit."""
        if not -len(self.dims) <= axis < len(self.dims):
            raise Unfit(f"names the axis {axis} of a value of shape {self}")
        return axis % len(self.dims)

    def padded(self, rank: int) -> Layout:
        """With dimensions of 1 in front, as broadcasting puts them there."""
        return replace(self, dims=(1,) * (rank - len(self.dims)) + self.dims)

    def covers(self, axes: tuple[int, ...] | None) -> bool:
        """Whether these axes (None: all) hold the whole row and nothing of the batch."""
        chosen = range(len(self.dims)) if axes is None else {self.axis(axis) for axis in axes}
        sizes = [self.dims[axis] for axis in chosen]
        return None not in sizes and prod(size or 1 for size in sizes) == self.size

    def contracted(self, axis: int, features: int, expected: int) -> Layout:
        """After a product with a matrix along ``axis``, where the whole row must lie. Raises Unfit."""
        axis = self.axis(axis)
        if self.dims[axis] is None:
            raise Unfit(f"mixes the rows of a batch: it takes {self} along its batch")
        if self.dims[axis] != expected:
            given = f"the value before gives rows of {self.size} (shape {self})"
            raise Unfit(f"expects {expected} features, but {given}")
        if self.size != expected:
            raise Unfit(f"is applied {self.size // expected} times to each row (shape {self}), not to the row")
        return replace(self, dims=(*self.dims[:axis], features, *self.dims[axis + 1 :]))

    def spread(self, constant: np.ndarray, what: str) -> tuple[np.ndarray, Layout]:
        """A float32 constant as one value per feature of the flat row, and the layout afterwards. Raises Unfit."""
        if constant.dtype != np.float32:
            raise Unfit(f"has a constant of {constant.dtype} ({what}); float32 is expected")
        after = self.padded(constant.ndim)
        shape = tuple(1 if size is None else size for size in after.dims)
        try:
            values = np.broadcast_to(constant, shape)
        except ValueError:
            message = f"has a constant of shape {list(constant.shape)} ({what})"
            raise Unfit(f"{message}, which is no value per feature of rows of {self.size} (shape {self})") from None
        return values.reshape(-1), after

    def reshaped(self, dims: Dims) -> Layout:
        """With other dimensions for the same row; -1 is what is left, 0 the same as before. Raises Unfit."""
        words = f"reshapes {self} to {Layout(dims)}"
        wanted = [self.dims[i] if size == 0 and i < len(self.dims) else size for i, size in enumerate(dims)]
        if wanted.count(-1) > 1 or any(size is not None and (size < -1 or size == 0) for size in wanted):
            raise Unfit(f"{words}, which is no shape")
        if not self.leading:
            raise Unfit(f"{words}, which mixes the rows of a batch")
        known = prod(size for size in wanted if size not in (None, -1))
        first = next((i for i, size in enumerate(wanted) if size != 1), None)
        if (
            self.batch
            and None in self.dims
            and None not in wanted
            and first is not None
            and wanted[first] == self.batch
        ):
            wanted[first], known = None, known // self.batch
        if None in self.dims and None not in wanted and -1 in wanted and known == self.size:
            wanted[wanted.index(-1)] = None
        elif -1 in wanted:
            wanted[wanted.index(-1)] = self.size // known
        after = replace(self, dims=tuple(wanted))
        if (None in after.dims) != (None in self.dims) or not after.leading or wanted.count(None) > 1:
            raise Unfit(f"{words}, which does not keep the rows of a batch apart")
        if after.size != self.size:
            raise Unfit(f"{words}, which is another number of entries")
        return after

    def flattened(self, axis: int) -> Layout:
        """After Flatten: what lies before ``axis`` in one dimension, the rest in another. Raises Unfit."""
        axis = len(self.dims) if axis == len(self.dims) else self.axis(axis)
        before, after = self.dims[:axis], self.dims[axis:]
        if None in after or (None in before and any(size not in (None, 1) for size in before)):
            raise Unfit(f"flattens {self} before the axis {axis}, which does not keep the rows of a batch apart")
        first = None if None in before else prod(size or 1 for size in before)
        return replace(self, dims=(first, prod(size or 1 for size in after)))

    def transposed(self, order: tuple[int, ...] | None) -> Layout:
        """With its dimensions in another order, where the flat row stays as it is. Raises Unfit."""
        order = order if order is not None else tuple(reversed(range(len(self.dims))))
        if sorted(order) != list(range(len(self.dims))):
            raise Unfit(f"puts the axes of {self} in the order {list(order)}")
        kept = [axis for axis in order if self.dims[axis] not in (None, 1)]
        if kept != sorted(kept):
            raise Unfit(f"changes the order of the features ({self}, axes in the order {list(order)})")
        return replace(self, dims=tuple(self.dims[axis] for axis in order))

    def squeezed(self, axes: tuple[int, ...] | None) -> Layout:
        """Without these axes (None: all) of size 1. Raises Unfit."""
        gone = {self.axis(axis) for axis in axes} if axes else {i for i, size in enumerate(self.dims) if size == 1}
        if any(self.dims[axis] != 1 for axis in gone):
            raise Unfit(f"takes the axes {sorted(gone)} out of {self}, which are not all of size 1")
        return replace(self, dims=tuple(size for i, size in enumerate(self.dims) if i not in gone))

    def unsqueezed(self, axes: tuple[int, ...]) -> Layout:
        """With new axes of size 1 at these places. Raises Unfit."""
        blank = Layout((1,) * (len(self.dims) + len(axes)))
        places = {blank.axis(axis) for axis in axes}
        if len(places) != len(axes):
            raise Unfit(f"names an axis twice: {list(axes)}")
        rest = iter(self.dims)
        return replace(self, dims=tuple(1 if i in places else next(rest) for i in range(len(blank.dims))))
