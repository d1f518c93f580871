"""How a file is run on a CPU: threads, spinning, and how a large batch is split.

The rule is a table of measured figures (docs/performance.md); every one of them can be set by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2, sqrt
from typing import Any

from runtime.errors import InputError

ALONE = 2**19
"""Multiply-adds of a call below which a second thread costs more than it saves, though it is awake."""
_ALONE_IF_BUSY = 3 * 2**19
"""The same where the other threads sleep, while the caller was busy."""
_ALONE_IF_IDLE = 2**25
"""The same where the caller slept too."""
_SAME_BITS = 2**12
"""Values of a layer's output up to which ONNX Runtime runs an activation on one thread, however many it has. Of more,
it divides some (Elu, Softplus), which gives the values at the border other bits."""
SPIN_US = 50
"""Long enough that the next layer finds the pool awake, and too short to show in the processor's load."""
_LARGEST_SPLIT = 2**23
"""Multiply-adds (weights) of a row up to which there may be a second session, of one thread: above, the gain is small
and ONNX Runtime would hold the weights a second time. Layers of larger models take so long that spinning gains nothing
either."""
_FEWEST_ROWS = 256
_FEWEST_CHUNKS = 4
"""Of a batch that is split: waking the other threads takes about a tenth of a millisecond."""
_CACHED = 2**18
"""Values of a layer's output that fit into the second-level cache."""


@dataclass(frozen=True)
class Settings:
    """How a file is run on a CPU. None leaves a setting to the rule (``resolve``)."""

    threads: int | None = None
    """Per call, where ONNX Runtime runs the batch as a whole."""
    spin_us: int | None = None
    """Microseconds that an idle thread of ONNX Runtime's pool spins before it sleeps; 0: not at all."""
    workers: int | None = None
    """Threads that share a large batch, each with single-threaded calls; 1: it is not split."""
    chunk_rows: int | None = None
    """Rows of one of these calls."""
    prepack: bool | None = None
    """Whether ONNX Runtime repacks the weights for its kernels while it opens a file."""

    def __post_init__(self) -> None:
        for name, (low, high) in _LIMITS.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not low <= value <= high):
                raise InputError(f"{name} is a whole number from {low} to {high:,}, not {value!r}")
        if self.prepack is not None and type(self.prepack) is not bool:
            raise InputError(f"prepack is True or False, not {self.prepack!r}")

    def over(self, other: Settings) -> Settings:
        """These settings, completed from ``other`` where they are None.

        Threads, workers and chunks belong together: where one is set here, ``other``'s are not taken.
        """
        if (self.threads, self.workers, self.chunk_rows) != (None, None, None):
            other = replace(other, threads=None, workers=None, chunk_rows=None)
        return replace(other, **self.chosen())

    def chosen(self) -> dict[str, Any]:
        """Those that are not left to the rule, by name: keyword arguments of ``Session``."""
        return {name: value for name, value in vars(self).items() if value is not None}


_LIMITS = {"threads": (1, 1024), "spin_us": (0, 10**6), "workers": (1, 1024), "chunk_rows": (1, 2**31)}


@dataclass(frozen=True)
class ResolvedSettings:
    """Settings with a value for each, and from which batch on they are used."""

    threads: int
    spin_us: int
    workers: int
    chunk_rows: int
    prepack: bool
    whole_from: int
    """Rows from which a call uses all of ``threads`` instead of one, while they are awake."""
    busy_from: int
    """The same where they sleep, while the caller was busy."""
    idle_from: int
    """The same where the caller slept too."""
    shared_from: int
    """Rows from which a batch is cut into chunks."""


def resolve(settings: Settings, multiply_adds: int, cores: int, widest: int | None = None) -> ResolvedSettings:
    """Settings for a model of ``multiply_adds`` per row on ``cores`` cores: by the rule where they are None.

    A call below ``ALONE`` multiply-adds runs on one thread, one above on all, and a batch of at least four chunks (two,
    where their size is set) is shared by ``workers`` threads, on one single-threaded session that holds the weights
    once. A chunk is as large as keeps the widest layer's output in the cache: its width is taken to be the square root
    of the multiply-adds.

    Whether threads that sleep are woken depends on how calls come (``pace``), where that changes no bit of the results:
    up to so many rows that the ``widest`` layer, of so many values per row, is no wider than ``_SAME_BITS`` in all.
    """
    work = max(1, multiply_adds)
    is_large = work > _LARGEST_SPLIT
    whole_from = 1 if settings.threads is not None or is_large else -(-ALONE // work)
    busy_from = idle_from = whole_from
    if settings.threads is None and not is_large and widest is not None:
        limits = (-(-_ALONE_IF_BUSY // work), -(-_ALONE_IF_IDLE // work))
        busy_from, idle_from = (max(whole_from, min(limit, _SAME_BITS // widest + 1)) for limit in limits)
    chunk_rows = settings.chunk_rows or 2 ** round(log2(min(16384, max(_FEWEST_ROWS, _CACHED / sqrt(work)))))
    threads = settings.threads or cores
    workers = settings.workers or (cores if settings.threads is None and not is_large else 1)
    return ResolvedSettings(
        threads=threads,
        spin_us=(0 if is_large else SPIN_US) if settings.spin_us is None else settings.spin_us,
        workers=workers,
        chunk_rows=chunk_rows,
        prepack=settings.prepack is not False,
        whole_from=whole_from,
        busy_from=busy_from,
        idle_from=idle_from,
        shared_from=(2 if settings.chunk_rows is not None else _FEWEST_CHUNKS) * chunk_rows,
    )
