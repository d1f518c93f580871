"""Which settings are worth measuring for a model and a batch, and which of the measured ones is best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from runtime.session.settings import Settings, resolve
from runtime.session.tuning_file import Measured

EXACT = "float32"
"""The kind of the file itself."""
_WORTH_A_THREAD = 2**15
"""Multiply-adds of a call below which a second thread is not tried: waking it takes longer than the work."""
_SPINS = (0, 1000)
"""Microseconds that an idle thread spins, beside the rule's."""
_NOISE = 0.03
"""Share of the latency by which two settings may differ and still count as equally fast."""
_LESS_CPU = 1.1


@dataclass(frozen=True)
class Candidate:
    """A file and settings to run it with."""

    kind: str
    path: Path
    settings: Settings


def settings_to_try(
    multiply_adds: int, batch: int, cores: int, *, variant: bool = False, by_batch: bool = False
) -> tuple[list[Settings], list[str]]:
    """The settings to measure, the rule's own first (``Settings()``), and in words what was left out and why.

    A call of ``batch`` rows takes ``multiply_adds`` per row. ``variant``: a file of reduced precision, for which
    prepacking is not tried; ``by_batch``: one whose rows depend on each other, which is never cut into chunks.
    """
    rule = resolve(Settings(), multiply_adds, cores)
    work = max(1, multiply_adds) * batch
    workers = 1 if by_batch else rule.workers  # large batches keep theirs, whatever suits small ones
    settings = [Settings(workers=1) if by_batch and rule.workers > 1 else Settings()]
    left_out: list[str] = []
    if batch >= rule.shared_from and not by_batch:
        settings += _for_large_batch(rule.chunk_rows, batch, cores)
    else:
        settings.append(Settings(threads=1, workers=workers))
        counts = sorted({max(2, cores // 2), cores}) if cores > 1 and work >= _WORTH_A_THREAD else []
        for threads in counts:
            settings += [Settings(threads=threads, workers=workers, spin_us=spin) for spin in (*_SPINS, None)]
        if work < _WORTH_A_THREAD:
            left_out.append(f"more than one thread: {work:,} multiply-adds a call are too few to share")
        if batch >= rule.shared_from:
            left_out.append("chunks: the rows of one of the files depend on each other")
    if not variant:
        settings.append(Settings(prepack=False))
    return list(dict.fromkeys(settings)), left_out


def _for_large_batch(chunk_rows: int, batch: int, cores: int) -> Sequence[Settings]:
    """In chunks on several Python threads, in chunks on all threads of ONNX Runtime, or in one call."""
    sizes = [size for size in (chunk_rows // 4, chunk_rows, 4 * chunk_rows) if size >= 1 and 2 * size <= batch]
    one_call = [Settings(workers=1, chunk_rows=batch), Settings(threads=1, workers=1, chunk_rows=batch)]
    if cores == 1:
        return [Settings(chunk_rows=size) for size in sizes] + one_call[:1]
    return [Settings(workers=cores, chunk_rows=size) for size in sizes] + [Settings(workers=1), *one_call]


def best(measured: Mapping[Candidate, Measured]) -> Candidate:
    """The candidate with the lowest median latency, or one that is as fast within the noise and better otherwise.

    Of those that are as fast, one of the exact file comes first, then one of less processor time, then one of fewer
    threads, then the rule's own settings. The noise is the larger of 3 % and the median deviation of the ratio of two
    settings from round to round.
    """
    fastest = min(measured.values(), key=lambda times: times.latency)
    tied = {candidate: times for candidate, times in measured.items() if _as_fast(times, fastest)}
    tied = {candidate: times for candidate, times in tied.items() if candidate.kind == EXACT} or tied
    least_cpu = min(times.cpu for times in tied.values())
    frugal = [candidate for candidate, times in tied.items() if times.cpu <= _LESS_CPU * least_cpu]
    return min(frugal, key=lambda each: (tied[each].threads, each.settings != Settings(), tied[each].latency))


def _as_fast(times: Measured, fastest: Measured) -> bool:
    ratios = np.array(times.rounds) / np.array(fastest.rounds)
    median = float(np.median(ratios))
    deviation = float(np.median(np.abs(ratios - median)))
    return median - 1 <= max(_NOISE, deviation)
