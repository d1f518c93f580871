"""How a file is run on a CPU: threads, busy waiting, and how a large batch is shared out.

The rule is a table of figures that were measured (docs/performance.md); every one of them can be set by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import log2, sqrt

from runtime.errors import InputError

ALONE = 2**19
"""Multiply-adds of a call under which a second thread costs more than it saves."""
SPIN_US = 50
"""Long enough that the next layer finds the pool awake, and too short to be seen in the processor's load."""
_LARGEST_SHARED = 2**23
"""Multiply-adds (weights) of a row up to which a large batch is shared out: above, the gain is small and ONNX Runtime
would hold the weights a second time."""
_LEAST_ROWS = 256
_FEWEST_CHUNKS = 4
"""Of a batch that is shared out: waking the other threads takes about a tenth of a millisecond."""
_CACHED = 2**18
"""Values of a layer's output that stay in the second-level cache."""


@dataclass(frozen=True)
class Settings:
    """How a file is run on a CPU. None leaves a setting to the rule (``settled``)."""

    threads: int | None = None
    """Of a call that ONNX Runtime runs as a whole."""
    spin_us: int | None = None
    """How many microseconds an idle thread of ONNX Runtime's pool waits busily for more work; 0: not at all."""
    workers: int | None = None
    """How many threads share a large batch, each with calls of one thread; 1: it is not shared out."""
    chunk_rows: int | None = None
    """Rows of one of those calls."""
    prepack: bool | None = None
    """Whether ONNX Runtime lays out the weights anew for its kernels while it opens a file."""

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not low <= value <= high):
                raise InputError(f"{name} is a whole number from {low} to {high:,}, not {value!r}")
        if self.prepack is not None and type(self.prepack) is not bool:
            raise InputError(f"prepack is True or False, not {self.prepack!r}")

    def over(self, other: Settings) -> Settings:
        """These settings, and the other's where these leave one open.

        Threads, workers and chunks belong together: where one is set here, the other's are not taken.
        """
        if (self.threads, self.workers, self.chunk_rows) != (None, None, None):
            other = replace(other, threads=None, workers=None, chunk_rows=None)
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return replace(other, **given)


_LIMITS = {"threads": (1, 1024), "spin_us": (0, 10**6), "workers": (1, 1024), "chunk_rows": (1, 2**31)}


@dataclass(frozen=True)
class Settled:
    """Settings with nothing left open, and from which batch on each of them is used."""

    threads: int
    spin_us: int
    workers: int
    chunk_rows: int
    prepack: bool
    whole_from: int
    """Rows from which a call takes all of ``threads`` instead of one."""
    shared_from: int
    """Rows from which a batch is cut into chunks."""


def settled(given: Settings, multiply_adds: int, cores: int) -> Settled:
    """What the rule makes of a model with so many multiply-adds per row, on a machine with so many cores.

    A call below ``ALONE`` multiply-adds runs on one thread, one above on all, and a batch of at least four chunks (two,
    where their size is given) is shared out among ``workers`` threads, on one session of one thread that holds the
    weights once. A chunk is as large as keeps the widest layer's output in the cache: its width is taken to be the root
    of the multiply-adds.
    A pure function.
    """
    work = max(1, multiply_adds)
    chunk = given.chunk_rows or 2 ** round(log2(min(16384, max(_LEAST_ROWS, _CACHED / sqrt(work)))))
    threads = given.threads or cores
    workers = given.workers or (cores if work <= _LARGEST_SHARED and given.threads is None else 1)
    return Settled(
        threads=threads,
        spin_us=SPIN_US if given.spin_us is None else given.spin_us,
        workers=workers,
        chunk_rows=chunk,
        prepack=given.prepack is not False,
        whole_from=1 if given.threads is not None else -(-ALONE // work),
        shared_from=(2 if given.chunk_rows is not None else _FEWEST_CHUNKS) * chunk,
    )
