"""What a call of a model takes, measured when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter

_TRIES = 5
_MANY = 64


def measured(run: Callable[[int], object], *, divisible: bool) -> Callable[[int], float]:
    """Seconds of a call of so many rows: of a row and of 64, and a straight line between and beyond.

    ``run`` makes a call of so many rows. A model that takes only its own batch is measured with a row's worth of that.
    """
    one = _seconds(run, 1)
    many = _seconds(run, _MANY) if divisible else one * _MANY
    slope = max(0.0, (many - one) / (_MANY - 1))
    return lambda rows: one + slope * rows


def _seconds(run: Callable[[int], object], rows: int) -> float:
    times = []
    for _ in range(_TRIES + 1):
        start = perf_counter()
        run(rows)
        times.append(perf_counter() - start)
        if sum(times) > 1:
            break
    return median(times[1:] or times)
