"""The best of what was measured."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.session.settings import Settings

from .measuring import Measurement

NOISE = 0.03
"""Share of the latency by which two settings may differ and still count as equally fast."""
_LESS_CPU = 1.1
EXACT = "float32"
"""The kind of the file itself."""


def best(measured: Sequence[Measurement]) -> Measurement:
    """The measurement with the lowest median latency; among those that are as fast within the noise the one of the
    exact file, then of less processor time, then of fewer threads, then the rule's own settings.

    The noise is the larger of 3 % and the median deviation of the ratio of two settings from round to round.
    """
    fastest = min(measured, key=lambda one: one.latency)
    tied = [one for one in measured if _as_fast(one, fastest)]
    tied = [one for one in tied if one.candidate.kind == EXACT] or tied
    least = min(one.cpu for one in tied)
    tied = [one for one in tied if one.cpu <= _LESS_CPU * least]
    return min(tied, key=lambda one: (one.threads, one.candidate.settings != Settings(), one.latency))


def _as_fast(one: Measurement, fastest: Measurement) -> bool:
    ratios = np.array(one.rounds) / np.array(fastest.rounds)
    middle = float(np.median(ratios))
    spread = float(np.median(np.abs(ratios - middle)))
    return middle - 1 <= max(NOISE, spread)
