"""The bounds of comparisons, choices and changes of type: exact on exact inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.graph import Node
from export.proof.rounding import Radius, Rule, U, size

from .parts import NEAREST, Operand, exact, nothing, operands, radius_of, wide

_COMPARED = ("gt", "lt", "ge", "le", "eq", "ne")


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
    x, given = wide(z[0]), radius_of(e[0], wide(z[0]))
    if node.dtype == "bool":
        return nothing(y) if e[0] is None else ((e[0] > 0) & (size(x) <= e[0])).double()
    if node.dtype == "int64":
        ends = torch.zeros_like(x) if e[0] is None else _truncated(x, e[0])
        largest = 2.0**31 if node.attributes["dtype"] == torch.int32 else 2.0**63
        return torch.where(x.abs() + given < largest, ends, torch.inf)
    beyond = (size(x) + given > 2.0**24) & (not z[0].is_floating_point())
    return given + torch.where(beyond, U * (size(x) + given), 0.0)


def _truncated(x: Tensor, e: Tensor) -> Tensor:
    wider = torch.where(e > 0, e + NEAREST * (e + size(x)), 0.0)
    return torch.maximum((x + wider).trunc() - x.trunc(), x.trunc() - (x - wider).trunc())


RULES: dict[str, Rule] = {
    **dict.fromkeys(_COMPARED, _compared),
    **dict.fromkeys(("logical_and", "logical_or", "bitwise_and", "bitwise_or"), _both),
    **dict.fromkeys(("logical_not", "bitwise_not"), _not),
    "isnan": _isnan,
    "where": _where,
    "_to_copy": _cast,
}
