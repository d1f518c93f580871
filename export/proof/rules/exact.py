"""The bounds of what rounds nothing: comparisons, choices, other types, places and orders, exact on exact inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node, Rows

from .common import NEAREST, Operand, Radius, Rule, exact, nothing, operands, radius_of, size, widened
from .constants import U

_TABLES = {"embedding": "weight", "index_select": "self", "gather": "self"}
"""Operators that pick from one argument what the others, which are whole numbers, say."""


def _compared(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the two intervals touch, so that either answer may come; else the answer is certain."""
    if exact(e):
        return nothing(y)
    a, b = operands(node, z, e, "self", "other")
    given = a.radius + b.radius
    near = (a.value - b.value).abs() <= given + NEAREST * (given + a.size + b.size)
    return nothing(y) + torch.where(near & (given > 0), 1.0, 0.0)


def _open(x: Operand) -> Tensor:
    """Where a value may be zero or not."""
    return (x.radius > 0) & (x.size <= x.radius)


def _both(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """and, or: 1 where a side may be either and the other does not settle it, as false does for and, true for or."""
    if exact(e):
        return nothing(y)
    if node.dtype != "bool":
        return torch.full(y.shape, torch.inf, dtype=torch.float64)
    sides = operands(node, z, e, "self", "other")
    settling = [~_open(x) & ((x.value == 0) if node.op.endswith("and") else (x.value != 0)) for x in sides]
    found = (_open(sides[0]) | _open(sides[1])) & ~settling[0] & ~settling[1]
    return nothing(y) + found.double()


def _not(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the value may be either."""
    (x,) = operands(node, z, e, "self")
    return nothing(y) if exact(e) else _open(x).double()


def _isnan(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where nothing bounds the value; a value within a radius of a number is a number."""
    return nothing(y) if e[0] is None else (~e[0].isfinite()).double()


def _where(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The radius of the value that is chosen; where either may be, the larger one and the distance between them."""
    condition, first, second = operands(node, z, e, "condition", "self", "other")
    chosen = torch.where(condition.value != 0, first.radius, second.radius)
    if condition.e is None:
        return nothing(y) + chosen
    either = torch.maximum(first.radius, second.radius) + (first.value - second.value).abs()
    either = torch.where(either.isnan(), torch.inf, either)
    return nothing(y) + torch.where(condition.e > 0, either, chosen)


def _cast(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """To whole numbers: towards zero, monotone, by the ends; nothing is known beyond the type or of NaN. To true or
    false: 1 where it may be zero or not. To float32: whole numbers beyond 2^24 are rounded."""
    x, given = z[0].double(), radius_of(e[0], z[0])
    if node.dtype == "bool":
        return ((given > 0) & (size(x) <= given)).double()
    if node.dtype == "int64":
        wider = widened(x, given)
        ends = torch.maximum((x + wider).trunc() - x.trunc(), x.trunc() - (x - wider).trunc())
        largest = 2.0**31 if node.attributes["dtype"] == torch.int32 else 2.0**63
        return torch.where(x.abs() + given < largest, ends, torch.inf)
    beyond = (size(x) + given > 2.0**24) & (not z[0].is_floating_point())
    return given + torch.where(beyond, U * (size(x) + given), 0.0)


def _moved(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Radii take the places of the values where nothing but places changes; a constant has none. Of a place that may be
    another nothing is known."""
    if exact(e):
        return nothing(y)
    table = _TABLES.get(node.op)
    moving = len(z) if table is None else int(table not in node.tensors)
    if any(radius is not None and bool((radius > 0).any()) for radius in e[moving:]):
        return torch.full(y.shape, torch.inf, dtype=torch.float64)
    tensors = {
        role: replace(held, values=np.zeros(held.values.shape, np.float32)) if table in (None, role) else held
        for role, held in node.tensors.items()
    }
    given = [*map(radius_of, e[:moving], z[:moving]), *z[moving:]]
    # The size of the batch, from a value of the node; None where its shape does not depend on it.
    rows = (y.shape[axis] // size.times for axis, size in enumerate(node.shape) if isinstance(size, Rows))
    return evaluate(replace(node, tensors=tensors), given, precision=torch.float64, rows=next(rows, None))


def _ordered(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Values in order are among those given; moved by at most e each, every one of them is too, since the k-th largest
    of numbers is 1-Lipschitz in the largest difference.
    """
    return nothing(y) if e[0] is None else e[0].amax(node.attributes["dim"], keepdim=True).expand(y.shape)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne"), _compared),
    **dict.fromkeys(("logical_and", "logical_or", "bitwise_and", "bitwise_or"), _both),
    **dict.fromkeys(("logical_not", "bitwise_not"), _not),
    "isnan": _isnan,
    "where": _where,
    "_to_copy": _cast,
    **dict.fromkeys(("reshape", "permute", "select", "slice", "expand", "cat", *_TABLES), _moved),
    "sort": _ordered,
    "topk": _ordered,
}
