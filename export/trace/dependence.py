"""What a graph says of its inputs when it is run: rows that depend on each other, and numbers that index a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, prod

import numpy as np
import torch
from torch import Tensor

from export.errors import ExportError
from export.evaluation import follow, outputs_of
from export.graph import Graph, Input, Node, Rows, Shape
from export.operators import activations, arithmetic, logic, normalisation

_ROWS = 4
_TRIES = 3


def rows_depend(graph: Graph) -> Graph:
    """The graph, told whether the first row's outputs change where only the other rows do (as numbers, and as NaN)."""
    if _is_by_row(graph):
        return graph
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for attempt in range(_TRIES):
            rows = {name: drawn(given, _ROWS, generator) for name, given in graph.inputs.items()}
            other = {name: drawn(given, _ROWS, generator) for name, given in graph.inputs.items()}
            for name, value in other.items():
                if attempt == _TRIES - 1 and value.is_floating_point() and graph.inputs[name].indices is None:
                    value[1:] = torch.nan
                value[0] = rows[name][0]
            before, after = (outputs_of(graph, part, precision=torch.float32) for part in (rows, other))
            for one, two in zip(before, after, strict=True):
                a, b = one[0].double(), two[0].double()
                close = (a - b).abs() <= 2.0**-16 * (1 + a.abs())
                if not (close | (a == b) | (a.isnan() & b.isnan())).all():
                    return replace(graph, rows_depend=True)
    return graph


_APART = {
    name
    for family in (activations, arithmetic, logic, normalisation)
    for name in family.OPERATORS
    if name not in ("softmax", "log_softmax")
} | {"linear", "batch_norm", "embedding", "expand"}
"""Operators that keep rows apart where the batch is the first dimension of all that they take and give."""
_ALONG = {
    "softmax",
    "log_softmax",
    "cat",
    "select",
    "slice",
    "sum",
    "mean",
    "amax",
    "amin",
    "argmax",
    "argmin",
    "cumsum",
}
"""The same where they do not run along the batch."""


def _is_by_row(graph: Graph) -> bool:
    """Whether it can be seen without running it that rows stay apart; most networks are so."""
    shapes = graph.shapes
    for node in graph.nodes:
        values = [node.shape, *(shapes[name] for name in node.inputs)]
        if any(not shape or shape[0] != Rows() or any(isinstance(s, Rows) for s in shape[1:]) for shape in values):
            return False
        dims = node.attributes.get("dim", ())
        along = node.op in _ALONG and 0 not in (dims if isinstance(dims, tuple) else (dims,))
        if not (along or node.op in _APART or node.op == "reshape"):
            return False
    return True


def drawn(given: Input, count: int, generator: torch.Generator) -> Tensor:
    """Rows of an input: standard normal, or whole numbers within the limits of what they index."""
    values = torch.randn(count, *given.row, generator=generator, dtype=torch.float32)
    flat = values.reshape(count, -1)
    if given.dtype == "int64":
        flat = (flat * 4).round()
    for place, limits in enumerate(given.indices or ()):
        if limits is not None:
            low, high = limits
            flat[:, place] = torch.randint(low, high + 1, (count,), generator=generator).float()
    values = flat.reshape(count, *given.row)
    return values.to(torch.int64) if given.dtype == "int64" else values


def index_limits(graph: Graph) -> Graph:
    """The graph with the lowest and highest whole number at every feature that picks a row of a table.

    A feature may be moved, and a constant added to it, before it is an index. What lies within the table whatever the
    input is, such as a clamped number, needs no limits. Raises ExportError: any other number.
    """
    shapes = graph.shapes
    tables = [(node, _table_size(node, shapes)) for node in graph.nodes]
    tables = [(node, size) for node, size in tables if size is not None]
    for node, size in tables:
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
    makers = {node.output: node for node in graph.nodes}
    low, high = _bounds(makers, lookup.inputs[-1])
    if low >= 0 and high < size:
        return graph
    before = _ancestors(graph, lookup.inputs[-1])
    nodes = [node for node in graph.nodes if node.output in before]
    if not all(_only_moves(node) for node in nodes) or not before & set(graph.inputs):
        message = f"{lookup.op} at '{lookup.path}' is indexed by a number that is computed"
        hint = "give the index as an input, or a column of one, with at most a constant added, or clamp it to the table"
        raise ExportError(f"{message}, so nobody could check it before the file runs. What to do: {hint}")
    with torch.no_grad():
        runs = [follow(nodes, _numbered(graph, step), precision=torch.float64, rows=1) for step in (0, 1)]
        runs = [{**_numbered(graph, step), **run} for step, run in enumerate(runs)]
    base, once = (values[lookup.inputs[-1]].flatten() for values in runs)
    found = {name: list(given.indices or [None] * prod(given.row)) for name, given in graph.inputs.items()}
    for place, offset in zip((once - base).tolist(), base.tolist(), strict=True):
        if place:  # 0: a constant index
            name, feature = _feature(graph, round(place) - 1)
            low, high = -int(offset), size - 1 - int(offset)
            known = found[name][feature]
            found[name][feature] = (low, high) if known is None else (max(low, known[0]), min(high, known[1]))
    inputs = {
        name: replace(given, indices=tuple(found[name]) if any(found[name]) else None)
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
    found, start = {}, 0
    for name, given in graph.inputs.items():
        count = prod(given.row)
        values = ((torch.arange(start, start + count) + 1) * step).reshape(1, *given.row)
        found[name] = values if given.dtype == "int64" else values.double()
        start += count
    return found


def _feature(graph: Graph, number: int) -> tuple[str, int]:
    for name, given in graph.inputs.items():
        if number < prod(given.row):
            return name, number
        number -= prod(given.row)
    raise IndexError(number)


def _ancestors(graph: Graph, value: str) -> set[str]:
    found = {value}
    for node in reversed(graph.nodes):
        if node.output in found:
            found.update(node.inputs)
    return found
