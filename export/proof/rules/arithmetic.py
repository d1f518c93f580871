"""The bounds of sums, products, quotients, powers and choices of two values."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.graph import Node
from export.proof.rounding import ETA, Radius, Rule, U, gamma, size

from .constants import CONSTANTS
from .parts import denormal, exact_in_whole, lost_where, nothing, operands


def _add(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the sum or difference: (e₁ + e₂)(1 + u) + u·|y|. The sum of float32 numbers never underflows,
    but it, and they, may be flushed."""
    a, b = operands(node, z, e, "self", "other")
    return (a.radius + b.radius) * (1 + U) + U * size(y) + 3 * ETA


def _multiply(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the product: p = e₁|z₂| + e₂|z₁| + e₁e₂, then p + u·(|y| + p), and flushing."""
    a, b = operands(node, z, e, "self", "other")
    p = a.radius * b.size + b.radius * a.size + a.radius * b.radius
    return p + U * (size(y) + p) + ETA * (1 + a.reach + b.reach)


def _divide(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the quotient: u·(|y| + p), p = (e₁ + |y|·e₂) / (|z₂| - e₂), which is
    |(a + α)/(b + β) - a/b| = |α - β·a/b| / |b + β|; exempt where b may be zero, or a denormal that counts as zero.

    A constant divisor may be spelt as a product with its rounded reciprocal: γ_3, and the reciprocal may be flushed.
    """
    a, b = operands(node, z, e, "self", "other")
    inexact = a.e is not None or b.e is not None
    divisor = b.size - b.radius
    p = (a.radius + size(y) * b.radius) / divisor if inexact else nothing(y)
    relative = gamma(3) if b.fixed else U
    partners = (a.reach if b.fixed else 0.0) + 1 / torch.clamp(divisor, min=ETA)
    radius = p + relative * (size(y) + p) + ETA * (1 + partners)
    infinite = b.value.isinf() if b.e is None else torch.zeros_like(b.value, dtype=torch.bool)
    return lost_where((denormal(b.value) if b.e is None else divisor < ETA) & ~infinite, radius)


def _power(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """r·u·(|y| + p) with the constant of pow, and flushing; x^-n as the reciprocal of a product is exempt where the
    product may underflow, and so is a denormal base.

    x^n with an exact whole n ≥ 1 moves by at most (|x| + e)^n - |x|^n, by the binomial theorem. Else, for positive
    bases, x^c is monotone in each argument, so the corners of the rectangle are the extremes. Else nothing is bounded.
    """
    x, c = operands(node, z, e, "self", "exponent")
    p = nothing(y)
    if x.e is not None or c.e is not None:
        corners = [(x.value + s * x.radius) ** (c.value + t * c.radius) for s in (1, -1) for t in (1, -1)]
        p = torch.stack([(corner - y).abs() for corner in corners]).amax(dim=0)
        p = lost_where(x.value - x.radius <= 0, p)
        whole = (c.value == c.value.round()) & (c.value >= 1) & (c.radius == 0)
        p = torch.where(whole, x.reach**c.value - x.size**c.value, p)
        p = torch.where((x.radius == 0) & (c.radius == 0), 0.0, p)
    r = CONSTANTS["pow"].limits[1]
    lost = denormal(x.value) | ((c.value < 0) & (size(y) + p > 1 / ETA))
    return lost_where(lost & y.isfinite(), p + U * r * (size(y) + p) + 2 * ETA)


def _choose(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The larger or the smaller of two float32 numbers: nothing is rounded, |max(a', b') - max(a, b)| ≤ max(e₁, e₂)."""
    a, b = operands(node, z, e, "self", "other")
    return nothing(y) + torch.maximum(a.radius, b.radius)


RULES: dict[str, Rule] = {
    "add": exact_in_whole(_add),
    "sub": exact_in_whole(_add),
    "mul": exact_in_whole(_multiply),
    "div": _divide,
    "pow": exact_in_whole(_power),
    "maximum": exact_in_whole(_choose),
    "minimum": exact_in_whole(_choose),
}
