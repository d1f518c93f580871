"""The bounds of arithmetic: sums, products and quotients, affine operators alone and folded into one."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from export.evaluation import constant, evaluate, number, times
from export.graph import Node

from .common import Radius, Rule, denormal, exact_on_integers, exempt_where, operands, size, zero_radius
from .constants import ETA, LARGEST, U, gamma
from .spans import (
    Enclosure,
    Ends,
    Span,
    arguments,
    extremes,
    growing,
    largest_of,
    lost_by,
    outwards,
    radii,
)

_ARITHMETIC = ("add", "sub", "mul", "div")


def is_affine(node: Node) -> bool:
    """Whether the node is an affine map of its one input, with constants only."""
    if len(node.inputs) != 1 or node.dtype != "float32":
        return False
    if node.op == "linear":
        return "weight" in node.tensors
    if node.op in _ARITHMETIC:
        return not (node.op == "div" and _role(node) == "self")
    return node.op in ("batch_norm", "neg", "addcmul")


def _role(node: Node) -> str:
    """The name of the constant argument of an operator on a value and a constant."""
    return "self" if "self" in node.tensors or node.attributes.get("self") is not None else "other"


def magnitude(node: Node, z: Tensor, *, shifted: bool = True) -> Tensor:
    """An affine operator with the absolute values of its constants, on z ≥ 0: Σ|w|·z + |b|, or Σ|w|·z alone."""

    def absolute(role: str, counts: bool = True) -> Tensor:
        value = _constant(node, role, z)
        return value.abs() if counts else torch.zeros_like(value)

    if node.op == "linear":
        return times(node.tensors["weight"].values, z, absolute=True) + absolute("bias", shifted)
    if node.op == "batch_norm":
        return _factor(node, z) * (z + absolute("running_mean", shifted)) + absolute("bias", shifted)
    if node.op == "addcmul":
        return absolute("self", shifted) + z * absolute("tensor2")
    if node.op == "neg":
        return z
    role = _role(node)
    if node.op == "mul":
        return z * absolute(role)
    return z / absolute(role) if node.op == "div" else z + absolute(role, shifted)


def _constant(node: Node, role: str, like: Tensor) -> Tensor:
    """A constant, 0 if absent; that of a batch norm is broadcast along its channels, the second dimension."""
    value = constant(node, role, like)
    if value is None:
        return torch.zeros((), dtype=like.dtype)
    value = value.to(like.dtype)
    return value.reshape(-1, *[1] * (like.ndim - 2)) if node.op == "batch_norm" else value


def _deviation(node: Node, like: Tensor) -> Tensor:
    """√(running_var + eps) of a batch norm."""
    return torch.sqrt(_constant(node, "running_var", like) + number(node, "eps", rounded=False))


def _factor(node: Node, like: Tensor) -> Tensor:
    """|weight| / √(running_var + eps) of a batch norm."""
    factor = 1 / _deviation(node, like)
    return factor * _constant(node, "weight", like).abs() if "weight" in node.tensors else factor


def roundings(node: Node) -> int:
    """The k of γ_k of an affine operator.

    linear: n products and n - 1 sums, the bias one more: k = n + (1 with a bias); Higham (2002), section 3.1.
    add, sub, mul: one. div: one, or three as a product with a rounded reciprocal. addcmul: a product and a sum. neg: 0.
    batch_norm: the factor w / √(var + eps) takes 2 (sum, and eps as float32) halved by the root, the root, the quotient
    and perhaps a product with a reciprocal: 4; times x, or times the mean and then the difference; the sum: 8 in all.
    """
    if node.op == "linear":
        return node.tensors["weight"].values.shape[-1] + ("bias" in node.tensors)
    return {"batch_norm": 8, "addcmul": 2, "div": 3, "neg": 0}.get(node.op, 1)


def affine(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """(1 + γ_k)·|A| e + γ_k (|A||z| + |b|) + (k + 1)·2^-126·(1 + |z|), by ``roundings``; |z| summed for a linear.

    It is the bound of an inner product applied to each row (Higham 2002, eq. 3.5), with the error of the input carried
    through. The last term is for constants, factors and products that are flushed to zero. A batch norm's difference,
    and that over the deviation or times the weight, may overflow before the other makes them small.
    """
    k = roundings(node)
    g, moved, x = gamma(k), 0.0 if e[0] is None else magnitude(node, e[0], shifted=False), size(z[0])
    terms = magnitude(node, x)
    reach = x.sum(dim=-1, keepdim=True) if node.op == "linear" else x
    on_the_way = terms + moved
    if node.op == "batch_norm":
        reach = reach + _constant(node, "running_mean", x).abs()
        centred = reach if e[0] is None else reach + e[0]
        for largest in (centred, centred / _deviation(node, x), centred * _constant(node, "weight", x).abs()):
            on_the_way = torch.maximum(on_the_way, largest)  # no weight: 0, which is no larger
    radius = (1 + g) * moved + g * terms + (k + 1) * ETA * (1 + reach)
    return exempt_where((1 + g) * on_the_way > LARGEST, radius)


def _matmul(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """γ_n·Σ|a||b| over the n products of each inner product (Higham 2002, eq. 3.5), and what inexact factors add.

    That is e₁|b| + |a|e₂ + e₁e₂, summed. Factors, products and sums may be flushed: 2^-126 times their number and
    partners.
    """
    a, b = operands(node, z, e, "self", "other")
    n = a.value.shape[-1]
    g = gamma(n)
    terms = torch.matmul(a.size, b.size)
    moved = torch.matmul(a.reach, b.reach) - terms if a.e is not None or b.e is not None else 0.0
    ones = torch.ones_like(a.value), torch.ones_like(b.value)
    partners = torch.matmul(a.reach, ones[1]) + torch.matmul(ones[0], b.reach)
    radius = (1 + g) * moved + g * terms + ETA * (2 * n + partners)
    return exempt_where((1 + g) * (terms + moved) > LARGEST, radius)


def merged(nodes: Sequence[Node], folded: Node, z: Tensor, e: Radius, _y: Tensor) -> Tensor:
    """Affine operators that were composed in float64 and rounded once to the constants of ``folded``.

    ``folded`` is a linear, an addcmul, a mul or an add.

    The constants in the file are within u of those that float64 composed, and these within c·2^-53 of the exact ones,
    relative to the product of the absolute values: c counts the roundings along the chain (``roundings`` of each, n for
    an inner dimension, and 4 more for the widening of options and roots; Higham 2002, section 3.5). Applying them costs
    γ_k as in ``affine``, and the rounded constants one more. By the chain's own roundings in float32 nothing is added:
    the runtime never takes those steps.
    """
    k = roundings(folded) + 1
    chain = size(z)
    moved: Radius = e
    largest = _largest(chain)
    for node in nodes:
        chain, moved = magnitude(node, chain), None if moved is None else magnitude(node, moved, shifted=False)
        largest = torch.maximum(largest, _largest(chain))
    c = sum(roundings(node) + 4 for node in nodes)
    carried = 0.0 if moved is None else (1 + gamma(k)) * moved
    terms, x = magnitude(folded, size(z)), size(z)
    lost = (k + 1) * ETA * (1 + (x.sum(dim=-1, keepdim=True) if folded.op == "linear" else x))
    radius = carried + gamma(k) * terms + c * 2.0**-53 * chain + lost
    # A Gemm with an alpha sums before it multiplies, so its sums overflow first.
    overflows = ((1 + gamma(k)) * (terms + carried) > LARGEST) | ((1 + gamma(k)) * largest > LARGEST)
    return exempt_where(overflows | radius.isnan(), radius)


def _largest(z: Tensor) -> Tensor:
    return z.amax(dim=-1, keepdim=True) if z.ndim else z


def _add(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the sum or difference: (e₁ + e₂)(1 + u) + u·|y|.

    The sum of float32 numbers never underflows, but it, and they, may be flushed.
    """
    a, b = operands(node, z, e, "self", "other")
    return (a.radius + b.radius) * (1 + U) + U * size(y) + 3 * ETA


