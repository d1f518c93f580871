"""The bounds of data movement, of looking up and of sorting: each result is one of the arguments' values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import inf

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node, Rows

from .common import Radius, Rule, all_exact, radius_of, zero_radius
from .spans import Enclosure, Ends, Span, arguments, growing, radii

_TABLES = {"embedding": "weight", "index_select": "self", "gather": "self"}
"""Operators that index one argument, here, with the others, which are integers."""


def _moved(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Data movement moves the radii as it moves the values; constants have radius 0. An inexact index has no bound."""
    if all_exact(e):
        return zero_radius(y)
    table = _TABLES.get(node.op)
    moving = len(z) if table is None else int(table not in node.tensors)
    if any(radius is not None and bool((radius > 0).any()) for radius in e[moving:]):
        return torch.full(y.shape, torch.inf, dtype=torch.float64)
    tensors = {
        role: replace(tensor, values=np.zeros(tensor.values.shape, np.float32)) if table in (None, role) else tensor
        for role, tensor in node.tensors.items()
    }
    radii = [*map(radius_of, e[:moving], z[:moving]), *z[moving:]]
    # The size of the batch, from a value of the node; None where its shape does not depend on it.
    rows = (y.shape[axis] // size.times for axis, size in enumerate(node.shape) if isinstance(size, Rows))
    return evaluate(replace(node, tensors=tensors), radii, precision=torch.float64, rows=next(rows, None))


def _ordered(node: Node, _z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The k-th largest value is 1-Lipschitz in the largest change of any value: the largest radius holds for each."""
    return zero_radius(y) if e[0] is None else e[0].amax(node.attributes["dim"], keepdim=True).expand(y.shape)


_MOVES = ("reshape", "permute", "select", "slice", "expand", "cat")
RULES: dict[str, Rule] = {
    **dict.fromkeys((*_MOVES, *_TABLES), _moved),
    "sort": _ordered,
    "topk": _ordered,
}


def _moved_values(node: Node, spans: Sequence[Span]) -> Ends:
    """Data movement moves the ends as it moves values."""
    low, high = (
        evaluate(node, ends, precision=torch.float64, rows=len(spans[0].low))
        for ends in ([span.low for span in spans], [span.high for span in spans])
    )
    return low, high


def _moved_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The rule, which does not depend on the values."""
    return _moved(node, [span.low for span in spans], radii(spans), y.low)


def _table_and_index(node: Node, spans: Sequence[Span]) -> tuple[Span, Span]:
    table = _TABLES[node.op]
    names = (table, "index" if node.op != "embedding" else "indices")
    first, second = arguments(node, spans, *names)
    return first, second


def _looked_up(node: Node, table: Span, index: Span) -> Ends:
    """The entries at an index, or those at any that an interval holds; nothing is said of an index beyond the table."""
    dim = 0 if node.op == "embedding" else int(node.attributes["dim"]) % table.low.ndim
    along = node.op == "gather"
    first, last = index.low.ceil().long(), index.high.floor().long()
    known = (first >= 0) & (first <= last) & (last < table.low.shape[dim])
    first, last = torch.where(known, first, 0), torch.where(known, last, 0)
    several = torch.stack([first, last], dim=-1)[first < last].numpy()
    intervals: list[tuple[int, int]] = np.unique(several, axis=0).tolist()
    ends: list[Tensor] = []
    for entries, extreme in ((table.low, torch.amin), (table.high, torch.amax)):
        found = entries.gather(dim, first) if along else entries.movedim(dim, 0)[first]
        for start, end in intervals:
            here = (first == start) & (last == end)
            held = extreme(entries.narrow(dim, start, end - start + 1), dim, keepdim=along)
            if along:
                held = held[tuple(slice(1 if axis == dim else n) for axis, n in enumerate(index.low.shape))]
            found = torch.where(here if along else here[(..., *[None] * held.ndim)], held, found)
        ends.append(found)
    known = known if along else known[(..., *[None] * (table.low.ndim - 1))]
    ends = [torch.where(known, end, side) for end, side in zip(ends, (-inf, inf), strict=True)]
    if node.op == "index_select":
        ends = [end.movedim(0, dim) for end in ends]
    return ends[0], ends[1]


def _looked_up_values(node: Node, spans: Sequence[Span]) -> Ends:
    return _looked_up(node, *_table_and_index(node, spans))


def _looked_up_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The largest radius at any of the indices; an inexact index has no bound."""
    table, index = _table_and_index(node, spans)
    if not index.is_exact:
        return torch.full_like(y.low, inf)
    return _looked_up(node, Span(zero_radius(table.low), table.error), index)[1]


def _ordered_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The k-th largest value grows with each value."""
    (x,) = spans
    return evaluate(node, [x.low]), evaluate(node, [x.high])


ENCLOSURES: dict[str, Enclosure] = {
    **dict.fromkeys(_MOVES, Enclosure(_moved_values, _moved_radius)),
    **dict.fromkeys(_TABLES, Enclosure(_looked_up_values, _looked_up_radius)),
    **dict.fromkeys(("sort", "topk"), Enclosure(_ordered_values, growing(_ordered))),
}
