"""Whether a row's result depends on the rows beside it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from export.evaluation import outputs_of
from export.graph import Graph, Input, Rows
from export.operators import activations, arithmetic, logic, normalisation, reductions

_ROWS = 4
_TRIES = 3


def rows_depend(graph: Graph) -> Graph:
    """The graph with ``rows_depend``: whether the first row's outputs change where only the other rows do.

    It is run on random rows, at the last attempt with NaN in the others, unless its operators show that rows are apart.
    """
    if _keeps_rows_apart(graph):
        return graph
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for attempt in range(_TRIES):
            rows, other = ({name: _random(port, generator) for name, port in graph.inputs.items()} for _ in range(2))
            for name, value in other.items():
                if attempt == _TRIES - 1 and value.is_floating_point() and graph.inputs[name].indices is None:
                    value[1:] = torch.nan
                value[0] = rows[name][0]
            before, after = (outputs_of(graph, inputs, precision=torch.float32) for inputs in (rows, other))
            for output, changed in zip(before, after, strict=True):
                a, b = output[0].double(), changed[0].double()
                close = (a - b).abs() <= 2.0**-16 * (1 + a.abs())
                if not (close | (a == b) | (a.isnan() & b.isnan())).all():
                    return replace(graph, rows_depend=True)
    return graph


_SOFTMAX = {"softmax", "log_softmax"}
_ROWWISE = {
    *(*activations.OPERATORS, *arithmetic.OPERATORS, *logic.OPERATORS, *normalisation.OPERATORS),
    *("linear", "batch_norm", "embedding", "expand"),
} - _SOFTMAX
"""Operators that keep rows apart where the batch is the first dimension of their inputs and of their output."""
_ROWWISE_ALONG_DIM = {*_SOFTMAX, *reductions.OPERATORS, "cat", "select", "slice"}
"""Operators that do so where the batch is not their dimension."""


def _keeps_rows_apart(graph: Graph) -> bool:
    """Whether the operators alone show that no row depends on another; most networks do."""
    shapes = graph.shapes
    for node in graph.nodes:
        values = [node.shape, *(shapes[name] for name in node.inputs)]
        if any(not shape or shape[0] != Rows() or any(isinstance(s, Rows) for s in shape[1:]) for shape in values):
            return False
        dims = node.attributes.get("dim", 0)
        within_rows = node.op in _ROWWISE_ALONG_DIM and 0 not in (dims if isinstance(dims, tuple) else (dims,))
        if not (within_rows or node.op in _ROWWISE or node.op == "reshape"):
            return False
    return True


def _random(port: Input, generator: torch.Generator) -> Tensor:
    """Rows of an input: standard normal, or whole numbers, within the limits of indices where it has any."""
    values = torch.randn(_ROWS, *port.row, generator=generator, dtype=torch.float32)
    if port.dtype == "int64":
        values = (values * 4).round()
    flat = values.reshape(_ROWS, -1)
    for feature, limits in enumerate(port.indices or ()):
        if limits is not None:
            low, high = limits
            flat[:, feature] = torch.randint(low, high + 1, (_ROWS,), generator=generator).float()
    return values.to(torch.int64) if port.dtype == "int64" else values
