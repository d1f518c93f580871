"""What the rules share: values with their radii, a node's operands, and wrappers for rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from export.evaluation import constant, schema
from export.graph import Node

from .constants import ETA, U

Radius = Tensor | None
"""None: the value is exact."""
Rule = Callable[[Node, Sequence[Tensor], Sequence[Radius], Tensor], Tensor]

NEAREST = 2.0**-40
"""Relative widening of an interval on which a function jumps: more than float64 loses at its ends."""
_WHOLE = 2**24
"""float32 holds every integer up to here."""


def size(z: Tensor) -> Tensor:
    """Absolute values; NaN and infinity, whose results are compared by kind, count as 0."""
    return torch.where(z.isfinite(), z.abs(), 0.0)


def zero_radius(y: Tensor) -> Tensor:
    """The radius of an exact value."""
    return torch.zeros(y.shape, dtype=torch.float64)


def all_exact(e: Sequence[Radius]) -> bool:
    """Whether every input is exact."""
    return all(radius is None for radius in e)


def radius_of(e: Radius, z: Tensor) -> Tensor:
    """A radius as a tensor."""
    return zero_radius(z) if e is None else e


def reach(z: Tensor, e: Radius) -> Tensor:
    """The largest absolute value of the interval."""
    return size(z) if e is None else size(z) + e


def widened(z: Tensor, e: Tensor) -> Tensor:
    """The radius of an argument at which a function may jump, wider by what float64 loses at the ends."""
    return torch.where(e > 0, e + NEAREST * (e + size(z)), 0.0)


def denormal(z: Tensor) -> Tensor:
    """Where a nonzero value may be flushed to zero."""
    return (z != 0) & (z.abs() < ETA)


def exempt_where(condition: Tensor, radius: Tensor) -> Tensor:
    """The radius, infinite where the condition holds: such elements are exempt."""
    return torch.where(condition, torch.inf, radius)


class Operand:
    """One argument of an operator: its value in float64, and its radius."""

    value: Tensor
    fixed: bool
    radius: Tensor
    size: Tensor
    reach: Tensor

    def __init__(self, value: Tensor, e: Radius, fixed: bool, rounded: bool):
        self.value, self.e, self.fixed = value.double(), e, fixed
        largest = reach(self.value, e)
        if rounded and value.dtype == torch.int64 and bool((largest > _WHOLE).any()):
            # A float32 kernel gets the nearest float32.
            self.e = radius_of(e, value) + torch.where(largest > _WHOLE, U * largest, 0.0)
        self.radius, self.size, self.reach = radius_of(self.e, value), size(self.value), reach(self.value, self.e)


def operands(node: Node, z: Sequence[Tensor], e: Sequence[Radius], *roles: str) -> list[Operand]:
    """The arguments of these names, values and constants alike, in the order of ``roles``."""
    remaining = iter(zip(z, e, strict=True))
    like = torch.zeros((), dtype=torch.float64)
    by_role: dict[str, Operand] = {}
    rounded = node.dtype == "float32"
    for role, kind, *_ in schema(node.op, node.overload)[1]:
        fixed = role in node.tensors or role in node.attributes
        if fixed and role in roles:
            value = constant(node, role, like)
            assert value is not None
            by_role[role] = Operand(value, None, True, rounded)
        elif not fixed and kind in ("Tensor", "Optional[Tensor]") and (pair := next(remaining, None)) is not None:
            by_role[role] = Operand(*pair, False, rounded)
    return [by_role[role] for role in roles]


def guarded(rule: Rule) -> Rule:
    """The rule with NaN replaced: a finite value has no bound then.

    NaN and infinite values are compared by kind and get 0: an infinite radius would exempt them.
    """

    def radius(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        own = rule(node, z, e, y.double())
        fallback = torch.where(y.isfinite(), torch.inf, 0.0).double()
        return torch.where(own.isnan(), fallback, own)

    return radius


def exact_on_integers(rule: Rule) -> Rule:
    """The rule, with radius 0 for exact inputs of integer arithmetic, which rounds nothing."""

    def radius(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        return zero_radius(y) if node.dtype != "float32" and all_exact(e) else rule(node, z, e, y)

    return radius
