"""What a graph says of its inputs when it is run: rows that depend on each other, and numbers that index a table."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import torch
from torch import Tensor

from export.errors import ExportError
from export.evaluation import follow, outputs_of
from export.graph import Graph, Input, Node

_ROWS = 4
_TRIES = 3


def rows_depend(graph: Graph) -> Graph:
    """The graph, told whether the first row's outputs change where only the other rows do (as numbers, and as NaN)."""
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


def drawn(given: Input, count: int, generator: torch.Generator) -> Tensor:
    """Rows of an input: standard normal, or whole numbers within the limits of what they index."""
    values = torch.randn(count, *given.row, generator=generator)
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

    A feature may be moved, and a constant added to it, before it is an index. Raises ExportError: anything else.
    """
    tables = [(node, _table_size(node)) for node in graph.nodes]
    tables = [(node, size) for node, size in tables if size is not None]
    for node, size in tables:
        graph = _limited(graph, node, size)
    return graph


def _table_size(node: Node) -> int | None:
    """How many rows the table of a lookup has; None for another node, or an index that is a constant."""
    if node.op == "embedding":
        return len(node.tensors["weight"].values)
    return None


def _limited(graph: Graph, lookup: Node, size: int) -> Graph:
    """Rows of two numbers apart show which feature an index comes from, and what was added to it."""
    before = _ancestors(graph, lookup.inputs[-1])
    if not set(graph.inputs) & before:
        return graph
    nodes = [node for node in graph.nodes if node.output in before]
    if any(node.op == "embedding" for node in nodes):
        raise ExportError(
            f"{lookup.op} at '{lookup.path}' is indexed by what another table gives; a file cannot say that"
        )
    total = sum(prod(given.row) for given in graph.inputs.values())
    with torch.no_grad():
        runs = [follow(nodes, _numbered(graph, step), precision=torch.float64, rows=1) for step in (0, 1, 3)]
    base, once, thrice = (values[lookup.inputs[-1]].flatten() for values in runs)
    places = once - base
    plain = bool(((thrice - base) == 3 * places).all()) and bool(((places >= 0) & (places <= total)).all())
    if not plain:
        return _bounded_already(graph, lookup)
    found = {name: list(given.indices or [None] * prod(given.row)) for name, given in graph.inputs.items()}
    for place, offset in zip(places.tolist(), base.tolist(), strict=True):
        if place:  # 0: a constant index
            name, feature = _feature(graph, int(place) - 1)
            low, high = -int(offset), size - 1 - int(offset)
            known = found[name][feature]
            found[name][feature] = (low, high) if known is None else (max(low, known[0]), min(high, known[1]))
    inputs = {
        name: replace(given, indices=tuple(found[name]) if any(found[name]) else None)
        for name, given in graph.inputs.items()
    }
    return replace(graph, inputs=inputs)


def _bounded_already(graph: Graph, lookup: Node) -> Graph:
    message = f"{lookup.op} at '{lookup.path}' is indexed by a number that is computed"
    hint = "give the index as an input, or a column of one, with at most a constant added"
    raise ExportError(f"{message}, so nobody could check it before the file runs. What to do: {hint}")


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
