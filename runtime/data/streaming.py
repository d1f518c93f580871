"""A file of rows scored into a file of results, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from runtime.errors import InputError, ModelError
from runtime.model.port import limits
from runtime.session.session import Session

from .batches import Batch, merge, merge_small
from .checks import Checks
from .reading import open_rows
from .results import Write, check_target, open_results
from .scoring import Scores, input_ports, score
from .unusual_values import NonFinite, Outside, OutsideTally, format_failed, format_nonfinite, format_outside


@dataclass(frozen=True)
class ScoreReport:
    """What scoring a file did.

    Examples:
        >>> from mlpx import Session
        >>> from runtime import score_file
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     report = score_file(session, "rows.csv", "report.npy")
        >>> report.matched, report.outside_rows, report.failed_rows
        ('columns by name', 0, 0)
    """

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
    """The same as a sentence, with the first such row."""
    rows_per_second: float = 0.0
    nonfinite: NonFinite | None = None
    """The NaN and infinite values of the data, which went through the model."""
    nonfinite_words: str | None = None
    failed_rows: int = 0
    """How many rows could not be read and have empty results (``on_error="null"``)."""
    failed: tuple[str, ...] = ()
    """The first of them: where, and why."""
    failed_words: str | None = None
    rounded: bool = False
    """Whether numbers of float64 columns became the nearest float32, without ``dtype="float32"``."""


def score_file(
    session: Session,
    data: str | Path,
    output: str | Path | None,
    *,
    dtype: str | None = None,
    strict: bool = False,
    on_error: str = "fail",
    reject_nonfinite: bool = False,
    keep: Sequence[str] = (),
    separator: str | None = None,
    progress: Callable[[int, float], None] | None = None,
    origin: str | None = None,
) -> ScoreReport:
    """Score the rows of ``data`` into ``output``, or as CSV onto standard output if that is None.

    Files are read and written in batches, so that memory does not grow with their length, unless the model's rows may
    depend on each other (``Session.divisible``). ``.npy`` holds only the outputs; ``.npz`` the arrays outputs, labels
    and probabilities; tables the columns of ``columns_of``. Rows outside the ranges that the file declares for its
    input are counted in the report; with ``strict`` they are an error. NaN and infinite values are counted; with
    ``reject_nonfinite`` they are an error. ``on_error="null"`` gives rows that cannot be read (or whose values are
    rejected) empty results and counts them. The columns
    ``keep`` of the data, a table, are written before the results. ``separator`` is that of the values of a CSV file.
    ``progress`` is called after every batch with the number of rows so far and the share of the file that has been
    read (0 to 1; 0 if not known). ``origin`` is what the report calls the data; default: the name of its file.
    Nothing is written if an error is raised: InputError (see ``read_rows``), ModelError, OutputError,
    MissingPackageError.

    Examples:
        >>> from pathlib import Path
        >>> from mlpx import Session
        >>> from runtime import score_file
        >>> with Session("comfort.onnx", device="cpu") as session:
        ...     report = score_file(session, "rows.csv", "scores.csv", keep=["humidity"])
        >>> report.rows, Path("scores.csv").read_text().splitlines()[0]
        (2, 'humidity,label,probability_poor,probability_good')
    """
    target, data = Path(output) if output is not None else None, Path(data)
    name = origin or data.name
    ports = input_ports(session)
    checks = Checks(ports, data, on_error=on_error, reject_nonfinite=reject_nonfinite)
    if target is not None:
        check_target(target, [port.name for port in session.outputs], keep)
        if target.exists() and data.exists() and target.samefile(data):
            raise InputError(f"{target}: the results would replace the data. What to do: give another name, with -o")
    start = perf_counter()
    whole = not session.divisible
    with ExitStack() as stack:
        options = {"keep": tuple(keep), "separator": separator}
        source = stack.enter_context(open_rows(data, ports, dtype=dtype, whole=whole, **options))
        batches = stack.enter_context(closing(checks.run(source)))
        write: Write | None = None
        rows = 0
        for batch in [merge(list(batches))] if whole else merge_small(batches):
            if strict and checks.outside is not None:
                continue  # nothing will be written, but the rest is counted
            scores = score_batch(session, batch)
            if write is None:
                write = stack.enter_context(open_results(target, keep))
            write(scores, batch.failed, batch.table)
            rows += len(batch)
            if progress is not None:
                progress(rows, batch.share)
        outside = checks.outside or OutsideTally()
        outside_words = None
        if outside.rows:
            outside_words = format_outside(outside.rows, outside.features, checks.rows, name, lines=checks.lines)
        if strict and outside_words is not None:
            hint = "correct or drop those rows, or score them with strict=False (without --strict)"
            raise InputError(f"{outside_words}. What to do: {hint}")
    seconds = perf_counter() - start
    return ScoreReport(
        rows=checks.rows,
        matched=source.matched,
        device=session.device,
        seconds=seconds,
        output=target,
        declares_ranges=any(limits(port) is not None for port in ports),
        outside_rows=outside.rows,
        outside=outside.features,
        outside_words=outside_words,
        rows_per_second=checks.rows / seconds,
        nonfinite=checks.nonfinite,
        nonfinite_words=format_nonfinite(checks.nonfinite, checks.rows, name, lines=checks.lines),
        failed_rows=checks.failed_rows,
        failed=tuple(checks.failed),
        failed_words=format_failed(checks.failed_rows, checks.failed, checks.rows, name),
        rounded=checks.rounded,
    )


def score_batch(session: Session, batch: Batch) -> tuple[Scores, ...]:
    """The scores of each output for a batch; NaN in the rows that could not be read."""
    scores = score(session, batch.rows)
    for each in scores:
        if len(each.outputs) != len(batch):
            counts = f"{len(each.outputs):,} rows for {len(batch):,} rows of data"
            message = f"output '{each.port.name}' has {counts}"
            raise ModelError(f"{message}. What to do: run it with session.run(x), which takes such models")
    if batch.failed is None:
        return scores
    with_nan: list[Scores] = []
    for each in scores:
        outputs = np.array(each.outputs)
        outputs[batch.failed] = np.nan
        with_nan.append(replace(each, outputs=outputs))
    return tuple(with_nan)