def _multiply(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the product: p = e₁|z₂| + e₂|z₁| + e₁e₂, then p + u·(|y| + p), and flushing."""
    a, b = operands(node, z, e, "self", "other")
    p = a.radius * b.size + b.radius * a.size + a.radius * b.radius
    return p + U * (size(y) + p) + ETA * (1 + a.reach + b.reach)


def _divide(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the quotient: u·(|y| + p), p = (e₁ + |y|·e₂) / (|z₂| - e₂).

    p is |(a + α)/(b + β) - a/b| = |α - β·a/b| / |b + β|; exempt where b may be zero, or a denormal that counts as zero.
    A file may hold a constant divisor as a product with its rounded reciprocal: γ_3, and the reciprocal may be flushed.
    """
    a, b = operands(node, z, e, "self", "other")
    inexact = a.e is not None or b.e is not None
    divisor = b.size - b.radius
    p = (a.radius + size(y) * b.radius) / divisor if inexact else zero_radius(y)
    relative = gamma(3) if b.fixed else U
    partners = (a.reach if b.fixed else 0.0) + 1 / torch.clamp(divisor, min=ETA)
    radius = p + relative * (size(y) + p) + ETA * (1 + partners)
    infinite = b.value.isinf() if b.e is None else torch.zeros_like(b.value, dtype=torch.bool)
    return exempt_where((denormal(b.value) if b.e is None else divisor < ETA) & ~infinite, radius)


def _choose(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The larger or the smaller of two float32 numbers: nothing is rounded, |max(a', b') - max(a, b)| ≤ max(e₁, e₂)."""
    a, b = operands(node, z, e, "self", "other")
    return zero_radius(y) + torch.maximum(a.radius, b.radius)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("linear", "batch_norm", "addcmul"), affine),
    "matmul": _matmul,
    "add": exact_on_integers(_add),
    "sub": exact_on_integers(_add),
    "mul": exact_on_integers(_multiply),
    "div": _divide,
    "maximum": exact_on_integers(_choose),
    "minimum": exact_on_integers(_choose),
}


def _affine_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The value of the middle, and |A|·half around it."""
    (x,) = spans
    middle, around = evaluate(node, [x.middle], precision=torch.float64), magnitude(node, x.half, shifted=False)
    around = around + lost_by(roundings(node), magnitude(node, x.largest))
    return middle - around, middle + around


def _matmul_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The product of the middles, and |A|·half(B) + half(A)·(|B| + half(B)) around it, at most 1.5 times too much."""
    a, b = arguments(node, spans, "self", "other")
    middle = torch.matmul(a.middle, b.middle)
    around = torch.matmul(a.middle.abs(), b.half) + torch.matmul(a.half, b.middle.abs() + b.half)
    around = around + lost_by(a.low.shape[-1], torch.matmul(a.largest, b.largest))
    return middle - around, middle + around


def _of_itself(node: Node) -> bool:
    return len(node.inputs) == 2 and node.inputs[0] == node.inputs[1]


def _sum_values(node: Node, spans: Sequence[Span]) -> Ends:
    a, b = arguments(node, spans, "self", "other")
    if node.op == "add":
        return outwards(a.low + b.low, a.high + b.high)
    if _of_itself(node):
        return torch.zeros_like(a.low), torch.zeros_like(a.high)
    return outwards(a.low - b.high, a.high - b.low)


def _product_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The products of the ends; a square is never negative."""
    a, b = arguments(node, spans, "self", "other")
    if _of_itself(node):
        low, high = outwards(a.smallest**2, a.largest**2)
        return low.clamp(min=0), high
    return outwards(*extremes([x * y for x in (a.low, a.high) for y in (b.low, b.high)]))


def _quotient_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The quotients of the ends, where the divisor is not 0."""
    a, b = arguments(node, spans, "self", "other")
    low, high = outwards(*extremes([x / y for x in (a.low, a.high) for y in (b.low, b.high)]))
    return torch.where(b.smallest > 0, low, -inf), torch.where(b.smallest > 0, high, inf)


def _quotient_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The rule at the largest dividend and quotient and at the divisor nearest to 0, with whose reciprocal it grows."""
    a, b = arguments(node, spans, "self", "other")
    dividend = [] if _role(node) == "self" and len(spans) == 1 else largest_of(spans[:1])
    divisor = [b.smallest] if len(dividend) < len(spans) else []
    radius = _divide(node, [*dividend, *divisor], radii(spans), y.largest)
    return exempt_where((b.smallest < ETA) | ~a.largest.isfinite() | ~b.largest.isfinite(), radius)


def _choice_values(node: Node, spans: Sequence[Span]) -> Ends:
    a, b = arguments(node, spans, "self", "other")
    choose = torch.maximum if node.op == "maximum" else torch.minimum
    return choose(a.low, b.low), choose(a.high, b.high)


ENCLOSURES: dict[str, Enclosure] = {
    **dict.fromkeys(("linear", "batch_norm", "addcmul"), Enclosure(_affine_values, growing(RULES["linear"]))),
    "matmul": Enclosure(_matmul_values, growing(RULES["matmul"])),
    "add": Enclosure(_sum_values, growing(RULES["add"])),
    "sub": Enclosure(_sum_values, growing(RULES["sub"])),
    "mul": Enclosure(_product_values, growing(RULES["mul"])),
    "div": Enclosure(_quotient_values, _quotient_radius),
    "maximum": Enclosure(_choice_values, growing(RULES["maximum"])),
    "minimum": Enclosure(_choice_values, growing(RULES["minimum"])),
}
