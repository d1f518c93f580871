"""The results of a model for batches of rows, written to a file of any format."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtime.errors import InputError, OutputError
from runtime.extras import imported
from runtime.files import whole_file

from .file_formats import format_of
from .scoring import Scores, columns_of

Write = Callable[[Sequence[Scores], "np.ndarray | None", Any], None]
"""Writes the scores of a batch; rows that could not be read, bool (rows,), are left empty.

Before them it writes the columns of the data to keep, an Arrow table or record batch, or None.
"""
_IN_MEMORY = 1 << 26


@contextmanager
def open_results(target: Path | None, keep: Sequence[str] = ()) -> Generator[Write]:
    """Write results to a file that appears, complete, once the block ends without an error; or not at all.

    The columns ``keep`` of the data come before the results.

    None is standard output, as CSV, likewise at the end. Raises OutputError, InputError (the format cannot hold such
    results) and MissingPackageError.
    """
    if target is not None:
        with whole_file(target) as temporary, open(temporary, "r+b") as file, _writer(target, file, keep) as write:
            yield write
        return
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        try:
            with _writer(Path("results.csv"), file, keep) as write:
                yield write
        except OSError as error:
            hint = "make room for temporary files (TMPDIR), or name an output with -o"
            message = f"the results for standard output cannot be kept: {error.strerror or error}. What to do: {hint}"
            raise OutputError(message) from error
        file.seek(0)
        with TextIOWrapper(file, encoding="utf-8", newline="") as text:
            shutil.copyfileobj(text, sys.stdout)


@contextmanager
def _writer(target: Path, file: IO[bytes], keep: Sequence[str]) -> Generator[Write]:
    file_format = format_of(target, results=True)
    purpose = f"writing {file_format.name}"
    if file_format.results == "columns":
        imported("polars", purpose)
    with file_format.load(file_format.write or "", purpose)(file) as write:
        if file_format.results == "columns":
            yield lambda scores, failed, kept: write(_with_kept(results_frame(scores, failed), kept, keep))
        elif file_format.results == "arrays":
            yield lambda scores, _, __: write(_arrays(scores))  # the outputs of failed rows are NaN
        else:
            yield lambda scores, _, __: write({scores[0].port.name: scores[0].outputs})


def _with_kept(results: Any, kept: Any, keep: Sequence[str]) -> Any:
    """The kept columns, then those of the results. Raises InputError: two of the same name."""
    if not keep:
        return results
    if both := [name for name in keep if name in results.columns]:
        raise InputError(f"column '{both[0]}' cannot be kept, since a column of the results has that name")
    polars = imported("polars", "keeping columns")
    if kept is None:  # there are no rows
        return polars.DataFrame({name: polars.Series([], dtype=polars.String) for name in keep}).hstack(results)
    return polars.DataFrame(polars.from_arrow(kept)).select(keep).hstack(results)


def check_target(target: Path, outputs: Sequence[str], keep: Sequence[str] = ()) -> None:
    """Raises InputError for a file that cannot hold the results of these outputs, and the columns to keep."""
    if keep and format_of(target, results=True).results != "columns":
        raise InputError(f"{target}: a {target.suffix} file keeps no columns. What to do: write a table, such as .csv")
    if format_of(target, results=True).results == "array" and len(outputs) > 1:
        message = f"a {target.suffix} file holds one array, and the model has the outputs {', '.join(outputs)}"
        raise InputError(f"{target}: {message}; write a .npz")


def _arrays(scores: Sequence[Scores]) -> dict[str, np.ndarray]:
    """``outputs``, ``labels`` and ``probabilities``; several outputs have their own names, with the first's labels."""
    arrays = {each.port.name: each.outputs for each in scores} if len(scores) > 1 else {"outputs": scores[0].outputs}
    labels, probabilities = scores[0].labels, scores[0].probabilities
    if labels is not None:
        width = max(map(len, scores[0].port.labels or ("",)))
        arrays["labels"] = np.array(["" if label is None else label for label in labels], dtype=f"<U{max(1, width)}")
    if probabilities is not None:
        arrays["probabilities"] = probabilities
    return arrays


def results_frame(scores: Sequence[Scores], failed: np.ndarray | None) -> Any:
    """The columns of ``columns_of`` as a polars data frame, null in the rows that could not be read (bool)."""
    polars = imported("polars", "writing results")
    columns = columns_of(scores)
    texts = [name for name, values in columns.items() if values.dtype == object]  # String even without rows
    frame = polars.DataFrame(
        {name: values.tolist() if name in texts else values for name, values in columns.items()},
        schema_overrides=dict.fromkeys(texts, polars.String),
    )
    if failed is None:
        return frame
    is_failed = polars.lit(polars.Series(failed))
    return frame.with_columns(
        polars.when(is_failed).then(None).otherwise(polars.col(name)).alias(name) for name in columns
    )
