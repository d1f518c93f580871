"""The rows of a file in batches, which threads decode ahead of their use."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Condition
from typing import Any, TypeVar

import numpy as np

from runtime.errors import InputError
from runtime.extras import imported

from .columns import ColumnMatch
from .flaws import Flaw

T = TypeVar("T")
BATCH_BYTES = 4 << 20
"""Of a batch's rows as float32, or half of that of its text: a few such batches are in memory at a time."""
ROWS_MULTIPLE = 4096
"""The rows of a larger batch are a multiple of this."""
_ALWAYS, _EXPANSION = 2**30, 64
_MIN_ROWS = 256
"""Of a batch that runs."""


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a file."""

    rows: dict[str, np.ndarray]
    """(rows, *row) for every input, of its dtype; arbitrary in rows that cannot be read."""
    flaws: list[Flaw] = field(default_factory=list[Flaw])
    """The rows that cannot be read."""
    share: float = 1.0
    """How much of the file has been read with this batch, 0 to 1."""
    table: Any = None
    """A record batch of the same rows with the columns to keep; null in rows that cannot be read."""
    rounded: bool = False
    """Whether numbers of float64 columns became the nearest float32, which nobody asked for."""
    failed: np.ndarray | None = None
    """The rows of all flaws, bool (rows,); None without any. Filled in by ``Checks``."""

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))


@dataclass(frozen=True)
class Source:
    """An open file of rows, matched with a model's inputs."""

    matched: str
    """How the data's columns were matched with the model's features."""
    decoders: Iterator[Callable[[], Batch]]
    """One for each batch, in order; each may be called in any thread."""
    threads: int | None = None
    """That decode; None: depends on the machine's cores."""


def unreadable(kind: str, error: BaseException) -> InputError:
    """The error for a file that is damaged or of another kind, from the error of the library that reads it."""
    return InputError(f"cannot be read as {kind}: {first_line(error)}")


def most_bytes(path: Path) -> int:
    """The most that the rows of a file may take in memory, bytes, where all are needed at once.

    A compressed file may hold a thousand times its own size: what goes far beyond it is refused, not tried.
    """
    return max(_ALWAYS, _EXPANSION * path.stat().st_size)


def too_large(size: int, limit: int) -> InputError:
    """The error for rows that take more than ``most_bytes``."""
    message = f"its rows take {size:,} bytes, all of them at once, and from a file of this size {limit:,} are taken"
    return InputError(f"{message}. What to do: give fewer rows, or the same rows uncompressed")


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return str(error).strip().partition("\n")[0]


def merge(batches: Sequence[Batch]) -> Batch:
    """The rows of several batches, which have been checked, as one."""
    if len(batches) == 1:
        return batches[0]
    rows = {name: np.concatenate([batch.rows[name] for batch in batches]) for name in batches[0].rows}
    masks = [np.zeros(len(batch), bool) if batch.failed is None else batch.failed for batch in batches]
    failed = np.concatenate(masks) if any(batch.failed is not None for batch in batches) else None
    tables = [batch.table for batch in batches if batch.table is not None]
    table = imported("pyarrow", "keeping columns").Table.from_batches(tables) if tables else None
    return replace(batches[-1], rows=rows, table=table, failed=failed)


def merge_small(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches, small ones merged with their neighbours: few rows may run on kernels that round differently."""
    waiting: list[Batch] = []
    rows = 0
    for batch in batches:
        if rows >= _MIN_ROWS and (len(batch) >= _MIN_ROWS or rows >= 2 * _MIN_ROWS):
            yield merge(waiting)
            waiting, rows = [], 0
        waiting.append(batch)
        rows += len(batch)
    yield merge(waiting)


def batch_rows(width: int) -> int:
    """The number of rows of a batch with ``width`` values each."""
    rows = max(1, BATCH_BYTES // (4 * max(1, width)))
    return rows if rows < ROWS_MULTIPLE else rows // ROWS_MULTIPLE * ROWS_MULTIPLE


def at_least_one(decoders: Iterator[Callable[[], Batch]], match: ColumnMatch) -> Iterator[Callable[[], Batch]]:
    """The decoders of a table; if it has no rows, one of an empty batch."""
    yield next(decoders, lambda: Batch(match.zeros(0)))
    yield from decoders


def decode_ahead(tasks: Iterator[Callable[[], T]], threads: int | None = None) -> Generator[T]:
    """The results of ``tasks`` in order, while ``threads`` threads work on the next few.

    Each thread takes its task from the iterator in turn, since the iterator reads the file. Errors of the iterator
    and of a task are raised in place of the result.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    threads = threads or max(1, min(cores, 8))
    turns, turn, is_closed = Condition(), 0, False

    def run(number: int) -> tuple[T] | None:
        """The result of the next task; None after the last."""
        nonlocal turn
        with turns:
            turns.wait_for(lambda: turn == number or is_closed)
            try:
                task = None if is_closed else next(tasks, None)
            finally:
                turn += 1
                turns.notify_all()
        return None if task is None else (task(),)

    pool = ThreadPoolExecutor(threads, thread_name_prefix="rows")
    running: deque[Future[tuple[T] | None]] = deque()
    submitted = 0
    try:
        while True:
            while len(running) <= threads:
                running.append(pool.submit(run, submitted))
                submitted += 1
            result = running.popleft().result()
            if result is None:
                return
            yield result[0]
            del result
    finally:
        with turns:
            is_closed = True
            turns.notify_all()
        pool.shutdown(wait=True, cancel_futures=True)
