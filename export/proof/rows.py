"""Rows of a whole network: one array for all inputs, one for all outputs.

With one input a row has that input's shape; with several it is their features side by side, in the order of the
forward's parameters, integers as float32. Outputs are joined in the same way.
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


def row_shapes(inputs: Mapping[str, Input]) -> dict[str, Row]:
    """The shape of a row of each input."""
    return {name: declared.row for name, declared in inputs.items()}


def row_shape(inputs: Mapping[str, Input]) -> Row:
    """The shape of a row of all inputs."""
    shapes = list(row_shapes(inputs).values())
    return shapes[0] if len(shapes) == 1 else (sum(map(prod, shapes)),)


def output_shapes(graph: Graph) -> dict[str, Row]:
    """The shape of a row of each output of a graph."""
    shapes = graph.shapes
    return {name: row_of(shapes[value]) for name, value in graph.outputs.items()}


def join(parts: Sequence[Any]) -> Any:
    """The rows of each part, all arrays or all tensors, side by side."""
    if len(parts) == 1:
        return parts[0]
    flat = [part.reshape(len(part), prod(part.shape[1:])) for part in parts]
    return torch.cat(flat, dim=1) if isinstance(flat[0], torch.Tensor) else np.concatenate(flat, axis=1)


def split(rows: Any, shapes: Mapping[str, Row]) -> dict[str, Any]:
    """The reverse of ``join``, for an array or a tensor."""
    if len(shapes) == 1:
        return dict.fromkeys(shapes, rows)
    parts, start = dict[str, Any](), 0
    for name, shape in shapes.items():
        parts[name] = rows[:, start : start + prod(shape)].reshape(len(rows), *shape)
        start += prod(shape)
    return parts


def tensor_of(array: np.ndarray) -> torch.Tensor:
    """A tensor that shares the array's memory."""
    return torch.from_numpy(array)  # pyright: ignore[reportUnknownMemberType] torch leaves its parameter untyped


def as_tensors(rows: np.ndarray, inputs: Mapping[str, Input], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Rows of all inputs as the tensors that a network takes: ``dtype``, or int64."""
    parts = split(tensor_of(np.ascontiguousarray(rows)), row_shapes(inputs))
    return {name: part.to(torch.int64 if inputs[name].dtype == "int64" else dtype) for name, part in parts.items()}


def format_output(index: int, shapes: Mapping[str, Row]) -> str:
    """The name of an element of a row of all outputs."""
    for name, shape in shapes.items():
        if index < prod(shape):
            return f"output {index}" if len(shapes) == 1 else f"output {index} of '{name}'"
        index -= prod(shape)
    raise IndexError(index)


@dataclass(frozen=True)
class Wiring:
    """The file's names of the module's inputs and outputs, in the module's order."""

    inputs: Mapping[str, Input]
    outputs: Mapping[str, Row]
    """With the shapes of their rows."""

    def feed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The file's inputs for rows of all inputs."""
        parts = split(rows, row_shapes(self.inputs))
        return {name: np.ascontiguousarray(part, self.inputs[name].dtype) for name, part in parts.items()}

    def output(self, values: Mapping[str, np.ndarray]) -> np.ndarray:
        """The rows of all outputs, from the file's values by name."""
        return join([values[name] for name in self.outputs])


def in_batches(
    run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]], feed: Mapping[str, np.ndarray], size: int
) -> dict[str, np.ndarray]:
    """Run a file with a fixed batch of ``size`` rows on any number of rows; the last row fills up the last batch."""
    count = len(next(iter(feed.values())))
    rows = np.arange(-(-max(count, 1) // size) * size).clip(max=max(count, 1) - 1).reshape(-1, size)
    feed = feed if count else {name: np.zeros((1, *part.shape[1:]), part.dtype) for name, part in feed.items()}
    results = [run({name: part[batch] for name, part in feed.items()}) for batch in rows]
    return {name: np.concatenate([result[name] for result in results])[:count] for name in results[0]}


def sized(shape: Shape, count: int) -> tuple[int, ...]:
    """A shape for a batch of ``count`` rows."""
    return tuple(size.times * count if isinstance(size, Rows) else size for size in shape)


def in_shape(values: np.ndarray, count: int, shape: Shape) -> np.ndarray:
    """A value of the file in the module's shape. Raises ModelError: another number of elements."""
    wanted = sized(shape, count)
    if values.size != prod(wanted):
        raise ModelError(f"a value has shape {list(values.shape)}, where the module's has {list(wanted)}")
    return values.reshape(wanted)


def by_row(values: torch.Tensor, count: int, shape: Shape) -> torch.Tensor:
    """A value as (rows, elements of a row); a single row where it has no batch."""
    axis = batch_axis(shape)
    if axis is None:
        return values.reshape(1, -1)
    return values.movedim(axis, 0).reshape(count, prod(values.shape) // max(1, count) if count else prod(row_of(shape)))


def absolute_difference(values: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """abs(values - exact); 0 where both are equal or both NaN, infinite where only one is finite."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(values.astype(np.float64) - exact)
    same = (values == exact) | (np.isnan(values) & np.isnan(exact))
    return np.where(same, 0.0, np.where(np.isnan(difference), np.inf, difference))
