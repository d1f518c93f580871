"""Rows of all inputs and of all outputs of a network in one array each.

With one input a row has that input's shape; with several it is their features one after the other, in the order of the
forward's parameters. Whole numbers stand among them as float32. Outputs are put together in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch

from export.graph import Graph, Input, Row, Rows, Shape, batch_axis, row_of
from runtime import ModelError


def rows_of_inputs(inputs: Mapping[str, Input]) -> dict[str, Row]:
    """The shape of a row of each input."""
    return {name: given.row for name, given in inputs.items()}


def row_shape(inputs: Mapping[str, Input]) -> Row:
    """The shape of one row of all inputs."""
    shapes = [given.row for given in inputs.values()]
    return shapes[0] if len(shapes) == 1 else (sum(map(prod, shapes)),)


def split(rows: Any, shapes: Mapping[str, Row]) -> dict[str, Any]:
    """Rows, an array or a tensor, to the rows of each."""
    if len(shapes) == 1:
        return dict.fromkeys(shapes, rows)
    found, start = {}, 0
    for name, shape in shapes.items():
        found[name] = rows[:, start : start + prod(shape)].reshape(len(rows), *shape)
        start += prod(shape)
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
class Wiring:
    """Which inputs and outputs of a file are which of the module's: in the module's order, under the file's names."""

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Row]
    """With the shapes of their rows."""

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
    places = np.arange(-(-max(count, 1) // size) * size).clip(max=max(count, 1) - 1).reshape(-1, size)
    feed = feed if count else {name: np.zeros((1, *part.shape[1:]), part.dtype) for name, part in feed.items()}
    found = [run({name: part[batch] for name, part in feed.items()}) for batch in places]
    return {name: np.concatenate([part[name] for part in found])[:count] for name in found[0]}


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


def apart(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Absolute differences; 0 where both are equal or both are NaN, infinite where only one is finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - exact)
    same = (found == exact) | (np.isnan(found) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
