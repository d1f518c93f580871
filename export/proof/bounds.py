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

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from export.graph import Node

from .affine_bounds import affine
from .constants import CONSTANTS
from .reference import constant, evaluate, options
from .rounding import ETA, LARGEST, Radius, Rule, U, gamma, size


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
