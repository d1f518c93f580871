"""The bounds of powers."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from export.graph import Node

from .common import Radius, Rule, denormal, exact_on_integers, exempt_where, operands, size, zero_radius
from .constants import CONSTANTS, ETA, U
from .spans import Enclosure, Ends, Span, arguments, extremes, outwards


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
    lost = denormal(x.value) | ((c.value < 0) & (size(y) + p > 1 / ETA))
    return exempt_where(lost & y.isfinite(), _power_error(size(y), p))


def _power_error(y: Tensor, p: Tensor) -> Tensor:
    """P + r·u·(|y| + p) + 2·2^-126."""
    return p + U * CONSTANTS["pow"].limits[1] * (y + p) + 2 * ETA


RULES: dict[str, Rule] = {"pow": exact_on_integers(_power)}


def _whole(c: Span) -> Tensor:
    """Where the exponent is one whole number."""
    return (c.low == c.high) & (c.low == c.low.round())


def _power_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The powers of the ends: for a whole exponent also of 0, or of what is nearest to it.

    For others the corners, where no base is negative, since x^c is monotone in each then. Else, and for 0 to a power
    that may not be positive, there is no bound.
    """
    x, c = arguments(node, spans, "self", "exponent")
    zero = torch.zeros_like(x.low).clamp(x.low, x.high)
    whole = outwards(*extremes([x.low**c.low, x.high**c.low, zero**c.low]))
    corners = outwards(*extremes([base**power for base in (x.low, x.high) for power in (c.low, c.high)]))
    is_whole = _whole(c)
    known = torch.where(is_whole, (c.low >= 0) | (x.smallest > 0), (x.low > 0) | ((x.low == 0) & (c.low > 0)))
    low, high = (torch.where(is_whole, *ends) for ends in zip(whole, corners, strict=True))
    return torch.where(known, low, -inf), torch.where(known, high, inf)


def _power_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The rule with the largest p that it may have within the spans.

    (|x| + e)^n - |x|^n grows with |x|. Else, for positive bases, by the mean value theorem on the way to any corner:
    e·|c|·x^(c-1) + e₂·x^c·|log x|, each at its largest over the widened spans, whose corners have the largest powers.
    For exponents from 1 on, what flushing a denormal base loses is within the flushing of the result.
    """
    x, c = arguments(node, spans, "self", "exponent")
    size_of = x.largest
    bases = x.low - x.error, x.high + x.error
    powers = c.low - c.error, c.high + c.error
    steepest = extremes([base ** (power - 1) for base in bases for power in powers])[1]
    highest = extremes([base**power for base in bases for power in powers])[1]
    logarithm = extremes([base.log().abs() for base in bases])[1]
    p = x.error * (c.largest + c.error) * steepest + torch.where(c.error > 0, c.error * highest * logarithm, 0.0)
    p = exempt_where(bases[0] <= 0, p)
    counted = _whole(c) & (c.low >= 1) & (c.error == 0)
    p = torch.where(counted, (size_of + x.error) ** c.low - size_of**c.low, p)
    p = torch.where((x.error == 0) & (c.error == 0), 0.0, p)
    if node.dtype != "float32" and x.is_exact and c.is_exact:
        return torch.zeros_like(y.low)
    denormals = (x.smallest < ETA) & (x.largest > 0) & (c.low < 1)
    return exempt_where(denormals | ((c.low < 0) & (y.largest + p > 1 / ETA)), _power_error(y.largest, p))


ENCLOSURES: dict[str, Enclosure] = {"pow": Enclosure(_power_values, _power_radius)}
