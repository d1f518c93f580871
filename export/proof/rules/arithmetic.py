"""The bounds of arithmetic: sums, products, quotients and powers, affine operators alone and folded into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.evaluation import constant, number, times
from export.graph import Node

from .common import Radius, Rule, denormal, exact_on_integers, exempt_where, operands, size, zero_radius
from .constants import CONSTANTS, ETA, LARGEST, U, gamma

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


def _power(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """r·u·(|y| + p) with the constant of pow, and flushing.

    x^-n as the reciprocal of a product is exempt where the product may underflow, and so is a denormal base.
    x^n with an exact whole n ≥ 1 moves by at most (|x| + e)^n - |x|^n, by the binomial theorem. Else, for positive
    bases, x^c is monotone in each argument, so the corners of the rectangle are the extremes. Else nothing is bounded.
    """
    x, c = operands(node, z, e, "self", "exponent")
    p = zero_radius(y)
    if x.e is not None or c.e is not None:
        corners = [(x.value + s * x.radius) ** (c.value + t * c.radius) for s in (1, -1) for t in (1, -1)]
        p = torch.stack([(corner - y).abs() for corner in corners]).amax(dim=0)
        p = exempt_where(x.value - x.radius <= 0, p)
        integer = (c.value == c.value.round()) & (c.value >= 1) & (c.radius == 0)
        p = torch.where(integer, x.reach**c.value - x.size**c.value, p)
        p = torch.where((x.radius == 0) & (c.radius == 0), 0.0, p)
    r = CONSTANTS["pow"].limits[1]
    lost = denormal(x.value) | ((c.value < 0) & (size(y) + p > 1 / ETA))
    return exempt_where(lost & y.isfinite(), p + U * r * (size(y) + p) + 2 * ETA)


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
    "pow": exact_on_integers(_power),
    "maximum": exact_on_integers(_choose),
    "minimum": exact_on_integers(_choose),
}
