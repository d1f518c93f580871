"""The bounds of operators without rounding: comparisons, selection, casts, data movement and sorting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node, Rows

from .common import NEAREST, Operand, Radius, Rule, all_exact, operands, radius_of, size, widened, zero_radius
from .constants import U

_TABLES = {"embedding": "weight", "index_select": "self", "gather": "self"}
"""Operators that index one argument, here, with the others, which are integers."""


def _compared(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the two intervals touch, so that either result is possible; else 0."""
    if all_exact(e):
        return zero_radius(y)
    a, b = operands(node, z, e, "self", "other")
    radius = a.radius + b.radius
    touching = (a.value - b.value).abs() <= radius + NEAREST * (radius + a.size + b.size)
    return zero_radius(y) + torch.where(touching & (radius > 0), 1.0, 0.0)


def _open(x: Operand) -> Tensor:
    """Where a value may be zero or nonzero."""
    return (x.radius > 0) & (x.size <= x.radius)


def _both(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """and, or: 1 where an operand may be either and the other does not decide alone (false for and, true for or)."""
    if all_exact(e):
        return zero_radius(y)
    if node.dtype != "bool":
        return torch.full(y.shape, torch.inf, dtype=torch.float64)
    sides = operands(node, z, e, "self", "other")
    decisive = [~_open(x) & ((x.value == 0) if node.op.endswith("and") else (x.value != 0)) for x in sides]
    undecided = (_open(sides[0]) | _open(sides[1])) & ~decisive[0] & ~decisive[1]
    return zero_radius(y) + undecided.double()


def _not(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the value may be either."""
    (x,) = operands(node, z, e, "self")
    return zero_radius(y) if all_exact(e) else _open(x).double()


def _isnan(_node: Node, _z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the value has no bound; a value within a finite radius of a number is a number."""
    return zero_radius(y) if e[0] is None else (~e[0].isfinite()).double()


def _where(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The radius of the chosen value; where either may be chosen, the larger radius and their distance."""
    condition, first, second = operands(node, z, e, "condition", "self", "other")
    chosen = torch.where(condition.value != 0, first.radius, second.radius)
    if condition.e is None:
        return zero_radius(y) + chosen
    either = torch.maximum(first.radius, second.radius) + (first.value - second.value).abs()
    either = torch.where(either.isnan(), torch.inf, either)
    return zero_radius(y) + torch.where(condition.e > 0, either, chosen)


def _cast(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """To integers: truncation is monotone, so the ends of the interval; no bound beyond the type's range or for NaN.

    To bool: 1 where the value may be zero or nonzero. To float32: integers beyond 2^24 are rounded.
    """
    x, radius = z[0].double(), radius_of(e[0], z[0])
    if node.dtype == "bool":
        return ((radius > 0) & (size(x) <= radius)).double()
    if node.dtype == "int64":
        wider = widened(x, radius)
        ends = torch.maximum((x + wider).trunc() - x.trunc(), x.trunc() - (x - wider).trunc())
        largest = 2.0**31 if node.attributes["dtype"] == torch.int32 else 2.0**63
        return torch.where(x.abs() + radius < largest, ends, torch.inf)
    beyond = (size(x) + radius > 2.0**24) & (not z[0].is_floating_point())
    return radius + torch.where(beyond, U * (size(x) + radius), 0.0)


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
