"""Results into files, batch by batch."""

from __future__ import annotations

import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtime.errors import InputError, OutputError
from runtime.extras import imported
from runtime.files import whole_file

from .scoring import Scores, columns_of

Write = Callable[[Sequence[Scores], "np.ndarray | None"], None]
"""Writes the scores of the next rows, of which those that could not be read (bool) are left empty."""
_GROUP_ROWS, _GROUP_BYTES = 1 << 17, 1 << 26
"""A row group of Parquet ends with whichever is reached first."""
_IN_MEMORY = 1 << 26


@contextmanager
def opened_sink(target: Path | None) -> Iterator[Write]:
    """What writes results into a file, which is there, whole, once the block ends without an error; or not at all.

    None is standard output, as CSV, likewise at the end. Raises OutputError, and InputError for a format that does not
    hold such results.
    """
    if target is not None:
        with (
            whole_file(target) as temporary,
            open(temporary, "r+b") as file,
            SINKS[target.suffix.lower()](file) as write,
        ):
            yield write
        return
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        try:
            with csv_sink(file) as write:
                yield write
        except OSError as error:
            hint = "make room for temporary files (TMPDIR), or name an output with -o"
            message = f"the results for standard output cannot be kept: {error.strerror or error}. What to do: {hint}"
            raise OutputError(message) from error
        file.seek(0)
        with TextIOWrapper(file, encoding="utf-8", newline="") as text:
            shutil.copyfileobj(text, sys.stdout)


@contextmanager
def npy_sink(file: IO[bytes]) -> Iterator[Write]:
    """The outputs alone."""
    with _array(file) as write:
        yield lambda scores, failed: write(scores[0].outputs)


@contextmanager
def _array(file: IO[bytes]) -> Iterator[Callable[[np.ndarray], None]]:
    """A ``.npy`` file of arrays behind each other; its header is written again when their length is known."""
    record: dict[str, Any] = {}
    rows = 0

    def write(array: np.ndarray) -> None:
        nonlocal rows, record
        if not record:
            record = np.lib.format.header_data_from_array_1_0(array)
            np.lib.format.write_array_header_1_0(
                file, record | {"shape": (0, *array.shape[1:]), "fortran_order": False}
            )
        rows += len(array)
        file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")

    yield write
    file.seek(0)  # numpy leaves room in the header for any number of rows
    np.lib.format.write_array_header_1_0(file, record | {"shape": (rows, *record["shape"][1:]), "fortran_order": False})


@contextmanager
def npz_sink(file: IO[bytes]) -> Iterator[Write]:
    """The arrays outputs, labels and probabilities; of several outputs each by its name, and the first's labels."""
    with ExitStack() as stack:
        parts: dict[str, tuple[IO[bytes], Callable[[np.ndarray], None]]] = {}
        writing = stack.enter_context(ExitStack())

        def write(scores: Sequence[Scores], failed: np.ndarray | None) -> None:
            del failed  # their outputs are NaN
            for name, array in _arrays(scores).items():
                if name not in parts:
                    part = stack.enter_context(tempfile.TemporaryFile(dir=Path(file.name).parent))
                    parts[name] = part, writing.enter_context(_array(part))
                parts[name][1](array)

        yield write
        writing.close()
        with zipfile.ZipFile(file, "w") as archive:  # numpy's savez takes no array called "file"
            for name, (part, _) in parts.items():
                part.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    shutil.copyfileobj(part, member, 1 << 20)


def _arrays(scores: Sequence[Scores]) -> dict[str, np.ndarray]:
    arrays = {each.port.name: each.outputs for each in scores} if len(scores) > 1 else {"outputs": scores[0].outputs}
    labels, probabilities = scores[0].labels, scores[0].probabilities
    if labels is not None:
        width = max(map(len, scores[0].port.labels or ("",)))
        arrays["labels"] = np.array(["" if label is None else label for label in labels], dtype=f"<U{max(1, width)}")
    if probabilities is not None:
        arrays["probabilities"] = probabilities
    return arrays


