"""The bounds of affine operators, alone and folded into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from export.evaluation import constant, number, times
from export.graph import Node
from export.proof.rounding import ETA, LARGEST, Radius, Rule, gamma, size

from .parts import lost_where, operands

_ARITHMETIC = ("add", "sub", "mul", "div")


def is_affine(node: Node) -> bool:
    """Whether it maps its one value affinely, with constants alone."""
    if len(node.inputs) != 1 or node.dtype != "float32":
        return False
    if node.op == "linear":
        return "weight" in node.tensors
    if node.op in _ARITHMETIC:
        return not (node.op == "div" and _role(node) == "self")
    return node.op in ("batch_norm", "neg", "addcmul")


def _role(node: Node) -> str:
    """Which argument of an operator on a value and a constant is the constant."""
    return "self" if "self" in node.tensors or node.attributes.get("self") is not None else "other"


def magnitude(node: Node, z: Tensor) -> Tensor:
    """An affine operator with every constant and its argument z ≥ 0 taken absolute: Σ|w|·z + |b|."""
    if node.op == "linear":
        y, bias = times(node.tensors["weight"].values, z, absolute=True), constant(node, "bias", z)
        return y if bias is None else y + bias.abs()
    if node.op == "batch_norm":
        mean, bias = _of_channels(node, "running_mean", z), _of_channels(node, "bias", z)
        assert mean is not None
        return _factor(node, z) * (z + mean.abs()) + (0.0 if bias is None else bias.abs())
    if node.op == "addcmul":
        return _absolute(node, "self", z) + z * _absolute(node, "tensor2", z)
    if node.op == "neg":
        return z
    held = _absolute(node, _role(node), z)
    if node.op == "mul":
        return z * held
    return z / held if node.op == "div" else z + held


def passed_on(node: Node, e: Radius) -> Tensor | float:
    """What an affine operator makes of its input's radius: its linear part, taken absolute, times e."""
    if e is None:
        return 0.0
    if node.op == "linear":
        return times(node.tensors["weight"].values, e, absolute=True)
    if node.op == "batch_norm":
        return _factor(node, e) * e
    if node.op == "addcmul":
        return torch.broadcast_to(e * _absolute(node, "tensor2", e), _shape(node, e))
    if node.op == "neg":
        return e
    held = _absolute(node, _role(node), e)
    if node.op == "mul":
        return e * held
    return e / held if node.op == "div" else torch.broadcast_to(e, torch.broadcast_shapes(e.shape, held.shape))


def _shape(node: Node, e: Tensor) -> torch.Size:
    return torch.broadcast_shapes(*(_absolute(node, role, e).shape for role in ("self", "tensor2")), e.shape)


def _absolute(node: Node, role: str, like: Tensor) -> Tensor:
    held = constant(node, role, like)
    assert held is not None
    return held.abs().to(like.dtype)


def _of_channels(node: Node, role: str, like: Tensor) -> Tensor | None:
    """A constant with one value for each channel, which is the second dimension."""
    held = constant(node, role, like)
    return None if held is None else held.reshape(-1, *[1] * (like.ndim - 2))


def _deviation(node: Node, like: Tensor) -> Tensor:
    """√(running_var + eps) of a batch norm."""
    var = _of_channels(node, "running_var", like)
    assert var is not None
    return torch.sqrt(var + number(node, "eps", rounded=False))


def _factor(node: Node, like: Tensor) -> Tensor:
    """|weight| / √(running_var + eps) of a batch norm."""
    weight = _of_channels(node, "weight", like)
    factor = 1 / _deviation(node, like)
    return factor if weight is None else factor * weight.abs()


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


def affine(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(1 + γ_k)·|A| e + γ_k (|A||z| + |b|) + (k + 1)·2^-126·(1 + |z|), by ``roundings``; |z| summed for a linear.

    It is the bound of an inner product applied to each row (Higham 2002, eq. 3.5), with the error of the input carried
    through. The last term is for constants, factors and products that are flushed to zero. A batch norm's difference,
    and that over the deviation, may overflow before the weight makes them small.
    """
    k = roundings(node)
    g, moved, x = gamma(k), passed_on(node, e[0]), size(z[0])
    terms = magnitude(node, x)
    reach = x.sum(dim=-1, keepdim=True) if node.op == "linear" else x
    on_the_way = terms + moved
    if node.op == "batch_norm":
        mean = _of_channels(node, "running_mean", x)
        assert mean is not None
        reach = reach + mean.abs()
        centred = reach if e[0] is None else reach + e[0]
        on_the_way = torch.maximum(on_the_way, torch.maximum(centred, centred / _deviation(node, x)))
    radius = (1 + g) * moved + g * terms + (k + 1) * ETA * (1 + reach)
    return lost_where((1 + g) * on_the_way > LARGEST, radius)


def _matmul(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """γ_n·Σ|a||b| over the n products of each inner product (Higham 2002, eq. 3.5), and e₁|b| + |a|e₂ + e₁e₂, summed,
    for inexact factors. Factors, products and sums may be flushed: 2^-126 times their number and partners."""
    a, b = operands(node, z, e, "self", "other")
    n = a.value.shape[-1]
    g = gamma(n)
    terms = torch.matmul(a.size, b.size)
    moved = torch.matmul(a.reach, b.reach) - terms if a.e is not None or b.e is not None else 0.0
    ones = torch.ones_like(a.value), torch.ones_like(b.value)
    partners = torch.matmul(a.reach, ones[1]) + torch.matmul(ones[0], b.reach)
    radius = (1 + g) * moved + g * terms + ETA * (2 * n + partners)
    return lost_where((1 + g) * (terms + moved) > LARGEST, radius)


def merged(nodes: Sequence[Node], held: Node, z: Tensor, e: Radius, y: Tensor) -> Tensor:
    """Affine operators that were composed in float64 and rounded once to the constants of ``held``, a linear, addcmul,
    mul or add.

    The constants in the file are within u of those that float64 composed, and these within c·2^-53 of the exact ones,
    relative to the product of the absolute values: c counts the roundings along the chain (``roundings`` of each, n for
    an inner dimension, and 4 more for the widening of options and roots; Higham 2002, section 3.5). Applying them costs
    γ_k as in ``affine``, and the rounded constants one more. By the chain's own roundings in float32 nothing is added:
    the runtime never takes those steps.
    """
    k = roundings(held) + 1
    chain = size(z)
    moved: Radius = e
    largest = _largest(chain)
    for node in nodes:
        chain, moved = magnitude(node, chain), None if moved is None else torch.as_tensor(passed_on(node, moved))
        largest = torch.maximum(largest, _largest(chain))
    c = sum(roundings(node) + 4 for node in nodes)
    carried = 0.0 if moved is None else (1 + gamma(k)) * moved
    terms, x = magnitude(held, size(z)), size(z)
    lost = (k + 1) * ETA * (1 + (x.sum(dim=-1, keepdim=True) if held.op == "linear" else x))
    radius = carried + gamma(k) * terms + c * 2.0**-53 * chain + lost
    # A Gemm with an alpha sums before it multiplies, so its sums overflow first.
    overflows = ((1 + gamma(k)) * (terms + carried) > LARGEST) | ((1 + gamma(k)) * largest > LARGEST)
    return lost_where(overflows | radius.isnan(), radius)


def _largest(z: Tensor) -> Tensor:
    return z.amax(dim=-1, keepdim=True) if z.ndim else z


RULES: dict[str, Rule] = {"linear": affine, "batch_norm": affine, "addcmul": affine, "matmul": _matmul}
