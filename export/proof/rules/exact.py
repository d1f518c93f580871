"""The bounds of operators without rounding: comparisons, logic, selection and casts."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import torch
from torch import Tensor

from export.graph import Node

from .common import NEAREST, Operand, Radius, Rule, all_exact, operands, radius_of, size, widened, zero_radius
from .constants import U
from .spans import OUTWARDS, Enclosure, Ends, Span, arguments, radii


def _compared(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the two intervals touch, so that either result is possible; else 0."""
    if all_exact(e):
        return zero_radius(y)
    a, b = operands(node, z, e, "self", "other")
    return zero_radius(y) + _touching((a.value - b.value).abs(), a.radius + b.radius, a.size + b.size)


def _touching(apart: Tensor, radius: Tensor, sizes: Tensor) -> Tensor:
    """1 where intervals of that radius in all touch."""
    return torch.where((apart <= radius + NEAREST * (radius + sizes)) & (radius > 0), 1.0, 0.0)


def _open(x: Operand) -> Tensor:
    """Where a value may be zero or nonzero."""
    return (x.radius > 0) & (x.size <= x.radius)


def _both(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """and, or: 1 where an operand may be either and the other does not decide alone (false for and, true for or)."""
    if all_exact(e):
        return zero_radius(y)
    if node.dtype != "bool":
        return torch.full(y.shape, torch.inf, dtype=torch.float64)
    sides = operands(node, z, e, "self", "other")
    decisive = [~_open(x) & ((x.value == 0) if node.op.endswith("and") else (x.value != 0)) for x in sides]
    return zero_radius(y) + _undecided([_open(x) for x in sides], decisive)


def _undecided(opens: Sequence[Tensor], decisive: Sequence[Tensor]) -> Tensor:
    """1 where either operand is open, and neither decides."""
    return ((opens[0] | opens[1]) & ~decisive[0] & ~decisive[1]).double()


def _not(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the value may be either."""
    (x,) = operands(node, z, e, "self")
    return zero_radius(y) if all_exact(e) else _open(x).double()


def _isnan(_node: Node, _z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """1 where the value has no bound; a value within a finite radius of a number is a number."""
    return zero_radius(y) if e[0] is None else (~e[0].isfinite()).double()


def _where(node: Node, z: Sequence[Tensor], e: Sequence[Radius], y: Tensor) -> Tensor:
    """The radius of the chosen value; where either may be chosen, the larger radius and their distance."""
    condition, first, second = operands(node, z, e, "condition", "self", "other")
    chosen = torch.where(condition.value != 0, first.radius, second.radius)
    if condition.e is None:
        return zero_radius(y) + chosen
    either = torch.maximum(first.radius, second.radius) + (first.value - second.value).abs()
    either = torch.where(either.isnan(), torch.inf, either)
    return zero_radius(y) + torch.where(condition.e > 0, either, chosen)


def _cast(node: Node, z: Sequence[Tensor], e: Sequence[Radius], _y: Tensor) -> Tensor:
    """To integers: truncation is monotone, so the ends of the interval; no bound beyond the type's range or for NaN.

    To bool: 1 where the value may be zero or nonzero. To float32: integers beyond 2^24 are rounded.
    """
    x, radius = z[0].double(), radius_of(e[0], z[0])
    if node.dtype == "bool":
        return ((radius > 0) & (size(x) <= radius)).double()
    if node.dtype == "int64":
        wider = widened(x, radius)
        ends = torch.maximum((x + wider).trunc() - x.trunc(), x.trunc() - (x - wider).trunc())
        return torch.where(x.abs() + radius < _beyond(node), ends, torch.inf)
    beyond = (size(x) + radius > 2.0**24) & (not z[0].is_floating_point())
    return radius + torch.where(beyond, U * (size(x) + radius), 0.0)


def _beyond(node: Node) -> float:
    """The first whole number that the type of a cast does not have."""
    return 2.0**31 if node.attributes["dtype"] == torch.int32 else 2.0**63


RULES: dict[str, Rule] = {
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne"), _compared),
    **dict.fromkeys(("logical_and", "logical_or", "bitwise_and", "bitwise_or"), _both),
    **dict.fromkeys(("logical_not", "bitwise_not"), _not),
    "isnan": _isnan,
    "where": _where,
    "_to_copy": _cast,
}


def _compared_values(node: Node, spans: Sequence[Span]) -> Ends:
    """0 where the intervals decide against it, 1 where they decide for it, else both."""
    a, b = arguments(node, spans, "self", "other")
    if node.op in ("lt", "le"):
        a, b = b, a
    if node.op in ("gt", "lt"):
        always, sometimes = a.low > b.high, a.high > b.low
    elif node.op in ("ge", "le"):
        always, sometimes = a.low >= b.high, a.high >= b.low
    else:
        always, sometimes = (a.low == b.high) & (a.high == b.low), (a.low <= b.high) & (b.low <= a.high)
        if node.op == "ne":
            always, sometimes = ~sometimes, ~always
    return always.double(), sometimes.double()


def _compared_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """1 where the intervals come as near to each other as the rule asks."""
    a, b = arguments(node, spans, "self", "other")
    if a.is_exact and b.is_exact:
        return zero_radius(y.low)
    apart = torch.maximum(a.low - b.high, b.low - a.high).clamp(min=0)
    return _touching(apart, a.error + b.error, a.largest + b.largest)


def _both_values(node: Node, spans: Sequence[Span]) -> Ends:
    """Both grow with each operand's truth; of whole numbers, bit by bit, nothing is said."""
    a, b = arguments(node, spans, "self", "other")
    if node.dtype != "bool":
        unknown = torch.full_like(a.low + b.low, inf)
        return -unknown, unknown
    choose = torch.minimum if node.op.endswith("and") else torch.maximum
    return choose(_always(a), _always(b)), choose(_sometimes(a), _sometimes(b))


def _always(x: Span) -> Tensor:
    """1 where no value is zero."""
    return (x.smallest > 0).double()


def _sometimes(x: Span) -> Tensor:
    """1 where some value is not zero."""
    return (x.largest > 0).double()


def _both_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """1 where some value of an operand may be either, and the other's do not all decide."""
    if all(span.is_exact for span in spans):
        return zero_radius(y.low)
    if node.dtype != "bool":
        return torch.full_like(y.low, inf)
    sides = arguments(node, spans, "self", "other")
    decisive = [(x.smallest > x.error) if node.op.endswith("or") else (x.largest + x.error <= 0) for x in sides]
    return _undecided([_opens(x) for x in sides], decisive)


def _opens(x: Span) -> Tensor:
    """Where some value may be zero or nonzero."""
    return (x.error > 0) & (x.smallest <= x.error)


def _not_values(node: Node, spans: Sequence[Span]) -> Ends:
    (x,) = spans
    return (1 - _sometimes(x), 1 - _always(x)) if node.dtype == "bool" else (-1 - x.high, -1 - x.low)


def _not_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """1 where some value may be either; an inexact whole number has no bound."""
    (x,) = spans
    if node.dtype != "bool" and not x.is_exact:
        return torch.full_like(y.low, inf)
    return _opens(x).double()


def _isnan_values(_node: Node, spans: Sequence[Span]) -> Ends:
    """0, as far as the values are known to be numbers."""
    (x,) = spans
    return torch.zeros_like(x.low), (~(x.low.isfinite() & x.high.isfinite())).double()


def _isnan_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The rule, which does not depend on the value."""
    return _isnan(node, [], radii(spans), y.low)


def _where_values(node: Node, spans: Sequence[Span]) -> Ends:
    """The branch that the condition always chooses, else both."""
    condition, first, second = arguments(node, spans, "condition", "self", "other")
    low, high = torch.minimum(first.low, second.low), torch.maximum(first.high, second.high)
    for chosen, x in ((condition.smallest > 0, first), (condition.largest == 0, second)):
        low, high = torch.where(chosen, x.low, low), torch.where(chosen, x.high, high)
    return low, high


def _where_radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
    """The larger radius of the branches that may be chosen; the rule's for either, at their largest distance."""
    condition, first, second = arguments(node, spans, "condition", "self", "other")
    larger = torch.maximum(first.error, second.error)
    chosen = torch.where(condition.smallest > 0, first.error, torch.where(condition.largest == 0, second.error, larger))
    apart = torch.maximum(first.high - second.low, second.high - first.low)
    return zero_radius(y.low) + torch.where(condition.error > 0, larger + apart, chosen)


def _cast_values(node: Node, spans: Sequence[Span]) -> Ends:
    """Truncation is monotone; nothing is said beyond the type's range."""
    (x,) = spans
    if node.dtype == "bool":
        return _always(x), _sometimes(x)
    if node.dtype != "int64":
        return x.low, x.high
    known = x.largest < _beyond(node)
    return torch.where(known, x.low.trunc(), -inf), torch.where(known, x.high.trunc(), inf)


def _cast_radius(node: Node, spans: Sequence[Span], _y: Span) -> Tensor:
    """Truncation: no more than all steps within the widened span; and an error of e crosses at most e + 1 of them.

    To bool: 1 where some value may be either. To float32: that of the span, with the rounding of large whole numbers.
    """
    (x,) = spans
    if node.dtype == "bool":
        return _opens(x).double()
    if node.dtype != "int64":
        return x.error
    wide = widened(x.largest, x.error)
    crossed = torch.minimum((x.high + wide).trunc() - (x.low - wide).trunc(), (wide + OUTWARDS * x.largest + 1).ceil())
    return torch.where(x.largest + x.error < _beyond(node), torch.where(x.error > 0, crossed, 0.0), inf)


ENCLOSURES: dict[str, Enclosure] = {
    **dict.fromkeys(("gt", "lt", "ge", "le", "eq", "ne"), Enclosure(_compared_values, _compared_radius)),
    **dict.fromkeys(("logical_and", "logical_or", "bitwise_and", "bitwise_or"), Enclosure(_both_values, _both_radius)),
    **dict.fromkeys(("logical_not", "bitwise_not"), Enclosure(_not_values, _not_radius)),
    "isnan": Enclosure(_isnan_values, _isnan_radius),
    "where": Enclosure(_where_values, _where_radius),
    "_to_copy": Enclosure(_cast_values, _cast_radius),
}
