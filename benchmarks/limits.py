"""The limits of this machine: arithmetic, reading memory, and a call from Python into C.

Each is measured in one process, and in two at once, each with one thread. A model's time is compared with these:
multiply-adds with the first, bytes of weights with the second where the batch is 1.
Run it with ``python -m benchmarks.limits``.
"""

from __future__ import annotations

import json

import numpy as np

from runtime.timing.contest import Contender, Contest
from runtime.timing.timer import Call
from runtime.timing.worker import Feed, MakeCall

FMA, FLOOR = "FMA", "call floor"
SIZES = {"L2": 2**19, "L3": 2**23, "DRAM": 2**28}
"""Bytes that are read repeatedly: half of a core's second-level cache, well in the third level, well beyond."""
_SIDE = 1024


def work() -> MakeCall:
    """The factory of a contender, on one thread: the name of its rows is the limit to measure."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
    rng = np.random.default_rng(0)

    def make_call(feed: Feed) -> Call:
        (kind,) = feed
        if kind == FMA:
            a, b, c = (rng.standard_normal((_SIDE, _SIDE), dtype=np.float32) for _ in range(3))
            return lambda: np.matmul(a, b, out=c)
        if kind == FLOOR:
            x = rng.standard_normal((1, 8), dtype=np.float32)
            return lambda: np.negative(x)
        a, b = (rng.standard_normal(SIZES[kind] // 8, dtype=np.float32) for _ in range(2))
        return lambda: np.dot(a, b)

    return make_call


def measured(seconds: float = 0.3) -> dict[str, dict[str, float]]:
    """By limit: its figure with 1 thread and with 2, in the unit of ``format_limits``, measured for ``seconds``."""
    amounts = {FMA: 2 * _SIDE**3 / 1e9, **{kind: size / 1e9 for kind, size in SIZES.items()}}
    names = ["first", "second"]
    figures: dict[str, dict[str, float]] = {}
    with Contest([Contender(name, "benchmarks.limits:work") for name in names]) as contest:
        for kind in (*amounts, FLOOR):
            figures[kind] = {}
            for threads in (1, 2):
                contest.load({kind: np.zeros(1)}, None, only=names[:threads])
                fastest = min(contest.time_briefly(seconds).values())
                times = at_once(contest, max(5, round(seconds / fastest)))
                figure = 1e6 * max(times) if kind == FLOOR else sum(amounts[kind] / time for time in times)
                figures[kind][str(threads)] = figure
    return figures


def at_once(contest: Contest, calls: int) -> list[float]:
    """The median seconds per call of each contender, where all make their calls at the same time."""
    for process in contest.ready.values():
        process.send("time", calls=calls, warm_up=0.01)
    return [process.receive().median for process in contest.ready.values()]


def format_limits(limits: dict[str, dict[str, float]]) -> list[str]:
    """A line for each limit."""
    lines = [f"{FMA:<10} {limits[FMA]['1']:>6.0f} GFLOP/s on 1 thread, {limits[FMA]['2']:>6.0f} on 2 (float32 matmul)"]
    for kind, size in SIZES.items():
        alone, both = limits[kind]["1"], limits[kind]["2"]
        size_text = f"{size // 2**10} KiB" if size < 2**20 else f"{size // 2**20} MiB"
        lines.append(f"{kind:<10} {alone:>6.0f} GB/s    on 1 thread, {both:>6.0f} on 2 (reading {size_text} each)")
    lines.append(
        f"{FLOOR:<10} {limits[FLOOR]['1']:>6.2f} µs      (a Python call into C, an array in and a new one out)"
    )
    return lines


if __name__ == "__main__":
    limits = measured()
    print("\n".join(format_limits(limits)))
    print(json.dumps(limits))
