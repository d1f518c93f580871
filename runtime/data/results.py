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

Write = Callable[[Sequence[Scores], "np.ndarray | None"], None]
"""Writes the scores of a batch; rows that could not be read, bool (rows,), are left empty."""
_IN_MEMORY = 1 << 26


@contextmanager
def open_results(target: Path | None) -> Generator[Write]:
    """Write results to a file that appears, complete, once the block ends without an error; or not at all.

    None is standard output, as CSV, likewise at the end. Raises OutputError, InputError (the format cannot hold such
    results) and MissingPackageError.
    """
    if target is not None:
        with whole_file(target) as temporary, open(temporary, "r+b") as file, _writer(target, file) as write:
            yield write
        return
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        try:
            with _writer(Path("results.csv"), file) as write:
                yield write
        except OSError as error:
            hint = "make room for temporary files (TMPDIR), or name an output with -o"
            message = f"the results for standard output cannot be kept: {error.strerror or error}. What to do: {hint}"
            raise OutputError(message) from error
        file.seek(0)
        with TextIOWrapper(file, encoding="utf-8", newline="") as text:
            shutil.copyfileobj(text, sys.stdout)


@contextmanager
def _writer(target: Path, file: IO[bytes]) -> Generator[Write]:
    file_format = format_of(target, results=True)
    purpose = f"writing {file_format.name}"
    if file_format.results == "columns":
        imported("polars", purpose)
    with file_format.load(file_format.write or "", purpose)(file) as write:
        if file_format.results == "columns":
            yield lambda scores, failed: write(results_frame(scores, failed))
        elif file_format.results == "arrays":
            yield lambda scores, _: write(_arrays(scores))  # the outputs of failed rows are NaN
        else:
            yield lambda scores, _: write({scores[0].port.name: scores[0].outputs})


def check_target(target: Path, outputs: Sequence[str]) -> None:
    """Raises InputError for a file that cannot hold the results of these outputs."""
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
