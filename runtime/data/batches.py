"""A file of rows in batches, decoded ahead in threads and taken in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

import numpy as np

from .columns import Flaw, Matching

T = TypeVar("T")
BATCH_BYTES = 4 << 20
"""Of a batch's rows as float32, or twice as much of their text: a few such batches are in memory at a time."""


@dataclass(frozen=True)
class Batch:
    """Rows of a file that follow each other."""

    rows: dict[str, np.ndarray]
    """(rows, *row) for every input, of its dtype; where a row cannot be read, any values."""
    flaws: list[Flaw] = field(default_factory=list)
    """The rows that cannot be read."""
    share: float = 1.0
    """How much of the file has been read with it, 0 to 1."""
    table: Any = None
    """A record batch of the same rows, with the columns that are kept; null where they cannot be read."""

    def __len__(self) -> int:
        return len(next(iter(self.rows.values())))


@dataclass(frozen=True)
class Source:
    """A file of rows, opened and matched with a model's inputs."""

    matched: str
    """How the data's columns were matched with the model's features."""
    pieces: Iterator[Callable[[], Batch]]
    """Its batches, each still to be decoded, which any thread may do."""
    lines: bool = False
    """Its rows are counted as the lines of a CSV file."""
    readers: int | None = None
    """Threads that decode; None: by the machine's cores."""


def never_none(pieces: Iterator[Callable[[], Batch]], matched: Matching) -> Iterator[Callable[[], Batch]]:
    """The pieces of a table; where it has no rows, a batch of none."""
    first = next(pieces, None)
    yield first or (lambda: Batch(matched.empty(0)))
    yield from pieces


def ahead(pieces: Iterator[Callable[[], T]], readers: int | None = None) -> Generator[T]:
    """What the pieces give, in order, while ``readers`` threads work on the next few.

    A piece is taken from the iterator by one thread at a time. An error of the iterator or of a piece is raised in its
    place.
    """
    workers = readers or max(1, min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 8))
    taking, taken = Lock(), 0

    def one() -> tuple[int, Callable[[], T] | None]:
        """The next piece's place in the order, and how to have its result; None behind the last."""
        nonlocal taken
        with taking:
            place = taken
            taken += 1
            try:
                piece = next(pieces, None)
            except Exception as error:
                return place, _raising(error)
        if piece is None:
            return place, None
        try:
            result = piece()
        except Exception as error:
            return place, _raising(error)
        return place, lambda: result

    pool = ThreadPoolExecutor(workers, thread_name_prefix="rows")
    running: deque[Future[tuple[int, Callable[[], T] | None]]] = deque()
    early: dict[int, Callable[[], T] | None] = {}
    place = 0
    try:
        while True:
            while len(running) + len(early) <= workers:
                running.append(pool.submit(one))
            while place not in early:
                found, result = running.popleft().result()
                early[found] = result
            result = early.pop(place)
            if result is None:
                return
            yield result()
            place += 1
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _raising(error: Exception) -> Callable[[], Any]:
    def again() -> Any:
        raise error

    return again
