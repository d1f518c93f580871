"""Requests that wait together share a call of the model.

The cases, by the model's measured cost:

1. A call that takes less than ``INLINE_SECONDS`` runs on the event loop: everything that arrived in one turn of the
   loop shares it, nothing waits for more, and a single client loses nothing.
2. A longer one runs on a thread: while it runs, requests gather, and the next call takes all of them.
3. A model whose rows depend on each other, or whose sizes are not known, or a server told not to coalesce: each request
   has a call of its own, on the loop or on the thread as above.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from .refusals import Busy, Late
from .statistics import Statistics

INLINE_SECONDS = 0.002
"""The longest that the event loop is kept from other requests."""
Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]


@dataclass(slots=True)
class _Waiting:
    feed: Arrays
    rows: int
    result: asyncio.Future[Arrays]
    since: float
    deadline: float


class Coalescer:
    """The queue of one version of a model, and what empties it. Belongs to the event loop that made it."""

    def __init__(
        self,
        run: Run,
        seconds: Callable[[int], float],
        statistics: Statistics,
        *,
        together: bool,
        most_rows: int,
        queue_rows: int,
    ):
        """``run`` is one call of the model, ``seconds`` what a call of so many rows takes about."""
        self._run, self._seconds, self._statistics = run, seconds, statistics
        self._most = most_rows if together else 0
        self._queue_rows = queue_rows
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._thread: ThreadPoolExecutor | None = None
        self._busy = False
        """A call is on the thread, or the turn's end is awaited."""
        self._closing = False

    def submit(self, feed: Arrays, rows: int, timeout: float) -> asyncio.Future[Arrays]:
        """The outputs for these rows, within ``timeout`` seconds. Raises Busy; the future may raise Late."""
        statistics = self._statistics
        if statistics.waiting + rows > self._queue_rows and statistics.waiting:
            raise Busy(f"{statistics.waiting:,} rows wait for this model, and its queue holds {self._queue_rows:,}")
        now = perf_counter()
        result = self._loop.create_future()
        one = _Waiting(feed, rows, result, now, now + timeout)
        self._queue.append(one)
        statistics.waiting += rows
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._next)
        elif self._thread is not None:
            self._timed(one, now)
        return result

    def _timed(self, one: _Waiting, now: float) -> None:
        """See to it that a request is told of its deadline while a call goes on."""
        handle = self._loop.call_later(one.deadline - now, _expire, one.result)
        one.result.add_done_callback(lambda _: handle.cancel())

    def _next(self) -> None:
        """Start a call for what waits, on the loop or on the thread; again for the rest."""
        while batch := self._taken():
            rows = sum(one.rows for one in batch)
            if self._seconds(rows) > INLINE_SECONDS:
                if self._thread is None:
                    self._thread = ThreadPoolExecutor(1, "mlpx-model")
                    for one in self._queue:  # they came in the same turn as this batch
                        self._timed(one, perf_counter())
                self._thread.submit(self._aside, batch, rows)
                return
            start = perf_counter()
            self._settle(batch, rows, start, self._outcome(batch), perf_counter())
            if self._queue:  # other requests of other models, and the sockets, have their turn
                self._loop.call_soon(self._next)
                return
        self._busy = False
        if self._closing:
            self._end()

    def _taken(self) -> list[_Waiting]:
        """The requests of the next call; those that are too late are told so."""
        batch: list[_Waiting] = []
        rows, now = 0, perf_counter()
        while self._queue:
            first = self._queue[0]
            if batch and rows + first.rows > self._most:
                break
            self._queue.popleft()
            self._statistics.waiting -= first.rows
            if first.deadline <= now:
                _expire(first.result)
            elif not first.result.done():
                batch.append(first)
                rows += first.rows
        return batch

    def _aside(self, batch: list[_Waiting], rows: int) -> None:
        start = perf_counter()
        outcome = self._outcome(batch)
        end = perf_counter()

        def back() -> None:
            self._settle(batch, rows, start, outcome, end)
            self._next()

        try:
            self._loop.call_soon_threadsafe(back)
        except RuntimeError:  # the loop was closed while the model ran: nobody waits any more
            return

    def _outcome(self, batch: list[_Waiting]) -> list[Arrays | Exception]:
        """What each request gets. Where a shared call fails, each has one of its own, and its own error."""
        if len(batch) == 1:
            try:
                return [self._run(batch[0].feed)]
            except Exception as error:
                return [error]
        try:
            feed = {name: np.concatenate([one.feed[name] for one in batch]) for name in batch[0].feed}
            outputs = self._run(feed)
        except Exception:
            return [self._outcome([one])[0] for one in batch]
        found: list[Arrays | Exception] = []
        at = 0
        for one in batch:
            found.append({name: values[at : at + one.rows] for name, values in outputs.items()})
            at += one.rows
        return found

    def _settle(
        self, batch: list[_Waiting], rows: int, start: float, outcome: list[Arrays | Exception], end: float
    ) -> None:
        self._statistics.ran(rows, end - start)
        for one, found in zip(batch, outcome, strict=True):
            self._statistics.queued.add(start - one.since)
            if one.result.done():
                continue
            if isinstance(found, Exception):
                one.result.set_exception(found)
            else:
                one.result.set_result(found)

    def close(self) -> None:
        """Let the thread end when everything that waits is answered; a request that comes later starts another."""
        self._closing = True
        if not self._busy:
            self._end()

    def _end(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None


def _expire(result: asyncio.Future[Arrays]) -> None:
    if not result.done():
        result.set_exception(Late("the deadline passed before the model could run"))
