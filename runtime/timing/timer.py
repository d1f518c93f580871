"""What was measured, and how two measurements are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Block:
    """Calls that one contender made in a row."""

    seconds: np.ndarray
    """float64 (calls,): each from its start to its end; reading the clock takes some 0.05 µs of it."""
    cpu: float
    """Seconds of the processor per call, over all threads of the process."""

    @property
    def median(self) -> float:
        return float(np.median(self.seconds))


@dataclass(frozen=True)
class Ratio:
    """One contender's time over another's: the median of the rounds, with the quartiles."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Timings:
    """A contender's blocks, one per round."""

    blocks: tuple[Block, ...]

    @property
    def median(self) -> float:
        """Seconds of a call: the median of the rounds' medians."""
        return float(np.median([block.median for block in self.blocks]))

    @property
    def p99(self) -> float:
        """Seconds that 99 of 100 calls stay under, over all rounds."""
        return float(np.quantile(np.concatenate([block.seconds for block in self.blocks]), 0.99))

    @property
    def cpu(self) -> float:
        """Seconds of the processor per call: the median of the rounds."""
        return float(np.median([block.cpu for block in self.blocks]))


def paired(one: Timings, other: Timings, *, cpu: bool = False) -> Ratio:
    """``one`` over ``other``, round by round, so that what slows a whole round down does not count.

    Of the latencies, or with ``cpu`` of the processor's seconds per call.
    """
    values = [[block.cpu if cpu else block.median for block in timings.blocks] for timings in (one, other)]
    return quartiles([a / b for a, b in zip(*values, strict=True)])


def quartiles(values: Sequence[float]) -> Ratio:
    """The median of some values, between their quartiles."""
    low, middle, high = (float(v) for v in np.quantile(np.asarray(values, np.float64), [0.25, 0.5, 0.75]))
    return Ratio(middle, low, high)
