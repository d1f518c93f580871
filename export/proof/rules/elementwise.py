"""The bounds of functions of one value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from export.evaluation import evaluate, number
from export.graph import Node

from .common import Radius, Rule, denormal, exempt_where, operands, radius_of, reach, size, widened, zero_radius
from .constants import CONSTANTS, ETA, LARGEST, U, gamma

_FLUSHED = 4 * ETA
"""For a function with a slope of at most 2: its result may be flushed to zero, and so may its argument."""


def by_ends(node: Node, z: Tensor, e: Radius, y: Tensor) -> Tensor:
    """The radius of a monotone function's value: the distance to the values at the ends of the interval."""
    if e is None:
        return zero_radius(y)
    return torch.maximum((evaluate(node, [z + e]) - y).abs(), (y - evaluate(node, [z - e])).abs())


def smooth(name: str, slope: float | None = None, inner: float = 0.0) -> Rule:
    """The rule p + u·(a + r·(|y| + p) + m·(|z| + e)) + 4·2^-126, with the constants of ``name``.

    p is what f makes of e: where f is monotone, the distance to the ends of the interval, else slope·e, ``slope`` the
    largest |f'|. Exempt where inner·(|z| + e), which some kernels have on the way, may overflow.
    """
    a, r, m = CONSTANTS[name].limits

    def rule(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
        p = by_ends(node, z[0], e[0], y) if slope is None else slope * radius_of(e[0], z[0])
        radius = p + U * (a + r * (size(y) + p) + m * reach(z[0], e[0])) + _FLUSHED
        return exempt_where(inner * reach(z[0], e[0]) > LARGEST, radius) if inner else radius

    return rule


def _unrounded(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """neg, abs, relu and clamp only select or negate float32 numbers: no rounding, and at most e."""
    return zero_radius(y) + radius_of(e[0], z[0]) if node.op in ("neg", "abs") else by_ends(node, z[0], e[0], y)


def _stepped(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The ends of the interval, for floor, ceil, round and sign: they are monotone, and exact for small whole numbers.

    The interval is widened by what float64 loses at its ends, since they jump.
    """
    x = z[0].double()
    return by_ends(node, x, None if e[0] is None else widened(x, e[0]), y)


def _leaky_relu(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One product with the float32 slope where z may be negative: u·|y|; above zero nothing is rounded.

    A negative slope makes it fall and rise, and its steepness is max(1, |slope|) then.
    """
    slope = number(node, "negative_slope")
    p = max(1.0, abs(slope)) * radius_of(e[0], z[0]) if slope < 0 else by_ends(node, z[0], e[0], y)
    low = z[0] - radius_of(e[0], z[0])
    return p + torch.where(low > 0, 0.0, U * (size(y) + p) + (1 + abs(slope)) * ETA)


def _prelu(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """As leaky_relu with slopes of its own; e₂ is their radius: max(1, |w| + e₂)·e₁ + e₂·|z|, and one product."""
    x, weight = operands(node, z, e, "self", "weight")
    p = torch.clamp(weight.reach, min=1.0) * x.radius + weight.radius * x.size
    above = x.value - x.radius > 0
    return torch.where(above, x.radius, p + U * (size(y) + p) + (1 + weight.reach) * ETA)


def _elu(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """alpha·(exp(z) - 1) below zero: the exponential and the difference to a·u of 1, times alpha; one product, r = 1.

    The slope is at most max(1, |alpha|); above zero the result is z itself. A celu's t = z/alpha is rounded once or, as
    a product with a rounded reciprocal, twice: alpha·exp(t)·|t|·2u, at most 0.74 alpha·u (|t|·exp(t) ≤ 1/e); its slope
    is at most 1. Other scales than 1 have no bound.
    """
    alpha = abs(number(node, "alpha"))
    a, r, _ = CONSTANTS[node.op].limits
    steep = max(1.0, alpha) if node.op == "elu" else 1.0
    p = steep * radius_of(e[0], z[0])
    low = z[0] - radius_of(e[0], z[0])
    radius = p + torch.where(low > 0, 0.0, U * (a * alpha + r * (size(y) + p)) + 2 * (1 + alpha) * ETA)
    scaled = any(float(node.attributes.get(role, 1)) != 1 for role in ("scale", "input_scale"))
    wrong = scaled or (node.op == "celu" and number(node, "alpha") <= 0)
    return exempt_where(low <= 0, radius) if wrong else radius


def _selu(_node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """An elu with alpha = 1.6733, times 1.0507, both rounded to float32.

    Two more roundings of constants, one of a product. The slope is at most 1.7581, and nothing is absolute above zero.
    """
    a, r, _ = CONSTANTS["selu"].limits
    p = 1.7581 * radius_of(e[0], z[0])
    low = z[0] - radius_of(e[0], z[0])
    return p + U * (torch.where(low > 0, 0.0, a) + r * (size(y) + p)) + _FLUSHED


def _gelu(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """A smooth function, whose slope is at most 1.129 (at z = √2: Φ(√2) + √2·φ(√2)).

    x·(1 + erf) is twice the result before it is halved, and so overflows first.
    """
    name = "gelu" if node.attributes["approximate"] == "none" else "gelu tanh"
    return smooth(name, 1.13, inner=2)(node, z, e, y)


def _softplus(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """log(1 + exp(beta·z)) / beta, or z above a threshold.

    beta·z is rounded, which moves the result by at most u·|z| since the slope is at most 1; the logarithm to
    (a + r·beta·y)·u; the quotient. Within rounding of the threshold either branch is right, and they differ by
    log1p(exp(-threshold)) / beta. Above a threshold of 20 they agree to float32. The slope is sigmoid(beta·z), which
    grows with beta·z, and 1 above the threshold.
    """
    beta, threshold = number(node, "beta"), number(node, "threshold")
    if beta == 0:
        return torch.full_like(y, torch.inf)
    a, r, m = CONSTANTS["softplus"].limits
    p = radius_of(e[0], z[0])
    spread = reach(z[0], e[0])
    near = (beta * z[0] - threshold).abs() <= abs(beta) * p + 4 * U * abs(threshold)
    jump = float(np.logaddexp(0.0, -threshold)) / abs(beta)
    flushed = _FLUSHED * (1 + 1 / abs(beta))
    highest = beta * z[0] + abs(beta) * p
    carried = p * torch.where(near | (highest >= threshold), 1.0, highest.sigmoid())
    radius = carried + U * (a / abs(beta) + r * (size(y) + p) + m * spread) + torch.where(near, jump, 0.0) + flushed
    return exempt_where((beta * spread).abs() > LARGEST, radius)


def _sqrt(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """γ_2·(|y| + p): PyTorch's vectorised root is a step of Newton's, 1.5 u off; a denormal may count as 0.

    The root is monotone: p by the ends, and infinite where the interval has negative numbers, whose root is NaN.
    """
    p = by_ends(node, z[0], e[0], y)
    flushed = torch.where(z[0].abs() - radius_of(e[0], z[0]) < ETA, ETA**0.5, 0.0)
    return p + gamma(2) * (size(y) + p) + flushed


def _rsqrt(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """γ_5·(|y| + p): a root (γ_2) and a quotient, or one instruction.

    The instruction is within 2 ulp of the rounded result (CUDA's guide, the table of maximum errors): 2.5 ulp, 5 u.
    p by the ends; exempt where the interval touches zero, or a denormal may count as 0.
    """
    p = by_ends(node, z[0], e[0], y)
    radius = p + gamma(CONSTANTS["rsqrt"].limits[1]) * (size(y) + p) + _FLUSHED
    bad = denormal(z[0]) if e[0] is None else z[0] - e[0] < ETA
    return exempt_where(bad, radius)


def _reciprocal(_node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """One rounding, u·(|y| + p), and perhaps flushed. |1/(z + d) - 1/z| = |d| / (|z|·|z + d|): p = e·|y| / (|z| - e).

    Exempt where the interval touches zero, or a denormal may count as 0.
    """
    x, error = size(z[0]), radius_of(e[0], z[0])
    p = torch.where(error > 0, error * size(y) / (x - error), 0.0)
    bad = denormal(z[0]) if e[0] is None else x - error < ETA
    return exempt_where(bad, p + U * (size(y) + p) + ETA)


def _log(_node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """u·(a + r·(|y| + p)): near 1 the error is held absolutely.

    p = -log(1 - e/z) by the lower end, which is further; exempt where the interval touches zero, or a denormal may
    count as 0.
    """
    error = radius_of(e[0], z[0])
    p = torch.where(error > 0, -torch.log1p(-error / z[0]), 0.0)
    a, r, _ = CONSTANTS["log"].limits
    bad = denormal(z[0]) if e[0] is None else z[0] - error < ETA
    return exempt_where(bad, p + U * (a + r * (size(y) + p)))


RULES: dict[str, Rule] = {
    **{name: smooth(name) for name in ("sigmoid", "tanh", "hardsigmoid", "log_sigmoid", "exp", "atan", "asinh", "erf")},
    "silu": smooth("silu", 1.1),  # at most 1.0999, near 2.4
    "mish": smooth("mish", 1.09),
    "sin": smooth("sin", 1.0),
    "cos": smooth("cos", 1.0),
    "gelu": _gelu,
    "elu": _elu,
    "celu": _elu,
    "selu": _selu,
    "softplus": _softplus,
    # x·(x + 3)/6 between -3 and 3, where its slope (2x + 3)/6 is at most 1.5. As x·hardsigmoid(x) the factor is off by
    # 2u + u·|y/x|, the product by u·|y|: m = 3, r = 2; as x·clip(x + 3)/6 three roundings: r = 3, and 6x overflows.
    "hardswish": smooth("hardswish", 1.5, inner=6),
    "leaky_relu": _leaky_relu,
    "_prelu_kernel": _prelu,
    # exp(z) - 1: the exponential to a·u of itself, which is at most 1 + |y|, and the difference, one rounding.
    # Monotone: p by the ends. A kernel of its own is relative to y and better.
    "expm1": smooth("expm1"),
    "log": _log,
    # log(1 + z): the sum to u of itself moves the logarithm by u/(1 - u), wherever; then the logarithm's own error.
    # Monotone: p by the ends, infinite where the interval reaches -1. A kernel of its own is relative to y and better.
    "log1p": smooth("log1p", inner=1),
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "reciprocal": _reciprocal,
    **dict.fromkeys(("relu", "clamp", "neg", "abs"), _unrounded),
    **dict.fromkeys(("floor", "ceil", "round", "sign"), _stepped),
}
