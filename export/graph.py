"""The one representation of a network: what tracing and recovery give, passes change, and files are written from.

A node is an ATen operator. Its arguments bear the names of the operator's schema: ``tensors`` are constants,
``attributes`` everything else that is fixed, and ``inputs`` the values that fill the arguments left over, in order.
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
"""Of a value, the batch dimension included, wherever it stands."""
Row = tuple[int, ...]
"""Of one row of a value."""
ELEMENT_TYPES: dict[str, int] = {"float32": 1, "int64": 7, "bool": 9}
"""ONNX's numbers of the element types, by the names that a graph has for them."""


@dataclass(frozen=True)
class Tensor:
    """A constant (float32, int64 or bool) and the name it has in the module's state dict."""

    name: str
    values: np.ndarray
    computed: bool = False
    """The forward computes it, in float32, from parameters and buffers."""


@dataclass(frozen=True)
class Node:
    """One operator: ``op`` and ``overload`` name it in ``torch.ops.aten``, ``path`` is its place in the module."""

    op: str
    path: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    overload: str = "default"
    dtype: str = "float32"
    home: str = ""
    """What the names of its operators in a file begin with: the module that it belongs to, or its own path."""
    block: str = ""
    """The building block that the home is, by its name in a spec, where it is one."""
    line: str = ""
    """Where in the user's code it comes from."""

    @property
    def row(self) -> Row:
        """The shape of one row of its value."""
        return row_of(self.shape)


@dataclass(frozen=True)
class Input:
    """An input of the network: the shape of a row, its element type, and the whole numbers that index a table.

    ``indices`` has, for each feature of a row, the lowest and the highest number allowed there, or None.
    """

    row: Row
    dtype: str = "float32"
    indices: tuple[tuple[int, int] | None, ...] | None = None

    @property
    def shape(self) -> Shape:
        return (Rows(), *self.row)


@dataclass(frozen=True)
class Graph:
    """Nodes in the order of execution. ``outputs`` are the values by the outputs' names."""

    inputs: Mapping[str, Input]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    folded: tuple[str, ...] = ()
    """What passes did, in words, one line each."""
    inactive: tuple[str, ...] = ()
    """Modules that do nothing in evaluation mode, in words."""
    rows_depend: bool = False
    """A row's result depends on the rows beside it."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every value."""
        return {name: given.shape for name, given in self.inputs.items()} | {n.output: n.shape for n in self.nodes}

    @property
    def dtypes(self) -> dict[str, str]:
        """The element type of every value."""
        return {name: given.dtype for name, given in self.inputs.items()} | {n.output: n.dtype for n in self.nodes}

    def consumers(self, value: str) -> int:
        """How many times a value is read, being an output of the graph included."""
        read = sum(node.inputs.count(value) for node in self.nodes)
        return read + list(self.outputs.values()).count(value)

    def with_nodes(self, nodes: Iterable[Node], notes: Iterable[str] = ()) -> Graph:
        """The same graph with other nodes, and what was done to get there."""
        return replace(self, nodes=tuple(nodes), folded=(*self.folded, *notes))

    def renamed(self, names: Mapping[str, str]) -> Graph:
        """The same graph whose outputs are other values; ``names`` maps old to new."""
        return replace(self, outputs={name: names.get(value, value) for name, value in self.outputs.items()})

    def read(self) -> Graph:
        """The same graph without the nodes that no output depends on."""
        needed = set(self.outputs.values())
        for node in reversed(self.nodes):
            if node.output in needed:
                needed.update(node.inputs)
        return replace(self, nodes=tuple(node for node in self.nodes if node.output in needed))


def rewired(node: Node, names: Mapping[str, str]) -> Node:
    """The node with some of its input values renamed."""
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))


def row_of(shape: Shape) -> Row:
    """The shape of one row of a value: its sizes without the batch, what a row has several of as a dimension."""
    sizes = [size.times if isinstance(size, Rows) else size for size in shape]
    return tuple(n for n, size in zip(sizes, shape, strict=True) if not (isinstance(size, Rows) and n == 1))


def batch_axis(shape: Shape) -> int | None:
    """Where the batch stands in a shape; None for a value that has none."""
    return next((axis for axis, size in enumerate(shape) if isinstance(size, Rows)), None)


def width(node: Node) -> int:
    """The number of values in a row of the node's value."""
    return prod(node.row)


def unique(name: str, taken: set[str]) -> str:
    """The name, or the name with the lowest number that nobody has; taken from now on."""
    candidate, number = name, 0
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    taken.add(candidate)
    return candidate
