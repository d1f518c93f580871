"""The whole numbers that an input may hold where it picks rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from export.errors import ExportError
from export.evaluation import follow
from export.graph import Graph, Node, Shape


def index_limits(graph: Graph) -> Graph:
    """The graph with the lowest and highest whole number at every feature that picks a row of a table.

    A feature may be moved, and a constant added to it, before it is an index. What lies within the table whatever the
    input is, such as a clamped number, needs no limits. Raises ExportError: any other number.
    """
    shapes = graph.shapes
    for node in graph.nodes:
        size = _table_size(node, shapes)
        if size is not None:
            graph = _limited(graph, node, size)
    return graph


def _table_size(node: Node, shapes: Mapping[str, Shape]) -> int | None:
    """How many rows the table of a lookup has; None for another node, or an index that is a constant."""
    if node.op == "embedding":
        return len(node.tensors["weight"].values)
    if node.op not in ("gather", "index_select") or "index" in node.tensors:
        return None
    given = node.tensors["self"].values.shape if "self" in node.tensors else shapes[node.inputs[0]]
    size = given[node.attributes["dim"]]
    return size if isinstance(size, int) else None


_MOVED = ("reshape", "permute", "select", "slice", "expand", "cat", "index_select")
_SHIFTED = ("add", "sub")


def _limited(graph: Graph, lookup: Node, size: int) -> Graph:
    """Rows of two numbers apart show which feature an index comes from, and what was added to it."""
    index = lookup.inputs[-1]
    low, high = _bounds({node.output: node for node in graph.nodes}, index)
    if low >= 0 and high < size:
        return graph
    nodes = replace(graph, outputs={"index": index}).read().nodes
    of_input = {index, *(name for node in nodes for name in node.inputs)} & set(graph.inputs)
    if not all(map(_only_moves, nodes)) or not of_input:
        message = f"{lookup.op} at '{lookup.path}' is indexed by a number that is computed"
        hint = "give the index as an input, or a column of one, with at most a constant added, or clamp it to the table"
        raise ExportError(f"{message}, so nobody could check it before the file runs. What to do: {hint}")
    with torch.no_grad():
        base, once = (
            follow(nodes, _numbered(graph, step), precision=torch.float64, rows=1)[index].flatten().tolist()
            for step in (0, 1)
        )
    features = [(name, feature) for name, given in graph.inputs.items() for feature in range(prod(given.row))]
    known: dict[str, list[Any]] = {
        name: list(given.indices or [None] * prod(given.row)) for name, given in graph.inputs.items()
    }
    for offset, number in zip(base, once, strict=True):
        if number != offset:  # else it is a constant index
            name, feature = features[round(number - offset) - 1]
            low, high = known[name][feature] or (-inf, inf)
            known[name][feature] = (max(low, -int(offset)), min(high, size - 1 - int(offset)))
    inputs = {
        name: replace(given, indices=tuple(known[name]) if any(known[name]) else None)
        for name, given in graph.inputs.items()
    }
    return replace(graph, inputs=inputs)


def _only_moves(node: Node) -> bool:
    """Whether every number that a node gives is one that it takes, but for a constant added."""
    if node.op in _SHIFTED:
        first = node.op == "add" or "self" not in {*node.tensors, *node.attributes}
        return len(node.inputs) == 1 and first and node.dtype == "int64"
    return node.op in _MOVED or (node.op == "_to_copy" and node.dtype == "int64")


def _bounds(makers: Mapping[str, Node], value: str) -> tuple[float, float]:
    """Between which whole numbers a value lies whatever the input is."""
    node = makers.get(value)
    if node is None:
        return -inf, inf
    inner = [_bounds(makers, name) for name in node.inputs] or [(inf, -inf)]
    if node.dtype == "bool" or (node.op == "_to_copy" and makers.get(node.inputs[0], node).dtype == "bool"):
        return 0, 1
    if node.op == "embedding" or (node.op == "index_select" and "self" in node.tensors):
        table = node.tensors["weight" if node.op == "embedding" else "self"].values
        return (table.min(), table.max()) if table.size else (-inf, inf)
    if node.op in ("argmax", "argmin"):
        return 0, node.attributes["count"] - 1
    if node.op == "clamp":
        low, high = node.attributes["min"], node.attributes["max"]
        return max(inner[0][0], -inf if low is None else low), min(inner[0][1], inf if high is None else high)
    if node.op in ("add", "sub") and _only_moves(node):
        held = next((t.values for t in node.tensors.values()), None)
        given = held if held is not None else next(v for v in node.attributes.values() if v is not None)
        low, high = (float(f(given)) * (1 if node.op == "add" else -1) for f in (np.min, np.max))
        return inner[0][0] + min(low, high), inner[0][1] + max(low, high)
    if node.op in _MOVED or (node.op == "_to_copy" and node.dtype == "int64") or node.op == "where":
        held = [t.values for role, t in node.tensors.items() if role not in ("index", "condition")]
        own = [(v.min(), v.max()) for v in held if v.size]
        parts = [*(inner[1:] if node.op == "where" and "condition" not in node.tensors else inner), *own]
        return min(low for low, _ in parts), max(high for _, high in parts)
    return -inf, inf


def _numbered(graph: Graph, step: int) -> dict[str, Tensor]:
    """One row of all inputs: every feature's own number, from 1 on, times ``step``."""
    numbers = torch.arange(1, 1 + sum(prod(given.row) for given in graph.inputs.values())) * step
    parts = numbers.split([prod(given.row) for given in graph.inputs.values()])
    return {
        name: part.reshape(1, *given.row).to(torch.int64 if given.dtype == "int64" else torch.float64)
        for (name, given), part in zip(graph.inputs.items(), parts, strict=True)
    }
