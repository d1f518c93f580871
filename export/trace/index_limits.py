"""The limits of whole numbers in an input that are indices into a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf, prod

import numpy as np
import torch
from torch import Tensor

from export.errors import ExportError
from export.evaluation import follow
from export.graph import Graph, Node, Shape
from export.operators.movement import MOVES

_SHIFTS = ("add", "sub")
Bounds = tuple[float, float]
"""The lowest and the highest number that a value can hold."""


def index_limits(graph: Graph) -> Graph:
    """The graph with the lowest and the highest number allowed at every input feature that is an index into a table.

    A feature may be moved, and a constant added to it, before it is an index. An index that lies within the table
    whatever the input is, such as a clamped number, needs no limits. Raises ExportError: any other index.
    """
    shapes = graph.shapes
    for node in graph.nodes:
        size = _table_size(node, shapes)
        if size is not None:
            graph = _with_limits(graph, node, size)
    return graph


def _table_size(node: Node, shapes: Mapping[str, Shape]) -> int | None:
    """The number of rows of a lookup's table; None for any other node, and for an index that is a constant."""
    if node.op == "embedding":
        return len(node.tensors["weight"].values)
    if node.op not in ("gather", "index_select") or "index" in node.tensors:
        return None
    table = node.tensors["self"].values.shape if "self" in node.tensors else shapes[node.inputs[0]]
    dim: int = node.attributes["dim"]
    size = table[dim]
    return size if isinstance(size, int) else None


def _with_limits(graph: Graph, lookup: Node, size: int) -> Graph:
    """The graph with limits for the features that ``lookup`` takes its index from.

    The index is evaluated on a row of zeros and on a row of each feature's own number: the first gives the constant
    that was added, the difference the feature.
    """
    index = lookup.inputs[-1]
    nodes = replace(graph, outputs={"index": index}).without_dead_nodes().nodes
    low, high = _bounds(graph, nodes)[index]
    if low >= 0 and high < size:
        return graph
    read = {index, *(name for node in nodes for name in node.inputs)}
    if not all(map(_only_moves, nodes)) or read.isdisjoint(graph.inputs):
        message = f"{lookup.op} at '{lookup.path}' is indexed by a number that is computed"
        hint = "give the index as an input, or a column of one, with at most a constant added, or clamp it to the table"
        raise ExportError(f"{message}, so it cannot be checked before the file runs. What to do: {hint}")
    offsets: list[float]
    numbers: list[float]
    with torch.no_grad():
        offsets, numbers = (
            follow(nodes, _numbered(graph, step), precision=torch.float64, rows=1)[index].flatten().numpy().tolist()
            for step in (0, 1)
        )
    features = [(name, feature) for name, port in graph.inputs.items() for feature in range(prod(port.row))]
    limits: dict[str, list[tuple[int, int] | None]] = {
        name: list(port.indices or [None] * prod(port.row)) for name, port in graph.inputs.items()
    }
    for offset, number in zip(offsets, numbers, strict=True):
        if number != offset:  # else it is a constant index
            name, feature = features[round(number - offset) - 1]
            lowest, highest = -int(offset), size - 1 - int(offset)
            known = limits[name][feature] or (lowest, highest)
            limits[name][feature] = (max(known[0], lowest), min(known[1], highest))
    inputs = {
        name: replace(port, indices=tuple(limits[name]) if any(limits[name]) else None)
        for name, port in graph.inputs.items()
    }
    return replace(graph, inputs=inputs)


def _only_moves(node: Node) -> bool:
    """Whether every number of a node's value is one of its input's, or one with a constant added."""
    if node.op in _SHIFTS:
        constant_is_added = node.op == "add" or "self" not in {*node.tensors, *node.attributes}
        return len(node.inputs) == 1 and constant_is_added and node.dtype == "int64"
    return node.op in MOVES or (node.op == "_to_copy" and node.dtype == "int64")


def _bounds(graph: Graph, nodes: Iterable[Node]) -> dict[str, Bounds]:
    """The bounds of the nodes' values, whatever the input is."""
    dtypes = graph.dtypes
    bounds: dict[str, Bounds] = dict.fromkeys(graph.inputs, (-inf, inf))
    for node in nodes:
        of_bool = node.op == "_to_copy" and dtypes[node.inputs[0]] == "bool"
        inputs = [bounds[name] for name in node.inputs] or [(inf, -inf)]
        bounds[node.output] = (0, 1) if node.dtype == "bool" or of_bool else _node_bounds(node, inputs)
    return bounds


def _node_bounds(node: Node, inputs: list[Bounds]) -> Bounds:
    """The bounds of a node's value by those of its inputs."""
    low, high = inputs[0]
    if node.op == "embedding" or (node.op == "index_select" and "self" in node.tensors):
        table = node.tensors["weight" if node.op == "embedding" else "self"].values
        return (table.min(), table.max()) if table.size else (-inf, inf)
    if node.op in ("argmax", "argmin"):
        return 0, node.attributes["count"] - 1
    if node.op == "clamp":
        least, most = node.attributes["min"], node.attributes["max"]
        return max(low, -inf if least is None else least), min(high, inf if most is None else most)
    if node.op in _SHIFTS and _only_moves(node):
        constants = [tensor.values for tensor in node.tensors.values()]
        constant = constants[0] if constants else next(v for v in node.attributes.values() if v is not None)
        sign = 1 if node.op == "add" else -1
        ends = sign * float(np.min(constant)), sign * float(np.max(constant))
        return low + min(ends), high + max(ends)
    if node.op in MOVES or (node.op == "_to_copy" and node.dtype == "int64") or node.op == "where":
        constants = [t.values for role, t in node.tensors.items() if role not in ("index", "condition")]
        chosen = inputs[1:] if node.op == "where" and "condition" not in node.tensors else inputs
        parts = [*chosen, *((values.min(), values.max()) for values in constants if values.size)]
        return min(low for low, _ in parts), max(high for _, high in parts)
    return -inf, inf


def _numbered(graph: Graph, step: int) -> dict[str, Tensor]:
    """One row of all inputs: every feature's own number, from 1 on, times ``step``."""
    sizes = [prod(port.row) for port in graph.inputs.values()]
    parts = torch.split(torch.arange(1, 1 + sum(sizes)) * step, sizes)
    return {
        name: part.reshape(1, *port.row).to(torch.int64 if port.dtype == "int64" else torch.float64)
        for (name, port), part in zip(graph.inputs.items(), parts, strict=True)
    }
