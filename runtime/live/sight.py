"""What a server that passes could still have wrong: how rare a fault, and how small an error of weights.

Of what an error of a weight moves an answer by, at most (1 + share) times its bound is left unseen: the difference from
the exact answer that was found, ``share`` of the bound at most, and the rounding that may hide the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log1p

from runtime.errors import InputError
from runtime.model.certificate import Seen

CONFIDENCE = 0.95
"""Of the rate of faults that is stated where none was asked for."""
MAX_REQUESTS = 1_000_000


@dataclass(frozen=True)
class WeightsInSight:
    """The smallest errors of weights that would have been found, to first order; None where none would.

    ``median`` and ``worst`` are of a single weight: half of the weights of every layer show an error of ``median``,
    relative to themselves, and each one that shows at all an absolute one of ``worst``. ``together`` is a relative
    error that all weights have in common.
    """

    weights: int
    unseen: int
    """Weights that show in no answer."""
    together: float | None
    median: float | None
    worst: float | None


@dataclass(frozen=True)
class Sight:
    """What a pass shows. A fault in a share ``rate`` of requests, at random, is seen with this ``confidence``."""

    requests: int
    confidence: float
    rate: float
    weights: WeightsInSight | None
    """None if the certificate does not record it."""


def requests_for(confidence: float | None, rate: float | None) -> tuple[float, int]:
    """The confidence, and how many requests see a fault in a share ``rate`` of them with it: ln(1 - C) / ln(1 - F).

    0 without a rate. Raises InputError: numbers outside 0 to 1, a confidence alone, or too many requests.
    """
    if rate is None:
        if confidence is not None:
            hint = "give the share of requests with faults too, such as rate 0.001"
            raise InputError(f"a confidence needs a rate. What to do: {hint}")
        return CONFIDENCE, 0
    confidence = CONFIDENCE if confidence is None else confidence
    for name, value in (("confidence", confidence), ("rate", rate)):
        if not 0 < value < 1:
            raise InputError(f"{name}: expected a number between 0 and 1, such as 0.99, got {value:g}")
    requests = log1p(-confidence) / log1p(-rate)
    if not requests <= MAX_REQUESTS:
        hint = "give a larger rate or a smaller confidence"
        raise InputError(
            f"that takes {requests:,.0f} requests, and at most {MAX_REQUESTS:,} are sent. What to do: {hint}"
        )
    return confidence, ceil(requests)


def sight_of(seen: Seen | None, requests: int, share: float, confidence: float) -> Sight:
    """What a pass of so many requests shows, whose answers were off by ``share`` of their bounds at most."""
    rate = -((1 - confidence) ** (1 / requests)) + 1
    return Sight(requests, confidence, rate, None if seen is None else _weights(seen, 1 + share))


def _weights(seen: Seen, factor: float) -> WeightsInSight:
    medians = [layer.relative_median for layer in seen.layers if layer.relative_median is not None]
    worst = [layer.absolute_worst for layer in seen.layers if layer.absolute_worst is not None]
    return WeightsInSight(
        weights=sum(layer.weights for layer in seen.layers),
        unseen=sum(layer.unseen for layer in seen.layers),
        together=None if seen.together is None else factor * seen.together,
        median=factor * max(medians) if medians else None,
        worst=factor * max(worst) if worst else None,
    )
