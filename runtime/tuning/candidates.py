"""Which settings are worth trying for a model and a batch."""

from __future__ import annotations

from collections.abc import Sequence

from ..settings import Settings, settled

WORTH_A_THREAD = 2**15
"""Multiply-adds of a call below which a second thread is not tried: waking it takes longer than the work."""
SPINS = (0, 1000)
"""Microseconds that an idle thread waits busily, beside the rule's."""


def candidates(
    multiply_adds: int, batch: int, cores: int, *, variant: bool = False, by_batch: bool = False
) -> tuple[list[Settings], list[str]]:
    """The settings to measure, the rule's own first (``Settings()``), and in words what was left out and why.

    A call of ``batch`` rows takes ``multiply_adds`` per row. ``variant``: a file of reduced precision, for which
    prepacking is not tried; ``by_batch``: one whose rows depend on each other, which is never cut into chunks.
    A pure function.
    """
    rule = settled(Settings(), multiply_adds, cores)
    work = max(1, multiply_adds) * batch
    workers = 1 if by_batch else rule.workers  # what large batches get is left as it is, whatever small ones prefer
    first = Settings(workers=1) if by_batch and rule.workers > 1 else Settings()
    found, left_out = [first, Settings(threads=1, workers=workers)], []
    if work < WORTH_A_THREAD:
        left_out.append(f"more than one thread: {work:,} multiply-adds a call are too few to share")
    else:
        counts = sorted({max(2, cores // 2), cores} - {1}) if cores > 1 else []
        spins = [*SPINS, None]
        found += [Settings(threads=count, workers=workers, spin_us=spin) for count in counts for spin in spins]
    found += _chunked(rule.chunk_rows, batch, cores, by_batch=by_batch)
    if batch >= 2 * rule.chunk_rows and by_batch:
        left_out.append("chunks: the rows of this file depend on each other")
    if not variant:
        found.append(Settings(prepack=False))
    return list(dict.fromkeys(found)), left_out


def _chunked(chunk: int, batch: int, cores: int, *, by_batch: bool) -> Sequence[Settings]:
    """A batch on several Python threads, in pieces of a quarter, once and four times the rule's size, or not at all."""
    if by_batch or cores == 1 or batch < chunk // 2:
        return []
    sizes = [size for size in (chunk // 4, chunk, 4 * chunk) if size >= 1 and 2 * size <= batch]
    return [Settings(workers=cores, chunk_rows=size) for size in sizes] + [Settings(workers=1)]
