"""A large batch, cut into chunks that several threads run."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Lock

Chunk = Callable[[int, int], None]


def chunks(rows: int, chunk_rows: int) -> list[tuple[int, int]]:
    """First and last row (excluded) of every chunk; the last one takes what would be less than a chunk.

    Every chunk is then large enough for the kernels of the whole batch, whose bits small batches need not have.
    """
    starts = list(range(0, rows - chunk_rows + 1, chunk_rows)) or [0]
    return list(zip(starts, [*starts[1:], rows], strict=True))


class Workers:
    """Threads that share batches out; any number of batches at once."""

    def __init__(self, threads: int):
        self.threads = threads
        self._lock = Lock()
        self._process = os.getpid()
        self._pool: ThreadPoolExecutor | None = None

    def share(self, work: Chunk, parts: list[tuple[int, int]]) -> None:
        """Call ``work(start, stop)`` for every part, in this thread and the others. The first error is raised."""
        turn = count()

        def take() -> None:
            while (index := next(turn)) < len(parts):  # one at a time, since this is one step of the interpreter
                work(*parts[index])

        def helped() -> None:
            try:
                take()
            except BaseException:
                for _ in range(len(parts)):  # no thread begins another part
                    next(turn)
                raise

        helpers = self._submitted(helped, min(self.threads, len(parts)) - 1)
        try:
            helped()
        finally:
            ended = [helper for helper in helpers if not helper.cancel()]
            errors = [error for helper in ended if (error := helper.exception()) is not None]
        if errors:
            raise errors[0]

    def _submitted(self, work: Callable[[], None], times: int) -> list[Future[None]]:
        if not times:
            return []
        if self._process != os.getpid():  # a fork has the pool without its threads, and perhaps a lock that is taken
            self._process, self._lock, self._pool = os.getpid(), Lock(), None
        with self._lock:
            try:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="mlpx")
                return [self._pool.submit(work) for _ in range(times)]
            except RuntimeError:  # the interpreter is ending, and starts no threads; this one does it all
                return []

    def close(self) -> None:
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None
