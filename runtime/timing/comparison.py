"""``bench``: how fast a file runs by ``Session``, beside plain ONNX Runtime and what else is installed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from runtime.errors import ModelError
from runtime.session.ort_session import reason
from runtime.session.session import Session

from .contenders import PLAIN, contenders_of, plain
from .contest import Contest, LeftOut
from .load import LoadWatch
from .rows import check_batch, described_inputs, repeated, rows_of_file, seeded_rows
from .timer import Ratio, Timings, check_seconds, no_progress, paired

BATCHES = (1, 32, 1024)
TOLERANCE = 1e-3
"""Between two runtimes on one file, as a share of the largest output: files of reduced precision round more."""
_BLOCK, _MOST_CALLS, _WARM_UP = 0.01, 2000, 0.003
_FEWEST_ROUNDS, _MOST_ROUNDS = 5, 101


@dataclass(frozen=True)
class ContenderFigures:
    """The times of one contender for calls of one batch.

    Examples:
        Continues the example of ``runtime.bench``:

        >>> contender = report.batches[0].contenders[0]
        >>> contender.median_us > 0, contender.p99_us >= contender.median_us
        (True, True)
    """

    name: str
    median_us: float
    """Per call."""
    p99_us: float
    rows_per_s: float
    """The batch over the median."""
    cpu_us: float
    """Processor time per call, over all threads."""
    over_plain: Ratio
    """Its time over plain ONNX Runtime's in the same round: the median and the quartiles of the rounds."""
    apart: float
    """How far its output is from plain ONNX Runtime's, as a share of the largest output."""


@dataclass(frozen=True)
class BatchFigures:
    """Every contender at one batch.

    Examples:
        Continues the example of ``runtime.bench``:

        >>> figures = report.batches[0]
        >>> figures.batch, figures.rounds > 0, len(figures.contenders) > 1
        (1, True, True)
    """

    batch: int
    rounds: int
    contenders: tuple[ContenderFigures, ...]
    left_out: tuple[LeftOut, ...]


@dataclass(frozen=True)
class BenchReport:
    """How fast a file runs, by batch.

    Examples:
        Continues the example of ``runtime.bench``:

        >>> report.multiply_adds, [figures.batch for figures in report.batches]
        (34, [1])
    """

    path: Path
    device: str
    settings: dict[str, Any]
    """Those of ``Session`` in use."""
    multiply_adds: int
    """Per row."""
    rows: str
    """What it was measured on, in words."""
    batches: tuple[BatchFigures, ...]
    load: str | None = None
    """What others used of the processor meanwhile, in words, where it was enough to change the times."""


def bench(
    path: str | Path,
    *,
    batches: Sequence[int] = (),
    seconds: float = 10.0,
    data: str | Path | None = None,
    dtype: str | None = None,
    device: str = "auto",
    settings: dict[str, Any] | None = None,
    progress: Callable[[int, int], None] = no_progress,
) -> BenchReport:
    """Measure a file by ``Session`` (with these of its settings) and by others, for about so many seconds in all.

    Each contender runs in a process of its own, in turn with the others, on the same rows: of ``data``, repeated where
    a batch is larger, or else seeded normal ones within the ranges that the file declares. Without ``batches``: 1, 32
    and 1,024 rows, or what the file fixes. An output that differs from plain ONNX Runtime's is not timed. ``progress``
    gets the number of rounds that are done and of all. Raises ModelError, InputError, ProviderError.

    Examples:
        >>> from runtime import bench
        >>> report = bench("comfort.onnx", batches=[1], seconds=0.5, device="cpu")
        >>> report.device
        'cpu'
    """
    path = Path(path)
    check_seconds(seconds)
    with Session(path, device, **(settings or {})) as session:
        checked = [check_batch(session, batch) for batch in dict.fromkeys(batches or [None])]
        sizes = [batch for batch in checked if batch is not None] or BATCHES
        ports = described_inputs(session)
        device, resolved, multiply_adds = session.device, asdict(session.settings), session.multiply_adds
    if data is not None:
        make_rows = partial(repeated, rows_of_file(Path(data), ports, dtype))
        source = f"the rows of {data}"
    else:
        make_rows = partial(seeded_rows, ports)
        ranged = any(port.range is not None or port.ranges is not None for port in ports)
        source = "seeded normal rows" + (" within the declared ranges" if ranged else "")
    reference = plain(str(path), device)
    figures: list[BatchFigures] = []
    watch = LoadWatch()
    with Contest(contenders_of(path, device, settings or {})) as contest:
        for index, batch in enumerate(sizes):
            try:
                rows = make_rows(batch)
                expected = reference(rows)()
            except Exception as error:
                if not isinstance(error, MemoryError) and not type(error).__module__.startswith("onnxruntime"):
                    raise
                raise ModelError(f"{path}: it cannot be run on {batch:,} rows: {reason(error)}") from error

            def after(done: int, rounds: int, index: int = index) -> None:
                progress(index * rounds + done, len(sizes) * rounds)

            distances, left_out = contest.load(rows, expected, tolerance=TOLERANCE)
            left_out = (*contest.left_out, *left_out)
            if PLAIN not in distances:
                reasons = "; ".join(f"{other.name}: {other.reason}" for other in left_out)
                message = "plain ONNX Runtime, which the others are compared with, cannot run it"
                raise ModelError(f"{message}. {reasons}")
            rounds, timings = _timed(contest, seconds / len(sizes), after)
            contenders = tuple(_figures(name, batch, timings, distances[name]) for name in timings)
            figures.append(BatchFigures(batch, rounds, contenders, left_out))
    return BenchReport(path, device, resolved, multiply_adds, source, tuple(figures), watch.note())


def _timed(contest: Contest, seconds: float, after: Callable[[int, int], None]) -> tuple[int, dict[str, Timings]]:
    """As many rounds of all contenders as fit into so many seconds, and how many these are."""
    estimates = contest.time_briefly(_BLOCK)
    calls = {name: max(1, min(_MOST_CALLS, round(_BLOCK / estimate))) for name, estimate in estimates.items()}
    a_round = sum(calls[name] * estimate + max(_WARM_UP, estimate) for name, estimate in estimates.items())
    rounds = max(_FEWEST_ROUNDS, min(_MOST_ROUNDS, round(seconds / a_round)))
    return rounds, contest.time_rounds(rounds, calls, warm_up=_WARM_UP, after=lambda done: after(done, rounds))


def _figures(name: str, batch: int, timings: dict[str, Timings], distance: float) -> ContenderFigures:
    own = timings[name]
    return ContenderFigures(
        name=name,
        median_us=1e6 * own.median,
        p99_us=1e6 * own.quantile(0.99),
        rows_per_s=batch / own.median,
        cpu_us=1e6 * own.cpu,
        over_plain=paired(own, timings[PLAIN]),
        apart=distance,
    )
