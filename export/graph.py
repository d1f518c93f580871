"""The graph of blocks: what tracing gives, passes change and lowering reads.

A value's shape is that of one row, without the batch dimension.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """A float32 constant and the name it has in the module's state dict."""

    name: str
    values: np.ndarray
    computed: bool = False
    """The forward computes it, in float32, from parameters and buffers."""


@dataclass(frozen=True)
class Node:
    """One block: ``op`` is its row in the table of ``export.blocks``, ``path`` its place in the module."""

    op: str
    path: str
    inputs: tuple[str, ...]
    output: str
    shape: Shape = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Blocks in the order of execution. ``inputs`` are shapes by name, ``outputs`` the values by the outputs' names."""

    inputs: Mapping[str, Shape]
    nodes: tuple[Node, ...]
    outputs: Mapping[str, str]
    folded: tuple[str, ...] = ()
    """What passes did, in words, one line each."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of a row of every value."""
        return {**self.inputs} | {node.output: node.shape for node in self.nodes}

    def consumers(self, value: str) -> int:
        """How many times a value is read, being an output of the graph included."""
        read = sum(node.inputs.count(value) for node in self.nodes)
        return read + list(self.outputs.values()).count(value)

    def with_nodes(self, nodes: list[Node], notes: list[str]) -> Graph:
        """The same graph with other nodes, and what was done to get there."""
        return replace(self, nodes=tuple(nodes), folded=(*self.folded, *notes))

    def renamed(self, names: Mapping[str, str]) -> Graph:
        """The same graph whose outputs are other values; ``names`` maps old to new."""
        return replace(self, outputs={name: names.get(value, value) for name, value in self.outputs.items()})


def rewired(node: Node, names: Mapping[str, str]) -> Node:
    """The node with some of its input values renamed."""
    return replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))
