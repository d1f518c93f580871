"""The bounds of the other functions of one value."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, pi

import torch
from torch import Tensor

from export.evaluation import evaluate, number
from export.graph import Node

from .common import Radius, Rule, denormal, exempt_where, radius_of, size, widened, zero_radius
from .constants import CONSTANTS, ETA, U, gamma
from .functions import FLUSHED, Function, at, by_ends, enclosure_of, smooth
from .spans import OUTWARDS, Enclosure, Ends, Span, outwards


def _unrounded(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """neg, abs, relu and clamp only select or negate float32 numbers: no rounding, and at most e."""
    return zero_radius(y) + radius_of(e[0], z[0]) if node.op in ("neg", "abs") else by_ends(node, z[0], e[0], y)


def _stepped(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The ends of the interval, for floor, ceil, round and sign: they are monotone, and exact for small whole numbers.

    The interval is widened by what float64 loses at its ends, since they jump.
    """
    x = z[0].double()
    return by_ends(node, x, None if e[0] is None else widened(x, e[0]), y)


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
    radius = p + gamma(CONSTANTS["rsqrt"].limits[1]) * (size(y) + p) + FLUSHED
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
    **{name: smooth(name) for name in ("exp", "atan", "asinh", "erf")},
    **{name: smooth(name, 1.0) for name in ("sin", "cos")},
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


def _limits(node: Node) -> tuple[float, ...]:
    """The bounds of a clamp."""
    return tuple(number(node, role) for role in ("min", "max") if node.attributes.get(role) is not None)


FUNCTIONS: dict[str, Function] = {
    "relu": Function(at(0.0), least=0.0),
    "abs": Function(at(0.0), at(0.0), least=0.0),
    "clamp": Function(_limits),
    "exp": Function(at(), least=0.0),
    "expm1": Function(at()),
    **dict.fromkeys(("erf", "atan", "asinh"), Function(at(0.0))),
    "log": Function(at(), above=0.0, lost=lambda _node, _largest: 2.0**-50),
    "log1p": Function(at(), above=-1.0),
    **dict.fromkeys(("sqrt", "rsqrt"), Function(at(), above=0.0, least=0.0)),
}
"""Where the derivative of each function jumps or turns, and where the function itself does."""


def _stepped_values(node: Node, spans: Sequence[Span]) -> Ends:
    """Monotone and exact; wider by what the ends may have lost, since it jumps."""
    (x,) = spans
    beside = OUTWARDS * x.largest
    return evaluate(node, [x.low - beside]), evaluate(node, [x.high + beside])


def _stepped_radius(node: Node, spans: Sequence[Span], _y: Span) -> Tensor:
    """No more than all steps within the widened span; and an error of e crosses at most e + 1 of them."""
    (x,) = spans
    wide = widened(x.largest, x.error)
    crossed = evaluate(node, [x.high + wide]) - evaluate(node, [x.low - wide])
    most = torch.full_like(wide, 2.0) if node.op == "sign" else (wide + OUTWARDS * x.largest + 1).ceil()
    return torch.where(x.error > 0, torch.minimum(crossed, most), 0.0)


def _wave_values(node: Node, spans: Sequence[Span]) -> Ends:
    """Sine or cosine: the ends, and ±1 where a peak lies between them or as near as float64 can tell."""
    (x,) = spans
    shift = 0.0 if node.op == "sin" else pi / 2
    first, last = (end + shift for end in (x.low, x.high))
    near = OUTWARDS * (1 + x.largest)

    def holds(place: float) -> Tensor:
        turns = torch.floor((last + near - place) / (2 * pi)) - torch.ceil((first - near - place) / (2 * pi))
        return (turns >= 0) | (x.largest > 2.0**30)

    ends = torch.stack([evaluate(node, [end], precision=torch.float64) for end in (x.low, x.high)])
    low, high = outwards(ends.amin(dim=0), ends.amax(dim=0), near)
    return (
        torch.where(holds(-pi / 2), -1.0, low.clamp(min=-1.0)),
        torch.where(holds(pi / 2), 1.0, high.clamp(max=1.0)),
    )


def _wave_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    return RULES[node.op](node, [spans[0].largest], [spans[0].radius], y.largest)


def _reciprocal_values(_node: Node, spans: Sequence[Span]) -> Ends:
    (x,) = spans
    low, high = outwards(1 / x.high, 1 / x.low)
    defined = x.smallest > 0
    return torch.where(defined, low, -inf), torch.where(defined, high, inf)


def _reciprocal_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The rule nearest to zero, where it is steepest."""
    return _reciprocal(node, [spans[0].smallest], [spans[0].radius], y.largest)


def _neg_values(_node: Node, spans: Sequence[Span]) -> Ends:
    return -spans[0].high, -spans[0].low


ENCLOSURES: dict[str, Enclosure] = {
    **{op: enclosure_of(function) for op, function in FUNCTIONS.items()},
    "neg": Enclosure(_neg_values),
    **dict.fromkeys(("sin", "cos"), Enclosure(_wave_values, _wave_radius)),
    "reciprocal": Enclosure(_reciprocal_values, _reciprocal_radius),
    **dict.fromkeys(("floor", "ceil", "round", "sign"), Enclosure(_stepped_values, _stepped_radius)),
}
