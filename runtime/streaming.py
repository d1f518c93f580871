"""From a file of rows to a file of results, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from .batches import Batch, Source, ahead
from .columns import Counted, Flaw
from .described import described
from .errors import InputError
from .nonfinite import NonFinite, nonfinite
from .ranges import Outside, OutsideTally, limits, outside_by_place, told
from .scoring import Scores, score
from .session import Session
from .sinks import Write, check_target, opened_sink
from .tables import opened, told_of

_SHOWN = 5
"""Rows that could not be read are named up to this many."""
_LEAST = 256
"""Rows of a batch that runs."""
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


@dataclass(frozen=True)
class _Checked:
    """A batch, and what there is to say of its rows."""

    batch: Batch
    failed: np.ndarray | None
    """bool (rows,) the rows that cannot be read; None where all can."""
    flaws: list[Flaw]
    nonfinite: NonFinite | None
    outside: list[tuple[int, dict[int, Outside]]]
    """For every input."""


class _Run:
    """One file being scored."""

    def __init__(self, session: Session, data: Path, on_error: str, reject_nonfinite: bool, strict: bool):
        summary = session.summary
        self.session, self.data = session, data
        self.ports = described(summary.inputs if summary is not None else None, session.inputs, session.path)
        self.skipping, self.reject_nonfinite, self.strict = on_error == "null", reject_nonfinite, strict
        self.rows, self.failed_rows = 0, 0
        self.failed: list[str] = []
        self.nonfinite: NonFinite | None = None
        self.tallies = [OutsideTally() for _ in self.ports]

    def checked(self, source: Source) -> Generator[_Checked]:
        """The batches in order, decoded and checked ahead; what is wrong in them is raised or counted."""
        with told_of(self.data), closing(ahead(partial(self._check, piece) for piece in source.pieces)) as batches:
            for batch in batches:
                self._count(batch, source.lines)
                self.rows += len(batch.batch)
                yield batch

    def _check(self, piece: Callable[[], Batch]) -> _Checked:
        """In a thread of its own."""
        batch = piece()
        flaws = list(batch.flaws)
        failed = _any(flaws)
        found = nonfinite(batch.rows, self.ports, failed)
        if found is not None and self.reject_nonfinite:
            flaws.append(found[1])
            failed, found = _any(flaws), None
        left = [outside_by_place(batch.rows[port.name], port, failed) for port in self.ports]
        if failed is not None:  # any values will do, but the data may be read-only
            kept = {name: rows.copy() for name, rows in batch.rows.items()}
            for rows in kept.values():
                rows[failed] = 0
            batch = replace(batch, rows=kept)
        return _Checked(batch, failed, flaws, found[0] if found is not None else None, left)

    def _count(self, checked: _Checked, lines: bool) -> None:
        first = self.rows
        counted = Counted(first, lines, whole=first == 0 and checked.batch.share == 1)
        for flaw in checked.flaws:
            if flaw.fatal or not self.skipping:
                raise InputError(flaw.message(counted))
        if checked.failed is not None:
            self.failed_rows += int(checked.failed.sum())
            for row in np.flatnonzero(checked.failed)[: max(0, _SHOWN - len(self.failed))]:
                flaw = next(flaw for flaw in checked.flaws if flaw.rows[row])
                self.failed.append(f"{counted(int(row))}: {flaw.reason(int(row))}")
        if checked.nonfinite is not None:
            here = replace(checked.nonfinite, first_row=checked.nonfinite.first_row + first)
            self.nonfinite = here if self.nonfinite is None else self.nonfinite.joined(here)
        for tally, (rows, features) in zip(self.tallies, checked.outside, strict=True):
            tally.add(rows, features, first)

    @property
    def left(self) -> OutsideTally | None:
        """The first input's whose ranges were left."""
        return next((tally for tally in self.tallies if tally.rows), None)

    def scores(self, checked: _Checked) -> tuple[Scores, ...]:
        """Of a batch; NaN for the rows that could not be read."""
        scores = score(self.session, checked.batch.rows)
        if checked.failed is None:
            return scores
        gap = checked.failed
        return tuple(
            replace(
                each, outputs=np.where(gap.reshape(-1, *[1] * (each.outputs.ndim - 1)), np.float32("nan"), each.outputs)
            )
            for each in scores
        )


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

    Files are read and written in batches, so that memory does not grow with their length. ``.npy`` takes the outputs
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
    start = perf_counter()
    run = _Run(session, data, on_error, reject_nonfinite, strict)
    fixed = any(isinstance(port.shape[0], int) for port in session.inputs)
    with ExitStack() as stack:
        source = stack.enter_context(opened(data, run.ports, dtype=dtype, whole=fixed))
        batches = stack.enter_context(closing(run.checked(source)))
        write: Write | None = None
        done = 0
        for checked in [_joined(list(batches))] if fixed else _large(batches):
            if strict and run.left is not None:
                continue  # nothing will be written, but the rest is counted
            scores = run.scores(checked)
            if write is None:
                write = stack.enter_context(opened_sink(target))
            write(scores, checked.failed)
            done += len(checked.batch)
            if progress is not None:
                progress(done, checked.batch.share)
        words = _outside_words(run, source.lines)
        if strict and words is not None:
            hint = "correct or drop those rows, or score them with strict=False (without --strict)"
            raise InputError(f"{words}. What to do: {hint}")
    return _report(run, source.matched, words, target, perf_counter() - start)


