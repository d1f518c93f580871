"""What rules share: a node's operands with their radii, the ends of an interval, and dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
import torch
from torch import Tensor

from export.evaluation import constant, evaluate, schema
from export.graph import Node, Rows
from export.graph import Tensor as Constant
from export.proof.rounding import ETA, Radius, Rule, U, size

NEAREST = 2.0**-40
"""More than float64 loses at the ends of an interval: what can jump there is widened by it."""
_WHOLE = 2**24
"""Whole numbers up to here are float32 numbers."""


def nothing(y: Tensor) -> Tensor:
    """The radius of a value that is exact."""
    return torch.zeros(y.shape, dtype=torch.float64)


def exact(e: Sequence[Radius]) -> bool:
    """Whether every input is known exactly."""
    return all(radius is None for radius in e)


def wide(z: Tensor) -> Tensor:
    """Any value as float64 numbers; true is 1."""
    return z if z.dtype == torch.float64 else z.double()


def radius_of(e: Radius, z: Tensor) -> Tensor:
    """A radius as a tensor."""
    return torch.zeros(z.shape, dtype=torch.float64) if e is None else e


def reach(z: Tensor, e: Radius) -> Tensor:
    """The largest absolute value of the interval."""
    return size(z) if e is None else size(z) + e


class Operand:
    """One argument of an operator: its value in float64, and its radius."""

    def __init__(self, value: Tensor, e: Radius, fixed: bool, rounded: bool):
        self.value, self.e, self.fixed = wide(value), e, fixed
        if rounded and value.dtype == torch.int64:  # a float32 kernel gets it as the nearest float32
            beyond = self.reach > _WHOLE
            if bool(beyond.any()):
                self.e = self.radius + torch.where(beyond, U * self.reach, 0.0)

    @property
    def radius(self) -> Tensor:
        return radius_of(self.e, self.value)

    @property
    def size(self) -> Tensor:
        return size(self.value)

    @property
    def reach(self) -> Tensor:
        return reach(self.value, self.e)


def operands(node: Node, z: Sequence[Tensor], e: Sequence[Radius], *roles: str) -> list[Operand]:
    """The arguments of these names, values and constants alike, in the order of ``roles``."""
    left = iter(zip(z, e, strict=True))
    like = torch.zeros((), dtype=torch.float64)
    found: dict[str, Operand] = {}
    rounded = node.dtype == "float32"
    for role, kind, *_ in schema(node.op, node.overload)[1]:
        if role in roles and (role in node.tensors or role in node.attributes):
            held = constant(node, role, like)
            assert held is not None
            found[role] = Operand(held, None, True, rounded)
        elif role not in node.tensors and role not in node.attributes and kind in ("Tensor", "Optional[Tensor]"):
            given = next(left, None)
            if given is not None:
                found[role] = Operand(*given, False, rounded)
    return [found[role] for role in roles]


def by_ends(node: Node, z: Tensor, e: Radius, y: Tensor) -> Tensor:
    """What a monotone function makes of a radius: the distance to the ends of the interval."""
    if e is None:
        return nothing(y)
    return torch.maximum((evaluate(node, [z + e]) - y).abs(), (y - evaluate(node, [z - e])).abs())


def by_steps(node: Node, z: Tensor, e: Radius, y: Tensor) -> Tensor:
    """The same of a function with jumps, whose interval is widened by what float64 loses at its ends."""
    if e is None:
        return nothing(y)
    return by_ends(node, wide(z), torch.where(e > 0, e + NEAREST * (e + size(wide(z))), 0.0), wide(y))


def denormal(z: Tensor) -> Tensor:
    """Where a value may be taken as zero although it is none."""
    return (z != 0) & (z.abs() < ETA)


def lost_where(condition: Tensor, radius: Tensor) -> Tensor:
    """The radius, infinite where the condition holds: there the result is exempt."""
    return torch.where(condition, torch.inf, radius)


def rows_of(node: Node, y: Tensor) -> int | None:
    """The size of the batch, from a value of the node; None where its shape does not depend on it."""
    found = (y.shape[axis] // size.times for axis, size in enumerate(node.shape) if isinstance(size, Rows))
    return next(found, None)


def moved_alike(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Radii take the places of the values where nothing but places changes; a constant has none."""
    if exact(e):
        return nothing(y)
    tensors = {role: _zero(held) for role, held in node.tensors.items()}
    given = [radius_of(radius, value) for radius, value in zip(e, z, strict=True)]
    return evaluate(replace(node, tensors=tensors), given, precision=torch.float64, rows=rows_of(node, y))


def _zero(held: Constant) -> Constant:
    return Constant(held.name, np.zeros(held.values.shape, np.float32))


def dims_of(node: Node, z: Tensor) -> tuple[int, ...]:
    """The dimensions that a reduction runs over, counted from the front."""
    dims = node.attributes.get("dim")
    dims = (dims,) if isinstance(dims, int) else dims
    return tuple(dim % max(1, z.ndim) for dim in dims) if dims else tuple(range(z.ndim))


def counted(z: Tensor, dims: tuple[int, ...]) -> int:
    """How many values are reduced to one."""
    return prod(z.shape[dim] for dim in dims) if z.ndim else 1


def total(z: Tensor, dims: tuple[int, ...], keepdim: bool = True) -> Tensor:
    return z.sum(dim=dims, keepdim=keepdim) if z.ndim else z


def mean(z: Tensor, dims: tuple[int, ...]) -> Tensor:
    return z.mean(dim=dims, keepdim=True) if z.ndim else z


def most(z: Tensor, dims: tuple[int, ...], keepdim: bool = True) -> Tensor:
    return z.amax(dim=dims, keepdim=keepdim) if z.ndim else z


def squeezed(z: Tensor, dims: tuple[int, ...], node: Node) -> Tensor:
    """Without the reduced dimensions, if the node does not keep them."""
    return z if node.attributes.get("keepdim", False) or not z.ndim else z.squeeze(dims)


def guarded(rule: Rule) -> Rule:
    """The rule with a radius for every value: where it is no number, a finite value has no bound.

    Infinite and missing values are compared by their kind, so theirs is 0 then: infinity would exempt them.
    """

    def radius(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        found = rule(node, z, e, wide(y))
        missing = torch.where(y.isfinite(), torch.inf, 0.0).double()
        return torch.where(found.isnan(), missing, found)

    return radius


def exact_in_whole(rule: Rule) -> Rule:
    """Arithmetic on whole numbers rounds nothing: only what the radii of inputs make of it is left."""

    def radius(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        return nothing(y) if node.dtype != "float32" and exact(e) else rule(node, z, e, y)

    return radius
