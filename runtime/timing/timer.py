"""How long calls take: blocks of calls, in interleaved rounds over several contenders, and how two are compared.

A runner times a block of one contender's calls: in this process or, by a request, in another one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time, sleep
from typing import Any, TypeVar

import numpy as np

from runtime.errors import InputError

Call = Callable[[], Any]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Block:
    """Calls that one contender made in a row."""

    seconds: np.ndarray
    """float64 (calls,): each from its start to its end; reading the clock takes some 0.05 µs of it."""
    cpu: float
    """Processor time per call in seconds, over all threads of the process; pauses between calls included."""

    @property
    def median(self) -> float:
        """Of the seconds per call."""
        return float(np.median(self.seconds))


@dataclass(frozen=True)
class Timings:
    """A contender's blocks, one per round. All times are in seconds per call."""

    blocks: tuple[Block, ...]

    @property
    def rounds(self) -> tuple[float, ...]:
        """The median of each round."""
        return tuple(block.median for block in self.blocks)

    @property
    def median(self) -> float:
        """The median of the rounds' medians."""
        return float(np.median(self.rounds))

    def quantile(self, share: float) -> float:
        """What this share of all calls stay under, over all rounds."""
        return float(np.quantile(np.concatenate([block.seconds for block in self.blocks]), share))

    @property
    def cpu(self) -> float:
        """Processor time: the median of the rounds."""
        return float(np.median([block.cpu for block in self.blocks]))

    @property
    def calls(self) -> int:
        """How many were timed."""
        return sum(len(block.seconds) for block in self.blocks)


@dataclass(frozen=True)
class Ratio:
    """One contender's time over another's: the median of the rounds, with the quartiles."""

    median: float
    low: float
    high: float


def paired(timings: Timings, baseline: Timings, *, cpu: bool = False) -> Ratio:
    """``timings`` over ``baseline``, round by round, so that what slows a whole round down does not count.

    Of the latencies, or with ``cpu`` of the processor time per call.
    """
    values = [[block.cpu for block in each.blocks] if cpu else each.rounds for each in (timings, baseline)]
    return quartiles([value / base for value, base in zip(*values, strict=True)])


def quartiles(values: Sequence[float]) -> Ratio:
    """The median of some values, between their quartiles."""
    low, median, high = (float(value) for value in np.quantile(np.asarray(values, np.float64), [0.25, 0.5, 0.75]))
    return Ratio(median, low, high)


def check_seconds(seconds: float) -> None:
    """Raises InputError."""
    if not 0 < seconds < np.inf:
        raise InputError(f"the time to measure is a number of seconds above 0, not {seconds!r}")


def no_progress(_done: int, _total: int) -> None:
    """Tell nobody how much is done."""


def time_block(
    call: Call, calls: int, *, warm_up: float = 0.0, interval: float | None = None, busy: float = 0.0
) -> Block:
    """Time so many calls: back to back, or one every ``interval`` seconds, for the last ``busy`` of which this spins.

    They come after at least one call, and as many as fit into ``warm_up`` seconds, that are not timed.
    """
    clock = perf_counter
    warm = clock() + warm_up
    call()
    while clock() < warm:
        call()
    if interval is not None:
        sleep(interval)
    seconds = np.empty(calls)
    cpu, begin = process_time(), clock()
    for index in range(calls):
        start = clock()
        call()
        seconds[index] = clock() - start
        if interval is not None:
            due = begin + (index + 1) * interval
            sleep(max(0.0, due - busy - clock()))
            while busy and clock() < due:
                pass
    return Block(seconds, (process_time() - cpu) / calls)


def time_briefly(run: Callable[[int], Block], seconds: float, fewest: int = 1) -> Block:
    """A block of as many calls as fit into so many seconds, to plan with. ``run`` times a number of calls."""
    return run(max(fewest, round(seconds / run(1).median)))


def time_rounds(
    runners: Mapping[Key, Callable[[], Block]],
    rounds: int,
    after: Callable[[int], object] = lambda _: None,
) -> dict[Key, Timings]:
    """So many rounds, in each of which every runner times a block, in another order every time.

    So a noisy machine is noisy for all of them. ``after`` gets the number of rounds that are done.
    """
    order, rng = list(runners), random.Random(0)
    blocks: dict[Key, list[Block]] = {key: [] for key in runners}
    for number in range(rounds):
        rng.shuffle(order)
        for key in order:
            blocks[key].append(runners[key]())
        after(number + 1)
    return {key: Timings(tuple(of_rounds)) for key, of_rounds in blocks.items()}
