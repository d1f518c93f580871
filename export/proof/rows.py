"""Rows of all inputs, and of all outputs, as one array: what a proof draws, searches and compares.

With one input a row has that input's shape; with several it is their features one after the other, in the order of the
forward's parameters. Outputs are put together in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from export.graph import Graph, Shape
from runtime import ModelError


def row_shape(shapes: Mapping[str, Shape]) -> Shape:
    """The shape of one row of everything."""
    return next(iter(shapes.values())) if len(shapes) == 1 else (sum(prod(shape) for shape in shapes.values()),)


def split(rows: Any, shapes: Mapping[str, Shape]) -> dict[str, Any]:
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


def joined(values: Sequence[Any]) -> Any:
    """The rows of each, arrays or tensors, to rows of everything."""
    if len(values) == 1:
        return values[0]
    flat = [value.reshape(len(value), prod(value.shape[1:])) for value in values]
    return torch.cat(flat, dim=1) if isinstance(flat[0], torch.Tensor) else np.concatenate(flat, axis=1)


def place_of(index: int, shapes: Mapping[str, Shape]) -> str:
    """An element of a row of all outputs in words."""
    for name, shape in shapes.items():
        if index < prod(shape):
            return f"output {index}" if len(shapes) == 1 else f"output {index} of '{name}'"
        index -= prod(shape)
    raise IndexError(index)


def output_shapes(graph: Graph) -> dict[str, Shape]:
    """The shapes of the rows of a graph's outputs by name."""
    shapes = graph.shapes
    return {name: shapes[value] for name, value in graph.outputs.items()}


@dataclass(frozen=True)
class Wiring:
    """Which inputs and outputs of a file are which of the module's: in the module's order, under the file's names."""

    inputs: Mapping[str, Shape]
    outputs: tuple[str, ...]

    def feed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What the file is given for rows of everything."""
        return {name: np.ascontiguousarray(part) for name, part in split(rows, self.inputs).items()}

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


def rows_of(values: np.ndarray, count: int, row: Shape) -> np.ndarray:
    """A value of the file in the shape that the module's has. Raises ModelError: it holds other rows."""
    if values.shape[:1] != (count,) or values.size != count * prod(row):
        raise ModelError(f"a value has shape {list(values.shape)}, where the module has {count} rows of {list(row)}")
    return values.reshape(count, *row)
