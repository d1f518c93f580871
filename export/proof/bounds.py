"""How far a correct float32 evaluation of a block can be from its exact value.

For an exact input z, known up to e, and the exact value y = f(z), a rule gives the radius around y that holds the
result of any float32 evaluation with rounding to nearest: matrix products and sums in any order, with or without fused
multiply-add. u = 2^-24 is the unit roundoff, γ_k = k·u / (1 - k·u) bounds k roundings in a row (Higham, Accuracy and
Stability of Numerical Algorithms, 2002, lemma 3.1), and every operation may flush a result below 2^-126 to zero.
Activations have constants of their own, stated in ``export.proof.constants``. Where float32 may overflow on the way,
the radius is infinite: such elements are exempt, and counted.

Everything is float64, whose own error (2^-29 of a float32 rounding) the caller adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from export.graph import Node

from .constants import CONSTANTS
from .reference import constant, evaluate, options, times

U = 2.0**-24
ETA = 2.0**-126
LARGEST = float(np.finfo(np.float32).max)
PROBABILISTIC = 8
"""λ of the probabilistic line: it fails to hold with probability 2·exp(-λ²/2) per sum (Higham and Mary, SIAM J. Sci.
Comput. 41(5), 2019, theorem 2.4)."""

Radius = Tensor | None
"""None stands for an input that is known exactly."""
Rule = Callable[[Node, Sequence[Tensor], Sequence[Radius], Tensor], Tensor]


def gamma(k: float) -> float:
    """The relative error of k roundings in a row; infinite where k·u reaches 1."""
    return k * U / (1 - k * U) if k * U < 1 else float("inf")


def sharper(k: float) -> float:
    """How many times smaller the probabilistic line expm1(λ·√k·u + k·u² / (1 - u)) is than γ_k; at least 1."""
    likely = float(np.expm1(PROBABILISTIC * np.sqrt(k) * U + k * U**2 / (1 - U)))
    return max(1.0, gamma(k) / likely)


def size(z: Tensor) -> Tensor:
    """Absolute values; those of NaN and infinity, whose results are compared by kind, count as 0."""
    return torch.where(z.isfinite(), z.abs(), 0.0)


def magnitude(node: Node, z: Tensor) -> Tensor:
    """An affine block with every constant and its argument z ≥ 0 taken absolute: Σ|w|·z + |b|."""
    if node.op == "linear":
        y, bias = times(node.tensors["weight"].values, z, absolute=True), constant(node, "bias", z)
        return y if bias is None else y + bias.abs()
    if node.op == "standardize":
        return (z + absolute(node, "mean", z, 0.0)) / absolute(node, "std", z, 1.0)
    if node.op == "scale":
        return z * absolute(node, "factor", z, 1.0) + absolute(node, "offset", z, 0.0)
    mean, factor, bias = constant(node, "running_mean", z), batch_norm_factor(node, z), constant(node, "bias", z)
    assert mean is not None
    return factor * (z + mean.abs()) + (0.0 if bias is None else bias.abs())


def absolute(node: Node, role: str, like: Tensor, missing: float) -> Tensor | float:
    """The absolute value of a constant of the block, a tensor or a number, as float32 holds it."""
    held = constant(node, role, like)
    return abs(options(node, rounded=True).get(role, missing)) if held is None else held.abs()


def batch_norm_factor(node: Node, like: Tensor) -> Tensor:
    """|weight| / √(running_var + eps)."""
    var, weight = constant(node, "running_var", like), constant(node, "weight", like)
    assert var is not None
    factor = 1 / torch.sqrt(var + options(node, rounded=False)["eps"])
    return factor if weight is None else factor * weight.abs()


def passed_on(node: Node, e: Radius) -> Tensor | float:
    """What an affine block makes of its input's radius: its linear part, taken absolute, times e."""
    if e is None:
        return 0.0
    if node.op == "linear":
        return times(node.tensors["weight"].values, e, absolute=True)
    if node.op == "batch_norm":
        return batch_norm_factor(node, e) * e
    return e * absolute(node, "factor", e, 1.0) / absolute(node, "std", e, 1.0)


