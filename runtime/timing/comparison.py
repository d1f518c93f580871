"""``bench``: how fast a file runs by ``Session``, beside plain ONNX Runtime and what else is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import InputError, ModelError
from runtime.session.ort_session import reason
from runtime.session.session import Session

from .contenders import PLAIN, contenders_of, plain
from .contest import Contest, LeftOut
from .rows import described_inputs, repeated, rows_of_file, seeded_rows
from .timer import Ratio, Timings, paired

BATCHES = (1, 32, 1024)
TOLERANCE = 1e-3
"""Between two runtimes on one file, as a share of the largest output: files of reduced precision round more."""
_BLOCK, _MOST_CALLS, _WARM_UP = 0.01, 2000, 0.003
_FEWEST, _MOST = 5, 101


@dataclass(frozen=True)
class ContenderFigures:
    """What one contender took for calls of one batch."""

    name: str
    median_us: float
    """Of a call."""
    p99_us: float
    rows_per_s: float
    """The batch over the median."""
    cpu_us: float
    """Of the processor per call, over all threads."""
    over_plain: Ratio
    """Its time over plain ONNX Runtime's in the same round: the median and the quartiles of the rounds."""
    apart: float
    """How far its output is from plain ONNX Runtime's, as a share of the largest output."""


@dataclass(frozen=True)
class BatchFigures:
    """Every contender at one batch."""

    batch: int
    rounds: int
    contenders: tuple[ContenderFigures, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class BenchReport:
    """How fast a file runs, by batch."""

    path: Path
    device: str
    settings: dict[str, Any]
    """Of ``Session``, as it runs the file."""
    multiply_adds: int
    """Of a row."""
    rows: str
    """What it was measured on, in words."""
    batches: tuple[BatchFigures, ...]


def bench(
    path: str | Path,
    *,
    batches: Sequence[int] = (),
    seconds: float = 10.0,
    data: str | Path | None = None,
    dtype: str | None = None,
    device: str = "auto",
    settings: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BenchReport:
    """Measure a file by ``Session`` (with these of its settings) and by others, for about so many seconds in all.

    Each contender runs in a process of its own, in turn with the others, on the same rows: of ``data``, repeated where
    a batch is larger, or else seeded normal ones within the ranges that the file declares. Without ``batches``: 1, 32
    and 1,024 rows, or what the file fixes. An output that is not plain ONNX Runtime's is not timed. ``progress`` is
    told how many of all rounds are done. Raises ModelError, InputError, ProviderError.
    """
    path = Path(path)
    if not 0 < seconds < float("inf"):
        raise InputError(f"the time to measure is a number of seconds above 0, not {seconds!r}")
    with Session(path, device, **(settings or {})) as session:
        given = _batches(session, batches)
        ports = described_inputs(session)
        chosen, settled, work = session.device, asdict(session.settings), session.multiply_adds
    if data is not None:
        make = partial(repeated, rows_of_file(Path(data), ports, dtype))
        told = f"the rows of {data}"
    else:
        make = partial(seeded_rows, ports)
        ranged = any(port.range is not None or port.ranges is not None for port in ports)
        told = "seeded normal rows" + (" within the declared ranges" if ranged else "")
    reference = plain(str(path), chosen)
    found = []
    with Contest(contenders_of(path, chosen, settings or {})) as contest:
        for index, batch in enumerate(given):
            try:
                rows = make(batch)
                expected = reference(rows)()
            except Exception as error:
                if not isinstance(error, MemoryError) and not type(error).__module__.startswith("onnxruntime"):
                    raise
                raise ModelError(f"{path}: it cannot be run on {batch:,} rows: {reason(error)}") from error
            parts = (index, len(given))
            found.append(_one_batch(contest, batch, rows, expected, seconds / len(given), parts, progress))
    return BenchReport(path, chosen, settled, work, told, tuple(found))


def _one_batch(
    contest: Contest,
    batch: int,
    rows: dict[str, np.ndarray],
    expected: Sequence[np.ndarray],
    seconds: float,
    parts: tuple[int, int],
    progress: Callable[[int, int], None],
) -> BatchFigures:
    apart, left_out = contest.take(rows, expected, tolerance=TOLERANCE)
    if PLAIN not in apart:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in (*contest.left_out, *left_out))
        raise ModelError(f"plain ONNX Runtime, which the others are compared with, cannot run it. {reasons}")
    each = contest.tried(_BLOCK)
    calls = {name: max(1, min(_MOST_CALLS, round(_BLOCK / one))) for name, one in each.items()}
    a_round = sum(calls[name] * one + max(_WARM_UP, one) for name, one in each.items())
    rounds = max(_FEWEST, min(_MOST, round(seconds / a_round)))
    done = [0]

    def after() -> None:
        done[0] += 1
        progress(parts[0] * rounds + done[0], parts[1] * rounds)

    timings = contest.rounds(rounds, calls, warm_up=_WARM_UP, after=after)
    figures = tuple(_figures(name, batch, timings, apart[name]) for name in timings)
    return BatchFigures(batch, rounds, figures, (*contest.left_out, *left_out))


def _figures(name: str, batch: int, timings: dict[str, Timings], apart: float) -> ContenderFigures:
    own = timings[name]
    return ContenderFigures(
        name=name,
        median_us=1e6 * own.median,
        p99_us=1e6 * own.p99,
        rows_per_s=batch / own.median,
        cpu_us=1e6 * own.cpu,
        over_plain=paired(own, timings[PLAIN]),
        apart=apart,
    )


def _batches(session: Session, asked: Sequence[int]) -> tuple[int, ...]:
    """The batches to measure. Raises InputError: not a number of rows, or another than the file fixes."""
    fixed = next((port.shape[0] for port in session.inputs if isinstance(port.shape[0], int)), None)
    for batch in asked:
        if batch < 1:
            raise InputError(f"a batch has at least 1 row, not {batch}")
        if fixed is not None and batch != fixed:
            hint = f"leave the batch out, or ask for {fixed}"
            raise InputError(f"{session.path}: takes batches of exactly {fixed} rows, not {batch}. What to do: {hint}")
    if asked:
        return tuple(dict.fromkeys(asked))
    return (fixed,) if fixed is not None else BATCHES
