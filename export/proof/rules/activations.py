"""The bounds of activations."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np
import torch
from torch import Tensor

from export.evaluation import number
from export.graph import Node

from .common import Radius, Rule, exempt_where, operands, radius_of, reach, size
from .constants import CONSTANTS, ETA, LARGEST, U
from .functions import FLUSHED, Function, at, by_ends, enclosure_of, smooth
from .spans import OUTWARDS, Enclosure, Ends, Span, extremes, outwards, radii


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
    return p + U * (torch.where(low > 0, 0.0, a) + r * (size(y) + p)) + FLUSHED


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
    p = radius_of(e[0], z[0])
    near = (beta * z[0] - threshold).abs() <= abs(beta) * p + 4 * U * abs(threshold)
    return _softplus_error(node, p, reach(z[0], e[0]), y, beta * z[0] + abs(beta) * p, near)


def _softplus_error(node: Node, p: Tensor, spread: Tensor, y: Tensor, highest: Tensor, near: Tensor) -> Tensor:
    """The bound of ``_softplus`` for |z| + e up to ``spread`` and beta·(z ± e) up to ``highest``."""
    beta, threshold = number(node, "beta"), number(node, "threshold")
    a, r, m = CONSTANTS["softplus"].limits
    jump = float(np.logaddexp(0.0, -threshold)) / abs(beta)
    flushed = FLUSHED * (1 + 1 / abs(beta))
    carried = p * torch.where(near | (highest >= threshold), 1.0, highest.sigmoid())
    radius = carried + U * (a / abs(beta) + r * (size(y) + p) + m * spread) + torch.where(near, jump, 0.0) + flushed
    return exempt_where((beta * spread).abs() > LARGEST, radius)


RULES: dict[str, Rule] = {
    **{name: smooth(name) for name in ("sigmoid", "tanh", "hardsigmoid", "log_sigmoid")},
    "silu": smooth("silu", 1.1),  # at most 1.0999, near 2.4
    "mish": smooth("mish", 1.09),
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
}


def _gelu_steepest(node: Node) -> tuple[float, ...]:
    steepest = sqrt(2) if node.attributes["approximate"] == "none" else 1.4185040087908284
    return -steepest, steepest


def _gelu_lowest(node: Node) -> tuple[float, ...]:
    return (-0.7517915247 if node.attributes["approximate"] == "none" else -0.7524614220,)


def _threshold(node: Node) -> tuple[float, ...]:
    """Both sides of the threshold of a softplus, where it falls by log1p(exp(-threshold)) / beta."""
    place = _place_of_threshold(node)
    return place - 2.0**-50 * abs(place), place + 2.0**-50 * abs(place)


def _place_of_threshold(node: Node) -> float:
    beta = number(node, "beta")
    return number(node, "threshold") / beta if beta else 0.0


def _lost_at_threshold(node: Node, _largest: Tensor) -> float:
    """What is between the two sides; a result that may be small has it absolutely."""
    return 2.0**-48 * abs(_place_of_threshold(node)) if number(node, "threshold") < 0 else 0.0


def _lost_by_exponential(node: Node, _largest: Tensor) -> float:
    return 2.0**-48 * (1 + abs(number(node, "alpha")))


FUNCTIONS: dict[str, Function] = {
    "log_sigmoid": Function(at()),
    "softplus": Function(at(), _threshold, least=0.0, lost=_lost_at_threshold),
    # A negative slope makes these fall and rise again.
    **dict.fromkeys(("leaky_relu", "_prelu_kernel"), Function(at(0.0), at(0.0))),
    **dict.fromkeys(("elu", "celu"), Function(at(0.0), at(0.0), lost=_lost_by_exponential)),
    "selu": Function(at(0.0), lost=lambda _node, _largest: 2.0**-46),
    "sigmoid": Function(at(0.0), least=0.0),
    "tanh": Function(at(0.0)),
    "hardsigmoid": Function(at(-3.0, 3.0), least=0.0),
    "hardswish": Function(at(-3.0, 3.0), at(-1.5)),
    "gelu": Function(_gelu_steepest, _gelu_lowest, lost=lambda _node, largest: 2.0**-48 * largest),
    "silu": Function(at(-2.3993572805154677, 2.3993572805154677), at(-1.2784645428)),
    "mish": Function(at(-2.2563763963607931, 1.4905711794854594), at(-1.1924312160)),
}
"""Where the derivative of each function jumps or turns, and where the function itself does.

The breaks of gelu, silu and mish are the zeros of their second derivatives, the turns those of the first.
"""


def _prelu_values(node: Node, spans: Sequence[Span]) -> Ends:
    """Constant slopes make it a function of one value; else max(x, 0) + w·min(x, 0), each part by itself."""
    if len(spans) == 1:
        return enclosure_of(FUNCTIONS["_prelu_kernel"]).values(node, spans)
    x, weight = spans
    below = [end.clamp(max=0) * w for end in (x.low, x.high) for w in (weight.low, weight.high)]
    return outwards(
        x.low.clamp(min=0) + torch.stack(below).amin(dim=0), x.high.clamp(min=0) + torch.stack(below).amax(dim=0)
    )


def _prelu_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The rule where the argument may be negative, and it rounds."""
    x = spans[0]
    below = _prelu(node, [-x.largest, *(span.largest for span in spans[1:])], radii(spans), y.largest)
    return torch.where(x.low - x.error > 0, x.error, below)


def _softplus_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The bound at the largest z, and with the jump at the threshold where the span is near it."""
    (x,) = spans
    beta, threshold = number(node, "beta"), number(node, "threshold")
    if beta == 0:
        return torch.full_like(y.low, inf)
    low, high = extremes([beta * x.low, beta * x.high])
    apart = torch.maximum(low - threshold, threshold - high)
    near = apart <= abs(beta) * x.error + 4 * U * abs(threshold) + OUTWARDS * (abs(threshold) + abs(beta) * x.largest)
    return _softplus_error(node, x.error, x.largest + x.error, y.largest, high + abs(beta) * x.error, near)


ENCLOSURES: dict[str, Enclosure] = {
    **{op: enclosure_of(function) for op, function in FUNCTIONS.items()},
    "_prelu_kernel": Enclosure(_prelu_values, _prelu_radius),
    "softplus": Enclosure(enclosure_of(FUNCTIONS["softplus"]).values, _softplus_radius),
}
