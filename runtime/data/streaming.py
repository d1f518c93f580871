"""From a file of rows to a file of results, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from runtime.errors import InputError, ModelError
from runtime.model.annotate_ports import described
from runtime.model.ranges import Outside, OutsideTally, limits, told
from runtime.session.session import Session

from .checks import Checked, Checks, joined, large
from .reading import opened
from .results import Write, check_target, opened_sink
from .scoring import Scores, score
from .unusual_values import NonFinite, nonfinite_words

ON_ERROR = ("fail", "null")


@dataclass(frozen=True)
class ScoreReport:
    """What scoring a file did."""

    rows: int
    matched: str
    """How the data's columns were matched with the model's features."""
    device: str
    seconds: float
    output: Path | None
    declares_ranges: bool = False
    """Whether the file declares any range for its input."""
    outside_rows: int = 0
    """How many rows leave a range that the file declares for its input."""
    outside: tuple[Outside, ...] = ()
    """The features that do so."""
    outside_words: str | None = None
    """The same in words, with the first such row."""
    rows_per_second: float = 0.0
    nonfinite: NonFinite | None = None
    """The NaN and infinite values of the data, which went through the model."""
    nonfinite_words: str | None = None
    failed_rows: int = 0
    """How many rows could not be read and have empty results (``on_error="null"``)."""
    failed: tuple[str, ...] = ()
    """The first of them: where, and why."""
    failed_words: str | None = None


def score_file(
    session: Session,
    data: str | Path,
    output: str | Path | None,
    *,
    dtype: str | None = None,
    strict: bool = False,
    on_error: str = "fail",
    reject_nonfinite: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> ScoreReport:
    """Score the rows of ``data`` into ``output``, or as CSV onto standard output where that is None.

    Files are read and written in batches, so that memory does not grow with their length, unless the model's rows may
    depend on each other (``Session.divisible``). ``.npy`` takes the outputs
    alone; ``.npz`` the arrays outputs, labels and probabilities; ``.csv``, ``.parquet`` and ``.arrow`` the columns of
    ``columns_of``. Rows outside the ranges that the file declares for its input are counted in the report; with
    ``strict`` they are an error. NaN and infinite values are counted; with ``reject_nonfinite`` they are an error.
    ``on_error="null"`` gives rows that cannot be read (or whose values are refused) empty results and counts them.
    ``progress`` is told after every batch the rows so far, and how much of the file has been read (0 to 1; 0 where that
    is not known). Nothing is written where an error is raised: InputError (see ``read_rows``), ModelError, OutputError.
    """
    if on_error not in ON_ERROR:
        raise InputError(f"on_error is 'fail' or 'null', not {on_error!r}")
    target = Path(output) if output is not None else None
    if target is not None:
        check_target(target, [port.name for port in session.outputs])
    data = Path(data)
    if target is not None and target.exists() and data.exists() and target.samefile(data):
        raise InputError(f"{target}: the results would replace the data. What to do: give another name, with -o")
    start = perf_counter()
    summary = session.summary
    ports = described(summary.inputs if summary is not None else None, session.inputs, session.path)
    checks = Checks(ports, data, skipping=on_error == "null", reject_nonfinite=reject_nonfinite)
    whole = not session.divisible
    with ExitStack() as stack:
        source = stack.enter_context(opened(data, ports, dtype=dtype, whole=whole))
        batches = stack.enter_context(closing(checks.of(source)))
        write: Write | None = None
        done = 0
        for checked in [joined(list(batches))] if whole else large(batches):
            if strict and checks.left is not None:
                continue  # nothing will be written, but the rest is counted
            scores = scores_of(session, checked)
            if write is None:
                write = stack.enter_context(opened_sink(target))
            write(scores, checked.failed)
            done += len(checked.batch)
            if progress is not None:
                progress(done, checked.batch.share)
        words = _outside_words(checks, source.lines)
        if strict and words is not None:
            hint = "correct or drop those rows, or score them with strict=False (without --strict)"
            raise InputError(f"{words}. What to do: {hint}")
    return _report(checks, source.matched, session.device, words, target, perf_counter() - start)


def scores_of(session: Session, checked: Checked) -> tuple[Scores, ...]:
    """Of a batch; NaN for the rows that could not be read."""
    scores = score(session, checked.batch.rows)
    odd = next((each for each in scores if len(each.outputs) != len(checked.batch)), None)
    if odd is not None:
        message = f"output '{odd.port.name}' has {len(odd.outputs):,} rows for {len(checked.batch):,} rows of data"
        raise ModelError(f"{message}. What to do: run it by session.run(x), which takes such models")
    if checked.failed is None:
        return scores
    empty = [np.array(each.outputs) for each in scores]
    for outputs in empty:
        outputs[checked.failed] = np.nan
    return tuple(replace(each, outputs=outputs) for each, outputs in zip(scores, empty, strict=True))


def _report(
    checks: Checks, matched: str, device: str, words: str | None, target: Path | None, seconds: float
) -> ScoreReport:
    left, name = checks.left or OutsideTally(), checks.data.name
    return ScoreReport(
        rows=checks.rows,
        matched=matched,
        device=device,
        seconds=seconds,
        output=target,
        declares_ranges=any(limits(port) is not None for port in checks.ports),
        outside_rows=left.rows,
        outside=left.features,
        outside_words=words,
        rows_per_second=checks.rows / seconds,
        nonfinite=checks.nonfinite,
        nonfinite_words=nonfinite_words(checks.nonfinite, checks.rows, name, line=checks.data.suffix.lower() == ".csv"),
        failed_rows=checks.failed_rows,
        failed=tuple(checks.failed),
        failed_words=failed_words(checks.failed_rows, checks.failed, checks.rows, name),
    )


def _outside_words(checks: Checks, lines: bool) -> str | None:
    left = checks.left
    return told(left.rows, left.features, checks.rows, checks.data.name, line=lines) if left is not None else None


def failed_words(count: int, listed: Sequence[str], rows: int, origin: str) -> str | None:
    """In words: how many rows could not be read, and the first of them; None where all could."""
    if not count:
        return None
    more = f"; and {count - len(listed):,} more" if count > len(listed) else ""
    start = f"{count:,} of the {rows:,} rows of {origin} could not be read and have empty results"
    return f"{start}: {'; '.join(listed)}{more}"
