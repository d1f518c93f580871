"""Dynamic batching: requests that wait together share a call of the model.

The cases, by the model's measured cost:

1. A call that takes less than ``INLINE_SECONDS`` runs on the event loop: everything that arrived in one turn of the
   loop shares it, nothing waits for more, and a single client loses nothing.
2. A longer one runs on a thread: while it runs, requests gather, and the next call takes all of them.
3. Where requests may not share calls (``max_batch=0``), each has its own, on the loop or on the thread as above.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from .refusals import Busy, Late
from .statistics import Statistics

INLINE_SECONDS = 0.002
"""The longest that the event loop is kept from other requests."""
Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]
Called = Callable[[float, float, int], object]
"""Told of a request's call: its start and end (``perf_counter``), and its rows of all requests."""
_COST_CALLS = 5
_COST_ROWS = 64


def measure_cost(run: Callable[[int], object], *, divisible: bool) -> Callable[[int], float]:
    """The seconds of a call by its rows: measured for one row and for 64, and a straight line through both.

    ``run`` makes a call of so many rows. A model that takes only a fixed batch is measured with that.
    """
    single = _median_seconds(run, 1)
    several = _median_seconds(run, _COST_ROWS) if divisible else single * _COST_ROWS
    slope = max(0.0, (several - single) / (_COST_ROWS - 1))
    return lambda rows: single + slope * rows


def _median_seconds(run: Callable[[int], object], rows: int) -> float:
    times: list[float] = []
    for _ in range(_COST_CALLS + 1):
        start = perf_counter()
        run(rows)
        times.append(perf_counter() - start)
        if sum(times) > 1:
            break
    return median(times[1:] or times)


@dataclass(slots=True)
class _Entry:
    """A request in the queue."""

    feed: Arrays
    rows: int
    result: asyncio.Future[Arrays]
    arrival: float
    deadline: float
    called: Called | None = None


class DynamicBatcher:
    """The queue of one version of a model, and the calls that empty it. Belongs to the event loop that made it."""

    def __init__(
        self, run: Run, cost: Callable[[int], float], statistics: Statistics, *, max_batch: int, queue_rows: int
    ):
        """``run`` is one call of the model, ``cost`` the seconds that a call of so many rows takes.

        ``max_batch``: the most rows of a call that requests share; 0: they share none. ``queue_rows``: the most rows
        that may wait.
        """
        self._run, self._cost, self._statistics = run, cost, statistics
        self._max_batch, self._queue_rows = max_batch, queue_rows
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Entry] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._waiting = 0
        """Rows in this queue; the statistics may be those of another file of the version too."""
        self._busy = False
        """A call is on the thread, or scheduled on the loop."""
        self._called: float | None = None
        """Since when a call is on the thread."""
        self._closing = False

    def submit(self, feed: Arrays, rows: int, timeout: float, called: Called | None = None) -> asyncio.Future[Arrays]:
        """The outputs for these rows, within ``timeout`` seconds. Raises Busy; the future may raise Late."""
        if self._waiting + rows > self._queue_rows and self._waiting:
            raise Busy(f"{self._waiting:,} rows wait for this model, and its queue holds {self._queue_rows:,}")
        now = perf_counter()
        result = self._loop.create_future()
        entry = _Entry(feed, rows, result, now, now + timeout, called)
        self._queue.append(entry)
        self._count_waiting(rows)
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start_calls)
        elif self._thread is not None:
            self._watch_deadline(entry, now)
        return result

    @property
    def calling_seconds(self) -> float:
        """How long the call that is on the thread has taken so far; 0 where none is."""
        return 0.0 if self._called is None else perf_counter() - self._called

    def _count_waiting(self, rows: int) -> None:
        self._waiting += rows
        self._statistics.waiting += rows

    def _watch_deadline(self, entry: _Entry, now: float) -> None:
        """Let the deadline of a request end its wait while a call goes on."""
        timer = self._loop.call_later(entry.deadline - now, _expire, entry.result)
        entry.result.add_done_callback(lambda _: timer.cancel())

    def _start_calls(self) -> None:
        """Start a call for what waits, on the loop or on the thread; again for the rest."""
        while batch := self._next_batch():
            rows = sum(entry.rows for entry in batch)
            if self._cost(rows) > INLINE_SECONDS:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "mlpx-model")
                    for entry in self._queue:  # they came in the same turn as this batch
                        self._watch_deadline(entry, perf_counter())
                self._called = perf_counter()
                self._thread.submit(self._call_on_thread, batch, rows)
                return
            start = perf_counter()
            self._deliver(batch, rows, start, self._call(batch), perf_counter())
            if self._queue:  # let the loop serve other models and the sockets in between
                self._loop.call_soon(self._start_calls)
                return
        self._busy = False
        if self._closing:
            self._end_thread()

    def _next_batch(self) -> list[_Entry]:
        """The requests of the next call; those whose deadline has passed are refused."""
        batch: list[_Entry] = []
        rows, now = 0, perf_counter()
        while self._queue:
            first = self._queue[0]
            if batch and rows + first.rows > self._max_batch:
                break
            self._queue.popleft()
            self._count_waiting(-first.rows)
            if first.deadline <= now:
                _expire(first.result)
            elif not first.result.done():
                batch.append(first)
                rows += first.rows
        return batch

    def _call_on_thread(self, batch: list[_Entry], rows: int) -> None:
        start = perf_counter()
        results = self._call(batch)
        end = perf_counter()

        def deliver() -> None:
            self._called = None
            self._deliver(batch, rows, start, results, end)
            self._start_calls()

        try:
            self._loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # the loop was closed while the model ran: nobody waits any more
            return

    def _call(self, batch: list[_Entry]) -> list[Arrays | Exception]:
        """The result of each request. Where a shared call fails, each has a call, and an error, of its own."""
        if len(batch) == 1:
            try:
                return [self._run(batch[0].feed)]
            except Exception as error:
                return [error]
        try:
            outputs = self._run({name: np.concatenate([entry.feed[name] for entry in batch]) for name in batch[0].feed})
        except Exception:
            return [self._call([entry])[0] for entry in batch]
        results: list[Arrays | Exception] = []
        start = 0
        for entry in batch:
            results.append({name: values[start : start + entry.rows] for name, values in outputs.items()})
            start += entry.rows
        return results

    def _deliver(
        self, batch: list[_Entry], rows: int, start: float, results: list[Arrays | Exception], end: float
    ) -> None:
        self._statistics.count_call(rows, end - start)
        for entry, result in zip(batch, results, strict=True):
            self._statistics.queued.add(start - entry.arrival)
            if entry.called is not None:
                entry.called(start, end, rows)
            if entry.result.done():
                continue
            if isinstance(result, Exception):
                entry.result.set_exception(result)
            else:
                entry.result.set_result(result)

    def close(self) -> None:
        """End the thread when everything that waits is answered; a request that comes later starts another."""
        self._closing = True
        if not self._busy:
            self._end_thread()

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None


def _expire(result: asyncio.Future[Arrays]) -> None:
    if not result.done():
        result.set_exception(Late("the deadline passed before the model could run"))
