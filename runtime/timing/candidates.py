"""Which settings are worth trying for a model and a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.session.settings import Settings, resolve

from .measuring import Measurement

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
    rule = resolve(Settings(), multiply_adds, cores)
    work = max(1, multiply_adds) * batch
    workers = 1 if by_batch else rule.workers  # what large batches get is left as it is, whatever small ones prefer
    found = [Settings(workers=1) if by_batch and rule.workers > 1 else Settings()]
    left_out = []
    if batch >= rule.shared_from and not by_batch:
        found += _shared(rule.chunk_rows, batch, cores)
    else:
        found.append(Settings(threads=1, workers=workers))
        counts = sorted({max(2, cores // 2), cores}) if cores > 1 and work >= WORTH_A_THREAD else []
        found += [Settings(threads=count, workers=workers, spin_us=spin) for count in counts for spin in (*SPINS, None)]
        if work < WORTH_A_THREAD:
            left_out.append(f"more than one thread: {work:,} multiply-adds a call are too few to share")
        if batch >= rule.shared_from:
            left_out.append("chunks: the rows of one of the files depend on each other")
    if not variant:
        found.append(Settings(prepack=False))
    return list(dict.fromkeys(found)), left_out


def _shared(chunk: int, batch: int, cores: int) -> Sequence[Settings]:
    """A large batch in pieces on several Python threads, in pieces on all threads of ONNX Runtime, or in one call."""
    sizes = [size for size in (chunk // 4, chunk, 4 * chunk) if size >= 1 and 2 * size <= batch]
    one_call = [Settings(workers=1, chunk_rows=batch), Settings(threads=1, workers=1, chunk_rows=batch)]
    if cores == 1:
        return [Settings(chunk_rows=size) for size in sizes] + one_call[:1]
    return [Settings(workers=cores, chunk_rows=size) for size in sizes] + [Settings(workers=1), *one_call]


NOISE = 0.03
"""Share of the latency by which two settings may differ and still count as equally fast."""
_LESS_CPU = 1.1
EXACT = "float32"
"""The kind of the file itself."""


def best(measured: Sequence[Measurement]) -> Measurement:
    """The measurement with the lowest median latency; among those that are as fast within the noise the one of the
    exact file, then of less processor time, then of fewer threads, then the rule's own settings.

    The noise is the larger of 3 % and the median deviation of the ratio of two settings from round to round.
    """
    fastest = min(measured, key=lambda one: one.latency)
    tied = [one for one in measured if _as_fast(one, fastest)]
    tied = [one for one in tied if one.candidate.kind == EXACT] or tied
    least = min(one.cpu for one in tied)
    tied = [one for one in tied if one.cpu <= _LESS_CPU * least]
    return min(tied, key=lambda one: (one.threads, one.candidate.settings != Settings(), one.latency))


def _as_fast(one: Measurement, fastest: Measurement) -> bool:
    ratios = np.array(one.rounds) / np.array(fastest.rounds)
    middle = float(np.median(ratios))
    spread = float(np.median(np.abs(ratios - middle)))
    return middle - 1 <= max(NOISE, spread)
