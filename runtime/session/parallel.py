"""A large batch in chunks that several threads run."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Lock


def chunks(rows: int, chunk_rows: int) -> list[tuple[int, int]]:
    """First row and end of every chunk; the last one takes the remainder that would be less than a chunk.

    So every chunk is large enough for the kernels of the whole batch; those of small batches may give other bits.
    """
    starts = list(range(0, rows - chunk_rows + 1, chunk_rows)) or [0]
    return list(zip(starts, [*starts[1:], rows], strict=True))


class Workers:
    """A pool of threads that run the chunks of batches; any number of batches at once."""

    def __init__(self, threads: int):
        self.threads = threads
        self._lock = Lock()
        self._process = os.getpid()
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[int, int], None], parts: list[tuple[int, int]]) -> None:
        """Call ``work(start, stop)`` for every part, in this thread and the pool's. The first error is raised."""
        indices = count()

        def take() -> None:
            while (index := next(indices)) < len(parts):  # atomic: one step of the interpreter
                work(*parts[index])

        def take_until_error() -> None:
            try:
                take()
            except BaseException:
                for _ in range(len(parts)):  # so that no thread begins another part
                    next(indices)
                raise

        helpers = self._submit(take_until_error, min(self.threads, len(parts)) - 1)
        try:
            take_until_error()
        finally:
            started = [helper for helper in helpers if not helper.cancel()]
            errors = [error for helper in started if (error := helper.exception()) is not None]
        if errors:
            raise errors[0]

    def _submit(self, work: Callable[[], None], times: int) -> list[Future[None]]:
        if not times:
            return []
        if self._process != os.getpid():  # a fork has the pool without its threads, and perhaps a locked lock
            self._process, self._lock, self._pool = os.getpid(), Lock(), None
        with self._lock:
            try:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(self.threads - 1, thread_name_prefix="mlpx")
                return [self._pool.submit(work) for _ in range(times)]
            except RuntimeError:  # the interpreter is shutting down and starts no threads; this one does it all
                return []

    def close(self) -> None:
        """Let the pool's threads end; the next batch starts new ones."""
        with self._lock:
            if self._pool is not None:
                self._pool.shutdown(wait=False)
                self._pool = None
