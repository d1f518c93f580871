"""Bounds over a box by splitting it: over smaller boxes lines are nearer to functions, and slopes vary less."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import perf_counter

import torch
from torch import Tensor

from export.proof.rules.spans import Span

from .boxes import spans_of
from .enclosing import Enclosed, Network, NoBoundError, enclose
from .errors import OutputErrors, output_errors, outputs_of
from .substitution import tightening

_TOGETHER = 64
"""Boxes that are looked at together, at most."""
_ELEMENTS = 2**23
"""About, of the forms of one layer for all of them."""
_FIRST_LOOK, _GAIN = 64, 0.99
"""From so many boxes on it goes on only while twice as many make the largest bound smaller than this share of it."""


@dataclass
class Parts:
    """Boxes that cover the whole, with the bounds of the outputs over each.

    ``low``, ``high`` and ``unevenness`` are (boxes, features), ``bound``, ``lowest`` and ``highest`` (boxes, values).
    """

    low: Tensor
    high: Tensor
    bound: Tensor
    lowest: Tensor
    highest: Tensor
    unevenness: Tensor

    def largest(self) -> Tensor:
        """The bound of each value over the whole."""
        return self.bound.amax(dim=0)

    @classmethod
    def of(cls, low: Tensor, high: Tensor, enclosed: Enclosed, errors: OutputErrors) -> Parts:
        """Boxes that were looked at."""
        spans = [enclosed.spans[name] for name in outputs_of(enclosed.network)]
        lowest, highest = (
            torch.cat([getattr(span, end).reshape(len(low), -1) for span in spans], dim=1) for end in ("low", "high")
        )
        return cls(low, high, errors.bound, lowest, highest, errors.unevenness)


def flat(spans: Mapping[str, Span]) -> tuple[Tensor, Tensor]:
    """The ends of the inputs side by side: (boxes, features)."""
    parts = [(span.low.reshape(len(span.low), -1), span.high.reshape(len(span.high), -1)) for span in spans.values()]
    return torch.cat([low for low, _ in parts], dim=1), torch.cat([high for _, high in parts], dim=1)


def looked_at(network: Network, low: Tensor, high: Tensor, work: float) -> Parts:
    """The bounds over these boxes. Raises NoBoundError."""
    shapes = {name: given.row for name, given in network.structure.wiring.inputs.items()}
    enclosed = enclose(network, spans_of(low, high, shapes), tightening(work))
    return Parts.of(low, high, enclosed, output_errors(enclosed))


def split(
    network: Network, parts: Parts, work: float, deadline: float, clock: Callable[[], float] = perf_counter
) -> Parts:
    """The parts with those split that decide a bound, until ``deadline`` (of ``clock``), or while it helps.

    ``work`` is the number of products that tightening may take for one box.
    """
    matrices = [transfer.weight for transfer in network.transfers if transfer.kind == "matrix"]
    width, weights = max((max(each.shape) for each in matrices), default=1), sum(each.size for each in matrices)
    one = min(work, 2.0 * width * weights * len(matrices)) + 5.0 * parts.bound.shape[1] * weights
    together = max(2, min(_TOGETHER, _ELEMENTS // (2 * width**2), int(2 * work / max(one, 1))))
    next_look, before = max(2 * len(parts.low), _FIRST_LOOK), parts.largest()
    while clock() < deadline:
        start = clock()
        deciding = (parts.bound / parts.largest().clamp(min=1e-300)).amax(dim=1)
        splittable = parts.unevenness.amax(dim=1) > 0
        order = torch.where(splittable, deciding, -1.0).argsort(descending=True)
        chosen = order[: max(1, together // 2)]
        chosen = chosen[splittable[chosen] & (deciding[chosen] > 0.5)]
        if not len(chosen) or not bool((deciding[chosen] >= 1).any()):
            break
        parts = _with_halves(network, parts, chosen, work)
        if len(parts.low) >= next_look:
            now = parts.largest()
            if float(now.max()) > _GAIN * float(before.max()):
                break
            next_look, before = 2 * len(parts.low), now
        if clock() + 1.2 * (clock() - start) > deadline:
            break
    return parts


def _with_halves(network: Network, parts: Parts, chosen: Tensor, work: float) -> Parts:
    """The parts with each chosen one in two halves; a part whose halves have no bound stays whole, for good."""
    low, high = parts.low[chosen], parts.high[chosen]
    feature = parts.unevenness[chosen].argmax(dim=1)
    places = torch.arange(len(chosen))
    middle = (low[places, feature] + high[places, feature]) / 2
    first, second = high.clone(), low.clone()
    first[places, feature] = second[places, feature] = middle
    try:
        halves = looked_at(network, torch.cat([low, second]), torch.cat([first, high]), work)
    except NoBoundError:
        uneven = parts.unevenness.clone()
        uneven[chosen] = 0.0
        return Parts(parts.low, parts.high, parts.bound, parts.lowest, parts.highest, uneven)
    kept = torch.ones(len(parts.low), dtype=torch.bool)
    kept[chosen] = False

    def joined(name: str, better: Callable[[Tensor, Tensor], Tensor] | None = None) -> Tensor:
        old, new = getattr(parts, name), getattr(halves, name)
        if better is not None:  # what holds for the whole holds for its halves
            new = better(new, old[chosen].repeat(2, 1))
        return torch.cat([old[kept], new])

    return Parts(
        joined("low"),
        joined("high"),
        joined("bound", torch.minimum),
        joined("lowest", torch.maximum),
        joined("highest", torch.minimum),
        joined("unevenness"),
    )
