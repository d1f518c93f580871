"""Rows of all inputs, and of all outputs, as one array: what a proof draws, searches and compares.

With one input a row has that input's shape; with several it is their features one after the other, in the order of the
forward's parameters. Whole numbers stand among them as float32. Outputs are put together in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import torch

from export.graph import Graph, Input, Row, Rows, Shape, batch_axis, row_of
from runtime import ModelError

_WHOLE = 2**24
"""Whole numbers up to which float32 holds each."""


def row_shape(shapes: Mapping[str, Row]) -> Row:
    """The shape of one row of everything."""
    return next(iter(shapes.values())) if len(shapes) == 1 else (sum(prod(shape) for shape in shapes.values()),)


def rows_of_inputs(inputs: Mapping[str, Input]) -> dict[str, Row]:
    """The shape of a row of each input."""
    return {name: given.row for name, given in inputs.items()}


def split(rows: Any, shapes: Mapping[str, Row]) -> dict[str, Any]:
    """Rows, an array or a tensor, to the rows of each."""
    if len(shapes) == 1:
        return dict.fromkeys(shapes, rows)
    found, start = {}, 0
    for name, shape in shapes.items():
        end = start + prod(shape)
        part = rows[:, start:end]
        found[name] = part.reshape(len(rows), *shape)
        start = end
    return found


def given_to(rows: np.ndarray, inputs: Mapping[str, Input], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Rows of everything as the tensors that a network takes: ``dtype``, or int64."""
    parts = split(torch.from_numpy(np.ascontiguousarray(rows)), rows_of_inputs(inputs))
    return {name: part.to(torch.int64 if inputs[name].dtype == "int64" else dtype) for name, part in parts.items()}


def joined(values: Sequence[Any]) -> Any:
    """The rows of each, arrays or tensors, to rows of everything."""
    if len(values) == 1:
        return values[0]
    flat = [value.reshape(len(value), prod(value.shape[1:])) for value in values]
    return torch.cat(flat, dim=1) if isinstance(flat[0], torch.Tensor) else np.concatenate(flat, axis=1)


def place_of(index: int, shapes: Mapping[str, Row]) -> str:
    """An element of a row of all outputs in words."""
    for name, shape in shapes.items():
        if index < prod(shape):
            return f"output {index}" if len(shapes) == 1 else f"output {index} of '{name}'"
        index -= prod(shape)
    raise IndexError(index)


def output_shapes(graph: Graph) -> dict[str, Row]:
    """The shapes of the rows of a graph's outputs by name."""
    shapes = graph.shapes
    return {name: row_of(shapes[value]) for name, value in graph.outputs.items()}


@dataclass(frozen=True)
class Domain:
    """Which numbers each value of a row may have: whole ones at the inputs that take them, within their limits."""

    inputs: Mapping[str, Input]

    @cached_property
    def _limits(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """Where whole numbers stand, and between which; None where there is none."""
        limits = [each for given in self.inputs.values() for each in self._of(given)]
        if not any(limits):
            return None
        low, high = (np.array([0 if each is None else each[end] for each in limits]) for end in (0, 1))
        return np.array([each is not None for each in limits]), low, high

    @staticmethod
    def _of(given: Input) -> list[tuple[int, int] | None]:
        free = (-_WHOLE, _WHOLE) if given.dtype == "int64" else None
        return [each or free for each in given.indices or (None,) * prod(given.row)]

    @property
    def is_free(self) -> bool:
        """Whether every float32 number may come everywhere."""
        return self._limits is None

    def fit(self, rows: np.ndarray) -> np.ndarray:
        """The rows with the nearest number that may come there, in an array of its own where any differs."""
        if self._limits is None:
            return rows
        whole, low, high = self._limits
        flat = rows.reshape(len(rows), -1).copy()
        with np.errstate(invalid="ignore"):
            near = np.clip(np.rint(np.nan_to_num(flat[:, whole], nan=0.0)), low[whole], high[whole])
        flat[:, whole] = near
        return flat.reshape(rows.shape)

    def draw(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The rows with whole numbers drawn over all that may come."""
        if self._limits is None:
            return rows
        whole, low, high = self._limits
        flat = rows.reshape(len(rows), -1).copy()
        flat[:, whole] = rng.integers(low[whole], high[whole] + 1, (len(flat), int(whole.sum())))
        return flat.reshape(rows.shape)


@dataclass(frozen=True)
class Wiring:
    """Which inputs and outputs of a file are which of the module's: in the module's order, under the file's names."""

    inputs: Mapping[str, Input]
    outputs: tuple[str, ...]

    def feed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the file is given for rows of everything."""
        parts = split(rows, rows_of_inputs(self.inputs))
        return {name: np.ascontiguousarray(part, self.inputs[name].dtype) for name, part in parts.items()}

    def output(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The rows of all outputs among the values that the file gave."""
        return joined([values[name] for name in self.outputs])


def in_batches(
    run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]], feed: Mapping[str, np.ndarray], size: int
) -> dict[str, np.ndarray]:
    """Run a file that takes batches of exactly ``size`` rows on any number; its last row fills the last batch."""
    count = len(next(iter(feed.values())))
    padded = -(-max(count, 1) // size) * size
    filled = {name: _filled(part, padded) for name, part in feed.items()}
    starts = range(0, padded, size)
    found = [run({name: part[start : start + size] for name, part in filled.items()}) for start in starts]
    return {name: np.concatenate([part[name] for part in found])[:count] for name in found[0]}


def _filled(rows: np.ndarray, count: int) -> np.ndarray:
    if len(rows) == count:
        return rows
    last = rows[-1:] if len(rows) else np.zeros((1, *rows.shape[1:]), rows.dtype)
    return np.concatenate([rows, np.repeat(last, count - len(rows), axis=0)])


def sized(shape: Shape, count: int) -> tuple[int, ...]:
    """A shape for a batch of ``count`` rows."""
    return tuple(size.times * count if isinstance(size, Rows) else size for size in shape)


def in_shape(values: np.ndarray, count: int, shape: Shape) -> np.ndarray:
    """A value of the file in the shape that the module's has. Raises ModelError: it holds other values."""
    wanted = sized(shape, count)
    if values.size != prod(wanted):
        raise ModelError(f"a value has shape {list(values.shape)}, where the module's has {list(wanted)}")
    return values.reshape(wanted)


def by_row(values: torch.Tensor, count: int, shape: Shape) -> torch.Tensor:
    """A value as (rows, everything in a row); of one row where it has no batch."""
    axis = batch_axis(shape)
    if axis is None:
        return values.reshape(1, -1)
    return values.movedim(axis, 0).reshape(count, prod(values.shape) // max(1, count) if count else prod(row_of(shape)))
