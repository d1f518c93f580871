"""Whether a row's result depends on the rows beside it."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from export.evaluation import outputs_of
from export.graph import Graph, Input, Rows
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
            rows, other = ({name: _drawn(given, generator) for name, given in graph.inputs.items()} for _ in range(2))
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


_SOFTMAX = {"softmax", "log_softmax"}
_APART = {*activations.OPERATORS, *arithmetic.OPERATORS, *logic.OPERATORS, *normalisation.OPERATORS} - _SOFTMAX
_APART |= {"linear", "batch_norm", "embedding", "expand"}
"""Operators that keep rows apart where the batch is the first dimension of all that they take and give."""
_ALONG = {*_SOFTMAX, "cat", "select", "slice", "sum", "mean", "amax", "amin", "argmax", "argmin", "cumsum"}
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


def _drawn(given: Input, generator: torch.Generator) -> Tensor:
    """Rows of an input: standard normal, or whole numbers within the limits of what they index."""
    values = torch.randn(_ROWS, *given.row, generator=generator, dtype=torch.float32)
    if given.dtype == "int64":
        values = (values * 4).round()
    flat = values.reshape(_ROWS, -1)
    for place, limits in enumerate(given.indices or ()):
        if limits is not None:
            low, high = limits
            flat[:, place] = torch.randint(low, high + 1, (_ROWS,), generator=generator).float()
    return values.to(torch.int64) if given.dtype == "int64" else values