@contextmanager
def csv_sink(file: IO[bytes]) -> Iterator[Write]:
    """The columns of ``columns_of`` under their names."""
    polars = imported("polars", "writing CSV")
    header = True

    def write(scores: Sequence[Scores], failed: np.ndarray | None) -> None:
        nonlocal header
        buffer = BytesIO()  # a full disk is told in our words
        _frame(polars, scores, failed).write_csv(buffer, include_header=header)
        file.write(buffer.getbuffer())
        header = False

    yield write


@contextmanager
def parquet_sink(file: IO[bytes]) -> Iterator[Write]:
    """The columns of ``columns_of``, in row groups."""
    polars, pyarrow, parquet = (imported(n, "writing Parquet") for n in ("polars", "pyarrow", "pyarrow.parquet"))
    waiting: list[Any] = []
    writer: Any = None

    def write(scores: Sequence[Scores], failed: np.ndarray | None) -> None:
        nonlocal writer
        table = results_table(polars, scores, failed)
        if writer is None:
            texts = [field.name for field in table.schema if "string" in str(field.type)]
            writer = parquet.ParquetWriter(file, table.schema, compression="zstd", use_dictionary=texts or False)
        waiting.append(table)
        if sum(t.num_rows for t in waiting) >= _GROUP_ROWS or sum(t.nbytes for t in waiting) >= _GROUP_BYTES:
            flush()

    def flush() -> None:
        table = pyarrow.concat_tables(waiting)
        waiting.clear()
        writer.write_table(table, row_group_size=max(1, table.num_rows))

    try:
        yield write
        if waiting:
            flush()
        writer.close()
    except BaseException:
        if writer is not None:  # or it would try when it is collected
            with suppress(Exception):
                writer.close()
        raise


@contextmanager
def ipc_sink(file: IO[bytes]) -> Iterator[Write]:
    """The columns of ``columns_of`` in Arrow's IPC file format (Feather version 2), uncompressed."""
    polars, pyarrow = (imported(name, "writing Arrow files") for name in ("polars", "pyarrow"))
    writer: Any = None

    def write(scores: Sequence[Scores], failed: np.ndarray | None) -> None:
        nonlocal writer
        table = results_table(polars, scores, failed)
        if writer is None:
            writer = pyarrow.ipc.new_file(file, table.schema)
        writer.write_table(table)

    yield write
    writer.close()


def _frame(polars: Any, scores: Sequence[Scores], failed: np.ndarray | None) -> Any:
    columns = columns_of(scores)
    texts = [name for name, values in columns.items() if values.dtype == object]  # of any rows, even of none
    frame = polars.DataFrame(
        {k: v.tolist() if k in texts else v for k, v in columns.items()},
        schema_overrides=dict.fromkeys(texts, polars.String),
    )
    if failed is None:
        return frame
    lost = polars.lit(polars.Series(failed))
    return frame.with_columns(polars.when(lost).then(None).otherwise(polars.col(name)).alias(name) for name in columns)


def results_table(polars: Any, scores: Sequence[Scores], failed: np.ndarray | None) -> Any:
    """The columns of ``columns_of`` as an Arrow table, null for the rows that could not be read (bool).

    By way of polars: pyarrow's own way from arrays imports pandas where that is installed.
    """
    return _frame(polars, scores, failed).to_arrow(compat_level=polars.CompatLevel.oldest())


SINKS: dict[str, Callable[[IO[bytes]], AbstractContextManager[Write]]] = {
    ".npy": npy_sink,
    ".npz": npz_sink,
    ".csv": csv_sink,
    ".parquet": parquet_sink,
    ".arrow": ipc_sink,
    ".feather": ipc_sink,
}
"""The formats of results."""


def check_target(target: Path, outputs: Sequence[str]) -> None:
    """Raises InputError for a file that cannot hold results of these outputs."""
    if target.suffix.lower() not in SINKS:
        raise InputError(f"{target}: results are written to {', '.join(SINKS)} files, not to '{target.suffix}'")
    if target.suffix.lower() == ".npy" and len(outputs) > 1:
        names = ", ".join(outputs)
        raise InputError(f"{target}: a .npy file holds one array, and the model has the outputs {names}; write a .npz")
