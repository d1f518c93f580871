"""The graph of a network: what tracing records, passes change, files are written from and proofs compare with.

A node is an ATen operator. Its arguments have the names in the operator's schema: ``tensors`` are constants,
``attributes`` other fixed arguments, and ``inputs`` the values that fill the remaining arguments, in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Rows:
    """A size that grows with the batch: ``times`` for every row."""

    times: int = 1

    def __str__(self) -> str:
        return "batch" if self.times == 1 else f"{self.times}*batch"


Size = int | Rows
Shape = tuple[Size, ...]
"""The shape of a value, with the batch dimension at whatever axis it is."""
Row = tuple[int, ...]
"""The shape of one row of a value."""
ELEMENT_TYPES: dict[str, int] = {"float32": 1, "int64": 7, "bool": 9}
"""ONNX's number of each element type, by its name in a graph."""


@dataclass(frozen=True)
class Tensor:
    """A constant (float32, int64 or bool) and the name it has in the module's state dict."""

    name: str
    values: np.ndarray
    computed: bool = False
    """Whether the forward computes it, in float32, from parameters and buffers."""


@dataclass(frozen=True)
class Node:
    """One operator: ``op`` and ``overload`` name it in ``torch.ops.aten``, ``path`` says where in the module it is."""

    op: str
    path: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape = ()
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    tensors: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    overload: str = "default"
    dtype: str = "float32"
    home: str = ""
    """The prefix of the names of its operators in a file: the building block that it belongs to, or its own path."""
    block: str = ""
    """The name in a spec of the building block at ``home``; empty where there is none."""
    line: str = ""
    """The line of the user's code that calls it."""

    @property
    def row(self) -> Row:
        """The shape of one row of its value."""
        return row_of(self.shape)


@dataclass(frozen=True)
class Input:
    """An input of the network: the shape of a row, its element type, and the limits of numbers that index a table.

    ``indices`` has, for each feature of a row, the lowest and the highest number allowed there, or None.
    """

    row: Row
    dtype: str = "float32"
    indices: tuple[tuple[int, int] | None, ...] | None = None

    @property
    def shape(self) -> Shape:
        """The shape of the whole input: the number of rows, and that of a row."""
        return (Rows(), *self.row)


@dataclass(frozen=True)
class Graph:
    """Nodes in order of execution. ``outputs`` maps the names of the outputs to values."""

    inputs: Mapping[str, Input]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    folded: tuple[str, ...] = ()
    """What passes did, one line each."""
    inactive: tuple[tuple[str, float], ...] = ()
    """Dropouts, which do nothing in evaluation mode: their paths, and their p."""
    rows_depend: bool = False
    """A row's result depends on the rows beside it."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every value."""
        return {name: port.shape for name, port in self.inputs.items()} | {n.output: n.shape for n in self.nodes}

    @property
    def dtypes(self) -> dict[str, str]:
        """The element type of every value."""
        return {name: port.dtype for name, port in self.inputs.items()} | {n.output: n.dtype for n in self.nodes}

    def consumers(self, value: str) -> int:
        """How many inputs of nodes and outputs of the graph a value is."""
        return sum(node.inputs.count(value) for node in self.nodes) + list(self.outputs.values()).count(value)

    def with_nodes(self, nodes: Iterable[Node], notes: Iterable[str] = ()) -> Graph:
        """The graph with other nodes, and ``notes`` on what a pass did."""
        return replace(self, nodes=tuple(nodes), folded=(*self.folded, *notes))

    def renamed(self, names: Mapping[str, str]) -> Graph:
        """The graph with its outputs' values renamed; ``names`` maps old names to new ones."""
        return replace(self, outputs={name: names.get(value, value) for name, value in self.outputs.items()})

    def without_dead_nodes(self) -> Graph:
        """The graph without the nodes that no output depends on."""
        live = set(self.outputs.values())
        for node in reversed(self.nodes):
            if node.output in live:
                live.update(node.inputs)
        return replace(self, nodes=tuple(node for node in self.nodes if node.output in live))


def rewired(node: Node, names: Mapping[str, str]) -> Node:
    """The node with some of its inputs renamed."""
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def row_of(shape: Shape) -> Row:
    """The shape of one row: the sizes without the batch; a size of several times the batch is a dimension of a row."""
    sizes = [size.times if isinstance(size, Rows) else size for size in shape]
    return tuple(n for n, size in zip(sizes, shape, strict=True) if not (isinstance(size, Rows) and n == 1))


def batch_axis(shape: Shape) -> int | None:
    """The axis of the batch in a shape; None where there is none."""
    return next((axis for axis, size in enumerate(shape) if isinstance(size, Rows)), None)


def width(node: Node) -> int:
    """The number of elements in a row of the node's value."""
    return prod(node.row)


def unique(name: str, taken: set[str]) -> str:
    """The name, or the name with the lowest number that is not in ``taken``, which it is added to."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