def _report(run: _Run, matched: str, words: str | None, target: Path | None, seconds: float) -> ScoreReport:
    left = run.left or OutsideTally()
    return ScoreReport(
        rows=run.rows,
        matched=matched,
        device=run.session.device,
        seconds=seconds,
        output=target,
        declares_ranges=any(limits(port) is not None for port in run.ports),
        outside_rows=left.rows,
        outside=left.features,
        outside_words=words,
        rows_per_second=run.rows / seconds,
        nonfinite=run.nonfinite,
        nonfinite_words=_nonfinite_words(run),
        failed_rows=run.failed_rows,
        failed=tuple(run.failed),
        failed_words=_failed_words(run),
    )


def _outside_words(run: _Run, lines: bool) -> str | None:
    left = run.left
    return told(left.rows, left.features, run.rows, run.data.name, line=lines) if left is not None else None


def _nonfinite_words(run: _Run) -> str | None:
    found = run.nonfinite
    if found is None:
        return None
    lines = run.data.suffix.lower() == ".csv"
    kinds = [f"{n:,} {what}" for n, what in ((found.nan_values, "NaN"), (found.infinite_values, "infinite")) if n]
    where = f"{found.rows:,} of the {run.rows:,} rows of {run.data.name}"
    place = Counted(lines=lines)(found.first_row - 1)
    first = f"first '{found.feature}' in {place}: {found.value!r}"
    return f"{' and '.join(kinds)} values in {where} went through the model, {first}"


def _failed_words(run: _Run) -> str | None:
    if not run.failed_rows:
        return None
    more = f"; and {run.failed_rows - len(run.failed):,} more" if run.failed_rows > len(run.failed) else ""
    start = f"{run.failed_rows:,} of the {run.rows:,} rows of {run.data.name} could not be read and have empty results"
    return f"{start}: {'; '.join(run.failed)}{more}"


def _large(batches: Iterator[_Checked]) -> Iterator[_Checked]:
    """The batches, with small ones joined to their neighbours: small ones may run on kernels that round otherwise."""
    waiting: list[_Checked] = []
    rows = 0
    for new in batches:
        if rows >= _LEAST and (len(new.batch) >= _LEAST or rows >= 2 * _LEAST):
            yield _joined(waiting)
            waiting, rows = [], 0
        waiting.append(new)
        rows += len(new.batch)
    yield _joined(waiting)


def _joined(parts: Sequence[_Checked]) -> _Checked:
    """The rows of several batches at once."""
    if len(parts) == 1:
        return parts[0]
    rows = {name: np.concatenate([part.batch.rows[name] for part in parts]) for name in parts[0].batch.rows}
    masks = [np.zeros(len(part.batch), bool) if part.failed is None else part.failed for part in parts]
    failed = np.concatenate(masks) if any(part.failed is not None for part in parts) else None
    return replace(parts[-1], batch=replace(parts[-1].batch, rows=rows), failed=failed)


def _any(flaws: Sequence[Flaw]) -> np.ndarray | None:
    return np.logical_or.reduce([flaw.rows for flaw in flaws]) if flaws else None
