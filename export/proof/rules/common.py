"""What rules are given and share: values with their radii, a node's operands, and radii that say nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from export.evaluation import constant, schema
from export.graph import Node

from .constants import ETA, U

Radius = Tensor | None
"""None stands for an input that is known exactly."""
Rule = Callable[[Node, Sequence[Tensor], Sequence[Radius], Tensor], Tensor]

NEAREST = 2.0**-40
"""More than float64 loses at the ends of an interval: what can jump there is widened by it."""
_WHOLE = 2**24
"""Whole numbers up to here are float32 numbers."""


def size(z: Tensor) -> Tensor:
    """Absolute values; those of NaN and infinity, whose results are compared by kind, count as 0."""
    return torch.where(z.isfinite(), z.abs(), 0.0)


def nothing(y: Tensor) -> Tensor:
    """The radius of a value that is exact."""
    return torch.zeros(y.shape, dtype=torch.float64)


def exact(e: Sequence[Radius]) -> bool:
    """Whether every input is known exactly."""
    return all(radius is None for radius in e)


def radius_of(e: Radius, z: Tensor) -> Tensor:
    """A radius as a tensor."""
    return nothing(z) if e is None else e


def reach(z: Tensor, e: Radius) -> Tensor:
    """The largest absolute value of the interval."""
    return size(z) if e is None else size(z) + e


def widened(z: Tensor, e: Tensor) -> Tensor:
    """The radius of a value that jumps somewhere, wider by what float64 loses at the ends of its interval."""
    return torch.where(e > 0, e + NEAREST * (e + size(z)), 0.0)


def denormal(z: Tensor) -> Tensor:
    """Where a value may be taken as zero although it is none."""
    return (z != 0) & (z.abs() < ETA)


def lost_where(condition: Tensor, radius: Tensor) -> Tensor:
    """The radius, infinite where the condition holds: there the result is exempt."""
    return torch.where(condition, torch.inf, radius)


class Operand:
    """One argument of an operator: its value in float64, and its radius."""

    def __init__(self, value: Tensor, e: Radius, fixed: bool, rounded: bool):
        self.value, self.e, self.fixed = value.double(), e, fixed
        largest = reach(self.value, e)
        if rounded and value.dtype == torch.int64 and bool((largest > _WHOLE).any()):
            # a float32 kernel gets it as the nearest float32
            self.e = radius_of(e, value) + torch.where(largest > _WHOLE, U * largest, 0.0)
        self.radius, self.size, self.reach = radius_of(self.e, value), size(self.value), reach(self.value, self.e)


def operands(node: Node, z: Sequence[Tensor], e: Sequence[Radius], *roles: str) -> list[Operand]:
    """The arguments of these names, values and constants alike, in the order of ``roles``."""
    left = iter(zip(z, e, strict=True))
    like = torch.zeros((), dtype=torch.float64)
    found: dict[str, Operand] = {}
    rounded = node.dtype == "float32"
    for role, kind, *_ in schema(node.op, node.overload)[1]:
        fixed = role in node.tensors or role in node.attributes
        if fixed and role in roles:
            value = constant(node, role, like)
            assert value is not None
            found[role] = Operand(value, None, True, rounded)
        elif not fixed and kind in ("Tensor", "Optional[Tensor]") and (given := next(left, None)) is not None:
            found[role] = Operand(*given, False, rounded)
    return [found[role] for role in roles]


def guarded(rule: Rule) -> Rule:
    """The rule with a radius for every value: where it is no number, a finite value has no bound.

    Infinite and missing values are compared by their kind, so theirs is 0 then: infinity would exempt them.
    """

    def radius(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        found = rule(node, z, e, y.double())
        missing = torch.where(y.isfinite(), torch.inf, 0.0).double()
        return torch.where(found.isnan(), missing, found)

    return radius


def exact_in_whole(rule: Rule) -> Rule:
    """Arithmetic on whole numbers rounds nothing: only what the radii of inputs make of it is left."""

    def radius(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        return nothing(y) if node.dtype != "float32" and exact(e) else rule(node, z, e, y)

    return radius