def roundings(node: Node) -> int:
    """The k of γ_k of an affine block.

    linear: n products and n - 1 sums, the bias one more: k = n + (1 with a bias); Higham (2002), section 3.1.
    standardize: a difference, and a quotient or the product with a rounded reciprocal: 3.
    scale: a product and a sum: 2. Of a block that lacks a constant it is more than enough.
    batch_norm: the factor w / √(var + eps) takes 2 (sum, and eps as float32) halved by the root, the root, the quotient
    and perhaps a product with a reciprocal: 4; times x, or times the mean and then the difference; the sum: 8 in all.
    """
    if node.op == "linear":
        return node.tensors["weight"].values.shape[-1] + ("bias" in node.tensors)
    return {"standardize": 3, "scale": 2, "batch_norm": 8}[node.op]


def affine(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(1 + γ_k)·|A| e + γ_k (|A||z| + |b|) + (k + 1)·2^-126·(1 + |z|), by ``roundings``; |z| summed for a linear.

    It is the bound of an inner product applied to each row (Higham 2002, eq. 3.5), with the error of the input carried
    through. A standardize's own rounding is relative to z - mean, so γ_k |y| does for it. The last term is for
    constants and factors that are flushed to zero.
    """
    k = roundings(node)
    g, moved, x = gamma(k), passed_on(node, e[0]), size(z[0])
    terms = magnitude(node, x)
    own = y.abs() if node.op == "standardize" else terms
    reach = x.sum(dim=-1, keepdim=True) if node.op == "linear" else x
    for role in ("mean", "running_mean"):
        reach = reach + absolute(node, role, x, 0.0)
    radius = (1 + g) * moved + g * own + (k + 1) * ETA * (1 + reach)
    lost = (1 + g) * (terms + moved) > LARGEST
    return torch.where(lost | (reach > LARGEST) if node.op == "standardize" else lost, torch.inf, radius)


def merged(nodes: Sequence[Node], held: Node, z: Tensor, e: Radius, y: Tensor) -> Tensor:
    """Affine blocks that were composed in float64 and rounded once to the constants of ``held``, a linear or a scale.

    The constants in the file are within u of those that float64 composed, and these within c·2^-53 of the exact ones,
    relative to the product of the absolute values: c counts the roundings along the chain (n of each inner dimension
    and a few per block; Higham 2002, section 3.5). Applying them costs γ_k as in ``affine``.
    """
    k = roundings(held) + 1
    chain = size(z)
    moved: Radius = e
    largest = chain.amax(dim=-1, keepdim=True)
    for node in nodes:
        chain, moved = magnitude(node, chain), None if moved is None else torch.as_tensor(passed_on(node, moved))
        largest = torch.maximum(largest, chain.amax(dim=-1, keepdim=True))
    c = sum(roundings(node) + 4 for node in nodes)
    carried = 0.0 if moved is None else (1 + gamma(k)) * moved
    terms, x = magnitude(held, size(z)), size(z)
    lost = (k + 1) * ETA * (1 + x.sum(dim=-1, keepdim=True))
    radius = carried + gamma(k) * terms + c * 2.0**-53 * chain + lost
    # A Gemm with an alpha sums before it multiplies, so its sums overflow first.
    overflows = ((1 + gamma(k)) * (terms + carried) > LARGEST) | ((1 + gamma(k)) * largest > LARGEST)
    return torch.where(overflows, torch.inf, radius)


def _carried(node: Node, z: Tensor, e: Radius, y: Tensor, slope: float | None) -> Tensor | float:
    """What f makes of the radius of its input: the ends of the interval where f is monotone, else slope·e."""
    if e is None:
        return 0.0
    if slope is not None:
        return slope * e
    return torch.maximum((evaluate(node, [z + e]) - y).abs(), (y - evaluate(node, [z - e])).abs())


def elementwise(name: str, slope: float | None = None) -> Rule:
    """p + u·(a + r·(|y| + p) + m·(|z| + e)) + 2·2^-126 with the constants of ``name``; p is what f makes of e.

    GELU's slope is at most 1.129 (at z = √2: Φ(√2) + √2·φ(√2)), SiLU's at most 1.0999; the others are monotone.
    """
    a, r, m = CONSTANTS[name].limits

    def rule(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        p = _carried(node, z[0], e[0], y, slope)
        spread = size(z[0]) if e[0] is None else size(z[0]) + e[0]
        return p + U * (a + r * (size(y) + p) + m * spread) + 2 * ETA

    return rule


def _unrounded(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """relu, relu6 and clip choose among float32 numbers: no rounding, and never more than e."""
    return torch.zeros_like(y) + _carried(node, z[0], e[0], y, None)


def _leaky_relu(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One product with the float32 slope where z may be negative: u·|y|; above zero nothing is rounded."""
    slope = options(node, rounded=True)["negative_slope"]
    p = _carried(node, z[0], e[0], y, max(1.0, abs(slope)) if slope < 0 else None)
    low = z[0] if e[0] is None else z[0] - e[0]
    return p + torch.where(low > 0, 0.0, U * (size(y) + p) + ETA)


def _elu(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """alpha·(exp(z) - 1) below zero: the exponential and the difference to a·u of 1, times alpha; one product, r = 1.

    The slope is at most max(1, |alpha|); above zero the result is z itself.
    """
    alpha = abs(options(node, rounded=True)["alpha"])
    a, r, _ = CONSTANTS["elu"].limits
    p = _carried(node, z[0], e[0], y, max(1.0, alpha))
    low = z[0] if e[0] is None else z[0] - e[0]
    return p + torch.where(low > 0, 0.0, U * (a * alpha + r * (size(y) + p)) + 2 * ETA)


def _gelu(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """As ``elementwise``; x·(1 + erf) is twice the result before it is halved, and so overflows first."""
    name = "gelu" if node.attributes["approximate"] == "none" else "gelu tanh"
    radius = elementwise(name, 1.13)(node, z, e, y)
    return torch.where(2 * (size(z[0]) + (0.0 if e[0] is None else e[0])) > LARGEST, torch.inf, radius)


def _softplus(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """log(1 + exp(beta·z)) / beta: beta·z is rounded, which moves the result by at most u·|z| since the slope is at
    most 1; the logarithm to (a + r·beta·y)·u; the quotient. Within rounding of the threshold either branch is right,
    and they differ by log1p(exp(-threshold)) / beta. Above a threshold of 20 they agree to float32.
    """
    given = options(node, rounded=True)
    beta, threshold = given["beta"], given["threshold"]
    if beta == 0:
        return torch.full_like(y, torch.inf)
    a, r, m = CONSTANTS["softplus"].limits
    p = _carried(node, z[0], e[0], y, 1.0)
    spread = size(z[0]) if e[0] is None else size(z[0]) + e[0]
    near = (beta * z[0] - threshold).abs() <= abs(beta) * torch.as_tensor(p) + 4 * U * abs(threshold)
    jump = float(np.logaddexp(0.0, -threshold)) / abs(beta)
    radius = p + U * (a / abs(beta) + r * (size(y) + p) + m * spread) + torch.where(near, jump, 0.0) + 2 * ETA
    return torch.where((beta * spread).abs() > LARGEST, torch.inf, radius)


def _softmax(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """exp(z_i - max) / Σ exp(z_j - max), d_i = max - z_i: the difference is rounded (u·d_i in the exponent), the
    exponential has c roundings, the sum of n positive terms n - 1, the quotient one. So |fl(y_i) - y_i| ≤
    y_i·u·(d_i + Σ y_j d_j + n + 2c + 2), and twice e in the exponent where the input is not exact (after Blanchard,
    Higham and Higham, Accurately computing the log-sum-exp and softmax functions, IMA J. Numer. Anal. 41(4), 2021).
    Results below 2^-126 are flushed, as are terms of the sum.
    """
    c = CONSTANTS["softmax"].limits[1]
    depth = torch.where(y > 0, z[0].amax(dim=-1, keepdim=True) - z[0], 0.0)
    n = z[0].shape[-1]
    own = U * (depth + (y * depth).sum(dim=-1, keepdim=True) + n + 2 * c + 2)
    moved = 0.0 if e[0] is None else torch.expm1(e[0] + e[0].amax(dim=-1, keepdim=True))
    return y * ((1 + own) * (1 + moved) - 1) + (n + 2) * ETA


def _layer_norm(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """(z - mean) / √(var + eps)·w + b, the variance as a mean of squares (two passes) or as E[z²] - mean² (one pass),
    in one kernel or operator by operator, which rounds no more often.

    With γ = γ_{n+4}: the mean is off by γ·E|z|, so z - mean by t = γ·E|z| + 2u·|z - mean|; the one-pass variance by
    γ·(E[z²] + mean² + eps), which covers two passes as well (Chan, Golub and LeVeque, The American Statistician 37(3),
    1983). Where that could be all of the variance nothing is bounded; else 1 / √· grows by √(v / (v - slack)) - 1. The
    root, the quotient, the product with w and the sum add 6 roundings.
    """
    x = torch.where(z[0].isfinite(), z[0], 0.0)
    n = x.shape[-1]
    g = gamma(n + 4)

    def mean(values: Tensor) -> Tensor:
        return values.mean(dim=-1, keepdim=True)

    eps = options(node, rounded=False)["eps"]
    centre = mean(x)
    centred = (x - centre).abs()
    given = torch.zeros_like(x) if e[0] is None else e[0]
    moved = (given + mean(given)) * (1 + g) + g * mean(x.abs()) + 2 * U * centred
    variance = mean(centred**2) + eps
    slack = g * (mean(x**2) + centre**2 + eps) + mean(2 * centred * moved + moved**2) + (n + 4) * ETA
    unit = 1 / torch.sqrt(variance)
    growth = torch.sqrt(variance / torch.where(slack < variance, variance - slack, torch.nan)) - 1
    weight, bias = constant(node, "weight", x), constant(node, "bias", x)
    scaled = unit * (moved * (1 + growth) + centred * (growth + 6 * U))
    radius = scaled if weight is None else weight.abs() * scaled
    radius = radius + (n + 6) * ETA * (1 + unit) + (0.0 if bias is None else 4 * U * bias.abs())
    lost = radius.isnan() | ((x.abs() + given) ** 2).sum(dim=-1, keepdim=True).mul(1 + g).gt(LARGEST)
    return torch.where(lost, torch.inf, radius)


def _add(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the sum or difference: (e₁ + e₂)(1 + u) + u·|y|; of float32 numbers it never underflows."""
    given = sum((radius for radius in e if radius is not None), torch.zeros_like(y))
    return given * (1 + U) + U * size(y)


def _multiply(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding of the product: p = e₁|z₂| + e₂|z₁| + e₁e₂, then p + u·(|y| + p), and it may underflow."""
    first, second = (torch.zeros_like(y) if radius is None else radius for radius in e)
    p = first * size(z[1]) + second * size(z[0]) + first * second
    return p + U * (size(y) + p) + 2 * ETA


def _concat(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """Nothing is computed: the radii stand beside each other."""
    return torch.cat([torch.zeros_like(v) if r is None else r for v, r in zip(z, e, strict=True)], dim=1)


RULES: dict[str, Rule] = {
    "linear": affine,
    "batch_norm": affine,
    "standardize": affine,
    "scale": affine,
    "sigmoid": elementwise("sigmoid"),
    "tanh": elementwise("tanh"),
    "silu": elementwise("silu", 1.1),
    "hardsigmoid": elementwise("hardsigmoid"),
    "gelu": _gelu,
    "elu": _elu,
    "softplus": _softplus,
    "leaky_relu": _leaky_relu,
    "relu": _unrounded,
    "relu6": _unrounded,
    "clip": _unrounded,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "add": _add,
    "subtract": _add,
    "multiply": _multiply,
    "concat": _concat,
}
"""The rule of every block that acts in evaluation mode. A block without one is never proved."""
AFFINE = ("linear", "batch_norm", "standardize", "scale")
