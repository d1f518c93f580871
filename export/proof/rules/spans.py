"""What a rule's file says of an operator over a whole box of inputs, beside its rule for single values.

A ``Span`` encloses a value: every exact value over the box lies between ``low`` and ``high``, and a float32 runtime's
is within ``radius`` of it. An ``Enclosure`` makes the span of an operator's result from those of its inputs. Everything
is float64 and rounded outwards: where float64 rounds, an end is moved by more than it loses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, nan

import torch
from torch import Tensor

from export.graph import Node

from .common import Radius, Rule, operands, radius_of
from .constants import LARGEST

OUTWARDS = 2.0**-44
"""Relative: more than PyTorch's float64 functions lose, which are within a few ulp."""
SMALLEST = 2.0**-1000
"""Absolute: more than underflow loses."""


@dataclass(frozen=True)
class Span:
    """Values over a batch of boxes: tensors (boxes, ...), float64 for integers and truths too."""

    low: Tensor
    high: Tensor
    radius: Radius = None
    """None: the runtime has the exact values."""

    @property
    def middle(self) -> Tensor:
        """The centre of the interval."""
        return self.low + (self.high - self.low) / 2

    @property
    def half(self) -> Tensor:
        """How far the ends are from ``middle``, rounded up."""
        middle = self.middle
        return torch.maximum(self.high - middle, middle - self.low) * (1 + 2.0**-50)

    @property
    def error(self) -> Tensor:
        """The radius as a tensor."""
        return radius_of(self.radius, self.low)

    @property
    def largest(self) -> Tensor:
        """The largest absolute exact value."""
        return torch.maximum(self.low.abs(), self.high.abs())

    @property
    def smallest(self) -> Tensor:
        """The smallest absolute exact value: 0 where the interval holds it."""
        return torch.maximum(self.low, -self.high).clamp(min=0)

    @property
    def is_exact(self) -> bool:
        """Whether the runtime has the exact values, everywhere."""
        return self.radius is None or not bool((self.radius > 0).any())

    @property
    def widened(self) -> Span:
        """The runtime's values: the interval widened by the radius."""
        return self if self.radius is None else Span(self.low - self.radius, self.high + self.radius)


Ends = tuple[Tensor, Tensor]
"""The lowest and the highest values."""


@dataclass(frozen=True)
class Enclosure:
    """How an operator encloses its values, and how far a float32 runtime may be from them, over boxes.

    ``values`` gives the ends of the exact results; an infinite or NaN end says that there is no bound. ``radius`` gives
    the largest radius that the operator's rule has within the spans; it gets the span of the result as well. None for a
    function of one value, whose radius is that of its input times its slopes, and its own roundings.
    """

    values: Callable[[Node, Sequence[Span]], Ends]
    radius: Callable[[Node, Sequence[Span], Span], Tensor] | None = None


def outwards(low: Tensor, high: Tensor, lost: Tensor | float = 0.0) -> Ends:
    """The ends moved apart by what float64 functions lose, and by ``lost``."""
    return low - (OUTWARDS * low.abs() + SMALLEST + lost), high + (OUTWARDS * high.abs() + SMALLEST + lost)


def extremes(corners: Sequence[Tensor]) -> Ends:
    """The smallest and the largest of the values; NaN where any is."""
    stacked = torch.stack(list(corners))
    return stacked.amin(dim=0), stacked.amax(dim=0)


def lost_by(terms: int, largest: Tensor) -> Tensor:
    """More than float64 loses in a sum of so many products or numbers, whose absolute values have the sum ``largest``.

    That is γ_{terms + 1} for the sum, as much for the radius around it, and what ``largest`` itself lost.
    """
    return (terms + 8) * 2.0**-52 * largest + SMALLEST


def arguments(node: Node, spans: Sequence[Span], *roles: str) -> list[Span]:
    """The arguments of these names, in this order; a constant is a span of one value."""
    lows = operands(node, [span.low for span in spans], radii(spans), *roles)
    highs = operands(node, [span.high for span in spans], radii(spans), *roles)
    return [Span(low.value, high.value, low.e) for low, high in zip(lows, highs, strict=True)]


def radii(spans: Sequence[Span]) -> list[Radius]:
    """The radii, None where the runtime has the exact values."""
    return [None if span.is_exact else span.radius for span in spans]


def largest_of(spans: Sequence[Span]) -> list[Tensor]:
    """The largest absolute values; rules pass over infinity, so it is a number beyond float32 here."""
    return [span.largest.clamp(max=2.0**900) for span in spans]


def growing(rule: Rule) -> Callable[[Node, Sequence[Span], Span], Tensor]:
    """The largest radius of a rule that grows with the sizes of its arguments, of their radii and of its result."""

    def radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
        return rule(node, largest_of(spans), radii(spans), y.largest)

    return radius


def guarded(enclosure: Enclosure) -> Enclosure:
    """The enclosure with infinite ends, and an infinite radius, for whatever is no number or beyond the type.

    Between the ends of whole numbers are the nearest whole ones.
    """
    of_rule = enclosure.radius

    def values(node: Node, spans: Sequence[Span]) -> Ends:
        low, high = (end.double() for end in enclosure.values(node, spans))
        if node.dtype == "int64":
            low, high = low.ceil(), high.floor()
            low, high = torch.where(low >= -(2.0**63), low, nan), torch.where(high < 2.0**63, high, nan)
        return torch.where(low < inf, low, -inf), torch.where(high > -inf, high, inf)

    def radius(node: Node, spans: Sequence[Span], y: Span) -> Tensor:
        assert of_rule is not None
        found = of_rule(node, spans, y).double().expand(y.low.shape)
        return torch.where((found <= LARGEST) & y.low.isfinite() & y.high.isfinite(), found, inf)

    return Enclosure(values, None if of_rule is None else radius)
