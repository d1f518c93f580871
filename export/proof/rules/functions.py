"""Functions of one value: what their bounds and enclosures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from export.evaluation import evaluate
from export.graph import Node

from .common import Radius, Rule, exempt_where, radius_of, reach, size, zero_radius
from .constants import CONSTANTS, ETA, LARGEST, U
from .spans import Enclosure, Ends, Span, outwards

FLUSHED = 4 * ETA
"""For a function with a slope of at most 2: its result may be flushed to zero, and so may its argument."""
Places = Callable[[Node], tuple[float, ...]]


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
        radius = p + U * (a + r * (size(y) + p) + m * reach(z[0], e[0])) + FLUSHED
        return exempt_where(inner * reach(z[0], e[0]) > LARGEST, radius) if inner else radius

    return rule


def at(*places: float) -> Places:
    """The same places for every node."""
    return lambda _node: places


_NOWHERE = at()


@dataclass(frozen=True)
class Function:
    """A function of one value, between whose ``turns`` it is monotone, and between whose ``breaks`` its derivative is.

    It is defined above ``above``, and gives nothing below ``least``. ``lost`` (of the node and the largest argument) is
    what PyTorch's float64 function loses besides a few ulp of its result.
    """

    breaks: Places
    turns: Places = _NOWHERE
    above: float = -inf
    least: float = -inf
    lost: Callable[[Node, Tensor], Tensor | float] = lambda _node, _largest: 0.0


def enclosure_of(function: Function) -> Enclosure:
    """The ends of the interval, and the turns within it."""

    def values(node: Node, spans: Sequence[Span]) -> Ends:
        (x,) = spans
        points = [x.low, x.high, *(torch.full_like(x.low, turn).clamp(x.low, x.high) for turn in function.turns(node))]
        found = torch.stack([evaluate(node, [point], precision=torch.float64) for point in points])
        low, high = outwards(found.amin(dim=0), found.amax(dim=0), function.lost(node, x.largest))
        defined = x.low >= function.above
        return torch.where(defined, low.clamp(min=function.least), -inf), torch.where(defined, high, inf)

    return Enclosure(values)
